//! Products of matrices, normalisations, softmax.

use super::call::Call;
use super::{Item, Lowering, Write};
use crate::error::Result;
use crate::ops::Value;
use crate::ops::Window;
use crate::ops::batch_norm::{BatchNorm2d, BatchNormInference, UpdateRunningStats};
use crate::ops::bias::BiasAdd;
use crate::ops::binary::{BinaryOp, SumTo};
use crate::ops::conv2d::Conv2d;
use crate::ops::matmul::MatMul;
use crate::ops::pool2d::{AvgPool2d, GlobalAvgPool};
use crate::ops::softmax::Softmax;
use crate::ops::unary::{Unary, UnaryOp};
use crate::tensor::Shape;

pub(super) const OPERATORS: &[(&str, Write)] = &[
    ("BatchNormalization", batch_normalization),
    ("Gemm", gemm),
    ("GroupNormalization", group_normalization),
    ("InstanceNormalization", instance_normalization),
    ("LayerNormalization", layer_normalization),
    ("LRN", local_response_normalization),
    ("LogSoftmax", |l, c| softmax(l, c, true)),
    ("MatMul", matmul),
    ("MeanVarianceNormalization", mean_variance_normalization),
    ("Softmax", |l, c| softmax(l, c, false)),
];

fn gemm(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let [a, b] = [call.float(lowering, 0)?, call.float(lowering, 1)?];
    let product = MatMul::new(call.flag("transA")?, call.flag("transB")?);
    let mut y = lowering.op(call, product, &[a, b])?;
    let alpha = call.number_attribute("alpha", 1.0)?;
    if alpha != 1.0 {
        y = lowering.with_number(call, BinaryOp::Mul, y, alpha)?;
    }
    if call.optional(2).is_none() {
        return Ok(vec![Item::float(y)]);
    }
    let mut c = call.float(lowering, 2)?;
    let beta = call.number_attribute("beta", 1.0)?;
    if beta != 1.0 {
        c = lowering.with_number(call, BinaryOp::Mul, c, beta)?;
    }
    let columns = lowering.shape(y)[1];
    let y = match lowering.shape(c).dims() {
        // A bias, which is added by the product's own kernel.
        [n] if *n == columns => lowering.op(call, BiasAdd, &[y, c])?,
        _ => lowering.binary(call, BinaryOp::Add, y, c)?,
    };
    Ok(vec![Item::float(y)])
}

/// NumPy's product: of matrices in the last two axes, with the axes before broadcast.
fn matmul(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let [a, b] = [call.float(lowering, 0)?, call.float(lowering, 1)?];
    let [first, second] = [a, b].map(|v| lowering.shape(v).dims().to_vec());
    if first.is_empty() || second.is_empty() {
        return Err(call.error("expected matrices or vectors, found a single number"));
    }
    // A vector is a row on the left and a column on the right, and goes again.
    let rows = if first.len() == 1 {
        [vec![1], first.clone()].concat()
    } else {
        first.clone()
    };
    let columns = if second.len() == 1 {
        vec![second[0], 1]
    } else {
        second.clone()
    };
    let a = lowering.reshaped(call, a, &rows)?;
    let b = lowering.reshaped(call, b, &columns)?;
    let y = product(lowering, call, [a, b], [&rows, &columns])?;
    let mut dims = lowering.shape(y).dims().to_vec();
    if second.len() == 1 {
        dims.pop();
    }
    if first.len() == 1 {
        dims.remove(dims.len() - 1 - usize::from(second.len() > 1));
    }
    Ok(vec![Item::float(lowering.reshaped(call, y, &dims)?)])
}

fn product(
    lowering: &mut Lowering,
    call: &Call<'_>,
    [a, b]: [Value; 2],
    [first, second]: [&[usize]; 2],
) -> Result<Value> {
    let (before_a, [m, k]) = split(first);
    let (before_b, [k_b, n]) = split(second);
    if k != k_b {
        return Err(call.error(format!("inner extents of {first:?} and {second:?} differ")));
    }
    // One matrix on the right: the rows of all on the left are one matrix.
    if before_b.iter().product::<usize>() == 1 && before_a.len() >= before_b.len() {
        let rows = before_a.iter().product::<usize>() * m;
        let a = lowering.reshaped(call, a, &[rows, k])?;
        let b = lowering.reshaped(call, b, &[k, n])?;
        let y = lowering.op(call, MatMul::new(false, false), &[a, b])?;
        return lowering.reshaped(call, y, &[before_a, &[m, n]].concat());
    }
    // Several: a convolution by 1 x 1 filters, each group of channels a product.
    let whole = broadcast(before_a, before_b).ok_or_else(|| {
        call.error(format!(
            "cannot broadcast {first:?} and {second:?} to each other"
        ))
    })?;
    let count: usize = whole.iter().product();
    let a = lowering.repeated(call, a, [&whole[..], &[m, k]].concat())?;
    let b = lowering.repeated(call, b, [&whole[..], &[k, n]].concat())?;
    let filters = lowering.reshaped(call, a, &[count * m, k, 1, 1])?;
    let image = lowering.reshaped(call, b, &[1, count * k, 1, n])?;
    let op = Conv2d::new(Window::new([1, 1]), count);
    let y = lowering.op(call, op, &[image, filters])?;
    lowering.reshaped(call, y, &[&whole[..], &[m, n]].concat())
}

/// The axes before the last two, and those.
fn split(dims: &[usize]) -> (&[usize], [usize; 2]) {
    let (before, last) = dims.split_at(dims.len() - 2);
    (before, [last[0], last[1]])
}

fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let extent = |dims: &[usize], axis: usize| {
        let missing = rank - dims.len();
        axis.checked_sub(missing).map_or(1, |i| dims[i])
    };
    let axes = (0..rank).map(|axis| match (extent(a, axis), extent(b, axis)) {
        (m, n) if m == n || n == 1 => Some(m),
        (1, n) => Some(n),
        _ => None,
    });
    axes.collect()
}

/// [N, C, ..] as images [N, C, rows, columns].
fn images(lowering: &mut Lowering, call: &Call<'_>, x: Value) -> Result<(Value, Vec<usize>)> {
    let dims = lowering.shape(x).dims().to_vec();
    let [n, c, rest @ ..] = dims.as_slice() else {
        return Err(call.error(format!("expected [N, C, ..], found {dims:?}")));
    };
    let columns = rest.last().copied().unwrap_or(1);
    let rows = rest.iter().product::<usize>() / columns;
    let x = lowering.reshaped(call, x, &[*n, *c, rows, columns])?;
    Ok((x, dims))
}

fn batch_normalization(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let epsilon = call.number_attribute("epsilon", 1e-5)?;
    let x = call.float(lowering, 0)?;
    let (x, dims) = images(lowering, call, x)?;
    let mut inputs = vec![x];
    for i in 1..5 {
        inputs.push(call.float(lowering, i)?);
    }
    // Before version 14 more outputs asked for training.
    if !call.flag("training_mode")? {
        if call
            .node
            .outputs
            .iter()
            .skip(1)
            .any(|name| !name.is_empty())
        {
            return Err(call.error("statistics as outputs without training_mode"));
        }
        let y = lowering.op(call, BatchNormInference::new(epsilon), &inputs)?;
        return Ok(vec![Item::float(lowering.reshaped(call, y, &dims)?)]);
    }
    let found = lowering.ops(call, BatchNorm2d::new(epsilon), &inputs[..3])?;
    let momentum = call.number_attribute("momentum", 0.9)?;
    let mean = lowering.copied(call, inputs[3])?;
    let variance = lowering.copied(call, inputs[4])?;
    let update = UpdateRunningStats { momentum };
    lowering.ops(call, update, &[mean, variance, found[1], found[2]])?;
    let y = lowering.reshaped(call, found[0], &dims)?;
    Ok([y, mean, variance].map(Item::float).into())
}

/// The mean over axes, which keep extent 1.
pub(super) fn mean_over(
    lowering: &mut Lowering,
    call: &Call<'_>,
    x: Value,
    axes: &[usize],
) -> Result<Value> {
    let mut dims = lowering.shape(x).dims().to_vec();
    // Over the images of channels it is the pool that layers have.
    if dims.len() == 4 && axes == [2, 3] {
        return lowering.op(call, GlobalAvgPool, &[x]);
    }
    let count: usize = axes.iter().map(|a| dims[*a]).product();
    axes.iter().for_each(|a| dims[*a] = 1);
    let shape = Shape::new(dims);
    let sum = lowering.op(call, SumTo { shape }, &[x])?;
    lowering.with_number(call, BinaryOp::Mul, sum, 1.0 / count as f64)
}

/// `(x - mean) / sqrt(variance + epsilon)`, mean and variance over `axes`; and the mean and
/// one over the root.
fn normalized(
    lowering: &mut Lowering,
    call: &Call<'_>,
    x: Value,
    axes: &[usize],
    epsilon: f64,
) -> Result<[Value; 3]> {
    let mean = mean_over(lowering, call, x, axes)?;
    let centred = lowering.binary(call, BinaryOp::Sub, x, mean)?;
    let square = lowering.binary(call, BinaryOp::Mul, centred, centred)?;
    let variance = mean_over(lowering, call, square, axes)?;
    let variance = lowering.with_number(call, BinaryOp::Add, variance, epsilon)?;
    let root = lowering.op(call, Unary(UnaryOp::Sqrt), &[variance])?;
    let inverse = lowering.op(call, Unary(UnaryOp::Reciprocal), &[root])?;
    let y = lowering.binary(call, BinaryOp::Mul, centred, inverse)?;
    Ok([y, mean, inverse])
}

fn layer_normalization(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let rank = lowering.shape(x).rank();
    let axis = call.axis(call.int("axis", -1)?, rank)?;
    let axes: Vec<usize> = (axis..rank).collect();
    let epsilon = call.number_attribute("epsilon", 1e-5)?;
    let [mut y, mean, inverse] = normalized(lowering, call, x, &axes, epsilon)?;
    let scale = call.float(lowering, 1)?;
    y = lowering.binary(call, BinaryOp::Mul, y, scale)?;
    if call.optional(2).is_some() {
        let bias = call.float(lowering, 2)?;
        y = lowering.binary(call, BinaryOp::Add, y, bias)?;
    }
    Ok([y, mean, inverse].map(Item::float).into())
}

/// A number for each channel, [C], in the shape that broadcasts to [N, C, ..].
fn by_channel(
    lowering: &mut Lowering,
    call: &Call<'_>,
    index: usize,
    rank: usize,
) -> Result<Value> {
    let value = call.float(lowering, index)?;
    let channels = lowering.shape(value).len();
    let mut dims = vec![1; rank - 1];
    dims[0] = channels;
    lowering.reshaped(call, value, &dims)
}

fn instance_normalization(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let rank = lowering.shape(x).rank();
    if rank < 3 {
        return Err(call.error("expected [N, C, ..] with extents behind"));
    }
    let axes: Vec<usize> = (2..rank).collect();
    let epsilon = call.number_attribute("epsilon", 1e-5)?;
    let [y, ..] = normalized(lowering, call, x, &axes, epsilon)?;
    let scale = by_channel(lowering, call, 1, rank)?;
    let bias = by_channel(lowering, call, 2, rank)?;
    let y = lowering.binary(call, BinaryOp::Mul, y, scale)?;
    Ok(vec![Item::float(lowering.binary(
        call,
        BinaryOp::Add,
        y,
        bias,
    )?)])
}

/// `x / (bias + alpha / size * sum)^beta`, the sum of squares over `size` channels around each.
fn local_response_normalization(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let dims = lowering.shape(x).dims().to_vec();
    let size = usize::try_from(call.int("size", 0)?).unwrap_or(0);
    let [n, c, rest @ ..] = dims.as_slice() else {
        return Err(call.error(format!("expected [N, C, ..], found {dims:?}")));
    };
    if !(1..=1 << 16).contains(&size) {
        return Err(call.error(format!("attribute size: expected at least 1, found {size}")));
    }
    let square = lowering.binary(call, BinaryOp::Mul, x, x)?;
    // The channels as the rows of an image. The sum is its mean over a window times the size.
    let area = rest.iter().product();
    let square = lowering.reshaped(call, square, &[*n, 1, *c, area])?;
    let mut window = Window::new([size, 1]);
    window.stride = [1, 1];
    window.pads.top = (size - 1) / 2;
    window.pads.bottom = size / 2;
    let mean = AvgPool2d {
        window,
        count_include_pad: true,
    };
    let mean = lowering.op(call, mean, &[square])?;
    let mean = lowering.reshaped(call, mean, &dims)?;
    let alpha = call.number_attribute("alpha", 1e-4)?;
    let root = lowering.with_number(call, BinaryOp::Mul, mean, alpha)?;
    let bias = call.number_attribute("bias", 1.0)?;
    let root = lowering.with_number(call, BinaryOp::Add, root, bias)?;
    let beta = call.number_attribute("beta", 0.75)?;
    let root = lowering.with_number(call, BinaryOp::Pow, root, beta)?;
    let y = lowering.binary(call, BinaryOp::Div, x, root)?;
    Ok(vec![Item::float(y)])
}

fn mean_variance_normalization(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let stated = call.ints("axes")?.unwrap_or(vec![0, 2, 3]);
    let axes = call.axes(&stated, lowering.shape(x).rank())?;
    let [y, ..] = normalized(lowering, call, x, &axes, 1e-9)?;
    Ok(vec![Item::float(y)])
}

fn group_normalization(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let dims = lowering.shape(x).dims().to_vec();
    let groups = usize::try_from(call.int("num_groups", 0)?).unwrap_or(0);
    if dims.len() < 2 || groups == 0 || !dims[1].is_multiple_of(groups) {
        return Err(call.error(format!(
            "the channels of {dims:?} do not make {groups} groups"
        )));
    }
    let rest = dims[1..].iter().product::<usize>() / groups;
    let rows = lowering.reshaped(call, x, &[dims[0], groups, rest])?;
    let epsilon = call.number_attribute("epsilon", 1e-5)?;
    let [y, ..] = normalized(lowering, call, rows, &[2], epsilon)?;
    let mut y = lowering.reshaped(call, y, &dims)?;
    for (index, op) in [(1, BinaryOp::Mul), (2, BinaryOp::Add)] {
        let mut value = call.float(lowering, index)?;
        // Until version 21 there was a number for each group.
        if lowering.shape(value).len() == groups && groups != dims[1] {
            let each = dims[1] / groups;
            let column = lowering.reshaped(call, value, &[groups, 1])?;
            let all = lowering.repeated(call, column, vec![groups, each])?;
            value = lowering.reshaped(call, all, &[dims[1]])?;
        }
        let mut place = vec![1; dims.len() - 1];
        place[0] = dims[1];
        let value = lowering.reshaped(call, value, &place)?;
        y = lowering.binary(call, op, y, value)?;
    }
    Ok(vec![Item::float(y)])
}

fn softmax(lowering: &mut Lowering, call: &Call<'_>, log: bool) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let dims = lowering.shape(x).dims().to_vec();
    if call.opset >= 13 {
        let axis = call.axis(call.int("axis", -1)?, dims.len())?;
        let y = lowering.op(call, Softmax { axis, log }, &[x])?;
        return Ok(vec![Item::float(y)]);
    }
    // In old versions all axes from the named one on are one.
    let axis = call.axis(call.int("axis", 1)?, dims.len())?;
    let (rows, columns) = dims.split_at(axis);
    let matrix = [rows.iter().product(), columns.iter().product()];
    let x = lowering.reshaped(call, x, &matrix)?;
    let y = lowering.op(call, Softmax { axis: 1, log }, &[x])?;
    Ok(vec![Item::float(lowering.reshaped(call, y, &dims)?)])
}
