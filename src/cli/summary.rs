//! `gpucnn summary`

use super::{output, shared};
use gpucnn::Result;
use gpucnn::report::plan;
use gpucnn::train;

/// Show a model's layers, shapes, parameters, FLOPs and memory.
#[derive(clap::Args)]
pub struct Args {
    /// mnist-cnn, cifar10-cnn, lenet5, vgg11-bn, resnet20, resnet18, resnet18-imagenet,
    /// wide-resnet-16-4, mobilenet-v2, vgg11-bn-imagenet, vgg16-bn-imagenet,
    /// convnext-atto, speedrun, or a model file (TOML)
    model: String,
    /// Show the memory plan of a training step too, as the device would run it
    #[arg(long)]
    plan: bool,
    /// With --plan: images a step [default: the model's, 32]
    #[arg(long, value_name = "N", requires = "plan")]
    batch_size: Option<usize>,
    /// With --plan: auto, cpu or part of an adapter's name
    #[arg(long, value_name = "auto|cpu|NAME", default_value = "auto")]
    device: String,
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
    if args.plan {
        let device = shared::open_device(&args.device)?;
        let batch = args.batch_size.unwrap_or(model.training().batch_size);
        let (graph, memory) = train::plan(&model, batch, &*device)?;
        if args.json {
            output::json(&plan::as_json(&graph, &memory));
        } else {
            println!("\nA training step on {batch} images, {}", device.describe());
            println!("{}", plan::table(&graph, &memory));
        }
    }
    Ok(())
}
