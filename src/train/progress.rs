//! What an epoch has come to, from the rows of metrics that come back.

use super::feed::Metrics;
use super::method::OnNan;
use super::{Callbacks, Config, Event, Position};
use crate::ops::Step;
use std::time::Instant;

/// An epoch so far.
pub(super) struct Progress<'a> {
    pub(super) position: &'a mut Position,
    total: usize,
    config: &'a Config,
    started: Instant,
    /// Seconds of the epoch before that.
    earlier: f64,
}

impl<'a> Progress<'a> {
    pub(super) fn new(position: &'a mut Position, total: usize, config: &'a Config) -> Self {
        Self {
            earlier: position.seconds,
            position,
            total,
            config,
            started: Instant::now(),
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.earlier + self.started.elapsed().as_secs_f64()
    }

    /// Counts steps that came back, with their rows; up to one that is not finite, which is
    /// returned, or without such ones.
    pub(super) fn add(
        &mut self,
        steps: &[Step],
        rows: &[Metrics],
        callbacks: &mut Callbacks<'_>,
    ) -> Option<Step> {
        let epoch = self.position.epoch;
        let log_every = self.config.log_every;
        let mut diverged = None;
        for (step, row) in steps.iter().zip(rows) {
            if row.not_finite && self.config.on_nan == OnNan::Stop {
                diverged = Some(*step);
                break;
            }
            self.position.steps = step.number;
            self.position.images += step.count as usize;
            if row.not_finite {
                self.position.skipped += 1;
                let step = step.number;
                callbacks.event(Event::Skipped { step, epoch });
                continue;
            }
            self.position.metrics.add(row);
            if log_every > 0 && (step.number as usize).is_multiple_of(log_every) {
                callbacks.event(Event::Step {
                    step: step.number,
                    epoch,
                    loss: row.loss(),
                    images_per_s: self.images_per_s(),
                });
            }
        }
        callbacks.event(Event::Progress {
            epoch,
            done: self.position.images,
            total: self.total,
            metrics: self.position.metrics,
            images_per_s: self.images_per_s(),
            learning_rate: steps.last().map_or(0.0, |step| step.learning_rate),
        });
        diverged
    }

    fn images_per_s(&self) -> f64 {
        self.position.images as f64 / self.seconds().max(1e-9)
    }
}
