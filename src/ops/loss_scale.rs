//! Dynamic loss scaling (Micikevicius et al. 2018, "Mixed Precision Training", section 3.2).
//!
//! In half precision a gradient below 6e-8 is zero. The loss is multiplied by a factor before
//! it is differentiated, and so is every gradient; the parameters' gradients, which are f32,
//! are divided by it again ([`Unscale`]). Where one is infinite or NaN, the factor was too
//! large: the step is left out and the factor halved; it is doubled after [`INTERVAL`] good
//! steps ([`AdaptScale`]). Names and numbers are those of PyTorch's `GradScaler`, but for the
//! bounds: the factor stays from 1 to its first value.

use super::metrics::ROW;
use super::{
    Draw, Entry, Fill, LaunchContext, Op, Reference, Sample, Tolerance, expect_inputs, expect_type,
};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::TensorType;

const UNSCALE: ShaderFile = shader!("loss_scale/unscale.wgsl");
const ADAPT: ShaderFile = shader!("loss_scale/adapt.wgsl");
const WORKGROUP: usize = 64;

/// The factor that a training begins with, and the largest.
pub const INITIAL: f64 = 65536.0;
/// Good steps after which the factor is doubled.
pub const INTERVAL: usize = 2000;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "unscale",
        sample: sample_unscale,
    },
    Entry {
        name: "adapt_scale",
        sample: sample_adapt,
    },
];

/// The type of the state: the factor, and the steps it has been good for.
pub fn state() -> TensorType {
    TensorType::f32([2])
}

/// Divides gradients by the factor.
///
/// Inputs: gradients f32 (updated), the factor's [`state`]. No output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unscale;

impl Op for Unscale {
    fn name(&self) -> &'static str {
        "unscale"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2)?;
        let gradients = TensorType::f32(inputs[0].shape.clone());
        expect_type(self, "gradients", &gradients, &inputs[0])?;
        expect_type(self, "loss scale", &state(), &inputs[1])?;
        Ok(vec![])
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }

    fn reference(&self, io: Reference<'_>) {
        let scale = io.inputs[1].f()[0];
        for x in io.updates[0].f_mut() {
            *x /= scale;
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let vec4s = context.inputs[0].shape.len().div_ceil(4);
        let kernel = Kernel::new(UNSCALE)
            .set("VEC4S", vec4s)
            .set("WORKGROUP", WORKGROUP);
        let bindings = vec![("x", Arg::Input(0)), ("scale", Arg::Input(1))];
        Ok(Dispatch::linear(kernel, bindings, vec4s.div_ceil(WORKGROUP)).into())
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        inputs[0].shape.len() as u64
    }
}

/// Changes the factor after a step.
///
/// Inputs, all f32 and updated: the factor's [`state`]; the flag `[1]` that
/// [`NonFinite`](super::non_finite::NonFinite) raises; the rows `[slots, 8]` of the op
/// [`Metrics`](super::metrics::Metrics). No output.
///
/// Where the flag is raised, the loss itself is finite and the factor is above 1, the factor
/// was at fault: it is halved, and flag and row say again that all is well. Otherwise the
/// flag stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdaptScale;

impl Op for AdaptScale {
    fn name(&self) -> &'static str {
        "adapt_scale"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 3)?;
        expect_type(self, "loss scale", &state(), &inputs[0])?;
        expect_type(self, "flag", &TensorType::f32([1]), &inputs[1])?;
        let slots = inputs[2].shape.len() / ROW;
        expect_type(self, "rows", &TensorType::f32([slots, ROW]), &inputs[2])?;
        Ok(vec![])
    }

    fn updates(&self) -> &'static [usize] {
        &[0, 1, 2]
    }

    fn reference(&self, io: Reference<'_>) {
        let [scale, flag, rows] = io.updates else {
            unreachable!("updates() lists three")
        };
        let (scale, flag) = (scale.f_mut(), flag.f_mut());
        if flag[0] == 0.0 {
            scale[1] += 1.0;
            if scale[1] >= INTERVAL as f64 {
                scale[0] = (2.0 * scale[0]).min(INITIAL);
                scale[1] = 0.0;
            }
            return;
        }
        let last = rows.f().len() / ROW - 1;
        let row = &mut rows.f_mut()[ROW * (io.step.slot as usize).min(last)..][..ROW];
        if scale[0] > 1.0 && row[0].is_finite() {
            scale[0] /= 2.0;
            scale[1] = 0.0;
            flag[0] = 0.0;
            row[3] = 0.0;
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let kernel = Kernel::new(ADAPT)
            .set("INTERVAL", INTERVAL as f64)
            .set("MOST", INITIAL)
            .set("SLOTS", context.inputs[2].shape[0]);
        let bindings = vec![
            ("scale", Arg::Input(0)),
            ("flag", Arg::Input(1)),
            ("rows", Arg::Input(2)),
            ("step", Arg::Step),
        ];
        Ok(Dispatch::grid(kernel, bindings, [1, 1, 1]).into())
    }
}

fn sample_unscale(draw: &mut Draw) -> Sample {
    let inputs = vec![
        (TensorType::f32([draw.int(1, 400)]), Fill::UNIT),
        (state(), Fill::Uniform(1.0, 4.0)),
    ];
    // One division of at most 2.5 ULP of at most 1.
    Sample::new(Unscale, inputs, Tolerance::sum(1, 1.0)).without_gradient()
}

fn sample_adapt(draw: &mut Draw) -> Sample {
    // The second number is reached now, or not yet.
    let most = draw.pick(&[2.0, 2.0 * INTERVAL as f64, 2.0 * INITIAL]);
    let slots = draw.int(1, 5);
    let flag = draw.pick(&[Fill::Uniform(0.0, f64::MIN_POSITIVE), Fill::UNIT]);
    let rows = draw.pick(&[Fill::UNIT, Fill::Spoilt(2)]);
    let inputs = vec![
        (state(), Fill::Uniform(0.0, most)),
        (TensorType::f32([1]), flag),
        (TensorType::f32([slots, ROW]), rows),
    ];
    // Halves, doubles and counts: a sum below 2^24 with a rounding.
    let mut sample = Sample::new(AdaptScale, inputs, Tolerance::sum(1, 1.0)).without_gradient();
    sample.step.slot = draw.int(0, slots - 1) as u32;
    sample
}
