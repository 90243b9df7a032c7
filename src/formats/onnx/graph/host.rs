//! What is computed here, exactly: shapes, what follows from constants, and integers.

use super::call::Call;
use super::shape::{
    flatten_target, order, reshape_target, slice_parts, squeeze_target, unsqueeze_target,
};
use super::{Item, Lowering, count};
use crate::error::Result;
use crate::formats::onnx::read::Attribute;
use crate::formats::onnx::tensor::{Data, Element, Tensor};
use std::rc::Rc;

/// Computes a node's outputs from tensors.
type Compute = fn(&Call<'_>, &[Rc<Tensor>]) -> Result<Vec<Tensor>>;

pub(super) const OPERATORS: &[(&str, Compute)] = &[
    ("Add", |c, t| {
        arithmetic(c, t, i64::wrapping_add, |a, b| a + b)
    }),
    ("And", |c, t| compare(c, t, |a, b| a != 0.0 && b != 0.0)),
    ("Cast", cast),
    ("Concat", concat),
    ("Constant", |c, _| constant(c)),
    ("ConstantOfShape", constant_of_shape),
    ("DequantizeLinear", dequantize),
    ("Div", |c, t| arithmetic(c, t, quotient, |a, b| a / b)),
    ("Equal", |c, t| compare(c, t, |a, b| a == b)),
    ("Expand", expand),
    ("Flatten", |c, t| {
        Ok(vec![t[0].reshaped(flatten_target(c, &t[0].dims)?)])
    }),
    ("Gather", gather),
    ("Greater", |c, t| compare(c, t, |a, b| a > b)),
    ("Identity", |_, t| Ok(vec![(*t[0]).clone()])),
    ("Less", |c, t| compare(c, t, |a, b| a < b)),
    ("Max", |c, t| folded(c, t, i64::max, f32::max)),
    ("Min", |c, t| folded(c, t, i64::min, f32::min)),
    ("Mul", |c, t| {
        arithmetic(c, t, i64::wrapping_mul, |a, b| a * b)
    }),
    ("Not", not),
    ("Or", |c, t| compare(c, t, |a, b| a != 0.0 || b != 0.0)),
    ("Range", range),
    ("ReduceProd", reduce_product),
    ("Reshape", |c, t| {
        Ok(vec![t[0].reshaped(reshape_target(c, &t[0].dims)?)])
    }),
    ("Slice", slice),
    ("Squeeze", |c, t| {
        Ok(vec![t[0].reshaped(squeeze_target(c, &t[0].dims)?)])
    }),
    ("Sub", |c, t| {
        arithmetic(c, t, i64::wrapping_sub, |a, b| a - b)
    }),
    ("Transpose", transpose),
    ("Unsqueeze", |c, t| {
        Ok(vec![t[0].reshaped(unsqueeze_target(c, &t[0].dims)?)])
    }),
    ("Where", choose),
];

/// Operators that read the shape of anything.
const OF_SHAPES: [&str; 2] = ["Shape", "Size"];

/// Elements of what is computed here: constants of networks have fewer, hostile files more.
const MOST: usize = 1 << 27;

pub(super) fn knows(operator: &str) -> bool {
    OF_SHAPES.contains(&operator) || OPERATORS.iter().any(|(name, _)| *name == operator)
}

/// The outputs of a node that can be computed here; `None` where the device has to.
pub(super) fn compute(lowering: &Lowering, call: &Call<'_>) -> Result<Option<Vec<Item>>> {
    if !call.node.domain.is_empty() {
        return Ok(None);
    }
    let outputs = if OF_SHAPES.contains(&call.node.operator.as_str()) {
        vec![of_shape(call, &lowering.dims(call.input(0)?))?]
    } else {
        let found = OPERATORS
            .iter()
            .find(|(name, _)| *name == call.node.operator);
        let (Some((_, compute)), Some(tensors)) = (found, tensors(call)) else {
            return Ok(None);
        };
        if tensors.is_empty() && !matches!(call.node.operator.as_str(), "Constant") {
            return Err(call.error("there are no inputs"));
        }
        compute(call, &tensors)?
    };
    let names = call.node.outputs.iter();
    let items = outputs
        .into_iter()
        .zip(names)
        .map(|(tensor, name)| Item::Host {
            name: name.clone(),
            tensor: Rc::new(tensor),
            given: false,
        });
    Ok(Some(items.collect()))
}

/// The inputs, if all are on the host and none is given to the graph as floats, which belong
/// on the device.
fn tensors(call: &Call<'_>) -> Option<Vec<Rc<Tensor>>> {
    let present = call.inputs.iter().flatten();
    let known = present.map(|item| match item {
        Item::Host { tensor, given, .. } if !(*given && tensor.element == Element::F32) => {
            Some(tensor.clone())
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

fn of_shape(call: &Call<'_>, dims: &[usize]) -> Result<Tensor> {
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

fn range(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let mut numbers = Vec::new();
    for i in 0..3 {
        match nth(call, tensors, i)?.as_integers() {
            Some([n]) => numbers.push(*n),
            _ => return Err(call.error("expected three integers")),
        }
    }
    let [start, limit, step] = numbers[..] else {
        return Err(call.error("expected three integers"));
    };
    if step == 0 {
        return Err(call.error("a step of 0"));
    }
    let span = i128::from(limit) - i128::from(start);
    let step_wide = i128::from(step);
    let len = (span / step_wide + i128::from(span % step_wide != 0)).max(0);
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let data = (0..bounded(call, &[len])? as i64).map(|i| start + i * step);
    Ok(vec![Tensor::integers(
        [len],
        tensors[0].element,
        data.collect(),
    )])
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

fn quotient(a: i64, b: i64) -> i64 {
    // Division by 0 is not defined; it must not stop the program.
    a.checked_div(b).unwrap_or(0)
}

fn arithmetic(
    call: &Call<'_>,
    tensors: &[Rc<Tensor>],
    of_integers: fn(i64, i64) -> i64,
    of_floats: fn(f32, f32) -> f32,
) -> Result<Vec<Tensor>> {
    let [a, b] = [nth(call, tensors, 0)?, nth(call, tensors, 1)?];
    if a.element != b.element {
        let problem = format!(
            "expected one element type, found {:?} and {:?}",
            a.element, b.element
        );
        return Err(call.error(problem));
    }
    let (dims, [from_a, from_b]) = broadcast(call, &a.dims, &b.dims)?;
    let places = from_a.into_iter().zip(from_b);
    Ok(vec![match (&a.data, &b.data) {
        (Data::Int(x), Data::Int(y)) => {
            let data = places.map(|(i, j)| of_integers(x[i], y[j]));
            Tensor::integers(dims, a.element, data.collect())
        }
        _ => {
            let (x, y) = (a.to_floats(), b.to_floats());
            Tensor::floats(dims, places.map(|(i, j)| of_floats(x[i], y[j])).collect())
        }
    }])
}

fn folded(
    call: &Call<'_>,
    tensors: &[Rc<Tensor>],
    of_integers: fn(i64, i64) -> i64,
    of_floats: fn(f32, f32) -> f32,
) -> Result<Vec<Tensor>> {
    let mut total = tensors[0].clone();
    for next in &tensors[1..] {
        let pair = [total, next.clone()];
        total = Rc::new(arithmetic(call, &pair, of_integers, of_floats)?.remove(0));
    }
    Ok(vec![(*total).clone()])
}

fn compare(
    call: &Call<'_>,
    tensors: &[Rc<Tensor>],
    holds: fn(f64, f64) -> bool,
) -> Result<Vec<Tensor>> {
    let [a, b] = [nth(call, tensors, 0)?, nth(call, tensors, 1)?];
    let (dims, [from_a, from_b]) = broadcast(call, &a.dims, &b.dims)?;
    let wide = |tensor: &Tensor, i: usize| match &tensor.data {
        Data::Float(data) => f64::from(data[i]),
        Data::Int(data) => data[i] as f64,
    };
    let places = from_a.into_iter().zip(from_b);
    let data = places.map(|(i, j)| i64::from(holds(wide(a, i), wide(b, j))));
    Ok(vec![Tensor::integers(dims, Element::Bool, data.collect())])
}

fn not(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let x = nth(call, tensors, 0)?;
    let data = x.to_floats().into_iter().map(|x| i64::from(x == 0.0));
    Ok(vec![Tensor::integers(
        x.dims.clone(),
        Element::Bool,
        data.collect(),
    )])
}

fn choose(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let [condition, a, b] = [
        nth(call, tensors, 0)?,
        nth(call, tensors, 1)?,
        nth(call, tensors, 2)?,
    ];
    // All three have one shape in the chains that exporters write, or one number.
    let (dims, [from_a, from_b]) = broadcast(call, &a.dims, &b.dims)?;
    let (whole, [from_c, from_ab]) = broadcast(call, &condition.dims, &dims)?;
    if a.element != b.element {
        return Err(call.error("expected one element type"));
    }
    let truth = condition.to_floats();
    let (a, b) = (a.gather(dims.clone(), &from_a), b.gather(dims, &from_b));
    let both = Tensor {
        dims: vec![2 * a.len()],
        element: a.element,
        data: match (&a.data, &b.data) {
            (Data::Int(x), Data::Int(y)) => Data::Int([x.as_slice(), y].concat()),
            _ => Data::Float([a.to_floats(), b.to_floats()].concat()),
        },
    };
    let places = from_c.into_iter().zip(from_ab);
    let places = places.map(|(c, i)| if truth[c] != 0.0 { i } else { a.len() + i });
    Ok(vec![both.gather(whole, &places.collect::<Vec<_>>())])
}

fn cast(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let x = nth(call, tensors, 0)?;
    let to = Element::of(i32::try_from(call.int("to", 0)?).unwrap_or(0));
    let to = to.ok_or_else(|| call.error("casts to a type that is not read"))?;
    let dims = x.dims.clone();
    Ok(vec![match (&x.data, to) {
        (_, Element::F32) => Tensor::floats(dims, x.to_floats()),
        (Data::Int(data), _) => Tensor::integers(dims, to, data.clone()),
        (Data::Float(data), Element::Bool) => {
            let data = data.iter().map(|x| i64::from(*x != 0.0));
            Tensor::integers(dims, to, data.collect())
        }
        // Towards zero, and kept within 64 bits.
        (Data::Float(data), _) => {
            Tensor::integers(dims, to, data.iter().map(|x| *x as i64).collect())
        }
    }])
}

fn concat(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let first = nth(call, tensors, 0)?;
    let rank = first.dims.len();
    let axis = call.axis(call.int("axis", 1)?, rank)?;
    let mut dims = first.dims.clone();
    dims[axis] = 0;
    for tensor in tensors {
        let mut others = tensor.dims.clone();
        let fits = others.len() == rank && tensor.element == first.element;
        if fits {
            dims[axis] += others[axis];
            others[axis] = first.dims[axis];
        }
        if !fits || others != first.dims {
            let problem = format!(
                "cannot join {:?} to {:?} along axis {axis}",
                tensor.dims, first.dims
            );
            return Err(call.error(problem));
        }
    }
    bounded(call, &dims)?;
    let rows: usize = dims[..axis].iter().product();
    let width = |t: &Tensor| t.dims[axis..].iter().product::<usize>();
    let data = match first.element {
        Element::F32 => {
            let all: Vec<_> = tensors.iter().map(|t| (t.to_floats(), width(t))).collect();
            let parts =
                (0..rows).flat_map(|r| all.iter().map(move |(d, w)| &d[r * w..(r + 1) * w]));
            Data::Float(parts.flatten().copied().collect())
        }
        _ => {
            let all = tensors
                .iter()
                .filter_map(|t| Some((t.as_integers()?, width(t))));
            let all: Vec<_> = all.collect();
            let parts =
                (0..rows).flat_map(|r| all.iter().map(move |(d, w)| &d[r * w..(r + 1) * w]));
            Data::Int(parts.flatten().copied().collect())
        }
    };
    let element = first.element;
    Ok(vec![Tensor {
        dims,
        element,
        data,
    }])
}

fn expand(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let x = nth(call, tensors, 0)?;
    let asked = extents(call, nth(call, tensors, 1)?)?;
    let (dims, [from, _]) = broadcast(call, &x.dims, &asked)?;
    Ok(vec![x.gather(dims, &from)])
}

fn gather(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let [x, indices] = [nth(call, tensors, 0)?, nth(call, tensors, 1)?];
    let axis = call.axis(call.int("axis", 0)?, x.dims.len())?;
    let extent = x.dims[axis];
    let picked = indices.as_integers().unwrap_or_default();
    let picked = picked.iter().map(|i| call.axis(*i, extent));
    let picked = picked.collect::<Result<Vec<_>>>()?;
    let dims = [&x.dims[..axis], &indices.dims, &x.dims[axis + 1..]].concat();
    bounded(call, &dims)?;
    let outer: usize = x.dims[..axis].iter().product();
    let inner: usize = x.dims[axis + 1..].iter().product();
    let mut places = Vec::new();
    for row in 0..outer {
        for index in &picked {
            let first = (row * extent + index) * inner;
            places.extend(first..first + inner);
        }
    }
    if count(&dims) != Some(places.len()) {
        return Err(call.error("expected integer indices"));
    }
    Ok(vec![x.gather(dims, &places)])
}

fn slice(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let x = nth(call, tensors, 0)?;
    let parts = slice_parts(call, &x.dims)?;
    let dims: Vec<usize> = parts.iter().map(|(.., count)| *count).collect();
    let mut first = 0;
    let mut strides = vec![0; dims.len()];
    let mut stride = 1;
    for axis in (0..dims.len()).rev() {
        let (start, step, _) = parts[axis];
        first += start as usize * stride;
        // A step back wraps round, and back again when it is added.
        strides[axis] = (step as usize).wrapping_mul(stride);
        stride *= x.dims[axis];
    }
    let places = walk(&dims, &strides, first);
    Ok(vec![x.gather(dims, &places)])
}

fn transpose(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let x = nth(call, tensors, 0)?;
    let order = order(call, x.dims.len())?;
    let mut own = vec![1; x.dims.len()];
    for axis in (1..own.len()).rev() {
        own[axis - 1] = own[axis] * x.dims[axis];
    }
    let dims: Vec<usize> = order.iter().map(|a| x.dims[*a]).collect();
    let strides: Vec<usize> = order.iter().map(|a| own[*a]).collect();
    let places = walk(&dims, &strides, 0);
    Ok(vec![x.gather(dims, &places)])
}

fn reduce_product(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let x = nth(call, tensors, 0)?;
    let all = x.as_integers().filter(|_| x.dims.len() <= 1);
    let all = all.ok_or_else(|| call.error("expected a list of integers"))?;
    let product = all.iter().fold(1i64, |a, b| a.wrapping_mul(*b));
    let dims = match call.int("keepdims", 1)? {
        0 => vec![],
        _ => vec![1; x.dims.len()],
    };
    Ok(vec![Tensor::integers(dims, x.element, vec![product])])
}

/// `(x - zero) * scale` of constants: quantised weights.
fn dequantize(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let [x, scale] = [nth(call, tensors, 0)?, nth(call, tensors, 1)?];
    let scales = scale.to_floats();
    let zeros = match tensors.get(2) {
        Some(zero) => zero.to_floats(),
        None => vec![0.0; scales.len()],
    };
    let (extent, inner) = if scales.len() == 1 {
        (1, x.len())
    } else {
        let axis = call.axis(call.int("axis", 1)?, x.dims.len())?;
        (x.dims[axis], x.dims[axis + 1..].iter().product())
    };
    if scales.len() != extent || zeros.len() != extent || call.int("block_size", 0)? != 0 {
        return Err(call.error(format!("expected {extent} scales and zero points")));
    }
    let data = x.to_floats().into_iter().enumerate().map(|(i, x)| {
        let at = i / inner.max(1) % extent;
        (x - zeros[at]) * scales[at]
    });
    Ok(vec![Tensor::floats(x.dims.clone(), data.collect())])
}
