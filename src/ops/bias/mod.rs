//! Bias: one number added to each channel.

use super::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    channel_extents, expect_inputs, expect_type,
};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::ProfileKind;
use crate::shader;
use crate::tensor::TensorType;

const FORWARD: ShaderFile = shader!("bias/forward.wgsl");
const BACKWARD: ShaderFile = shader!("bias/backward.wgsl");
const SLICES: ShaderFile = shader!("bias/slices.wgsl");
const WORKGROUP: usize = 64;

/// The ops of this folder.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "bias",
        sample: sample_forward,
    },
    Entry {
        name: "bias_grad",
        sample: sample_backward,
    },
];

/// `y[n, c, ..] = x[n, c, ..] + b[c]`.
///
/// Inputs: `x` f32 `[N, C, ..]`, `b` f32 `[C]`. Output: `y`, of `x`'s type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BiasAdd;

impl Op for BiasAdd {
    fn name(&self) -> &'static str {
        "bias"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2)?;
        let [_, channels, _] = channel_extents(self, "x", &inputs[0])?;
        expect_type(self, "b", &TensorType::f32([channels]), &inputs[1])?;
        Ok(vec![inputs[0].clone()])
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let Some(dy) = upstream[0] else {
            return Ok(vec![None, None]);
        };
        let db = match node.wanted[1] {
            true => Some(builder.add1(Box::new(BiasGrad), &[dy])?),
            false => None,
        };
        Ok(vec![Some(dy), db])
    }

    fn reference(&self, io: Reference<'_>) {
        let (x, b) = (io.inputs[0], io.inputs[1].f());
        let inner: usize = x.dims()[2..].iter().product();
        for (i, y) in io.outputs[0].f_mut().iter_mut().enumerate() {
            *y = x.f()[i] + b[i / inner % b.len()];
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let [_, channels, inner] = channel_extents(self, "x", &context.inputs[0])?;
        let vec4s = context.inputs[0].shape.len().div_ceil(4);
        let kernel = Kernel::new(FORWARD)
            .set("WORKGROUP", WORKGROUP)
            .set("VEC4S", vec4s)
            .set("CHANNELS", channels)
            .set("INNER", inner);
        let bindings = vec![
            ("x", Arg::Input(0)),
            ("b", Arg::Input(1)),
            ("y", Arg::Output(0)),
        ];
        Ok(Dispatch::linear(kernel, bindings, vec4s.div_ceil(WORKGROUP)).into())
    }
}

/// `db[c] = sum over n and the rest of dy[n, c, ..]`: the gradient of [`BiasAdd`].
///
/// Input: `dy` f32 `[N, C, ..]`. Output: `db` f32 `[C]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BiasGrad;

impl Op for BiasGrad {
    fn name(&self) -> &'static str {
        "bias_grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        let [_, channels, _] = channel_extents(self, "dy", &inputs[0])?;
        Ok(vec![TensorType::f32([channels])])
    }

    fn reference(&self, io: Reference<'_>) {
        let dy = io.inputs[0];
        let inner: usize = dy.dims()[2..].iter().product();
        let db = io.outputs[0].f_mut();
        for (i, dy) in dy.f().iter().enumerate() {
            db[i / inner % db.len()] += dy;
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let [batch, channels, inner] = channel_extents(self, "dy", &context.inputs[0])?;
        let split = Split::new(context.profile.kind, batch, channels, inner);
        let first = Kernel::new(BACKWARD)
            .set("LANES_C", split.lanes_c)
            .set("LANES_R", split.lanes_r)
            .set("SLICES", split.slices)
            .set("SLICE", split.slice)
            .set("BATCH", batch)
            .set("CHANNELS", channels)
            .set("INNER", inner)
            .set("VEC4S", context.inputs[0].shape.len().div_ceil(4));
        let grid = [channels.div_ceil(split.lanes_c), split.slices, 1];
        let dy = ("dy", Arg::Input(0));
        if split.slices == 1 {
            let bindings = vec![dy, ("partials", Arg::Output(0))];
            return Ok(Dispatch::grid(first, bindings, grid).into());
        }
        let partial = ("partials", Arg::Scratch(0));
        let second = Kernel::new(SLICES)
            .set("WORKGROUP", WORKGROUP)
            .set("SLICES", split.slices)
            .set("CHANNELS", channels);
        Ok(Launch {
            scratch: vec![(4 * split.slices * channels) as u64],
            dispatches: vec![
                Dispatch::grid(first, vec![dy, partial], grid),
                Dispatch::grid(
                    second,
                    vec![partial, ("db", Arg::Output(0))],
                    [channels.div_ceil(WORKGROUP), 1, 1],
                ),
            ],
        })
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        inputs[0].shape.len() as u64
    }
}

/// How the sum over a channel is dealt out.
struct Split {
    /// Channels of a workgroup.
    lanes_c: usize,
    /// Lanes that share a channel.
    lanes_r: usize,
    /// Parts of the sum, each a workgroup's.
    slices: usize,
    /// Vec4 of a slice.
    slice: usize,
}

impl Split {
    fn new(kind: ProfileKind, batch: usize, channels: usize, inner: usize) -> Self {
        let quads = batch
            * if inner.is_multiple_of(4) {
                inner / 4
            } else {
                (inner + 6) / 4
            };
        let (lanes_c, lanes_r, groups, loads) = match kind {
            // A subgroup of channels; slices only where they repay a second dispatch.
            ProfileKind::CpuLike => {
                let lanes_c = channels.next_power_of_two().min(8);
                (lanes_c, 8 / lanes_c, 32, 256)
            }
            // Neighbouring lanes read neighbouring memory: channels of a dense
            // layer, pixels of an image.
            ProfileKind::Gpu if inner == 1 => (16, 8, 256, 8),
            ProfileKind::Gpu => (1, 128, 256, 8),
        };
        let wanted = groups / channels.div_ceil(lanes_c);
        let slices = wanted.min(quads / (lanes_r * loads)).clamp(1, 64);
        let slice = quads.div_ceil(slices);
        Self {
            lanes_c,
            lanes_r,
            slices: quads.div_ceil(slice),
            slice,
        }
    }
}

fn draw_type(draw: &mut Draw) -> TensorType {
    let (n, c) = (draw.int(1, 9), draw.int(1, 40));
    match draw.int(0, 3) {
        0 => TensorType::f32([n, c]),
        1 => TensorType::f32([n, c, draw.int(1, 20)]),
        2 => TensorType::f32([n, c, draw.int(1, 9), draw.int(1, 9)]),
        // Enough for several slices.
        _ => TensorType::f32([n, draw.int(1, 3), draw.int(40, 50), draw.int(60, 70)]),
    }
}

fn sample_forward(draw: &mut Draw) -> Sample {
    let x = draw_type(draw);
    let b = TensorType::f32([x.shape[1]]);
    let inputs = vec![(x, Fill::UNIT), (b, Fill::UNIT)];
    Sample::new(BiasAdd, inputs, Tolerance::sum(1, 1.0))
}

fn sample_backward(draw: &mut Draw) -> Sample {
    let dy = draw_type(draw);
    let terms = dy.shape.len() / dy.shape[1];
    let inputs = vec![(dy, Fill::Uniform(-1.0, 1.0))];
    Sample::new(BiasGrad, inputs, Tolerance::sum(terms, 1.0)).without_gradient()
}
