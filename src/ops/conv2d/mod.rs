//! 2-D convolution (cross-correlation, as everywhere in deep learning) and its gradients.

mod correlate;
mod depthwise;
mod gradient;
mod launch;
mod patch;
mod plan;
mod pointwise;
mod tile;
mod winograd;

pub use gradient::{Conv2dInputGrad, Conv2dWeightGrad, Upstream};

use super::activation::{Activation, Function};
use super::bias::BiasAdd;
use super::pool2d::MaxPool2d;
use super::{
    Array, Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Pads, Reference, Sample,
    Settled, Tolerance, Value, Window, expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Kernel, Launch};
use crate::tensor::TensorType;

/// The ops of this folder.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "conv2d",
        sample,
    },
    Entry {
        name: "conv2d_input_grad",
        sample: gradient::sample_input_grad,
    },
    Entry {
        name: "conv2d_weight_grad",
        sample: gradient::sample_weight_grad,
    },
];

/// `y = f(pool(w * x + bias))`: inputs `x` [N, groups·C, H, W], `w` [groups·O, C, kH, kW]
/// and, where `bias`, `bias` [groups·O]; output [N, groups·O, oH, oW], where `pool` the two
/// of [`MaxPool2d`] over it.
///
/// `groups` cuts the channels into independent convolutions; as many groups as input
/// channels is a depthwise convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2d {
    /// Kernel, stride, dilation and padding. `ceil` does not apply.
    pub window: Window,
    /// Independent groups of channels.
    pub groups: usize,
    /// There is a third input, added to each output channel.
    pub bias: bool,
    /// The window of a max pool over the result, if one is fused in.
    pub pool: Option<Window>,
    /// Applied to the result, behind the pool; with one, it never decreases.
    pub activation: Function,
    /// With a pool, that this is [settled](MaxPool2d::settled).
    pub settled: bool,
}

/// All extents of a convolution; channels are those of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Geometry {
    pub window: Window,
    pub groups: usize,
    pub images: usize,
    pub c: usize,
    pub o: usize,
    pub image: [usize; 2],
    pub output: [usize; 2],
}

impl Geometry {
    /// From the types of `x` and `w`, both checked.
    pub fn new(
        place: &str,
        window: Window,
        groups: usize,
        x: &TensorType,
        w: &TensorType,
    ) -> Result<Self> {
        let [images, channels, h, width] = x.shape.nchw(place)?;
        let [filters, c, kh, kw] = w.shape.nchw(place)?;
        let fail = |problem: String| Err(Error::shape(place, problem));
        if groups == 0 || filters % groups != 0 {
            return fail(format!(
                "{filters} filters do not divide into {groups} groups"
            ));
        }
        if channels != c * groups {
            return fail(format!(
                "expected {} input channels ({groups} groups of {c} as in filters {w}), found {channels} in {x}",
                c * groups
            ));
        }
        if [kh, kw] != window.kernel {
            return fail(format!(
                "expected a kernel of {:?}, found filters {w}",
                window.kernel
            ));
        }
        Ok(Self {
            window,
            groups,
            images,
            c,
            o: filters / groups,
            image: [h, width],
            output: window.output(place, [h, width])?,
        })
    }

    fn x(&self) -> TensorType {
        let [h, w] = self.image;
        TensorType::f32([self.images, self.groups * self.c, h, w])
    }

    fn w(&self) -> TensorType {
        let [kh, kw] = self.window.kernel;
        TensorType::f32([self.groups * self.o, self.c, kh, kw])
    }

    fn y(&self) -> TensorType {
        let [h, w] = self.output;
        TensorType::f32([self.images, self.groups * self.o, h, w])
    }

    fn bias(&self) -> TensorType {
        TensorType::f32([self.groups * self.o])
    }

    /// Sets the extents that every convolution shader has.
    fn specialise(&self, kernel: Kernel) -> Kernel {
        let [kh, kw] = self.window.kernel;
        kernel
            .set("IMAGES", self.images)
            .set("GROUPS", self.groups)
            .set("IN", self.c)
            .set("H", self.image[0])
            .set("W", self.image[1])
            .set("O", self.o)
            .set("OH", self.output[0])
            .set("OW", self.output[1])
            .set("KH", kh)
            .set("KW", kw)
            .set("STRIDE_Y", self.window.stride[0])
            .set("STRIDE_X", self.window.stride[1])
            .set("DILATION_Y", self.window.dilation[0])
            .set("DILATION_X", self.window.dilation[1])
            .set("PAD_TOP", self.window.pads.top)
            .set("PAD_LEFT", self.window.pads.left)
    }

    /// This convolution without the outputs that no window of `pool` rows and columns
    /// reaches, where such windows lie edge to edge.
    fn covered(&self, pool: [usize; 2]) -> Self {
        Self {
            output: [0, 1].map(|axis| self.output[axis] / pool[axis] * pool[axis]),
            ..*self
        }
    }

    /// Outputs of a filter in an image.
    fn pixels(&self) -> usize {
        self.output.iter().product()
    }

    /// Multiply-adds of the forward pass, padding counted.
    fn multiply_adds(&self) -> u64 {
        let taps: usize = self.window.kernel.iter().product();
        (self.y().shape.len() * self.c * taps) as u64
    }

    /// Calls `visit(x, w, y)` with the flat offsets of every product of the convolution:
    /// the definition all three references share.
    fn for_each_product(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let ([h, w], [oh, ow], [kh, kw]) = (self.image, self.output, self.window.kernel);
        for i in 0..self.images {
            for filter in 0..self.groups * self.o {
                let group = filter / self.o;
                for c in 0..self.c {
                    let plane = (i * self.groups * self.c + group * self.c + c) * h * w;
                    for (oy, ky) in pairs(oh, kh) {
                        let Some(iy) = self.window.tap(0, oy, ky, h) else {
                            continue;
                        };
                        for (ox, kx) in pairs(ow, kw) {
                            let Some(ix) = self.window.tap(1, ox, kx, w) else {
                                continue;
                            };
                            let y = ((i * self.groups * self.o + filter) * oh + oy) * ow + ox;
                            let tap = ((filter * self.c + c) * kh + ky) * kw + kx;
                            visit(plane + iy * w + ix, tap, y);
                        }
                    }
                }
            }
        }
    }
}

fn pairs(a: usize, b: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..a).flat_map(move |i| (0..b).map(move |j| (i, j)))
}

impl Conv2d {
    /// A convolution without bias and activation.
    pub fn new(window: Window, groups: usize) -> Self {
        Self {
            window,
            groups,
            bias: false,
            pool: None,
            activation: Function::Identity,
            settled: false,
        }
    }

    /// The same convolution with a bias as its third input.
    #[must_use]
    pub fn with_bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    fn geometry(&self, inputs: &[TensorType]) -> Result<Geometry> {
        Geometry::new(
            self.name(),
            self.window,
            self.groups,
            &inputs[0],
            &inputs[1],
        )
    }

    /// Whether nothing but a bias is fused in.
    fn is_linear(&self) -> bool {
        self.pool.is_none() && self.activation == Function::Identity
    }

    /// What is done with the sums, if that is a pool.
    fn pool(&self) -> Option<MaxPool2d> {
        self.pool.map(|window| MaxPool2d {
            window,
            activation: self.activation,
            settled: self.settled,
        })
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2 + usize::from(self.bias))?;
        let geometry = self.geometry(inputs)?;
        if self.bias {
            expect_type(self, "bias", &geometry.bias(), &inputs[2])?;
        }
        match self.pool() {
            Some(pool) => pool.infer(&[geometry.y()]),
            None => Ok(vec![geometry.y()]),
        }
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let Some(dy) = upstream[0] else {
            return Ok(vec![None; node.inputs.len()]);
        };
        if !self.is_linear() {
            return Err(Error::shape(
                self.name(),
                "differentiate before fusing: a fused convolution has no gradient rule",
            ));
        }
        let (x, w) = (node.inputs[0], node.inputs[1]);
        let [_, _, h, width] = builder.ty(x).shape.nchw(self.name())?;
        let dx = node.wanted[0].then(|| {
            let op = Conv2dInputGrad::new(self.window, self.groups, [h, width]);
            builder.add1(Box::new(op), &[dy, w])
        });
        let dx = dx.transpose()?;
        let mut gradients = vec![dx, None];
        if node.wanted[1..].contains(&true) {
            let op = Conv2dWeightGrad::new(self.window, self.groups).with_bias(self.bias);
            let dw = builder.add(Box::new(op), &[dy, x])?;
            gradients.splice(1.., dw.into_iter().map(Some));
        }
        Ok(gradients)
    }

    fn reference(&self, io: Reference<'_>) {
        let types = [io.inputs[0].ty().clone(), io.inputs[1].ty().clone()];
        let geometry = self.geometry(&types).expect("inferred before");
        let (x, w) = (io.inputs[0].f(), io.inputs[1].f());
        let mut y = vec![0.0; geometry.y().shape.len()];
        geometry.for_each_product(|xi, wi, yi| y[yi] += x[xi] * w[wi]);
        if self.bias {
            let bias = io.inputs[2].f();
            for (i, y) in y.iter_mut().enumerate() {
                *y += bias[i / geometry.pixels() % bias.len()];
            }
        }
        match self.pool() {
            Some(pool) => pool.reference(Reference {
                inputs: &[&Array::float(geometry.y(), y)],
                outputs: &mut *io.outputs,
                updates: &mut [],
                step: io.step,
            }),
            None => {
                for (result, sum) in io.outputs[0].f_mut().iter_mut().zip(y) {
                    *result = self.activation.value(sum);
                }
            }
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let geometry = self.geometry(context.inputs)?;
        launch::forward(self, &geometry, &context)
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        self.geometry(inputs).map_or(0, |g| 2 * g.multiply_adds())
    }

    fn fuse_epilogue(&self, next: &dyn Op) -> Option<Box<dyn Op>> {
        if next.downcast::<BiasAdd>().is_some() && self.is_linear() && !self.bias {
            return Some(Box::new(self.with_bias(true)));
        }
        if let Some(pool) = next.downcast::<MaxPool2d>()
            && self.is_linear()
        {
            return Some(Box::new(Self {
                pool: Some(pool.window),
                activation: pool.activation,
                settled: pool.settled,
                ..*self
            }));
        }
        match next.downcast::<Activation>() {
            Some(Activation(function))
                if self.activation == Function::Identity
                    && (self.pool.is_none() || function.is_monotone()) =>
            {
                Some(Box::new(Self {
                    activation: *function,
                    ..*self
                }))
            }
            _ => None,
        }
    }

    fn settle(&self, reader: &dyn Op) -> Option<Settled> {
        let settled = self.pool()?.settle(reader)?;
        let op = Box::new(Self {
            settled: true,
            ..*self
        });
        Some(Settled { op, ..settled })
    }
}

/// A random convolution: ordinary, grouped, depthwise or of single pixels, one of so many
/// channels that Winograd's pays, or one of few over large images.
pub(super) fn draw_geometry(draw: &mut Draw) -> Geometry {
    match draw.int(0, 8) {
        0 => return draw_wide(draw),
        1 | 2 => return draw_depthwise(draw),
        3 => return draw_pointwise(draw),
        4 => return draw_first(draw),
        _ => {}
    }
    let (window, image) = Window::draw(draw);
    let groups = draw.pick(&[1, 1, 1, 2, 3]);
    let [c, o] = match draw.int(0, 3) {
        0 => [1, 1],
        1 => [draw.int(1, 20), draw.int(20, 40)],
        _ => [draw.int(1, 6), draw.int(1, 20)],
    };
    let x = TensorType::f32([draw.int(1, 5), groups * c, image[0], image[1]]);
    let w = TensorType::f32([groups * o, c, window.kernel[0], window.kernel[1]]);
    Geometry::new("sample", window, groups, &x, &w).expect("drawn to fit")
}

/// Small or wide images, so that strips and steps are whole ones or cut.
fn draw_depthwise(draw: &mut Draw) -> Geometry {
    let (mut window, mut image) = Window::draw(draw);
    if draw.coin() {
        let side = draw.pick(&[3, 5, 7]);
        window = Window::new([side; 2]);
        window.stride = [draw.int(1, 2); 2];
        window.pads = Pads::uniform(side / 2);
        image = [draw.int(4, 12), draw.pick(&[4, 8, 16, 36])];
    }
    let [groups, o] = [draw.int(2, 20), draw.pick(&[1, 1, 2])];
    let x = TensorType::f32([draw.pick(&[1, 2, 6]), groups, image[0], image[1]]);
    let w = TensorType::f32([groups * o, 1, window.kernel[0], window.kernel[1]]);
    Geometry::new("sample", window, groups, &x, &w).expect("drawn to fit")
}

fn draw_pointwise(draw: &mut Draw) -> Geometry {
    let image = [draw.int(1, 12), draw.pick(&[4, 8, 9])];
    let [c, o] = [draw.int(1, 40), draw.int(1, 40)];
    let x = TensorType::f32([draw.int(1, 6), c, image[0], image[1]]);
    let w = TensorType::f32([o, c, 1, 1]);
    Geometry::new("sample", Window::new([1, 1]), 1, &x, &w).expect("drawn to fit")
}

/// As a network's first: so many patches that a workgroup takes several.
fn draw_first(draw: &mut Draw) -> Geometry {
    let side = draw.pick(&[1, 3, 5]);
    let mut window = Window::new([side; 2]);
    window.stride = [draw.int(1, 2); 2];
    window.pads = Pads::uniform(draw.int(0, side / 2));
    let [c, o] = [draw.int(1, 3), draw.int(1, 20)];
    let x = TensorType::f32([8, c, draw.int(24, 40), draw.int(24, 40)]);
    let w = TensorType::f32([o, c, side, side]);
    Geometry::new("sample", window, 1, &x, &w).expect("drawn to fit")
}

fn draw_wide(draw: &mut Draw) -> Geometry {
    let mut window = Window::new([3, 3]);
    let mut pad = || draw.int(0, 2);
    window.pads = Pads {
        top: pad(),
        bottom: pad(),
        left: pad(),
        right: pad(),
    };
    let [c, o] = [draw.int(120, 136), draw.int(120, 136)];
    let image = [draw.int(16, 24), draw.int(16, 24)];
    // So many images can be cut into shares.
    let x = TensorType::f32([4, c, image[0], image[1]]);
    let w = TensorType::f32([o, c, 3, 3]);
    Geometry::new("sample", window, 1, &x, &w).expect("drawn to fit")
}

/// A random pool that fits an image: windows edge to edge, or any.
pub(super) fn draw_pool(draw: &mut Draw, image: [usize; 2]) -> Window {
    let kernel = image.map(|extent| draw.int(1, extent.min(3)));
    let mut window = Window::new(kernel);
    window.stride = match draw.coin() {
        true => kernel,
        false => [draw.int(1, 2), draw.int(1, 2)],
    };
    window
}

fn sample(draw: &mut Draw) -> Sample {
    let geometry = draw_geometry(draw);
    let mut op = Conv2d::new(geometry.window, geometry.groups).with_bias(draw.coin());
    let linear = draw.coin();
    if !linear {
        op.activation = Function::draw(draw);
        if draw.coin() {
            let window = draw_pool(draw, geometry.output);
            let pool = MaxPool2d::draw(draw, window);
            op.pool = Some(window);
            op.activation = pool.activation;
            op.settled = pool.settled;
        }
    }
    let pool = op.pool.map_or([1, 1], |window| window.kernel);
    let is_wide = winograd::may_pay(&geometry, pool);
    // Sums of few small integers are exact, so that the winners of a pool are the same.
    let fill = match op.pool {
        Some(_) if !is_wide => Fill::Levels(3),
        _ => Fill::UNIT,
    };
    let mut inputs = vec![(geometry.x(), fill.clone()), (geometry.w(), fill.clone())];
    if op.bias {
        inputs.push((geometry.bias(), fill));
    }
    let terms = geometry.c * geometry.window.kernel.iter().product::<usize>();
    let tolerance = winograd::tolerance(&geometry, pool, Tolerance::sum(terms, 1.0));
    let sample = Sample::new(op, inputs, tolerance.and_transcendental());
    let sample = match op.pool {
        Some(_) if is_wide => sample.choosing(Conv2d::new(op.window, 1).with_bias(op.bias)),
        _ => sample,
    };
    // Finite differences of a wide one take their time, and narrow ones have the same rule.
    if linear && !is_wide {
        sample
    } else {
        sample.without_gradient()
    }
}
