//! `gpucnn summary`

use super::output;
use gpucnn::Result;
use gpucnn::model::Model;

/// Show a model's layers, shapes, parameters, FLOPs and memory.
#[derive(clap::Args)]
pub struct Args {
    /// A preset (mnist-cnn, cifar10-cnn) or a model file (TOML)
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
