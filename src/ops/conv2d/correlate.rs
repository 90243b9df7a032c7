//! The weight gradient on software adapters: `shaders/conv2d/correlate.wgsl`.

use super::Geometry;
use super::launch::specialise;
use super::patch::{LOAD_COST, MOST_UNROLLED};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::Profile;
use crate::ops::{gemm, lanes};
use crate::shader;

const CORRELATE: ShaderFile = shader!("conv2d/correlate.wgsl");

/// Accumulators that stay in registers; more are loaded and stored at every step.
const REGISTERS: usize = 5;

/// What loading and storing an accumulator costs, in multiply-adds of a subgroup.
const SPILL_COST: usize = 12;

/// Workgroups that keep the cores of a software adapter's machine evenly busy.
const BUSY_WORKGROUPS: usize = 32;

/// How a weight gradient is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tiling {
    patch: [usize; 2],
    channels: usize,
}

impl Tiling {
    /// The cheapest tiling, or `None` where even a single output unrolls too far.
    fn best(geometry: &Geometry, lanes: usize) -> Option<Self> {
        const MOST_CHANNELS: usize = 8;
        let taps: usize = geometry.window.kernel.iter().product();
        let most = MOST_UNROLLED / (4 * taps);
        let [oh, ow] = geometry.output;
        (1..=geometry.c.min(MOST_CHANNELS).min(most))
            .flat_map(|channels| {
                let outputs = most / channels;
                (1..=oh.min(outputs)).flat_map(move |h| {
                    (1..=ow.min(outputs / h)).map(move |w| Self {
                        patch: [h, w],
                        channels,
                    })
                })
            })
            .min_by_key(|tiling| tiling.cost(geometry, lanes))
    }

    fn cost(&self, geometry: &Geometry, lanes: usize) -> usize {
        let window = &geometry.window;
        let taps: usize = window.kernel.iter().product();
        let area =
            [0, 1].map(|axis| (self.patch[axis] - 1) * window.stride[axis] + window.span()[axis]);
        let outputs = self.patch[0] * self.patch[1];
        let loads = 4 * outputs + self.channels * (area[0] * area[1]).div_ceil(lanes);
        let sums = taps * self.channels;
        let spilled = sums.saturating_sub(REGISTERS);
        let step = loads * LOAD_COST + 4 * sums * outputs + spilled * SPILL_COST;
        let patches: usize = [0, 1]
            .map(|axis| geometry.output[axis].div_ceil(self.patch[axis]))
            .iter()
            .product();
        geometry.c.div_ceil(self.channels) * patches * step
    }
}

/// Inputs `dy`, `x`.
pub(super) fn weight_grad(profile: &Profile, geometry: &Geometry) -> Option<Launch> {
    let lanes = lanes::lanes(profile);
    let tiling = Tiling::best(geometry, lanes)?;
    let blocks =
        geometry.groups * geometry.o.div_ceil(4 * lanes) * geometry.c.div_ceil(tiling.channels);
    let parts = BUSY_WORKGROUPS.div_ceil(blocks).min(geometry.images);
    let kernel = lanes::specialise(Kernel::new(CORRELATE), profile);
    let kernel = specialise(geometry, kernel)
        .set("PARTS", parts)
        .set("PATCH_H", tiling.patch[0])
        .set("PATCH_W", tiling.patch[1])
        .set("CHANNELS", tiling.channels);
    let blocks = u32::try_from(blocks).ok()?;
    let length = geometry.w().shape.len();
    Some(gemm::in_parts(parts, length, Arg::Output(0), |result| {
        let bindings = vec![("dy", Arg::Input(0)), ("x", Arg::Input(1)), ("dw", result)];
        let mut dispatch = Dispatch::linear(kernel, bindings, parts);
        dispatch.workgroups[2] = blocks;
        dispatch
    }))
}
