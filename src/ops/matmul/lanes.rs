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

/// Rows of a tile and terms a step: more rows would not fit the instruction cache, unrolled;
/// so many uses make up for loading and storing an accumulator.
const LARGE: [usize; 2] = [32, 8];

/// The same for products below so many terms. A driver's compiler takes in proportion to the
/// unrolled body, which a small product never makes up for.
const MEDIUM_BELOW: usize = 1 << 24;
const MEDIUM: [usize; 2] = [32, 4];
const SMALL_BELOW: usize = 1 << 19;
const SMALL: [usize; 2] = [8, 8];

/// Workgroups that keep a few cores busy, and the least terms worth a second pass.
const BUSY_WORKGROUPS: usize = 4;
const LEAST_SPLIT_K: usize = 512;

/// Inputs `a`, `b` and, where the op has one, `bias`.
pub(super) fn launch(profile: &Profile, op: &MatMul, extents: &Extents) -> Launch {
    let Extents { m, n, k, .. } = *extents;
    let [rows, _] = tile(extents);
    let tiles = m.div_ceil(rows) * n.div_ceil(4 * lanes::lanes(profile));
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
        dispatch(profile, op, extents, splits, args)
    })
}

/// Rows of a tile and terms a step.
fn tile(extents: &Extents) -> [usize; 2] {
    let Extents { m, n, k, batch } = *extents;
    let [most_rows, depth] = match batch * m * n * k {
        ..SMALL_BELOW => SMALL,
        SMALL_BELOW..MEDIUM_BELOW => MEDIUM,
        _ => LARGE,
    };
    [m.next_multiple_of(4).min(most_rows), depth]
}

/// The dispatch over `a`, `b`, `bias` and the result, which has `splits` parts.
pub(super) fn dispatch(
    profile: &Profile,
    op: &MatMul,
    extents: &Extents,
    splits: usize,
    [a, b, bias, result]: [Arg; 4],
) -> Dispatch {
    let Extents { m, n, k, batch } = *extents;
    let lanes = lanes::lanes(profile);
    let [rows, depth] = tile(extents);
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
        .set("SPLIT_K", k.div_ceil(splits).next_multiple_of(depth))
        .set("ROWS", rows)
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
    let tiles = m.div_ceil(rows) * n.div_ceil(4 * lanes);
    let mut dispatch = Dispatch::linear(kernel, bindings, tiles);
    dispatch.workgroups[2] = u32::try_from(batch * splits).unwrap_or(u32::MAX);
    dispatch
}
