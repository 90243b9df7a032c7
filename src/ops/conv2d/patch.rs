//! Convolution and its input gradient on software adapters: `shaders/conv2d/patch.wgsl`.

use super::{Conv2d, Geometry};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::Profile;
use crate::ops::activation::{FUNCTIONS, Function};
use crate::ops::{Window, lanes};
use crate::shader;

const PACK: ShaderFile = shader!("conv2d/pack.wgsl");
const PATCH: ShaderFile = shader!("conv2d/patch.wgsl");
const PACK_WORKGROUP: usize = 64;

/// Multiply-adds that use one accumulator in a step, at least: carrying an accumulator
/// round the loop costs as much as two of them.
const LEAST_TERMS: usize = 8;

/// Where the kernel puts its results: all of them, or each pool window's winner.
const PUT: ShaderFile = shader!("conv2d/put.wgsl");
const PUT_POOLED: ShaderFile = shader!("conv2d/put_pooled.wgsl");

/// How one convolution is cut into patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tiling {
    patch: [usize; 2],
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
        let most = lanes::MOST_UNROLLED * plan.gap_area() / (4 * taps * channels);
        let [oh, ow] = geometry.output;
        let heights = (unit[0]..=oh.next_multiple_of(unit[0]).min(most)).step_by(unit[0]);
        heights
            .flat_map(|h| {
                let widths =
                    (unit[1]..=ow.next_multiple_of(unit[1]).min(most / h)).step_by(unit[1]);
                widths.map(move |w| [h, w])
            })
            .map(|patch| Self { patch, channels })
            .min_by_key(|tiling| tiling.cost(plan, geometry, lanes))
    }

    fn cost(&self, plan: &Plan, geometry: &Geometry, lanes: usize) -> usize {
        let window = &geometry.window;
        let taps: usize = window.kernel.iter().product();
        let area =
            [0, 1].map(|axis| (self.patch[axis] - 1) * window.stride[axis] + window.span()[axis]);
        let outputs = self.patch[0] * self.patch[1];
        let loads =
            (area[0] * area[1]).div_ceil(lanes) * lanes::LOAD_COST + taps * lanes::LOAD_VEC4_COST;
        let products = 4 * taps * outputs / plan.gap_area();
        let step = self.channels * (loads + products) + 4 * outputs * lanes::CARRY_COST;
        self.patches(geometry) * step
    }

    fn patches(&self, geometry: &Geometry) -> usize {
        let count = |axis: usize| geometry.output[axis].div_ceil(self.patch[axis]);
        count(0) * count(1)
    }
}

/// What the kernels are told beyond the geometry.
struct Plan {
    geometry: Geometry,
    /// The padding above and to the left, which can be negative.
    pads: [i64; 2],
    /// Distance of the input's rows and columns, with zeros between; 1 for none.
    gap: [usize; 2],
    /// The filters are another convolution's, turned round.
    flip: bool,
    /// Rows and columns of the pool windows that tile the output.
    pool: Option<[usize; 2]>,
    bias: bool,
    activation: Function,
}

impl Plan {
    /// Outputs that cannot be told apart: of a pool window, or from gap to gap.
    fn unit(&self) -> [usize; 2] {
        self.pool.unwrap_or(self.gap)
    }

    /// Products of a tap for each that does not fall into a gap.
    fn gap_area(&self) -> usize {
        self.gap.iter().product()
    }
}

/// Inputs `x`, `w` and, where `bias`, `bias`.
pub(super) fn forward(profile: &Profile, geometry: &Geometry, op: &Conv2d) -> Option<Launch> {
    let pads = geometry.window.pads;
    let pool = match op.pool() {
        Some(pool) => Some(pool.tile(geometry.output)?),
        None => None,
    };
    launch(
        profile,
        &Plan {
            geometry: *geometry,
            pads: [pads.top as i64, pads.left as i64],
            gap: [1, 1],
            flip: false,
            pool,
            bias: op.bias,
            activation: op.activation,
        },
    )
}

/// Inputs `dy`, `w`: a convolution of `dy`, with gaps where the stride skips, with the
/// filters turned round, from output to input channels, padded by what a window reaches
/// beyond its own padding.
pub(super) fn input_grad(profile: &Profile, geometry: &Geometry) -> Option<Launch> {
    let window = geometry.window;
    let complement = |axis: usize, near: usize| window.span()[axis] as i64 - 1 - near as i64;
    launch(
        profile,
        &Plan {
            geometry: Geometry {
                window: Window {
                    pads: Default::default(),
                    stride: [1, 1],
                    ..window
                },
                c: geometry.o,
                o: geometry.c,
                image: geometry.output,
                output: geometry.image,
                ..*geometry
            },
            pads: [
                complement(0, window.pads.top),
                complement(1, window.pads.left),
            ],
            gap: window.stride,
            flip: true,
            pool: None,
            bias: false,
            activation: Function::Identity,
        },
    )
}

fn launch(profile: &Profile, plan: &Plan) -> Option<Launch> {
    let pool = plan.pool.unwrap_or([1, 1]);
    let phase = [0, 1].map(|axis| plan.pads[axis].rem_euclid(plan.gap[axis] as i64) as u32);
    // What no window of the pool reaches need not be computed.
    let geometry = &plan.geometry.covered(pool);
    let lanes = lanes::lanes(profile);
    let tiling = Tiling::best(plan, geometry, lanes)?;
    let taps: usize = geometry.window.kernel.iter().product();
    let quads = geometry.o.div_ceil(4);
    let packed = geometry.groups * geometry.c * taps * quads * 4;

    let [filters, channels] = if plan.flip {
        [geometry.c, geometry.o]
    } else {
        [geometry.o, geometry.c]
    };
    let pack = Kernel::new(PACK)
        .set("WORKGROUP", PACK_WORKGROUP)
        .set("GROUPS", geometry.groups)
        .set("O", filters)
        .set("C", channels)
        .set("TAPS", taps)
        .set("FLIP", plan.flip);
    let pack_bindings = vec![("w", Arg::Input(1)), ("packed", Arg::Scratch(0))];

    let kernel = Kernel::new(PATCH).hook("activate", FUNCTIONS, plan.activation.shader_name());
    let kernel = match plan.pool {
        Some(_) => kernel.hook("put", PUT_POOLED, "put_pooled"),
        None => kernel.hook("put", PUT, "put_value"),
    };
    let kernel = match plan.bias {
        true => kernel,
        false => kernel.sparse("bias"),
    };
    let kernel = plan
        .geometry
        .specialise(lanes::specialise(kernel, profile))
        .set("PAD_TOP", plan.pads[0] as u32)
        .set("PAD_LEFT", plan.pads[1] as u32)
        .set("GAP_Y", plan.gap[0])
        .set("GAP_X", plan.gap[1])
        .set("PHASE_Y", phase[0])
        .set("PHASE_X", phase[1])
        .set("PATCH_H", tiling.patch[0])
        .set("PATCH_W", tiling.patch[1])
        .set("CHANNELS", tiling.channels)
        .set("POOL_H", pool[0])
        .set("POOL_W", pool[1])
        .set("HAS_BIAS", plan.bias)
        .set("ALPHA", plan.activation.alpha());
    let mut bindings = vec![
        ("x", Arg::Input(0)),
        ("packed", Arg::Scratch(0)),
        // Without a bias the binding is never read; any input will do.
        ("bias", Arg::Input(if plan.bias { 2 } else { 1 })),
        ("y", Arg::Output(0)),
    ];
    if plan.pool.is_some() {
        bindings.push(("argmax", Arg::Output(1)));
    }
    let places = geometry.images * tiling.patches(geometry);
    let mut patch = Dispatch::linear(kernel, bindings, places);
    patch.workgroups[2] = u32::try_from(geometry.groups * quads.div_ceil(lanes)).ok()?;
    Some(Launch {
        scratch: vec![(packed * 4) as u64],
        dispatches: vec![
            Dispatch::linear(pack, pack_bindings, packed.div_ceil(PACK_WORKGROUP)),
            patch,
        ],
    })
}
