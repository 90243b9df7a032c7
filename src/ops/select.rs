//! One of two values, element by element.

use super::binary::broadcast::{RANK, axes, broadcast, draw_operand, strides};
use super::binary::{constant, draw_shape, sum_to};
use super::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::TensorType;

const FORWARD: ShaderFile = shader!("select/forward.wgsl");
const WORKGROUP: usize = 64;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "select",
    sample,
}];

/// `y = a` where the condition is not 0, else `b`: NumPy's `where`.
///
/// Inputs: `condition`, `a` and `b`, f32 of up to 6 axes. Output: `y`, f32 of the shape
/// that all three broadcast to, as for [`Binary`](super::binary::Binary). What is not
/// chosen counts for nothing, be it infinite or NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Select;

impl Op for Select {
    fn name(&self) -> &'static str {
        "select"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 3)?;
        for (operand, found) in ["condition", "a", "b"].into_iter().zip(inputs) {
            expect_type(self, operand, &TensorType::f32(found.shape.clone()), found)?;
        }
        let [condition, a, b] = [0, 1, 2].map(|i| &inputs[i].shape);
        let y = broadcast(a, b).and_then(|both| broadcast(condition, &both));
        match y {
            Some(y) if y.rank() <= RANK && !y.is_empty() => Ok(vec![TensorType::f32(y)]),
            _ => Err(Error::shape(
                self.name(),
                format!(
                    "cannot broadcast {condition}, {a} and {b} to each other: expected at most \
                     {RANK} axes, no extent of 0, and from the last axis on equal extents or 1"
                ),
            )),
        }
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let mut gradients = vec![None; 3];
        let Some(dy) = upstream[0] else {
            return Ok(gradients);
        };
        let condition = node.inputs[0];
        for operand in [1, 2] {
            if !node.wanted[operand] {
                continue;
            }
            let zero = constant(builder, 0.0)?;
            let inputs = match operand {
                1 => [condition, dy, zero],
                _ => [condition, zero, dy],
            };
            let whole = builder.add1(Box::new(Self), &inputs)?;
            let shape = builder.ty(node.inputs[operand]).shape.clone();
            gradients[operand] = Some(sum_to(builder, whole, shape)?);
        }
        Ok(gradients)
    }

    fn reference(&self, io: Reference<'_>) {
        let y = &io.outputs[0].ty().shape;
        let (dims, own) = (y.dims().to_vec(), y.strides());
        let all = [0, 1, 2].map(|i| strides(&io.inputs[i].ty().shape, y));
        for (i, y) in io.outputs[0].f_mut().iter_mut().enumerate() {
            let [condition, a, b] = [0, 1, 2].map(|operand| {
                let axes = 0..dims.len();
                let at = axes.map(|k| i / own[k] % dims[k] * all[operand][k]);
                io.inputs[operand].f()[at.sum::<usize>()]
            });
            *y = if condition != 0.0 { a } else { b };
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        const EXTENTS: [&str; RANK - 1] = ["D1", "D2", "D3", "D4", "D5"];
        const STRIDES: [[&str; RANK]; 3] = [
            ["C0", "C1", "C2", "C3", "C4", "C5"],
            ["A0", "A1", "A2", "A3", "A4", "A5"],
            ["B0", "B1", "B2", "B3", "B4", "B5"],
        ];
        let y = &context.outputs[0].shape;
        let axes = axes(y, [0, 1, 2].map(|i| &context.inputs[i].shape));
        let mut kernel = Kernel::new(FORWARD)
            .set("WORKGROUP", WORKGROUP)
            .set("LEN", y.len());
        // The shader's outermost axes, which are left out, keep extent 1.
        for (i, axis) in (RANK - axes.len()..RANK).zip(axes) {
            if i > 0 {
                kernel = kernel.set(EXTENTS[i - 1], axis.extent);
            }
            for (names, stride) in STRIDES.iter().zip(axis.strides) {
                kernel = kernel.set(names[i], stride);
            }
        }
        let bindings = vec![
            ("condition", Arg::Input(0)),
            ("a", Arg::Input(1)),
            ("b", Arg::Input(2)),
            ("y", Arg::Output(0)),
        ];
        let groups = y.len().div_ceil(WORKGROUP);
        Ok(Dispatch::linear(kernel, bindings, groups).into())
    }

    fn flops(&self, _inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        0
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let whole = draw_shape(draw);
    let condition = TensorType::f32(draw_operand(draw, &whole));
    let [a, b] = [0, 1].map(|_| TensorType::f32(draw_operand(draw, &whole)));
    let inputs = vec![
        (condition, Fill::Levels(3)),
        (a, Fill::UNIT),
        (b, Fill::UNIT),
    ];
    Sample::new(Select, inputs, Tolerance::EXACT).gradient_of(1, &[1, 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_do_not_fit_are_an_error_that_names_all() {
        let types = [[2, 3], [2, 1], [4, 3]].map(TensorType::f32);
        let error = Select.infer(&types).unwrap_err().to_string();
        for shape in ["[2, 3]", "[2, 1]", "[4, 3]"] {
            assert!(error.contains(shape), "{error}");
        }
    }
}
