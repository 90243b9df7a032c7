//! Weights from Keras's layouts to ours.

use super::layers::{Built, Placed};
use super::stored::Stored;
use crate::formats::hdf5::Array;
use crate::formats::safetensors::Tensors;
use crate::tensor::Tensor;
use serde_json::Value;

/// The weights of a model.
pub(super) fn convert(built: &Built, stored: &Stored<'_>) -> Result<Tensors, String> {
    let mut tensors = Tensors::new();
    for placed in &built.placed {
        let variables = stored.variables(&placed.group);
        let converted = layer(placed, &variables);
        let converted = converted.map_err(|p| format!("{}: {p}", placed.name))?;
        let named = converted
            .into_iter()
            .map(|(role, t)| (format!("{}.{role}", placed.layer), t));
        tensors.extend(named);
    }
    let checked = built.model.check_weights(&tensors, "model.weights.h5");
    checked.map_err(|e| e.to_string())?;
    Ok(tensors)
}

type Named = Vec<(&'static str, Tensor)>;

fn layer(placed: &Placed, variables: &[&Array]) -> Result<Named, String> {
    let flag = |key: &str| {
        placed
            .config
            .get(key)
            .and_then(Value::as_bool)
            .unwrap_or(true)
    };
    let bias = flag("use_bias");
    match placed.class.as_str() {
        "Conv2D" | "Convolution2D" => {
            let [kernel, rest @ ..] = count(variables, 1 + usize::from(bias))? else {
                return Ok(Vec::new());
            };
            with_bias(filters(kernel)?, rest)
        }
        "DepthwiseConv2D" => {
            let [kernel, rest @ ..] = count(variables, 1 + usize::from(bias))? else {
                return Ok(Vec::new());
            };
            with_bias(depthwise(kernel)?, rest)
        }
        "SeparableConv2D" => {
            let [first, second, rest @ ..] = count(variables, 2 + usize::from(bias))? else {
                return Ok(Vec::new());
            };
            let mut named = with_bias(filters(second)?, rest)?;
            named.push(("depthwise.weight", depthwise(first)?));
            Ok(named)
        }
        "Dense" => {
            let [kernel, rest @ ..] = count(variables, 1 + usize::from(bias))? else {
                return Ok(Vec::new());
            };
            with_bias(dense(kernel, placed.order.as_deref())?, rest)
        }
        "LayerNormalization" => {
            let own = count(variables, 2)?;
            Ok(vec![("weight", vector(own[0])?), ("bias", vector(own[1])?)])
        }
        "BatchNormalization" => {
            let [scale, center] = [flag("scale"), flag("center")];
            let own = count(variables, 2 + usize::from(scale) + usize::from(center))?;
            batch_norm(own, scale, center)
        }
        _ => Ok(Vec::new()),
    }
}

fn count<'a, 'b>(variables: &'b [&'a Array], expected: usize) -> Result<&'b [&'a Array], String> {
    if variables.len() == expected {
        return Ok(variables);
    }
    Err(format!(
        "expected {expected} arrays, found {}",
        variables.len()
    ))
}

fn with_bias(weight: Tensor, rest: &[&Array]) -> Result<Named, String> {
    let mut named = vec![("weight", weight)];
    if let [bias] = rest {
        named.push(("bias", vector(bias)?));
    }
    Ok(named)
}

fn tensor(shape: &[usize], data: Vec<f32>) -> Result<Tensor, String> {
    Tensor::new(shape, data).map_err(|e| e.to_string())
}

fn vector(array: &Array) -> Result<Tensor, String> {
    tensor(&[array.data.len()], array.data.clone())
}

fn extents<const RANK: usize>(array: &Array) -> Result<[usize; RANK], String> {
    let shape = array.shape.as_slice();
    shape
        .try_into()
        .map_err(|_| format!("expected {RANK} dimensions, found {shape:?}"))
}

/// [kH, kW, in, out] to [out, in, kH, kW].
fn filters(kernel: &Array) -> Result<Tensor, String> {
    let [h, w, inputs, outputs] = extents(kernel)?;
    let taps = h * w;
    let at = |i: usize| {
        let (output, rest) = (i / (inputs * taps), i % (inputs * taps));
        let (input, tap) = (rest / taps, rest % taps);
        kernel.data[(tap * inputs + input) * outputs + output]
    };
    let data = (0..kernel.data.len()).map(at).collect();
    tensor(&[outputs, inputs, h, w], data)
}

/// [kH, kW, channels, multiplier] to [channels · multiplier, 1, kH, kW].
fn depthwise(kernel: &Array) -> Result<Tensor, String> {
    let [h, w, channels, multiplier] = extents(kernel)?;
    let (taps, outputs) = (h * w, channels * multiplier);
    let at = |i: usize| kernel.data[i % taps * outputs + i / taps];
    let data = (0..kernel.data.len()).map(at).collect();
    tensor(&[outputs, 1, h, w], data)
}

/// [in, out] to [out, in], the inputs in our order.
fn dense(kernel: &Array, order: Option<&[usize]>) -> Result<Tensor, String> {
    let [inputs, outputs] = extents(kernel)?;
    if let Some(order) = order
        && order.len() != inputs
    {
        let read = order.len();
        return Err(format!("reads {read} features, its kernel has {inputs}"));
    }
    let at = |i: usize| {
        let (output, input) = (i / inputs, i % inputs);
        let input = order.map_or(input, |order| order[input]);
        kernel.data[input * outputs + output]
    };
    let data = (0..kernel.data.len()).map(at).collect();
    tensor(&[outputs, inputs], data)
}

fn batch_norm(variables: &[&Array], scale: bool, center: bool) -> Result<Named, String> {
    let mut rest = variables.iter();
    let channels = variables.last().map_or(0, |v| v.data.len());
    let mut next = |stored: bool, otherwise: f32| match rest.next().filter(|_| stored) {
        Some(array) => vector(array),
        None => tensor(&[channels], vec![otherwise; channels]),
    };
    let weight = if scale {
        next(true, 1.0)?
    } else {
        tensor(&[channels], vec![1.0; channels])?
    };
    let bias = if center {
        next(true, 0.0)?
    } else {
        tensor(&[channels], vec![0.0; channels])?
    };
    Ok(vec![
        ("weight", weight),
        ("bias", bias),
        ("running_mean", next(true, 0.0)?),
        ("running_var", next(true, 1.0)?),
    ])
}
