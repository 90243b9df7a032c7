//! The options of `gpucnn train` that say how weights are changed.

use gpucnn::Result;
use gpucnn::model::Model;
use gpucnn::train::{Config, Precision};

#[derive(clap::Args)]
#[command(next_help_heading = "Optimization")]
pub struct Recipe {
    /// Passes over the training images [default: the model's, 10]
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Images a step [default: the model's, 32]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// sgd, momentum, nesterov, adam, adamw, rmsprop, adagrad, lion, muon or muon-normalized
    /// [default: the model's, adam]
    #[arg(long, value_name = "NAME")]
    optimizer: Option<String>,
    /// Learning rate [default: the model's, or the optimizer's as in Keras]
    #[arg(long, value_name = "F")]
    learning_rate: Option<f64>,
    /// Weight decay: decoupled with adamw, lion and the muons, L2 with the others [default: the
    /// model's, or adamw and muon 0.004, others 0]
    #[arg(long, value_name = "F")]
    weight_decay: Option<f64>,
    /// Let weight decay also act on biases and on the scales and shifts of normalisation
    #[arg(long)]
    decay_all: bool,
    /// Multiply the learning rate of the parameters whose names fit PATTERN, as in
    /// 'layer1=0.1' or '*.bias=2'; of several that fit the last one counts; may be given often
    /// [default: the model's, none]
    #[arg(long, value_name = "PATTERN=FACTOR")]
    layer_rate: Vec<String>,
    /// Shorten the gradient of all parameters together to at most this norm [default: the
    /// model's, none]
    #[arg(long, value_name = "F", conflicts_with = "clip_value")]
    clip_norm: Option<f64>,
    /// Clamp each element of the gradient to this magnitude [default: the model's, none]
    #[arg(long, value_name = "F")]
    clip_value: Option<f64>,
    /// Keep moving averages of the weights with this decay, such as 0.999; they are what is
    /// validated and saved [default: the model's, none]
    #[arg(long, value_name = "DECAY")]
    ema: Option<f64>,
    /// Put the gradients of N batches together for an update [default: the model's, 1]
    #[arg(long, value_name = "N")]
    accumulate: Option<usize>,
    /// Compute results of the forward pass again where backward needs them: less memory, more
    /// time, the same bits
    #[arg(long)]
    recompute: bool,
    /// Keep activations, their gradients and the layers' copies of weights in f16: half the
    /// memory; arithmetic, parameters and evaluation stay f32
    #[arg(long, value_name = "f32|f16", default_value = "f32", value_parser = Precision::by_name)]
    precision: Precision,
    /// Share of the target spread evenly over the classes, below 1 [default: the model's, 0]
    #[arg(long, value_name = "F")]
    label_smoothing: Option<f64>,
    /// Weights of the classes in the loss: balanced (by how many images each has), or a number for
    /// each, separated by commas [default: all alike]
    #[arg(long, value_name = "balanced|F,F,…")]
    class_weights: Option<String>,
    /// Normalise bytes: measure (by the mean and the deviation of the training images), none, or
    /// MEAN/STD of bytes over 255, such as 0.1307/0.3081 or 0.5,0.5,0.5/0.2,0.2,0.2
    /// [default: as the model says]
    #[arg(long, value_name = "measure|none|MEAN/STD")]
    normalize: Option<String>,
    /// Change training images at random: a list of flip, vflip, crop=PIXELS, shift=F, zoom=F,
    /// rotate=DEGREES, border=zero|reflect|edge, brightness=F, contrast=F, saturation=F, hue=F,
    /// cutout=PIXELS, erase, mixup=ALPHA and cutmix=ALPHA; or none [default: the model's, none]
    #[arg(long, value_name = "LIST")]
    augment: Option<String>,
    /// Make this share of each weight zero, the smallest magnitudes, and keep it that
    #[arg(long, value_name = "F")]
    prune_to: Option<f64>,
    /// The share of the training in which the zeros rise to --prune-to; 0 for all at once
    /// [default: 0.75]
    #[arg(long, value_name = "F", requires = "prune_to")]
    prune_over: Option<f64>,
    /// How the learning rate changes: constant, step, cosine, one-cycle or plateau
    /// [default: the model's, constant]
    #[arg(long, value_name = "NAME")]
    schedule: Option<String>,
    /// Epochs between the changes of step [default: a third of all], or that plateau waits for a
    /// better score [default: 10]
    #[arg(long, value_name = "EPOCHS")]
    schedule_every: Option<usize>,
    /// What step and plateau multiply the learning rate by [default: 0.1]
    #[arg(long, value_name = "F")]
    schedule_factor: Option<f64>,
    /// The learning rate that cosine ends at and plateau does not go below [default: 0]
    #[arg(long, value_name = "F")]
    min_learning_rate: Option<f64>,
    /// Epochs, also in part, in which the learning rate rises linearly before the schedule begins
    /// [default: the model's, 0]
    #[arg(long, value_name = "EPOCHS")]
    warmup: Option<f64>,
    /// What tells whether training gets better: loss or accuracy, of the validation where there
    /// is one; or val_top5, how many validation images have their class among the five likeliest
    #[arg(long, value_name = "loss|accuracy|val_top5", default_value = "loss")]
    monitor: String,
    /// End after N epochs in which it did not get better than ever before [default: never]
    #[arg(long, value_name = "N")]
    patience: Option<usize>,
}

impl Recipe {
    /// The settings of a training of a model: these, and its own where none is given.
    pub fn config(&self, model: &Model) -> Result<Config> {
        let mut own = Config::new(model)?;
        if let Some(name) = &self.optimizer {
            own = own.with_optimizer(name)?;
        }
        if let Some(name) = &self.schedule {
            own = own.with_schedule(name);
        }
        if let Some(epochs) = self.epochs {
            own = own.with_epochs(epochs);
        }
        let (clip_norm, clip_value) = match (self.clip_norm, self.clip_value) {
            (None, None) => (own.clip_norm, own.clip_value),
            given => given,
        };
        Ok(Config {
            batch_size: self.batch_size.unwrap_or(own.batch_size),
            learning_rate: self.learning_rate.unwrap_or(own.learning_rate),
            schedule_every: self.schedule_every.or(own.schedule_every),
            schedule_factor: self.schedule_factor.unwrap_or(own.schedule_factor),
            min_learning_rate: self.min_learning_rate.unwrap_or(own.min_learning_rate),
            warmup: self.warmup.unwrap_or(own.warmup),
            monitor: self.monitor.clone(),
            patience: self.patience,
            weight_decay: self.weight_decay.unwrap_or(own.weight_decay),
            decay_all: self.decay_all || own.decay_all,
            layer_rates: match self.layer_rate.is_empty() {
                true => own.layer_rates,
                false => self.layer_rate.clone(),
            },
            clip_norm,
            clip_value,
            ema: self.ema.or(own.ema),
            accumulate: self.accumulate.unwrap_or(own.accumulate),
            recompute: self.recompute,
            precision: self.precision,
            label_smoothing: self.label_smoothing.unwrap_or(own.label_smoothing),
            class_weights: self.class_weights.clone(),
            normalize: self.normalize.clone(),
            augment: self.augment.clone().or(own.augment),
            prune_to: self.prune_to,
            prune_over: self.prune_over.unwrap_or(own.prune_over),
            ..own
        })
    }
}
