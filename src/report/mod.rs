//! Results for people to look at.

pub mod bench;
pub mod plan;
mod plot;
pub mod profile;
pub mod roofline;
pub mod scaling;
pub mod sheet;
