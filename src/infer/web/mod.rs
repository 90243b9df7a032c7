//! A trained model as a folder of static files that run in a browser, by WebGPU alone:
//! `gpucnn export --format web`.
//!
//! The folder holds the same dispatches that the GPU backend runs, planned for the smallest
//! device that WebGPU allows, and no library: `gpucnn.js` makes the buffers and pipelines of
//! `plan.json` and sends the dispatches off.

mod plan;

pub use plan::{Buffer, Content, Dispatch, Plan};

use super::{inference_graph, page};
use crate::error::{Error, Result};
use crate::formats::atomic;
use crate::gpu::profile::{Profile, ProfileKind};
use crate::model::Model;
use crate::ops::Array;
use crate::train::{Weights, arenas};
use std::path::Path;

const SCRIPT: &str = include_str!("gpucnn.js");
const PAGE_SCRIPT: &str = include_str!("page.js");
const PLAN: &str = "plan.json";
const WEIGHTS: &str = "weights.bin";
const SHADERS: &str = "shaders";

/// What the export wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Dispatches of an inference.
    pub dispatches: usize,
    /// Different shaders among them.
    pub shaders: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Writes the model for inference of one image at a time. No device is needed.
///
/// The folder gets `index.html` (a page where one drops an image), `gpucnn.js`, `plan.json`,
/// `weights.bin` and `shaders/*.wgsl`. Any web server of static files will do.
///
/// # Errors
/// If the model is too large for WebGPU's default limits, or a file cannot be written.
pub fn export(
    model: &Model,
    weights: &Weights,
    classes: &[String],
    folder: &Path,
) -> Result<Exported> {
    model.check_weights(weights, "the weights")?;
    let arenas = arenas(model);
    let graph = inference_graph(model, [&arenas[0], &arenas[1]], [1, 1], None)?;
    let listing = graph.listing(&Profile::minimal(ProfileKind::Gpu))?;
    let contents = arenas
        .iter()
        .filter(|arena| !arena.is_empty())
        .map(|arena| {
            arena.pack(|part| {
                weights
                    .get(&part.name)
                    .ok_or_else(|| Error::shape(&part.name, "the weight is missing"))
            })
        })
        .collect::<Result<Vec<Array>>>()?;
    let weights: Vec<u8> = contents.iter().flat_map(Array::to_gpu_bytes).collect();
    let (plan, shaders) = Plan::new(model, classes, &graph, &listing);
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
    atomic::create_folder(&folder.join(SHADERS))?;
    let json = serde_json::to_string(&plan).map_err(|e| Error::data(folder, e.to_string()))?;
    let index = page::inline(PAGE_SCRIPT);
    let mut files = vec![
        (WEIGHTS.to_owned(), weights.as_slice()),
        ("gpucnn.js".to_owned(), SCRIPT.as_bytes()),
        ("index.html".to_owned(), index.as_bytes()),
    ];
    for (name, text) in &shaders {
        files.push((format!("{SHADERS}/{name}"), text.as_bytes()));
    }
    // The plan comes last: it names the others.
    files.push((PLAN.to_owned(), json.as_bytes()));
    for (name, bytes) in &files {
        atomic::write(&folder.join(name), |w| w.write_all(bytes))?;
    }
    Ok(Exported {
        dispatches: plan.dispatches.len(),
        shaders: shaders.len(),
        bytes: files.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
    })
}
