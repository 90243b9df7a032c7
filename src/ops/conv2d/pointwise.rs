//! Convolutions of 1 x 1 on software adapters: products of matrices, one an image, by
//! `shaders/matmul/lanes.wgsl`.

use super::Geometry;
use super::plan::Plan;
use crate::gpu::kernel::{Arg, GROUPS_X, Launch};
use crate::gpu::profile::Profile;
use crate::ops::Window;
use crate::ops::gemm::{self, Extents};
use crate::ops::lanes::BUSY_WORKGROUPS;
use crate::ops::matmul::MatMul;
use crate::ops::matmul::lanes::{self, Products};

/// Pixels of an image from which on the products are sooner done than patches: fewer leave lanes
/// of a tile without a column.
const LEAST_PIXELS: usize = 32;

/// Bytes of the images of a part of a weight gradient: all tiles go over them one after the
/// other, so they should stay in a core's cache.
const PART_BYTES: usize = 1 << 20;

/// Inputs as the plan's: `y[o, pixel] = sum over c of w[o, c] x[c, pixel]`. `None` where the
/// convolution is none of 1 x 1, or patches are as fast.
pub(super) fn launch(profile: &Profile, plan: &Plan) -> Option<Launch> {
    let geometry = &plan.geometry;
    let pixels = geometry.pixels();
    let Geometry { c, o, images, .. } = *geometry;
    let whole = plan.pool.is_none() && plan.gap == [1, 1] && pixels.is_multiple_of(4);
    // An image is a place of the dispatch's third dimension.
    let fits = pixels >= LEAST_PIXELS && images <= GROUPS_X as usize;
    if !is_pointwise(geometry) || !whole || !fits {
        return None;
    }
    let op = MatMul {
        transpose_a: plan.flip,
        transpose_b: false,
        bias: plan.bias,
        activation: plan.activation,
    };
    let extents = Extents {
        m: o,
        n: pixels,
        k: c,
        batch: images,
    };
    let products = Products {
        // All images meet the same weights.
        steps: [0, c * pixels, o * pixels],
        bias_by_row: true,
        ..Products::new(&op, &extents)
    };
    let [x, w] = [Arg::Input(0), Arg::Input(1)];
    // Without a bias the binding is never read; any input will do.
    let bias = Arg::Input(if plan.bias { 2 } else { 1 });
    Some(
        products
            .dispatch(profile, [w, x, bias, Arg::Output(0)])
            .into(),
    )
}

/// Inputs `dy`, `x`: `dw[o, c] = sum over images and pixels of dy[o, pixel] x[c, pixel]`.
pub(super) fn weight_grad(profile: &Profile, geometry: &Geometry) -> Option<Launch> {
    let pixels = geometry.pixels();
    if !is_pointwise(geometry) || !pixels.is_multiple_of(4) {
        return None;
    }
    let Geometry { c, o, images, .. } = *geometry;
    let op = MatMul::new(false, true);
    let extents = Extents {
        m: o,
        n: c,
        k: pixels,
        batch: images,
    };
    let tiles = lanes::tiles(profile, &extents);
    let cached = (images * (o + c) * pixels * 4).div_ceil(PART_BYTES);
    let most = (gemm::MOST_PART_BYTES / (o * c * 4)).clamp(1, images.min(GROUPS_X as usize));
    let wanted = BUSY_WORKGROUPS.div_ceil(tiles).max(cached).min(most);
    let parts = (wanted..=most).find(|parts| images.is_multiple_of(*parts));
    let parts = parts.or_else(|| (1..wanted).rfind(|parts| images.is_multiple_of(*parts)))?;
    let products = Products {
        summed: images / parts,
        ..Products::new(&op, &extents)
    };
    Some(gemm::in_parts(parts, [(o * c, Arg::Output(0))], |[dw]| {
        let [dy, x] = [Arg::Input(0), Arg::Input(1)];
        products.dispatch(profile, [dy, x, dy, dw])
    }))
}

/// Whether each output is of one pixel of all channels, and each pixel has one.
fn is_pointwise(geometry: &Geometry) -> bool {
    let Window { dilation, .. } = geometry.window;
    let plain = Window {
        dilation,
        ..Window::new([1, 1])
    };
    geometry.window == plain && geometry.groups == 1 && geometry.image == geometry.output
}
