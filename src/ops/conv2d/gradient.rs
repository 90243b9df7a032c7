//! The two gradients of a convolution.

use super::{Geometry, draw_geometry, launch};
use crate::error::Result;
use crate::gpu::kernel::Launch;
use crate::ops::{
    Draw, Fill, LaunchContext, Op, Reference, Sample, Tolerance, Window, expect_inputs, expect_type,
};
use crate::tensor::TensorType;

/// dL/dx of a convolution: inputs `dy` [N, groups·O, oH, oW] and `w`
/// [groups·O, C, kH, kW]; output [N, groups·C, H, W].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2dInputGrad {
    /// The convolution's window.
    pub window: Window,
    /// The convolution's groups.
    pub groups: usize,
    /// Rows and columns of the convolution's input.
    pub image: [usize; 2],
}

impl Conv2dInputGrad {
    fn geometry(&self, inputs: &[TensorType]) -> Result<Geometry> {
        let [images, ..] = inputs[0].shape.nchw(self.name())?;
        let [_, c, ..] = inputs[1].shape.nchw(self.name())?;
        let x = TensorType::f32([images, c * self.groups, self.image[0], self.image[1]]);
        Geometry::new(self.name(), self.window, self.groups, &x, &inputs[1])
    }
}

impl Op for Conv2dInputGrad {
    fn name(&self) -> &'static str {
        "conv2d_input_grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2)?;
        let geometry = self.geometry(inputs)?;
        expect_type(self, "dy", &geometry.y(), &inputs[0])?;
        Ok(vec![geometry.x()])
    }

    fn reference(&self, io: Reference<'_>) {
        let types = [io.inputs[0].ty().clone(), io.inputs[1].ty().clone()];
        let geometry = self.geometry(&types).expect("inferred before");
        let (dy, w) = (io.inputs[0].f(), io.inputs[1].f());
        let dx = io.outputs[0].f_mut();
        geometry.for_each_product(|xi, wi, yi| dx[xi] += dy[yi] * w[wi]);
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let geometry = self.geometry(context.inputs)?;
        Ok(launch::input_grad(context.profile, &geometry))
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        self.geometry(inputs).map_or(0, |g| 2 * g.multiply_adds())
    }
}

/// dL/dw of a convolution: inputs `dy` [N, groups·O, oH, oW] and `x`
/// [N, groups·C, H, W]; output [groups·O, C, kH, kW].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2dWeightGrad {
    /// The convolution's window.
    pub window: Window,
    /// The convolution's groups.
    pub groups: usize,
}

impl Conv2dWeightGrad {
    fn geometry(&self, inputs: &[TensorType]) -> Result<Geometry> {
        let [_, filters, ..] = inputs[0].shape.nchw(self.name())?;
        let [_, channels, ..] = inputs[1].shape.nchw(self.name())?;
        let [kh, kw] = self.window.kernel;
        let w = TensorType::f32([filters, channels / self.groups.max(1), kh, kw]);
        Geometry::new(self.name(), self.window, self.groups, &inputs[1], &w)
    }
}

impl Op for Conv2dWeightGrad {
    fn name(&self) -> &'static str {
        "conv2d_weight_grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2)?;
        let geometry = self.geometry(inputs)?;
        expect_type(self, "dy", &geometry.y(), &inputs[0])?;
        Ok(vec![geometry.w()])
    }

    fn reference(&self, io: Reference<'_>) {
        let types = [io.inputs[0].ty().clone(), io.inputs[1].ty().clone()];
        let geometry = self.geometry(&types).expect("inferred before");
        let (dy, x) = (io.inputs[0].f(), io.inputs[1].f());
        let dw = io.outputs[0].f_mut();
        geometry.for_each_product(|xi, wi, yi| dw[wi] += dy[yi] * x[xi]);
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let geometry = self.geometry(context.inputs)?;
        Ok(launch::weight_grad(context.profile, &geometry))
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        self.geometry(inputs).map_or(0, |g| 2 * g.multiply_adds())
    }
}

pub(super) fn sample_input_grad(draw: &mut Draw) -> Sample {
    let geometry = draw_geometry(draw);
    let op = Conv2dInputGrad {
        window: geometry.window,
        groups: geometry.groups,
        image: geometry.image,
    };
    let terms = geometry.o * geometry.window.kernel.iter().product::<usize>();
    let inputs = vec![(geometry.y(), Fill::UNIT), (geometry.w(), Fill::UNIT)];
    Sample::new(op, inputs, Tolerance::sum(terms, 1.0)).without_gradient()
}

pub(super) fn sample_weight_grad(draw: &mut Draw) -> Sample {
    let geometry = draw_geometry(draw);
    let op = Conv2dWeightGrad {
        window: geometry.window,
        groups: geometry.groups,
    };
    let terms = geometry.images * geometry.output.iter().product::<usize>();
    let inputs = vec![(geometry.y(), Fill::UNIT), (geometry.x(), Fill::UNIT)];
    Sample::new(op, inputs, Tolerance::sum(terms, 1.0)).without_gradient()
}
