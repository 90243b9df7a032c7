//! `gpucnn explain`

use super::output;
use super::shared::{self, Trained};
use gpucnn::data::image;
use gpucnn::explain::{Detail, Explainer, Explanation, Method, overlay};
use gpucnn::formats::atomic;
use gpucnn::infer::probabilities;
use gpucnn::{Error, Result};
use serde_json::json;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Show which pixels of an image a class depends on.
///
/// Writes a PNG: the image in grey, the map over it in colour. Maps of integrated-gradients and
/// occlusion are signed: red speaks for the class, blue against it.
#[derive(clap::Args)]
pub struct Args {
    /// The run folder that `gpucnn train` made, or a .keras file
    run: PathBuf,
    /// A PNG or JPEG file of any size, or a .npy file of the size that the model takes
    image: PathBuf,
    /// grad-cam, grad-cam++, saliency, integrated-gradients, smoothgrad or occlusion
    #[arg(long, value_name = "NAME", default_value = "grad-cam")]
    method: String,
    /// The class to explain, by name or by number from 0 [default: the likeliest]
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// The layer that grad-cam and grad-cam++ look at [default: the last that gives an image]
    #[arg(long, value_name = "LAYER")]
    layer: Option<String>,
    /// Points of integrated-gradients between black and the image
    #[arg(long, value_name = "N", default_value_t = 64)]
    steps: usize,
    /// Noisy copies of smoothgrad
    #[arg(long, value_name = "N", default_value_t = 50)]
    samples: usize,
    /// Deviation of smoothgrad's noise, as a share of the image's range
    #[arg(long, value_name = "F", default_value_t = 0.15)]
    noise: f64,
    /// Seed of smoothgrad's noise
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u32,
    /// Rows and columns that occlusion hides at once [default: an eighth of the image]
    #[arg(long, value_name = "N")]
    patch: Option<usize>,
    /// The picture [default: IMAGE-METHOD.png in the working directory]
    #[arg(long, value_name = "FILE.png")]
    out: Option<PathBuf>,
    /// Take the weights of the epoch whose validation was the best, not the last ones
    #[arg(long)]
    best: bool,
    /// auto, cpu (the reference path, slow) or part of an adapter's name
    #[arg(long, value_name = "auto|cpu|NAME", default_value = "auto")]
    device: String,
    /// One JSON object on standard output, with the numbers of the map
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let method = Method::by_name(&args.method)?;
    let Trained {
        model,
        weights,
        classes,
        ..
    } = shared::load_trained(&args.run, args.best)?;
    let class = args
        .class
        .as_deref()
        .map(|name| class(name, &classes))
        .transpose()?;
    let pixels = image::load(&args.image, model.input())?;
    let backend = shared::open_device(&args.device)?;
    eprintln!("device: {}", backend.describe());
    let mut explainer = Explainer::new(&model, &weights, args.layer.as_deref(), backend)?;
    let detail = Detail {
        steps: args.steps,
        samples: args.samples,
        noise: args.noise,
        seed: args.seed,
        patch: args.patch,
    };
    let explanation = explainer.explain(method, &pixels, class, detail)?;
    let path = args.out.clone().unwrap_or_else(|| default_path(args));
    let picture = overlay(&pixels, model.input(), &explanation.map, method.is_signed());
    let mut png = Cursor::new(Vec::new());
    picture
        .write_to(&mut png, ::image::ImageFormat::Png)
        .map_err(|e| Error::data(&path, format!("cannot be encoded: {e}")))?;
    atomic::write(&path, |file| file.write_all(png.get_ref()))?;
    show(args, &explanation, &classes, &path);
    Ok(())
}

fn default_path(args: &Args) -> PathBuf {
    let stem = args.image.file_stem().unwrap_or_default().to_string_lossy();
    PathBuf::from(format!("{stem}-{}.png", args.method))
}

/// The class of a name, or of a number where no class has that name.
fn class(name: &str, classes: &[String]) -> Result<usize> {
    let found = classes.iter().position(|c| c == name);
    let number = || name.parse::<usize>().ok().filter(|n| *n < classes.len());
    found.or_else(number).ok_or_else(|| {
        const SHOWN: usize = 20;
        let more = if classes.len() > SHOWN { ", …" } else { "" };
        let known = classes[..classes.len().min(SHOWN)].join(", ");
        Error::Usage(format!(
            "--class {name:?} is no class of the run; there are {known}{more}"
        ))
    })
}

fn show(args: &Args, explanation: &Explanation, classes: &[String], path: &Path) {
    let probability = probabilities(&explanation.logits)[explanation.class];
    let class = &classes[explanation.class];
    if args.json {
        let map = explanation
            .map
            .chunks(explanation.size[1])
            .collect::<Vec<_>>();
        output::json(
            &json!({"event": "explain", "image": args.image.to_string_lossy(),
            "method": args.method, "class": class, "probability": probability,
            "logit": explanation.logits[explanation.class], "layer": explanation.layer,
            "completeness": explanation.completeness, "picture": path.to_string_lossy(),
            "map": map}),
        );
        return;
    }
    let mut line = format!(
        "{}: {class} {:.2}%",
        args.image.display(),
        100.0 * probability
    );
    if let Some(layer) = &explanation.layer {
        line += &format!(", by layer {layer}");
    }
    if let Some([sum, difference]) = explanation.completeness {
        line += &format!(
            "; the attributions sum to {sum:.4}, the logit differs from the black image's by \
             {difference:.4}"
        );
    }
    println!("{line}; {}", path.display());
}
