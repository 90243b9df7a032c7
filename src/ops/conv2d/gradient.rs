//! The two gradients of a convolution.

use super::plan::Plan;
use super::{Conv2d, Geometry, draw_geometry, draw_pool, launch, winograd};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::ops::bias::BiasGrad;
use crate::ops::gemm;
use crate::ops::pool2d::MaxPool2dGrad;
use crate::ops::{
    Array, Builder, Draw, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    Window, expect_inputs, expect_type,
};
use crate::shader;
use crate::tensor::TensorType;

const PUT_BIAS: ShaderFile = shader!("conv2d/put_bias.wgsl");

/// dL/dx of a convolution, which is the transposed convolution of `dy`: inputs `dy` [N, groups·O, oH, oW] and `w`
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

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let Some(dx) = upstream[0] else {
            return Ok(vec![None, None]);
        };
        let (dy, w) = (node.inputs[0], node.inputs[1]);
        // It is linear in both: the convolution undoes it, with the same weight gradient.
        let mut add = |wanted: bool, op: Box<dyn Op>, inputs: &[Value]| {
            wanted.then(|| builder.add1(op, inputs)).transpose()
        };
        let conv = Conv2d::new(self.window, self.groups);
        let by_dy = add(node.wanted[0], Box::new(conv), &[dx, w])?;
        let weight = Conv2dWeightGrad::new(self.window, self.groups);
        let by_w = add(node.wanted[1], Box::new(weight), &[dy, dx])?;
        Ok(vec![by_dy, by_w])
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
        Ok(launch::input_grad(&geometry, &context))
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        self.geometry(inputs).map_or(0, |g| 2 * g.multiply_adds())
    }
}

/// dL/dw of a convolution and, where `bias`, dL/dbias: inputs `dy` [N, groups·O, oH, oW]
/// and `x` [N, groups·C, H, W]; outputs [groups·O, C, kH, kW] and [groups·O].
///
/// With the gradient of a max pool behind the convolution fused in, that one's inputs
/// stand for `dy`, which may follow as the last input for kernels that rather read it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2dWeightGrad {
    /// The convolution's window.
    pub window: Window,
    /// The convolution's groups.
    pub groups: usize,
    /// Whether the bias's gradient is a second output.
    pub bias: bool,
    /// What computes `dy`, if it is fused in.
    pub pool: Option<MaxPool2dGrad>,
    /// Whether `dy` is an input although it is computed.
    pub given: bool,
}

impl Conv2dWeightGrad {
    /// The weight gradient alone.
    pub fn new(window: Window, groups: usize) -> Self {
        Self {
            window,
            groups,
            bias: false,
            pool: None,
            given: false,
        }
    }

    /// The same gradient with the bias's.
    #[must_use]
    pub fn with_bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// The launch of a kernel that sums in parts, the weights' into `dw` and, where there is a
    /// bias, its by the hook `put_bias`; `dispatch` adds to these bindings what else it has.
    pub(super) fn in_parts(
        &self,
        geometry: &Geometry,
        parts: usize,
        kernel: Kernel,
        dispatch: impl FnOnce(Kernel, Vec<(&'static str, Arg)>) -> Dispatch,
    ) -> Launch {
        let weights = (geometry.w().shape.len(), Arg::Output(0));
        if !self.bias {
            return gemm::in_parts(parts, [weights], |[dw]| dispatch(kernel, vec![("dw", dw)]));
        }
        let kernel = kernel.hook("put_bias", PUT_BIAS, "put_bias_grad");
        let bias = (geometry.bias().shape.len(), Arg::Output(1));
        gemm::in_parts(parts, [weights, bias], |[dw, db]| {
            dispatch(kernel, vec![("dw", dw), ("db", db)])
        })
    }

    /// The op whose inputs are `dy` and `x`.
    pub(super) fn without_pool(self) -> Self {
        Self {
            pool: None,
            given: false,
            ..self
        }
    }

    /// Which input `x` is; those before it are `dy` or what it is computed from.
    pub(super) fn x(&self) -> usize {
        self.pool.map_or(1, |pool| pool.input_count())
    }

    /// Which input `dy` is, if it is one.
    pub(super) fn dy_input(&self) -> Option<usize> {
        match (self.pool, self.given) {
            (None, _) => Some(0),
            (Some(_), true) => Some(self.x() + 1),
            (Some(_), false) => None,
        }
    }

    /// The type of `dy`.
    fn dy(&self, inputs: &[TensorType]) -> Result<TensorType> {
        match self.pool {
            Some(pool) => Ok(pool.infer(&inputs[..self.x()])?.remove(0)),
            None => Ok(inputs[0].clone()),
        }
    }

    fn geometry(&self, inputs: &[TensorType]) -> Result<Geometry> {
        let x = &inputs[self.x()];
        let [_, filters, ..] = self.dy(inputs)?.shape.nchw(self.name())?;
        let [_, channels, ..] = x.shape.nchw(self.name())?;
        let [kh, kw] = self.window.kernel;
        let w = TensorType::f32([filters, channels / self.groups.max(1), kh, kw]);
        Geometry::new(self.name(), self.window, self.groups, x, &w)
    }
}

impl Op for Conv2dWeightGrad {
    fn name(&self) -> &'static str {
        "conv2d_weight_grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, self.x() + 1 + usize::from(self.given))?;
        let geometry = self.geometry(inputs)?;
        let given = self.dy_input().map(|i| inputs[i].clone());
        for dy in given.into_iter().chain([self.dy(inputs)?]) {
            expect_type(self, "dy", &geometry.y(), &dy)?;
        }
        let bias = self.bias.then(|| geometry.bias());
        Ok([geometry.w()].into_iter().chain(bias).collect())
    }

    fn reference(&self, io: Reference<'_>) {
        let types: Vec<_> = io.inputs.iter().map(|a| a.ty().clone()).collect();
        let geometry = self.geometry(&types).expect("inferred before");
        let x = &io.inputs[self.x()];
        let mut dy = [io.inputs[0].clone()];
        if let Some(pool) = self.pool {
            dy = [Array::float(
                geometry.y(),
                vec![0.0; geometry.y().shape.len()],
            )];
            pool.reference(Reference {
                inputs: &io.inputs[..self.x()],
                outputs: &mut dy,
                updates: &mut [],
                step: io.step,
            });
        }
        let (dw, db) = io.outputs.split_at_mut(1);
        let (dw, x) = (dw[0].f_mut(), x.f());
        geometry.for_each_product(|xi, wi, yi| dw[wi] += dy[0].f()[yi] * x[xi]);
        if self.bias {
            BiasGrad.reference(Reference {
                inputs: &[&dy[0]],
                outputs: db,
                updates: &mut [],
                step: io.step,
            });
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        launch::weight_grad(self, &self.geometry(context.inputs)?, &context)
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        self.geometry(inputs).map_or(0, |g| 2 * g.multiply_adds())
    }

    fn fuse_prologue(&self, previous: &dyn Op) -> Option<Box<dyn Op>> {
        let pool = *previous.downcast::<MaxPool2dGrad>()?;
        self.pool.is_none().then(|| {
            Box::new(Self {
                pool: Some(pool),
                ..*self
            }) as Box<dyn Op>
        })
    }

    fn look_through(&self, previous: &dyn Op) -> Option<Box<dyn Op>> {
        let pool = *previous.downcast::<MaxPool2dGrad>()?;
        self.pool.is_none().then(|| {
            Box::new(Self {
                pool: Some(pool),
                given: true,
                ..*self
            }) as Box<dyn Op>
        })
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
    let planned = Plan::input_grad(&geometry).geometry;
    let tolerance = winograd::tolerance(&planned, [1, 1], Tolerance::sum(terms, 1.0));
    let sample = Sample::new(op, inputs, tolerance);
    match winograd::may_pay(&planned, [1, 1]) {
        true => sample.without_gradient(),
        false => sample,
    }
}

pub(super) fn sample_weight_grad(draw: &mut Draw) -> Sample {
    let geometry = draw_geometry(draw);
    let mut op = Conv2dWeightGrad::new(geometry.window, geometry.groups).with_bias(draw.coin());
    let mut inputs = vec![(geometry.y(), Fill::UNIT)];
    let mut tolerance = Tolerance::sum(geometry.images * geometry.pixels(), 1.0);
    if draw.coin() {
        let window = draw_pool(draw, geometry.output);
        let [n, channels, ..] = geometry.y().shape.nchw("sample").expect("drawn so");
        let (pool, gradients) = MaxPool2dGrad::draw(draw, window, [n, channels], geometry.output);
        op.pool = Some(pool);
        inputs = gradients;
        // As many terms an element as windows cover it, each with a slope.
        let terms = geometry.images * geometry.pixels() * window.kernel.iter().product::<usize>();
        tolerance = Tolerance::sum(terms, 1.5).and_transcendental();
        tolerance.absolute += Tolerance::transcendental().absolute * terms as f64;
    }
    inputs.push((geometry.x(), Fill::UNIT));
    let tolerance = winograd::tolerance(&geometry, [1, 1], tolerance);
    Sample::new(op, inputs, tolerance).without_gradient()
}
