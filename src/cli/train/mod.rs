//! `gpucnn train`

mod reporter;

use super::interrupt::Interrupt;
use super::live::Live;
use super::recipe::Recipe;
use super::transfer::Transfer;
use super::{output, shared};
use gpucnn::data::{Dataset, Sheet};
use gpucnn::formats::atomic;
use gpucnn::graph::Backend;
use gpucnn::model::Model;
use gpucnn::report::{TensorBoard, rates};
use gpucnn::train::{
    self, Callbacks, Config, Event, OnNan, Preview, Retry, RunFolder, Start, Sweep, Weights,
};
use gpucnn::{Error, Result};
use reporter::Reporter;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Once;
use std::time::Duration;

/// What a driver may take to recover.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Train a model.
///
/// Without arguments: the MNIST classic (mnist-cnn) on the MNIST that ships with the
/// sources, Adam, batches of 32, 10 epochs. Ctrl-C or SIGTERM ends it early and saves the model
/// as it is then, and --resume goes on from there; a second one ends it at once.
#[derive(clap::Args)]
#[command(mut_args(refused_with_resume))]
pub struct Args {
    /// mnist-cnn, cifar10-cnn, lenet5, vgg11-bn, resnet20, resnet18, resnet18-imagenet,
    /// wide-resnet-16-4, mobilenet-v2, vgg11-bn-imagenet, vgg16-bn-imagenet,
    /// convnext-atto, speedrun, or a model file (TOML)
    #[arg(default_value = "mnist-cnn")]
    model: String,
    /// Data set: a name (mnist) or a folder [default: mnist]
    #[arg(long, value_name = "NAME|DIR")]
    data: Option<String>,
    #[command(flatten)]
    recipe: Recipe,
    /// Seed of initial weights, shuffling, augmentation and dropout
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u32,
    /// auto, cpu (the reference path, slow) or part of an adapter's name [default: auto]
    #[arg(long, value_name = "auto|cpu|NAME")]
    device: Option<String>,
    /// The run folder [default: runs/MODEL-NUMBER]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Train on the first N images only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Validate on this fraction of the training images, from their end, not on the test images
    #[arg(long, value_name = "F")]
    val_split: Option<f64>,
    #[command(flatten)]
    transfer: Transfer,
    /// Where the loss or a gradient is not finite: stop, and name the layer it began in, or
    /// skip the step [default: stop]
    #[arg(long, value_name = "stop|skip")]
    on_nan: Option<String>,
    /// Keep at most N MiB of images on the device and stream the rest; the result is the same
    /// [default: what four bindings of the device hold, at most 2048]
    #[arg(long, value_name = "MIB")]
    data_budget: Option<u64>,
    /// Keep at most N MiB of decoded image files in the host's memory; where there are more,
    /// decode each file when it is needed; the result is the same [default: half of what is free]
    #[arg(long, value_name = "MIB")]
    host_budget: Option<u64>,
    /// Take at most this much of the device's memory, such as 4GiB or 500MB; a number alone is
    /// MiB [default: what is free, where the device tells]
    #[arg(long, value_name = "SIZE", value_parser = shared::mebibytes)]
    memory_budget: Option<u64>,
    /// Write a picture of training images as the model will see them, and end
    #[arg(long, value_name = "FILE.png")]
    preview: Option<PathBuf>,
    /// Take the images in the order they are stored
    #[arg(long)]
    no_shuffle: bool,
    /// Look for a good learning rate instead of training: a short sweep from 1e-7 to 10, a
    /// suggestion, and the plot as SVG [default file: find-lr.svg]
    #[arg(long, value_name = "FILE.svg", num_args = 0..=1, default_missing_value = "find-lr.svg")]
    find_lr: Option<PathBuf>,
    /// Report every N steps; 0 for never [default: 0]
    #[arg(long, value_name = "N")]
    log_every: Option<usize>,
    /// Go on with the run in this folder where it stopped, with its own settings; --epochs may
    /// be larger
    #[arg(long, value_name = "RUN")]
    resume: Option<PathBuf>,
    /// Write a checkpoint every N minutes (10, 0.5, …), besides that of each epoch's end; 0 for
    /// none [default: 10]
    #[arg(long, value_name = "N")]
    checkpoint_minutes: Option<f64>,
    /// Keep the last N checkpoints [default: 2]
    #[arg(long, value_name = "N")]
    keep_checkpoints: Option<usize>,
    /// Where the device fails, open it again and go on from the last checkpoint, up to N times
    /// in a row [default: never; 3 without a number]
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "3"
    )]
    retry_device: Option<usize>,
    /// After training, print the time of each part of a step and write a trace for Perfetto
    #[arg(long)]
    profile: bool,
    /// Show curves and numbers in the terminal as they come, over the whole screen; q stops and
    /// saves
    #[cfg(feature = "dashboard")]
    #[arg(long, conflicts_with = "json")]
    dashboard: bool,
    /// Write event files for TensorBoard into the run folder
    #[arg(long)]
    tensorboard: bool,
    /// One JSON object a line on standard output
    #[arg(long)]
    json: bool,
}

impl Args {
    fn config(&self, model: &Model) -> Result<Config> {
        let config = self.recipe.config(model)?;
        let minutes = self.checkpoint_minutes;
        let mut config = Config {
            data: self.data.clone().unwrap_or(config.data),
            seed: self.seed,
            device: self.device.clone().unwrap_or(config.device),
            limit: self.limit,
            val_split: self.val_split,
            data_budget: self.data_budget,
            memory_budget: self.memory_budget,
            shuffle: !self.no_shuffle,
            on_nan: self.on_nan(config.on_nan)?,
            log_every: self.log_every.unwrap_or(config.log_every),
            checkpoint_minutes: minutes.unwrap_or(config.checkpoint_minutes),
            keep_checkpoints: self.keep_checkpoints.unwrap_or(config.keep_checkpoints),
            ..config
        };
        config.profile = self.timings(&config.device);
        config.check()?;
        Ok(config)
    }

    #[cfg(feature = "dashboard")]
    fn wants_dashboard(&self) -> bool {
        self.dashboard
    }

    #[cfg(not(feature = "dashboard"))]
    fn wants_dashboard(&self) -> bool {
        false
    }

    /// How often the report's times are taken, or those that are asked for. The reference path
    /// has none.
    fn timings(&self, device: &str) -> usize {
        match (self.profile, device) {
            (true, _) => 9,
            (false, "cpu") => 0,
            (false, _) => 3,
        }
    }

    fn on_nan(&self, otherwise: OnNan) -> Result<OnNan> {
        let name = self.on_nan.as_deref();
        name.map_or(Ok(otherwise), OnNan::by_name)
    }

    /// The settings of the run in `folder`, with what may change when it goes on.
    fn resumed_config(&self, folder: &RunFolder) -> Result<Config> {
        let mut config = folder.config()?;
        if let Some(epochs) = self.recipe.epochs.filter(|n| *n < config.epochs) {
            return Err(Error::Usage(format!(
                "--epochs {epochs} contradicts the {} that {} is set to; it may only be larger",
                config.epochs,
                folder.path().display()
            )));
        }
        config.epochs = self.recipe.epochs.unwrap_or(config.epochs);
        config.device = self.device.clone().unwrap_or(config.device);
        config.log_every = self.log_every.unwrap_or(config.log_every);
        config.on_nan = self.on_nan(config.on_nan)?;
        let minutes = self.checkpoint_minutes;
        config.checkpoint_minutes = minutes.unwrap_or(config.checkpoint_minutes);
        config.keep_checkpoints = self.keep_checkpoints.unwrap_or(config.keep_checkpoints);
        config.data_budget = self.data_budget.or(config.data_budget);
        config.memory_budget = self.memory_budget.or(config.memory_budget);
        config.profile = self.timings(&config.device);
        config.check()?;
        Ok(config)
    }
}

/// Sets an option at odds with --resume, unless it changes no bit of the steps that are
/// left. So a new option is refused until it is known to be harmless.
fn refused_with_resume(arg: clap::Arg) -> clap::Arg {
    const HARMLESS: [&str; 15] = [
        "resume",
        "epochs",
        "device",
        "log_every",
        "data_budget",
        "host_budget",
        "memory_budget",
        "checkpoint_minutes",
        "keep_checkpoints",
        "retry_device",
        "on_nan",
        "profile",
        "dashboard",
        "tensorboard",
        "json",
    ];
    match HARMLESS.contains(&arg.get_id().as_str()) {
        true => arg,
        false => arg.conflicts_with("resume"),
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.resume {
        Some(path) => go_on(args, path),
        None => begin(args),
    }
}

/// Goes on with the run in a folder.
fn go_on(args: &Args, path: &Path) -> Result<ExitCode> {
    let mut folder = RunFolder::reopen(path)?;
    let (model, config) = (folder.model()?, args.resumed_config(&folder)?);
    let (checkpoint, damaged) = folder.checkpoint()?;
    for problem in damaged {
        eprintln!("warning: {problem}; taking the checkpoint before it");
    }
    let position = checkpoint.position;
    if position.epoch > config.epochs {
        return Err(Error::Usage(format!(
            "{} has trained all its {} epochs; --epochs with a larger number trains on",
            path.display(),
            config.epochs
        )));
    }
    let backend = shared::open_device(&config.device)?;
    eprintln!("device: {}", backend.describe());
    if backend.describe() != checkpoint.device {
        eprintln!(
            "warning: the checkpoint was written on {}; here the run does not go on to the same \
             bits",
            checkpoint.device
        );
    }
    eprintln!(
        "going on after step {}, at image {} of epoch {}",
        position.steps, position.images, position.epoch
    );
    let data = shared::load_data(&config.data, model.input(), args.host_budget)?;
    let run = Run {
        args,
        model: &model,
        config: &config,
        data: &data,
        start: Start::Checkpoint(&checkpoint),
    };
    run.follow(backend, &mut folder)
}

/// Looks for a good learning rate, plots it and prints it.
fn find_rate(
    args: &Args,
    plot: &Path,
    model: &Model,
    config: &Config,
    data: &Dataset,
    weights: &Weights,
    backend: Box<dyn Backend>,
) -> Result<ExitCode> {
    let sweep = Sweep::default();
    let bar = output::bar("finding a learning rate");
    bar.set_length(sweep.updates as u64);
    let found =
        train::find_learning_rate(model, data, config, weights, backend, sweep, &mut |n| {
            bar.set_position(n as u64);
        })?;
    bar.finish_and_clear();
    let title = format!(
        "{} on {}, {}, batches of {}",
        model.name(),
        data.name,
        config.optimizer,
        config.batch_size * config.accumulate
    );
    let picture = rates::svg(&title, &found);
    atomic::write(plot, |file| file.write_all(picture.as_bytes()))?;
    if args.json {
        output::json(
            &json!({"event": "find_lr", "plot": plot, "valley": found.valley,
            "largest": found.largest, "diverged": found.diverged, "points": found.points}),
        );
    } else {
        println!("{}", rates::table(&found));
        println!("plot: {}", plot.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes training images as the model will see them.
fn show_preview(seen: &Preview, path: &Path) -> Result<ExitCode> {
    Sheet::of(&seen.images, seen.shape, seen.columns).save(path)?;
    println!(
        "{}: in each row an image as it is stored, then as successive steps see it",
        path.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Trains a new run.
fn begin(args: &Args) -> Result<ExitCode> {
    let (model, own) = shared::load_model(&args.model)?;
    let (model, head) = args.transfer.model(model)?;
    let config = args.config(&model)?;
    config.method(&[], &model)?;
    if args.data.is_none() && args.model == "cifar10-cnn" {
        return Err(Error::Usage(
            "cifar10-cnn needs --data DIR: a folder with CIFAR-10's binary files \
             (data_batch_1.bin to data_batch_5.bin and test_batch.bin, from the \"CIFAR-10 binary \
             version\" at https://www.cs.toronto.edu/~kriz/cifar.html, unpacked), or with images in \
             train/<class>/ and test/<class>/"
                .into(),
        ));
    }
    let (weights, taken) = args.transfer.weights(
        &model,
        own.map(|own| (args.model.clone(), own)),
        head.as_deref(),
        config.seed,
        args.json,
    )?;
    let mut backend = shared::open_device(&config.device)?;
    eprintln!("device: {}", backend.describe());
    let data = shared::load_data(&config.data, model.input(), args.host_budget)?;
    let model = train::normalized(model, &data, &config)?;
    let weights = train::whitened(&model, weights, &taken, &data, &config)?;
    if let Some(path) = &args.preview {
        let seen = train::preview(&model, &data, &config, &mut *backend)?;
        return show_preview(&seen, path);
    }
    if let Some(plot) = &args.find_lr {
        return find_rate(args, plot, &model, &config, &data, &weights, backend);
    }
    let mut folder = RunFolder::create(args.out.as_deref(), &model, &config, &data.classes)?;
    let run = Run {
        args,
        model: &model,
        config: &config,
        data: &data,
        start: Start::Weights(&weights),
    };
    run.follow(backend, &mut folder)
}

/// Everything that a training begins with, but the device.
struct Run<'a> {
    args: &'a Args,
    model: &'a Model,
    config: &'a Config,
    data: &'a Dataset,
    start: Start<'a>,
}

impl Run<'_> {
    /// Trains and shows it until it ends, or until a signal ends it.
    fn follow(&self, device: Box<dyn Backend>, folder: &mut RunFolder) -> Result<ExitCode> {
        let place = folder.path().display().to_string();
        let interrupt = Interrupt::default();
        let live = Live::new(self.args.wants_dashboard(), &interrupt);
        let mut reporter = Reporter::new(self.args, self.config, place);
        reporter.held = live.is_some().then(Vec::new);
        // Until the first step there is nothing to save, and Ctrl-C just ends the program.
        let catch = Once::new();
        let mut show = |event| {
            if matches!(event, Event::Start { .. }) {
                catch.call_once(|| match &live {
                    Some(live) => live.catch(&interrupt),
                    None => interrupt.catch(),
                });
            }
            reporter.show(event);
        };
        let mut first = Some(device);
        let mut open = || match first.take() {
            Some(device) => Ok(device),
            None => shared::open_device(&self.config.device),
        };
        let mut callbacks = Callbacks::new(&mut show).stop_on(interrupt.stop());
        if let Some(live) = &live {
            callbacks = live.watch(callbacks, self.model, self.config, folder);
        }
        // A run that has such files goes on with them.
        if self.args.tensorboard || TensorBoard::is_kept(folder) {
            callbacks = callbacks.observed_by(self.tensorboard(folder)?);
        }
        let retry = Retry {
            attempts: self.args.retry_device.unwrap_or(0),
            pause: RETRY_PAUSE,
        };
        let outcome = train::train_with_retries(
            self.model,
            self.data,
            self.config,
            self.start,
            &mut open,
            folder,
            callbacks,
            retry,
        );
        reporter.release();
        let summary = outcome?;
        Ok(match summary.stopped {
            true => interrupt.exit_code(),
            false => ExitCode::SUCCESS,
        })
    }
}

impl Run<'_> {
    /// What writes event files, with a picture of augmented images where there are any.
    fn tensorboard(&self, folder: &RunFolder) -> Result<TensorBoard> {
        let board = TensorBoard::new(self.model, self.config, folder);
        if self.config.augment.is_none() {
            return Ok(board);
        }
        // On a device of its own: what it takes is free again when the training begins.
        let mut device = shared::open_device(&self.config.device)?;
        let seen = train::preview(self.model, self.data, self.config, &mut *device)?;
        Ok(board.with_augmented(&seen))
    }
}
