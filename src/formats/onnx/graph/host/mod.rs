//! What is computed here, exactly: shapes, what follows from constants, and integers.

mod arithmetic;
mod moves;
mod places;
mod reduce;

use super::call::Call;
use super::{Item, Lowering, count, elementwise, writer};
use crate::error::Result;
use crate::formats::onnx::read::{Attribute, Node};
use crate::formats::onnx::tensor::{Element, Tensor};
use arithmetic::{Arithmetic, UnaryInteger};
use std::cmp::Ordering;
use std::rc::Rc;

/// Computes a node's outputs from tensors.
type Compute = fn(&Call<'_>, &[Rc<Tensor>]) -> Result<Vec<Tensor>>;

/// Operators on tensors of any kind.
const OPERATORS: &[(&str, Compute)] = &[
    ("Add", |c, t| arithmetic::of_two(c, t, Arithmetic::Add)),
    ("And", |c, t| arithmetic::logic(c, t, |a, b| a && b)),
    ("Cast", arithmetic::cast),
    ("Concat", moves::concat),
    ("Constant", |c, _| constant(c)),
    ("ConstantOfShape", constant_of_shape),
    ("DequantizeLinear", arithmetic::dequantize),
    ("Div", |c, t| arithmetic::of_two(c, t, Arithmetic::Div)),
    ("Equal", |c, t| {
        arithmetic::compare(c, t, |o| o == Some(Ordering::Equal))
    }),
    ("Expand", moves::expand),
    ("Flatten", moves::flatten),
    ("Gather", moves::gather),
    ("GatherElements", places::gather_elements),
    ("GatherND", places::gather_nd),
    ("Greater", |c, t| {
        arithmetic::compare(c, t, |o| o == Some(Ordering::Greater))
    }),
    ("GreaterOrEqual", |c, t| {
        arithmetic::compare(c, t, |o| o.is_some_and(Ordering::is_ge))
    }),
    ("Identity", |_, t| Ok(vec![(*t[0]).clone()])),
    ("Less", |c, t| {
        arithmetic::compare(c, t, |o| o == Some(Ordering::Less))
    }),
    ("LessOrEqual", |c, t| {
        arithmetic::compare(c, t, |o| o.is_some_and(Ordering::is_le))
    }),
    ("Max", |c, t| arithmetic::of_many(c, t, Arithmetic::Max)),
    ("Min", |c, t| arithmetic::of_many(c, t, Arithmetic::Min)),
    ("Mod", arithmetic::remainder),
    ("Mul", |c, t| arithmetic::of_two(c, t, Arithmetic::Mul)),
    ("Not", arithmetic::not),
    ("OneHot", places::one_hot),
    ("Or", |c, t| arithmetic::logic(c, t, |a, b| a || b)),
    ("Range", range),
    ("Reshape", moves::reshape),
    ("Slice", moves::slice),
    ("Split", moves::split),
    ("Squeeze", moves::squeeze),
    ("Sub", |c, t| arithmetic::of_two(c, t, Arithmetic::Sub)),
    ("Tile", moves::tile),
    ("TopK", places::top),
    ("Transpose", moves::transpose),
    ("Trilu", places::triangle),
    ("Unsqueeze", moves::unsqueeze),
    ("Where", moves::choose),
    ("Xor", |c, t| arithmetic::logic(c, t, |a, b| a != b)),
];

/// Operators that are computed here for integers, and where there are no elements.
const OF_INTEGERS: &[(&str, Compute)] = &[
    ("Abs", |_, t| Ok(arithmetic::of_one(t, UnaryInteger::Abs))),
    ("Clip", arithmetic::clip),
    ("Neg", |_, t| Ok(arithmetic::of_one(t, UnaryInteger::Neg))),
    ("Pad", moves::pad),
    ("Pow", arithmetic::power),
    ("ReduceMax", |c, t| reduce::reduce(c, t, Arithmetic::Max)),
    ("ReduceMin", |c, t| reduce::reduce(c, t, Arithmetic::Min)),
    ("ReduceProd", |c, t| reduce::reduce(c, t, Arithmetic::Mul)),
    ("ReduceSum", |c, t| reduce::reduce(c, t, Arithmetic::Add)),
    ("Relu", |_, t| Ok(arithmetic::of_one(t, UnaryInteger::Relu))),
    ("Sign", |_, t| Ok(arithmetic::of_one(t, UnaryInteger::Sign))),
    ("Sum", |c, t| arithmetic::of_many(c, t, Arithmetic::Add)),
];

/// Those of them that only move elements, or take integers as they are: on the device they
/// take whatever is there.
const MOVES: &[&str] = &[
    "Concat",
    "DequantizeLinear",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Pad",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// Operators that read the shape of anything.
const OF_SHAPES: [&str; 2] = ["Shape", "Size"];

/// Elements of what is computed here: constants of networks have fewer, hostile files more.
const MOST: usize = 1 << 27;

/// The names of all operators that are computed here.
pub(super) fn operators() -> impl Iterator<Item = &'static str> {
    let tables = OPERATORS.iter().chain(OF_INTEGERS);
    tables.map(|(name, _)| *name).chain(OF_SHAPES)
}

/// Whether an operator reads the shape of its input alone.
pub(super) fn of_shape(operator: &str) -> bool {
    OF_SHAPES.contains(&operator)
}

/// Whether a node is computed here although some of its inputs are on the device: there is
/// no other way, or it computes with integers.
pub(super) fn takes_all<'i>(node: &Node, input: impl Fn(usize) -> Option<&'i Item>) -> bool {
    let name = node.operator.as_str();
    if !node.domain.is_empty() || of_shape(name) || !operators().any(|known| known == name) {
        return false;
    }
    if writer(node).is_none() {
        return true;
    }
    let key = if name == "Where" { 1 } else { 0 };
    let Some(element) = input(key).map(Item::element) else {
        return false;
    };
    if name == "Cast" {
        return !elementwise::casts_on_device(node, element);
    }
    !MOVES.contains(&name) && !matches!(element, Element::F32 | Element::Bool)
}

/// The outputs of a node that can be computed here; `None` where the device has to.
pub(super) fn compute(lowering: &Lowering, call: &Call<'_>) -> Result<Option<Vec<Item>>> {
    let name = call.node.operator.as_str();
    if !call.node.domain.is_empty() {
        return Ok(None);
    }
    // Of blocks it is the device's.
    let blocks = name == "DequantizeLinear" && call.int("block_size", 0)? != 0;
    let outputs = if of_shape(name) {
        vec![shape(call, &lowering.dims(call.input(0)?))?]
    } else {
        let Some(tensors) = tensors(call).filter(|_| !blocks) else {
            return Ok(None);
        };
        let named = |(known, _): &&(&str, Compute)| *known == name;
        // Floats that are constants are the device's as well.
        let special = tensors
            .first()
            .is_some_and(|t| t.element != Element::F32 || t.is_empty());
        let found = OPERATORS.iter().find(named);
        let found = found.or_else(|| OF_INTEGERS.iter().find(named).filter(|_| special));
        match (found, tensors.as_slice()) {
            (Some((_, compute)), [_, ..]) => compute(call, &tensors)?,
            (Some((_, compute)), []) if name == "Constant" => compute(call, &[])?,
            (Some(_), []) => return Err(call.error("there are no inputs")),
            // A function of no elements.
            (None, [x]) if x.is_empty() && elementwise::knows(name) => vec![(**x).clone()],
            (None, _) => return Ok(None),
        }
    };
    let names = call.node.outputs.iter();
    let items = outputs.into_iter().zip(names);
    let items = items.map(|(tensor, name)| Item::on_host(name, tensor));
    Ok(Some(items.collect()))
}

/// The inputs that are there, if all are on the host and the node is not one for the device:
/// floats that are given to the graph belong there.
fn tensors(call: &Call<'_>) -> Option<Vec<Rc<Tensor>>> {
    let present = call.inputs.iter().flatten();
    let device = writer(call.node).is_some() && !takes_all(call.node, |i| call.optional(i));
    let known = present.map(|item| match item {
        Item::Host { tensor, given, .. } => {
            let floats = *given && tensor.element == Element::F32 && !tensor.is_empty();
            (!(device && floats)).then(|| tensor.clone())
        }
        _ => None,
    });
    known.collect()
}

fn bounded(call: &Call<'_>, dims: &[usize]) -> Result<usize> {
    let len = count(dims).filter(|n| *n <= MOST);
    len.ok_or_else(|| call.error(format!("a constant of {dims:?} is too large")))
}

fn nth<'a>(call: &Call<'_>, tensors: &'a [Rc<Tensor>], index: usize) -> Result<&'a Tensor> {
    let found = tensors.get(index).map(AsRef::as_ref);
    found.ok_or_else(|| call.error(format!("input {index} is missing")))
}

fn shape(call: &Call<'_>, dims: &[usize]) -> Result<Tensor> {
    if call.node.operator == "Size" {
        let size = dims.iter().product::<usize>() as i64;
        return Ok(Tensor::integers([], Element::I64, vec![size]));
    }
    // Ends beyond the axes are cut off, unlike those of other operators.
    let rank = dims.len() as i64;
    let place =
        |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
    let start = place(call.int("start", 0)?);
    let end = place(call.int("end", rank)?).max(start);
    Ok(Tensor::list(
        dims[start..end].iter().map(|d| *d as i64).collect(),
    ))
}

fn constant(call: &Call<'_>) -> Result<Vec<Tensor>> {
    let attribute = |name: &str| call.node.attribute(name);
    let found = if let Some(Attribute::Tensor(tensor)) = attribute("value") {
        Some(tensor.clone())
    } else if let Some(Attribute::Float(f)) = attribute("value_float") {
        Some(Tensor::floats([], vec![*f]))
    } else if let Some(Attribute::Int(i)) = attribute("value_int") {
        Some(Tensor::integers([], Element::I64, vec![*i]))
    } else if let Some(Attribute::Floats(floats)) = attribute("value_floats") {
        Some(Tensor::floats([floats.len()], floats.clone()))
    } else if let Some(Attribute::Ints(ints)) = attribute("value_ints") {
        Some(Tensor::list(ints.clone()))
    } else {
        None
    };
    let found = found.ok_or_else(|| call.error("expected a tensor, numbers or a number"))?;
    Ok(vec![found])
}

fn extents(call: &Call<'_>, tensor: &Tensor) -> Result<Vec<usize>> {
    let data = tensor.as_integers().unwrap_or_default();
    let dims = data.iter().map(|d| usize::try_from(*d).ok());
    let dims = dims
        .collect::<Option<Vec<_>>>()
        .filter(|d| d.len() == tensor.len());
    dims.ok_or_else(|| call.error("expected extents of at least 0"))
}

fn constant_of_shape(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let dims = extents(call, nth(call, tensors, 0)?)?;
    bounded(call, &dims)?;
    let zero = Tensor::floats([1], vec![0.0]);
    let value = match call.node.attribute("value") {
        Some(Attribute::Tensor(value)) if value.len() == 1 => value,
        None => &zero,
        Some(_) => return Err(call.error("attribute value: expected one number")),
    };
    let places = vec![0; bounded(call, &dims)?];
    Ok(vec![value.gather(dims, &places)])
}

/// Evenly spaced numbers: integers exactly, floats in 64 bits and then rounded.
fn range(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let element = nth(call, tensors, 0)?.element;
    for i in 0..3 {
        let tensor = nth(call, tensors, i)?;
        if tensor.len() != 1 || tensor.element != element {
            return Err(call.error("expected three numbers of one type"));
        }
    }
    if element == Element::F32 {
        let numbers = [0, 1, 2].map(|i| f64::from(tensors[i].to_floats()[0]));
        let [start, limit, step] = numbers;
        let len = ((limit - start) / step).ceil().max(0.0);
        if !len.is_finite() {
            return Err(call.error(format!("{numbers:?} make no range")));
        }
        let len = bounded(call, &[len as usize])?;
        let data = (0..len).map(|i| (start + i as f64 * step) as f32);
        return Ok(vec![Tensor::floats([len], data.collect())]);
    }
    let [start, limit, step] = [0, 1, 2].map(|i| tensors[i].as_integers().unwrap_or(&[0])[0]);
    if step == 0 {
        return Err(call.error("a step of 0"));
    }
    let span = i128::from(limit) - i128::from(start);
    let step_wide = i128::from(step);
    let len = (span / step_wide + i128::from(span % step_wide != 0)).max(0);
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let data = (0..bounded(call, &[len])? as i64).map(|i| start + i * step);
    Ok(vec![Tensor::integers([len], element, data.collect())])
}

/// The shape two broadcast to, and for each of its elements where it comes from in both.
fn broadcast(call: &Call<'_>, a: &[usize], b: &[usize]) -> Result<(Vec<usize>, [Vec<usize>; 2])> {
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
    let dims = axes.collect::<Option<Vec<_>>>();
    let dims = dims.ok_or_else(|| call.error(format!("cannot broadcast {a:?} and {b:?}")))?;
    bounded(call, &dims)?;
    let places = [a, b].map(|own| {
        let mut stride = 1;
        let mut strides = vec![0; rank];
        for axis in (0..rank).rev() {
            let extent = extent(own, axis);
            strides[axis] = if extent == 1 { 0 } else { stride };
            stride *= extent;
        }
        walk(&dims, &strides, 0)
    });
    Ok((dims, places))
}

/// For each element of a tensor of `dims`, row-major, `first` plus its indices times strides.
fn walk(dims: &[usize], strides: &[usize], first: usize) -> Vec<usize> {
    let len: usize = dims.iter().product();
    let mut places = Vec::with_capacity(len);
    let mut index = vec![0; dims.len()];
    let mut at = first;
    for _ in 0..len {
        places.push(at);
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            at = at.wrapping_add(strides[axis]);
            if index[axis] < dims[axis] {
                break;
            }
            at = at.wrapping_sub(strides[axis].wrapping_mul(dims[axis]));
            index[axis] = 0;
        }
    }
    places
}
