//! `gpucnn prune`

use super::{compare, output, shared};
use clap::ValueEnum;
use gpucnn::compress::{self, Criterion};
use gpucnn::data::Dataset;
use gpucnn::model::Model;
use gpucnn::train::{self, Callbacks, Config, Event, RunFolder, Weights};
use gpucnn::{Error, Result};

/// Make a trained model smaller: whole channels go, or single weights become zero.
///
/// Then it is trained on for a few epochs, and a table compares size, accuracy and speed.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: compare::Common,
    /// The share that goes: of the channels of each layer, or of each weight
    #[arg(long, value_name = "F", default_value_t = 0.5)]
    amount: f64,
    /// What goes: whole channels, which makes the model smaller and faster, or single weights,
    /// which leaves zeros
    #[arg(long, value_enum, default_value_t = What::Channels)]
    what: What,
    /// channels: what tells how much one matters
    #[arg(long, value_enum, default_value_t = By::L1)]
    by: By,
    /// channels: let those of all layers compete, so that layers lose different shares
    #[arg(long)]
    global: bool,
    /// weights: let the zeros rise while it is trained on, not all at once before
    #[arg(long)]
    gradual: bool,
    /// Epochs it is trained on; 0 for none
    #[arg(long, value_name = "N", default_value_t = 1)]
    epochs: usize,
    /// Learning rate of these [default: a tenth of the run's]
    #[arg(long, value_name = "F")]
    learning_rate: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Channels,
    Weights,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// The L1 norm of the filter that makes it
    L1,
    /// The scale of its batch normalisation
    BnScale,
}

impl Args {
    fn check(&self) -> Result<()> {
        let channels = self.what == What::Channels;
        if self.gradual && (channels || self.epochs == 0) {
            let problem = "--gradual goes with --what weights and --epochs 1 or more";
            return Err(Error::Usage(problem.into()));
        }
        if !channels && (self.global || self.by != By::L1) {
            let problem = "--global and --by go with --what channels";
            return Err(Error::Usage(problem.into()));
        }
        Ok(())
    }

    /// How the pruned model is trained on.
    fn config(&self, run: &RunFolder) -> Result<Config> {
        let config = run.config()?.with_epochs(self.epochs.max(1));
        let rate = self.learning_rate.unwrap_or(config.learning_rate / 10.0);
        let prunes = self.what == What::Weights;
        let config = Config {
            data: self.common.data.clone().unwrap_or(config.data),
            device: self.common.device.clone(),
            learning_rate: rate,
            prune_to: prunes.then_some(self.amount),
            prune_over: if self.gradual { 0.75 } else { 0.0 },
            ..config
        };
        config.check()?;
        Ok(config)
    }

    /// The model and weights to go on from; single weights may become zero on the way.
    fn pruned(&self, model: &Model, weights: &Weights) -> Result<(Model, Weights)> {
        if self.what == What::Channels {
            let criterion = match self.by {
                By::L1 => Criterion::L1,
                By::BnScale => Criterion::BatchNormScale,
            };
            return compress::prune_channels(model, weights, self.amount, criterion, self.global);
        }
        let weights = match self.gradual {
            true => weights.clone(),
            false => compress::masked(weights, &compress::mask(weights, self.amount)),
        };
        Ok((model.clone(), weights))
    }
}

pub fn run(args: &Args) -> Result<()> {
    args.check()?;
    let common = &args.common;
    let quantised = "is quantised; prune the run it came from, then quantise";
    let (folder, model, weights) = common.open(quantised)?;
    let classes = folder.classes(&model);
    let config = args.config(&folder)?;
    let data = shared::load_data(&config.data, model.input(), None)?;
    let (small, start) = args.pruned(&model, &weights)?;
    let mut target = RunFolder::create(common.out.as_deref(), &small, &config, &classes)?;
    let bytes = folder.weight_bytes(common.best)?;
    let before = common.measure((&model, &weights, None), bytes, &data)?;
    if args.epochs == 0 {
        target.begin()?;
        target.save_weights(&start)?;
    } else {
        train_on(args, &small, &data, &config, &start, &mut target)?;
    }
    let weights = target.weights(&small)?;
    let bytes = target.weight_bytes(false)?;
    let after = common.measure((&small, &weights, None), bytes, &data)?;
    let models = [("before", &before), ("after", &after)];
    common.print("prune", models, target.path());
    Ok(())
}

fn train_on(
    args: &Args,
    model: &Model,
    data: &Dataset,
    config: &Config,
    start: &Weights,
    target: &mut RunFolder,
) -> Result<()> {
    let backend = shared::open_device(&args.common.device)?;
    eprintln!("device: {}", backend.describe());
    let bar = output::bar("training on");
    let mut show = |event| match event {
        Event::Progress { done, total, .. } => {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
        Event::Epoch(row) => bar.suspend(|| {
            let accuracy = 100.0 * row.val_accuracy.unwrap_or(row.accuracy);
            eprintln!(
                "epoch {}/{}: accuracy {accuracy:.2}%",
                row.epoch, config.epochs
            );
        }),
        Event::Warning(text) => bar.suspend(|| eprintln!("warning: {text}")),
        _ => {}
    };
    let callbacks = Callbacks::new(&mut show);
    train::train(model, data, config, start, backend, target, callbacks)?;
    bar.finish_and_clear();
    Ok(())
}
