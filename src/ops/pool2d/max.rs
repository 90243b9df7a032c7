//! Max pooling.

use super::{Geometry, by_fours};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Kernel, Launch, ShaderFile};
use crate::ops::activation::{Activation, ActivationGrad, FUNCTIONS, Function};
use crate::ops::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Settled, Tolerance,
    Value, Window, expect_inputs, expect_type,
};
use crate::shader;
use crate::tensor::TensorType;

const FORWARD: ShaderFile = shader!("pool2d/max_forward.wgsl");
const FORWARD_2X2: ShaderFile = shader!("pool2d/max_forward_2x2.wgsl");
/// Where maxima and their winners are put.
pub(in crate::ops) const PUT: ShaderFile = shader!("pool2d/put.wgsl");
const BACKWARD: ShaderFile = shader!("pool2d/max_backward.wgsl");
const BACKWARD_TILES: ShaderFile = shader!("pool2d/max_backward_tiles.wgsl");

pub(super) const ENTRY: Entry = Entry {
    name: "max_pool2d",
    sample,
};

pub(super) const GRAD_ENTRY: Entry = Entry {
    name: "max_pool2d_grad",
    sample: sample_grad,
};

/// What `argmax` holds for a window without a winner.
pub const NO_WINNER: u32 = u32::MAX;

/// The largest element of each window, and an activation of it.
///
/// `x` [N, C, H, W] gives `y` [N, C, Ho, Wo] and `argmax` (u32, the same shape): the
/// offset `h * W + w` of the winner in its plane. Of equals the first in row-major
/// order wins; padding never does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaxPool2d {
    /// The window.
    pub window: Window,
    /// Applied to the largest element; it never decreases.
    pub activation: Function,
    /// A window whose result the activation, a ReLU, stops has [no winner](NO_WINNER): all that
    /// a gradient needs to know of the result.
    pub settled: bool,
}

impl MaxPool2d {
    /// A pool without an activation.
    pub fn new(window: Window) -> Self {
        Self {
            window,
            activation: Function::Identity,
            settled: false,
        }
    }

    /// A pool of such windows with a random activation.
    pub(crate) fn draw(draw: &mut Draw, window: Window) -> Self {
        let activation = match draw.int(0, 2) {
            0 => Function::Identity,
            1 => Function::Relu,
            _ => Function::draw(draw),
        };
        let fits = activation.is_monotone();
        Self {
            window,
            activation: if fits { activation } else { Function::Identity },
            settled: activation == Function::Relu && draw.coin(),
        }
    }

    /// Rows and columns of a window, where windows lie edge to edge in an image of
    /// `[rows, columns]`.
    pub(crate) fn tile(&self, image: [usize; 2]) -> Option<[usize; 2]> {
        tile(self.window, image)
    }
}

fn tile(window: Window, image: [usize; 2]) -> Option<[usize; 2]> {
    let windows = window.output("max_pool2d", image).ok()?;
    let geometry = Geometry {
        window,
        planes: 1,
        image,
        windows,
    };
    geometry.is_tiling().then_some(window.kernel)
}

impl Op for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        let [n, c, ..] = inputs[0].shape.nchw(self.name())?;
        let geometry = Geometry::over(self, self.window, &inputs[0])?;
        geometry.expect_taps(self)?;
        let shape = [n, c, geometry.windows[0], geometry.windows[1]];
        Ok(vec![TensorType::f32(shape), TensorType::u32(shape)])
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
        if self.activation != Function::Identity {
            return Err(Error::shape(
                self.name(),
                "differentiate before fusing: a fused pool has no gradient rule",
            ));
        }
        let [_, _, h, w] = builder.ty(node.inputs[0]).shape.nchw(self.name())?;
        let grad = MaxPool2dGrad::new(self.window, [h, w]);
        let dx = builder.add1(Box::new(grad), &[dy, node.outputs[1]])?;
        Ok(vec![Some(dx)])
    }

    fn commutes_with(&self, previous: &dyn Op) -> bool {
        let activation = previous.downcast::<Activation>();
        activation.is_some_and(|a| a.0.is_monotone())
    }

    fn reference(&self, io: Reference<'_>) {
        let x = io.inputs[0];
        let geometry = Geometry::over(self, self.window, x.ty()).expect("inferred");
        let (y, argmax) = io.outputs.split_at_mut(1);
        let (y, argmax) = (y[0].f_mut(), argmax[0].u_mut());
        y.fill(f64::NEG_INFINITY);
        argmax.fill(NO_WINNER);
        geometry.for_each_tap(|plane, window, pixel| {
            let o = plane * geometry.window_area() + window;
            let value = x.f()[plane * geometry.image_area() + pixel];
            if argmax[o] == NO_WINNER || value > y[o] {
                y[o] = value;
                argmax[o] = pixel as u32;
            }
        });
        for (y, winner) in y.iter_mut().zip(argmax) {
            *y = self.activation.value(*y);
            if self.settled && self.activation.slope(*y) == 0.0 {
                *winner = NO_WINNER;
            }
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let geometry = Geometry::over(self, self.window, &context.inputs[0])?;
        let outputs = context.outputs[0].shape.len();
        let pairs = geometry.is_tiling()
            && self.window.kernel == [2, 2]
            && geometry.image[1].is_multiple_of(2);
        let kernel = if pairs {
            geometry.set_extents(Kernel::new(FORWARD_2X2))
        } else {
            let kernel = geometry.set_extents(Kernel::new(FORWARD));
            geometry.set_taps(geometry.set_strides(kernel))
        };
        let bindings = vec![
            ("x", Arg::Input(0)),
            ("y", Arg::Output(0)),
            ("argmax", Arg::Output(1)),
        ];
        let kernel = kernel
            .hook("activate", FUNCTIONS, self.activation.shader_name())
            .hook("put_quad", PUT, "put_pooled")
            .alias("Values", "vec4<f32>")
            .alias("Winners", "vec4<u32>")
            .set("ALPHA", self.activation.alpha())
            .set("SETTLED", self.settled)
            .set("OUTPUTS", outputs);
        Ok(by_fours(kernel, bindings, outputs))
    }

    fn fuse_epilogue(&self, next: &dyn Op) -> Option<Box<dyn Op>> {
        let Activation(function) = next.downcast()?;
        let fits = self.activation == Function::Identity && function.is_monotone();
        fits.then(|| {
            Box::new(Self {
                activation: *function,
                ..*self
            }) as Box<dyn Op>
        })
    }

    fn settle(&self, reader: &dyn Op) -> Option<Settled> {
        let grad = reader.downcast::<MaxPool2dGrad>()?;
        let fits = self.activation == Function::Relu && grad.activation == Some(Function::Relu);
        fits.then(|| Settled {
            op: Box::new(Self {
                settled: true,
                ..*self
            }),
            reader: Box::new(MaxPool2dGrad {
                activation: None,
                ..*grad
            }),
            dropped: MaxPool2dGrad::SAVED,
        })
    }
}

/// The gradient of [`MaxPool2d`]: each element of `dx` [N, C, H, W] sums the `dy`
/// [N, C, Ho, Wo] of the windows whose `argmax` it is; those of [`NO_WINNER`] go nowhere.
///
/// Inputs are `dy` and `argmax`; with an activation behind the pool, whose gradient is
/// then taken on the way, `dy`, the activation's saved tensor and `argmax`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaxPool2dGrad {
    /// The window.
    pub window: Window,
    /// Rows and columns of the image.
    pub image: [usize; 2],
    /// The activation behind the pool, if its gradient is fused in.
    pub activation: Option<Function>,
}

impl MaxPool2dGrad {
    /// The input that the activation's saved tensor is, if there is an activation.
    const SAVED: usize = 1;

    /// The gradient of a pool over images of `[rows, columns]` without an activation.
    pub fn new(window: Window, image: [usize; 2]) -> Self {
        Self {
            window,
            image,
            activation: None,
        }
    }

    /// Rows and columns of a window, where windows lie edge to edge.
    pub(crate) fn tile(&self) -> Option<[usize; 2]> {
        tile(self.window, self.image)
    }

    /// Inputs of the op.
    pub(crate) fn input_count(&self) -> usize {
        2 + usize::from(self.activation.is_some())
    }

    /// A random gradient of a pool over `planes` [N, C] images, and its inputs.
    pub(crate) fn draw(
        draw: &mut Draw,
        window: Window,
        planes: [usize; 2],
        image: [usize; 2],
    ) -> (Self, Vec<(TensorType, Fill)>) {
        let windows = window.output("sample", image).expect("a legal window");
        let geometry = Geometry {
            window,
            planes: planes.iter().product(),
            image,
            windows,
        };
        let mut op = Self::new(window, image);
        let mut seen = vec![0; geometry.planes * geometry.window_area()];
        let mut argmax = vec![0; seen.len()];
        // Any tap may be the winner: the n-th seen replaces those before it one time in n.
        geometry.for_each_tap(|plane, window, pixel| {
            let o = plane * geometry.window_area() + window;
            seen[o] += 1;
            if draw.int(1, seen[o]) == 1 {
                argmax[o] = pixel as u32;
            }
        });
        if draw.coin() {
            for winner in &mut argmax {
                *winner = draw.pick(&[*winner, *winner, NO_WINNER]);
            }
        }
        let shape = [planes[0], planes[1], windows[0], windows[1]];
        let dy = TensorType::f32(shape);
        let mut inputs = vec![
            (dy.clone(), Fill::UNIT),
            (TensorType::u32(shape), Fill::Indices(argmax)),
        ];
        if draw.coin() {
            op.activation = Some(Function::draw(draw));
            inputs.insert(Self::SAVED, (dy, Fill::Distinct));
        }
        (op, inputs)
    }

    fn geometry(&self, dy: &TensorType) -> Result<Geometry> {
        Geometry::giving(self, self.window, self.image, dy)
    }
}

impl Op for MaxPool2dGrad {
    fn name(&self) -> &'static str {
        "max_pool2d_grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, self.input_count())?;
        self.geometry(&inputs[0])?;
        let [n, c, ho, wo] = inputs[0].shape.nchw(self.name())?;
        if self.activation.is_some() {
            expect_type(self, "saved", &inputs[0], &inputs[Self::SAVED])?;
        }
        let argmax = TensorType::u32([n, c, ho, wo]);
        expect_type(self, "argmax", &argmax, &inputs[inputs.len() - 1])?;
        Ok(vec![TensorType::f32([n, c, self.image[0], self.image[1]])])
    }

    fn reference(&self, io: Reference<'_>) {
        let dy = io.inputs[0];
        let argmax = io.inputs[io.inputs.len() - 1].u();
        let geometry = self.geometry(dy.ty()).expect("inferred");
        let dx = io.outputs[0].f_mut();
        let winners = argmax.iter().enumerate().filter(|(_, w)| **w != NO_WINNER);
        for (o, pixel) in winners {
            let plane = o / geometry.window_area();
            let slope = self
                .activation
                .map_or(1.0, |f| f.slope(io.inputs[Self::SAVED].f()[o]));
            dx[plane * geometry.image_area() + *pixel as usize] += dy.f()[o] * slope;
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let geometry = self.geometry(&context.inputs[0])?;
        let windows = context.inputs[0].shape.len();
        let elements = context.outputs[0].shape.len();
        let (mut kernel, invocations) = if geometry.is_tiling() {
            let kernel = geometry.set_extents(Kernel::new(BACKWARD_TILES));
            let kernel = kernel
                .set("WINDOWS", windows)
                .set("KERNEL_H", self.window.kernel[0])
                .set("KERNEL_W", self.window.kernel[1]);
            (kernel, windows)
        } else {
            let kernel = geometry.set_strides(geometry.set_extents(Kernel::new(BACKWARD)));
            let kernel = geometry.set_cover(kernel).set("ELEMENTS", elements);
            (kernel, elements)
        };
        // Without an activation the slope is 1 whatever `saved` holds.
        let saved = Arg::Input(match self.activation {
            Some(_) => Self::SAVED,
            None => 0,
        });
        if let Some(function) = self.activation {
            kernel = kernel
                .hook("slope", FUNCTIONS, function.shader_slope_name())
                .set("ALPHA", function.alpha());
        }
        let bindings = vec![
            ("dy", Arg::Input(0)),
            ("saved", saved),
            ("argmax", Arg::Input(context.inputs.len() - 1)),
            ("dx", Arg::Output(0)),
        ];
        Ok(by_fours(kernel, bindings, invocations))
    }

    fn fuse_prologue(&self, previous: &dyn Op) -> Option<Box<dyn Op>> {
        let ActivationGrad(function) = previous.downcast()?;
        self.activation.is_none().then(|| {
            Box::new(Self {
                activation: Some(*function),
                ..*self
            }) as Box<dyn Op>
        })
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let geometry = Geometry::draw(draw);
    let op = MaxPool2d::draw(draw, geometry.window);
    let tolerance = match op.activation {
        Function::Identity | Function::Relu => Tolerance::EXACT,
        _ => Tolerance::transcendental(),
    };
    if draw.int(0, 3) == 0 {
        // Ties have no gradient, but a winner.
        let inputs = vec![(geometry.x(), Fill::Levels(3))];
        return Sample::new(op, inputs, tolerance).without_gradient();
    }
    let sample = Sample::new(op, vec![(geometry.x(), Fill::Distinct)], tolerance);
    match op.activation {
        Function::Identity => sample,
        _ => sample.without_gradient(),
    }
}

fn sample_grad(draw: &mut Draw) -> Sample {
    let geometry = Geometry::draw(draw);
    let planes = [1, geometry.planes];
    let (op, inputs) = MaxPool2dGrad::draw(draw, geometry.window, planes, geometry.image);
    // As many sums as windows cover an element, each term with a slope.
    let terms = geometry.cover(0) * geometry.cover(1);
    let mut tolerance = Tolerance::sum(terms, 1.5);
    tolerance.absolute += Tolerance::transcendental().absolute * terms as f64;
    Sample::new(op, inputs, tolerance).without_gradient()
}
