//! Depthwise convolutions, where each output channel sees one input channel:
//! `shaders/conv2d/depthwise.wgsl` and `shaders/conv2d/depthwise_weights.wgsl`.

use super::plan::Plan;
use super::{Conv2dWeightGrad, Geometry};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::{Profile, ProfileKind};
use crate::ops::{gemm, lanes};
use crate::shader;

const DEPTHWISE: ShaderFile = shader!("conv2d/depthwise.wgsl");
const WEIGHTS: ShaderFile = shader!("conv2d/depthwise_weights.wgsl");
const ROW: ShaderFile = shader!("conv2d/row.wgsl");

/// Invocations of a workgroup on GPUs.
const WORKGROUP: usize = 64;

/// Columns and rows of an invocation's strip on GPUs: a vec4, and so many that the rows which
/// neighbours read as well weigh little.
const GPU_COLUMNS: usize = 4;
const GPU_STRIP: usize = 8;

/// Workgroups that keep a GPU evenly busy.
const BUSY_GPU: usize = 512;

/// Images of an invocation, at most: so many make up for reading its filter.
const MOST_EACH: usize = 8;

/// Iterations of a loop that Mesa unrolls, at most; an array that one indexes which is not
/// unrolled leaves the registers, and the kernel takes five times as long.
const MOST_ITERATIONS: usize = 32;

/// A depthwise convolution and where it runs.
struct Task<'a> {
    geometry: &'a Geometry,
    /// Rows and columns of padding before the rows and columns that there are of the input.
    pads: [i64; 2],
    /// Distance of these.
    gap: [usize; 2],
    /// The first of them in a window.
    phase: [usize; 2],
    /// The sums are those of the taps, not of the outputs.
    weights: bool,
    profile: &'a Profile,
}

/// How the output is cut into strips: rows and columns of a step, rows of a strip, and images
/// of an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Strips {
    step: [usize; 2],
    rows: usize,
    each: usize,
}

impl<'a> Task<'a> {
    fn new(geometry: &'a Geometry, pads: [i64; 2], gap: [usize; 2], profile: &'a Profile) -> Self {
        let phase = [0, 1].map(|axis| pads[axis].rem_euclid(gap[axis] as i64) as usize);
        let pads = [0, 1].map(|axis| pads[axis].div_euclid(gap[axis] as i64));
        Self {
            geometry,
            pads,
            gap,
            phase,
            weights: false,
            profile,
        }
    }

    fn planes(&self) -> usize {
        self.geometry.groups * self.geometry.o
    }

    fn workgroup(&self) -> usize {
        match self.profile.kind {
            ProfileKind::CpuLike => lanes::lanes(self.profile),
            ProfileKind::Gpu => WORKGROUP,
        }
    }

    fn taps(&self) -> usize {
        self.geometry.window.kernel.iter().product()
    }

    /// The strips that suit the device, or `None` where even the narrowest unrolls too far.
    fn strips(&self) -> Option<Strips> {
        let step = match self.profile.kind {
            ProfileKind::CpuLike => self.cheapest_step()?,
            ProfileKind::Gpu => [self.gap[0], GPU_COLUMNS.next_multiple_of(self.gap[1])],
        };
        if self.products(step) > lanes::MOST_UNROLLED {
            return None;
        }
        let rows = self.rows(step);
        let [oh, ow] = self.geometry.output;
        let strips = self.planes() * oh.div_ceil(rows) * ow.div_ceil(step[1]);
        let each = self.each(strips)?;
        Some(Strips { step, rows, each })
    }

    /// Invocations that keep the device evenly busy.
    fn busy(&self) -> usize {
        let workgroups = match self.profile.kind {
            ProfileKind::CpuLike => lanes::BUSY_WORKGROUPS,
            ProfileKind::Gpu => BUSY_GPU,
        };
        workgroups * self.workgroup()
    }

    /// Rows of a strip: whole images where that keeps the device busy, as the rows at a cut are
    /// read twice.
    fn rows(&self, step: [usize; 2]) -> usize {
        let [oh, ow] = self.geometry.output;
        let wide = self.geometry.images * self.planes() * ow.div_ceil(step[1]);
        let rows = match self.profile.kind {
            ProfileKind::Gpu if !self.weights => GPU_STRIP.min(oh),
            _ => oh.div_ceil(self.busy().div_ceil(wide)),
        };
        rows.next_multiple_of(step[0])
    }

    /// Images of an invocation, where an image has so many strips: as many as leave the device
    /// busy. `None` where the parts of a weight gradient take too much memory even so.
    fn each(&self, strips: usize) -> Option<usize> {
        let images = self.geometry.images;
        let fits = |each: usize| {
            let bytes = images / each * strips * self.taps() * size_of::<f32>();
            images.is_multiple_of(each) && (bytes <= gemm::MOST_PART_BYTES || !self.weights)
        };
        let most = match self.weights {
            true => images,
            false => MOST_EACH.min(images),
        };
        let mut each = (1..=most).filter(|each| fits(*each));
        let least = each.next()?;
        let busy = each.take_while(|each| images / each * strips >= self.busy());
        Some(busy.last().unwrap_or(least))
    }

    /// The step on a software adapter that costs least for what it computes.
    fn cheapest_step(&self) -> Option<[usize; 2]> {
        let [oh, ow] = self.geometry.output;
        let most = lanes::SHORT_UNROLLED * self.gap.iter().product::<usize>() / self.taps();
        let side = |axis: usize, most: usize| {
            let whole = [oh, ow][axis].next_multiple_of(self.gap[axis]);
            (self.gap[axis]..=whole.min(most)).step_by(self.gap[axis])
        };
        side(0, most)
            .flat_map(|rows| side(1, most / rows).map(move |columns| [rows, columns]))
            .filter(|step| self.reach(*step).into_iter().max() <= Some(MOST_ITERATIONS))
            .min_by_key(|step| self.cost(*step))
    }

    /// What a plane costs by steps of so many rows and columns.
    fn cost(&self, step: [usize; 2]) -> usize {
        let [rows, columns] = step;
        let [oh, ow] = self.geometry.output;
        let [window, row] = self.reach(step);
        let advance = rows * self.geometry.window.stride[0] / self.gap[0];
        let kept = window.saturating_sub(advance);
        let read = match self.early(columns) {
            Some(early) => (early + row).div_ceil(4) * lanes::LOAD_VEC4_COST,
            None => row * lanes::LOAD_COST,
        };
        let quads = self.in_quads(columns);
        let outputs = match (self.weights, quads) {
            (true, true) => columns / 4 * lanes::LOAD_VEC4_COST,
            (true, false) => columns * lanes::LOAD_COST,
            (false, true) => columns / 4 * lanes::STORE_VEC4_COST,
            (false, false) => columns * lanes::STORE_COST,
        };
        let steps = oh.div_ceil(rows);
        let sums = if self.weights { self.taps() } else { 0 };
        let carried = match steps {
            1 => 0,
            _ => (kept * row + sums) * lanes::CARRY_COST,
        };
        let each_step = (window - kept) * read + rows * outputs + self.products(step) + carried;
        let strip = kept * read + steps * each_step + self.taps() * lanes::LOAD_COST / MOST_EACH;
        strip * ow.div_ceil(columns)
    }

    /// Multiply-adds of a step.
    fn products(&self, [rows, columns]: [usize; 2]) -> usize {
        rows * columns * self.taps() / self.gap.iter().product::<usize>()
    }

    /// Rows and columns of the input under a step of so many outputs.
    fn reach(&self, step: [usize; 2]) -> [usize; 2] {
        let window = &self.geometry.window;
        [0, 1].map(|axis| {
            let last = (step[axis] - 1) * window.stride[axis] + window.span()[axis] - 1;
            (last - self.phase[axis]) / self.gap[axis] + 1
        })
    }

    /// How far after a whole vec4 strips of so many columns begin in the input's rows, if all
    /// do alike and its rows are whole vec4.
    fn early(&self, columns: usize) -> Option<usize> {
        let apart = columns * self.geometry.window.stride[1] / self.gap[1];
        let alike = columns >= self.geometry.output[1] || apart.is_multiple_of(4);
        let whole = self.geometry.image[1].is_multiple_of(4);
        (alike && whole).then(|| (-self.pads[1]).rem_euclid(4) as usize)
    }

    /// Whether the output's rows, cut so, are whole vec4.
    fn in_quads(&self, columns: usize) -> bool {
        self.geometry.output[1].is_multiple_of(4) && columns.is_multiple_of(4)
    }

    /// Sets what both kernels have.
    fn specialise(&self, kernel: Kernel, strips: &Strips) -> Kernel {
        let [rows, columns] = strips.step;
        let early = self.early(columns);
        // x is read one way.
        let kernel = kernel
            .hook("row", ROW, "row_of_image")
            .sparse(if early.is_some() { "x" } else { "x4" });
        self.geometry
            .specialise(kernel)
            .set("WORKGROUP", self.workgroup())
            .set("PAD_TOP", self.pads[0] as u32)
            .set("PAD_LEFT", self.pads[1] as u32)
            .set("ROWS", rows)
            .set("COLUMNS", columns)
            .set("STRIP", strips.rows)
            .set("EACH", strips.each)
            .set("IMAGE_H", self.geometry.image[0])
            .set("IMAGE_W", self.geometry.image[1])
            .set("IMAGE_ROW", self.reach(strips.step)[1])
            .set("IN_QUADS_X", early.is_some())
            .set("EARLY", early.unwrap_or(0))
    }

    /// Invocations for each channel.
    fn parts(&self, strips: &Strips) -> usize {
        let [oh, ow] = self.geometry.output;
        let pieces = oh.div_ceil(strips.rows) * ow.div_ceil(strips.step[1]);
        self.geometry.images / strips.each * pieces
    }

    fn workgroups(&self, strips: &Strips) -> usize {
        (self.parts(strips) * self.planes()).div_ceil(self.workgroup())
    }
}

/// Inputs as the plan's. `None` where it is not a depthwise convolution, or a pool follows.
pub(super) fn launch(profile: &Profile, plan: &Plan) -> Option<Launch> {
    if !is_depthwise(&plan.geometry) || plan.pool.is_some() {
        return None;
    }
    let task = Task::new(&plan.geometry, plan.pads, plan.gap, profile);
    let strips = task.strips()?;
    let kernel = plan.finish(Kernel::new(DEPTHWISE), task.in_quads(strips.step[1]));
    let kernel = task
        .specialise(kernel, &strips)
        .set("GAP_Y", plan.gap[0])
        .set("GAP_X", plan.gap[1])
        .set("PHASE_Y", task.phase[0])
        .set("PHASE_X", task.phase[1])
        .set("FLIP", plan.flip);
    let [x, w] = [Arg::Input(0), Arg::Input(1)];
    let mut bindings = vec![("x", x), ("x4", x), ("w", w)];
    bindings.extend(plan.results());
    Some(Dispatch::linear(kernel, bindings, task.workgroups(&strips)).into())
}

/// Inputs `dy` and `x`. `None` where it is not of a depthwise convolution, or a pool follows.
pub(super) fn weight_grad(
    profile: &Profile,
    geometry: &Geometry,
    op: &Conv2dWeightGrad,
) -> Option<Launch> {
    if !is_depthwise(geometry) {
        return None;
    }
    let pads = geometry.window.pads;
    let pads = [pads.top as i64, pads.left as i64];
    let task = Task {
        weights: true,
        ..Task::new(geometry, pads, [1, 1], profile)
    };
    let strips = task.strips()?;
    let quads = task.in_quads(strips.step[1]);
    let kernel = Kernel::new(WEIGHTS).sparse(if quads { "dy" } else { "dy4" });
    let kernel = task
        .specialise(kernel, &strips)
        .set("IN_QUADS_DY", quads)
        .set("PARTS_FIRST", profile.kind == ProfileKind::Gpu);
    let [dy, x] = [Arg::Input(0), Arg::Input(1)];
    let parts = task.parts(&strips);
    Some(
        op.in_parts(geometry, parts, kernel, |kernel, mut bindings| {
            bindings.extend([("x", x), ("x4", x), ("dy", dy), ("dy4", dy)]);
            Dispatch::linear(kernel, bindings, task.workgroups(&strips))
        }),
    )
}

/// Whether sums are over the taps of one channel.
pub(super) fn is_depthwise(geometry: &Geometry) -> bool {
    geometry.c == 1 && geometry.groups > 1
}
