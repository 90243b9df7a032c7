//! The axes of a tensor in another order.

use super::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::{Shape, TensorType};

const FORWARD: ShaderFile = shader!("transpose/forward.wgsl");
const WORKGROUP: usize = 64;
/// Axes the kernel walks.
const RANK: usize = 6;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "transpose",
    sample,
}];

/// Axis k of `y` is axis `order[k]` of `x`: NHWC from NCHW is `[0, 2, 3, 1]`.
///
/// Input: `x` f32 of up to 6 axes. Output: `y`, f32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transpose {
    /// The axes of `x`, each once, in the order in which `y` has them.
    pub order: Vec<usize>,
}

impl Transpose {
    /// The transposition that undoes this one.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let mut order = vec![0; self.order.len()];
        for (to, from) in self.order.iter().enumerate() {
            order[*from] = to;
        }
        Self { order }
    }

    /// Extents of y and the strides of x along them.
    fn walk(&self, x: &Shape) -> Vec<(usize, usize)> {
        let strides = x.strides();
        let axes = self.order.iter().map(|from| (x[*from], strides[*from]));
        // Axes that lie together in x and in y are one.
        let mut joined: Vec<(usize, usize)> = Vec::new();
        for (extent, stride) in axes.filter(|(extent, _)| *extent > 1) {
            match joined.last_mut() {
                Some(outer) if outer.1 == extent * stride => {
                    *outer = (outer.0 * extent, stride);
                }
                _ => joined.push((extent, stride)),
            }
        }
        joined
    }
}

impl Op for Transpose {
    fn name(&self) -> &'static str {
        "transpose"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        let x = &inputs[0].shape;
        expect_type(self, "x", &TensorType::f32(x.clone()), &inputs[0])?;
        let mut sorted = self.order.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..x.rank()) || x.rank() > RANK || x.is_empty() {
            let problem = format!(
                "expected each axis of {x} once, at most {RANK} and none of extent 0, found {:?}",
                self.order
            );
            return Err(Error::shape(self.name(), problem));
        }
        let dims: Vec<_> = self.order.iter().map(|axis| x[*axis]).collect();
        Ok(vec![TensorType::f32(Shape::new(dims))])
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        _node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let Some(dy) = upstream[0] else {
            return Ok(vec![None]);
        };
        Ok(vec![Some(builder.add1(Box::new(self.inverse()), &[dy])?)])
    }

    fn reference(&self, io: Reference<'_>) {
        let x = &io.inputs[0].ty().shape;
        let (own, strides) = (io.outputs[0].ty().shape.strides(), x.strides());
        let dims = io.outputs[0].dims().to_vec();
        for (i, y) in io.outputs[0].f_mut().iter_mut().enumerate() {
            let axes = self.order.iter().enumerate();
            let places = axes.map(|(k, from)| i / own[k] % dims[k] * strides[*from]);
            *y = io.inputs[0].f()[places.sum::<usize>()];
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        const EXTENTS: [&str; RANK - 1] = ["D1", "D2", "D3", "D4", "D5"];
        const STRIDES: [&str; RANK] = ["S0", "S1", "S2", "S3", "S4", "S5"];
        let len = context.inputs[0].shape.len();
        let mut kernel = Kernel::new(FORWARD)
            .set("WORKGROUP", WORKGROUP)
            .set("LEN", len);
        let axes = self.walk(&context.inputs[0].shape);
        // The outermost axes, which are left out, keep extent 1.
        for (i, (extent, stride)) in (RANK - axes.len()..RANK).zip(axes) {
            if i > 0 {
                kernel = kernel.set(EXTENTS[i - 1], extent);
            }
            kernel = kernel.set(STRIDES[i], stride);
        }
        let bindings = vec![("x", Arg::Input(0)), ("y", Arg::Output(0))];
        Ok(Dispatch::linear(kernel, bindings, len.div_ceil(WORKGROUP)).into())
    }

    fn flops(&self, _inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        0
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let rank = draw.int(0, RANK);
    let most = if rank > 4 { 3 } else { 7 };
    let dims: Vec<_> = (0..rank).map(|_| draw.int(1, most)).collect();
    let order = draw.order(rank);
    let inputs = vec![(TensorType::f32(Shape::new(dims)), Fill::UNIT)];
    Sample::new(Transpose { order }, inputs, Tolerance::EXACT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_misses_an_axis_is_an_error_that_names_it() {
        let op = Transpose { order: vec![0, 0] };
        let error = op.infer(&[TensorType::f32([2, 3])]).unwrap_err();
        assert!(error.to_string().contains("[0, 0]"), "{error}");
    }

    #[test]
    fn axes_that_stay_together_are_walked_as_one() {
        let op = Transpose {
            order: vec![0, 2, 3, 1],
        };
        let walk = op.walk(&[8, 3, 5, 7].into());
        assert_eq!(walk, [(8, 105), (35, 1), (3, 35)]);
    }
}
