//! The weight gradient on software adapters: `shaders/conv2d/correlate.wgsl`.

use super::tile::Patch;
use super::{Conv2dWeightGrad, Geometry};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::Profile;
use crate::ops::gemm;
use crate::ops::lanes::{self, Span};
use crate::shader;

const CORRELATE: ShaderFile = shader!("conv2d/correlate.wgsl");

/// Accumulators of a lane that stay in registers; more are loaded and stored at every step.
const REGISTERS: usize = 20;

/// What loading and storing an accumulator costs, in multiply-adds of a subgroup; less where
/// picks between them leave time for it.
const SPILL_COST: usize = 3;
const SPILL_COST_POOLED: usize = 1;

/// Most multiply-adds of the unrolled body: 1150 are a twentieth faster, and take 0.7 s longer
/// to compile. Behind a pool, where some are picks, twice as many are no faster.
const UNROLLED: usize = 900;
const UNROLLED_POOLED: usize = 600;

/// Bytes of the images of a part: all blocks of filters and channels go over them one after
/// the other, so they should stay in a core's cache.
const PART_BYTES: u64 = 1 << 19;

/// How a weight gradient is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tiling {
    span: Span,
    patch: Patch,
    channels: usize,
}

/// What a weight gradient is of.
#[derive(Clone, Copy)]
struct Task<'a> {
    op: &'a Conv2dWeightGrad,
    geometry: &'a Geometry,
    /// Rows and columns of a pool window, of a single output where there is no pool.
    pool: [usize; 2],
    lanes: usize,
}

impl Tiling {
    /// The cheapest tiling, or `None` where even a single window unrolls too far. Patches
    /// are whole pool windows.
    fn best(task: &Task<'_>) -> Option<Self> {
        const MOST_CHANNELS: usize = 16;
        // What no window of the pool reaches has no gradient.
        let geometry = &task.geometry.covered(task.pool);
        let taps: usize = geometry.window.kernel.iter().product();
        // Four filters a lane have too many masks for the registers behind a pool.
        let (unrolled, spans) = match task.op.upstream.pool {
            Some(_) => (UNROLLED_POOLED, &[Span::Two][..]),
            None => (UNROLLED, &Span::ALL[..]),
        };
        let tilings = |span: Span| {
            let most = unrolled / (span.len() * taps);
            (1..=geometry.c.min(MOST_CHANNELS).min(most)).flat_map(move |channels| {
                let patches = Patch::all(task.pool, geometry.output, most / channels);
                patches.map(move |patch| Self {
                    span,
                    patch,
                    channels,
                })
            })
        };
        spans
            .iter()
            .copied()
            .flat_map(tilings)
            .min_by_key(|tiling| tiling.cost(task))
    }

    /// What an image costs.
    fn cost(&self, task: &Task<'_>) -> usize {
        let geometry = &task.geometry.covered(task.pool);
        let window = &geometry.window;
        let taps: usize = window.kernel.iter().product();
        let outputs = self.patch.outputs();
        // Behind a pool each window has a gradient, a slope and a winner.
        let (taken, spill_cost) = match task.op.upstream.pool {
            None => (outputs, SPILL_COST),
            Some(_) => {
                let window: usize = task.pool.iter().product();
                (3 * outputs / window, SPILL_COST_POOLED)
            }
        };
        // Rows of x come in chunks of as many as lie between a patch and the one below it; the
        // others under a patch have been loaded for those above.
        let [height, width] = self.patch.inputs(window);
        let rows = self.patch.0[0] * window.stride[0];
        let chunk = self.channels * (rows * width).div_ceil(task.lanes);
        let span = self.span.len();
        let sums = span * taps * self.channels;
        let spilled = sums.saturating_sub(REGISTERS);
        let loads = (span * taken + chunk) * lanes::LOAD_COST;
        let step = loads + sums * outputs + spilled * spill_cost;
        let [patches, strips] = self.patch.grid(geometry.output);
        let first = (height.div_ceil(rows) - 1) * chunk * lanes::LOAD_COST;
        let strip = patches * step + first;
        self.blocks(geometry, task.lanes) * strips * strip
    }

    /// Blocks of filters and channels in a group.
    fn blocks(&self, geometry: &Geometry, lanes: usize) -> usize {
        self.span.blocks(geometry.o, lanes) * geometry.c.div_ceil(self.channels)
    }
}

/// Inputs `dy`, or those of the pool's gradient, and `x`.
pub(super) fn weight_grad(
    profile: &Profile,
    geometry: &Geometry,
    op: &Conv2dWeightGrad,
) -> Option<Launch> {
    let task = Task {
        op,
        geometry,
        pool: match &op.upstream.pool {
            Some(pool) => pool.tile()?,
            None => [1, 1],
        },
        lanes: lanes::lanes(profile),
    };
    let tiling = Tiling::best(&task)?;
    let blocks = geometry.groups * tiling.blocks(geometry, task.lanes);
    let parts = parts(geometry, blocks)?;
    let kernel = Kernel::new(CORRELATE).set("SPAN", tiling.span.len());
    let kernel = geometry
        .specialise(op.upstream.specialise(lanes::specialise(kernel, profile)))
        .set("PARTS", parts)
        .set("PATCH_H", tiling.patch.0[0])
        .set("PATCH_W", tiling.patch.0[1])
        .set("CHANNELS", tiling.channels)
        .set("POOL_H", task.pool[0])
        .set("POOL_W", task.pool[1]);
    let depth = u32::try_from(parts).ok()?;
    Some(
        op.in_parts(geometry, parts, kernel, |kernel, mut bindings| {
            bindings.extend(op.upstream.bindings());
            bindings.push(("x", Arg::Input(op.upstream.operand())));
            let mut dispatch = Dispatch::linear(kernel, bindings, blocks);
            dispatch.workgroups[2] = depth;
            dispatch
        }),
    )
}

/// Parts of the images, each summed by so many blocks of filters and channels.
fn parts(geometry: &Geometry, blocks: usize) -> Option<usize> {
    let bytes = geometry.x().bytes() + geometry.y().bytes();
    let cached = usize::try_from(bytes.div_ceil(PART_BYTES)).ok()?;
    let most = usize::try_from(gemm::MOST_PART_BYTES as u64 / geometry.w().bytes()).ok()?;
    let most = most.clamp(1, geometry.images);
    let parts = lanes::BUSY_WORKGROUPS
        .div_ceil(blocks)
        .max(cached)
        .min(most);
    // Parts of as many images each spare the kernel a mask, where not too many more are needed.
    let alike = (parts..=most.min(2 * parts)).find(|n| geometry.images.is_multiple_of(*n));
    Some(alike.unwrap_or(parts))
}
