//! Renaming the dimensions of a tensor.

use super::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    expect_inputs,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::Launch;
use crate::tensor::{Shape, TensorType};

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "reshape",
    sample,
}];

/// The same elements in the same order under another shape; no work on the device.
#[derive(Clone, Debug, PartialEq)]
pub struct Reshape {
    /// The new shape, of as many elements as the old.
    pub shape: Shape,
}

impl Reshape {
    /// All dimensions but the first joined: [N, C, H, W] becomes [N, C * H * W].
    pub fn flatten(input: &Shape) -> Self {
        let batch = input.dims().first().copied().unwrap_or(1);
        let rest: usize = input.dims().iter().skip(1).product();
        Self {
            shape: [batch, rest].into(),
        }
    }
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        let (from, to) = (&inputs[0].shape, &self.shape);
        if from.len() != to.len() {
            return Err(Error::shape(
                self.name(),
                format!(
                    "{from} has {} elements, the new shape {to} has {}",
                    from.len(),
                    to.len()
                ),
            ));
        }
        Ok(vec![TensorType {
            shape: to.clone(),
            dtype: inputs[0].dtype,
        }])
    }

    fn alias(&self) -> Option<usize> {
        Some(0)
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let Some(dy) = upstream[0] else {
            return Ok(vec![None]);
        };
        let shape = builder.ty(node.inputs[0]).shape.clone();
        Ok(vec![Some(builder.add1(Box::new(Self { shape }), &[dy])?)])
    }

    fn reference(&self, io: Reference<'_>) {
        io.outputs[0].copy_from(0, io.inputs[0]);
    }

    fn launch(&self, _context: LaunchContext<'_>) -> Result<Launch> {
        Ok(Launch::default())
    }

    fn flops(&self, _inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        0
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let [a, b, c] = [draw.int(1, 5), draw.int(1, 7), draw.int(1, 9)];
    let from = Shape::from([a, b, c]);
    let op = draw.pick(&[
        Reshape::flatten(&from),
        Reshape {
            shape: [c, 1, a * b].into(),
        },
    ]);
    let inputs = vec![(TensorType::f32(from), Fill::Uniform(-1.0, 1.0))];
    Sample::new(op, inputs, Tolerance::EXACT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_number_of_elements_is_an_error_that_names_both_shapes() {
        let op = Reshape {
            shape: [2, 4].into(),
        };
        let error = op.infer(&[TensorType::f32([3, 3])]).unwrap_err();
        assert!(error.to_string().contains("[3, 3] has 9"), "{error}");
        assert!(error.to_string().contains("[2, 4] has 8"), "{error}");
    }
}
