//! The options of `gpucnn train` that say how weights are changed.

use gpucnn::model::TrainingDefaults;
use gpucnn::ops::optimizer::Optimizer;
use gpucnn::train::Config;

#[derive(clap::Args)]
#[command(next_help_heading = "Optimization")]
pub struct Recipe {
    /// sgd, momentum, nesterov, adam, adamw, rmsprop, adagrad or lion [default: the model's, adam]
    #[arg(long, value_name = "NAME")]
    optimizer: Option<String>,
    /// Learning rate [default: the model's, or the optimizer's as in Keras]
    #[arg(long, value_name = "F")]
    learning_rate: Option<f64>,
    /// Weight decay: decoupled with adamw and lion, L2 with the others [default: the model's, or
    /// adamw 0.004, others 0]
    #[arg(long, value_name = "F")]
    weight_decay: Option<f64>,
    /// Share of the target spread evenly over the classes, below 1 [default: the model's, 0]
    #[arg(long, value_name = "F")]
    label_smoothing: Option<f64>,
    /// Weights of the classes in the loss: balanced (by how many images each has), or a number for
    /// each, separated by commas [default: all alike]
    #[arg(long, value_name = "balanced|F,F,…")]
    class_weights: Option<String>,
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
    /// is one
    #[arg(long, value_name = "loss|accuracy", default_value = "loss")]
    monitor: String,
}

impl Recipe {
    /// Puts the options into the settings, the model's where an option is not given.
    pub fn apply(&self, defaults: &TrainingDefaults, config: &mut Config) {
        let name = self.optimizer.as_ref().unwrap_or(&defaults.optimizer);
        let own = Optimizer::by_name(name);
        // What was stated for the model's optimizer says nothing of another.
        let same = *name == defaults.optimizer;
        let rate = defaults.learning_rate.filter(|_| same);
        let rate = self.learning_rate.or(rate);
        let decay = defaults.weight_decay.filter(|_| same);
        let decay = self.weight_decay.or(decay);
        config.optimizer = name.clone();
        config.learning_rate = rate
            .or(own.map(|o| o.default_learning_rate()))
            .unwrap_or(config.learning_rate);
        config.weight_decay = decay
            .or(own.map(|o| o.weight_decay))
            .unwrap_or(config.weight_decay);
        let smoothing = self.label_smoothing;
        config.label_smoothing = smoothing.unwrap_or(defaults.label_smoothing);
        config.class_weights = self.class_weights.clone();
        let schedule = self.schedule.as_ref().unwrap_or(&defaults.schedule);
        let every = defaults.schedule_every;
        let every = every.filter(|_| *schedule == defaults.schedule);
        config.schedule = schedule.clone();
        config.schedule_every = self.schedule_every.or(every);
        config.schedule_factor = self.schedule_factor.unwrap_or(defaults.schedule_factor);
        let least = self.min_learning_rate;
        config.min_learning_rate = least.unwrap_or(defaults.min_learning_rate);
        let share = defaults.warmup / defaults.epochs.max(1) as f64;
        config.warmup = self.warmup.unwrap_or(share * config.epochs as f64);
        config.monitor = self.monitor.clone();
    }
}
