//! `gpucnn predict`

use super::output;
use super::shared::{self, Trained};
use gpucnn::data::image;
use gpucnn::infer::{Batches, probabilities, top};
use gpucnn::{Error, Result};
use serde_json::json;
use std::path::PathBuf;

/// Classify images: the likeliest classes with their probabilities.
#[derive(clap::Args)]
pub struct Args {
    /// The run folder that `gpucnn train` made, or a .keras file
    run: PathBuf,
    /// PNG or JPEG files of any size, or .npy files of the size that the model takes
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Classes shown for an image
    #[arg(long, value_name = "N", default_value_t = 3)]
    top: usize,
    /// Take the weights of the epoch whose validation was the best, not the last ones
    #[arg(long)]
    best: bool,
    /// auto, cpu (the reference path, slow) or part of an adapter's name
    #[arg(long, value_name = "auto|cpu|NAME", default_value = "auto")]
    device: String,
    /// One JSON object a line on standard output
    #[arg(long)]
    json: bool,
}

/// Images a step, at most.
const BATCH: usize = 32;

pub fn run(args: &Args) -> Result<()> {
    if args.top == 0 {
        return Err(Error::Usage("--top must be at least 1, found 0".into()));
    }
    let Trained {
        model,
        weights,
        classes,
        int8,
        ..
    } = shared::load_trained(&args.run, args.best)?;
    let mut pixels = Vec::new();
    for path in &args.images {
        pixels.extend(image::load(path, model.input())?);
    }
    let batches = Batches::up_to(BATCH.min(args.images.len()));
    let mut predictor = shared::predictor(&model, &weights, int8.as_ref(), batches, &args.device)?;
    eprintln!("device: {}", predictor.device());
    for (path, logits) in args.images.iter().zip(predictor.logits(&pixels)?) {
        let probabilities = probabilities(&logits);
        let order = top(&probabilities, args.top);
        if args.json {
            let top: Vec<_> = order
                .iter()
                .map(|c| json!({"class": classes[*c], "probability": probabilities[*c]}))
                .collect();
            output::json(&json!({"event": "predict", "image": path.to_string_lossy(), "top": top}));
        } else {
            let top: Vec<_> = order
                .iter()
                .map(|c| format!("{} {:.2}%", classes[*c], 100.0 * probabilities[*c]))
                .collect();
            println!("{}: {}", path.display(), top.join(", "));
        }
    }
    Ok(())
}
