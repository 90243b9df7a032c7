//! Convolution of packed signed bytes.

use super::word;
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::ops::activation::{Activation, FUNCTIONS, Function};
use crate::ops::bias::BiasAdd;
use crate::ops::{
    Array, Draw, Fill, LaunchContext, Op, Pads, Reference, Sample, Tolerance, Window,
    expect_inputs, expect_type,
};
use crate::shader;
use crate::tensor::{DType, TensorType};

const CONV2D: ShaderFile = shader!("int8/conv2d.wgsl");
const WORKGROUP: usize = 64;
/// Pixels of a row that an invocation computes.
const PIXELS: usize = 4;

/// `y = f(scale · (w * x) + bias)` in integers up to the scale: inputs `x` u32
/// [N, ⌈C/4⌉, H, W] as [`QuantizeInt8`](super::QuantizeInt8) gives it, `w` u32
/// [⌈O/4⌉, ⌈C/4⌉, kH, kW, 4] as [`pack_filters`] gives it, `scale` f32 `[O]` and, where `bias`,
/// `bias` f32 `[O]`; output f32 [N, O, oH, oW].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2dInt8 {
    /// Kernel, stride, dilation and padding. `ceil` does not apply.
    pub window: Window,
    /// O.
    pub filters: usize,
    /// There is a fourth input, added to each filter's outputs.
    pub bias: bool,
    /// The output is [N, O], of one pixel: a dense layer.
    pub flat: bool,
    /// Applied to the result.
    pub activation: Function,
}

/// Filters [O, C, kH, kW], or [O, C], as the words that [`Conv2dInt8`] reads: four channels of
/// a tap to a word, then four filters beside each other.
///
/// # Panics
/// If there are not as many bytes as the shape says.
pub fn pack_filters(bytes: &[i8], shape: &[usize]) -> Array {
    let (filters, channels) = (shape[0], shape[1]);
    let (kh, kw) = match shape {
        [_, _, kh, kw] => (*kh, *kw),
        _ => (1, 1),
    };
    let taps = kh * kw;
    assert_eq!(bytes.len(), filters * channels * taps, "bytes of {shape:?}");
    let byte = |o: usize, c: usize, tap: usize| match o < filters && c < channels {
        true => bytes[(o * channels + c) * taps + tap],
        false => 0,
    };
    let (quads, words) = (filters.div_ceil(4), channels.div_ceil(4));
    let mut data = Vec::with_capacity(quads * words * taps * 4);
    for quad in 0..quads {
        for c in 0..words {
            for tap in 0..taps {
                for o in 4 * quad..4 * quad + 4 {
                    data.push(word([0, 1, 2, 3].map(|k| byte(o, 4 * c + k, tap))));
                }
            }
        }
    }
    Array::index(TensorType::u32([quads, words, kh, kw, 4]), data)
}

impl Conv2dInt8 {
    /// The type of the packed filters for `words` words a pixel.
    fn filters_type(&self, words: usize) -> TensorType {
        let [kh, kw] = self.window.kernel;
        TensorType::u32([self.filters.div_ceil(4), words, kh, kw, 4])
    }
}

impl Op for Conv2dInt8 {
    fn name(&self) -> &'static str {
        "conv2d_int8"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 3 + usize::from(self.bias))?;
        let [n, words, h, w] = inputs[0].shape.nchw(self.name())?;
        if inputs[0].dtype != DType::U32 {
            let problem = format!("x: expected packed bytes u32, found {}", inputs[0]);
            return Err(Error::shape(self.name(), problem));
        }
        expect_type(self, "w", &self.filters_type(words), &inputs[1])?;
        let each = TensorType::f32([self.filters]);
        expect_type(self, "scale", &each, &inputs[2])?;
        if self.bias {
            expect_type(self, "bias", &each, &inputs[3])?;
        }
        let [oh, ow] = self.window.output(self.name(), [h, w])?;
        if self.flat && [oh, ow] != [1, 1] {
            let problem = format!("a flat output has one pixel, found {oh} x {ow}");
            return Err(Error::shape(self.name(), problem));
        }
        Ok(vec![match self.flat {
            true => TensorType::f32([n, self.filters]),
            false => TensorType::f32([n, self.filters, oh, ow]),
        }])
    }

    fn reference(&self, io: Reference<'_>) {
        let dims = io.inputs[0].dims().to_vec();
        let (words, [h, width]) = (dims[1], [dims[2], dims[3]]);
        let (x, w) = (io.inputs[0].u(), io.inputs[1].u());
        let scale = io.inputs[2].f();
        let bias = |o: usize| if self.bias { io.inputs[3].f()[o] } else { 0.0 };
        let size = self.window.output(self.name(), [h, width]);
        let [oh, ow] = size.expect("inferred");
        let [kh, kw] = self.window.kernel;
        for (i, y) in io.outputs[0].f_mut().iter_mut().enumerate() {
            let (ox, oy) = (i % ow, i / ow % oh);
            let (o, n) = (i / ow / oh % self.filters, i / ow / oh / self.filters);
            let mut sum = 0_i64;
            for tap in 0..words * kh * kw {
                let (kx, ky, c) = (tap % kw, tap / kw % kh, tap / kw / kh);
                let row = self.window.tap(0, oy, ky, h);
                let column = self.window.tap(1, ox, kx, width);
                if let (Some(row), Some(column)) = (row, column) {
                    let pixel = x[((n * words + c) * h + row) * width + column];
                    let filter = w[((o / 4) * words * kh * kw + tap) * 4 + o % 4];
                    let pairs = pixel.to_le_bytes().into_iter().zip(filter.to_le_bytes());
                    sum += pairs
                        .map(|(a, b)| i64::from(a as i8) * i64::from(b as i8))
                        .sum::<i64>();
                }
            }
            *y = self.activation.value(sum as f64 * scale[o] + bias(o));
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let [n, words, h, w] = context.inputs[0].shape.nchw(self.name())?;
        let o = self.filters;
        let [oh, ow] = self.window.output(self.name(), [h, w])?;
        let tasks = n * o.div_ceil(4) * oh * ow.div_ceil(PIXELS);
        let [kh, kw] = self.window.kernel;
        let kernel = Kernel::new(CONV2D)
            .reused("w", n * oh * ow.div_ceil(PIXELS))
            .hook("activate", FUNCTIONS, self.activation.shader_name())
            .set("BIAS", self.bias)
            .set("ALPHA", self.activation.alpha())
            .set("WORKGROUP", WORKGROUP)
            .set("TASKS", tasks)
            .set("C4", words)
            .set("H", h)
            .set("W", w)
            .set("O", o)
            .set("OH", oh)
            .set("OW", ow)
            .set("KH", kh)
            .set("KW", kw)
            .set("STRIDE_Y", self.window.stride[0])
            .set("STRIDE_X", self.window.stride[1])
            .set("DILATION_Y", self.window.dilation[0])
            .set("DILATION_X", self.window.dilation[1])
            .set("PAD_TOP", self.window.pads.top)
            .set("PAD_LEFT", self.window.pads.left);
        let bindings = vec![
            ("x", Arg::Input(0)),
            ("w", Arg::Input(1)),
            ("scale", Arg::Input(2)),
            // Without a bias the binding is there and not read.
            ("bias", Arg::Input(if self.bias { 3 } else { 2 })),
            ("y", Arg::Output(0)),
        ];
        Ok(Dispatch::linear(kernel, bindings, tasks.div_ceil(WORKGROUP)).into())
    }

    fn flops(&self, inputs: &[TensorType], outputs: &[TensorType]) -> u64 {
        let taps: usize = inputs[1].shape.dims()[1..4].iter().product();
        (2 * 4 * taps * outputs[0].shape.len()) as u64
    }

    fn fuse_epilogue(&self, next: &dyn Op) -> Option<Box<dyn Op>> {
        if self.activation != Function::Identity {
            return None;
        }
        let mut fused = *self;
        match next.downcast::<Activation>() {
            Some(next) => fused.activation = next.0,
            None if self.bias || next.downcast::<BiasAdd>().is_none() => return None,
            None => fused.bias = true,
        }
        Some(Box::new(fused))
    }
}

pub(super) fn sample(draw: &mut Draw) -> Sample {
    let window = Window {
        stride: [draw.int(1, 2), draw.int(1, 2)],
        dilation: [draw.int(1, 2), draw.int(1, 2)],
        pads: Pads {
            top: draw.int(0, 2),
            bottom: draw.int(0, 2),
            left: draw.int(0, 2),
            right: draw.int(0, 2),
        },
        ..Window::new([draw.int(1, 3), draw.int(1, 3)])
    };
    let op = Conv2dInt8 {
        window,
        filters: draw.int(1, 9),
        bias: draw.coin(),
        flat: false,
        activation: Function::draw(draw),
    };
    let words = draw.int(1, 4);
    let x = TensorType::u32([draw.int(1, 3), words, draw.int(5, 9), draw.int(5, 9)]);
    let each = TensorType::f32([op.filters]);
    let mut inputs = vec![
        (x, Fill::Below(u32::MAX)),
        (op.filters_type(words), Fill::Below(u32::MAX)),
        (each.clone(), Fill::Uniform(0.0, 1e-5)),
    ];
    if op.bias {
        inputs.push((each, Fill::UNIT));
    }
    // The sum is exact, of at most 4 · 4 · 9 products of 2^14; then a product and an addition.
    let largest = 144.0 * 16384.0 * 1e-5;
    Sample::new(op, inputs, Tolerance::sum(2, largest).and_transcendental()).without_gradient()
}
