//! Elements moved about.

use super::{Call, bounded, broadcast, count, extents, nth, walk};
use crate::error::Result;
use crate::formats::onnx::graph::shape::{
    flatten_target, order, pad_places, repeats, reshape_target, slice_parts, split_sizes,
    squeeze_target, unsqueeze_target,
};
use crate::formats::onnx::tensor::{Data, Element, Tensor};
use std::rc::Rc;

pub(super) fn flatten(call: &Call<'_>, t: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    Ok(vec![t[0].reshaped(flatten_target(call, &t[0].dims)?)])
}

pub(super) fn reshape(call: &Call<'_>, t: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    Ok(vec![t[0].reshaped(reshape_target(call, &t[0].dims)?)])
}

pub(super) fn squeeze(call: &Call<'_>, t: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    Ok(vec![t[0].reshaped(squeeze_target(call, &t[0].dims)?)])
}

pub(super) fn unsqueeze(call: &Call<'_>, t: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    Ok(vec![t[0].reshaped(unsqueeze_target(call, &t[0].dims)?)])
}

pub(super) fn choose(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let [condition, a, b] = [
        nth(call, tensors, 0)?,
        nth(call, tensors, 1)?,
        nth(call, tensors, 2)?,
    ];
    let (dims, [from_a, from_b]) = broadcast(call, &a.dims, &b.dims)?;
    let (whole, [from_c, from_ab]) = broadcast(call, &condition.dims, &dims)?;
    if a.element != b.element {
        return Err(call.error("expected one element type"));
    }
    let truth = condition.to_floats();
    let (a, b) = (a.gather(dims.clone(), &from_a), b.gather(dims, &from_b));
    let both = joined(&a, &b);
    let places = from_c.into_iter().zip(from_ab);
    let places = places.map(|(c, i)| if truth[c] != 0.0 { i } else { a.len() + i });
    Ok(vec![both.gather(whole, &places.collect::<Vec<_>>())])
}

pub(super) fn concat(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
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

pub(super) fn expand(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let x = nth(call, tensors, 0)?;
    let asked = extents(call, nth(call, tensors, 1)?)?;
    let (dims, [from, _]) = broadcast(call, &x.dims, &asked)?;
    Ok(vec![x.gather(dims, &from)])
}

pub(super) fn gather(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
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

pub(super) fn slice(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let x = nth(call, tensors, 0)?;
    let parts = slice_parts(call, &x.dims)?;
    let dims: Vec<usize> = parts.iter().map(|(.., count)| *count).collect();
    // Where nothing is left, no place exists.
    if count(&dims) == Some(0) {
        return Ok(vec![x.gather(dims, &[])]);
    }
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

pub(super) fn transpose(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
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

/// The places of an axis, `None` for `fill`, which has one element.
fn picked(x: &Tensor, axis: usize, places: &[Option<usize>], fill: &Tensor) -> Tensor {
    let mut dims = x.dims.clone();
    dims[axis] = places.len();
    let outer: usize = x.dims[..axis].iter().product();
    let inner: usize = x.dims[axis + 1..].iter().product();
    let mut from = Vec::new();
    for row in 0..outer {
        for place in places {
            let first = place.map(|p| (row * x.dims[axis] + p) * inner);
            // The filling stands behind all elements.
            from.extend((0..inner).map(|i| first.map_or(x.len(), |first| first + i)));
        }
    }
    joined(x, fill).gather(dims, &from)
}

/// The elements of two tensors of one type as a list.
pub(super) fn joined(a: &Tensor, b: &Tensor) -> Tensor {
    Tensor {
        dims: vec![a.len() + b.len()],
        element: a.element,
        data: match (&a.data, &b.data) {
            (Data::Int(x), Data::Int(y)) => Data::Int([x.as_slice(), y].concat()),
            _ => Data::Float([a.to_floats(), b.to_floats()].concat()),
        },
    }
}

pub(super) fn pad(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let mut x = nth(call, tensors, 0)?.clone();
    let fill = match call.optional(2) {
        Some(_) => (**call.known(2)?).clone(),
        None if x.element == Element::F32 => {
            Tensor::floats([1], vec![call.number_attribute("value", 0.0)? as f32])
        }
        None => Tensor::integers([1], x.element, vec![0]),
    };
    if fill.len() != 1 || fill.element != x.element {
        return Err(call.error("expected one number of the input's type as filling"));
    }
    for (axis, places) in pad_places(call, &x.dims)? {
        let mut dims = x.dims.clone();
        dims[axis] = places.len();
        bounded(call, &dims)?;
        x = picked(&x, axis, &places, &fill);
    }
    Ok(vec![x])
}

pub(super) fn tile(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let mut x = nth(call, tensors, 0)?.clone();
    for (axis, count) in repeats(call, x.dims.len())?.into_iter().enumerate() {
        let mut dims = x.dims.clone();
        dims[axis] = dims[axis].saturating_mul(count);
        let extent = x.dims[axis].max(1);
        bounded(call, &dims)?;
        let places: Vec<_> = (0..dims[axis]).map(|i| Some(i % extent)).collect();
        let nothing = x.gather(vec![0], &[]);
        x = picked(&x, axis, &places, &nothing);
    }
    Ok(vec![x])
}

pub(super) fn split(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let x = nth(call, tensors, 0)?;
    let (axis, sizes) = split_sizes(call, &x.dims)?;
    let nothing = x.gather(vec![0], &[]);
    let mut start = 0;
    let parts = sizes.into_iter().map(|size| {
        let places: Vec<_> = (start..start + size).map(Some).collect();
        start += size;
        picked(x, axis, &places, &nothing)
    });
    Ok(parts.collect())
}
