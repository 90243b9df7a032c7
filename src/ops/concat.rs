//! Tensors joined along an axis.

use super::pad::Slice;
use super::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::{Shape, TensorType};

const ROWS: ShaderFile = shader!("concat/rows.wgsl");
const WORKGROUP: usize = 64;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "concat",
    sample,
}];

/// The inputs side by side along `axis`, in order.
///
/// Inputs: one or more, f32 and of one shape but for the extent along `axis`. Output: of
/// that shape, its extent along `axis` the sum of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concat {
    /// The axis along which the extents add up; 1 for the channels of NCHW.
    pub axis: usize,
}

impl Concat {
    /// Elements of a row: of the axis and those after it.
    fn row(self, shape: &Shape) -> usize {
        shape.dims()[self.axis..].iter().product()
    }
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let fail = |problem: String| Err(Error::shape(self.name(), problem));
        let Some(first) = inputs.first() else {
            return fail("expected at least 1 input, found none".into());
        };
        let mut dims = first.shape.dims().to_vec();
        if self.axis >= dims.len() {
            return fail(format!("axis {}: {first} has no such axis", self.axis));
        }
        dims[self.axis] = 0;
        for (i, input) in inputs.iter().enumerate() {
            expect_type(self, "x", &TensorType::f32(input.shape.clone()), input)?;
            let mut others = first.shape.dims().to_vec();
            if let Some(extent) = input.shape.dims().get(self.axis) {
                others[self.axis] = *extent;
                dims[self.axis] += extent;
            }
            if others != input.shape.dims() || input.shape.is_empty() {
                return fail(format!(
                    "input {i}: expected the shape of input 0, {first}, but for axis {}, \
                     and every extent at least 1, found {input}",
                    self.axis
                ));
            }
        }
        Ok(vec![TensorType::f32(Shape::new(dims))])
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let Some(dy) = upstream[0] else {
            return Ok(vec![None; node.inputs.len()]);
        };
        let mut gradients = Vec::new();
        let mut start = 0;
        for (input, wanted) in node.inputs.iter().zip(node.wanted) {
            let shape = builder.ty(*input).shape.clone();
            let mut starts = vec![0; shape.rank()];
            starts[self.axis] = start;
            start += shape[self.axis];
            let slice = Slice { starts, shape };
            gradients.push(match wanted {
                true => Some(builder.add1(Box::new(slice), &[dy])?),
                false => None,
            });
        }
        Ok(gradients)
    }

    fn reference(&self, io: Reference<'_>) {
        let rows: usize = io.outputs[0].dims()[..self.axis].iter().product();
        let mut y = io.outputs[0].f_mut().iter_mut();
        for row in 0..rows {
            for x in io.inputs {
                let width = self.row(&x.ty().shape);
                for x in &x.f()[row * width..(row + 1) * width] {
                    *y.next().expect("as many elements as all inputs") = *x;
                }
            }
        }
    }

    /// A dispatch an input: so any number of inputs meets the limit of bindings, and each
    /// element is still read and written once.
    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let widths: Vec<_> = context.inputs.iter().map(|x| self.row(&x.shape)).collect();
        let quads = widths.iter().all(|width| width.is_multiple_of(4));
        let (element, unit) = if quads { ("vec4<f32>", 4) } else { ("f32", 1) };
        let mut launch = Launch::default();
        let mut offset = 0;
        for (i, x) in context.inputs.iter().enumerate() {
            let len = x.shape.len() / unit;
            let kernel = Kernel::new(ROWS)
                .alias("Element", element)
                .set("WORKGROUP", WORKGROUP)
                .set("LEN", len)
                .set("WIDTH", widths[i] / unit)
                .set("PITCH", self.row(&context.outputs[0].shape) / unit)
                .set("OFFSET", offset / unit);
            let bindings = vec![("x", Arg::Input(i)), ("y", Arg::Output(0))];
            let groups = len.div_ceil(WORKGROUP);
            launch
                .dispatches
                .push(Dispatch::linear(kernel, bindings, groups));
            offset += widths[i];
        }
        Ok(launch)
    }

    fn flops(&self, _inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        0
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let rank = draw.int(1, 4);
    let axis = draw.int(0, rank - 1);
    let mut dims: Vec<_> = (0..rank).map(|_| draw.int(1, 6)).collect();
    // Rows of whole vec4, or mostly not; and more inputs than a shader has bindings.
    let unit = draw.pick(&[1, 4]);
    let inputs = (0..draw.pick(&[1, 2, 3, 9])).map(|_| {
        dims[axis] = unit * draw.int(1, 4);
        (TensorType::f32(Shape::new(dims.clone())), Fill::UNIT)
    });
    Sample::new(Concat { axis }, inputs.collect(), Tolerance::EXACT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_that_differ_elsewhere_are_an_error_that_names_both() {
        let inputs = [[2, 3, 8, 8], [2, 5, 8, 4]].map(TensorType::f32);
        let error = Concat { axis: 1 }.infer(&inputs).unwrap_err().to_string();
        assert!(error.contains("[2, 3, 8, 8]"), "{error}");
        assert!(error.contains("[2, 5, 8, 4]"), "{error}");
    }

    #[test]
    fn another_rank_no_axis_and_no_input_are_errors() {
        let [a, b] = [Shape::from([2, 3]), Shape::from([2])].map(TensorType::f32);
        let concat = Concat { axis: 1 };
        assert!(concat.infer(&[a, b.clone()]).is_err());
        assert!(concat.infer(&[b]).is_err());
        assert!(concat.infer(&[]).is_err());
    }
}
