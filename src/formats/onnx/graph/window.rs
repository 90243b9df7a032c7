//! Operators with windows: convolutions and pools.

use super::call::Call;
use super::{Item, Lowering, Write};
use crate::error::Result;
use crate::formats::onnx::tensor::Element;
use crate::ops::bias::BiasAdd;
use crate::ops::conv2d::{Conv2d, Conv2dInputGrad};
use crate::ops::pool2d::{AvgPool2d, GlobalAvgPool, MaxPool2d};
use crate::ops::{Pads, Value, Window};

pub(super) const OPERATORS: &[(&str, Write)] = &[
    ("AveragePool", average_pool),
    ("Conv", conv),
    ("ConvTranspose", conv_transpose),
    ("GlobalAveragePool", global_average_pool),
    ("GlobalMaxPool", global_max_pool),
    ("MaxPool", max_pool),
];

/// The largest kernel, stride, dilation or padding: more than any network has, and few
/// enough that no extent computed from it overflows.
const MOST: i64 = 1 << 16;

/// Attributes of a window along one axis.
#[derive(Clone, Copy)]
struct Axis {
    kernel: usize,
    stride: usize,
    dilation: usize,
    /// Padding before and after.
    pads: [usize; 2],
}

impl Axis {
    /// Of an axis that is not there.
    const ONE: Self = Self {
        kernel: 1,
        stride: 1,
        dilation: 1,
        pads: [0, 0],
    };
}

/// The windows of two axes, rows and columns.
fn window([rows, columns]: [Axis; 2], ceil: bool) -> Window {
    Window {
        kernel: [rows.kernel, columns.kernel],
        stride: [rows.stride, columns.stride],
        dilation: [rows.dilation, columns.dilation],
        pads: Pads {
            top: rows.pads[0],
            bottom: rows.pads[1],
            left: columns.pads[0],
            right: columns.pads[1],
        },
        ceil,
    }
}

/// A list of `count` bounded numbers, each at least `least`; where it is missing, `default`.
fn bounded(
    call: &Call<'_>,
    name: &str,
    count: usize,
    [least, default]: [i64; 2],
) -> Result<Vec<usize>> {
    let values = call.ints(name)?.unwrap_or(vec![default; count]);
    let fits = |v: &i64| (least..=MOST).contains(v);
    if values.len() != count || !values.iter().all(fits) {
        return Err(call.error(format!(
            "attribute {name}: expected {count} numbers of {least} to {MOST}, found {values:?}"
        )));
    }
    Ok(values.into_iter().map(|v| v as usize).collect())
}

/// The window's axes over the image's extents, with a kernel of `kernel`.
fn axes(call: &Call<'_>, kernel: &[usize], image: &[usize]) -> Result<Vec<Axis>> {
    let count = kernel.len();
    if count != image.len() || !(1..=3).contains(&count) {
        return Err(call.error(format!(
            "a kernel of {kernel:?} over an image of {image:?}; expected one to three extents each"
        )));
    }
    let strides = bounded(call, "strides", count, [1, 1])?;
    let dilations = bounded(call, "dilations", count, [1, 1])?;
    let pads = bounded(call, "pads", 2 * count, [0, 0])?;
    let auto_pad = call.text("auto_pad", "NOTSET")?;
    let axis = |i: usize| {
        let span = dilations[i] * (kernel[i].max(1) - 1) + 1;
        let windows = image[i].div_ceil(strides[i]);
        let total = (windows.saturating_sub(1) * strides[i] + span).saturating_sub(image[i]);
        let pads = match auto_pad.as_str() {
            "NOTSET" => [pads[i], pads[count + i]],
            "VALID" => [0, 0],
            "SAME_UPPER" => [total / 2, total - total / 2],
            "SAME_LOWER" => [total - total / 2, total / 2],
            other => return Err(call.error(format!("attribute auto_pad: found {other:?}"))),
        };
        Ok(Axis {
            kernel: kernel[i],
            stride: strides[i],
            dilation: dilations[i],
            pads,
        })
    };
    (0..count).map(axis).collect()
}

/// Extents of an input of [N, C, ..] with one to three extents behind.
fn image(call: &Call<'_>, lowering: &Lowering, x: Value) -> Result<Vec<usize>> {
    let dims = lowering.shape(x).dims().to_vec();
    match dims.len() {
        3..=5 => Ok(dims),
        _ => Err(call.error(format!(
            "expected [N, C, ..] with one to three extents behind, found {dims:?}"
        ))),
    }
}

/// A line [N, C, L] as an image of one row, [N, C, 1, L].
fn as_image(dims: &[usize]) -> Vec<usize> {
    match dims {
        [n, c, length] => vec![*n, *c, 1, *length],
        _ => dims.to_vec(),
    }
}

/// Two axes, the first of one row where the window has one.
fn two(axes: &[Axis]) -> [Axis; 2] {
    match axes {
        [column] => [Axis::ONE, *column],
        _ => [axes[0], axes[1]],
    }
}

fn groups(call: &Call<'_>) -> Result<usize> {
    let groups = call.int("group", 1)?;
    let found = usize::try_from(groups).ok().filter(|g| *g > 0);
    found.ok_or_else(|| {
        call.error(format!(
            "attribute group: expected at least 1, found {groups}"
        ))
    })
}

fn conv(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let [x, w] = [call.float(lowering, 0)?, call.float(lowering, 1)?];
    let dims = image(call, lowering, x)?;
    let filters = image(call, lowering, w)?;
    if dims.len() == 5 || filters.len() != dims.len() {
        return Err(call.error(format!(
            "expected filters of as many axes as the input, 3 or 4, found {filters:?} over {dims:?}"
        )));
    }
    let axes = axes(call, &filters[2..], &dims[2..])?;
    let op = Conv2d::new(window(two(&axes), false), groups(call)?);
    let x = lowering.reshaped(call, x, &as_image(&dims))?;
    let w = lowering.reshaped(call, w, &as_image(&filters))?;
    let y = if call.optional(2).is_some() {
        let bias = call.float(lowering, 2)?;
        lowering.op(call, op.with_bias(true), &[x, w, bias])?
    } else {
        lowering.op(call, op, &[x, w])?
    };
    let y = from_image(lowering, call, y, dims.len())?;
    Ok(vec![Item::float(y)])
}

/// An image of one row as a line again, where the input had `rank` 3.
fn from_image(lowering: &mut Lowering, call: &Call<'_>, y: Value, rank: usize) -> Result<Value> {
    let dims = lowering.shape(y).dims().to_vec();
    match rank {
        3 => lowering.reshaped(call, y, &[dims[0], dims[1], dims[3]]),
        _ => Ok(y),
    }
}

/// The transposed convolution is the gradient of a convolution by its input.
fn conv_transpose(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let [x, w] = [call.float(lowering, 0)?, call.float(lowering, 1)?];
    let dims = image(call, lowering, x)?;
    let filters = image(call, lowering, w)?;
    if dims.len() == 5 || filters.len() != dims.len() {
        return Err(call.error(format!(
            "expected filters of as many axes as the input, 3 or 4, found {filters:?} over {dims:?}"
        )));
    }
    let (mut axes, extents) = transposed_axes(call, &filters[2..], &dims[2..])?;
    let mut extents = extents;
    if axes.len() == 1 {
        axes.insert(0, Axis::ONE);
        extents.insert(0, 1);
    }
    let window = window([axes[0], axes[1]], false);
    let op = Conv2dInputGrad::new(window, groups(call)?, [extents[0], extents[1]]);
    let x = lowering.reshaped(call, x, &as_image(&dims))?;
    let w = lowering.reshaped(call, w, &as_image(&filters))?;
    let mut y = lowering.op(call, op, &[x, w])?;
    if call.optional(2).is_some() {
        let bias = call.float(lowering, 2)?;
        y = lowering.op(call, BiasAdd, &[y, bias])?;
    }
    let y = from_image(lowering, call, y, dims.len())?;
    Ok(vec![Item::float(y)])
}

/// The windows of the convolution that a transposed one undoes, and the extents of its
/// result, which follow from the padding or the other way round.
fn transposed_axes(
    call: &Call<'_>,
    kernel: &[usize],
    image: &[usize],
) -> Result<(Vec<Axis>, Vec<usize>)> {
    let count = kernel.len();
    let strides = bounded(call, "strides", count, [1, 1])?;
    let dilations = bounded(call, "dilations", count, [1, 1])?;
    let pads = bounded(call, "pads", 2 * count, [0, 0])?;
    let extra = bounded(call, "output_padding", count, [0, 0])?;
    let auto_pad = call.text("auto_pad", "NOTSET")?;
    let stated = match call.ints("output_shape")? {
        None => None,
        // It may state N and C too.
        Some(_) => {
            let all = call.ints("output_shape")?.unwrap_or_default();
            let last = all.len().checked_sub(count).map(|at| all[at..].to_vec());
            let last = last.filter(|l| l.iter().all(|e| (1..=1 << 31).contains(e)));
            Some(last.ok_or_else(|| call.error(format!("attribute output_shape: found {all:?}")))?)
        }
    };
    let (mut axes, mut extents) = (Vec::new(), Vec::new());
    for i in 0..count {
        let span = dilations[i] * (kernel[i].max(1) - 1) + 1;
        // What the windows cover, without padding.
        let reach = strides[i] * (image[i] - 1) + span + extra[i];
        let same = auto_pad.starts_with("SAME");
        let extent = match (&stated, same) {
            (Some(stated), _) => stated[i] as usize,
            (None, true) => image[i] * strides[i],
            (None, false) => reach.saturating_sub(pads[i] + pads[count + i]),
        };
        let pads = if stated.is_some() || same {
            let total = reach.saturating_sub(extent);
            match auto_pad.as_str() {
                "SAME_UPPER" => [total / 2, total - total / 2],
                _ => [total - total / 2, total / 2],
            }
        } else {
            [pads[i], pads[count + i]]
        };
        // What the windows of the result leave over at its end needs no padding.
        let used = reach - extra[i];
        let after = used.saturating_sub(extent + pads[0]);
        axes.push(Axis {
            kernel: kernel[i],
            stride: strides[i],
            dilation: dilations[i],
            pads: [pads[0], after],
        });
        extents.push(extent);
    }
    Ok((axes, extents))
}

fn kernel(call: &Call<'_>, count: usize) -> Result<Vec<usize>> {
    if call.node.attribute("kernel_shape").is_none() {
        return Err(call.error("attribute kernel_shape is missing"));
    }
    bounded(call, "kernel_shape", count, [1, 1])
}

/// Applies a pool of two axes, or one of three as one over the planes and one through them:
/// maxima, sums and counts are all products of their axes.
fn pool(
    lowering: &mut Lowering,
    call: &Call<'_>,
    x: Value,
    mut apply: impl FnMut(&mut Lowering, Window, Value) -> Result<Value>,
) -> Result<Value> {
    let dims = image(call, lowering, x)?;
    let kernel = kernel(call, dims.len() - 2)?;
    let axes = axes(call, &kernel, &dims[2..])?;
    let ceil = call.flag("ceil_mode")?;
    let [n, c] = [dims[0], dims[1]];
    if let [planes, rows, columns] = axes[..] {
        let image = [n, c * dims[2], dims[3], dims[4]];
        let x = lowering.reshaped(call, x, &image)?;
        let y = apply(lowering, window([rows, columns], ceil), x)?;
        let [h, w] = [2, 3].map(|i| lowering.shape(y)[i]);
        let y = lowering.reshaped(call, y, &[n, c, dims[2], h * w])?;
        let y = apply(lowering, window([planes, Axis::ONE], ceil), y)?;
        let depth = lowering.shape(y)[2];
        return lowering.reshaped(call, y, &[n, c, depth, h, w]);
    }
    let x = lowering.reshaped(call, x, &as_image(&dims))?;
    let y = apply(lowering, window(two(&axes), ceil), x)?;
    from_image(lowering, call, y, dims.len())
}

fn average_pool(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let count_include_pad = call.flag("count_include_pad")?;
    let y = pool(lowering, call, x, |lowering, window, x| {
        let op = AvgPool2d {
            window,
            count_include_pad,
        };
        lowering.op(call, op, &[x])
    })?;
    Ok(vec![Item::float(y)])
}

fn max_pool(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (x, element) = call.number(lowering, 0)?;
    if !matches!(element, Element::F32 | Element::I8 | Element::U8) {
        return Err(call.error(format!("expected floats or bytes, found {element:?}")));
    }
    let input = lowering.shape(x).dims().to_vec();
    let mut indices = Vec::new();
    let y = pool(lowering, call, x, |lowering, window, x| {
        let outputs = lowering.ops(call, MaxPool2d::new(window), &[x])?;
        indices.push(outputs[1]);
        Ok(outputs[0])
    })?;
    let mut outputs = vec![Item::Device(y, element)];
    if call
        .node
        .outputs
        .get(1)
        .is_some_and(|name| !name.is_empty())
    {
        if indices.len() != 1 {
            return Err(call.error("indices of three-dimensional pools"));
        }
        outputs.push(Item::Indices {
            value: indices[0],
            input,
            columns_first: call.flag("storage_order")?,
        });
    }
    Ok(outputs)
}

/// [N, C, ..] with any extents behind as planes of [rows, columns].
fn planes(lowering: &mut Lowering, call: &Call<'_>) -> Result<(Value, Vec<usize>)> {
    let x = call.float(lowering, 0)?;
    let dims = lowering.shape(x).dims().to_vec();
    let [n, c, rest @ ..] = dims.as_slice() else {
        return Err(call.error(format!("expected [N, C, ..], found {dims:?}")));
    };
    let columns = rest.last().copied().unwrap_or(1);
    let area: usize = rest.iter().product();
    let x = lowering.reshaped(call, x, &[*n, *c, area / columns, columns])?;
    let mut result = vec![*n, *c];
    result.resize(dims.len(), 1);
    Ok((x, result))
}

fn global_average_pool(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (x, result) = planes(lowering, call)?;
    let y = lowering.op(call, GlobalAvgPool, &[x])?;
    Ok(vec![Item::float(lowering.reshaped(call, y, &result)?)])
}

fn global_max_pool(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (x, result) = planes(lowering, call)?;
    let window = Window::new([2, 3].map(|i| lowering.shape(x)[i]));
    let y = lowering.op(call, MaxPool2d::new(window), &[x])?;
    Ok(vec![Item::float(lowering.reshaped(call, y, &result)?)])
}
