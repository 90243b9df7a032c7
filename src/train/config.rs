//! The settings of a training run.

use super::feed::Part;
use super::method::{LayerRates, Method, OnNan, Precision, class_weights};
use super::monitor::Monitor;
use super::normalize;
use super::schedule::{Policy, Schedule};
use crate::compress;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::ops::augment::Augmentation;
use crate::ops::optimizer::{Clip, Optimizer};
use serde::{Deserialize, Serialize};
use std::fmt::Display;

/// All settings of a run, resolved: what `config.toml` in the run folder holds. A setting
/// that a file lacks has its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data set's name or folder.
    pub data: String,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step.
    pub batch_size: usize,
    /// One of [`Optimizer::NAMES`].
    pub optimizer: String,
    /// Learning rate; the highest, where a schedule changes it.
    pub learning_rate: f64,
    /// constant (the default), step, cosine, one-cycle or plateau; see [`Policy`].
    pub schedule: String,
    /// Epochs between two changes of step (default: a third of all, rounded up), patience
    /// of plateau (10).
    pub schedule_every: Option<usize>,
    /// What step and plateau multiply the rate by: 0.1.
    pub schedule_factor: f64,
    /// The rate that cosine ends at and plateau does not go below: 0.
    pub min_learning_rate: f64,
    /// Epochs, also in part, of linear warm-up before the schedule: 0.
    pub warmup: f64,
    /// Whether the loss (the default) or the accuracy tells if training gets better; of the
    /// validation where there is one.
    pub monitor: String,
    /// Training ends after as many epochs without a better [`monitor`](Self::monitor) than the
    /// best before (Keras's `EarlyStopping`); never, by default.
    pub patience: Option<usize>,
    /// Weight decay: decoupled with adamw and lion, L2 with the others.
    pub weight_decay: f64,
    /// Whether weight decay also acts on biases and on the scales and shifts of
    /// normalisation: no; see [`Method::decay_all`].
    pub decay_all: bool,
    /// What the learning rate of some parameters is multiplied by: `PATTERN=FACTOR` each, see
    /// [`LayerRates`].
    pub layer_rates: Vec<String>,
    /// The largest norm of the gradient of all parameters together, weight decay left out;
    /// longer ones are made as short as that (Pascanu et al. 2013; Keras's
    /// `global_clipnorm`). Any, by default.
    pub clip_norm: Option<f64>,
    /// The largest magnitude of a gradient's elements; larger ones are clamped to it
    /// (Keras's `clipvalue`). Any, by default. Not together with `clip_norm`.
    pub clip_value: Option<f64>,
    /// The decay of an exponential moving average of the weights, such as 0.999: after each
    /// update t, `average += (1 - d)(weights - average)` with
    /// `d = min(decay, (1 + t) / (10 + t))`, of parameters and of running statistics alike
    /// (Polyak and Juditsky 1992; TensorFlow's `ExponentialMovingAverage`). The averages are
    /// what is validated, and what `weights.safetensors` and `best.safetensors` hold; the
    /// weights themselves are in the checkpoints only. None, by default.
    pub ema: Option<f64>,
    /// Batches whose gradients are put together for an update: 1. As many batches are the
    /// same as one that is as many times as large, but for rounding, batch normalisation
    /// (which sees each batch alone) and class weights (each batch divides by its own labels'
    /// weights). Steps are counted in batches; schedules and averages in updates.
    pub accumulate: usize,
    /// Whether results of the forward pass are computed again where backward needs them, so
    /// that fewer are kept: no. It takes more time and changes no bit.
    pub recompute: bool,
    /// How activations, their gradients and the layers' copies of weights are kept: f32.
    pub precision: Precision,
    /// Share of the target spread evenly over the classes, from 0 (the default) up to 1,
    /// excluded (Szegedy et al. 2016). The losses that are reported are without it.
    pub label_smoothing: f64,
    /// `balanced`, or a weight for each class, separated by commas; see
    /// [`Method::class_weights`]. The losses that are reported are without them.
    pub class_weights: Option<String>,
    /// `measure`, `none`, or means and deviations such as `0.1307/0.3081`: how bytes are
    /// normalised, see [`normalized`](super::normalized). As the model says, by default.
    pub normalize: Option<String>,
    /// How training images are changed at random: a list such as `flip,crop=4`, see
    /// [`Augmentation`]. Not at all, by default.
    pub augment: Option<String>,
    /// The share of each weight that training makes zero, the smallest magnitudes, for a
    /// sparse model. None, by default.
    pub prune_to: Option<f64>,
    /// The share of the training in which the zeros rise to that, see
    /// [`compress::Schedule`](crate::compress::Schedule): 0.75; with 0 all at once, before
    /// the first step.
    pub prune_over: f64,
    /// What becomes of a step whose loss or gradients are not finite.
    pub on_nan: OnNan,
    /// Seed of initial weights, shuffling, augmentation and dropout.
    pub seed: u32,
    /// The device that was asked for: auto, cpu, or part of a name.
    pub device: String,
    /// Train on the first so many images only.
    pub limit: Option<usize>,
    /// The fraction of the training images set aside for validation, from the end;
    /// without one, the test images validate.
    pub val_split: Option<f64>,
    /// MiB of images to keep on the device; of more, a part is there at a time and the rest
    /// is streamed, to the same result. By default as many as four bindings of the device
    /// hold, at most 2048 and half of the memory there is.
    pub data_budget: Option<u64>,
    /// MiB of memory that the training may take on the device, see
    /// [`Estimate`](super::Estimate). By default what is free, where that can be told.
    pub memory_budget: Option<u64>,
    /// Whether each epoch sees the images in another order.
    pub shuffle: bool,
    /// Report every so many steps; 0 for never.
    pub log_every: usize,
    /// Minutes between checkpoints within an epoch; 0 for none but at each epoch's end.
    pub checkpoint_minutes: f64,
    /// Checkpoints kept.
    pub keep_checkpoints: usize,
    /// How often each dispatch of a step is timed after training, for the median; 0 for not.
    #[serde(skip)]
    pub profile: usize,
}

impl Default for Config {
    /// Those of `gpucnn train` without arguments: Keras's for the MNIST classic.
    fn default() -> Self {
        Self {
            data: "mnist".into(),
            epochs: 10,
            batch_size: 32,
            optimizer: "adam".into(),
            learning_rate: 0.001,
            schedule: "constant".into(),
            schedule_every: None,
            schedule_factor: 0.1,
            min_learning_rate: 0.0,
            warmup: 0.0,
            monitor: "loss".into(),
            patience: None,
            weight_decay: 0.0,
            decay_all: false,
            layer_rates: Vec::new(),
            clip_norm: None,
            clip_value: None,
            ema: None,
            accumulate: 1,
            recompute: false,
            precision: Precision::F32,
            label_smoothing: 0.0,
            class_weights: None,
            normalize: None,
            augment: None,
            prune_to: None,
            prune_over: 0.75,
            on_nan: OnNan::Stop,
            seed: 0,
            device: "auto".into(),
            limit: None,
            val_split: None,
            data_budget: None,
            memory_budget: None,
            shuffle: true,
            log_every: 0,
            checkpoint_minutes: 10.0,
            keep_checkpoints: 2,
            profile: 0,
        }
    }
}

impl Config {
    /// How `gpucnn train` trains a model without flags: MNIST, shuffled, seed 0, the best
    /// device; all else as the model has it.
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
            epochs: defaults.epochs,
            batch_size: defaults.batch_size,
            optimizer: defaults.optimizer.clone(),
            learning_rate: defaults.learning_rate.unwrap_or(own_rate),
            schedule: defaults.schedule.clone(),
            schedule_every: defaults.schedule_every,
            schedule_factor: defaults.schedule_factor,
            min_learning_rate: defaults.min_learning_rate,
            warmup: defaults.warmup,
            weight_decay: defaults.weight_decay.unwrap_or(optimizer.weight_decay),
            decay_all: defaults.decay_all,
            layer_rates: defaults.layer_rates.clone(),
            clip_norm: defaults.clip_norm,
            clip_value: defaults.clip_value,
            ema: defaults.ema,
            accumulate: defaults.accumulate,
            label_smoothing: defaults.label_smoothing,
            augment: defaults.augment.clone(),
            ..Self::default()
        })
    }

    /// The same settings with another number of epochs, of which the warm-up has the same
    /// share as before.
    #[must_use]
    pub fn with_epochs(mut self, epochs: usize) -> Self {
        self.warmup *= epochs as f64 / self.epochs.max(1) as f64;
        self.epochs = epochs;
        self
    }

    /// The same settings with a schedule, see [`Policy`]; another one than before with its
    /// own [`schedule_every`](Self::schedule_every).
    #[must_use]
    pub fn with_schedule(mut self, name: &str) -> Self {
        if name != self.schedule {
            self.schedule = name.to_owned();
            self.schedule_every = None;
        }
        self
    }

    /// The same settings with an optimizer. Another one than before comes with its own
    /// learning rate and weight decay and with no [`layer_rates`](Self::layer_rates): rates
    /// stated for one say nothing of another.
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the known ones.
    pub fn with_optimizer(mut self, name: &str) -> Result<Self> {
        let optimizer = known(name)?;
        if name != self.optimizer {
            self.optimizer = name.to_owned();
            self.learning_rate = optimizer.default_learning_rate();
            self.weight_decay = optimizer.weight_decay;
            self.layer_rates = Vec::new();
        }
        Ok(self)
    }

    /// Bytes of images to keep on a device that binds at most `max_binding` of one tensor and
    /// has `memory`, where that is known.
    pub(super) fn data_bytes(&self, max_binding: u64, memory: Option<u64>) -> u64 {
        let given = self.data_budget.map(|mib| mib.saturating_mul(1 << 20));
        let half = memory.map_or(u64::MAX, |bytes| bytes / 2);
        given.unwrap_or_else(|| Part::default_budget(max_binding).min(half))
    }

    /// The schedule of a training of `updates` updates an epoch.
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the known ones.
    pub fn schedule(&self, updates: usize) -> Result<Schedule> {
        let policy = Policy::by_name(
            &self.schedule,
            self.epochs,
            self.schedule_every,
            self.schedule_factor,
            self.min_learning_rate,
        )?;
        let (rate, warmup) = (self.learning_rate, self.warmup);
        Ok(Schedule::new(policy, rate, warmup, self.epochs, updates))
    }

    /// How zeros rise in a training of `steps` steps in all, where it prunes.
    pub fn pruning(&self, steps: usize) -> Option<compress::Schedule> {
        let end = (self.prune_over * steps as f64) as u32;
        self.prune_to.map(|to| compress::Schedule { to, end })
    }

    /// What tells whether training gets better.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the two.
    pub fn monitor(&self) -> Result<Monitor> {
        Monitor::by_name(&self.monitor)
    }

    /// How a model is trained on images with these labels.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no such optimizer, or class weights or layer rates do not
    /// fit.
    pub fn method(&self, labels: &[u32], model: &Model) -> Result<Method> {
        let weights = self.class_weights.as_ref();
        let weights = weights.map(|text| class_weights(text, labels, model.classes()));
        Ok(Method {
            label_smoothing: self.label_smoothing,
            class_weights: weights.transpose()?,
            decay_all: self.decay_all,
            layer_rates: LayerRates::parse(&self.layer_rates, model)?,
            ema: self.ema,
            accumulate: self.accumulate,
            recompute: self.recompute,
            precision: self.precision,
            augmentation: self.augmentation()?,
            prunes: self.prune_to.is_some(),
            on_nan: self.on_nan,
            clip: match self.clip_norm {
                Some(most) => Some(Clip::Norm(most)),
                None => self.clip_value.map(Clip::Value),
            },
            ..Method::from(self.optimizer()?)
        })
    }

    /// How training images are changed at random.
    ///
    /// # Errors
    /// [`Error::Usage`] that names what is wrong in the list.
    pub fn augmentation(&self) -> Result<Augmentation> {
        self.augment.as_deref().unwrap_or("none").parse()
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
        self.check_counts()?;
        self.check_numbers()?;
        self.check_shares()?;
        self.check_together()?;
        self.schedule(1)?;
        self.monitor()?;
        self.augmentation()?;
        self.normalize.as_deref().map_or(Ok(()), normalize::check)?;
        self.optimizer().map(drop)
    }

    fn check_counts(&self) -> Result<()> {
        let counts = [
            ("--epochs", Some(self.epochs)),
            ("--batch-size", Some(self.batch_size)),
            ("--limit", self.limit),
            ("--patience", self.patience),
            ("--accumulate", Some(self.accumulate)),
            ("--keep-checkpoints", Some(self.keep_checkpoints)),
            ("--schedule-every", self.schedule_every),
        ];
        for (flag, value) in counts {
            require(flag, value != Some(0), "at least 1", 0)?;
            // Products of any two, and of one with a number of images, fit 64 bits.
            let value = value.unwrap_or(1);
            require(flag, i32::try_from(value).is_ok(), "below 2^31", value)?;
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<()> {
        let positive = [
            ("--learning-rate", Some(self.learning_rate)),
            ("--schedule-factor", Some(self.schedule_factor)),
            ("--clip-norm", self.clip_norm),
            ("--clip-value", self.clip_value),
        ];
        for (flag, value) in positive {
            let fine = value.is_none_or(|v| v.is_finite() && v > 0.0);
            require(flag, fine, "a positive number", value.unwrap_or(0.0))?;
        }
        let from_zero = [
            ("--weight-decay", self.weight_decay),
            ("--min-learning-rate", self.min_learning_rate),
            ("--warmup", self.warmup),
            ("--checkpoint-minutes", self.checkpoint_minutes),
        ];
        for (flag, value) in from_zero {
            let fine = value.is_finite() && value >= 0.0;
            require(flag, fine, "zero or a positive number", value)?;
        }
        let wanted = format!("less than the {} epochs", self.epochs);
        let shorter = self.warmup < self.epochs as f64;
        require("--warmup", shorter, &wanted, self.warmup)
    }

    fn check_shares(&self) -> Result<()> {
        for (flag, value) in [
            ("--val-split", self.val_split),
            ("--ema", self.ema),
            ("--prune-to", self.prune_to),
        ] {
            let value = value.unwrap_or(0.5);
            require(flag, value > 0.0 && value < 1.0, "between 0 and 1", value)?;
        }
        let over = self.prune_over;
        let fine = (0.0..=1.0).contains(&over);
        require("--prune-over", fine, "from 0 to 1", over)?;
        let smoothing = self.label_smoothing;
        let fine = (0.0..1.0).contains(&smoothing);
        let wanted = "from 0 up to 1, excluded";
        require("--label-smoothing", fine, wanted, smoothing)
    }

    /// What does not go with what.
    fn check_together(&self) -> Result<()> {
        let clips = [self.clip_norm, self.clip_value].map(|clip| clip.is_some());
        let f16_on_cpu = self.device == "cpu" && self.precision == Precision::F16;
        let steps_of_one_size = self.optimizer()?.matrices.is_some();
        let problem = if clips == [true, true] {
            "--clip-norm and --clip-value exclude each other; give one"
        } else if f16_on_cpu {
            "--precision f16 is for GPUs and software adapters; --device cpu computes in f64 and \
             keeps f32"
        } else if steps_of_one_size && clips != [false, false] {
            "--clip-norm and --clip-value do not go with muon, whose steps have one size however \
             large the gradient is; leave them out"
        } else {
            return Ok(());
        };
        Err(Error::Usage(problem.into()))
    }
}

/// An error that names the flag, unless its value is fine.
fn require(flag: &str, fine: bool, wanted: &str, found: impl Display) -> Result<()> {
    if fine {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{flag} must be {wanted}, found {found}"
    )))
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
    fn presets_train_as_their_papers_do() {
        for (name, optimizer, rate, decay, epochs, schedule) in [
            ("vgg11-bn", "nesterov", 0.05, 5e-4, 100, "cosine"),
            ("resnet20", "nesterov", 0.1, 1e-4, 164, "cosine"),
            ("resnet18", "nesterov", 0.1, 5e-4, 200, "cosine"),
            ("resnet18-imagenet", "momentum", 0.05, 1e-4, 90, "step"),
            ("wide-resnet-16-4", "nesterov", 0.1, 5e-4, 200, "cosine"),
            ("mobilenet-v2", "nesterov", 0.1, 5e-4, 200, "cosine"),
            ("convnext-atto", "adamw", 7e-4, 0.05, 200, "cosine"),
            ("vgg11-bn-imagenet", "momentum", 0.005, 1e-4, 90, "step"),
            ("vgg16-bn-imagenet", "momentum", 0.005, 1e-4, 90, "step"),
        ] {
            let config = Config::new(&Model::load(name).unwrap()).unwrap();
            let found = (
                config.optimizer.as_str(),
                config.learning_rate,
                config.weight_decay,
                config.epochs,
                config.schedule.as_str(),
            );
            let expected = (optimizer, rate, decay, epochs, schedule);
            assert_eq!(found, expected, "{name}");
            assert_eq!(config.batch_size, 128, "{name}");
            let augmentation = config.augmentation().unwrap();
            let cropped = !name.ends_with("imagenet");
            assert_eq!(
                (augmentation.flip, augmentation.crop),
                match cropped {
                    true => (0.5, 4),
                    false => (0.0, 0),
                }
            );
            config.check().unwrap();
        }
        for name in Model::presets() {
            let config = Config::new(&Model::load(name).unwrap()).unwrap();
            // However few the epochs, the warm-up fits.
            config.with_epochs(1).check().unwrap();
        }
    }

    #[test]
    fn other_epochs_keep_the_share_of_the_warmup() {
        let config = Config {
            epochs: 20,
            warmup: 5.0,
            schedule: "step".into(),
            schedule_every: Some(7),
            ..Config::default()
        };
        let config = config.with_epochs(4);
        assert_eq!((config.epochs, config.warmup), (4, 1.0));
        let every = |name| config.clone().with_schedule(name).schedule_every;
        assert_eq!([every("step"), every("plateau")], [Some(7), None]);
    }

    #[test]
    fn a_rate_stated_for_the_models_optimizer_stays_with_it() {
        let model = Model::builder("test", [1, 1, 1])
            .training(TrainingDefaults {
                optimizer: "nesterov".into(),
                learning_rate: Some(0.5),
                layer_rates: vec!["dense=2".into()],
                ..TrainingDefaults::default()
            })
            .add(crate::model::Flatten)
            .build()
            .unwrap();
        let config = Config::new(&model).unwrap();
        let rate = |name: &str| config.clone().with_optimizer(name).unwrap().learning_rate;
        assert_eq!([rate("nesterov"), rate("sgd")], [0.5, 0.01]);
        let factors = |name: &str| config.clone().with_optimizer(name).unwrap().layer_rates;
        assert_eq!([factors("nesterov").len(), factors("sgd").len()], [1, 0]);
        let adamw = config.clone().with_optimizer("adamw").unwrap();
        assert_eq!(adamw.optimizer().unwrap(), Optimizer::adamw());
    }
}
