// Weight gradient of 2-D convolution where subgroup lanes are SIMD lanes and every load
// is a gather:
//
//   dw[o, c, ky, kx] = sum over (i, oy, ox) of dy[i, o, oy, ox] * x[i, c, iy, ix]
//
// with iy = oy * STRIDE_Y + ky * DILATION_Y - PAD_TOP and likewise ix; taps outside the
// image are zero.
//
//   dy       by the hook `gradient_at`: [IMAGES, GROUPS * O, OH, OW]. Where POOLED, the
//            gradient behind a max pool whose POOL_H x POOL_W windows lie edge to edge:
//            [IMAGES, GROUPS * O, POOLED_H, POOLED_W], which goes to the output that the
//            hook `winner_at` names for each window, by its offset oy * OW + ox; the
//            others get zero
//   x        [IMAGES, GROUPS * IN, H, W] f32
//   dw       [PARTS, GROUPS * O, IN, KH, KW] f32: each part sums its own images and
//            gemm/reduce.wgsl adds the parts up, in order
//   db       by the hook `put_bias`: [PARTS, GROUPS * O], the sum of dy over (i, oy, ox)
//
// Tile picture: a workgroup is one subgroup. Its lanes share CHANNELS input channels and
// each computes SPAN filters' weights for them, as many as leave few lanes without one,
// going over the images' outputs in patches, down one strip after the other.
//
//      x, CHANNELS planes                  dy, filters o .. o + SPAN - 1 of lane l
//    +------------------+                  +---------------+
//    | KEPT_ROWS of the |                  |    PATCH_H    |  sums[c][ky][kx]: Sums,
//    |     patch above  |  each lane loads |  x PATCH_W    |  all taps of a patch
//    +------------------+  every LANES-th  +---------------+  before the next
//    | NEW_ROWS, AREA_W |  of a row, all    o = (block * LANES + l) * SPAN
//    +------------------+  get all by spread
//
// Loops over images and patches are rolled, the rest is unrolled. The register arrays are
// nested, each as long as the loop that indexes it: drivers unroll such loops completely,
// and only then do the arrays stay in registers.
//
// group.x and group.y count (group, block of filters, block of channels), group.z parts:
// workgroups that run one after the other read the same images, from a cache.
// Floor a patch: SPAN CHANNELS TAPS PATCH FMA; SPAN PATCH + CHANNELS NEW_ROWS LINE loads.

alias Sums = vec4<f32>;          // SPAN of a kind
alias Places = vec4<u32>;

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const LANES: u32 = 1u;           // of a subgroup: what `spread` gathers
const SPAN: u32 = 4u;            // filters of a lane
const PARTS: u32 = 1u;
const IMAGES: u32 = 1u;
const GROUPS: u32 = 1u;
const IN: u32 = 1u;              // input channels of a group
const H: u32 = 1u;
const W: u32 = 1u;
const O: u32 = 1u;               // filters of a group
const OH: u32 = 1u;
const OW: u32 = 1u;
const KH: u32 = 1u;
const KW: u32 = 1u;
const STRIDE_Y: u32 = 1u;
const STRIDE_X: u32 = 1u;
const DILATION_Y: u32 = 1u;
const DILATION_X: u32 = 1u;
const PAD_TOP: u32 = 0u;
const PAD_LEFT: u32 = 0u;
const PATCH_H: u32 = 1u;         // outputs a step sums over
const PATCH_W: u32 = 1u;
const CHANNELS: u32 = 1u;        // input channels of a workgroup
const POOLED: bool = false;
const POOL_H: u32 = 1u;          // of a pool window; divides PATCH_H
const POOL_W: u32 = 1u;

const POOLED_H: u32 = OH / POOL_H;
const POOLED_W: u32 = OW / POOL_W;
const COVER_H: u32 = POOLED_H * POOL_H;                // outputs that a window reaches
const COVER_W: u32 = POOLED_W * POOL_W;
const WINDOWS_H: u32 = PATCH_H / POOL_H;               // pool windows of a patch
const WINDOWS_W: u32 = PATCH_W / POOL_W;
const IMAGES_PART: u32 = (IMAGES + PARTS - 1u) / PARTS;
const AREA_H: u32 = (PATCH_H - 1u) * STRIDE_Y + (KH - 1u) * DILATION_Y + 1u;
const AREA_W: u32 = (PATCH_W - 1u) * STRIDE_X + (KW - 1u) * DILATION_X + 1u;
const NEW_ROWS: u32 = min(PATCH_H * STRIDE_Y, AREA_H); // that the patch above has not loaded
const KEPT_ROWS: u32 = AREA_H - NEW_ROWS;
const LINE: u32 = (AREA_W + LANES - 1u) / LANES;       // loads of a row
const FILTER_BLOCKS: u32 = (O + SPAN * LANES - 1u) / (SPAN * LANES);
const CHANNEL_BLOCKS: u32 = (IN + CHANNELS - 1u) / CHANNELS;
const BLOCKS: u32 = GROUPS * FILTER_BLOCKS * CHANNEL_BLOCKS;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> dw: array<f32>;

fn gradient_at(at: u32) -> f32 { return 0.0; }
fn winner_at(at: u32) -> u32 { return 0u; }
fn put_bias(at: u32, value: f32) {
}
fn spread(v: f32) -> array<f32, LANES> { return array<f32, LANES>(v); }

// A pixel of the plane that begins at `plane`. Negative coordinates wrap around to large ones.
fn pixel(plane: u32, row: u32, column: u32) -> f32 {
    let ok = row < H && column < W;
    return select(0.0, x[plane + select(0u, row * W + column, ok)], ok);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = group.x + group.y * GROUPS_X;
    // Known beforehand where one row of workgroups is enough: else all that follows is masked.
    if BLOCKS > GROUPS_X && block >= BLOCKS {
        return;
    }
    let part = group.z;
    let c0 = block % CHANNEL_BLOCKS * CHANNELS;
    let o = (block / CHANNEL_BLOCKS % FILTER_BLOCKS * LANES + lane) * SPAN;
    let g = block / (CHANNEL_BLOCKS * FILTER_BLOCKS);

    // Its filters' planes.
    var planes: Places;
    for (var n = 0u; n < SPAN; n++) {
        planes[n] = (g * O + min(o + n, O - 1u)) * (POOLED_H * POOLED_W);
    }

    var bias_sum: Sums;
    var sums: array<array<array<Sums, KW>, KH>, CHANNELS>;
    for (var nth = 0u; nth < IMAGES_PART; nth++) {
        let image = part * IMAGES_PART + nth;
        // As is this, where all parts are as large.
        if PARTS * IMAGES_PART > IMAGES && image >= IMAGES {
            break;
        }
        let images_dy = planes + image * (GROUPS * O * POOLED_H * POOLED_W);
        let images_x = (image * GROUPS + g) * (IN * H * W);
        for (var ox = 0u; ox < COVER_W; ox += PATCH_W) {
            let left = ox * STRIDE_X + lane - PAD_LEFT;
            var area: array<array<array<f32, LINE>, AREA_H>, CHANNELS>;
            for (var step = 0u; step < CHANNELS; step++) {
                let plane = images_x + min(c0 + step, IN - 1u) * (H * W);
                for (var r = 0u; r < AREA_H; r++) {
                    for (var i = 0u; i < LINE; i++) {
                        if r >= NEW_ROWS {
                            area[step][r][i] = pixel(plane, r - NEW_ROWS - PAD_TOP, left + i * LANES);
                        }
                    }
                }
            }
            for (var oy = 0u; oy < COVER_H; oy += PATCH_H) {
                let top = oy * STRIDE_Y - PAD_TOP;
                // Gradients at the windows; without a pool each output is its own window.
                var behind: array<array<Sums, WINDOWS_W>, WINDOWS_H>;
                var winner: array<array<Places, WINDOWS_W>, WINDOWS_H>;
                for (var wy = 0u; wy < WINDOWS_H; wy++) {
                    for (var wx = 0u; wx < WINDOWS_W; wx++) {
                        let row = oy / POOL_H + wy;
                        let column = ox / POOL_W + wx;
                        // Known beforehand where patches fill the output.
                        let ok = (COVER_H % PATCH_H == 0u || row < POOLED_H) && (COVER_W % PATCH_W == 0u || column < POOLED_W);
                        let at = images_dy + select(0u, row * POOLED_W + column, ok);
                        var grad: Sums;
                        var found: Places;
                        for (var n = 0u; n < SPAN; n++) {
                            grad[n] = select(0.0, gradient_at(at[n]), ok);
                            if POOLED {
                                found[n] = winner_at(at[n]);
                            }
                        }
                        behind[wy][wx] = grad;
                        winner[wy][wx] = found;
                        bias_sum += grad;
                    }
                }
                var grads: array<array<Sums, PATCH_W>, PATCH_H>;
                for (var py = 0u; py < PATCH_H; py++) {
                    for (var px = 0u; px < PATCH_W; px++) {
                        var grad = behind[py / POOL_H][px / POOL_W];
                        if POOLED {
                            let here = Places((oy + py) * OW + ox + px);
                            grad = select(Sums(), grad, winner[py / POOL_H][px / POOL_W] == here);
                        }
                        grads[py][px] = grad;
                    }
                }
                for (var step = 0u; step < CHANNELS; step++) {
                    let plane = images_x + min(c0 + step, IN - 1u) * (H * W);
                    var lines: array<array<array<f32, LANES>, LINE>, AREA_H>;
                    for (var r = 0u; r < AREA_H; r++) {
                        for (var i = 0u; i < LINE; i++) {
                            if r < KEPT_ROWS {
                                area[step][r][i] = area[step][r + NEW_ROWS][i];
                            } else {
                                area[step][r][i] = pixel(plane, top + r, left + i * LANES);
                            }
                            lines[r][i] = spread(area[step][r][i]);
                        }
                    }
                    for (var ky = 0u; ky < KH; ky++) {
                        for (var kx = 0u; kx < KW; kx++) {
                            var sum = sums[step][ky][kx];
                            for (var py = 0u; py < PATCH_H; py++) {
                                for (var px = 0u; px < PATCH_W; px++) {
                                    let row = py * STRIDE_Y + ky * DILATION_Y;
                                    let column = px * STRIDE_X + kx * DILATION_X;
                                    sum = fma(grads[py][px], Sums(lines[row][column / LANES][column % LANES]), sum);
                                }
                            }
                            sums[step][ky][kx] = sum;
                        }
                    }
                }
            }
        }
    }

    if c0 == 0u {
        for (var n = 0u; n < SPAN; n++) {
            if o + n < O {
                put_bias((part * GROUPS + g) * O + o + n, bias_sum[n]);
            }
        }
    }
    let weights = IN * KH * KW;
    for (var step = 0u; step < CHANNELS; step++) {
        let c = c0 + step;
        for (var ky = 0u; ky < KH; ky++) {
            for (var kx = 0u; kx < KW; kx++) {
                let at = ((part * GROUPS + g) * O + o) * weights + (c * KH + ky) * KW + kx;
                for (var n = 0u; n < SPAN; n++) {
                    if c < IN && o + n < O {
                        dw[at + n * weights] = sums[step][ky][kx][n];
                    }
                }
            }
        }
    }
}
