//! ONNX files as models: layers and weights that can be evaluated, trained further and
//! exported again.
//!
//! The graph is first written in our ops ([`lower`]), which leaves the exporters' detours
//! behind, then op by op in layers. Keras's exporters write NHWC: a value then stands for a
//! layer's output in another order of axes, and a dense layer behind it gets its weights in
//! the order of ours.

mod name;
mod raise;

use crate::error::{Error, Result};
use crate::formats::onnx::graph::{Computed, Given, lower};
use crate::formats::onnx::read::File;
use crate::formats::onnx::tensor::Element;
use crate::formats::onnx::{CLASSES, NORMALIZATION};
use crate::formats::safetensors::Tensors;
use crate::model::Model;
use crate::ops::batch::Normalization;
use crate::tensor::Shape;
use raise::Raise;
use std::collections::HashMap;

/// A model made from an ONNX file.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The layers.
    pub model: Model,
    /// Their weights.
    pub weights: Tensors,
    /// The classes' names, where the file tells them.
    pub classes: Option<Vec<String>>,
    /// What the user should know: what was changed or assumed.
    pub notes: Vec<String>,
}

/// The batch of a file whose batch is free; any number does.
const BATCH: usize = 2;

/// The model of a file, called `name`. Where the file normalises its input by itself, the
/// model does the same; else `normalization` says what it expects, or where that is missing
/// the file's metadata, or pixels times 1/255.
///
/// # Errors
/// One error that names every node that is no layer; or if the file does not take one batch
/// of images and give one row of logits each.
pub fn import(file: &File, name: &str, normalization: Option<Normalization>) -> Result<Imported> {
    let fail = |problem: String| Error::model(name, problem);
    let [input] = file.inputs.as_slice() else {
        let names: Vec<_> = file.inputs.iter().map(|i| i.name.as_str()).collect();
        return Err(fail(format!("expected one input, images, found {names:?}")));
    };
    let dims = input.dims.as_deref().unwrap_or_default();
    let [batch, Some(a), Some(b), Some(c)] = *dims else {
        return Err(fail(format!(
            "its input {:?} has extents {dims:?}; expected images of known extents: export it \
             with a fixed image size",
            input.name
        )));
    };
    if input.element != Element::F32 || file.outputs.len() != 1 {
        return Err(fail(format!(
            "expected images of floats and one output, found {:?} and {} outputs",
            input.element,
            file.outputs.len()
        )));
    }
    let shape = Shape::from([batch.unwrap_or(BATCH), a, b, c]);
    let given = HashMap::from([(input.name.clone(), Given::Floats(shape))]);
    let lowered = lower(file, &given, None)?;
    let Some((_, Computed::Device(output, Element::F32))) = lowered.outputs.first() else {
        return Err(fail("its output does not depend on its input".into()));
    };
    let stated = normalization.or_else(|| from_metadata(file));
    let raise = Raise::new(&lowered.graph, &lowered.constants, &input.name, *output)?;
    let mut imported = raise.run(name, stated)?;
    imported.classes = file
        .metadata
        .get(CLASSES)
        .and_then(|text| serde_json::from_str(text).ok())
        .filter(|names: &Vec<String>| names.len() == imported.model.classes());
    Ok(imported)
}

/// The normalisation that our own exporter notes.
fn from_metadata(file: &File) -> Option<Normalization> {
    #[derive(serde::Deserialize)]
    struct Noted {
        scale: f32,
        mean: Vec<f32>,
        std: Vec<f32>,
    }
    let text = file.metadata.get(NORMALIZATION)?;
    let Noted { scale, mean, std } = serde_json::from_str(text).ok()?;
    Some(Normalization { scale, mean, std })
}
