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
        let args = [Arg::Input(0), Arg::Input(1), bias, result];
        dispatch(profile, op, extents, splits, args, extents.steps())
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
fn tiles(profile: &Profile, extents: &Extents) -> usize {
    let [rows, columns, _] = tile(profile, extents);
    extents.m.div_ceil(rows) * extents.n.div_ceil(4 * lanes::lanes(profile) * columns)
}

/// The dispatch over `a`, `b`, `bias` and the result, which has `splits` parts; `steps` are the
/// elements from one product's `a`, `b` and result to the next's.
pub(super) fn dispatch(
    profile: &Profile,
    op: &MatMul,
    extents: &Extents,
    splits: usize,
    [a, b, bias, result]: [Arg; 4],
    [step_a, step_b, step_c]: [usize; 3],
) -> Dispatch {
    let Extents { m, n, k, batch } = *extents;
    let [rows, columns, depth] = tile(profile, extents);
    let [row_a, row_b] = [
        if op.transpose_a { m } else { k },
        if op.transpose_b { k } else { n },
    ];
    let quads = [row_a, row_b].map(|row| row.is_multiple_of(4));
    // Each operand is read one way, and a bias hardly.
    let kernel = Kernel::new(LANES)
        .sparse(if quads[0] { "a" } else { "a4" })
        .sparse(if quads[1] { "b" } else { "b4" })
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
        .set("STEP_A", step_a)
        .set("STEP_B", step_b)
        .set("STEP_C", step_c)
        .set("SPLIT_K", k.div_ceil(splits).next_multiple_of(depth))
        .set("ROWS", rows)
        .set("COLUMNS", columns)
        .set("DEPTH", depth)
        .set("TRANSPOSE_A", op.transpose_a)
        .set("TRANSPOSE_B", op.transpose_b)
        .set("QUADS_A", quads[0])
        .set("QUADS_B", quads[1])
        .set("HAS_BIAS", op.bias)
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
    let mut dispatch = Dispatch::linear(kernel, bindings, tiles(profile, extents));
    dispatch.workgroups[2] = u32::try_from(batch * splits).unwrap_or(u32::MAX);
    dispatch
}
