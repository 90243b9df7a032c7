//! Structured pruning: whole channels go, and the model really gets smaller.

use super::channels::{Channels, is_depthwise};
use crate::error::{Error, Result};
use crate::model::{Layer, Model, NamedLayer};
use crate::tensor::Tensor;
use crate::train::Weights;
use std::collections::{BTreeMap, HashSet};

/// What tells how much a channel matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Criterion {
    /// The L1 norm of the filter that makes it (Li et al. 2017, "Pruning Filters for
    /// Efficient ConvNets").
    #[default]
    L1,
    /// The magnitude of its batch normalisation's scale (Liu et al. 2017, "Network
    /// Slimming"); the L1 norm where no normalisation follows.
    BatchNormScale,
}

/// Drops the share `amount` of the channels, those that matter least, with all that depends
/// on them; a channel at least is left of each layer.
///
/// With `global` channels of all layers compete, each score over the mean of its layer's;
/// otherwise every layer loses the same share. Channels that are tied, such as those an
/// addition joins, go together and score by their mean.
///
/// # Errors
/// [`Error::Usage`] if `amount` is not in (0, 1) or no channel may go; [`Error::Model`] if
/// the weights are not the model's.
pub fn prune_channels(
    model: &Model,
    weights: &Weights,
    amount: f64,
    criterion: Criterion,
    global: bool,
) -> Result<(Model, Weights)> {
    super::check_amount(amount)?;
    model.check_weights(weights, "the weights")?;
    let channels = Channels::new(model)?;
    let scored = scores(model, weights, &channels, criterion);
    let dropped = choose(&scored, amount, global);
    if dropped.is_empty() {
        let problem = format!(
            "--amount {amount} leaves {} as it is: no layer has so many channels that may go",
            model.name()
        );
        return Err(Error::Usage(problem));
    }
    shrink(model, weights, &channels, &dropped)
}

/// A channel that may go.
struct Scored {
    /// The id that stands for it.
    id: usize,
    /// How much it matters; 1 is the mean of its layer.
    score: f64,
    /// The layers that make it.
    makers: Vec<usize>,
}

fn scores(
    model: &Model,
    weights: &Weights,
    channels: &Channels,
    criterion: Criterion,
) -> Vec<Scored> {
    // By id: sum and number of scores, and makers.
    let mut found: BTreeMap<usize, (f64, usize, Vec<usize>)> = BTreeMap::new();
    for (index, named) in model.layers().iter().enumerate() {
        let makes = match &named.layer {
            Layer::Conv2d(conv) => conv.groups == 1,
            Layer::Dense(_) => true,
            _ => false,
        };
        if !makes {
            continue;
        }
        let ids = channels.of(&named.name);
        let scale = normalisation(model, &named.name)
            .filter(|_| criterion == Criterion::BatchNormScale)
            .and_then(|name| weights.get(&format!("{name}.weight")));
        let norms = match scale {
            Some(scale) => norms(scale, ids.len()),
            None => norms(&weights[&format!("{}.weight", named.name)], ids.len()),
        };
        let mean = norms.iter().sum::<f64>() / norms.len() as f64;
        for (id, norm) in ids.iter().zip(&norms) {
            if channels.is_fixed(*id) {
                continue;
            }
            let entry = found.entry(channels.representative(*id)).or_default();
            entry.0 += if mean > 0.0 { norm / mean } else { 0.0 };
            entry.1 += 1;
            entry.2.push(index);
        }
    }
    let scored = |(id, (sum, count, makers)): (usize, (f64, usize, Vec<usize>))| Scored {
        id,
        score: sum / count as f64,
        makers,
    };
    found.into_iter().map(scored).collect()
}

/// The batch normalisation that reads a layer, if one does.
fn normalisation<'a>(model: &'a Model, layer: &str) -> Option<&'a str> {
    let reads = |n: &&NamedLayer| n.inputs.iter().any(|i| i == layer);
    let mut readers = model.layers().iter().filter(reads);
    let is_norm = |n: &&NamedLayer| matches!(n.layer, Layer::BatchNorm2d(_));
    readers.find(is_norm).map(|n| n.name.as_str())
}

/// The L1 norm of each of `rows` rows.
fn norms(tensor: &Tensor, rows: usize) -> Vec<f64> {
    let row = tensor.data().len() / rows;
    let norm = |row: &[f32]| row.iter().map(|x| f64::from(x.abs())).sum();
    tensor.data().chunks_exact(row).map(norm).collect()
}

/// The ids that go.
fn choose(scored: &[Scored], amount: f64, global: bool) -> HashSet<usize> {
    let mut layers: BTreeMap<&[usize], Vec<&Scored>> = BTreeMap::new();
    for channel in scored {
        layers.entry(&channel.makers).or_default().push(channel);
    }
    for channels in layers.values_mut() {
        channels.sort_by(|a, b| a.score.total_cmp(&b.score).then(a.id.cmp(&b.id)));
    }
    let share = |n: usize| (amount * n as f64) as usize;
    if !global {
        let lost = |of: &Vec<&Scored>| share(of.len()).min(of.len() - 1);
        let gone = layers.values().flat_map(|of| &of[..lost(of)]);
        return gone.map(|c| c.id).collect();
    }
    // The best of each layer stays.
    let mut all: Vec<&Scored> = layers
        .values()
        .flat_map(|of| &of[..of.len() - 1])
        .copied()
        .collect();
    all.sort_by(|a, b| a.score.total_cmp(&b.score).then(a.id.cmp(&b.id)));
    all.truncate(share(scored.len()));
    all.into_iter().map(|c| c.id).collect()
}

/// The model and weights without the channels of these ids.
fn shrink(
    model: &Model,
    weights: &Weights,
    channels: &Channels,
    dropped: &HashSet<usize>,
) -> Result<(Model, Weights)> {
    let stays = |id: &usize| !dropped.contains(&channels.representative(*id));
    // Positions that stay.
    let kept =
        |ids: &[usize]| -> Vec<usize> { (0..ids.len()).filter(|i| stays(&ids[*i])).collect() };
    let smaller = model.map_layers(|named| {
        let outputs = kept(channels.of(&named.name)).len();
        let inputs = channels.read_by(named);
        let mut layer = named.layer.clone();
        match &mut layer {
            Layer::Conv2d(conv) => {
                conv.set_filters(outputs);
                if is_depthwise(conv.groups, inputs.len()) {
                    conv.groups = kept(inputs).len();
                }
            }
            Layer::Dense(dense) => dense.units = outputs,
            _ => {}
        }
        layer
    })?;
    let mut found = Weights::new();
    for named in model.layers() {
        let outputs = kept(channels.of(&named.name));
        let inputs = kept(channels.read_by(named));
        let mixes = match &named.layer {
            Layer::Conv2d(conv) => conv.groups == 1,
            Layer::Dense(_) => true,
            _ => false,
        };
        for spec in model
            .parameters()
            .iter()
            .filter(|p| p.layer() == named.name)
        {
            let whole = &weights[&spec.name];
            let by_channel = whole.shape().dims().first() == Some(&channels.of(&named.name).len());
            let mut tensor = whole.clone();
            if by_channel {
                tensor = sliced(&tensor, 0, &outputs)?;
            }
            if mixes && tensor.shape().rank() > 1 {
                tensor = sliced(&tensor, 1, &inputs)?;
            }
            found.insert(spec.name.clone(), tensor);
        }
    }
    smaller.check_weights(&found, "the pruned weights")?;
    Ok((smaller, found))
}

/// The elements at these positions of an axis.
fn sliced(tensor: &Tensor, axis: usize, kept: &[usize]) -> Result<Tensor> {
    let mut dims = tensor.shape().dims().to_vec();
    let inner: usize = dims[axis + 1..].iter().product();
    let extent = dims[axis];
    dims[axis] = kept.len();
    let mut data = Vec::with_capacity(dims.iter().product());
    for outer in tensor.data().chunks_exact(extent * inner) {
        for i in kept {
            data.extend_from_slice(&outer[i * inner..(i + 1) * inner]);
        }
    }
    Tensor::new(dims.as_slice(), data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::CpuBackend;
    use crate::infer::Predictor;
    use crate::model::{
        Add, BatchNorm2d, Concat, Conv2d, Dense, DepthwiseConv2d, Dropout, Flatten, MaxPool2d, Pad,
    };
    use crate::ops::activation::Function::Relu;

    /// Residual, depthwise, concatenated, flattened into dense: every way channels are tied.
    fn tangled() -> Model {
        let same = |filters| Conv2d::new(filters, 3).padding(Pad::Same);
        let mut b = Model::builder("tangled", [2, 6, 6]);
        let trunk = b.layer(same(6).activation(Relu), &[b.input()]);
        let branch = b.layer(same(6).bias(false), std::slice::from_ref(&trunk));
        let branch = b.layer(BatchNorm2d::default(), &[branch]);
        let sum = b.layer(Add { activation: Relu }, &[trunk, branch]);
        let depth = b.layer(
            DepthwiseConv2d::new(3).padding(Pad::Same).activation(Relu),
            std::slice::from_ref(&sum),
        );
        let twice = Conv2d {
            groups: 6,
            ..same(12).activation(Relu)
        };
        let twice = b.layer(twice, &[depth]);
        let wide = b.layer(same(5).activation(Relu), &[sum]);
        let joined = b.layer(Concat {}, &[twice, wide]);
        let pooled = b.layer(MaxPool2d::new(2), &[joined]);
        let flat = b.layer(Flatten, &[pooled]);
        let flat = b.layer(Dropout::new(0.5), &[flat]);
        let hidden = b.layer(Dense::new(8).activation(Relu), &[flat]);
        b.layer(Dense::new(3), &[hidden]);
        b.build().unwrap()
    }

    fn logits(model: &Model, weights: &Weights) -> Vec<f32> {
        let image: Vec<u8> = (0..2 * 36).map(|i| (i * 37 % 251) as u8).collect();
        let backend = Box::new(CpuBackend::new());
        let mut predictor = Predictor::new(model, weights, 1, backend).unwrap();
        predictor.logits(&image).unwrap().remove(0)
    }

    /// Weights without zeros, statistics included.
    fn weights(model: &Model) -> Weights {
        let mut weights = model.initial_weights(5);
        for (k, tensor) in weights.values_mut().enumerate() {
            for (i, x) in tensor.data_mut().iter_mut().enumerate() {
                *x = x.abs().mul_add(0.5, 0.05 + (i * 7 + k) as f32 % 5.0 * 0.02);
            }
        }
        weights
    }

    #[test]
    fn dropping_channels_is_zeroing_them() {
        let model = tangled();
        let mut weights = weights(&model);
        let channels = Channels::new(&model).unwrap();
        let scored = scores(&model, &weights, &channels, Criterion::L1);
        let dropped = choose(&scored, 0.5, false);
        let (small, slim) = shrink(&model, &weights, &channels, &dropped).unwrap();
        // A channel whose filter, bias, scale and shift are zero is as good as gone.
        for named in model.layers() {
            let ids = channels.of(&named.name);
            for role in ["weight", "bias"] {
                let Some(tensor) = weights.get_mut(&format!("{}.{role}", named.name)) else {
                    continue;
                };
                let row = tensor.data().len() / ids.len();
                for (id, row) in ids.iter().zip(tensor.data_mut().chunks_exact_mut(row)) {
                    if dropped.contains(&channels.representative(*id)) {
                        row.fill(0.0);
                    }
                }
            }
        }
        let expected = logits(&model, &weights);
        for (found, expected) in logits(&small, &slim).iter().zip(&expected) {
            // Sums of the same terms: f64 inside, f32 at the end of each layer.
            assert!(
                (found - expected).abs() <= 1e-5 * expected.abs(),
                "{found} {expected}"
            );
        }
        assert!(expected.iter().any(|x| x.abs() > 0.1), "{expected:?}");
    }

    #[test]
    fn every_layer_loses_its_share_and_the_output_none() {
        let model = tangled();
        let weights = weights(&model);
        let (small, _) = prune_channels(&model, &weights, 0.5, Criterion::L1, false).unwrap();
        let outputs: Vec<usize> = small
            .summary()
            .unwrap()
            .layers
            .iter()
            .map(|l| l.output[0])
            .collect();
        // trunk, branch, bn, add, depthwise, twice, wide, concat, pool, flat, dropout, fc1, fc2.
        let flat = (6 + 3) * 9;
        assert_eq!(outputs, [3, 3, 3, 3, 3, 6, 3, 9, 9, flat, flat, 4, 3]);
        assert_eq!(small.input(), model.input());
    }

    #[test]
    fn global_pruning_takes_what_matters_least_and_spares_the_last_channel() {
        let model = tangled();
        let mut weights = weights(&model);
        // All of the hidden layer but one is next to nothing.
        let fc = weights.get_mut("fc1.weight").unwrap();
        let row = fc.data().len() / 8;
        fc.data_mut()[row..].iter_mut().for_each(|x| *x *= 1e-6);
        let (small, _) = prune_channels(&model, &weights, 0.4, Criterion::L1, true).unwrap();
        let summary = small.summary().unwrap();
        let fc1 = summary.layers.iter().find(|l| l.name == "fc1").unwrap();
        assert_eq!(fc1.output, [1]);
    }

    #[test]
    fn the_scale_of_a_normalisation_can_tell() {
        let mut b = Model::builder("bn", [1, 4, 4]);
        let x = b.layer(Conv2d::new(4, 3), &[b.input()]);
        let x = b.layer(BatchNorm2d::default(), &[x]);
        let x = b.layer(Flatten, &[x]);
        b.layer(Dense::new(2), &[x]);
        let model = b.build().unwrap();
        let mut weights = model.initial_weights(0);
        weights
            .get_mut("bn1.weight")
            .unwrap()
            .data_mut()
            .copy_from_slice(&[0.1, -2.0, 0.2, 1.0]);
        let (_, slim) =
            prune_channels(&model, &weights, 0.5, Criterion::BatchNormScale, false).unwrap();
        assert_eq!(slim["bn1.weight"].data(), [-2.0, 1.0]);
        assert_eq!(
            slim["conv1.weight"].data()[..9],
            weights["conv1.weight"].data()[9..18]
        );
    }

    #[test]
    fn amounts_are_checked() {
        let model = tangled();
        let weights = weights(&model);
        for amount in [0.0, 1.0, -1.0, f64::NAN] {
            let error = prune_channels(&model, &weights, amount, Criterion::L1, false).unwrap_err();
            assert!(error.to_string().contains("--amount"), "{error}");
        }
        let few = prune_channels(&model, &weights, 0.01, Criterion::L1, false).unwrap_err();
        assert!(few.to_string().contains("as it is"), "{few}");
    }
}
