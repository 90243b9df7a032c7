//! `gpucnn quantize`

use super::{compare, shared};
use clap::ValueEnum;
use gpucnn::compress::{self, Calibration, Measured};
use gpucnn::data::Dataset;
use gpucnn::infer::Int8;
use gpucnn::model::Model;
use gpucnn::train::{RunFolder, Weights};
use gpucnn::{Error, Result};
use std::path::PathBuf;

/// Put a trained model in eight bits (or its weights in f16) and compare size, accuracy and
/// speed.
///
/// Batch normalisation is folded into the convolutions first. Convolutions and dense layers then
/// run on signed bytes, one step a filter, and one a layer's input that training images tell;
/// grouped convolutions stay in f32.
#[derive(clap::Args)]
pub struct Args {
    /// The run folder that `gpucnn train` made
    run: PathBuf,
    /// What weights become
    #[arg(long, value_enum, default_value_t = To::Int8)]
    to: To,
    /// int8: how the range of a layer's input is found from what calibration sees
    #[arg(long, value_enum, default_value_t = Method::Entropy)]
    calibration: Method,
    /// percentile: the share of the values that the range holds
    #[arg(long, value_name = "F", default_value_t = 0.9999)]
    percentile: f64,
    /// int8: calibrate on the first N training images
    #[arg(long, value_name = "N", default_value_t = 512)]
    images: usize,
    /// Data set: a name (mnist) or a folder [default: the run's]
    #[arg(long, value_name = "NAME|DIR")]
    data: Option<String>,
    /// Take the weights of the epoch whose validation was the best, not the last ones
    #[arg(long)]
    best: bool,
    /// The new run folder [default: runs/MODEL-NUMBER]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// auto, cpu (the reference path, slow) or part of an adapter's name
    #[arg(long, value_name = "auto|cpu|NAME", default_value = "auto")]
    device: String,
    /// One JSON object a line on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    Int8,
    F16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    /// The largest magnitude
    MinMax,
    /// The magnitude that --percentile of the values do not exceed
    Percentile,
    /// The range that loses the least information
    Entropy,
}

impl Args {
    fn check(&self) -> Result<()> {
        let share = self.percentile;
        if !(share > 0.0 && share <= 1.0) {
            let problem = format!("--percentile must be above 0 and at most 1, found {share}");
            return Err(Error::Usage(problem));
        }
        if self.images == 0 {
            return Err(Error::Usage("--images must be at least 1, found 0".into()));
        }
        Ok(())
    }

    fn calibration(&self) -> Calibration {
        match self.calibration {
            Method::MinMax => Calibration::MinMax,
            Method::Percentile => Calibration::Percentile(self.percentile),
            Method::Entropy => Calibration::Entropy,
        }
    }

    fn int8(&self, model: &Model, weights: &Weights, data: &Dataset) -> Result<Int8> {
        let image: usize = model.input().iter().product();
        let count = self.images.min(data.train.len());
        let images = &data.train.images[..count * image];
        let backend = shared::open_device(&self.device)?;
        compress::calibrate(model, weights, images, self.calibration(), backend)
    }
}

pub fn run(args: &Args) -> Result<()> {
    args.check()?;
    let folder = RunFolder::open(&args.run)?;
    if folder.int8()?.is_some() {
        let problem = "is quantised already; quantise the run it came from";
        return Err(Error::data(&args.run, problem));
    }
    let model = folder.model()?;
    let weights = shared::weights(&folder, &model, args.best)?;
    let config = folder.config()?;
    let name = args.data.clone().unwrap_or_else(|| config.data.clone());
    let data = shared::load_data(&name, model.input())?;
    let (folded, start) = compress::fold_batch_norms(&model, &weights)?;
    let classes = folder.classes(&model);
    let mut target = RunFolder::create(args.out.as_deref(), &folded, &config, &classes)?;
    let bytes = folder.weight_bytes(args.best)?;
    let before = measure(args, &model, &weights, None, bytes, &data)?;
    let int8 = match args.to {
        To::Int8 => Some(args.int8(&folded, &start, &data)?),
        To::F16 => None,
    };
    target.begin()?;
    match &int8 {
        Some(int8) => target.save_int8(&start, int8)?,
        None => target.save_f16(&start)?,
    }
    let weights = target.weights(&folded)?;
    let bytes = target.weight_bytes(false)?;
    let after = measure(args, &folded, &weights, int8.as_ref(), bytes, &data)?;
    let name = match args.to {
        To::Int8 => "int8",
        To::F16 => "f16 weights",
    };
    compare::print(
        "quantize",
        [("f32", &before), (name, &after)],
        target.path(),
        args.json,
    );
    if !args.json && args.to == To::F16 {
        println!("note: the weights take half the space; they are computed with in f32");
    }
    Ok(())
}

fn measure(
    args: &Args,
    model: &Model,
    weights: &Weights,
    int8: Option<&Int8>,
    bytes: u64,
    data: &Dataset,
) -> Result<Measured> {
    let split = data.test.as_ref().unwrap_or(&data.train);
    let batch = compress::BATCH.min(split.len());
    let mut predictor = shared::predictor(model, weights, int8, batch, &args.device)?;
    compress::measure(model, weights, bytes, &mut predictor, split)
}
