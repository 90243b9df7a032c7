//! `gpucnn quantize`

use super::{compare, shared};
use clap::ValueEnum;
use gpucnn::compress::{self, Calibration};
use gpucnn::data::Dataset;
use gpucnn::infer::Int8;
use gpucnn::model::Model;
use gpucnn::train::{RunFolder, Weights};
use gpucnn::{Error, Result};

/// Put a trained model in eight bits (or its weights in f16) and compare size, accuracy and
/// speed.
///
/// Batch normalisation is folded into the convolutions first. Convolutions and dense layers then
/// run on signed bytes, one step a filter, and one a layer's input that training images tell;
/// grouped convolutions stay in f32.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: compare::Common,
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
        let images = data
            .train
            .images
            .get(0..self.images.min(data.train.len()))?;
        let backend = shared::open_device(&self.common.device)?;
        compress::calibrate(model, weights, &images, self.calibration(), backend)
    }
}

pub fn run(args: &Args) -> Result<()> {
    args.check()?;
    let common = &args.common;
    let quantised = "is quantised already; quantise the run it came from";
    let (folder, model, weights) = common.open(quantised)?;
    let config = folder.config()?;
    let name = common.data.as_ref().unwrap_or(&config.data);
    let data = shared::load_data(name, model.input(), None)?;
    let (folded, start) = compress::fold_batch_norms(&model, &weights)?;
    let classes = folder.classes(&model);
    let mut target = RunFolder::create(common.out.as_deref(), &folded, &config, &classes)?;
    let bytes = folder.weight_bytes(common.best)?;
    let before = common.measure((&model, &weights, None), bytes, &data)?;
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
    let after = common.measure((&folded, &weights, int8.as_ref()), bytes, &data)?;
    let name = match args.to {
        To::Int8 => "int8",
        To::F16 => "f16 weights",
    };
    let models = [("f32", &before), (name, &after)];
    common.print("quantize", models, target.path());
    if !common.json && args.to == To::F16 {
        println!("note: the weights take half the space; they are computed with in f32");
    }
    Ok(())
}
