//! `gpucnn plan`

use super::{output, shared};
use gpucnn::formats::atomic;
use gpucnn::gpu::{Profile, ProfileKind};
use gpucnn::model::Model;
use gpucnn::report::{Plan, Target};
use gpucnn::train::{Config, Precision};
use gpucnn::{Error, Result};
use std::path::PathBuf;

/// The name of the device that need not be there.
const SMALLEST: &str = "webgpu";

/// Show what a device does in a training step: the fused graph, the slots of memory and who
/// lives in them when, and the dispatches.
#[derive(clap::Args)]
pub struct Args {
    /// mnist-cnn, cifar10-cnn, lenet5, vgg11-bn, resnet20, resnet18, resnet18-imagenet,
    /// wide-resnet-16-4, mobilenet-v2, vgg11-bn-imagenet, vgg16-bn-imagenet,
    /// convnext-atto, speedrun, a model file (TOML), or a run folder, whose settings it takes
    model: String,
    /// Plan an inference instead
    #[arg(long)]
    inference: bool,
    /// Images a step [default: the model's, 32; 1 for an inference]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// The optimizer [default: the model's, adam]
    #[arg(long, value_name = "NAME", conflicts_with = "inference")]
    optimizer: Option<String>,
    /// Change training images at random, as for train [default: the model's, none]
    #[arg(long, value_name = "LIST", conflicts_with = "inference")]
    augment: Option<String>,
    /// Compute results of the forward pass again where backward needs them
    #[arg(long, conflicts_with = "inference")]
    recompute: bool,
    /// Keep activations and their gradients in f16 [default: f32, or the run's]
    #[arg(long, value_name = "f32|f16", value_parser = Precision::by_name,
        conflicts_with = "inference")]
    precision: Option<Precision>,
    /// auto, part of an adapter's name, or webgpu: the smallest device that WebGPU allows, which
    /// need not be there
    #[arg(long, value_name = "auto|webgpu|NAME", default_value = "auto")]
    device: String,
    /// Draw it too, as SVG
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

impl Args {
    fn config(&self, model: &Model) -> Result<Config> {
        let mut config = match shared::run_folder(&self.model)? {
            Some(run) => run.config()?,
            None => Config::new(model)?,
        };
        if let Some(name) = &self.optimizer {
            config = config.with_optimizer(name)?;
        }
        config.batch_size = self.batch_size.unwrap_or(config.batch_size);
        config.augment = self.augment.clone().or(config.augment);
        config.recompute |= self.recompute;
        config.precision = self.precision.unwrap_or(config.precision);
        Ok(config)
    }

    /// The device in one line, and what kernels need to know of it.
    fn device(&self) -> Result<(String, Profile)> {
        match &*self.device {
            SMALLEST => Ok((
                "the smallest device that WebGPU allows (gpu kernels)".into(),
                Profile::minimal(ProfileKind::Gpu),
            )),
            "cpu" => Err(Error::Usage(format!(
                "--device cpu is the reference, which has no dispatches; expected auto, {SMALLEST} \
                 or part of an adapter's name"
            ))),
            name => {
                let gpu = shared::open_gpu(name).map_err(|error| match error {
                    Error::Device(problem) => Error::Device(format!(
                        "{problem}; --device {SMALLEST} plans without a device"
                    )),
                    other => other,
                })?;
                Ok((gpu.describe(), gpu.profile.clone()))
            }
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let (model, _) = shared::load_model(&args.model)?;
    let (device, profile) = args.device()?;
    let target = Target {
        device: &device,
        profile: &profile,
    };
    let plan = match args.inference {
        true => {
            let int8 = match shared::run_folder(&args.model)? {
                Some(run) => run.int8()?,
                None => None,
            };
            Plan::inference(&model, int8.as_ref(), args.batch_size.unwrap_or(1), target)?
        }
        false => Plan::training(&model, &args.config(&model)?, target)?,
    };
    if let Some(path) = &args.svg {
        let picture = plan.svg();
        atomic::write(path, |file| file.write_all(picture.as_bytes()))?;
    }
    if args.json {
        output::json(&plan.json());
    } else {
        println!("{plan}");
    }
    if let Some(path) = &args.svg {
        eprintln!("picture: {}", path.display());
    }
    Ok(())
}
