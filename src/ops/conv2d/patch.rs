//! Convolution and its input gradient on software adapters: `shaders/conv2d/patch.wgsl`.

use super::Geometry;
use super::plan::Plan;
use super::tile::Patch;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::Profile;
use crate::ops::Window;
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

/// Vectors of weights that a workgroup keeps for all its patches, at most: beside what a step
/// works on they fill a first-level cache.
const MOST_KEPT: usize = 32;

/// Patches of a workgroup that keeps them, at most; more gain little, and leave cores idle.
const MOST_SWEPT: usize = 16;

/// Multiply-adds below which a longer body never makes up for its compilation.
const SHORT_BELOW: u64 = 1 << 25;

/// How one convolution is cut into patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tiling {
    span: Span,
    patch: Patch,
    area: Area,
    /// Multiply-adds of a lane and a filter for a channel.
    products: usize,
    channels: usize,
    /// Patches that a workgroup goes over.
    sweep: usize,
}

/// What a patch reads of a channel: whole cells of the input, as far apart as its rows and columns.
/// Where a patch is as high or as wide as the output, only those known to lie on the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Area {
    /// The first row and column, from where the receptive field begins.
    first: [i64; 2],
    cells: [usize; 2],
}

impl Area {
    fn new(plan: &Plan, geometry: &Geometry, patch: Patch) -> Self {
        let field = patch.inputs(&geometry.window);
        let grid = patch.grid(geometry.output);
        let lines = [0, 1].map(|axis| {
            let (gap, pad) = (plan.gap[axis] as i64, plan.pads[axis]);
            let cell = plan.cell[axis] as i64;
            // The first row or column in the field that is one of x's, and then its cell's.
            let phase = pad.rem_euclid(gap);
            let phase = phase - (phase - pad).rem_euclid(gap * cell);
            let (first, end) = match grid[axis] {
                1 => (
                    pad.max(phase),
                    (plan.seen[axis] as i64 * gap + pad).min(field[axis] as i64),
                ),
                _ => (phase, field[axis] as i64),
            };
            let lines = (end - first).max(1) as usize;
            (first, lines.div_ceil(plan.gap[axis] * plan.cell[axis]))
        });
        Self {
            first: lines.map(|(first, _)| first),
            cells: lines.map(|(_, cells)| cells),
        }
    }

    /// Products of a patch in it, of one filter and channel.
    fn products(&self, plan: &Plan, window: &Window, patch: Patch) -> usize {
        let along = |axis: usize| {
            let (gap, cell) = (plan.gap[axis], plan.cell[axis]);
            let lines = 0..(self.cells[axis] * cell * gap) as i64;
            let is_there = |at: &usize| {
                let from_first = *at as i64 - self.first[axis];
                lines.contains(&from_first) && from_first % gap as i64 == 0
            };
            (0..patch.0[axis])
                .flat_map(|p| (0..window.kernel[axis]).map(move |k| (p, k)))
                .map(|(p, k)| p * window.stride[axis] + k * window.dilation[axis])
                .filter(is_there)
                .count()
        };
        along(0) * along(1)
    }
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
        let keeps = channels == geometry.c && channels * taps <= MOST_KEPT;
        let unrolled = match geometry.multiply_adds() {
            ..SHORT_BELOW => lanes::SHORT_UNROLLED,
            _ => lanes::MOST_UNROLLED,
        };
        let tilings = |span: Span| {
            let most = unrolled / (span.len() * channels);
            let tiling = move |patch: Patch| {
                let area = Area::new(plan, geometry, patch);
                Self {
                    span,
                    patch,
                    area,
                    products: area.products(plan, &geometry.window, patch),
                    channels,
                    sweep: match keeps {
                        true => swept(geometry.images, patch.count(geometry.output)),
                        false => 1,
                    },
                }
            };
            Patch::all(unit, geometry.output, most * plan.gap_area())
                .map(tiling)
                .filter(move |tiling| tiling.products <= most)
        };
        Span::ALL
            .into_iter()
            .flat_map(tilings)
            .min_by_key(|tiling| {
                let too_large = tiling.bytes(plan, lanes) > CACHED_BYTES;
                (too_large, tiling.cost(plan, geometry, lanes))
            })
    }

    fn specialise(&self, kernel: Kernel) -> Kernel {
        let kernel = self.span.specialise_places(self.span.specialise(kernel));
        kernel
            .set("PATCH_H", self.patch.0[0])
            .set("PATCH_W", self.patch.0[1])
            .set("AREA_Y", self.area.first[0] as u32)
            .set("AREA_X", self.area.first[1] as u32)
            .set("AREA_H", self.area.cells[0])
            .set("AREA_W", self.area.cells[1])
            .set("CHANNELS", self.channels)
            .set("SWEEP", self.sweep)
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
    fn bytes(&self, plan: &Plan, lanes: usize) -> usize {
        let cells: usize = self.area.cells.iter().product();
        let inputs = self.channels * cells * plan.cell.iter().product::<usize>();
        (self.sums() + inputs) * lanes * size_of::<f32>()
    }

    fn cost(&self, plan: &Plan, geometry: &Geometry, lanes: usize) -> usize {
        let taps: usize = geometry.window.kernel.iter().product();
        let cells: usize = self.area.cells.iter().product();
        let loads = cells.div_ceil(lanes) * plan.source.loads() * lanes::LOAD_COST;
        let loads = loads + taps * self.span.load_cost() / self.sweep;
        let products = self.span.len() * self.products;
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

/// How many patches a workgroup goes over where images have so many: they divide them, and leave
/// work for all cores.
fn swept(images: usize, patches: usize) -> usize {
    let leaves_enough = |n: &usize| images * patches / n >= 4 * lanes::BUSY_WORKGROUPS;
    let divides = |n: &usize| patches.is_multiple_of(*n);
    let most = (1..=MOST_SWEPT).rev().filter(divides).find(leaves_enough);
    most.unwrap_or(1)
}

/// Inputs as the plan's; `None` where a patch has no tiling.
pub(super) fn launch(profile: &Profile, plan: &Plan) -> Option<Launch> {
    let geometry = &plan.reached();
    let lanes = lanes::lanes(profile);
    let tiling = Tiling::best(plan, geometry, lanes)?;
    let taps: usize = geometry.window.kernel.iter().product();
    let span = tiling.span;
    let row = geometry.o.div_ceil(span.len());
    let packed = geometry.groups * geometry.c * taps * row;

    let [filters, channels] = plan.filters();
    let pack = span
        .specialise(Kernel::new(PACK))
        .set("WORKGROUP", PACK_WORKGROUP)
        .set("GROUPS", geometry.groups)
        .set("O", filters)
        .set("C", channels)
        .set("TAPS", taps)
        .set("FLIP", plan.flip);
    let w = Arg::Input(plan.source.operand());
    let pack_bindings = vec![("w", w), ("packed", Arg::Scratch(0))];

    let places = geometry.images * tiling.patch.count(geometry.output);
    let kernel = tiling
        .specialise(Kernel::new(PATCH))
        .reused("packed", places / tiling.sweep);
    let kernel = plan.finish(plan.source.specialise(kernel), tiling.quads(plan));
    let kernel = plan
        .geometry
        .specialise(lanes::specialise(kernel, profile))
        .set("PAD_TOP", plan.pads[0] as u32)
        .set("PAD_LEFT", plan.pads[1] as u32)
        .set("GAP_Y", plan.gap[0])
        .set("GAP_X", plan.gap[1])
        .set("SEEN_H", plan.seen[0])
        .set("SEEN_W", plan.seen[1])
        .set("ROWS", geometry.output[0])
        .set("CELL_H", plan.cell[0])
        .set("CELL_W", plan.cell[1]);
    let mut bindings = plan.source.bindings();
    bindings.push(("packed", Arg::Scratch(0)));
    bindings.extend(plan.results());
    let mut patch = Dispatch::linear(kernel, bindings, places / tiling.sweep);
    patch.workgroups[2] = u32::try_from(geometry.groups * span.blocks(geometry.o, lanes)).ok()?;
    Some(Launch {
        scratch: vec![(packed * span.len() * size_of::<f32>()) as u64],
        dispatches: vec![
            Dispatch::linear(pack, pack_bindings, packed.div_ceil(PACK_WORKGROUP)),
            patch,
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Draw;
    use crate::ops::conv2d::{Conv2d, draw_geometry};

    #[test]
    fn workgroups_share_the_patches_out_and_some_of_the_property_tests_cases_take_several() {
        let mut swept = 0;
        for case in 0..100 {
            let geometry = draw_geometry(&mut Draw::new(case));
            let op = Conv2d::new(geometry.window, geometry.groups);
            let plan = Plan::forward(&op, &geometry).expect("it has no pool");
            let reached = plan.reached();
            if let Some(tiling) = Tiling::best(&plan, &reached, 8) {
                let patches = tiling.patch.count(reached.output);
                assert!(patches.is_multiple_of(tiling.sweep), "{tiling:?}");
                swept += usize::from(tiling.sweep > 1);
            }
        }
        assert!(swept >= 4, "{swept} of 100");
    }
}
