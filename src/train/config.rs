//! The settings of a training run.

use crate::error::{Error, Result};
use crate::model::Model;
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
    /// One of [`Optimizer::NAMES`].
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
    /// How `gpucnn train` trains a model without flags: MNIST, shuffled, seed 0, the best
    /// device; optimizer, batch size and epochs as the model has them.
    ///
    /// ```
    /// use gpucnn::{model::Model, train::Config};
    ///
    /// let model = Model::load("cifar10-cnn")?;
    /// let config = Config { data: "cifar".into(), seed: 7, ..Config::new(&model)? };
    /// assert_eq!(config.optimizer, "rmsprop");
    /// # Ok::<(), gpucnn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Usage`] if the model names an optimizer that is not known.
    pub fn new(model: &Model) -> Result<Self> {
        let defaults = model.training();
        let optimizer = known(&defaults.optimizer)?;
        let own_rate = optimizer.default_learning_rate();
        Ok(Self {
            data: "mnist".into(),
            epochs: defaults.epochs,
            batch_size: defaults.batch_size,
            optimizer: defaults.optimizer.clone(),
            learning_rate: defaults.learning_rate.unwrap_or(own_rate),
            weight_decay: optimizer.weight_decay,
            seed: 0,
            device: "auto".into(),
            limit: None,
            val_split: None,
            shuffle: true,
            log_every: 0,
            profile: false,
        })
    }

    /// The same settings with an optimizer. Another one than before comes with its own
    /// learning rate and weight decay: a rate stated for one says nothing of another.
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the known ones.
    pub fn with_optimizer(mut self, name: &str) -> Result<Self> {
        let optimizer = known(name)?;
        if name != self.optimizer {
            self.optimizer = name.to_owned();
            self.learning_rate = optimizer.default_learning_rate();
            self.weight_decay = optimizer.weight_decay;
        }
        Ok(self)
    }

    /// The optimizer by name, with the weight decay.
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the known ones.
    pub fn optimizer(&self) -> Result<Optimizer> {
        known(&self.optimizer).map(|o| o.with_weight_decay(self.weight_decay))
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

fn known(name: &str) -> Result<Optimizer> {
    Optimizer::by_name(name).ok_or_else(|| {
        Error::Usage(format!(
            "unknown optimizer {name:?}; expected one of {}",
            Optimizer::NAMES.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TrainingDefaults;

    #[test]
    fn a_rate_stated_for_the_models_optimizer_stays_with_it() {
        let model = Model::builder("test", [1, 1, 1])
            .training(TrainingDefaults {
                optimizer: "nesterov".into(),
                learning_rate: Some(0.5),
                ..TrainingDefaults::default()
            })
            .add(crate::model::Flatten)
            .build()
            .unwrap();
        let config = Config::new(&model).unwrap();
        let rate = |name: &str| config.clone().with_optimizer(name).unwrap().learning_rate;
        assert_eq!([rate("nesterov"), rate("sgd")], [0.5, 0.01]);
        let adamw = config.clone().with_optimizer("adamw").unwrap();
        assert_eq!(adamw.optimizer().unwrap(), Optimizer::adamw());
    }
}
