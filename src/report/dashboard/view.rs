//! What the dashboard knows of a training.

use crate::model::{bytes, grouped};
use crate::report::{Curve, duration};
use crate::train::{Config, Event, HistoryRow, Metrics, RunFolder, Seen};
use std::collections::VecDeque;
use std::time::Duration;

/// Lines kept of what happened.
const LINES: usize = 100;
/// Readbacks whose speed is kept.
const SPEEDS: usize = 120;

/// A training as it stands.
pub(super) struct View {
    pub model: String,
    pub run: String,
    pub device: String,
    pub epochs: usize,
    /// Parameters, training and validation images in a line.
    pub size: String,
    /// Bytes of states and of activations on the device.
    pub memory: [u64; 2],
    pub curve: Curve,
    pub history: Vec<HistoryRow>,
    pub best: Option<usize>,
    pub now: Option<Now>,
    /// Images a second, oldest first.
    pub speeds: VecDeque<u64>,
    /// What happened, oldest first.
    pub lines: VecDeque<String>,
    /// Whether it was asked to stop.
    pub stopping: bool,
}

/// How far the epoch under way is.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub epoch: usize,
    pub done: usize,
    pub total: usize,
    pub metrics: Metrics,
    pub images_per_s: f64,
    pub learning_rate: f64,
}

impl View {
    pub fn new(model: &str, config: &Config, folder: &RunFolder) -> Self {
        let mut curve = Curve::default();
        curve.cut(0.0);
        Self {
            model: model.to_owned(),
            run: folder.path().display().to_string(),
            device: String::new(),
            epochs: config.epochs,
            size: String::new(),
            memory: [0; 2],
            curve,
            history: folder.history().to_vec(),
            best: None,
            now: None,
            speeds: VecDeque::new(),
            lines: VecDeque::new(),
            stopping: false,
        }
    }

    /// Takes in what happened.
    pub fn observe(&mut self, event: &Event) {
        self.curve.observe(event);
        match event {
            Event::Start {
                device,
                parameters,
                images: [train, validation],
                memory,
                ..
            } => {
                self.device.clone_from(device);
                self.memory = *memory;
                let [parameters, train, validation] =
                    [parameters, train, validation].map(|n| grouped(*n as u64));
                self.size = format!(
                    "{parameters} parameters, {train} training and {validation} validation images"
                );
            }
            Event::Progress {
                epoch,
                done,
                total,
                metrics,
                images_per_s,
                learning_rate,
            } => {
                self.now = Some(Now {
                    epoch: *epoch,
                    done: *done,
                    total: *total,
                    metrics: *metrics,
                    images_per_s: *images_per_s,
                    learning_rate: *learning_rate,
                });
                push(&mut self.speeds, images_per_s.max(0.0) as u64, SPEEDS);
            }
            Event::Step { step, loss, .. } => self.line(format!("step {step}: loss {loss:.4}")),
            Event::Skipped { step, .. } => self.line(format!("step {step} was skipped")),
            Event::Epoch(row) => self.line(epoch_line(row)),
            Event::Warning(text) => self.line(format!("warning: {text}")),
            // It comes before there is anything to watch.
            Event::Memory(_) | Event::Profile(_) | Event::End(_) => {}
        }
    }

    /// Takes in the end of an epoch.
    pub fn see(&mut self, seen: Seen<'_>) {
        self.history = seen.history.to_vec();
        self.best = seen.best;
    }

    fn line(&mut self, text: String) {
        push(&mut self.lines, text, LINES);
    }

    /// Validation losses or accuracies over epochs.
    pub fn validation(&self, of: fn(&HistoryRow) -> Option<f64>) -> Vec<(f64, f64)> {
        let rows = self.history.iter();
        rows.filter_map(|row| Some((row.epoch as f64, of(row)?)))
            .collect()
    }

    /// The share of the whole training that is done.
    pub fn share(&self) -> f64 {
        let Some(now) = self.now else { return 0.0 };
        let epochs = (now.epoch - 1) as f64 + now.done as f64 / now.total.max(1) as f64;
        (epochs / self.epochs.max(1) as f64).clamp(0.0, 1.0)
    }

    /// The time left, by the speed of this epoch.
    pub fn left(&self) -> Option<Duration> {
        let now = self.now?;
        let all = now.total as f64 * (self.epochs + 1 - now.epoch.min(self.epochs)) as f64;
        let seconds = (all - now.done as f64) / now.images_per_s;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// What is told in numbers: what it is, and its value.
    pub fn numbers(&self, elapsed: Duration) -> Vec<(&'static str, String)> {
        let last = self.history.last();
        let beside =
            |value: Option<String>| value.map_or(String::new(), |v| format!(", validation {v}"));
        let percent = |share: f64| format!("{:.2}%", 100.0 * share);
        let mut numbers = Vec::new();
        if let Some(now) = self.now {
            let loss = beside(last.and_then(|r| r.val_loss).map(|v| format!("{v:.4}")));
            numbers.push(("loss", format!("{:.4}{loss}", now.metrics.loss())));
            let accuracy = beside(last.and_then(|r| r.val_accuracy).map(percent));
            numbers.push(("accuracy", percent(now.metrics.accuracy()) + &accuracy));
            numbers.push(("learning rate", format!("{:.3e}", now.learning_rate)));
            numbers.push(("images/s", grouped(now.images_per_s.max(0.0) as u64)));
        }
        let left = match self.left() {
            Some(left) => format!(", {} left", duration(left.as_secs_f64())),
            None => String::new(),
        };
        numbers.push(("time", duration(elapsed.as_secs_f64()) + &left));
        if let Some(best) = self.best {
            numbers.push(("best", format!("epoch {best}")));
        }
        let [states, activations] = self.memory;
        numbers.push((
            "memory",
            format!(
                "{}, {} of it activations",
                bytes(states + activations),
                bytes(activations)
            ),
        ));
        numbers
    }
}

fn epoch_line(row: &HistoryRow) -> String {
    let validation = match (row.val_loss, row.val_accuracy) {
        (Some(loss), Some(accuracy)) => {
            format!("; validation {loss:.4}, {:.2}%", 100.0 * accuracy)
        }
        _ => String::new(),
    };
    format!(
        "epoch {}: {:.4}, {:.2}%{validation}",
        row.epoch,
        row.loss,
        100.0 * row.accuracy
    )
}

/// Adds to the end, and drops what is too much from the front.
fn push<T>(queue: &mut VecDeque<T>, value: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(value);
}
