//! Operators that move elements and compute nothing.

use super::call::Call;
use super::{Item, Lowering, Write};
use crate::error::Result;
use crate::ops::binary::BinaryOp;
use crate::ops::concat::Concat;
use crate::ops::fill::Fill;
use crate::ops::gather::Gather;
use crate::ops::pad::{Pad, Slice};
use crate::ops::reshape::Reshape;
use crate::ops::select::Select;
use crate::ops::transpose::Transpose;
use crate::ops::{Array, Value};
use crate::tensor::{Shape, TensorType};

pub(super) const OPERATORS: &[(&str, Write)] = &[
    ("Concat", concat),
    ("DepthToSpace", depth_to_space),
    ("Expand", expand),
    ("Flatten", flatten),
    ("Gather", gather),
    ("Pad", pad),
    ("Reshape", reshape),
    ("Slice", slice),
    ("SpaceToDepth", space_to_depth),
    ("Split", split),
    ("Squeeze", squeeze),
    ("Tile", tile),
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

impl Lowering {
    /// The axes of a value in another order.
    fn transposed(&mut self, call: &Call<'_>, x: Value, order: Vec<usize>) -> Result<Value> {
        let dims = self.shape(x).dims().to_vec();
        let y: Vec<usize> = order.iter().map(|a| dims[*a]).collect();
        // Where only extents of 1 move, nothing does.
        let long = |axes: &mut dyn Iterator<Item = usize>| -> Vec<usize> {
            axes.filter(|a| dims[*a] > 1).collect()
        };
        match long(&mut order.iter().copied()) == long(&mut (0..dims.len())) {
            true => self.reshaped(call, x, &y),
            false => self.op(call, Transpose { order }, &[x]),
        }
    }

    /// Places picked along an axis; one that is not there gives 0.
    pub(super) fn picked(
        &mut self,
        call: &Call<'_>,
        x: Value,
        axis: usize,
        places: &[Option<usize>],
    ) -> Result<Value> {
        let index = |place: &Option<usize>| place.map_or(u32::MAX, |p| p as u32);
        let indices = places.iter().map(index).collect();
        let indices = Array::index(TensorType::u32([places.len()]), indices);
        let name = format!("{}/indices", call.node.name);
        let indices = self.constant(&name, indices);
        self.op(call, Gather { axis }, &[x, indices])
    }

    /// A value broadcast to these extents.
    pub(super) fn repeated(
        &mut self,
        call: &Call<'_>,
        x: Value,
        dims: Vec<usize>,
    ) -> Result<Value> {
        if self.shape(x).dims() == dims {
            return Ok(x);
        }
        let zeros = Fill {
            shape: Shape::new(dims),
            value: 0.0,
        };
        let zeros = self.op(call, zeros, &[])?;
        self.binary(call, BinaryOp::Add, zeros, x)
    }
}

fn transpose(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (x, element) = call.number(lowering, 0)?;
    let order = order(call, lowering.shape(x).rank())?;
    let y = lowering.transposed(call, x, order)?;
    Ok(vec![Item::Device(y, element)])
}

fn concat(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let element = call.input(0)?.element();
    let rank = lowering.dims(call.input(0)?).len();
    let axis = call.axis(call.int("axis", 1)?, rank)?;
    let mut values = Vec::new();
    for i in 0..call.inputs.len() {
        // What has no elements adds none.
        if lowering.dims(call.input(i)?).get(axis) == Some(&0) {
            continue;
        }
        let (value, own) = call.number(lowering, i)?;
        if own != element {
            return Err(call.error(format!(
                "expected one element type, found {element:?} and {own:?}"
            )));
        }
        values.push(value);
    }
    let y = lowering.op(call, Concat { axis }, &values)?;
    Ok(vec![Item::Device(y, element)])
}

fn expand(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (x, element) = call.number(lowering, 0)?;
    let asked = call.integers(1)?.unwrap_or_default();
    let dims = asked.iter().map(|d| usize::try_from(*d).ok());
    let dims = dims.collect::<Option<Vec<_>>>();
    let dims = dims.ok_or_else(|| call.error(format!("cannot expand to {asked:?}")))?;
    if super::count(&dims) == Some(0) {
        return Ok(vec![Item::empty(call, 0, dims, element)]);
    }
    super::check_count(&call.node.label(), &dims)?;
    let y = lowering.repeated(call, x, dims)?;
    Ok(vec![Item::Device(y, element)])
}

/// The places that `Gather` picks along its axis.
pub(super) fn gathered(call: &Call<'_>, dims: &[usize]) -> Result<(usize, Vec<usize>)> {
    let axis = call.axis(call.int("axis", 0)?, dims.len())?;
    let indices = call.integers(1)?.unwrap_or_default();
    let places = indices.iter().map(|i| call.axis(*i, dims[axis]));
    Ok((axis, places.collect::<Result<_>>()?))
}

fn gather(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (x, element) = call.number(lowering, 0)?;
    let dims = lowering.shape(x).dims().to_vec();
    let (axis, places) = gathered(call, &dims)?;
    let indices = &call.known(1)?.dims;
    let target = [&dims[..axis], indices, &dims[axis + 1..]].concat();
    if places.is_empty() {
        return Ok(vec![Item::empty(call, 0, target, element)]);
    }
    let places: Vec<_> = places.into_iter().map(Some).collect();
    let y = lowering.picked(call, x, axis, &places)?;
    let y = lowering.reshaped(call, y, &target)?;
    Ok(vec![Item::Device(y, element)])
}

/// How often `Tile` repeats each axis.
pub(super) fn repeats(call: &Call<'_>, rank: usize) -> Result<Vec<usize>> {
    let stated = call.integers(1)?.unwrap_or_default();
    let found = stated.iter().map(|n| usize::try_from(*n).ok());
    let found = found.collect::<Option<Vec<_>>>();
    let found = found.filter(|found| found.len() == rank);
    found.ok_or_else(|| {
        call.error(format!(
            "expected {rank} repeats of at least 0, found {stated:?}"
        ))
    })
}

fn tile(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (x, element) = call.number(lowering, 0)?;
    let dims = lowering.shape(x).dims().to_vec();
    let repeats = repeats(call, dims.len())?;
    let pairs = dims.iter().zip(&repeats);
    let target: Vec<usize> = pairs.clone().map(|(d, n)| d.saturating_mul(*n)).collect();
    if super::count(&target) == Some(0) {
        return Ok(vec![Item::empty(call, 0, target, element)]);
    }
    super::check_count(&call.node.label(), &target)?;
    let mut y = x;
    for (axis, (extent, _)) in pairs.enumerate().filter(|(_, (_, n))| **n > 1) {
        let places: Vec<_> = (0..target[axis]).map(|i| Some(i % extent)).collect();
        y = lowering.picked(call, y, axis, &places)?;
    }
    Ok(vec![Item::Device(y, element)])
}

/// Padding before and after, for each axis that `Pad` names.
fn pads(call: &Call<'_>, rank: usize) -> Result<Vec<(usize, [usize; 2])>> {
    let stated = call.attribute_or_input("pads", 1)?.unwrap_or_default();
    let axes: Vec<usize> = match call.integers(3)? {
        None => (0..rank).collect(),
        Some(axes) => {
            call.axes(&axes, rank)?;
            let found = axes.iter().map(|a| call.axis(*a, rank));
            found.collect::<Result<_>>()?
        }
    };
    let fits = |p: &i64| (0..=1 << 20).contains(p);
    if stated.len() != 2 * axes.len() || !stated.iter().all(fits) {
        return Err(call.error(format!(
            "expected {} pads of at least 0, found {stated:?}",
            2 * axes.len()
        )));
    }
    let sides = |i: usize| [stated[i] as usize, stated[axes.len() + i] as usize];
    let pads = axes.iter().enumerate();
    Ok(pads.map(|(i, axis)| (*axis, sides(i))).collect())
}

/// For each axis that is padded where its elements come from: `None` for the constant.
pub(super) fn pad_places(
    call: &Call<'_>,
    dims: &[usize],
) -> Result<Vec<(usize, Vec<Option<usize>>)>> {
    let mode = call.text("mode", "constant")?;
    let place = |at: i64, extent: i64| match mode.as_str() {
        "edge" => at.clamp(0, extent - 1),
        "wrap" => at.rem_euclid(extent),
        "reflect" => {
            // Back and forth, without saying an end twice.
            let period = 2 * (extent - 1).max(1);
            let at = at.rem_euclid(period);
            at.min(period - at).min(extent - 1)
        }
        _ => at,
    };
    if !matches!(mode.as_str(), "constant" | "edge" | "reflect" | "wrap") {
        return Err(call.error(format!(
            "mode {mode:?}: expected constant, edge, reflect or wrap"
        )));
    }
    let mut padded = Vec::new();
    for (axis, [before, after]) in pads(call, dims.len())? {
        let extent = dims[axis] as i64;
        if extent == 0 && mode != "constant" {
            return Err(call.error(format!("axis {axis} of {dims:?} has nothing to repeat")));
        }
        let places = -(before as i64)..extent + after as i64;
        let places = places.map(|at| {
            let place = usize::try_from(place(at, extent)).ok();
            place.filter(|p| *p < dims[axis])
        });
        if before + after > 0 {
            padded.push((axis, places.collect()));
        }
    }
    Ok(padded)
}

fn pad(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (x, element) = call.number(lowering, 0)?;
    if call.text("mode", "constant")? == "constant" {
        let y = padded(lowering, call, x)?;
        return Ok(vec![Item::Device(y, element)]);
    }
    let mut y = x;
    for (axis, places) in pad_places(call, lowering.shape(x).dims())? {
        y = lowering.picked(call, y, axis, &places)?;
    }
    Ok(vec![Item::Device(y, element)])
}

/// Padding by a constant.
fn padded(lowering: &mut Lowering, call: &Call<'_>, x: Value) -> Result<Value> {
    let rank = lowering.shape(x).rank();
    let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
    for (axis, sides) in pads(call, rank)? {
        [before[axis], after[axis]] = sides;
    }
    let value = match call.optional(2) {
        Some(_) => call.scalar(2)?.unwrap_or(0.0),
        None => call.number_attribute("value", 0.0)?,
    };
    let op = Pad { before, after };
    let y = lowering.op(call, op.clone(), &[x])?;
    if value == 0.0 {
        return Ok(y);
    }
    // The constant where the padding is: value - value * 1 inside.
    let ones = Fill {
        shape: lowering.shape(x),
        value: 1.0,
    };
    let ones = lowering.op(call, ones, &[])?;
    let inside = lowering.op(call, op, &[ones])?;
    let value = lowering.number(call, value);
    lowering.op(call, Select, &[inside, y, value])
}

/// Extents [N, C, H, W] and the block of `DepthToSpace` and `SpaceToDepth`.
fn blocks(call: &Call<'_>, lowering: &Lowering, x: Value) -> Result<([usize; 4], usize)> {
    let dims = lowering.shape(x).dims().to_vec();
    let block = usize::try_from(call.int("blocksize", 0)?).unwrap_or(0);
    match <[usize; 4]>::try_from(dims.as_slice()) {
        Ok(dims) if block > 0 => Ok((dims, block)),
        _ => Err(call.error(format!(
            "expected [N, C, H, W] and blocks, found {dims:?} and {block}"
        ))),
    }
}

fn depth_to_space(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (x, element) = call.number(lowering, 0)?;
    let ([n, c, h, w], block) = blocks(call, lowering, x)?;
    let depth = c / (block * block);
    let (split, order) = match call.text("mode", "DCR")?.as_str() {
        "CRD" => ([n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3]),
        _ => ([n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2]),
    };
    if depth * block * block != c {
        return Err(call.error(format!("{c} channels make no blocks of {block}")));
    }
    let x = lowering.reshaped(call, x, &split)?;
    let y = lowering.transposed(call, x, order.into())?;
    let y = lowering.reshaped(call, y, &[n, depth, h * block, w * block])?;
    Ok(vec![Item::Device(y, element)])
}

fn space_to_depth(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (x, element) = call.number(lowering, 0)?;
    let ([n, c, h, w], block) = blocks(call, lowering, x)?;
    if h % block != 0 || w % block != 0 {
        return Err(call.error(format!("{h} x {w} make no blocks of {block}")));
    }
    let (rows, columns) = (h / block, w / block);
    let x = lowering.reshaped(call, x, &[n, c, rows, block, columns, block])?;
    let y = lowering.transposed(call, x, vec![0, 3, 5, 1, 2, 4])?;
    let y = lowering.reshaped(call, y, &[n, c * block * block, rows, columns])?;
    Ok(vec![Item::Device(y, element)])
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
    let (x, element) = call.number(lowering, 0)?;
    let dims = lowering.shape(x).dims().to_vec();
    let parts = slice_parts(call, &dims)?;
    let target: Vec<usize> = parts.iter().map(|(.., count)| *count).collect();
    if target.contains(&0) {
        return Ok(vec![Item::empty(call, 0, target, element)]);
    }
    let stepped = |(_, step, count): &(i64, i64, usize)| *step != 1 && *count > 1;
    // Axes with steps stay whole at first.
    let cut = parts.iter().zip(&dims).map(|(part, extent)| {
        if stepped(part) {
            (0, *extent)
        } else {
            (part.0 as usize, part.2)
        }
    });
    let (starts, shape): (Vec<_>, Vec<_>) = cut.unzip();
    let shape = Shape::new(shape);
    let mut y = x;
    if shape.dims() != dims {
        y = lowering.op(call, Slice { starts, shape }, &[x])?;
    }
    for (axis, (start, step, count)) in parts.iter().enumerate().filter(|(_, p)| stepped(p)) {
        let places = (0..*count as i64).map(|i| usize::try_from(start + i * step).ok());
        let places: Vec<_> = places.collect();
        y = lowering.picked(call, y, axis, &places)?;
    }
    Ok(vec![Item::Device(y, element)])
}

/// The axis that `Split` divides, and the extents of the parts.
pub(super) fn split_sizes(call: &Call<'_>, dims: &[usize]) -> Result<(usize, Vec<usize>)> {
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
    let found = sizes.iter().map(|size| usize::try_from(*size).ok());
    let found = found.collect::<Option<Vec<_>>>();
    let total = |sizes: &Vec<usize>| sizes.iter().fold(0usize, |n, s| n.saturating_add(*s));
    let found = found.filter(|sizes| total(sizes) == dims[axis]);
    let found = found.ok_or_else(|| {
        call.error(format!(
            "parts of {sizes:?} do not make {} along axis {axis}",
            dims[axis]
        ))
    })?;
    Ok((axis, found))
}

fn split(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (x, element) = call.number(lowering, 0)?;
    let dims = lowering.shape(x).dims().to_vec();
    let (axis, sizes) = split_sizes(call, &dims)?;
    let mut outputs = Vec::new();
    let mut start = 0usize;
    for (i, size) in sizes.into_iter().enumerate() {
        let mut part = dims.clone();
        part[axis] = size;
        if size == 0 {
            outputs.push(Item::empty(call, i, part, element));
            continue;
        }
        let mut starts = vec![0; dims.len()];
        starts[axis] = start;
        start += size;
        let shape = Shape::new(part);
        let value = lowering.op(call, Slice { starts, shape }, &[x])?;
        outputs.push(Item::Device(value, element));
    }
    Ok(outputs)
}
