//! Weights from our layouts to Keras's: the `.weights.h5` that `Model.load_weights` of Keras 3
//! reads into the same architecture.
//!
//! Keras names a group of arrays after the layer's class and counts those of a class, in the
//! order of `model.layers`: `layers/conv2d`, `layers/conv2d_1`. A Functional model sorts its
//! layers by depth, so the order of the file here is not theirs.

use crate::error::{Error, Result};
use crate::formats::hdf5::{Array, Arrays};
use crate::formats::safetensors::Tensors;
use crate::model::{INPUT, Layer, Model, NamedLayer};
use crate::ops::Builder;
use crate::ops::activation::Function;
use crate::tensor::{Shape, Tensor};
use std::collections::HashMap;

/// The arrays of a weights file, by their paths in it.
///
/// A layer here is one of Keras, its activation within it; that of an `add` is a layer of its
/// own behind the sum.
///
/// # Errors
/// One error that names every layer that Keras has no equal of; or if the weights are not the
/// model's.
pub fn arrays(model: &Model, weights: &Tensors) -> Result<Arrays> {
    model.check_weights(weights, "the weights")?;
    let orders = Orders::new(model)?;
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut arrays = Arrays::new();
    for named in in_keras_order(model) {
        let Some(class) = class(&named.layer) else {
            continue;
        };
        let count = seen.entry(class).or_default();
        let group = match *count {
            0 => class.to_owned(),
            n => format!("{class}_{n}"),
        };
        *count += 1;
        for (i, array) in variables(named, weights, &orders).into_iter().enumerate() {
            arrays.insert(format!("layers/{group}/vars/{i}"), array);
        }
    }
    Ok(arrays)
}

/// The name that groups of a layer with weights have.
fn class(layer: &Layer) -> Option<&'static str> {
    Some(match layer {
        Layer::Conv2d(_) => "conv2d",
        Layer::DepthwiseConv2d(_) => "depthwise_conv2d",
        Layer::Dense(_) => "dense",
        Layer::BatchNorm2d(_) => "batch_normalization",
        Layer::LayerNorm2d(_) => "layer_normalization",
        _ => return None,
    })
}

/// A layer's arrays, in Keras's order.
fn variables(named: &NamedLayer, weights: &Tensors, orders: &Orders) -> Vec<Array> {
    let roles: &[&str] = match &named.layer {
        Layer::BatchNorm2d(_) => &["weight", "bias", "running_mean", "running_var"],
        _ => &["weight", "bias"],
    };
    let of = |role: &&str| {
        let tensor = weights.get(&format!("{}.{role}", named.name))?;
        Some(match (&named.layer, *role) {
            (Layer::Conv2d(_), "weight") => filters(tensor),
            (Layer::DepthwiseConv2d(_), "weight") => depthwise(tensor),
            (Layer::Dense(_), "weight") => dense(tensor, orders.of(&named.inputs[0])),
            _ => array(tensor.shape().dims().to_vec(), tensor.data().to_vec()),
        })
    };
    roles.iter().filter_map(of).collect()
}

fn array(shape: Vec<usize>, data: Vec<f32>) -> Array {
    Array { shape, data }
}

/// [out, in, kH, kW] to [kH, kW, in, out].
fn filters(tensor: &Tensor) -> Array {
    let [o, c, h, w] = [0, 1, 2, 3].map(|axis| tensor.shape()[axis]);
    let at = |i: usize| {
        let (output, input, tap) = (i % o, i / o % c, i / o / c);
        tensor.data()[(output * c + input) * h * w + tap]
    };
    array(vec![h, w, c, o], (0..o * c * h * w).map(at).collect())
}

/// [channels, 1, kH, kW] to [kH, kW, channels, 1].
fn depthwise(tensor: &Tensor) -> Array {
    let Array { mut shape, data } = filters(tensor);
    shape.swap(2, 3);
    array(shape, data)
}

/// [out, in] to [in, out], the inputs in Keras's order.
fn dense(tensor: &Tensor, order: Option<&[usize]>) -> Array {
    let [outputs, inputs] = [0, 1].map(|axis| tensor.shape()[axis]);
    let mut data = vec![0.0; inputs * outputs];
    for (output, row) in tensor.data().chunks_exact(inputs).enumerate() {
        for (ours, weight) in row.iter().enumerate() {
            let theirs = order.map_or(ours, |order| order[ours]);
            data[theirs * outputs + output] = *weight;
        }
    }
    array(vec![inputs, outputs], data)
}

/// Where Keras has the features of a layer's output, by our places: it flattens rows, columns,
/// channels, we channels, rows, columns.
struct Orders(HashMap<String, Vec<usize>>);

impl Orders {
    fn new(model: &Model) -> Result<Self> {
        let (graph, values) = model.inference_graph(1)?;
        let names = std::iter::once(INPUT).chain(model.layers().iter().map(|l| l.name.as_str()));
        let shapes: HashMap<&str, &Shape> = names
            .zip(&values)
            .map(|(name, value)| (name, &graph.ty(*value).shape))
            .collect();
        let mut orders = Self(HashMap::new());
        let mut refused = Vec::new();
        for named in model.layers() {
            match orders.follow(named, &shapes) {
                Ok(Some(order)) => {
                    orders.0.insert(named.name.clone(), order);
                }
                Ok(None) => {}
                Err(problem) => refused.push(format!("{} ({problem})", named.name)),
            }
        }
        match refused.is_empty() {
            true => Ok(orders),
            false => Err(Error::model(
                model.name(),
                format!("Keras has no equal of {}", refused.join(", ")),
            )),
        }
    }

    /// The order that a layer, or the input, gives its features in, unless it is ours.
    fn of(&self, layer: &str) -> Option<&[usize]> {
        self.0.get(layer).map(Vec::as_slice)
    }

    fn follow(
        &self,
        named: &NamedLayer,
        shapes: &HashMap<&str, &Shape>,
    ) -> Result<Option<Vec<usize>>, String> {
        let first = named.inputs.first().map_or(INPUT, String::as_str);
        let from = shapes[first].dims();
        match &named.layer {
            Layer::Flatten(_) => Ok(match *from {
                [_, c, h, w] => Some(
                    (0..c * h * w)
                        .map(|i| i % (h * w) * c + i / (h * w))
                        .collect(),
                ),
                _ => self.of(first).map(<[usize]>::to_vec),
            }),
            Layer::Activation(_) | Layer::Dropout(_) | Layer::DropPath(_) => {
                Ok(self.of(first).map(<[usize]>::to_vec))
            }
            Layer::Add(_) | Layer::Mul(_) => {
                let alike = named.inputs.iter().all(|i| self.of(i) == self.of(first));
                match alike {
                    true => Ok(self.of(first).map(<[usize]>::to_vec)),
                    false => Err("joins features that Keras has in different orders".into()),
                }
            }
            Layer::Concat(_) if from.len() == 2 => {
                let mut order = Vec::new();
                for input in &named.inputs {
                    let (start, len) = (order.len(), shapes[input.as_str()].dims()[1]);
                    let theirs = |i| self.of(input).map_or(i, |order| order[i]);
                    order.extend((0..len).map(|i| start + theirs(i)));
                }
                Ok(Some(order))
            }
            // One axis longer than 1 has one order.
            Layer::Reshape(_)
                if [from, shapes[named.name.as_str()].dims()]
                    .iter()
                    .all(|dims| dims[1..].iter().filter(|d| **d > 1).count() <= 1)
                    && self.of(first).is_none() =>
            {
                Ok(None)
            }
            Layer::Reshape(_) => Err("a reshape in the order channels, rows, columns".into()),
            Layer::LayerScale(_) => Err("layer scale".into()),
            _ => Ok(None),
        }
    }
}

/// The layers in the order of `model.layers`: the deepest first, counted from the output, and
/// of equal ones as they are met on the way back from it (Keras's `map_graph_network`).
fn in_keras_order(model: &Model) -> Vec<&NamedLayer> {
    let layers = model.layers();
    let index: HashMap<&str, usize> = layers
        .iter()
        .enumerate()
        .map(|(i, l)| (l.name.as_str(), i))
        .collect();
    let mut met = vec![None; layers.len()];
    let mut stack = vec![layers.len() - 1];
    let mut count = 0;
    // From the output back, the first input first.
    while let Some(i) = stack.pop() {
        if met[i].is_none() {
            met[i] = Some(count);
            count += 1;
            let inputs = layers[i].inputs.iter().rev();
            stack.extend(inputs.filter_map(|name| index.get(name.as_str())));
        }
    }
    // Each layer reads earlier ones.
    let mut depths = vec![0; layers.len()];
    for (i, named) in layers.iter().enumerate().rev() {
        let own = 1 + usize::from(is_two(&named.layer));
        for input in &named.inputs {
            if let Some(input) = index.get(input.as_str()) {
                depths[*input] = depths[*input].max(depths[i] + own);
            }
        }
    }
    let mut order: Vec<usize> = (0..layers.len()).filter(|i| met[*i].is_some()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(depths[*i]), met[*i]));
    order.into_iter().map(|i| &layers[i]).collect()
}

/// Whether a layer here is two of Keras.
fn is_two(layer: &Layer) -> bool {
    matches!(layer, Layer::Add(add) if add.activation != Function::Identity)
}
