//! Sums, products, maxima and minima over axes: of integers, and of nothing.

use super::{Arithmetic, Call, bounded, nth};
use crate::error::Result;
use crate::formats::onnx::graph::reduce::reduced_axes;
use crate::formats::onnx::tensor::{Data, Element, Tensor};
use std::rc::Rc;

/// What a fold begins with.
fn neutral(op: Arithmetic, element: Element) -> (i64, f32) {
    let [low, high] = element.range().unwrap_or(match element {
        Element::Bool => [0, 1],
        // As bits.
        Element::U64 => [0, -1],
        _ => [i64::MIN, i64::MAX],
    });
    match op {
        Arithmetic::Mul => (1, 1.0),
        Arithmetic::Max => (low, f32::NEG_INFINITY),
        Arithmetic::Min => (high, f32::INFINITY),
        _ => (0, 0.0),
    }
}

pub(super) fn reduce(
    call: &Call<'_>,
    tensors: &[Rc<Tensor>],
    op: Arithmetic,
) -> Result<Vec<Tensor>> {
    let x = nth(call, tensors, 0)?;
    let Some(axes) = reduced_axes(call, x.dims.len())? else {
        return Ok(vec![x.clone()]);
    };
    let kept = |axis: usize| !axes.contains(&axis);
    let rank = x.dims.len();
    let all: Vec<usize> = (0..rank)
        .map(|axis| if kept(axis) { x.dims[axis] } else { 1 })
        .collect();
    let len = bounded(call, &all)?;
    // Strides of the result along the input's axes.
    let mut strides = vec![0; rank];
    let mut stride = 1;
    for axis in (0..rank).rev() {
        strides[axis] = if kept(axis) { stride } else { 0 };
        stride *= all[axis];
    }
    let places = super::walk(&x.dims, &strides, 0);
    let (whole, real) = neutral(op, x.element);
    let data = match &x.data {
        Data::Int(data) => {
            let mut totals = vec![whole; len];
            for (value, at) in data.iter().zip(places) {
                totals[at] = x
                    .element
                    .wrap(op.of_integers(x.element, totals[at], *value));
            }
            Data::Int(totals)
        }
        Data::Float(data) => {
            let mut totals = vec![real; len];
            for (value, at) in data.iter().zip(places) {
                totals[at] = op.of_floats(totals[at], *value);
            }
            Data::Float(totals)
        }
    };
    let dims = match call.int("keepdims", 1)? {
        0 => (0..rank).filter(|a| kept(*a)).map(|a| all[a]).collect(),
        _ => all,
    };
    let element = x.element;
    Ok(vec![Tensor {
        dims,
        element,
        data,
    }])
}
