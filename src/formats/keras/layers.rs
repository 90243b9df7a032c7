//! Keras's layers as ours.

use super::config::{KerasLayer, Network};
use super::fields::flat_numbers;
use super::stored::Stored;
use crate::model::{Layer, Model, ModelBuilder, Node};
use crate::ops::batch::Normalization;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// A layer of Keras and what became of it.
pub(super) struct Placed {
    /// Keras's class.
    pub class: String,
    /// Keras's name.
    pub name: String,
    /// Its group in the weights file.
    pub group: String,
    pub config: Map<String, Value>,
    /// The layer that holds the weights; of a separable convolution the pointwise one.
    pub layer: String,
    /// Where the features it reads stand in Keras, by where they stand here; `None` if in the
    /// same place.
    pub order: Option<Vec<usize>>,
}

/// A model and where its layers come from.
pub(super) struct Built {
    pub model: Model,
    pub placed: Vec<Placed>,
    pub notes: Vec<String>,
}

/// The classes that are taken over.
const KNOWN: [&str; 28] = [
    "Activation",
    "Add",
    "AveragePooling2D",
    "BatchNormalization",
    "Concatenate",
    "Conv2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "ELU",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "InputLayer",
    "LayerNormalization",
    "LeakyReLU",
    "MaxPooling2D",
    "Multiply",
    "Normalization",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "ReLU",
    "Rescaling",
    "Reshape",
    "SeparableConv2D",
    "Softmax",
    "ZeroPadding2D",
];

pub(super) const UNKNOWN: &str = "is no layer that gpucnn has";

pub(super) struct Importer<'a> {
    builder: ModelBuilder,
    /// Our values by Keras's names.
    values: HashMap<String, Node>,
    /// Of values whose features Keras has in another order: its places, by ours.
    pub(super) orders: HashMap<String, Vec<usize>>,
    stored: Option<&'a Stored<'a>>,
    /// The image's bytes to what Keras's model sees: factor and summand by channel.
    pixels: Option<Vec<[f64; 2]>>,
    channels: usize,
    placed: Vec<Placed>,
    problems: Vec<String>,
    pub(super) notes: Vec<String>,
    output: String,
}

/// The model of a network; `stored` gives the statistics of Normalization layers.
pub(super) fn build(
    network: &Network,
    name: &str,
    stored: Option<&Stored<'_>>,
) -> Result<Built, String> {
    let (input, rest) = input(network)?;
    let name = match name {
        "" => "keras",
        name => name,
    };
    let builder = Model::builder(name, input).training(super::training::defaults(network));
    let mut importer = Importer {
        values: HashMap::from([(network.input_layer.clone(), builder.input())]),
        orders: HashMap::new(),
        builder,
        stored,
        pixels: None,
        channels: input[0],
        placed: Vec::new(),
        problems: Vec::new(),
        notes: Vec::new(),
        output: network
            .layers
            .last()
            .map_or(String::new(), |l| l.name.clone()),
    };
    if let Some(dropped) = network.layers.first().filter(|_| rest) {
        let image = importer.builder.input();
        importer.values.insert(dropped.name.clone(), image);
    }
    for layer in &network.layers[usize::from(rest)..] {
        if let Err(problem) = importer.layer(layer) {
            importer
                .problems
                .push(format!("{} ({}): {problem}", layer.name, layer.class));
        }
    }
    importer.finish(&network.layers)
}

/// Channels, rows and columns of the images, and whether the first layer only gives them
/// their channel.
fn input(network: &Network) -> Result<([usize; 3], bool), String> {
    if let [h, w, c] = *network.input.as_slice() {
        return Ok(([c, h, w], false));
    }
    let first = network.layers.first().filter(|l| l.class == "Reshape");
    let target = first.and_then(|l| extents(l.config.get("target_shape")?));
    match (network.input.as_slice(), target.as_deref()) {
        (_, Some([h, w, 1])) => Ok(([1, *h, *w], true)),
        ([h, w], None) => Ok(([1, *h, *w], false)),
        (other, _) => Err(format!(
            "takes an input of shape {other:?}; expected [rows, columns, channels]"
        )),
    }
}

fn extents(value: &Value) -> Option<Vec<usize>> {
    let extent = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
    value.as_array()?.iter().map(extent).collect()
}

impl Importer<'_> {
    fn finish(mut self, layers: &[KerasLayer]) -> Result<Built, String> {
        if !self.problems.is_empty() {
            return Err(format!(
                "has {} layers that cannot be taken over:\n  {}",
                self.problems.len(),
                self.problems.join("\n  ")
            ));
        }
        let regularized = |l: &&KerasLayer| {
            let mut terms = l.config.iter().filter(|(k, _)| k.ends_with("_regularizer"));
            terms.any(|(_, v)| !v.is_null())
        };
        if let Some(layer) = layers.iter().find(regularized) {
            let name = &layer.name;
            let note =
                format!("regularizers ({name} has one) are not taken over; --weight-decay is");
            self.notes.push(note);
        }
        let builder = match &self.pixels {
            Some(pixels) => {
                let normalization = normalization(pixels)?;
                self.builder.normalization(normalization)
            }
            None => {
                let note = "the model scales no pixels; here they are scaled by 1/255";
                self.notes.push(note.into());
                self.builder
            }
        };
        let model = builder.build().map_err(|e| e.to_string())?;
        Ok(Built {
            model,
            placed: self.placed,
            notes: self.notes,
        })
    }

    fn layer(&mut self, keras: &KerasLayer) -> Result<(), String> {
        let config = &keras.config;
        if config.get("data_format").and_then(Value::as_str) == Some("channels_first") {
            return Err("has data_format channels_first; only channels_last is taken".into());
        }
        let inputs: Vec<Node> = keras
            .inputs
            .iter()
            .filter_map(|name| self.values.get(name).cloned())
            .collect();
        if inputs.len() != keras.inputs.len() || inputs.is_empty() {
            // What it reads was refused already.
            return match KNOWN.contains(&keras.class.as_str()) {
                true => Ok(()),
                false => Err(UNKNOWN.into()),
            };
        }
        if self.is_image(&inputs) && self.prepare(keras)? {
            self.values.insert(keras.name.clone(), inputs[0].clone());
            return Ok(());
        }
        if keras.class.starts_with("Random") || keras.class == "ActivityRegularization" {
            let note = format!(
                "{} ({}) is left out; see --augment",
                keras.name, keras.class
            );
            self.notes.push(note);
            self.values.insert(keras.name.clone(), inputs[0].clone());
            return Ok(());
        }
        let (name, last) = (our_name(&keras.name), keras.name == self.output);
        let node = self.place(keras, &name, &inputs, last)?;
        if config.get("trainable") == Some(&Value::Bool(false)) {
            self.builder.freeze_last();
        }
        let order = self.orders.get(inputs[0].name()).cloned();
        self.pass_order(keras, &inputs, &node)?;
        self.placed.push(Placed {
            class: keras.class.clone(),
            name: keras.name.clone(),
            group: keras.group.clone(),
            config: config.clone(),
            layer: name,
            order,
        });
        self.values.insert(keras.name.clone(), node);
        Ok(())
    }

    /// Notes where Keras has the features of what a layer gives in another order.
    fn pass_order(
        &mut self,
        keras: &KerasLayer,
        inputs: &[Node],
        output: &Node,
    ) -> Result<(), String> {
        let known = |node: &Node| self.orders.get(node.name());
        let order = match keras.class.as_str() {
            "Flatten" | "Reshape" => match *self.shape(&inputs[0])?.as_slice() {
                [c, h, w] if self.shape(output)?.len() == 1 => {
                    let place = |i: usize| i % (h * w) * c + i / (h * w);
                    Some((0..c * h * w).map(place).collect())
                }
                _ => known(&inputs[0]).cloned(),
            },
            "Concatenate" if inputs.iter().any(|i| known(i).is_some()) => {
                let mut joined = Vec::new();
                for input in inputs {
                    let (before, count) = (joined.len(), self.shape(input)?.iter().product());
                    let same = || (0..count).collect();
                    let own = known(input).cloned().unwrap_or_else(same);
                    joined.extend(own.into_iter().map(|place| place + before));
                }
                Some(joined)
            }
            "Add" | "Multiply" => {
                let first = known(&inputs[0]);
                if inputs.iter().any(|i| known(i) != first) {
                    return Err("joins features in different orders".into());
                }
                first.cloned()
            }
            "Dense" => None,
            _ => known(&inputs[0]).cloned(),
        };
        let moves = |order: &Vec<usize>| order.iter().enumerate().any(|(i, place)| i != *place);
        if let Some(order) = order.filter(moves) {
            if keras.name == self.output {
                return Err("gives its classes in another order; end in a Dense".into());
            }
            self.orders.insert(output.name().to_owned(), order);
        }
        Ok(())
    }

    fn is_image(&self, inputs: &[Node]) -> bool {
        *inputs == [self.builder.input()]
    }

    /// Takes a layer that prepares pixels into the normalisation; false for other layers.
    fn prepare(&mut self, keras: &KerasLayer) -> Result<bool, String> {
        let list = |value: Option<&Value>, default: f64| -> Result<Vec<f64>, String> {
            let values = match value {
                None | Some(Value::Null) => vec![default],
                Some(Value::Array(_)) => flat_numbers(value),
                Some(value) => vec![value.as_f64().unwrap_or(f64::NAN)],
            };
            match values.len() {
                1 => Ok(vec![values[0]; self.channels]),
                n if n == self.channels => Ok(values),
                n => Err(format!("has {n} values for {} channels", self.channels)),
            }
        };
        let [factor, summand] = match keras.class.as_str() {
            "Rescaling" => [
                list(keras.config.get("scale"), 1.0)?,
                list(keras.config.get("offset"), 0.0)?,
            ],
            "Normalization" => {
                let [mean, variance] = match keras.config.get("mean") {
                    None | Some(Value::Null) => {
                        let stored = self.stored.and_then(|s| s.statistics(keras));
                        let stored = stored.ok_or(
                            "was adapted to data, and its mean and variance are in the weights, \
                             which this file lacks; give the .keras file",
                        )?;
                        let [mean, variance] = stored.map(Value::from);
                        [list(Some(&mean), 0.0)?, list(Some(&variance), 1.0)?]
                    }
                    mean => [list(mean, 0.0)?, list(keras.config.get("variance"), 1.0)?],
                };
                // Keras keeps the deviation above its epsilon.
                let factor = variance.iter().map(|v| 1.0 / v.sqrt().max(1e-7));
                let factor: Vec<f64> = factor.collect();
                let summand = mean.iter().zip(&factor).map(|(m, f)| -m * f).collect();
                [factor, summand]
            }
            _ => return Ok(false),
        };
        let before = self
            .pixels
            .take()
            .unwrap_or_else(|| vec![[1.0, 0.0]; self.channels]);
        let affine = factor.iter().zip(&summand);
        let after = before
            .iter()
            .zip(affine)
            .map(|([a, b], (f, s))| [a * f, b * f + s]);
        self.pixels = Some(after.collect());
        Ok(true)
    }

    pub(super) fn add(&mut self, name: &str, layer: impl Into<Layer>, inputs: &[Node]) -> Node {
        self.builder.layer_as(name, layer, inputs)
    }

    /// The extents of one sample of a value: [C, H, W] or [features].
    pub(super) fn shape(&self, node: &Node) -> Result<Vec<usize>, String> {
        let shape = self.builder.shape_of(node);
        shape.map_err(|e| e.to_string())
    }
}

/// A layer's name here: no slash, and not the name of the input.
fn our_name(name: &str) -> String {
    match name.replace('/', "_").trim_matches('.') {
        "input" => "input_".into(),
        name => name.to_owned(),
    }
}

/// Affine maps of bytes by channel as a normalisation.
fn normalization(pixels: &[[f64; 2]]) -> Result<Normalization, String> {
    if pixels
        .iter()
        .any(|[a, b]| *a <= 0.0 || !a.is_finite() || !b.is_finite())
    {
        return Err("scales pixels by what is not above zero".into());
    }
    let scale = pixels[0][0];
    let same = pixels.iter().all(|[a, _]| *a == scale);
    // (byte * scale - mean) / std is a * byte + b.
    let std: Vec<f64> = pixels.iter().map(|[a, _]| scale / a).collect();
    let mean: Vec<f32> = pixels
        .iter()
        .zip(&std)
        .map(|([_, b], s)| (-b * s) as f32)
        .collect();
    let zero = mean.iter().all(|m| *m == 0.0);
    Ok(Normalization {
        scale: scale as f32,
        mean: if zero { Vec::new() } else { mean },
        std: if same {
            Vec::new()
        } else {
            std.iter().map(|s| *s as f32).collect()
        },
    })
}
