//! Elements picked one by one, by indices that may follow from anything.

use super::moves::joined;
use super::{Call, bounded, nth};
use crate::error::Result;
use crate::formats::onnx::tensor::{Data, Element, Tensor};
use std::rc::Rc;

/// Indices into axes, counted from the end where negative.
fn integers<'t>(call: &Call<'_>, tensor: &'t Tensor) -> Result<&'t [i64]> {
    let found = tensor.as_integers();
    found.ok_or_else(|| call.error("expected integer indices, found floats"))
}

/// `y[i, j, ..] = x[i, indices[i, j, ..], ..]` along an axis.
pub(super) fn gather_elements(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let [x, indices] = [nth(call, tensors, 0)?, nth(call, tensors, 1)?];
    let axis = call.axis(call.int("axis", 0)?, x.dims.len())?;
    let inside = |(i, (own, whole)): (usize, (&usize, &usize))| i == axis || own <= whole;
    let pairs = indices.dims.iter().zip(&x.dims);
    if indices.dims.len() != x.dims.len() || !pairs.enumerate().all(inside) {
        return Err(call.error(format!(
            "indices of {:?} do not lie in {:?}",
            indices.dims, x.dims
        )));
    }
    let mut from = Vec::with_capacity(indices.len());
    for (i, index) in integers(call, indices)?.iter().enumerate() {
        let (mut rest, mut stride, mut at) = (i, 1, 0);
        for k in (0..x.dims.len()).rev() {
            let place = match k == axis {
                true => call.axis(*index, x.dims[k])?,
                false => rest % indices.dims[k],
            };
            at += place * stride;
            rest /= indices.dims[k];
            stride *= x.dims[k];
        }
        from.push(at);
    }
    Ok(vec![x.gather(indices.dims.clone(), &from)])
}

/// Parts of x by lists of indices, which are the last axis of the second input.
pub(super) fn gather_nd(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let [x, indices] = [nth(call, tensors, 0)?, nth(call, tensors, 1)?];
    let shared = usize::try_from(call.int("batch_dims", 0)?).unwrap_or(usize::MAX);
    let Some((depth, outer)) = indices.dims.split_last() else {
        return Err(call.error("expected lists of indices, found a number"));
    };
    let fits = shared <= outer.len()
        && shared.saturating_add(*depth) <= x.dims.len()
        && outer[..shared] == x.dims[..shared];
    if !fits {
        return Err(call.error(format!(
            "indices of {:?} do not lie in {:?}, of which {shared} axes are shared",
            indices.dims, x.dims
        )));
    }
    let inner = &x.dims[shared + depth..];
    let dims = [outer, inner].concat();
    bounded(call, &dims)?;
    let size: usize = inner.iter().product();
    let lists: usize = outer.iter().product();
    let each = lists / outer[..shared].iter().product::<usize>().max(1);
    let indices = integers(call, indices)?;
    let mut from = Vec::new();
    for list in 0..lists {
        let mut at = list / each.max(1);
        for k in 0..*depth {
            let extent = x.dims[shared + k];
            at = at * extent + call.axis(indices[list * depth + k], extent)?;
        }
        from.extend(at * size..(at + 1) * size);
    }
    Ok(vec![x.gather(dims, &from)])
}

/// The upper or lower triangle of matrices; elsewhere zeros.
pub(super) fn triangle(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let x = nth(call, tensors, 0)?;
    let [.., rows, columns] = x.dims[..] else {
        return Err(call.error(format!("expected matrices, found {:?}", x.dims)));
    };
    let shift = match call.integers(1)? {
        Some(list) => list.first().copied().unwrap_or(0),
        None => 0,
    };
    let upper = call.int("upper", 1)? != 0;
    let zero = match x.element {
        Element::F32 => Tensor::floats([1], vec![0.0]),
        element => Tensor::integers([1], element, vec![0]),
    };
    let from = (0..x.len()).map(|i| {
        let (row, column) = ((i / columns % rows) as i64, (i % columns) as i64);
        let diagonal = row.saturating_add(shift);
        let kept = match upper {
            true => column >= diagonal,
            false => column <= diagonal,
        };
        // The zero stands behind all elements.
        if kept { i } else { x.len() }
    });
    let from: Vec<_> = from.collect();
    Ok(vec![joined(x, &zero).gather(x.dims.clone(), &from)])
}

/// A new axis on which the place of each index has one value, all others another.
pub(super) fn one_hot(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let [indices, depth, values] = [0, 1, 2].map(|i| nth(call, tensors, i));
    let (indices, depth, values) = (indices?, depth?.to_floats(), values?);
    let extent = match depth[..] {
        [depth] if depth >= 1.0 && depth <= f32::from(u16::MAX) => depth as usize,
        _ => return Err(call.error(format!("expected a depth of at least 1, found {depth:?}"))),
    };
    if values.len() != 2 {
        return Err(call.error("expected two values, off and on"));
    }
    let rank = indices.dims.len();
    let axis = call.axis(call.int("axis", -1)?, rank + 1)?;
    let mut dims = indices.dims.clone();
    dims.insert(axis, extent);
    bounded(call, &dims)?;
    let inner: usize = indices.dims[axis..].iter().product();
    let mut from = vec![0; indices.len() * extent];
    // Indices may be floats, too; those beyond the depth are nowhere.
    let places = match &indices.data {
        Data::Int(data) => data.clone(),
        Data::Float(data) => data.iter().map(|x| *x as i64).collect(),
    };
    for (i, place) in places.into_iter().enumerate() {
        if let Ok(place) = call.axis(place, extent) {
            from[(i / inner * extent + place) * inner + i % inner] = 1;
        }
    }
    Ok(vec![values.gather(dims, &from)])
}

/// The largest or smallest elements along an axis, in order, and their places; of equal ones
/// the first. NaN counts as the largest.
pub(super) fn top(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let x = nth(call, tensors, 0)?;
    let axis = call.axis(call.int("axis", -1)?, x.dims.len())?;
    let extent = x.dims[axis];
    let stated = match call.integers(1)? {
        Some(list) => list.first().copied(),
        None => call.stated("k")?,
    };
    let count = stated.and_then(|k| usize::try_from(k).ok());
    let count = count.filter(|k| *k <= extent).ok_or_else(|| {
        call.error(format!(
            "k: expected at most {extent} elements, found {stated:?}"
        ))
    })?;
    let largest = call.int("largest", 1)? != 0;
    let order = |a: usize, b: usize| {
        let ascending = match &x.data {
            Data::Int(data) if x.element == Element::U64 => (data[a] as u64).cmp(&(data[b] as u64)),
            Data::Int(data) => data[a].cmp(&data[b]),
            Data::Float(data) => {
                let nan = data[a].is_nan().cmp(&data[b].is_nan());
                data[a].partial_cmp(&data[b]).unwrap_or(nan)
            }
        };
        if largest {
            ascending.reverse()
        } else {
            ascending
        }
    };
    let outer: usize = x.dims[..axis].iter().product();
    let inner: usize = x.dims[axis + 1..].iter().product();
    let mut dims = x.dims.clone();
    dims[axis] = count;
    let mut from = vec![0; outer * count * inner];
    for (row, column) in (0..outer).flat_map(|r| (0..inner).map(move |c| (r, c))) {
        let place = |k: usize| (row * extent + k) * inner + column;
        let mut sorted: Vec<usize> = (0..extent).collect();
        sorted.sort_by(|a, b| order(place(*a), place(*b)));
        for (k, found) in sorted.into_iter().take(count).enumerate() {
            from[(row * count + k) * inner + column] = place(found);
        }
    }
    let places = from.iter().map(|at| (at / inner % extent) as i64);
    let places = Tensor::integers(dims.clone(), Element::I64, places.collect());
    Ok(vec![x.gather(dims, &from), places])
}
