//! Results for people to look at.

pub mod profile;
