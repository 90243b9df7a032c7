//! What several subcommands share.

use super::output;
use gpucnn::Result;
use gpucnn::data::{Dataset, Request};
use gpucnn::gpu::{Gpu, OpenOptions};
use gpucnn::graph::{Backend, CpuBackend, GpuBackend};
use gpucnn::infer::{Int8, Predictor};
use gpucnn::model::Model;
use gpucnn::train::{RunFolder, Weights};
use std::rc::Rc;
use std::sync::Once;

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

/// A model ready to predict `batch` images at a time on a device; the layers of `int8` in
/// eight bits.
pub fn predictor(
    model: &Model,
    weights: &Weights,
    int8: Option<&Int8>,
    batch: usize,
    device: &str,
) -> Result<Predictor> {
    Predictor::with_batches(model, weights, int8, &[batch], open_device(device)?)
}

/// The last weights of a run, or the best.
pub fn weights(folder: &RunFolder, model: &Model, best: bool) -> Result<Weights> {
    match best {
        true => folder.best_weights(model),
        false => folder.weights(model),
    }
}

/// Bytes of decoded images that a user is told of before they are all there.
const MUCH_MEMORY: usize = 1 << 30;

/// Loads a data set, with a progress bar while a folder of images is decoded, and tells
/// what the user should know of it.
pub fn load_data(name: &str, shape: [usize; 3]) -> Result<Dataset> {
    let bar = output::bar("reading images");
    let told = Once::new();
    let tell = |total: usize| {
        let bytes = total * shape.iter().product::<usize>();
        if bytes >= MUCH_MEMORY {
            let mib = bytes >> 20;
            bar.suspend(|| eprintln!("note: {total} images will take {mib} MiB of memory"));
        }
    };
    let dataset = Request {
        name,
        shape: Some(shape),
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
