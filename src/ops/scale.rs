//! A tensor times a scalar, or times one number for each sample and place.

use super::{
    Draw, Entry, Fill, LaunchContext, Op, Reference, Sample, Tolerance, expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::TensorType;

const FORWARD: ShaderFile = shader!("scale/forward.wgsl");
const WORKGROUP: usize = 64;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "scale",
    sample,
}];

/// `y = x * s`: the chain rule's last factor, for ops whose derivative is a saved tensor.
///
/// Inputs: `x` f32 of any shape; `s` f32 with one element, of `x`'s shape, or of `x`'s
/// shape without axis 1. Output: `y`, of `x`'s type. It has no gradient of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scale;

impl Scale {
    /// Whether `s` is a scalar, and the channels and inner elements of the kernel's view.
    fn view(&self, inputs: &[TensorType]) -> Result<(bool, usize, usize)> {
        let (x, s) = (inputs[0].shape.dims(), inputs[1].shape.dims());
        if inputs[1].shape.len() == 1 {
            return Ok((true, 1, inputs[0].shape.len()));
        }
        if x == s {
            return Ok((false, 1, inputs[0].shape.len()));
        }
        if x.len() >= 2 && s == [&x[..1], &x[2..]].concat() {
            return Ok((false, x[1], x[2..].iter().product()));
        }
        Err(Error::shape(
            self.name(),
            format!(
                "s: expected one element, the shape of x, {}, or that shape without axis 1, found {}",
                inputs[0], inputs[1]
            ),
        ))
    }
}

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2)?;
        let of = |i: usize| TensorType::f32(inputs[i].shape.clone());
        expect_type(self, "x", &of(0), &inputs[0])?;
        expect_type(self, "s", &of(1), &inputs[1])?;
        self.view(inputs)?;
        Ok(vec![of(0)])
    }

    fn reference(&self, io: Reference<'_>) {
        let (x, s) = (io.inputs[0].f(), io.inputs[1].f());
        let types = [io.inputs[0].ty().clone(), io.inputs[1].ty().clone()];
        let (scalar, channels, inner) = self.view(&types).expect("infer has checked the shapes");
        for (i, y) in io.outputs[0].f_mut().iter_mut().enumerate() {
            let at = i / (channels * inner) * inner + i % inner;
            *y = x[i] * s[if scalar { 0 } else { at }];
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let (scalar, channels, inner) = self.view(context.inputs)?;
        let len = context.inputs[0].shape.len();
        let kernel = Kernel::new(FORWARD)
            .set("WORKGROUP", WORKGROUP)
            .set("LEN", len)
            .set("CHANNELS", channels)
            .set("INNER", inner)
            .set("SCALAR", scalar);
        let bindings = vec![
            ("x", Arg::Input(0)),
            ("s", Arg::Input(1)),
            ("y", Arg::Output(0)),
        ];
        Ok(Dispatch::linear(kernel, bindings, len.div_ceil(4).div_ceil(WORKGROUP)).into())
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let [n, c, i] = [draw.int(1, 9), draw.int(1, 9), draw.int(1, 20)];
    let s = match draw.int(0, 3) {
        0 => TensorType::f32([]),
        1 => TensorType::f32([1]),
        2 => TensorType::f32([n, c, i]),
        _ => TensorType::f32([n, i]),
    };
    let inputs = vec![(TensorType::f32([n, c, i]), Fill::UNIT), (s, Fill::UNIT)];
    Sample::new(Scale, inputs, Tolerance::sum(1, 1.0)).without_gradient()
}
