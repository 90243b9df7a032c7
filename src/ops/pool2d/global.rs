//! Global average pooling.

use super::{WORKGROUP, by_fours};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::ProfileKind;
use crate::ops::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    expect_inputs, expect_type,
};
use crate::shader;
use crate::tensor::TensorType;

const FORWARD: ShaderFile = shader!("pool2d/global_average_forward.wgsl");
const BACKWARD: ShaderFile = shader!("pool2d/global_average_backward.wgsl");

pub(super) const ENTRY: Entry = Entry {
    name: "global_avg_pool",
    sample,
};

pub(super) const GRAD_ENTRY: Entry = Entry {
    name: "global_avg_pool_grad",
    sample: sample_grad,
};

/// The mean of each plane: `x` [N, C, H, W] gives `y` [N, C, 1, 1].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GlobalAvgPool;

impl Op for GlobalAvgPool {
    fn name(&self) -> &'static str {
        "global_avg_pool"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        let [n, c, h, w] = inputs[0].shape.nchw(self.name())?;
        let x = TensorType::f32([n, c, h.max(1), w.max(1)]);
        expect_type(self, "x", &x, &inputs[0])?;
        Ok(vec![TensorType::f32([n, c, 1, 1])])
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
        let [_, _, h, w] = builder.ty(node.inputs[0]).shape.nchw(self.name())?;
        let dx = builder.add1(Box::new(GlobalAvgPoolGrad { image: [h, w] }), &[dy])?;
        Ok(vec![Some(dx)])
    }

    fn reference(&self, io: Reference<'_>) {
        let area: usize = io.inputs[0].dims()[2..].iter().product();
        let planes = io.inputs[0].f().chunks_exact(area);
        for (y, plane) in io.outputs[0].f_mut().iter_mut().zip(planes) {
            *y = plane.iter().sum::<f64>() / area as f64;
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let planes = context.outputs[0].shape.len();
        let area = context.inputs[0].shape.len() / planes;
        let lanes = match context.profile.kind {
            ProfileKind::CpuLike => 1,
            // Two vec4 an invocation, so that short planes keep all lanes busy.
            ProfileKind::Gpu => area.div_ceil(8).next_power_of_two().min(WORKGROUP),
        };
        let kernel = Kernel::new(FORWARD)
            .set("WORKGROUP", WORKGROUP)
            .set("LANES", lanes)
            .set("PLANES", planes)
            .set("AREA", area);
        let bindings = vec![("x", Arg::Input(0)), ("y", Arg::Output(0))];
        Ok(Dispatch::linear(kernel, bindings, planes.div_ceil(WORKGROUP / lanes)).into())
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        inputs[0].shape.len() as u64
    }
}

/// The gradient of [`GlobalAvgPool`]: `dy` [N, C, 1, 1], divided by the area, in each
/// element of `dx` [N, C, H, W].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GlobalAvgPoolGrad {
    /// Rows and columns of the image.
    pub image: [usize; 2],
}

impl Op for GlobalAvgPoolGrad {
    fn name(&self) -> &'static str {
        "global_avg_pool_grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        let [n, c, ..] = inputs[0].shape.nchw(self.name())?;
        expect_type(self, "dy", &TensorType::f32([n, c, 1, 1]), &inputs[0])?;
        Ok(vec![TensorType::f32([n, c, self.image[0], self.image[1]])])
    }

    fn reference(&self, io: Reference<'_>) {
        let area = self.image[0] * self.image[1];
        let planes = io.outputs[0].f_mut().chunks_exact_mut(area);
        for (plane, dy) in planes.zip(io.inputs[0].f()) {
            plane.fill(dy / area as f64);
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let elements = context.outputs[0].shape.len();
        let kernel = Kernel::new(BACKWARD)
            .set("WORKGROUP", WORKGROUP)
            .set("ELEMENTS", elements)
            .set("AREA", self.image[0] * self.image[1]);
        let bindings = vec![("dy", Arg::Input(0)), ("dx", Arg::Output(0))];
        Ok(by_fours(kernel, bindings, elements))
    }
}

fn draw_shape(draw: &mut Draw) -> [usize; 4] {
    let side = draw.pick(&[3, 9, 33]);
    let (h, w) = (draw.int(1, side), draw.int(1, side));
    [draw.int(1, 3), draw.int(1, 9), h, w]
}

fn sample(draw: &mut Draw) -> Sample {
    let shape = draw_shape(draw);
    let inputs = vec![(TensorType::f32(shape), Fill::Uniform(-1.0, 1.0))];
    // The mean divides the sum's error by the number of terms.
    Sample::new(GlobalAvgPool, inputs, Tolerance::sum(1, 1.0))
}

fn sample_grad(draw: &mut Draw) -> Sample {
    let [n, c, h, w] = draw_shape(draw);
    let inputs = vec![(TensorType::f32([n, c, 1, 1]), Fill::Uniform(-1.0, 1.0))];
    let op = GlobalAvgPoolGrad { image: [h, w] };
    Sample::new(op, inputs, Tolerance::sum(1, 1.0)).without_gradient()
}
