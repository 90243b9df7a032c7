//! The squared length of a gradient.

use super::BLOCK;
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::ops::reduction::sum_partials;
use crate::ops::{
    Draw, Fill, LaunchContext, Op, Reference, Sample, Tolerance, expect_inputs, expect_type,
};
use crate::shader;
use crate::tensor::{DType, TensorType};

const NORM: ShaderFile = shader!("optimizer/norm.wgsl");
const WORKGROUP: usize = 64;
/// Most workgroups, and so partial sums.
const GROUPS: usize = 1024;

/// The sum of the squares of an arena's elements, its padding left out.
///
/// Inputs: the arena f32 `[len]`, and how many elements count of each [`BLOCK`] of the whole
/// arena, from its first, u32. Output: a scalar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SquaredNorm {
    /// The block that the first input begins with.
    pub first_block: usize,
}

impl Op for SquaredNorm {
    fn name(&self) -> &'static str {
        "squared_norm"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2)?;
        let len = inputs[0].shape.len();
        expect_type(self, "arena", &TensorType::f32([len]), &inputs[0])?;
        let blocks = inputs[1].shape.len();
        if inputs[1].dtype != DType::U32 || blocks < self.first_block + len.div_ceil(BLOCK) {
            let problem = format!(
                "counts: expected at least {} u32, found {}",
                self.first_block + len.div_ceil(BLOCK),
                inputs[1]
            );
            return Err(Error::shape(self.name(), problem));
        }
        Ok(vec![TensorType::f32([])])
    }

    fn reference(&self, io: Reference<'_>) {
        let counts = &io.inputs[1].u()[self.first_block..];
        let blocks = io.inputs[0].f().chunks(BLOCK).zip(counts);
        let counted = blocks.flat_map(|(block, count)| block.iter().take(*count as usize));
        io.outputs[0].f_mut()[0] = counted.map(|g| g * g).sum();
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let len = context.inputs[0].shape.len();
        let vec4s = len.div_ceil(4);
        let slice = vec4s.div_ceil(GROUPS).max(4 * WORKGROUP);
        let groups = vec4s.div_ceil(slice);
        let mut launch = Launch::default();
        let partials = launch.reserve(4 * groups as u64);
        let kernel = Kernel::new(NORM)
            .set("WORKGROUP", WORKGROUP)
            .set("LEN", len)
            .set("SLICE", slice)
            .set("FIRST_BLOCK", self.first_block);
        let bindings = vec![
            ("arena", Arg::Input(0)),
            ("counts", Arg::Input(1)),
            ("partials", partials),
        ];
        let sums = Dispatch::grid(kernel, bindings, [groups, 1, 1]);
        let total = sum_partials(partials, Arg::Output(0), groups);
        launch.dispatches = vec![sums, total];
        Ok(launch)
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        2 * inputs[0].shape.len() as u64
    }
}

pub(super) fn sample(draw: &mut Draw) -> Sample {
    let op = SquaredNorm {
        first_block: draw.int(0, 3),
    };
    let most = draw.pick(&[400, 9000]);
    let len = draw.int(1, most);
    let blocks = op.first_block + len.div_ceil(BLOCK);
    let inputs = vec![
        (TensorType::f32([len]), Fill::UNIT),
        (TensorType::u32([blocks]), Fill::Below(BLOCK as u32 + 1)),
    ];
    // Positive terms, none added more than 24 times: 4 within a vec4, 4 to 8 of a lane, the
    // levels of two trees; each rounds by half an epsilon.
    let tolerance = Tolerance {
        absolute: 0.0,
        relative: 16.0 * f64::from(f32::EPSILON),
    };
    Sample::new(op, inputs, tolerance).without_gradient()
}
