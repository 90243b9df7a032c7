//! The settings of a training run.

use crate::error::{Error, Result};
use crate::ops::optimizer::Optimizer;
use serde::{Deserialize, Serialize};

/// All settings of a run, resolved: what `config.toml` in the run folder holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The data set's name or folder.
    pub data: String,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step.
    pub batch_size: usize,
    /// sgd, momentum, nesterov, adam, adamw or rmsprop.
    pub optimizer: String,
    /// Learning rate.
    pub learning_rate: f64,
    /// Weight decay: decoupled with adamw and lion, L2 with the others.
    pub weight_decay: f64,
    /// Seed of initial weights, shuffling and dropout.
    pub seed: u32,
    /// The device that was asked for: auto, cpu, or part of a name.
    pub device: String,
    /// Train on the first so many images only.
    pub limit: Option<usize>,
    /// The fraction of the training images set aside for validation, from the end;
    /// without one, the test images validate.
    pub val_split: Option<f64>,
    /// Whether each epoch sees the images in another order.
    pub shuffle: bool,
    /// Report every so many steps; 0 for never.
    pub log_every: usize,
    /// Time the dispatches of a step after training.
    #[serde(skip)]
    pub profile: bool,
}

impl Config {
    /// The optimizer by name, with the weight decay.
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the known ones.
    pub fn optimizer(&self) -> Result<Optimizer> {
        Optimizer::by_name(&self.optimizer)
            .map(|o| o.with_weight_decay(self.weight_decay))
            .ok_or_else(|| {
                Error::Usage(format!(
                    "unknown optimizer {:?}; expected one of {}",
                    self.optimizer,
                    Optimizer::NAMES.join(", ")
                ))
            })
    }

    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the flag, the range and what was found.
    pub fn check(&self) -> Result<()> {
        let fail = |flag: &str, wanted: &str, found: String| {
            Err(Error::Usage(format!(
                "{flag} must be {wanted}, found {found}"
            )))
        };
        if self.epochs == 0 {
            return fail("--epochs", "at least 1", "0".into());
        }
        if self.batch_size == 0 {
            return fail("--batch-size", "at least 1", "0".into());
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return fail(
                "--learning-rate",
                "a positive number",
                self.learning_rate.to_string(),
            );
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return fail(
                "--weight-decay",
                "zero or a positive number",
                self.weight_decay.to_string(),
            );
        }
        if let Some(split) = self.val_split
            && !(split > 0.0 && split < 1.0)
        {
            return fail("--val-split", "between 0 and 1", split.to_string());
        }
        if self.limit == Some(0) {
            return fail("--limit", "at least 1", "0".into());
        }
        self.optimizer().map(drop)
    }
}
