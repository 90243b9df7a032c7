//! `gpucnn summary`

use super::output;
use gpucnn::Result;
use gpucnn::model::Model;

/// Show a model's layers, shapes, parameters, FLOPs and memory.
#[derive(clap::Args)]
pub struct Args {
    /// mnist-cnn, cifar10-cnn, lenet5, vgg11-bn, resnet20, resnet18, resnet18-imagenet,
    /// wide-resnet-16-4, mobilenet-v2, or a model file (TOML)
    model: String,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let summary = Model::load(&args.model)?.summary()?;
    if args.json {
        output::json(&summary);
    } else {
        println!("{summary}");
    }
    Ok(())
}
