//! Results for people to look at.

pub mod bench;
pub mod plan;
pub mod profile;
pub mod roofline;
