//! Average pooling.

use super::{Geometry, by_fours};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Kernel, Launch, ShaderFile};
use crate::ops::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    Window, expect_inputs,
};
use crate::shader;
use crate::tensor::TensorType;

const FORWARD: ShaderFile = shader!("pool2d/average_forward.wgsl");
const BACKWARD: ShaderFile = shader!("pool2d/average_backward.wgsl");

pub(super) const ENTRY: Entry = Entry {
    name: "avg_pool2d",
    sample,
};

pub(super) const GRAD_ENTRY: Entry = Entry {
    name: "avg_pool2d_grad",
    sample: sample_grad,
};

/// The mean of each window: `x` [N, C, H, W] gives `y` [N, C, Ho, Wo].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AvgPool2d {
    /// The window.
    pub window: Window,
    /// Whether padding counts, as zeros, in the mean. What hangs over beyond the
    /// padding in ceil mode never does. ONNX's default is not to count it,
    /// PyTorch's to count it.
    pub count_include_pad: bool,
}

impl Op for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        let [n, c, ..] = inputs[0].shape.nchw(self.name())?;
        let geometry = Geometry::over(self, self.window, &inputs[0])?;
        geometry.expect_taps(self)?;
        let [ho, wo] = geometry.windows;
        Ok(vec![TensorType::f32([n, c, ho, wo])])
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
        let grad = AvgPool2dGrad {
            window: self.window,
            count_include_pad: self.count_include_pad,
            image: [h, w],
        };
        Ok(vec![Some(builder.add1(Box::new(grad), &[dy])?)])
    }

    fn reference(&self, io: Reference<'_>) {
        let x = io.inputs[0];
        let geometry = Geometry::over(self, self.window, x.ty()).expect("inferred");
        let counts = counts(&geometry, self.count_include_pad);
        let y = io.outputs[0].f_mut();
        geometry.for_each_tap(|plane, window, pixel| {
            let value = x.f()[plane * geometry.image_area() + pixel];
            y[plane * geometry.window_area() + window] += value / counts[window];
        });
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let geometry = Geometry::over(self, self.window, &context.inputs[0])?;
        let outputs = context.outputs[0].shape.len();
        let kernel = set_counts(Kernel::new(FORWARD), &geometry, self.count_include_pad);
        let bindings = vec![("x", Arg::Input(0)), ("y", Arg::Output(0))];
        Ok(by_fours(kernel.set("OUTPUTS", outputs), bindings, outputs))
    }

    fn flops(&self, _inputs: &[TensorType], outputs: &[TensorType]) -> u64 {
        let [kh, kw] = self.window.kernel;
        (outputs[0].shape.len() as u64).saturating_mul((kh * kw) as u64)
    }
}

/// The gradient of [`AvgPool2d`]: each element of `dx` [N, C, H, W] sums the `dy`
/// [N, C, Ho, Wo] of the windows with a tap on it, each over its window's count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AvgPool2dGrad {
    /// The window.
    pub window: Window,
    /// Whether padding counts in the mean.
    pub count_include_pad: bool,
    /// Rows and columns of the image.
    pub image: [usize; 2],
}

impl AvgPool2dGrad {
    fn geometry(&self, dy: &TensorType) -> Result<Geometry> {
        Geometry::giving(self, self.window, self.image, dy)
    }
}

impl Op for AvgPool2dGrad {
    fn name(&self) -> &'static str {
        "avg_pool2d_grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        self.geometry(&inputs[0])?;
        let [n, c, ..] = inputs[0].shape.nchw(self.name())?;
        Ok(vec![TensorType::f32([n, c, self.image[0], self.image[1]])])
    }

    fn reference(&self, io: Reference<'_>) {
        let dy = io.inputs[0];
        let geometry = self.geometry(dy.ty()).expect("inferred");
        let counts = counts(&geometry, self.count_include_pad);
        let dx = io.outputs[0].f_mut();
        geometry.for_each_tap(|plane, window, pixel| {
            let value = dy.f()[plane * geometry.window_area() + window];
            dx[plane * geometry.image_area() + pixel] += value / counts[window];
        });
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let geometry = self.geometry(&context.inputs[0])?;
        let elements = context.outputs[0].shape.len();
        let kernel = set_counts(Kernel::new(BACKWARD), &geometry, self.count_include_pad);
        let kernel = geometry.set_cover(kernel).set("ELEMENTS", elements);
        let bindings = vec![("dy", Arg::Input(0)), ("dx", Arg::Output(0))];
        Ok(by_fours(kernel, bindings, elements))
    }
}

/// The rows (axis 0) or columns (axis 1) of the padded image that count: first and end.
fn counted(geometry: &Geometry, include_pad: bool, axis: usize) -> [usize; 2] {
    let (near, extent) = (geometry.near()[axis], geometry.image[axis]);
    let far = [geometry.window.pads.bottom, geometry.window.pads.right][axis];
    if include_pad {
        [0, near + extent + far]
    } else {
        [near, near + extent]
    }
}

/// How many elements count in the mean of each window of a plane.
fn counts(geometry: &Geometry, include_pad: bool) -> Vec<f64> {
    let window = &geometry.window;
    let along = |axis: usize, index: usize| {
        let [first, end] = counted(geometry, include_pad, axis);
        let taps = 0..window.kernel[axis];
        let at = taps.map(|tap| index * window.stride[axis] + tap * window.dilation[axis]);
        at.filter(|at| (first..end).contains(at)).count()
    };
    (0..geometry.window_area())
        .map(|o| along(0, o / geometry.windows[1]) * along(1, o % geometry.windows[1]))
        .map(|count| count as f64)
        .collect()
}

fn set_counts(kernel: Kernel, geometry: &Geometry, include_pad: bool) -> Kernel {
    let kernel = geometry.set_taps(geometry.set_strides(geometry.set_extents(kernel)));
    let [first_h, end_h] = counted(geometry, include_pad, 0);
    let [first_w, end_w] = counted(geometry, include_pad, 1);
    kernel
        .set("FIRST_H", first_h)
        .set("END_H", end_h)
        .set("FIRST_W", first_w)
        .set("END_W", end_w)
}

fn sample(draw: &mut Draw) -> Sample {
    let geometry = Geometry::draw(draw);
    let [kh, kw] = geometry.window.kernel;
    let op = AvgPool2d {
        window: geometry.window,
        count_include_pad: draw.coin(),
    };
    let inputs = vec![(geometry.x(), Fill::Uniform(-1.0, 1.0))];
    Sample::new(op, inputs, Tolerance::sum(kh * kw, 1.0))
}

fn sample_grad(draw: &mut Draw) -> Sample {
    let geometry = Geometry::draw(draw);
    let op = AvgPool2dGrad {
        window: geometry.window,
        count_include_pad: draw.coin(),
        image: geometry.image,
    };
    let inputs = vec![(geometry.y(), Fill::Uniform(-1.0, 1.0))];
    let terms = geometry.cover(0) * geometry.cover(1);
    Sample::new(op, inputs, Tolerance::sum(terms, 1.0)).without_gradient()
}
