//! The product on software adapters: `shaders/matmul/lanes.wgsl`.

use super::{Extents, MatMul};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::Profile;
use crate::ops::activation::FUNCTIONS;
use crate::ops::{gemm, lanes};
use crate::shader;

const LANES: ShaderFile = shader!("matmul/lanes.wgsl");
const PUT: ShaderFile = shader!("matmul/put.wgsl");
const PUT_QUAD: ShaderFile = shader!("matmul/put_quad.wgsl");

/// Rows of a tile, vec4 of each in a lane, and terms a step: so many uses make up for loading
/// and storing an accumulator and for spreading an operand. A driver's compiler takes in
/// proportion to the unrolled body, and larger ones are no faster.
const WIDE: [usize; 3] = [16, 2, 4];

/// The same where one vec4 in each lane is as wide as the product.
const NARROW: [usize; 3] = [32, 1, 4];

/// The same for products below so many terms, which never make up for their compilation.
const SMALL_BELOW: usize = 1 << 19;
const SMALL: [usize; 3] = [8, 1, 8];

/// Workgroups that keep a few cores busy, and the least terms worth a second pass.
const BUSY_WORKGROUPS: usize = 4;
const LEAST_SPLIT_K: usize = 512;

/// Inputs `a`, `b` and, where the op has one, `bias`.
pub(super) fn launch(profile: &Profile, op: &MatMul, extents: &Extents) -> Launch {
    let Extents { m, n, k, .. } = *extents;
    let tiles = tiles(profile, extents);
    let splits = match op.is_plain() {
        true => BUSY_WORKGROUPS
            .div_ceil(tiles)
            .min(k / LEAST_SPLIT_K)
            .max(1),
        false => 1,
    };
    // Without a bias the binding is never read; any input will do.
    let bias = Arg::Input(if op.bias { 2 } else { 0 });
    gemm::in_parts(splits, [(m * n, Arg::Output(0))], |[result]| {
        let products = Products {
            splits,
            ..Products::new(op, extents)
        };
        products.dispatch(profile, [Arg::Input(0), Arg::Input(1), bias, result])
    })
}

/// Rows of a tile, vec4 of each in a lane, and terms a step.
fn tile(profile: &Profile, extents: &Extents) -> [usize; 3] {
    let Extents { m, n, k, batch } = *extents;
    let [most_rows, columns, depth] = match batch * m * n * k {
        ..SMALL_BELOW => SMALL,
        _ if n <= 4 * lanes::lanes(profile) => NARROW,
        _ => WIDE,
    };
    [m.next_multiple_of(4).min(most_rows), columns, depth]
}

/// Tiles of one product.
pub(in crate::ops) fn tiles(profile: &Profile, extents: &Extents) -> usize {
    blocks(profile, extents).iter().product()
}

/// How many tiles the rows and the columns of one product take.
fn blocks(profile: &Profile, extents: &Extents) -> [usize; 2] {
    let [rows, columns, _] = tile(profile, extents);
    let width = 4 * lanes::lanes(profile) * columns;
    [extents.m.div_ceil(rows), extents.n.div_ceil(width)]
}

/// Products that one dispatch computes.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Products<'a> {
    pub op: &'a MatMul,
    pub extents: &'a Extents,
    /// Elements from one product's `a`, `b` and result to the next's.
    pub steps: [usize; 3],
    /// Parts of the terms, each with a result of its own.
    pub splits: usize,
    /// Products that follow one another and are added up: so many divide the batch.
    pub summed: usize,
    /// The bias has an element a row, not a column.
    pub bias_by_row: bool,
}

impl<'a> Products<'a> {
    /// Those of an op, as the extents say.
    pub fn new(op: &'a MatMul, extents: &'a Extents) -> Self {
        Self {
            op,
            extents,
            steps: extents.steps(),
            splits: 1,
            summed: 1,
            bias_by_row: false,
        }
    }

    /// The dispatch over `a`, `b`, `bias` and the results.
    pub fn dispatch(&self, profile: &Profile, [a, b, bias, result]: [Arg; 4]) -> Dispatch {
        let Self { op, splits, .. } = *self;
        let Extents { m, n, k, batch } = *self.extents;
        let [rows, columns, depth] = tile(profile, self.extents);
        let [row_a, row_b] = [
            if op.transpose_a { m } else { k },
            if op.transpose_b { k } else { n },
        ];
        let quads = [row_a, row_b].map(|row| row.is_multiple_of(4));
        let [blocks_of_rows, blocks_of_columns] = blocks(profile, self.extents);
        // Each operand is read one way, and a bias hardly.
        let kernel = Kernel::new(LANES)
            .sparse(if quads[0] { "a" } else { "a4" })
            .sparse(if quads[1] { "b" } else { "b4" })
            .reused("a4", blocks_of_columns)
            .reused("b4", blocks_of_rows)
            .sparse("bias");
        let kernel = lanes::specialise(kernel, profile);
        let kernel = match n.is_multiple_of(4) {
            true => kernel.hook("put", PUT_QUAD, "put_quad"),
            false => kernel.hook("put", PUT, "put_each"),
        };
        let kernel = kernel
            .hook("activate", FUNCTIONS, op.activation.shader_name())
            .set("M", m)
            .set("N", n)
            .set("K", k)
            .set("BATCH", batch)
            .set("SUMMED", self.summed)
            .set("STEP_A", self.steps[0])
            .set("STEP_B", self.steps[1])
            .set("STEP_C", self.steps[2])
            .set("SPLIT_K", k.div_ceil(splits).next_multiple_of(depth))
            .set("ROWS", rows)
            .set("COLUMNS", columns)
            .set("DEPTH", depth)
            .set("TRANSPOSE_A", op.transpose_a)
            .set("TRANSPOSE_B", op.transpose_b)
            .set("QUADS_A", quads[0])
            .set("QUADS_B", quads[1])
            .set("HAS_BIAS", op.bias)
            .set("BIAS_BY_ROW", self.bias_by_row)
            .set("PARTIAL", splits > 1)
            .set("ALPHA", op.activation.alpha());
        let bindings = vec![
            ("a", a),
            ("a4", a),
            ("b", b),
            ("b4", b),
            ("bias", bias),
            ("c", result),
        ];
        let mut dispatch = Dispatch::linear(kernel, bindings, tiles(profile, self.extents));
        let depth = batch / self.summed * splits;
        dispatch.workgroups[2] = u32::try_from(depth).unwrap_or(u32::MAX);
        dispatch
    }
}
