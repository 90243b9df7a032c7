//! Floats to packed signed bytes.

use super::{quantized, word};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::ops::{
    Draw, Fill, LaunchContext, Op, Reference, Sample, Tolerance, channel_extents, expect_inputs,
};
use crate::shader;
use crate::tensor::TensorType;

const QUANTIZE: ShaderFile = shader!("int8/quantize.wgsl");
const WORKGROUP: usize = 64;

/// `clamp(round(x · inverse), -127, 127)`: input f32 [N, C, …], output u32 [N, ⌈C/4⌉, H, W],
/// four channels of a pixel to a word; H and W are 1 for [N, C].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantizeInt8 {
    /// One over the size of a step.
    pub inverse: f32,
}

impl Op for QuantizeInt8 {
    fn name(&self) -> &'static str {
        "quantize_int8"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        let [n, c, pixels] = channel_extents(self, "x", &inputs[0])?;
        let [h, w] = match inputs[0].shape.dims() {
            [_, _, h, w] => [*h, *w],
            _ => [1, pixels],
        };
        Ok(vec![TensorType::u32([n, c.div_ceil(4), h, w])])
    }

    fn reference(&self, io: Reference<'_>) {
        let dims = io.inputs[0].dims();
        let (channels, pixels) = (dims[1], dims[2..].iter().product::<usize>());
        let quads = channels.div_ceil(4);
        let x = io.inputs[0].f();
        for (i, y) in io.outputs[0].u_mut().iter_mut().enumerate() {
            let (pixel, quad, image) = (i % pixels, i / pixels % quads, i / pixels / quads);
            *y = word([0, 1, 2, 3].map(|k| match 4 * quad + k {
                c if c < channels => {
                    let at = (image * channels + c) * pixels + pixel;
                    quantized(x[at], self.inverse.into())
                }
                _ => 0,
            }));
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let [_, c, pixels] = channel_extents(self, "x", &context.inputs[0])?;
        let words = context.outputs[0].shape.len();
        let kernel = Kernel::new(QUANTIZE)
            .set("WORKGROUP", WORKGROUP)
            .set("WORDS", words)
            .set("C", c)
            .set("P", pixels)
            .set("INVERSE", self.inverse);
        let bindings = vec![("x", Arg::Input(0)), ("y", Arg::Output(0))];
        Ok(Dispatch::linear(kernel, bindings, words.div_ceil(WORKGROUP)).into())
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        2 * inputs[0].shape.len() as u64
    }
}

pub(super) fn sample(draw: &mut Draw) -> Sample {
    let (n, c) = (draw.int(1, 3), draw.int(1, 9));
    let ty = match draw.coin() {
        true => TensorType::f32([n, c, draw.int(1, 6), draw.int(1, 6)]),
        false => TensorType::f32([n, c]),
    };
    // Multiples of a quarter times four times a whole number: far from halves, which
    // rounding alone would decide. Above 127 they are clamped.
    let op = QuantizeInt8 {
        inverse: 4.0 * draw.int(1, 50) as f32,
    };
    Sample::new(op, vec![(ty, Fill::Levels(9))], Tolerance::EXACT).without_gradient()
}
