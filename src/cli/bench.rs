//! `gpucnn bench`

use super::{output, shared};
use gpucnn::bench::{self, Ceilings, Compared, Earlier, Kernel, Line, ScalingPoint, Training};
use gpucnn::formats::atomic;
use gpucnn::model::Model;
use gpucnn::report::bench::{self as tables, Style};
use gpucnn::report::{roofline, scaling};
use gpucnn::train::Precision;
use gpucnn::{Error, Result};
use std::path::{Path, PathBuf};

/// Measure what the device can do, and what each kernel makes of it.
///
/// First the device's own ceilings, then every kernel of a training step on random images,
/// with its rate and the percentage of the ceiling it comes nearer to.
#[derive(clap::Args)]
pub struct Args {
    /// A preset or a model file (TOML), as often as wanted [default: every preset]
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Only kernels with NAME in their op's name
    #[arg(long, value_name = "NAME")]
    op: Option<String>,
    /// Images a step
    #[arg(long, value_name = "N", default_value_t = 32)]
    batch_size: usize,
    /// Keep activations, their gradients and the layers' copies of weights in f16
    #[arg(long, value_name = "f32|f16", default_value = "f32", value_parser = Precision::by_name)]
    precision: Precision,
    /// Runs of each kernel, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 9)]
    repeats: usize,
    /// auto or part of an adapter's name
    #[arg(long, value_name = "auto|NAME", default_value = "auto")]
    device: String,
    /// Set each kernel's time against an earlier run's, as --json wrote it
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Draw a roofline
    #[arg(long, value_name = "FILE.svg")]
    roofline: Option<PathBuf>,
    /// Draw images/s against batch (1 to 1024) and width (a quarter to four times, at
    /// --batch-size), and measure nothing else
    #[arg(long, value_name = "FILE.svg", conflicts_with_all = ["op", "repeats", "compare", "roofline", "markdown"])]
    scaling: Option<PathBuf>,
    /// Largest batch of --scaling
    #[arg(long, value_name = "N", default_value_t = 1024, requires = "scaling")]
    most: usize,
    /// One JSON object a line on standard output
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Tables as Markdown
    #[arg(long)]
    markdown: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if args.repeats == 0 {
        return Err(Error::Usage("--repeats must be at least 1, found 0".into()));
    }
    if args.device == "cpu" {
        let problem = "--device cpu, the reference path, has no kernels to measure";
        return Err(Error::Usage(problem.into()));
    }
    let names: Vec<String> = match args.model.is_empty() {
        true => Model::presets().map(str::to_owned).collect(),
        false => args.model.clone(),
    };
    let training = |name: &String| {
        let training = Training::new(Model::load(name)?, args.batch_size)?;
        Ok(training.with_precision(args.precision))
    };
    let trainings: Vec<_> = names.iter().map(training).collect::<Result<_>>()?;
    if let Some(path) = &args.scaling {
        return scale(args, &names, path);
    }
    let earlier = args.compare.as_deref().map(Earlier::load).transpose()?;
    let gpu = shared::open_gpu(&args.device)?;
    eprintln!("device: {}", gpu.describe());
    let ceilings = Ceilings::measure(&gpu, args.repeats)?;
    show_ceilings(args, &ceilings);
    let mut measured = Vec::new();
    for (name, training) in names.iter().zip(&trainings) {
        eprintln!("measuring {name}");
        let mut kernels = training.kernels(&gpu, &ceilings, args.repeats)?;
        if let Some(op) = &args.op {
            kernels = bench::of_op(kernels, op)?;
        }
        measured.extend_from_slice(&kernels);
        let compared = match &earlier {
            Some(earlier) => earlier.compare(kernels),
            None => kernels.into_iter().map(Compared::from).collect(),
        };
        show_kernels(args, compared);
    }
    match &args.roofline {
        Some(path) => draw(path, &ceilings, &measured),
        None => Ok(()),
    }
}

fn style(args: &Args) -> Style {
    match args.markdown {
        true => Style::Markdown,
        false => Style::Terminal,
    }
}

/// What a title says of the precision.
fn halved(args: &Args) -> &'static str {
    match args.precision {
        Precision::F32 => "",
        Precision::F16 => ", f16",
    }
}

fn show_ceilings(args: &Args, ceilings: &Ceilings) {
    if args.json {
        output::json(&Line::Ceilings(ceilings.clone()));
    } else {
        println!("{}", tables::ceilings(ceilings, style(args)));
    }
}

fn show_kernels(args: &Args, kernels: Vec<Compared>) {
    if args.json {
        kernels
            .into_iter()
            .map(Line::Kernel)
            .for_each(|line| output::json(&line));
        return;
    }
    if let Some(Compared { kernel, .. }) = kernels.first() {
        let mark = if args.markdown { "### " } else { "" };
        let halved = halved(args);
        println!("\n{mark}{}, batch {}{halved}\n", kernel.model, kernel.batch);
    }
    println!("{}", tables::kernels(&kernels, style(args)));
}

fn scale(args: &Args, names: &[String], path: &Path) -> Result<()> {
    let models: Vec<_> = names
        .iter()
        .map(|n| Model::load(n))
        .collect::<Result<_>>()?;
    let gpu = shared::open_gpu(&args.device)?;
    eprintln!("device: {}", gpu.describe());
    let mut points = Vec::new();
    for model in &models {
        for place in bench::places(args.batch_size, args.most) {
            let Some(point) = ScalingPoint::measure(&gpu, model, place, args.precision)? else {
                let (batch, width) = place;
                eprintln!(
                    "{}: batch {batch}, width {width}: too large for the device",
                    model.name()
                );
                continue;
            };
            if args.json {
                output::json(&Line::Scaling(point.clone()));
            } else {
                let ScalingPoint {
                    model,
                    batch,
                    width,
                    images_per_s,
                    ..
                } = &point;
                println!("{model}  batch {batch:4}  width {width:4}  {images_per_s:9.0} images/s");
            }
            points.push(point);
        }
    }
    let title = gpu.describe() + halved(args);
    let picture = scaling::svg(&title, &points, args.batch_size);
    atomic::write(path, |file| file.write_all(picture.as_bytes()))?;
    eprintln!("scaling: {}", path.display());
    Ok(())
}

fn draw(path: &Path, ceilings: &Ceilings, kernels: &[Kernel]) -> Result<()> {
    let picture = roofline::svg(ceilings, kernels);
    atomic::write(path, |file| file.write_all(picture.as_bytes()))?;
    eprintln!("roofline: {}", path.display());
    Ok(())
}
