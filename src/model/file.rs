//! Model files: TOML. See the presets for what one looks like.
//!
//! ```toml
//! name = "small"
//! input = [1, 28, 28]          # channels, rows, columns
//!
//! [normalization]              # optional: (byte * scale - mean) / std, by channel
//! scale = 0.00392156862745098  # 1/255, the default
//! mean = [0.1307]
//! std = [0.3081]
//!
//! [training]                   # optional: defaults of `gpucnn train`, see `TrainingDefaults`
//! optimizer = "adam"
//! batch_size = 32
//!
//! [[layer]]
//! type = "conv2d"              # name defaults to conv1, input to the layer before
//! filters = 32
//! kernel = 3
//! activation = "relu"
//! ```

use super::{INPUT, Layer, Model, NamedLayer, TrainingDefaults, presets};
use crate::error::{Error, Result};
use crate::formats::atomic;
use crate::ops::batch::Normalization;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    input: [usize; 3],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    normalization: Option<NormalizationTable>,
    #[serde(default)]
    training: TrainingDefaults,
    #[serde(rename = "layer", default)]
    layers: Vec<toml::Table>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NormalizationTable {
    scale: Option<f32>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
}

impl Model {
    /// The names of the presets.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        presets::names()
    }

    /// A preset by name, or the model of a TOML file.
    ///
    /// # Errors
    /// If there is neither, with the nearest preset's name; or whatever is wrong in the file.
    pub fn load(name_or_file: &str) -> Result<Self> {
        if let Some(preset) = presets::by_name(name_or_file) {
            return preset;
        }
        let path = Path::new(name_or_file);
        if !path.is_file() {
            let names: Vec<_> = Self::presets().collect();
            return Err(Error::Usage(format!(
                "unknown model {name_or_file:?}{}; expected a model file (TOML) or a preset: {}",
                did_you_mean(name_or_file, &names),
                names.join(", ")
            )));
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", e))?;
        Self::from_toml(&text, name_or_file)
    }

    /// The model of a TOML text; `source` names it in errors.
    ///
    /// # Errors
    /// Whatever is wrong in it.
    pub fn from_toml(text: &str, source: &str) -> Result<Self> {
        let fail = |problem: String| Error::model(source, problem);
        let file: File = toml::from_str(text).map_err(|e| fail(e.to_string()))?;
        let mut builder = Self::builder(&file.name, file.input)
            .normalization(normalization(&file, source)?)
            .training(file.training);
        for table in file.layers {
            let last = builder.last();
            let layer = layer(table, source, builder.layers.len() + 1)?;
            if let Some(name) = layer.name {
                builder = builder.named(name);
            }
            builder.layer(layer.layer, &[last]);
            if let Some(added) = builder.layers.last_mut() {
                added.trainable = layer.trainable;
                if let Some(inputs) = layer.inputs {
                    added.inputs = inputs;
                }
            }
        }
        builder.build()
    }

    /// The model as TOML, which reads back as the same model.
    ///
    /// # Errors
    /// Only if a value cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String> {
        let fail = |e: toml::ser::Error| Error::model(&self.name, e.to_string());
        let normalization = NormalizationTable {
            scale: Some(self.normalization.scale),
            mean: some(&self.normalization.mean),
            std: some(&self.normalization.std),
        };
        let mut previous = INPUT;
        let mut layers = Vec::new();
        for named in &self.layers {
            layers.push(layer_table(named, previous).map_err(fail)?);
            previous = &named.name;
        }
        toml::to_string(&File {
            name: self.name.clone(),
            input: self.input,
            normalization: Some(normalization),
            training: self.training.clone(),
            layers,
        })
        .map_err(fail)
    }

    /// Writes the model as TOML, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = self.to_toml()?;
        atomic::write(path, |writer| writer.write_all(text.as_bytes()))
    }
}

fn some(values: &[f32]) -> Option<Vec<f32>> {
    (!values.is_empty()).then(|| values.to_vec())
}

fn normalization(file: &File, source: &str) -> Result<Normalization> {
    let mut result = Normalization::default();
    let Some(table) = &file.normalization else {
        return Ok(result);
    };
    for (field, values) in [("mean", &table.mean), ("std", &table.std)] {
        if let Some(values) = values
            && values.len() != file.input[0]
        {
            return Err(Error::model(
                source,
                format!(
                    "normalization.{field} has {} values, the input {} channels",
                    values.len(),
                    file.input[0]
                ),
            ));
        }
    }
    let bad_std = table.std.iter().flatten().any(|s| *s <= 0.0);
    let finite = table
        .mean
        .iter()
        .chain(&table.std)
        .flatten()
        .chain(&table.scale);
    if bad_std || finite.into_iter().any(|v| !v.is_finite()) {
        let problem = "normalization wants finite numbers, and std above zero";
        return Err(Error::model(source, problem));
    }
    if let Some(scale) = table.scale {
        result.scale = scale;
    }
    result.mean = table.mean.clone().unwrap_or_default();
    result.std = table.std.clone().unwrap_or_default();
    Ok(result)
}

/// A layer as the file states it.
struct LayerEntry {
    name: Option<String>,
    inputs: Option<Vec<String>>,
    layer: Layer,
    trainable: bool,
}

/// The largest number that makes sense in a layer; products of a few fit 64 bits.
const MOST: i64 = 1 << 20;

/// A number in a value that is larger.
fn too_large(value: &toml::Value) -> Option<i64> {
    match value {
        toml::Value::Integer(n) => Some(*n).filter(|n| *n > MOST),
        toml::Value::Array(values) => values.iter().find_map(too_large),
        _ => None,
    }
}

fn layer(mut table: toml::Table, source: &str, number: usize) -> Result<LayerEntry> {
    let fail = |problem: String| Error::model(source, format!("layer {number}: {problem}"));
    let text = |value: toml::Value, field: &str| match value {
        toml::Value::String(text) => Ok(text),
        other => Err(fail(format!("{field} must be a string, found {other}"))),
    };
    let name = table.remove("name").map(|v| text(v, "name")).transpose()?;
    let input = table
        .remove("input")
        .map(|v| text(v, "input"))
        .transpose()?;
    let inputs = match (input, table.remove("inputs")) {
        (None, None) => None,
        (Some(input), None) => Some(vec![input]),
        (None, Some(toml::Value::Array(values))) => Some(
            values
                .into_iter()
                .map(|v| text(v, "each of inputs"))
                .collect::<Result<Vec<_>>>()?,
        ),
        (None, Some(other)) => return Err(fail(format!("inputs must be a list, found {other}"))),
        (Some(_), Some(_)) => return Err(fail("has both input and inputs; give one".into())),
    };
    let trainable = match table.remove("trainable") {
        None => true,
        Some(toml::Value::Boolean(trainable)) => trainable,
        Some(other) => {
            return Err(fail(format!(
                "trainable must be true or false, found {other}"
            )));
        }
    };
    let type_name = match table.remove("type") {
        Some(value) => text(value, "type")?,
        None => return Err(fail("has no type".into())),
    };
    if let Some(number) = table.values().find_map(too_large) {
        let problem = format!("{type_name}: {number} is too large; at most {MOST} is meant");
        return Err(fail(problem));
    }
    let layer = Layer::from_table(&type_name, table)
        .ok_or_else(|| {
            fail(format!(
                "unknown type {type_name:?}{}; expected one of {}",
                did_you_mean(&type_name, Layer::TYPES),
                Layer::TYPES.join(", ")
            ))
        })?
        .map_err(|e| fail(format!("{type_name}: {}", e.message())))?;
    Ok(LayerEntry {
        name,
        inputs,
        layer,
        trainable,
    })
}

fn layer_table(named: &NamedLayer, previous: &str) -> Result<toml::Table, toml::ser::Error> {
    let mut table = toml::Table::new();
    table.insert("type".into(), named.layer.type_name().into());
    table.insert("name".into(), named.name.clone().into());
    if named.inputs != [previous] {
        table.insert("inputs".into(), named.inputs.clone().into());
    }
    if !named.trainable {
        table.insert("trainable".into(), false.into());
    }
    table.extend(named.layer.to_table()?);
    Ok(table)
}

/// `; did you mean "x"?`, where one of the known names is near.
pub(super) fn did_you_mean(name: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(name, k), k))
        .min();
    match nearest {
        Some((distance, k)) if distance <= 1 + name.len() / 3 => {
            format!(" (did you mean {k:?}?)")
        }
        _ => String::new(),
    }
}
