//! A tensor of one value.

use super::{Draw, Entry, LaunchContext, Op, Reference, Sample, Tolerance, expect_inputs};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::{Shape, TensorType};

const FORWARD: ShaderFile = shader!("fill/forward.wgsl");
const WORKGROUP: usize = 64;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "fill",
    sample,
}];

/// `y = value` in every element; no input.
#[derive(Clone, Debug, PartialEq)]
pub struct Fill {
    /// Shape of the output.
    pub shape: Shape,
    /// Value of each element.
    pub value: f32,
}

impl Op for Fill {
    fn name(&self) -> &'static str {
        "fill"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 0)?;
        Ok(vec![TensorType::f32(self.shape.clone())])
    }

    fn reference(&self, io: Reference<'_>) {
        io.outputs[0].f_mut().fill(f64::from(self.value));
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let vec4s = context.outputs[0].shape.len().div_ceil(4);
        let kernel = Kernel::new(FORWARD)
            .set("VEC4S", vec4s)
            .set("WORKGROUP", WORKGROUP)
            .set("VALUE", self.value);
        let bindings = vec![("y", Arg::Output(0))];
        Ok(Dispatch::linear(kernel, bindings, vec4s.div_ceil(WORKGROUP)).into())
    }

    fn flops(&self, _inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        0
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let op = Fill {
        shape: [draw.int(1, 9), draw.int(1, 99)].into(),
        value: draw.float(-2.0, 2.0) as f32,
    };
    Sample::new(op, vec![], Tolerance::EXACT).without_gradient()
}
