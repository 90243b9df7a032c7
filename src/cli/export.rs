//! `gpucnn export`

use super::shared;
use clap::ValueEnum;
use gpucnn::formats::{atomic, hdf5, keras, onnx, safetensors};
use gpucnn::infer::{Int8, web};
use gpucnn::model::Model;
use gpucnn::train::{RunFolder, Weights};
use gpucnn::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Write a trained model in another program's format.
#[derive(clap::Args)]
pub struct Args {
    /// The run folder that `gpucnn train` made
    run: PathBuf,
    /// The format
    #[arg(long, value_enum)]
    format: Format,
    /// The file or folder to write [default: in the run folder, model.onnx and so on]
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Take the weights of the epoch whose validation was the best, not the last ones
    #[arg(long)]
    best: bool,
    /// onnx: give probabilities instead of logits
    #[arg(long)]
    softmax: bool,
    /// onnx: leave the normalisation out, for input that is normalised already
    #[arg(long)]
    normalized_input: bool,
}

/// A format, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// ONNX, version 17 of its operators: for onnxruntime, OpenVINO, TensorRT, browsers
    Onnx,
    /// The weights alone, under PyTorch's names for them
    Safetensors,
    /// The weights alone, a .weights.h5 for load_weights of Keras 3
    KerasWeights,
    /// A folder of static files that run the model in a browser, by WebGPU
    Web,
}

impl Format {
    /// What the file is called in the run folder.
    fn file(self) -> &'static str {
        match self {
            Self::Onnx => "model.onnx",
            Self::Safetensors => "model.safetensors",
            Self::KerasWeights => "model.weights.h5",
            Self::Web => "web",
        }
    }
}

/// What is exported.
struct Source {
    model: Model,
    weights: Weights,
    int8: Int8,
    classes: Vec<String>,
}

pub fn run(args: &Args) -> Result<()> {
    if args.format != Format::Onnx && (args.softmax || args.normalized_input) {
        return Err(Error::Usage(
            "--softmax and --normalized-input go with --format onnx only".into(),
        ));
    }
    let folder = RunFolder::open(&args.run)?;
    let model = folder.model()?;
    let source = Source {
        weights: shared::weights(&folder, &model, args.best)?,
        int8: folder.int8()?.filter(|_| !args.best).unwrap_or_default(),
        classes: folder.classes(&model),
        model,
    };
    let default = || args.run.join(args.format.file());
    let path = args.out.clone().unwrap_or_else(default);
    match args.format {
        Format::Onnx => write_onnx(&source, args, &path)?,
        Format::Safetensors => {
            // What PyTorch's libraries look for.
            let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
            safetensors::save(&path, &source.weights, &metadata)?;
        }
        Format::KerasWeights => {
            let bytes = hdf5::write(&keras::arrays(&source.model, &source.weights)?);
            atomic::write(&path, |writer| writer.write_all(&bytes))?;
        }
        Format::Web => {
            if !source.int8.is_empty() {
                eprintln!("note: the browser computes in f32, with the weights of eight bits");
            }
            web::export(&source.model, &source.weights, &source.classes, &path)?;
        }
    }
    println!("the model is in {}", path.display());
    Ok(())
}

fn write_onnx(source: &Source, args: &Args, path: &Path) -> Result<()> {
    let options = onnx::Options {
        softmax: args.softmax,
        normalized_input: args.normalized_input,
    };
    let Source {
        model,
        weights,
        int8,
        classes,
    } = source;
    let bytes = onnx::export_int8(model, weights, int8, classes, options)?;
    atomic::write(path, |writer| writer.write_all(&bytes))
}
