//! Losses.

use super::call::Call;
use super::{Item, Lowering, Write};
use crate::error::Result;
use crate::formats::onnx::tensor::Tensor;
use crate::ops::Array;
use crate::ops::binary::{BinaryOp, SumTo};
use crate::ops::cross_entropy::{Labels, SoftmaxCrossEntropy};
use crate::ops::reduction::Reduction;
use crate::ops::softmax::Softmax;
use crate::tensor::{Shape, TensorType};

pub(super) const OPERATORS: &[(&str, Write)] = &[
    ("NegativeLogLikelihoodLoss", negative_log_likelihood),
    ("SoftmaxCrossEntropyLoss", softmax_cross_entropy),
];

fn reduction(call: &Call<'_>) -> Result<Reduction> {
    match call.text("reduction", "mean")?.as_str() {
        "none" => Ok(Reduction::None),
        "sum" => Ok(Reduction::Sum),
        "mean" => Ok(Reduction::Mean),
        other => Err(call.error(format!("attribute reduction: found {other:?}"))),
    }
}

/// The labels, of which there is one for each row of `logits`.
fn labels<'a>(call: &'a Call<'_>, logits: &Shape) -> Result<&'a Tensor> {
    let labels = call.known(1)?;
    let dims = logits.dims();
    if dims.len() < 2
        || labels.dims != [&dims[..1], &dims[2..]].concat()
        || labels.as_integers().is_none()
    {
        return Err(call.error(format!(
            "expected integer labels of the shape of {logits} without axis 1, found {:?}",
            labels.dims
        )));
    }
    Ok(labels)
}

fn softmax_cross_entropy(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let shape = lowering.shape(x);
    let found = labels(call, &shape)?;
    let ty = TensorType::u32(found.dims.as_slice());
    // Negative labels wrap round to classes that do not exist.
    let data = found
        .as_integers()
        .unwrap_or_default()
        .iter()
        .map(|i| *i as u32);
    let array = Array::index(ty, data.collect());
    let labels = lowering.constant(&format!("{}/labels", call.node.name), array);
    let mut inputs = vec![x, labels];
    if call.optional(2).is_some() {
        inputs.push(call.float(lowering, 2)?);
    }
    let op = SoftmaxCrossEntropy {
        labels: Labels::Hard {
            ignore: call.stated("ignore_index")?.map(|i| i as u32),
        },
        label_smoothing: 0.0,
        reduction: reduction(call)?,
    };
    let loss = lowering.op(call, op, &inputs)?;
    let log_softmax = Softmax { axis: 1, log: true };
    let log = lowering.op(call, log_softmax, &[x])?;
    Ok(vec![Item::float(loss), Item::float(log)])
}

/// The labels are known here, so that the loss is a sum of products: minus the weight of the
/// class where the label is, else 0.
fn negative_log_likelihood(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let shape = lowering.shape(x);
    let labels = labels(call, &shape)?;
    let (classes, ignored) = (shape[1], call.stated("ignore_index")?);
    let weights = match call.optional(2) {
        Some(_) => call.known(2)?.to_floats(),
        None => vec![1.0; classes],
    };
    if weights.len() != classes {
        return Err(call.error(format!(
            "expected {classes} weights, found {}",
            weights.len()
        )));
    }
    let reduction = reduction(call)?;
    let inner: usize = shape.dims()[2..].iter().product();
    let mut factors = vec![0.0; shape.len()];
    let mut total = 0.0;
    for (row, label) in labels.as_integers().unwrap_or_default().iter().enumerate() {
        if ignored == Some(*label) {
            continue;
        }
        let class = usize::try_from(*label).ok().filter(|c| *c < classes);
        let class = class.ok_or_else(|| call.error(format!("there is no class {label}")))?;
        let weight = f64::from(weights[class]);
        factors[(row / inner * classes + class) * inner + row % inner] = -weight;
        total += weight;
    }
    if reduction == Reduction::Mean {
        factors.iter_mut().for_each(|f| *f /= total);
    }
    // All places of an image are one axis.
    let ty = TensorType::f32([shape[0], classes, inner]);
    let x = lowering.reshaped(call, x, ty.shape.dims())?;
    let name = format!("{}/factors", call.node.name);
    let factors = lowering.constant(&name, Array::float(ty, factors));
    let product = lowering.binary(call, BinaryOp::Mul, x, factors)?;
    let target = match reduction {
        Reduction::None => Shape::from([shape[0], 1, inner]),
        Reduction::Sum | Reduction::Mean => Shape::default(),
    };
    let sum = lowering.op(call, SumTo { shape: target }, &[product])?;
    let loss = match reduction {
        Reduction::None => lowering.reshaped(call, sum, &labels.dims)?,
        Reduction::Sum | Reduction::Mean => sum,
    };
    Ok(vec![Item::float(loss)])
}
