//! What several subcommands share.

use super::output;
use gpucnn::data::{Dataset, Request};
use gpucnn::formats::keras;
use gpucnn::gpu::{Gpu, OpenOptions};
use gpucnn::graph::{Backend, CpuBackend, GpuBackend};
use gpucnn::infer::{Batches, Int8, Predictor};
use gpucnn::model::Model;
use gpucnn::train::{RunFolder, Weights};
use gpucnn::{Error, Result};
use std::path::Path;
use std::rc::Rc;
use std::sync::Once;

/// Bytes of decoded images that a user is told of before they are all there.
const MUCH_MEMORY: usize = 1 << 30;

/// Opens `auto`, `cpu` or the adapter of a name.
pub fn open_device(name: &str) -> Result<Box<dyn Backend>> {
    if name == "cpu" {
        return Ok(Box::new(CpuBackend::new()));
    }
    Ok(Box::new(GpuBackend::new(open_gpu(name)?)?))
}

/// Opens `auto` or the adapter of a name.
pub fn open_gpu(name: &str) -> Result<Rc<Gpu>> {
    Gpu::open(OpenOptions {
        name: (name != "auto").then(|| name.to_owned()),
        ..OpenOptions::default()
    })
}

/// The MiB of a size such as `4GiB`, `1.5G`, `500MB` or `2048`.
pub fn mebibytes(text: &str) -> std::result::Result<u64, String> {
    let (number, unit) = text.split_at(text.find(char::is_alphabetic).unwrap_or(text.len()));
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "m" | "mib" => (1u64 << 20) as f64,
        "g" | "gib" => (1u64 << 30) as f64,
        "t" | "tib" => (1u64 << 40) as f64,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => {
            return Err(format!(
                "unknown unit {unit:?}; expected MiB, GiB, TiB, MB, GB or TB"
            ));
        }
    };
    let number: f64 = number
        .trim()
        .parse()
        .map_err(|_| "expected a size such as 4GiB")?;
    let mib = number * unit / f64::from(1 << 20);
    match mib.is_finite() && mib >= 1.0 {
        true => Ok(mib as u64),
        false => Err("expected at least 1 MiB".into()),
    }
}

/// A model ready to predict `batches` of images on a device; the layers of `int8` in eight
/// bits.
pub fn predictor(
    model: &Model,
    weights: &Weights,
    int8: Option<&Int8>,
    batches: Batches,
    device: &str,
) -> Result<Predictor> {
    Predictor::with_batches(model, weights, int8, batches, open_device(device)?)
}

/// The last weights of a run, or the best.
pub fn weights(folder: &RunFolder, model: &Model, best: bool) -> Result<Weights> {
    match best {
        true => folder.best_weights(model),
        false => folder.weights(model),
    }
}

/// The run folder that the name of a model means. A folder that is called as a preset is meant
/// only as a path, `./resnet18`: else the preset would depend on where one is.
pub fn run_folder(name: &str) -> Result<Option<RunFolder>> {
    let path = Path::new(name);
    let is_run = path.is_dir() && Model::presets().all(|preset| preset != name);
    is_run.then(|| RunFolder::open(path)).transpose()
}

/// A preset, the model of a model file or of a run folder, or that of a Keras file, which may
/// have weights.
pub fn load_model(name: &str) -> Result<(Model, Option<Weights>)> {
    if let Some(run) = run_folder(name)? {
        return Ok((run.model()?, None));
    }
    let path = Path::new(name);
    if !keras::is_keras(path) || !path.is_file() {
        return Ok((Model::load(name)?, None));
    }
    let imported = keras::load(path)?;
    for note in &imported.notes {
        eprintln!("note: {note}");
    }
    Ok((imported.model, imported.weights))
}

/// A model with its weights.
pub struct Trained {
    pub model: Model,
    pub weights: Weights,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// The data set it was trained on, where that is known.
    pub data: Option<String>,
    /// Its layers of eight bits, where it was quantised.
    pub int8: Option<Int8>,
}

/// The model of a run folder, or of a `.keras` file.
pub fn load_trained(path: &Path, best: bool) -> Result<Trained> {
    if keras::is_keras(path) && path.is_file() {
        let (model, weights) = load_model(&path.to_string_lossy())?;
        let weights = weights.ok_or_else(|| {
            let problem = "holds no weights; give what model.save(\"NAME.keras\") writes";
            Error::data(path, problem)
        })?;
        let classes = (0..model.classes()).map(|c| c.to_string()).collect();
        return Ok(Trained {
            model,
            weights,
            classes,
            data: None,
            int8: None,
        });
    }
    let folder = RunFolder::open(path)?;
    let model = folder.model()?;
    Ok(Trained {
        weights: weights(&folder, &model, best)?,
        classes: folder.classes(&model),
        data: folder.config().ok().map(|config| config.data),
        int8: folder.int8()?.filter(|_| !best),
        model,
    })
}

/// Loads a data set, with a progress bar while a folder of images is read, and tells what the
/// user should know of it. Image files are decoded as they are needed where they take more than
/// `host_budget` MiB.
pub fn load_data(name: &str, shape: [usize; 3], host_budget: Option<u64>) -> Result<Dataset> {
    // An imported run does not say what it was trained on.
    if name.is_empty() {
        let problem = "no data set is named; give one with --data";
        return Err(Error::Usage(problem.into()));
    }
    load_as(name, Some(shape), host_budget)
}

/// Loads a data set as it is stored.
pub fn load_stored(name: &str, host_budget: Option<u64>) -> Result<Dataset> {
    load_as(name, None, host_budget)
}

fn load_as(name: &str, shape: Option<[usize; 3]>, host_budget: Option<u64>) -> Result<Dataset> {
    let bar = output::bar("reading images");
    let told = Once::new();
    let tell = |total: usize| {
        // As they are stored, their size is not known yet.
        let Some(shape) = shape else { return };
        let bytes = total.saturating_mul(shape.iter().product());
        if bytes >= MUCH_MEMORY {
            let mib = bytes >> 20;
            bar.suspend(|| eprintln!("note: {total} images are {mib} MiB of pixels"));
        }
    };
    let dataset = Request {
        name,
        shape,
        host_budget: host_budget.map(|mib| mib.saturating_mul(1 << 20)),
        progress: &|done, total| {
            told.call_once(|| tell(total));
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        },
    }
    .load();
    bar.finish_and_clear();
    let dataset = dataset?;
    for note in &dataset.notes {
        eprintln!("note: {note}");
    }
    Ok(dataset)
}
