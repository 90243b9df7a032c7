//! Layer normalisation, backward.

use super::{Places, WORKGROUP};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::ProfileKind;
use crate::ops::gemm::in_parts;
use crate::ops::{
    Draw, Fill, LaunchContext, Op, Reference, Sample, Tolerance, expect_inputs, expect_type,
};
use crate::shader;
use crate::tensor::TensorType;

const BACKWARD: ShaderFile = shader!("layer_norm/backward.wgsl");
const SUMS: ShaderFile = shader!("layer_norm/sums.wgsl");

/// Least places of a slice, so that a second pass pays.
const LEAST_SLICE: usize = 1024;
const MOST_SLICES: usize = 16;

/// The gradient of [`LayerNorm2d`](super::LayerNorm2d).
///
/// `dy`, `x` f32 `[N, C, ..]`, `gamma` `[C]`, `mean` and `inverse` `[N, ..]` give `dx` of
/// `x`'s type, `dgamma` and `dbeta` `[C]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerNorm2dGrad;

impl Op for LayerNorm2dGrad {
    fn name(&self) -> &'static str {
        "layer_norm2d_grad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 5)?;
        let places = Places::of(self, &inputs[1])?;
        expect_type(self, "dy", &inputs[1], &inputs[0])?;
        expect_type(self, "gamma", &places.per_channel(), &inputs[2])?;
        expect_type(self, "mean", &places.statistic, &inputs[3])?;
        expect_type(self, "inverse", &places.statistic, &inputs[4])?;
        let channel = places.per_channel();
        Ok(vec![inputs[1].clone(), channel.clone(), channel])
    }

    fn reference(&self, io: Reference<'_>) {
        let places = Places::of(self, io.inputs[1].ty()).expect("inferred");
        let [dy, x, gamma, mean, inverse] = [0, 1, 2, 3, 4].map(|i| io.inputs[i].f());
        let normed = |e: usize, p: usize| (x[e] - mean[p]) * inverse[p];
        let mut sums = vec![[0.0; 2]; places.count()];
        for (e, dy) in dy.iter().enumerate() {
            let (p, c) = places.at(e);
            sums[p][0] += dy * gamma[c];
            sums[p][1] += dy * gamma[c] * normed(e, p);
            io.outputs[1].f_mut()[c] += dy * normed(e, p);
            io.outputs[2].f_mut()[c] += dy;
        }
        let count = places.channels as f64;
        for (e, dx) in io.outputs[0].f_mut().iter_mut().enumerate() {
            let (p, c) = places.at(e);
            let shared = (sums[p][0] + normed(e, p) * sums[p][1]) / count;
            *dx = inverse[p] * (dy[e] * gamma[c] - shared);
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let places = Places::of(self, &context.inputs[1])?;
        let slices = places.count().div_ceil(LEAST_SLICE).min(MOST_SLICES);
        let slice = places.count().div_ceil(slices);
        let slices = places.count().div_ceil(slice);
        let lanes = match context.profile.kind {
            // A subgroup: larger workgroups gain nothing there.
            ProfileKind::CpuLike => 8,
            ProfileKind::Gpu => WORKGROUP,
        };
        let operands = || {
            let names = ["dy", "x", "mean", "inverse"];
            names.into_iter().zip([0, 1, 3, 4].map(Arg::Input))
        };
        let sums = Kernel::new(SUMS)
            .set("LANES", lanes)
            .set("SAMPLES", places.samples)
            .set("CHANNELS", places.channels)
            .set("INNER", places.inner)
            .set("SLICE", slice);
        let results = [1, 2].map(|i| (places.channels, Arg::Output(i)));
        let mut launch = in_parts(slices, results, |[dgamma, dbeta]| {
            let outputs = [("dgamma", dgamma), ("dbeta", dbeta)];
            let bindings = operands().chain(outputs).collect();
            Dispatch::grid(sums, bindings, [places.channels, slices, 1])
        });
        let (kernel, groups) = places.specialise(Kernel::new(BACKWARD));
        let rest = [("gamma", Arg::Input(2)), ("dx", Arg::Output(0))];
        let bindings = operands().chain(rest).collect();
        launch
            .dispatches
            .push(Dispatch::linear(kernel, bindings, groups));
        Ok(launch)
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        // Four each for the sums over channels and over places, six for dx.
        14 * inputs[1].shape.len() as u64
    }
}

pub(super) fn sample(draw: &mut Draw) -> Sample {
    let (x, places) = Places::draw(draw);
    let statistic = |low, high| (places.statistic.clone(), Fill::Uniform(low, high));
    let inputs = vec![
        (x.clone(), Fill::UNIT),
        (x, Fill::UNIT),
        (places.per_channel(), Fill::Uniform(0.5, 1.5)),
        statistic(-0.5, 0.5),
        statistic(0.5, 2.0),
    ];
    // Sums of terms below 1.5 * 1.5 * 2 over the places, or over the channels; of the latter
    // dx takes a share of at most 3 * 2.
    let terms = places.count().max(places.channels);
    let mut tolerance = Tolerance::sum(terms, 4.5);
    tolerance.absolute *= 6.0;
    Sample::new(LayerNorm2dGrad, inputs, tolerance).without_gradient()
}
