//! Convolution and its input gradient on software adapters: `shaders/conv2d/patch.wgsl`.

use super::Geometry;
use super::plan::Plan;
use super::tile::Patch;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::Profile;
use crate::ops::lanes::{self, Span};
use crate::shader;

const PACK: ShaderFile = shader!("conv2d/pack.wgsl");
const PATCH: ShaderFile = shader!("conv2d/patch.wgsl");
const PACK_WORKGROUP: usize = 64;

/// Multiply-adds that use one accumulator in a step, at least: carrying an accumulator
/// round the loop costs as much as two of them.
const LEAST_TERMS: usize = 8;

/// Bytes that a step works on, at most: what a first-level cache of 32 KiB keeps beside the
/// weights that pass through it.
const CACHED_BYTES: usize = 24 << 10;

/// Multiply-adds below which a longer body never makes up for its compilation.
const SHORT_BELOW: u64 = 1 << 25;

/// How one convolution is cut into patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tiling {
    span: Span,
    patch: Patch,
    channels: usize,
}

impl Tiling {
    /// The cheapest tiling, or `None` where even a single output unrolls too far.
    /// Patches are whole units of the plan.
    fn best(plan: &Plan, geometry: &Geometry, lanes: usize) -> Option<Self> {
        let unit = plan.unit();
        let taps: usize = geometry.window.kernel.iter().product();
        let channels = (1..=LEAST_TERMS.div_ceil(taps).min(geometry.c))
            .rev()
            .find(|n| geometry.c.is_multiple_of(*n))?;
        let unrolled = match geometry.multiply_adds() {
            ..SHORT_BELOW => lanes::SHORT_UNROLLED,
            _ => lanes::MOST_UNROLLED,
        };
        let tilings = |span: Span| {
            let most = unrolled * plan.gap_area() / (span.len() * taps * channels);
            Patch::all(unit, geometry.output, most).map(move |patch| Self {
                span,
                patch,
                channels,
            })
        };
        Span::ALL
            .into_iter()
            .flat_map(tilings)
            .min_by_key(|tiling| {
                let too_large = tiling.bytes(geometry, lanes) > CACHED_BYTES;
                (too_large, tiling.cost(plan, geometry, lanes))
            })
    }

    /// Whether results are stored four at a time.
    fn quads(&self, plan: &Plan) -> bool {
        plan.in_quads(self.patch.0[1])
    }

    /// Accumulators of a lane.
    fn sums(&self) -> usize {
        self.span.len() * self.patch.outputs()
    }

    /// Bytes of what a step works on: the accumulators, and what was spread of the inputs.
    fn bytes(&self, geometry: &Geometry, lanes: usize) -> usize {
        let inputs = self.channels * self.patch.area(&geometry.window);
        (self.sums() + inputs) * lanes * size_of::<f32>()
    }

    fn cost(&self, plan: &Plan, geometry: &Geometry, lanes: usize) -> usize {
        let taps: usize = geometry.window.kernel.iter().product();
        let area = self.patch.area(&geometry.window);
        let loads = area.div_ceil(lanes) * lanes::LOAD_COST + taps * self.span.load_cost();
        let products = taps * self.sums() / plan.gap_area();
        let step = self.channels * (loads + products) + self.sums() * lanes::CARRY_COST;
        let results = self.sums() / plan.pool_window().iter().product::<usize>();
        let stores = match self.quads(plan) {
            true => results / 4 * lanes::STORE_VEC4_COST,
            false => results * lanes::STORE_COST,
        };
        let steps = geometry.c / self.channels;
        let patches = self.patch.count(geometry.output) * self.span.blocks(geometry.o, lanes);
        patches * (steps * step + stores)
    }
}

/// Inputs as the plan's.
pub(super) fn launch(profile: &Profile, plan: &Plan) -> Option<Launch> {
    let pool = plan.pool_window();
    let phase = [0, 1].map(|axis| plan.pads[axis].rem_euclid(plan.gap[axis] as i64) as u32);
    // What no window of the pool reaches need not be computed.
    let geometry = &plan.geometry.covered(pool);
    let lanes = lanes::lanes(profile);
    let tiling = Tiling::best(plan, geometry, lanes)?;
    let taps: usize = geometry.window.kernel.iter().product();
    let span = tiling.span;
    let row = geometry.o.next_multiple_of(span.len());
    let packed = geometry.groups * geometry.c * taps * row;

    let [filters, channels] = plan.filters();
    let pack = Kernel::new(PACK)
        .set("WORKGROUP", PACK_WORKGROUP)
        .set("GROUPS", geometry.groups)
        .set("O", filters)
        .set("C", channels)
        .set("TAPS", taps)
        .set("FLIP", plan.flip)
        .set("SPAN", span.len());
    let pack_bindings = vec![("w", Arg::Input(1)), ("packed", Arg::Scratch(0))];

    let kernel = span.specialise(plan.finish(Kernel::new(PATCH), tiling.quads(plan)));
    let kernel = plan
        .geometry
        .specialise(lanes::specialise(kernel, profile))
        .set("PAD_TOP", plan.pads[0] as u32)
        .set("PAD_LEFT", plan.pads[1] as u32)
        .set("GAP_Y", plan.gap[0])
        .set("GAP_X", plan.gap[1])
        .set("PHASE_Y", phase[0])
        .set("PHASE_X", phase[1])
        .set("PATCH_H", tiling.patch.0[0])
        .set("PATCH_W", tiling.patch.0[1])
        .set("CHANNELS", tiling.channels);
    let mut bindings = vec![("x", Arg::Input(0)), ("packed", Arg::Scratch(0))];
    bindings.extend(plan.results());
    let places = geometry.images * tiling.patch.count(geometry.output);
    let mut patch = Dispatch::linear(kernel, bindings, places);
    patch.workgroups[2] = u32::try_from(geometry.groups * span.blocks(geometry.o, lanes)).ok()?;
    Some(Launch {
        scratch: vec![(packed * 4) as u64],
        dispatches: vec![
            Dispatch::linear(pack, pack_bindings, packed.div_ceil(PACK_WORKGROUP)),
            patch,
        ],
    })
}
