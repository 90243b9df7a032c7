//! `gpucnn import`

use gpucnn::formats::onnx;
use gpucnn::ops::batch::Normalization;
use gpucnn::train::{Config, RunFolder};
use gpucnn::{Error, Result};
use std::path::PathBuf;

/// Make a run folder of another program's model.
#[derive(clap::Args)]
pub struct Args {
    /// An ONNX file of a network that classifies images
    file: PathBuf,
    /// The run folder to make [default: runs/NAME-1, and so on]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What the model expects of its input: the factor of the pixels [default: 1/255]
    #[arg(long, value_name = "F")]
    scale: Option<f32>,
    /// The mean of each channel after that, as torchvision's Normalize has it
    #[arg(long, value_name = "F,F,…", value_delimiter = ',')]
    mean: Vec<f32>,
    /// The deviation of each channel
    #[arg(long, value_name = "F,F,…", value_delimiter = ',')]
    std: Vec<f32>,
}

pub fn run(args: &Args) -> Result<()> {
    let name = args.file.file_stem().unwrap_or_default();
    let name = name.to_string_lossy();
    let file = onnx::load(&args.file)?;
    let imported = onnx::import(&file, &name, normalization(args)?)?;
    let model = &imported.model;
    let config = Config {
        data: String::new(),
        ..Config::new(model)?
    };
    let numbered = || (0..model.classes()).map(|c| c.to_string()).collect();
    let classes = imported.classes.clone().unwrap_or_else(numbered);
    let mut folder = RunFolder::create(args.out.as_deref(), model, &config, &classes)?;
    folder.begin()?;
    folder.save_weights(&imported.weights)?;
    for note in &imported.notes {
        eprintln!("note: {note}");
    }
    println!(
        "{}: {} layers, {} parameters; the model is in {}",
        model.name(),
        model.layers().len(),
        model.parameter_count(),
        folder.path().display()
    );
    Ok(())
}

/// The normalisation that the flags state, if they state any.
fn normalization(args: &Args) -> Result<Option<Normalization>> {
    if args.scale.is_none() && args.mean.is_empty() && args.std.is_empty() {
        return Ok(None);
    }
    let bad = |x: &f32| !x.is_finite();
    if args.scale.iter().chain(&args.mean).any(bad) || args.std.iter().any(|s| bad(s) || *s <= 0.0)
    {
        return Err(Error::Usage(
            "--scale, --mean and --std want finite numbers, and --std above zero".into(),
        ));
    }
    Ok(Some(Normalization {
        scale: args.scale.unwrap_or(1.0 / 255.0),
        mean: args.mean.clone(),
        std: args.std.clone(),
    }))
}
