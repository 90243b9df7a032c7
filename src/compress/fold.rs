//! Folding batch normalisation into the convolution before it.

use crate::error::Result;
use crate::model::{INPUT, Layer, Model, NamedLayer};
use crate::ops::activation::Function;
use crate::tensor::Tensor;
use crate::train::Weights;
use std::collections::BTreeMap;

/// The model without the batch normalisations that alone read a convolution without an
/// activation: with `g = γ / √(σ² + ε)`, filters become `g w` and biases `g (b - μ) + β`.
/// At inference it computes the same, but for rounding.
///
/// # Errors
/// If the weights are not the model's.
pub fn fold_batch_norms(model: &Model, weights: &Weights) -> Result<(Model, Weights)> {
    model.check_weights(weights, "the weights")?;
    let mut weights = weights.clone();
    // The convolution that stands for each folded normalisation.
    let mut folded: BTreeMap<&str, &str> = BTreeMap::new();
    for norm in model.layers() {
        if let (Layer::BatchNorm2d(layer), Some(conv)) = (&norm.layer, foldable(model, norm)) {
            fold(&mut weights, &conv.name, &norm.name, layer.epsilon);
            folded.insert(&norm.name, &conv.name);
        }
    }
    let layers = model.layers().iter();
    let layers = layers.filter(|l| !folded.contains_key(l.name.as_str()));
    let layers = layers.map(|named| {
        let mut named = named.clone();
        for input in &mut named.inputs {
            if let Some(conv) = folded.get(input.as_str()) {
                *input = (*conv).to_owned();
            }
        }
        if folded.values().any(|conv| *conv == named.name) {
            match &mut named.layer {
                Layer::Conv2d(conv) => conv.bias = true,
                Layer::DepthwiseConv2d(conv) => conv.bias = true,
                _ => {}
            }
        }
        named
    });
    let model = model.with_layers(layers.collect())?;
    model.check_weights(&weights, "the folded weights")?;
    Ok((model, weights))
}

/// The convolution whose only reader is this normalisation.
fn foldable<'a>(model: &'a Model, norm: &NamedLayer) -> Option<&'a NamedLayer> {
    let name = norm.inputs.first().filter(|i| *i != INPUT)?;
    let conv = model.layers().iter().find(|l| l.name == *name)?;
    let activation = match &conv.layer {
        Layer::Conv2d(conv) => conv.activation,
        Layer::DepthwiseConv2d(conv) => conv.activation,
        _ => return None,
    };
    let inputs = model.layers().iter().flat_map(|l| &l.inputs);
    let readers = inputs.filter(|i| *i == name).count();
    (activation == Function::Identity && readers == 1).then_some(conv)
}

fn fold(weights: &mut Weights, conv: &str, norm: &str, epsilon: f64) {
    let mut take = |role: &str| weights.remove(&format!("{norm}.{role}"));
    let [scale, shift, mean, variance] =
        ["weight", "bias", "running_mean", "running_var"].map(|role| {
            let tensor = take(role).map(Tensor::into_data);
            tensor
                .unwrap_or_default()
                .into_iter()
                .map(f64::from)
                .collect::<Vec<f64>>()
        });
    let gain: Vec<f64> = scale
        .iter()
        .zip(&variance)
        .map(|(scale, variance)| scale / (variance + epsilon).sqrt())
        .collect();
    let filters = weights.get_mut(&format!("{conv}.weight"));
    if let Some(filters) = filters {
        let row = filters.data().len() / gain.len();
        for (row, gain) in filters.data_mut().chunks_exact_mut(row).zip(&gain) {
            row.iter_mut()
                .for_each(|w| *w = (f64::from(*w) * gain) as f32);
        }
    }
    let bias = weights
        .entry(format!("{conv}.bias"))
        .or_insert_with(|| Tensor::zeros([gain.len()]));
    for (i, b) in bias.data_mut().iter_mut().enumerate() {
        *b = (gain[i] * (f64::from(*b) - mean[i]) + shift[i]) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::CpuBackend;
    use crate::infer::Predictor;

    #[test]
    fn a_folded_model_computes_the_same() {
        let model = Model::load("mobilenet-v2").unwrap();
        let mut weights = model.initial_weights(1);
        for (k, (name, tensor)) in weights.iter_mut().enumerate() {
            // Statistics and scales that are neither one nor zero.
            if tensor.shape().rank() == 1 {
                let base = if name.ends_with("running_var") {
                    0.5
                } else {
                    -0.2
                };
                for (i, x) in tensor.data_mut().iter_mut().enumerate() {
                    *x += base * ((i * 7 + k) % 5) as f32 / 5.0;
                    *x = if base > 0.0 { x.abs() } else { *x };
                }
            }
        }
        let (folded, slim) = fold_batch_norms(&model, &weights).unwrap();
        let norms = |m: &Model| {
            let layers = m.layers().iter();
            layers
                .filter(|l| matches!(l.layer, Layer::BatchNorm2d(_)))
                .count()
        };
        assert!(norms(&model) > 40);
        assert_eq!(norms(&folded), 0);
        let image: Vec<u8> = (0..3 * 32 * 32).map(|i| (i * 37 % 251) as u8).collect();
        let [expected, found] = [(&model, &weights), (&folded, &slim)].map(|(model, weights)| {
            let backend = Box::new(CpuBackend::new());
            let mut predictor = Predictor::new(model, weights, 1, backend).unwrap();
            predictor.logits(&image).unwrap().remove(0)
        });
        let scale = expected.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        for (f, e) in found.iter().zip(&expected) {
            // 52 layers of filters rounded to f32 once more.
            assert!((f - e).abs() <= 1e-4 * scale, "{found:?} {expected:?}");
        }
    }
}
