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
    let lanes = lanes::lanes(profile);
    let [most_rows, depth] = match m * n * k {
        ..SMALL_BELOW => SMALL,
        SMALL_BELOW..MEDIUM_BELOW => MEDIUM,
        _ => LARGE,
    };
    let rows = m.next_multiple_of(4).min(most_rows);
    let tiles = m.div_ceil(rows) * n.div_ceil(4 * lanes);
    let splits = match op.is_plain() {
        true => BUSY_WORKGROUPS
            .div_ceil(tiles)
            .min(k / LEAST_SPLIT_K)
            .max(1),
        false => 1,
    };
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
        .set("SPLITS", splits)
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
    gemm::in_parts(splits, [(m * n, Arg::Output(0))], |[result]| {
        let bindings = vec![
            ("a", Arg::Input(0)),
            ("a4", Arg::Input(0)),
            ("b", Arg::Input(1)),
            ("b4", Arg::Input(1)),
            // Without a bias the binding is never read; any input will do.
            ("bias", Arg::Input(if op.bias { 2 } else { 0 })),
            ("c", result),
        ];
        let mut dispatch = Dispatch::linear(kernel, bindings, tiles);
        // Splits are at most BUSY_WORKGROUPS.
        dispatch.workgroups[2] = splits as u32;
        dispatch
    })
}
