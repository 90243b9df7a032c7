//! Convolutions of 3 x 3 by Winograd's F(4 x 4, 3 x 3): `shaders/conv2d/winograd/`.

use super::Geometry;
use super::plan::Plan;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile, Share};
use crate::gpu::profile::{Profile, ProfileKind};
use crate::ops::Tolerance;
use crate::ops::gemm::{Engine, Extents};
use crate::ops::matmul::{self, MatMul};
use crate::shader;

const TRANSFORM: ShaderFile = shader!("conv2d/winograd/transform.wgsl");
const LINES: ShaderFile = shader!("conv2d/winograd/lines.wgsl");
const IMAGES: ShaderFile = shader!("conv2d/winograd/images.wgsl");
const FILTERS: ShaderFile = shader!("conv2d/winograd/filters.wgsl");
const OUTPUTS: ShaderFile = shader!("conv2d/winograd/outputs.wgsl");
const WEIGHTS: ShaderFile = shader!("conv2d/winograd/weights.wgsl");
const READ_POSITIONS: ShaderFile = shader!("conv2d/winograd/read_positions.wgsl");
const WRITE_POSITIONS: ShaderFile = shader!("conv2d/winograd/write_positions.wgsl");
const WORKGROUP: usize = 64;

/// Rows and columns of filters, of tiles of outputs, and of the pixels below a tile, which are
/// those of the transforms.
const TAPS: usize = 3;
const TILE: usize = 4;
const SIDE: usize = TILE + TAPS - 1;
const POSITIONS: usize = SIDE * SIDE;

/// What computing by Winograd costs, in units of a multiply-add of the kernel that computes the
/// same by its definition.
struct Costs {
    /// A multiply-add of a position's product.
    product: f64,
    /// Transforming a tile of a channel, for each position.
    transform: f64,
    /// Transforming the weights of a filter for a channel, for each position.
    filter: f64,
}

/// On lavapipe `matmul/lanes.wgsl` takes longer for a multiply-add than `conv2d/patch.wgsl`, and
/// storing a vec4 of eight lanes as long as 70. Measured by where both are even.
const CPU_LIKE: Costs = Costs {
    product: 1.5,
    transform: 70.0,
    filter: 70.0,
};

/// There `conv2d/correlate.wgsl` takes somewhat longer than the patches.
const CPU_LIKE_WEIGHTS: Costs = Costs {
    product: 1.3,
    transform: 60.0,
    filter: 20.0,
};

/// On GPUs the same kernel multiplies either way; 16 bytes of a position go by with about a
/// hundred floating-point operations.
const GPU: Costs = Costs {
    product: 1.0,
    transform: 50.0,
    filter: 50.0,
};

/// Most bytes of the positions of a share of the images. The next step finds them in a cache.
const CACHED_BYTES: usize = 4 << 20;
const GPU_BYTES: usize = 64 << 20;

/// Most bytes of partial sums of a weight gradient.
const PARTIAL_BYTES: usize = 64 << 20;

impl Costs {
    /// Those of a device, of which software adapters have these.
    fn on(profile: &Profile, cpu_like: Self) -> Self {
        match profile.kind {
            ProfileKind::CpuLike => cpu_like,
            ProfileKind::Gpu => GPU,
        }
    }

    /// Whether F(4 x 4, 3 x 3) computes a convolution at all, and sooner than its definition.
    fn pay(&self, geometry: &Geometry, gap: [usize; 2], pool: [usize; 2]) -> bool {
        let window = &geometry.window;
        let is_plain = window.kernel == [TAPS; 2]
            && [window.stride, window.dilation, gap] == [[1, 1]; 3]
            && geometry.groups == 1
            && pool.iter().all(|side| TILE.is_multiple_of(*side));
        let Geometry { c, o, images, .. } = *geometry;
        let geometry = geometry.covered(pool);
        let tiles = images * tiles(&geometry).iter().product::<usize>();
        let direct = images * geometry.pixels() * TAPS * TAPS * c * o;
        let products = self.product * (tiles * c * o) as f64;
        let transforms = self.transform * (tiles * (c + o)) as f64 + self.filter * (c * o) as f64;
        is_plain && POSITIONS as f64 * (products + transforms) < direct as f64
    }
}

/// Whether it pays for a convolution before that pool, or its weight gradient, on some device.
pub(super) fn may_pay(geometry: &Geometry, pool: [usize; 2]) -> bool {
    let pay = |costs: &Costs| costs.pay(geometry, [1, 1], pool);
    pay(&CPU_LIKE_WEIGHTS) || pay(&GPU)
}

/// How much farther than a plain sum's its rounding errors reach, where it pays. An error of a
/// position counts by the squares of the entries of A^T, B^T and G that it meets: for the worst
/// row, 94 in each direction, against the 9 products of a plain sum; sqrt(94^2 / 9) = 32. The
/// gradients' transposed matrices give less.
pub(super) fn tolerance(geometry: &Geometry, pool: [usize; 2], plain: Tolerance) -> Tolerance {
    const AMPLIFICATION: f64 = 32.0;
    match may_pay(geometry, pool) {
        true => Tolerance {
            absolute: AMPLIFICATION * plain.absolute,
            ..plain
        },
        false => plain,
    }
}

/// Rows and columns of tiles of an image's output.
fn tiles(geometry: &Geometry) -> [usize; 2] {
    geometry.output.map(|extent| extent.div_ceil(TILE))
}

/// The images, cut into shares whose positions stay in a cache.
#[derive(Clone, Copy)]
struct Shares {
    of: usize,
    /// Images of a share, and quads of their tiles.
    images: usize,
    quads: usize,
}

impl Shares {
    /// The largest shares with at most `most` bytes of positions on the wider of both sides, or
    /// else the smallest; `planes` are the elements of an image in each tensor of which a share
    /// is bound.
    fn new(profile: &Profile, geometry: &Geometry, most: usize, planes: &[usize]) -> Option<Self> {
        // A share of a tensor in half precision has two bytes an element.
        let is_aligned = |images: usize| {
            let mut bytes = planes.iter().map(|plane| (2 * plane * images) as u64);
            bytes.all(|bytes| bytes.is_multiple_of(profile.binding_alignment))
        };
        let [rows, columns] = tiles(geometry);
        let shares = (1..=geometry.images)
            .filter(|of| geometry.images.is_multiple_of(*of))
            .map(|of| {
                let images = geometry.images / of;
                let quads = (images * rows * columns).div_ceil(4);
                Self { of, images, quads }
            })
            .filter(|share| share.of == 1 || is_aligned(share.images));
        let widest = quads(geometry.c.max(geometry.o)) * 4;
        let bytes = |share: &Self| positions(widest, share.quads);
        let fits = |share: &Self| bytes(share) as u64 <= profile.max_binding;
        let mut shares = shares.peekable();
        while let Some(share) = shares.next() {
            if bytes(&share) <= most || shares.peek().is_none() {
                return Some(share).filter(fits);
            }
        }
        None
    }

    fn each(self) -> impl Iterator<Item = Share> {
        (0..self.of).map(move |index| Share { index, of: self.of })
    }
}

fn quads(extent: usize) -> usize {
    extent.div_ceil(4)
}

/// Vec4 from one position of so many planes, each of so many quads, to the next: whole pages
/// and a little more, so that the positions of a tile do not all fall into one set of a cache.
fn step(planes: usize, quads: usize) -> usize {
    const PAGE: usize = 4096 / 16;
    const SKEW: usize = 128 / 16;
    (planes * quads).next_multiple_of(PAGE) + SKEW
}

/// Bytes of those positions.
fn positions(planes: usize, quads: usize) -> usize {
    POSITIONS * step(planes, quads) * 16
}

fn most_bytes(profile: &Profile) -> usize {
    match profile.kind {
        ProfileKind::CpuLike => CACHED_BYTES,
        ProfileKind::Gpu => GPU_BYTES,
    }
}

/// A transform of `planes` by `quads` patches of `from` rows and columns into `to`.
fn transform(
    line: &'static str,
    [planes, quads]: [usize; 2],
    [from, to]: [usize; 2],
    adapt: impl FnOnce(Kernel) -> Kernel,
    bindings: Vec<(&'static str, Arg)>,
) -> Dispatch {
    let kernel = Kernel::new(TRANSFORM)
        .hook("transform", LINES, line)
        .set("WORKGROUP", WORKGROUP)
        .set("PLANES", planes)
        .set("QUADS", quads)
        .set("FROM", from)
        .set("TO", to);
    Dispatch::linear(
        adapt(kernel),
        bindings,
        (planes * quads).div_ceil(WORKGROUP),
    )
}

/// `scaled` is one side of every product: filters, or gradients.
fn write_positions(kernel: Kernel, [planes, quads]: [usize; 2], scaled: bool) -> Kernel {
    kernel
        .hook("give", WRITE_POSITIONS, "write_positions")
        .set("SCALED", scaled)
        .set("POSITION_STEP", step(planes, quads))
        .set("POSITION_QUADS", quads)
}

fn read_positions(kernel: Kernel, [planes, quads]: [usize; 2], parts: usize) -> Kernel {
    kernel
        .hook("take", READ_POSITIONS, "read_positions")
        .set("POSITION_STEP", step(planes, quads))
        .set("POSITION_QUADS", quads)
        .set("PARTS", parts)
}

/// The transform of a share of the images of an input into positions of `planes` planes.
struct Tiles<'a> {
    line: &'static str,
    scaled: bool,
    geometry: &'a Geometry,
    shares: Shares,
    /// Channels, rows and columns of the input.
    channels: usize,
    image: [usize; 2],
    pads: [i64; 2],
    side: usize,
}

impl<'a> Tiles<'a> {
    /// The images, with so much padding above and to the left.
    fn images(geometry: &'a Geometry, shares: Shares, pads: [i64; 2]) -> Self {
        Self {
            line: "image_line",
            scaled: false,
            geometry,
            shares,
            channels: geometry.c,
            image: geometry.image,
            pads,
            side: SIDE,
        }
    }

    /// The gradients of the outputs.
    fn gradients(geometry: &'a Geometry, shares: Shares) -> Self {
        Self {
            line: "gradient_line",
            scaled: true,
            geometry,
            shares,
            channels: geometry.o,
            image: geometry.output,
            pads: [0, 0],
            side: TILE,
        }
    }

    fn dispatch(&self, planes: usize, share: Share, from: Arg, to: Arg) -> Dispatch {
        let [rows, columns] = tiles(self.geometry);
        let extent = [planes, self.shares.quads];
        let adapt = |kernel: Kernel| {
            let kernel = kernel.hook("take", IMAGES, "read_tiles");
            write_positions(kernel, extent, self.scaled)
                .set("IMAGES", self.shares.images)
                .set("CHANNELS", self.channels)
                .set("H", self.image[0])
                .set("W", self.image[1])
                .set("PAD_TOP", self.pads[0] as u32)
                .set("PAD_LEFT", self.pads[1] as u32)
                .set("SIDE", self.side)
                .set("STEP", TILE)
                .set("TILES_Y", rows)
                .set("TILES_X", columns)
        };
        let bindings = vec![("x", from), ("positions", to)];
        transform(self.line, extent, [self.side, SIDE], adapt, bindings).share("x", share)
    }
}

/// The transform of a plan's filters.
fn transformed_filters(plan: &Plan, to: Arg) -> Dispatch {
    let extent = [plan.geometry.o, quads(plan.geometry.c)];
    let [filters, channels] = plan.filters();
    let adapt = |kernel: Kernel| {
        let kernel = kernel.hook("take", FILTERS, "read_filters");
        write_positions(kernel, extent, true)
            .set("O", filters)
            .set("C", channels)
            .set("FLIP", plan.flip)
    };
    let bindings = vec![("w", Arg::Input(1)), ("positions", to)];
    transform("filter_line", extent, [TAPS, SIDE], adapt, bindings)
}

/// The results of a plan from a share's sums.
fn results(plan: &Plan, shares: Shares, share: Share, sums: Arg) -> Dispatch {
    let geometry = plan.geometry.covered(plan.pool_window());
    let extent = [geometry.o, shares.quads];
    let [rows, columns] = tiles(&geometry);
    let adapt = |kernel: Kernel| {
        let kernel = read_positions(kernel, extent, 1);
        let kernel = kernel.hook("give", OUTPUTS, "write_outputs");
        plan.finish(kernel, plan.in_quads(TILE))
            .set("IMAGES", shares.images)
            .set("O", geometry.o)
            .set("OH", plan.geometry.output[0])
            .set("OW", plan.geometry.output[1])
            .set("TILES_Y", rows)
            .set("TILES_X", columns)
    };
    let mut bindings = vec![("products", sums)];
    bindings.extend(plan.results());
    let outputs = transform("output_line", extent, [SIDE, TILE], adapt, bindings);
    let outputs = outputs.share("y", share);
    match plan.pool {
        Some(_) => outputs.share("argmax", share),
        None => outputs,
    }
}

/// The positions' products, in so many splits, of matrices of `extents`, planes and quads each.
fn products(
    profile: &Profile,
    op: MatMul,
    [a, b, c]: [(Arg, [usize; 2]); 3],
    extents: &Extents,
    splits: usize,
) -> Dispatch {
    let steps = [a.1, b.1, c.1].map(|[planes, quads]| 4 * step(planes, quads));
    matmul::batched(profile, op, extents, splits, [a.0, b.0, c.0], steps)
}

/// The launch, where all its scratch can be bound.
fn bindable(profile: &Profile, launch: Launch) -> Option<Launch> {
    let most = launch.scratch.iter().max()?;
    (*most <= profile.max_binding).then_some(launch)
}

/// Inputs as the plan's.
pub(super) fn launch(profile: &Profile, plan: &Plan) -> Option<Launch> {
    let pool = plan.pool_window();
    if !Costs::on(profile, CPU_LIKE).pay(&plan.geometry, plan.gap, pool) {
        return None;
    }
    let geometry = &plan.geometry.covered(pool);
    let Geometry { c, o, image, .. } = *geometry;
    let pooled = geometry.pixels() / pool.iter().product::<usize>();
    let planes = [c * image[0] * image[1], o * pooled];
    // Each share reads all filters.
    let most = most_bytes(profile).max(positions(o, quads(c)));
    let shares = Shares::new(profile, geometry, most, &planes)?;
    let depth = quads(c) * 4;
    let extents = Extents {
        m: o,
        n: shares.quads * 4,
        k: depth,
        batch: POSITIONS,
    };
    let mut launch = Launch::default();
    let mut reserve = |[planes, quads]: [usize; 2]| {
        let positions = positions(planes, quads) as u64;
        (launch.reserve(positions), [planes, quads])
    };
    let filters = reserve([o, quads(c)]);
    let pixels = reserve([depth, shares.quads]);
    let sums = reserve([o, shares.quads]);
    let input = Tiles::images(geometry, shares, plan.pads);
    launch.dispatches.push(transformed_filters(plan, filters.0));
    for share in shares.each() {
        let product = MatMul::new(false, false);
        launch.dispatches.extend([
            input.dispatch(depth, share, Arg::Input(0), pixels.0),
            products(profile, product, [filters, pixels, sums], &extents, 1),
            results(plan, shares, share, sums.0),
        ]);
    }
    bindable(profile, launch)
}

/// Inputs `dy`, `x`: the gradient of the weights.
pub(super) fn weight_grad(profile: &Profile, geometry: &Geometry) -> Option<Launch> {
    if !Costs::on(profile, CPU_LIKE_WEIGHTS).pay(geometry, [1, 1], [1, 1]) {
        return None;
    }
    let Geometry { c, o, image, .. } = *geometry;
    let planes = [c * image[0] * image[1], o * geometry.pixels()];
    let width = quads(c) * 4;
    let part = positions(o, quads(c));
    // Few enough shares that their parts of the sums stay within bounds.
    let tiles_of_all = geometry.images * tiles(geometry).iter().product::<usize>();
    let all = positions(width.max(o), quads(tiles_of_all));
    let most = most_bytes(profile).max(all / (PARTIAL_BYTES / part).max(1));
    let shares = Shares::new(profile, geometry, most, &planes)?;
    let extents = Extents {
        m: o,
        n: width,
        k: shares.quads * 4,
        batch: POSITIONS,
    };
    let splits = match profile.kind {
        ProfileKind::CpuLike => 1,
        ProfileKind::Gpu => extents.splits(Engine::Tiled),
    };
    let parts = shares.of * splits;
    let mut launch = Launch::default();
    let mut reserve = |count: usize, [planes, quads]: [usize; 2]| {
        let positions = (count * positions(planes, quads)) as u64;
        (launch.reserve(positions), [planes, quads])
    };
    let slopes = reserve(1, [o, shares.quads]);
    let pixels = reserve(1, [width, shares.quads]);
    let sums = reserve(parts, [o, quads(c)]);
    let gradients = Tiles::gradients(geometry, shares);
    let pads = geometry.window.pads;
    let input = Tiles::images(geometry, shares, [pads.top as i64, pads.left as i64]);
    for share in shares.each() {
        let product = MatMul::new(false, true);
        let product = products(profile, product, [slopes, pixels, sums], &extents, splits);
        launch.dispatches.extend([
            gradients.dispatch(o, share, Arg::Input(0), slopes.0),
            input.dispatch(width, share, Arg::Input(1), pixels.0),
            product.share("c", share),
        ]);
    }
    let adapt = |kernel: Kernel| {
        read_positions(kernel, [o, quads(c)], parts)
            .hook("give", WEIGHTS, "write_weights")
            .set("C", c)
    };
    let bindings = vec![("products", sums.0), ("dw", Arg::Output(0))];
    let extent = [o, quads(c)];
    let weights = transform("weight_line", extent, [SIDE, TAPS], adapt, bindings);
    launch.dispatches.push(weights);
    bindable(profile, launch)
}
