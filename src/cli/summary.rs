//! `gpucnn summary`

use super::{output, shared};
use gpucnn::Result;

/// Show a model's layers, shapes, parameters, FLOPs and memory.
#[derive(clap::Args)]
pub struct Args {
    /// mnist-cnn, cifar10-cnn, lenet5, vgg11-bn, resnet20, resnet18, resnet18-imagenet,
    /// wide-resnet-16-4, mobilenet-v2, vgg11-bn-imagenet, vgg16-bn-imagenet,
    /// convnext-atto, speedrun, or a model file (TOML)
    model: String,
    /// One JSON object a line on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let (model, _) = shared::load_model(&args.model)?;
    let summary = model.summary()?;
    if args.json {
        output::json(&summary);
    } else {
        println!("{summary}");
    }
    Ok(())
}
