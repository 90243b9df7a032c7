//! Results for people to look at.

pub mod bench;
mod compare;
mod curve;
#[cfg(feature = "dashboard")]
mod dashboard;
mod findings;
mod page;
mod plan;
mod plot;
pub mod profile;
pub mod rates;
mod recorder;
pub mod roofline;
mod run;
pub mod scaling;
mod svg;
mod tensorboard;

pub use compare::Comparison;
pub use curve::Curve;
#[cfg(feature = "dashboard")]
pub use dashboard::{Controls, Dashboard};
pub use plan::{Plan, Target};
pub use recorder::Recorder;
pub use run::RunReport;
pub use tensorboard::TensorBoard;

/// Seconds for people: `42 s`, `3 min 20 s`, `1 h 05 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..=9 => format!("{seconds:.1} s"),
        10..=59 => format!("{whole} s"),
        60..=3599 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}
