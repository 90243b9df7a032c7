//! Going on after the device failed.
//!
//! A GPU is lost when its driver resets it, when it is unplugged, or when another program
//! takes its memory. What was on it is gone; a device opened anew goes on from the last
//! checkpoint, and so ends in the same bits as if nothing had happened.

use super::run_folder::checkpoint_files;
use super::{Callbacks, Checkpoint, Config, Event, RunFolder, Summary, Weights, resume, train};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::model::Model;
use std::path::Path;
use std::time::{Duration, Instant};

/// How a training goes on after its device failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often to open the device again, counted from the last checkpoint that was
    /// written: a failure that comes back at the same place every time is not mended so.
    pub attempts: usize,
    /// The pause before, for the driver to recover.
    pub pause: Duration,
}

impl Retry {
    /// The first failure ends the training.
    pub const NEVER: Self = Self {
        attempts: 0,
        pause: Duration::ZERO,
    };
}

/// Where a training begins.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// With these weights, as [`train`].
    Weights(&'a Weights),
    /// From a checkpoint, as [`resume`].
    Checkpoint(&'a Checkpoint),
}

/// Trains as [`train`] or [`resume`] does, on a device by `open`. Where that fails while
/// training, it is opened again and the training goes on from the folder's last checkpoint.
/// Each failure is an [`Event::Warning`], and [`Event::Start`] comes again.
///
/// # Errors
/// As [`train`], once `retry` allows no more attempts, or the callbacks stop the training.
#[expect(clippy::too_many_arguments, reason = "those of `train`, and two")]
pub fn train_with_retries(
    model: &Model,
    data: &Dataset,
    config: &Config,
    start: Start<'_>,
    open: &mut dyn FnMut() -> Result<Box<dyn Backend>>,
    folder: &mut RunFolder,
    mut callbacks: Callbacks<'_>,
    retry: Retry,
) -> Result<Summary> {
    let mut reached: Option<Checkpoint> = None;
    let mut failed = 0;
    loop {
        let outcome = open().and_then(|backend| {
            let start = reached.as_ref().map_or(start, Start::Checkpoint);
            let callbacks = callbacks.again();
            match start {
                Start::Weights(weights) => {
                    folder.restart();
                    train(model, data, config, weights, backend, folder, callbacks)
                }
                Start::Checkpoint(from) => {
                    resume(model, data, config, from, backend, folder, callbacks)
                }
            }
        });
        let error = match outcome {
            Err(error) if may_pass(&error, failed) => error,
            outcome => return outcome,
        };
        let latest = folder.checkpoint().ok().map(|(checkpoint, _)| checkpoint);
        let steps = |c: &Option<Checkpoint>| c.as_ref().map(|c| c.position.steps);
        if steps(&latest) > steps(&reached) {
            failed = 0;
        }
        reached = latest;
        if failed == retry.attempts || callbacks.stopped() {
            return Err(error);
        }
        failed += 1;
        callbacks.event(Event::Warning(format!(
            "{error}; opening the device again in {} s, attempt {failed} of {}",
            retry.pause.as_secs_f64(),
            retry.attempts
        )));
        sleep(retry.pause, &callbacks);
        if callbacks.stopped() {
            return Err(error);
        }
    }
}

/// Whether another attempt may fare better. A device that was there and cannot be opened
/// again may still be on its way back.
fn may_pass(error: &Error, failed: usize) -> bool {
    matches!(error, Error::Fault(_)) || (failed > 0 && matches!(error, Error::Device(_)))
}

/// Waits, or until the callbacks stop the training.
fn sleep(pause: Duration, callbacks: &Callbacks<'_>) {
    let until = Instant::now() + pause;
    while !callbacks.stopped() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50).min(pause));
    }
}

/// A failure of the device, or of an image file, with what there is to go on from.
pub(super) fn with_checkpoint(error: Error, run: &Path) -> Error {
    let rest = || match checkpoint_files(run).first() {
        Some(newest) => format!(
            "the last checkpoint is {}: `gpucnn train --resume {}` goes on from it",
            newest.display(),
            run.display()
        ),
        None => "there is no checkpoint to go on from".to_owned(),
    };
    match error {
        Error::Fault(problem) => Error::Fault(format!("{problem}; {}", rest())),
        Error::Data { path, problem } => Error::data(path, format!("{problem}; {}", rest())),
        other => other,
    }
}
