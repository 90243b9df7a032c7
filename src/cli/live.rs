//! `train --dashboard`: whether there is one, and how it and the signals get along.

use super::interrupt::Interrupt;
use gpucnn::model::Model;
use gpucnn::train::{Callbacks, Config, RunFolder};

/// A dashboard to come.
#[cfg(feature = "dashboard")]
pub struct Live(gpucnn::report::Controls);

/// There is none in this program.
#[cfg(not(feature = "dashboard"))]
pub enum Live {}

#[cfg(feature = "dashboard")]
impl Live {
    /// A dashboard, if it is wanted and can be shown. Where it cannot, standard error says why.
    pub fn new(wanted: bool, interrupt: &Interrupt) -> Option<Self> {
        if !wanted {
            return None;
        }
        if let Some(obstacle) = gpucnn::report::Dashboard::obstacle() {
            eprintln!("note: no dashboard: {obstacle}; there are plain bars and lines instead");
            return None;
        }
        Some(Self(interrupt.controls()))
    }

    /// Has signals stop the training by way of the dashboard, which restores the terminal.
    pub fn catch(&self, interrupt: &Interrupt) {
        interrupt.catch_for(&self.0);
    }

    /// Has it watch a training.
    pub fn watch<'a>(
        &self,
        callbacks: Callbacks<'a>,
        model: &Model,
        config: &Config,
        folder: &RunFolder,
    ) -> Callbacks<'a> {
        let controls = self.0.clone();
        let dashboard = gpucnn::report::Dashboard::new(model.name(), config, folder, controls);
        callbacks.observed_by(dashboard)
    }
}

#[cfg(not(feature = "dashboard"))]
impl Live {
    pub fn new(_: bool, _: &Interrupt) -> Option<Self> {
        None
    }

    pub fn catch(&self, _: &Interrupt) {
        match *self {}
    }

    pub fn watch<'a>(
        &self,
        _: Callbacks<'a>,
        _: &Model,
        _: &Config,
        _: &RunFolder,
    ) -> Callbacks<'a> {
        match *self {}
    }
}
