//! The two gradients of a convolution.

use super::plan::Plan;
use super::{Conv2d, Geometry, draw_geometry, draw_pool, launch, winograd};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::ops::activation::FUNCTIONS;
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
const VALUES: ShaderFile = shader!("conv2d/values.wgsl");
const VALUES_POOLED: ShaderFile = shader!("conv2d/values_pooled.wgsl");

/// What stands for `dy` among the inputs of a convolution's gradients, before their one other
/// operand: `dy` itself, or with the gradient of a max pool behind the convolution fused in,
/// that one's inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Upstream {
    /// What computes `dy`, if it is fused in.
    pub pool: Option<MaxPool2dGrad>,
}

impl Upstream {
    /// This with `previous`, which computes `dy`, fused in.
    fn behind(self, previous: &dyn Op) -> Option<Self> {
        let pool = Some(*previous.downcast::<MaxPool2dGrad>()?);
        self.pool.is_none().then_some(Self { pool })
    }

    /// Which input the other operand is.
    pub(super) fn operand(self) -> usize {
        self.pool.map_or(1, |pool| pool.input_count())
    }

    /// Which input `dy` is, if it is one.
    pub(super) fn dy(self) -> Option<usize> {
        self.pool.is_none().then_some(0)
    }

    /// Rows and columns of a window of the pool, where its windows lie edge to edge.
    pub(super) fn tile(self) -> Option<[usize; 2]> {
        self.pool?.tile()
    }

    /// Loads of a kernel that reads this, for each window of the pool or each element.
    pub(super) fn loads(self) -> usize {
        self.operand()
    }

    /// The type of `dy`.
    fn ty(self, inputs: &[TensorType]) -> Result<TensorType> {
        match self.pool {
            Some(pool) => Ok(pool.infer(&inputs[..self.operand()])?.remove(0)),
            None => Ok(inputs[0].clone()),
        }
    }

    /// The value of `dy`.
    fn reference(self, io: &Reference<'_>) -> Array {
        let Some(pool) = self.pool else {
            return io.inputs[0].clone();
        };
        let inputs = &io.inputs[..self.operand()];
        let types: Vec<_> = inputs.iter().map(|a| a.ty().clone()).collect();
        let ty = self.ty(&types).expect("inferred before");
        let zeros = vec![0.0; ty.shape.len()];
        let mut dy = [Array::float(ty, zeros)];
        pool.reference(Reference {
            inputs,
            outputs: &mut dy,
            updates: &mut [],
            step: io.step,
        });
        let [dy] = dy;
        dy
    }

    /// Lets a kernel read it.
    pub(super) fn specialise(self, kernel: Kernel) -> Kernel {
        let Some(pool) = self.pool else {
            return kernel.hook("value_at", VALUES, "plain_value_at");
        };
        let kernel = kernel
            .set("POOLED", true)
            .hook("value_at", VALUES_POOLED, "pooled_value_at")
            .hook("winner_at", VALUES_POOLED, "pooled_winner_at");
        match pool.activation {
            Some(function) => kernel
                .hook("slope", FUNCTIONS, function.shader_slope_name())
                .set("SLOPE_ALPHA", function.alpha()),
            None => kernel.sparse("saved"),
        }
    }

    /// The bindings of that.
    pub(super) fn bindings(self) -> Vec<(&'static str, Arg)> {
        let operand = self.operand();
        match self.pool {
            None => vec![("source", Arg::Input(0))],
            // Without an activation the slope is 1 whatever `saved` holds.
            Some(_) => vec![
                ("dy", Arg::Input(0)),
                ("saved", Arg::Input(operand - 2)),
                ("argmax", Arg::Input(operand - 1)),
            ],
        }
    }

    /// Where the arguments of a launch lie whose inputs are `dy` and the other operand, `dy` there.
    pub(super) fn reading(self, dy: Arg) -> impl Fn(Arg) -> Arg {
        move |arg| match arg {
            Arg::Input(0) => dy,
            Arg::Input(_) => Arg::Input(self.operand()),
            other => other,
        }
    }
}

/// dL/dx of a convolution, which is the transposed convolution of `dy`: inputs `dy` [N, groups·O, oH, oW], or
/// what stands for it ([`Upstream`]), and `w` [groups·O, C, kH, kW]; output [N, groups·C, H, W].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2dInputGrad {
    /// The convolution's window.
    pub window: Window,
    /// The convolution's groups.
    pub groups: usize,
    /// Rows and columns of the convolution's input.
    pub image: [usize; 2],
    /// What stands for `dy`.
    pub upstream: Upstream,
}

impl Conv2dInputGrad {
    /// The gradient of a convolution of such images.
    pub fn new(window: Window, groups: usize, image: [usize; 2]) -> Self {
        Self {
            window,
            groups,
            image,
            upstream: Upstream::default(),
        }
    }

    fn geometry(&self, inputs: &[TensorType]) -> Result<Geometry> {
        let w = &inputs[self.upstream.operand()];
        let [images, ..] = inputs[0].shape.nchw(self.name())?;
        let [_, c, ..] = w.shape.nchw(self.name())?;
        let x = TensorType::f32([images, c * self.groups, self.image[0], self.image[1]]);
        Geometry::new(self.name(), self.window, self.groups, &x, w)
    }
}

impl Op for Conv2dInputGrad {
    fn name(&self) -> &'static str {
        "conv2d_input_grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, self.upstream.operand() + 1)?;
        let geometry = self.geometry(inputs)?;
        expect_type(self, "dy", &geometry.y(), &self.upstream.ty(inputs)?)?;
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
        let types: Vec<_> = io.inputs.iter().map(|a| a.ty().clone()).collect();
        let geometry = self.geometry(&types).expect("inferred before");
        let dy = self.upstream.reference(&io);
        let (dy, w) = (dy.f(), io.inputs[self.upstream.operand()].f());
        let dx = io.outputs[0].f_mut();
        geometry.for_each_product(|xi, wi, yi| dx[xi] += dy[yi] * w[wi]);
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        launch::input_grad(self, &self.geometry(context.inputs)?, &context)
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        self.geometry(inputs).map_or(0, |g| 2 * g.multiply_adds())
    }

    fn fuse_prologue(&self, previous: &dyn Op) -> Option<Box<dyn Op>> {
        let upstream = self.upstream.behind(previous)?;
        Some(Box::new(Self { upstream, ..*self }))
    }

    fn looks_through(&self, context: &LaunchContext<'_>) -> bool {
        let geometry = self.geometry(context.inputs);
        geometry.is_ok_and(|g| launch::input_grad_through(self, &g, context).is_some())
    }
}

/// dL/dw of a convolution and, where `bias`, dL/dbias: inputs `dy` [N, groups·O, oH, oW], or what
/// stands for it ([`Upstream`]), and `x` [N, groups·C, H, W]; outputs [groups·O, C, kH, kW] and
/// [groups·O].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2dWeightGrad {
    /// The convolution's window.
    pub window: Window,
    /// The convolution's groups.
    pub groups: usize,
    /// Whether the bias's gradient is a second output.
    pub bias: bool,
    /// What stands for `dy`.
    pub upstream: Upstream,
}

impl Conv2dWeightGrad {
    /// The weight gradient alone.
    pub fn new(window: Window, groups: usize) -> Self {
        Self {
            window,
            groups,
            bias: false,
            upstream: Upstream::default(),
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
            upstream: Upstream::default(),
            ..self
        }
    }

    fn geometry(&self, inputs: &[TensorType]) -> Result<Geometry> {
        let x = &inputs[self.upstream.operand()];
        let [_, filters, ..] = self.upstream.ty(inputs)?.shape.nchw(self.name())?;
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
        expect_inputs(self, inputs, self.upstream.operand() + 1)?;
        let geometry = self.geometry(inputs)?;
        expect_type(self, "dy", &geometry.y(), &self.upstream.ty(inputs)?)?;
        let bias = self.bias.then(|| geometry.bias());
        Ok([geometry.w()].into_iter().chain(bias).collect())
    }

    fn reference(&self, io: Reference<'_>) {
        let types: Vec<_> = io.inputs.iter().map(|a| a.ty().clone()).collect();
        let geometry = self.geometry(&types).expect("inferred before");
        let dy = self.upstream.reference(&io);
        let x = io.inputs[self.upstream.operand()].f();
        let (dw, db) = io.outputs.split_at_mut(1);
        let dw = dw[0].f_mut();
        geometry.for_each_product(|xi, wi, yi| dw[wi] += dy.f()[yi] * x[xi]);
        if self.bias {
            BiasGrad.reference(Reference {
                inputs: &[&dy],
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
        let upstream = self.upstream.behind(previous)?;
        Some(Box::new(Self { upstream, ..*self }))
    }

    fn looks_through(&self, context: &LaunchContext<'_>) -> bool {
        let geometry = self.geometry(context.inputs);
        geometry.is_ok_and(|g| launch::weight_grad_through(self, &g, context).is_some())
    }
}

pub(super) fn sample_input_grad(draw: &mut Draw) -> Sample {
    let geometry = draw_geometry(draw);
    let mut op = Conv2dInputGrad::new(geometry.window, geometry.groups, geometry.image);
    let terms = geometry.o * geometry.window.kernel.iter().product::<usize>();
    let (mut inputs, tolerance) = draw_upstream(draw, &geometry, &mut op.upstream, terms);
    inputs.push((geometry.w(), Fill::UNIT));
    let planned = Plan::input_grad(&geometry).geometry;
    let tolerance = winograd::tolerance(&planned, [1, 1], tolerance);
    let sample = Sample::new(op, inputs, tolerance);
    match winograd::may_pay(&planned, [1, 1]) || op.upstream.pool.is_some() {
        true => sample.without_gradient(),
        false => sample,
    }
}

/// What stands for `dy`, for a gradient that sums so many terms of it.
fn draw_upstream(
    draw: &mut Draw,
    geometry: &Geometry,
    upstream: &mut Upstream,
    terms: usize,
) -> (Vec<(TensorType, Fill)>, Tolerance) {
    if draw.coin() {
        let dy = (geometry.y(), Fill::UNIT);
        return (vec![dy], Tolerance::sum(terms, 1.0));
    }
    let window = draw_pool(draw, geometry.output);
    let planes = [geometry.images, geometry.groups * geometry.o];
    let (pool, inputs) = MaxPool2dGrad::draw(draw, window, planes, geometry.output);
    upstream.pool = Some(pool);
    // As many terms an element as windows cover it, each with a slope.
    let terms = terms * window.kernel.iter().product::<usize>();
    let mut tolerance = Tolerance::sum(terms, 1.5).and_transcendental();
    tolerance.absolute += Tolerance::transcendental().absolute * terms as f64;
    (inputs, tolerance)
}

pub(super) fn sample_weight_grad(draw: &mut Draw) -> Sample {
    let geometry = draw_geometry(draw);
    let mut op = Conv2dWeightGrad::new(geometry.window, geometry.groups).with_bias(draw.coin());
    let terms = geometry.images * geometry.pixels();
    let (mut inputs, tolerance) = draw_upstream(draw, &geometry, &mut op.upstream, terms);
    inputs.push((geometry.x(), Fill::UNIT));
    let tolerance = winograd::tolerance(&geometry, [1, 1], tolerance);
    Sample::new(op, inputs, tolerance).without_gradient()
}
