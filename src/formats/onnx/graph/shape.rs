//! Operators that move elements and compute nothing.

use super::call::Call;
use super::{Item, Lowering, Write};
use crate::error::Result;
use crate::ops::Value;
use crate::ops::binary::BinaryOp;
use crate::ops::concat::Concat;
use crate::ops::fill::Fill;
use crate::ops::pad::{Pad, Slice};
use crate::ops::reshape::Reshape;
use crate::ops::transpose::Transpose;
use crate::tensor::Shape;

pub(super) const OPERATORS: &[(&str, Write)] = &[
    ("Concat", concat),
    ("Expand", expand),
    ("Flatten", flatten),
    ("Pad", pad),
    ("Reshape", reshape),
    ("Slice", slice),
    ("Split", split),
    ("Squeeze", squeeze),
    ("Transpose", transpose),
    ("Unsqueeze", unsqueeze),
];

impl Lowering {
    /// A value under another shape of as many elements.
    pub(super) fn reshaped(&mut self, call: &Call<'_>, x: Value, dims: &[usize]) -> Result<Value> {
        if self.shape(x).dims() == dims {
            return Ok(x);
        }
        super::check_count(&call.node.label(), dims)?;
        let shape = dims.into();
        self.op(call, Reshape { shape }, &[x])
    }

    fn renamed(&mut self, call: &Call<'_>, dims: &[usize]) -> Result<Vec<Item>> {
        let (x, element) = call.number(self, 0)?;
        Ok(vec![Item::Device(self.reshaped(call, x, dims)?, element)])
    }
}

/// The extents that `Reshape` asks for.
pub(super) fn reshape_target(call: &Call<'_>, dims: &[usize]) -> Result<Vec<usize>> {
    let asked = call.attribute_or_input("shape", 1)?;
    let asked = asked.ok_or_else(|| call.error("there is no shape"))?;
    let keep = !call.flag("allowzero")?;
    let total: usize = dims.iter().product();
    let mut open = None;
    let mut target = Vec::with_capacity(asked.len());
    for (i, extent) in asked.iter().enumerate() {
        target.push(match extent {
            0 if keep => *dims.get(i).ok_or_else(|| {
                call.error(format!("shape {asked:?} keeps an axis that {dims:?} lacks"))
            })?,
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            extent => usize::try_from(*extent)
                .map_err(|_| call.error(format!("cannot reshape to {asked:?}")))?,
        });
    }
    let known = super::count(&target);
    if let (Some(i), Some(known)) = (open, known.filter(|n| *n > 0)) {
        target[i] = total / known;
    }
    if super::count(&target) != Some(total) {
        return Err(call.error(format!("cannot reshape {dims:?} to {asked:?}")));
    }
    Ok(target)
}

fn reshape(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let target = reshape_target(call, &lowering.dims(call.input(0)?))?;
    lowering.renamed(call, &target)
}

/// The extents that `Flatten` gives.
pub(super) fn flatten_target(call: &Call<'_>, dims: &[usize]) -> Result<Vec<usize>> {
    // The axis may be the rank, and leave no columns but one.
    let axis = match call.int("axis", 1)? {
        axis if axis == dims.len() as i64 => dims.len(),
        axis => call.axis(axis, dims.len())?,
    };
    let (rows, columns) = dims.split_at(axis);
    Ok(vec![rows.iter().product(), columns.iter().product()])
}

fn flatten(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let target = flatten_target(call, &lowering.dims(call.input(0)?))?;
    lowering.renamed(call, &target)
}

/// The extents that `Squeeze` leaves.
pub(super) fn squeeze_target(call: &Call<'_>, dims: &[usize]) -> Result<Vec<usize>> {
    let axes = match call.attribute_or_input("axes", 1)? {
        Some(axes) => call.axes(&axes, dims.len())?,
        None => (0..dims.len()).filter(|a| dims[*a] == 1).collect(),
    };
    if let Some(axis) = axes.iter().find(|a| dims[**a] != 1) {
        return Err(call.error(format!("axis {axis} of {dims:?} is not of extent 1")));
    }
    let kept = (0..dims.len()).filter(|a| !axes.contains(a));
    Ok(kept.map(|a| dims[a]).collect())
}

fn squeeze(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let target = squeeze_target(call, &lowering.dims(call.input(0)?))?;
    lowering.renamed(call, &target)
}

/// The extents that `Unsqueeze` makes.
pub(super) fn unsqueeze_target(call: &Call<'_>, dims: &[usize]) -> Result<Vec<usize>> {
    let axes = call.attribute_or_input("axes", 1)?;
    let axes = axes.ok_or_else(|| call.error("there are no axes"))?;
    let rank = dims.len() + axes.len();
    let axes = call.axes(&axes, rank)?;
    let mut rest = dims.iter().copied();
    let extent = |axis| match axes.contains(&axis) {
        true => Some(1),
        false => rest.next(),
    };
    Ok((0..rank).filter_map(extent).collect())
}

fn unsqueeze(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let target = unsqueeze_target(call, &lowering.dims(call.input(0)?))?;
    lowering.renamed(call, &target)
}

/// The order of axes that `Transpose` asks for: reversed by default.
pub(super) fn order(call: &Call<'_>, rank: usize) -> Result<Vec<usize>> {
    let Some(asked) = call.ints("perm")? else {
        return Ok((0..rank).rev().collect());
    };
    let order = asked.iter().map(|a| call.axis(*a, rank));
    let order = order.collect::<Result<Vec<_>>>()?;
    let sorted = call.axes(&asked, rank)?;
    match sorted.len() == rank {
        true => Ok(order),
        false => Err(call.error(format!("perm {asked:?} is no order of {rank} axes"))),
    }
}

fn transpose(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let dims = lowering.shape(x).dims().to_vec();
    let order = order(call, dims.len())?;
    let y: Vec<usize> = order.iter().map(|a| dims[*a]).collect();
    // Where only extents of 1 move, nothing does.
    let long = |axes: &mut dyn Iterator<Item = usize>| -> Vec<usize> {
        axes.filter(|a| dims[*a] > 1).collect()
    };
    let value = match long(&mut order.iter().copied()) == long(&mut (0..dims.len())) {
        true => lowering.reshaped(call, x, &y)?,
        false => lowering.op(call, Transpose { order }, &[x])?,
    };
    Ok(vec![Item::float(value)])
}

fn concat(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let values = (0..call.inputs.len()).map(|i| call.float(lowering, i));
    let values = values.collect::<Result<Vec<_>>>()?;
    let rank = values.first().map_or(0, |v| lowering.shape(*v).rank());
    let axis = call.axis(call.int("axis", 1)?, rank)?;
    Ok(vec![Item::float(lowering.op(
        call,
        Concat { axis },
        &values,
    )?)])
}

fn expand(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let asked = call.integers(1)?.unwrap_or_default();
    let dims = asked.iter().map(|d| usize::try_from(*d).ok());
    let dims = dims.collect::<Option<Vec<_>>>();
    let dims = dims.ok_or_else(|| call.error(format!("cannot expand to {asked:?}")))?;
    super::check_count(&call.node.label(), &dims)?;
    let zeros = Fill {
        shape: Shape::new(dims),
        value: 0.0,
    };
    let zeros = lowering.op(call, zeros, &[])?;
    Ok(vec![Item::float(lowering.binary(
        call,
        BinaryOp::Add,
        x,
        zeros,
    )?)])
}

/// Padding by a constant: the pads of all axes, those before, then those after.
fn pad(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let rank = lowering.shape(x).rank();
    let mode = call.text("mode", "constant")?;
    if mode != "constant" {
        return Err(call.error(format!("mode {mode:?} is not built; expected \"constant\"")));
    }
    let stated = call.attribute_or_input("pads", 1)?.unwrap_or_default();
    let axes = match call.integers(3)? {
        None => (0..rank).collect(),
        Some(axes) => {
            let found = axes.iter().map(|a| call.axis(*a, rank));
            found.collect::<Result<Vec<_>>>()?
        }
    };
    let fits = |p: &i64| (0..=1 << 20).contains(p);
    if stated.len() != 2 * axes.len() || !stated.iter().all(fits) {
        return Err(call.error(format!(
            "expected {} pads of at least 0, found {stated:?}",
            2 * axes.len()
        )));
    }
    let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
    for (i, axis) in axes.iter().enumerate() {
        before[*axis] = stated[i] as usize;
        after[*axis] = stated[axes.len() + i] as usize;
    }
    let value = match call.optional(2) {
        Some(_) => call.scalar(2)?.unwrap_or(0.0),
        None => call.number_attribute("value", 0.0)?,
    };
    let op = Pad { before, after };
    let mut y = lowering.op(call, op.clone(), &[x])?;
    if value != 0.0 {
        // The constant where the padding is: value - value * 1 inside.
        let ones = Fill {
            shape: lowering.shape(x),
            value: 1.0,
        };
        let ones = lowering.op(call, ones, &[])?;
        let inside = lowering.op(call, op, &[ones])?;
        let inside = lowering.with_number(call, BinaryOp::Mul, inside, -value)?;
        let border = lowering.with_number(call, BinaryOp::Add, inside, value)?;
        y = lowering.binary(call, BinaryOp::Add, y, border)?;
    }
    Ok(vec![Item::float(y)])
}

/// Starts, steps and extents that `Slice` asks for, axis by axis.
pub(super) fn slice_parts(call: &Call<'_>, dims: &[usize]) -> Result<Vec<(i64, i64, usize)>> {
    let starts = call.attribute_or_input("starts", 1)?.unwrap_or_default();
    let ends = call.attribute_or_input("ends", 2)?.unwrap_or_default();
    let all = || (0..starts.len() as i64).collect();
    let axes: Vec<i64> = call.attribute_or_input("axes", 3)?.unwrap_or_else(all);
    let ones = || vec![1; starts.len()];
    let steps = call.integers(4)?.unwrap_or_else(ones);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || steps.contains(&0) {
        return Err(call.error("starts, ends, axes and steps do not go together"));
    }
    let mut parts: Vec<_> = dims.iter().map(|d| (0, 1, *d)).collect();
    for (i, axis) in axes.iter().enumerate() {
        let axis = call.axis(*axis, dims.len())?;
        let (extent, step) = (dims[axis] as i64, steps[i]);
        // Counted from the end, then kept inside.
        let from_end = |at: i64| {
            if at < 0 {
                at.saturating_add(extent)
            } else {
                at
            }
        };
        let (low, high) = if step > 0 {
            (0, extent)
        } else {
            (-1, extent - 1)
        };
        let start = from_end(starts[i]).clamp(low.max(0), high);
        let end = from_end(ends[i]).clamp(low, high);
        let count = match step > 0 {
            true => {
                (end - start).max(0).div_euclid(step) + i64::from((end - start).max(0) % step != 0)
            }
            false => {
                let (length, step) = ((start - end).max(0), step.saturating_neg());
                length / step + i64::from(length % step != 0)
            }
        };
        parts[axis] = (start, step, count as usize);
    }
    Ok(parts)
}

fn slice(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let dims = lowering.shape(x).dims().to_vec();
    let parts = slice_parts(call, &dims)?;
    if parts
        .iter()
        .any(|(_, step, count)| *step != 1 && *count > 1)
    {
        return Err(call.error("steps other than 1 are not built"));
    }
    let op = Slice {
        starts: parts.iter().map(|(start, ..)| *start as usize).collect(),
        shape: Shape::new(parts.iter().map(|(.., count)| *count).collect::<Vec<_>>()),
    };
    Ok(vec![Item::float(lowering.op(call, op, &[x])?)])
}

fn split(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let dims = lowering.shape(x).dims().to_vec();
    let axis = call.axis(call.int("axis", 0)?, dims.len())?;
    let count = call.node.outputs.len();
    let sizes = match call.attribute_or_input("split", 1)? {
        Some(sizes) => sizes,
        None => {
            // Equal parts; the last may be smaller.
            let each = dims[axis].div_ceil(count.max(1));
            let part = |i: usize| dims[axis].saturating_sub(i * each).min(each) as i64;
            (0..count).map(part).collect()
        }
    };
    let mut outputs = Vec::new();
    let mut start = 0usize;
    for size in sizes {
        let mut part = dims.clone();
        let left = dims[axis] - start;
        let fits = usize::try_from(size).ok().filter(|s| *s <= left);
        part[axis] = fits.ok_or_else(|| call.error("the parts are more than the whole"))?;
        let mut starts = vec![0; dims.len()];
        starts[axis] = start;
        start += part[axis];
        let shape = Shape::new(part);
        outputs.push(Item::float(lowering.op(
            call,
            Slice { starts, shape },
            &[x],
        )?));
    }
    Ok(outputs)
}
