//! Results for people to look at.

pub mod bench;
pub mod profile;
pub mod roofline;
