//! Keeps `report.html` in a run folder up to date while it is trained.

use super::run::{PAGE, RunReport, State, remembered};
use crate::error::Result;
use crate::model::Model;
use crate::train::{Config, Event, Observer, RunFolder, Seen};
use std::path::PathBuf;

/// Writes a run's page before the first step, after each epoch and at the end.
pub struct Recorder {
    path: PathBuf,
    report: RunReport,
}

impl Recorder {
    /// For the run in `folder`.
    pub fn new(model: &Model, config: &Config, folder: &RunFolder) -> Self {
        let mut report = RunReport::new(folder.name(), model, config, folder.classes(model));
        let path = folder.path().join(PAGE);
        report.history = folder.history().to_vec();
        report.seen = remembered(&path);
        report.seen.state = State::Training;
        let over = report.history.last().map_or(0, |row| row.epoch);
        report.seen.curve.cut(over as f64);
        Self { path, report }
    }
}

impl Observer for Recorder {
    fn event(&mut self, event: &Event) -> Result<()> {
        self.report.seen.curve.observe(event);
        match event {
            Event::Start {
                device,
                images,
                memory,
                ..
            } => {
                self.report.seen.device = Some(device.clone());
                self.report.seen.images = Some(*images);
                self.report.seen.memory = Some(*memory);
                self.report.write(&self.path)
            }
            Event::Profile(profile) => {
                self.report.set_profile(profile);
                Ok(())
            }
            Event::End(summary) => {
                self.report.seen.state = match (summary.stopped, summary.out_of_patience) {
                    (true, _) => State::Stopped,
                    (_, true) => State::OutOfPatience,
                    _ => State::Done,
                };
                self.report.write(&self.path)
            }
            _ => Ok(()),
        }
    }

    fn epoch(&mut self, seen: Seen<'_>) -> Result<()> {
        self.report.history = seen.history.to_vec();
        self.report.best = seen.best;
        self.report.set_weights(seen.weights);
        if let Some(examined) = seen.examined {
            self.report.examine(examined, false)?;
        }
        self.report.write(&self.path)
    }

    fn failed(&mut self, error: &str) -> Result<()> {
        self.report.seen.state = State::Failed(error.to_owned());
        self.report.write(&self.path)
    }
}
