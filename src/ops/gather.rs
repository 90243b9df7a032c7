//! Places picked along an axis, and its gradient.

use super::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::{Shape, TensorType};

const FORWARD: ShaderFile = shader!("gather/forward.wgsl");
const BACKWARD: ShaderFile = shader!("gather/backward.wgsl");
const WORKGROUP: usize = 64;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "gather",
        sample: sample_forward,
    },
    Entry {
        name: "gather_grad",
        sample: sample_backward,
    },
];

/// `y[.., k, ..] = x[.., indices[k], ..]` along an axis; 0 where x has no such place.
///
/// Inputs: `x` f32; `indices` u32 of one axis. Output: `y` f32, of x's shape but for the
/// axis, whose extent is the number of indices. Reversed indices turn the axis round, and
/// evenly spaced ones take a slice with steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather {
    /// The axis along which places are picked.
    pub axis: usize,
}

/// The gradient of [`Gather`] by `x`: `dx[.., e, ..]` is the sum of all `dy[.., k, ..]`
/// whose index is `e`.
///
/// Inputs: `dy` f32; `indices` u32. Output: `dx` f32, of dy's shape but for the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherGrad {
    /// The axis along which places were picked.
    pub axis: usize,
    /// The extent of x along it.
    pub extent: usize,
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2)?;
        let picked = inputs[1].shape.len();
        with_extent(self, inputs, self.axis, picked)
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let Some(dy) = upstream[0] else {
            return Ok(vec![None, None]);
        };
        let axis = self.axis;
        let extent = builder.ty(node.inputs[0]).shape[axis];
        let grad = GatherGrad { axis, extent };
        let dx = builder.add1(Box::new(grad), &[dy, node.inputs[1]])?;
        Ok(vec![Some(dx), None])
    }

    fn reference(&self, io: Reference<'_>) {
        let (x, indices) = (io.inputs[0].f(), io.inputs[1].u());
        let (extent, inner) = extents(&io.inputs[0].ty().shape, self.axis);
        for (at, y) in io.outputs[0].f_mut().iter_mut().enumerate() {
            let row = at / inner;
            let place = indices[row % indices.len()] as usize;
            *y = match place < extent {
                true => x[(row / indices.len() * extent + place) * inner + at % inner],
                false => 0.0,
            };
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let [x, y] = [&context.inputs[0].shape, &context.outputs[0].shape];
        let bindings = ["x", "indices", "y"];
        Ok(launch(FORWARD, bindings, self.axis, [x, y], y.len()))
    }

    fn flops(&self, _inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        0
    }
}

impl Op for GatherGrad {
    fn name(&self) -> &'static str {
        "gather_grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2)?;
        with_extent(self, inputs, self.axis, self.extent)
    }

    fn reference(&self, io: Reference<'_>) {
        let (dy, indices) = (io.inputs[0].f(), io.inputs[1].u());
        let (_, inner) = extents(&io.inputs[0].ty().shape, self.axis);
        let dx = io.outputs[0].f_mut();
        for (at, value) in dy.iter().enumerate() {
            let row = at / inner;
            let place = indices[row % indices.len()] as usize;
            if place < self.extent {
                dx[(row / indices.len() * self.extent + place) * inner + at % inner] += value;
            }
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let [dy, dx] = [&context.inputs[0].shape, &context.outputs[0].shape];
        let bindings = ["dy", "indices", "dx"];
        Ok(launch(BACKWARD, bindings, self.axis, [dx, dy], dx.len()))
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        inputs[0].shape.len() as u64
    }
}

/// The type of input 0 with another extent along the axis.
fn with_extent(
    op: &dyn Op,
    inputs: &[TensorType],
    axis: usize,
    extent: usize,
) -> Result<Vec<TensorType>> {
    let x = &inputs[0].shape;
    expect_type(op, "x", &TensorType::f32(x.clone()), &inputs[0])?;
    let picked = inputs[1].shape.len();
    expect_type(op, "indices", &TensorType::u32([picked]), &inputs[1])?;
    let mut dims = x.dims().to_vec();
    let found = dims.get_mut(axis);
    match found {
        Some(own) if !x.is_empty() && picked > 0 && extent > 0 => *own = extent,
        _ => {
            let problem = format!(
                "expected an axis {axis} and no extent of 0, found {} and {picked} indices",
                inputs[0]
            );
            return Err(Error::shape(op.name(), problem));
        }
    }
    Ok(vec![TensorType::f32(Shape::new(dims))])
}

/// The extent of the axis, and how many elements lie behind it.
fn extents(shape: &Shape, axis: usize) -> (usize, usize) {
    (shape[axis], shape.dims()[axis + 1..].iter().product())
}

/// The dispatch between `whole`, in whose axis indices are places, and `picked`.
fn launch(
    shader: ShaderFile,
    [from, indices, to]: [&'static str; 3],
    axis: usize,
    [whole, picked]: [&Shape; 2],
    len: usize,
) -> Launch {
    let (extent, inner) = extents(whole, axis);
    let (element, unit) = match inner.is_multiple_of(4) {
        true => ("vec4<f32>", 4),
        false => ("f32", 1),
    };
    let kernel = Kernel::new(shader)
        .alias("Element", element)
        .set("WORKGROUP", WORKGROUP)
        .set("LEN", len / unit)
        .set("EXTENT", extent)
        .set("PICKED", picked[axis])
        .set("INNER", inner / unit);
    let bindings = vec![
        (from, Arg::Input(0)),
        (indices, Arg::Input(1)),
        (to, Arg::Output(0)),
    ];
    Dispatch::linear(kernel, bindings, (len / unit).div_ceil(WORKGROUP)).into()
}

/// A shape, an axis of it and indices, some of them of no place.
fn draw_case(draw: &mut Draw) -> (Vec<usize>, usize, (TensorType, Fill)) {
    let rank = draw.int(1, 4);
    let mut dims: Vec<_> = (0..rank).map(|_| draw.int(1, 6)).collect();
    let axis = draw.int(0, rank - 1);
    if axis < rank - 1 {
        dims[rank - 1] = draw.pick(&[1, 3, 4, 8]);
    }
    let indices = TensorType::u32([draw.int(1, 9)]);
    let beyond = u32::from(draw.coin());
    let below = Fill::Below(dims[axis] as u32 + beyond);
    (dims, axis, (indices, below))
}

fn sample_forward(draw: &mut Draw) -> Sample {
    let (dims, axis, indices) = draw_case(draw);
    let x = (TensorType::f32(Shape::new(dims)), Fill::UNIT);
    Sample::new(Gather { axis }, vec![x, indices], Tolerance::EXACT)
}

fn sample_backward(draw: &mut Draw) -> Sample {
    let (mut dims, axis, indices) = draw_case(draw);
    let extent = dims[axis];
    dims[axis] = indices.0.shape.len();
    let tolerance = Tolerance::sum(dims[axis], 1.0);
    let dy = (TensorType::f32(Shape::new(dims)), Fill::UNIT);
    let op = GatherGrad { axis, extent };
    Sample::new(op, vec![dy, indices], tolerance).without_gradient()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_that_is_not_there_is_an_error_that_names_it() {
        let inputs = [TensorType::f32([2, 3]), TensorType::u32([4])];
        let y = Gather { axis: 1 }.infer(&inputs).unwrap();
        assert_eq!(y, [TensorType::f32([2, 4])]);
        let error = Gather { axis: 2 }.infer(&inputs).unwrap_err().to_string();
        assert!(
            error.contains("axis 2") && error.contains("[2, 3]"),
            "{error}"
        );
    }
}
