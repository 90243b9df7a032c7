// Weight gradient of 2-D convolution where subgroup lanes are SIMD lanes and every load
// is a gather:
//
//   dw[o, c, ky, kx] = sum over (i, oy, ox) of dy[i, o, oy, ox] * x[i, c, iy, ix]
//
// with iy = oy * STRIDE_Y + ky * DILATION_Y - PAD_TOP and likewise ix; taps outside the
// image are zero.
//
//   dy       by the hook `value_at`: [IMAGES, GROUPS * O, OH, OW]. Where POOLED, the
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
//    | chunks that were |                  |    PATCH_H    |  sums[c][n][ky][kx]: all
//    | loaded before    |  each lane loads |  x PATCH_W    |  taps of a patch before
//    +------------------+  every LANES-th  +---------------+  the next
//    | STEP_ROWS,AREA_W |  of a chunk, all o = (block * LANES + l) * SPAN
//    +------------------+  get all by spread
//
// x comes in chunks of as many rows as a patch lies above the next, so that each row of a strip
// is loaded once. A pool window has one gradient, so a tap has one product with it: with the
// input that the window's winner meets, which is picked row by row, then from the rows.
//
// Loops over images and patches are rolled, the rest is unrolled. The register arrays are
// nested, each as long as the loop that indexes it: drivers unroll such loops completely,
// and only then do the arrays stay in registers.
//
// group.x and group.y count (group, block of filters, block of channels), group.z parts:
// workgroups that run one after the other read the same images, from a cache.
// Floor a patch: SPAN CHANNELS TAPS WINDOWS FMA and, behind a pool, as many picks for each of
// POOL_H - 1 and about as many for each of POOL_W - 1; SPAN WINDOWS (1 or 3) + CHANNELS LOADS loads.

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

const ALL: u32 = 0xffffffffu;    // a mask

const POOLED_H: u32 = OH / POOL_H;
const POOLED_W: u32 = OW / POOL_W;
const COVER_H: u32 = POOLED_H * POOL_H;                // outputs that a window reaches
const COVER_W: u32 = POOLED_W * POOL_W;
const WINDOWS_H: u32 = PATCH_H / POOL_H;               // pool windows of a patch
const WINDOWS_W: u32 = PATCH_W / POOL_W;
const IMAGES_PART: u32 = (IMAGES + PARTS - 1u) / PARTS;
const AREA_H: u32 = (PATCH_H - 1u) * STRIDE_Y + (KH - 1u) * DILATION_Y + 1u;
const AREA_W: u32 = (PATCH_W - 1u) * STRIDE_X + (KW - 1u) * DILATION_X + 1u;
const STEP_ROWS: u32 = PATCH_H * STRIDE_Y;             // from a patch to the one below it
const CHUNKS: u32 = (AREA_H + STEP_ROWS - 1u) / STEP_ROWS; // of so many rows under a patch
const LOADS: u32 = (STEP_ROWS * AREA_W + LANES - 1u) / LANES; // of a chunk
const FILTER_BLOCKS: u32 = (O + SPAN * LANES - 1u) / (SPAN * LANES);
const CHANNEL_BLOCKS: u32 = (IN + CHANNELS - 1u) / CHANNELS;
const BLOCKS: u32 = GROUPS * FILTER_BLOCKS * CHANNEL_BLOCKS;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> dw: array<f32>;

fn value_at(at: u32) -> f32 { return 0.0; }
fn winner_at(at: u32) -> u32 { return 0u; }
fn put_bias(at: u32, value: f32) {
}
fn spread(v: f32) -> array<f32, LANES> { return array<f32, LANES>(v); }

// A pixel of the plane that begins at `plane`. Negative coordinates wrap around to large ones.
fn pixel(plane: u32, row: u32, column: u32) -> f32 {
    let ok = row < H && column < W;
    return select(0.0, x[plane + select(0u, row * W + column, ok)], ok);
}

// ALL where `at` is `start` or more, else 0: by shifts, as drivers turn a comparison into a
// mask register, of which there are fewer than a patch has masks.
fn reached(at: u32, start: u32) -> u32 {
    return bitcast<u32>(bitcast<i32>(start - 1u - at) >> 31u);
}

// b's bits where the mask has ones, else a's.
fn pick(a: u32, b: u32, mask: u32) -> u32 {
    return (a & ~mask) | (b & mask);
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
    var planes: array<u32, SPAN>;
    for (var n = 0u; n < SPAN; n++) {
        planes[n] = (g * O + min(o + n, O - 1u)) * (POOLED_H * POOLED_W);
    }

    var bias_sums: array<f32, SPAN>;
    var sums: array<array<array<array<f32, KW>, KH>, SPAN>, CHANNELS>;
    for (var nth = 0u; nth < IMAGES_PART; nth++) {
        let image = part * IMAGES_PART + nth;
        // As is this, where all parts are as large.
        if PARTS * IMAGES_PART > IMAGES && image >= IMAGES {
            break;
        }
        let image_dy = image * (GROUPS * O * POOLED_H * POOLED_W);
        let image_x = (image * GROUPS + g) * (IN * H * W);
        for (var ox = 0u; ox < COVER_W; ox += PATCH_W) {
            let left = ox * STRIDE_X - PAD_LEFT;
            var area: array<array<array<f32, LOADS>, CHUNKS>, CHANNELS>;
            for (var step = 0u; step < CHANNELS; step++) {
                let plane = image_x + min(c0 + step, IN - 1u) * (H * W);
                for (var j = 0u; j < CHUNKS; j++) {
                    for (var i = 0u; i < LOADS; i++) {
                        if j > 0u {
                            let q = i * LANES + lane;
                            area[step][j][i] = pixel(plane, (j - 1u) * STEP_ROWS + q / AREA_W - PAD_TOP, left + q % AREA_W);
                        }
                    }
                }
            }
            for (var oy = 0u; oy < COVER_H; oy += PATCH_H) {
                let top = oy * STRIDE_Y + (CHUNKS - 1u) * STEP_ROWS - PAD_TOP;
                // Gradients at the windows, and whether their winners lie in row py or below
                // and in column px or behind; without a pool each output is its own window.
                var grads: array<array<array<f32, SPAN>, WINDOWS_W>, WINDOWS_H>;
                var below: array<array<array<array<u32, POOL_H>, SPAN>, WINDOWS_W>, WINDOWS_H>;
                var behind: array<array<array<array<u32, POOL_W>, SPAN>, WINDOWS_W>, WINDOWS_H>;
                for (var wy = 0u; wy < WINDOWS_H; wy++) {
                    for (var wx = 0u; wx < WINDOWS_W; wx++) {
                        let row = oy / POOL_H + wy;
                        let column = ox / POOL_W + wx;
                        // Known beforehand where patches fill the output.
                        let ok = (COVER_H % PATCH_H == 0u || row < POOLED_H) && (COVER_W % PATCH_W == 0u || column < POOLED_W);
                        let at = image_dy + select(0u, row * POOLED_W + column, ok);
                        for (var n = 0u; n < SPAN; n++) {
                            let grad = select(0.0, value_at(planes[n] + at), ok);
                            grads[wy][wx][n] = grad;
                            bias_sums[n] += grad;
                            if POOLED {
                                var found = winner_at(planes[n] + at) - (row * POOL_H * OW + column * POOL_W);
                                for (var py = 0u; py < POOL_H; py++) {
                                    below[wy][wx][n][py] = reached(found, py * OW);
                                }
                                for (var py = 1u; py < POOL_H; py++) {
                                    found -= OW & below[wy][wx][n][py];
                                }
                                for (var px = 0u; px < POOL_W; px++) {
                                    behind[wy][wx][n][px] = reached(found, px);
                                }
                            }
                        }
                    }
                }
                for (var step = 0u; step < CHANNELS; step++) {
                    let plane = image_x + min(c0 + step, IN - 1u) * (H * W);
                    var values: array<array<array<f32, LANES>, LOADS>, CHUNKS>;
                    for (var j = 0u; j < CHUNKS; j++) {
                        for (var i = 0u; i < LOADS; i++) {
                            if j < CHUNKS - 1u {
                                area[step][j][i] = area[step][j + 1u][i];
                            } else {
                                let q = i * LANES + lane;
                                area[step][j][i] = pixel(plane, top + q / AREA_W, left + q % AREA_W);
                            }
                            values[j][i] = spread(area[step][j][i]);
                        }
                    }
                    for (var n = 0u; n < SPAN; n++) {
                        for (var ky = 0u; ky < KH; ky++) {
                            for (var kx = 0u; kx < KW; kx++) {
                                var sum = sums[step][n][ky][kx];
                                for (var wy = 0u; wy < WINDOWS_H; wy++) {
                                    for (var wx = 0u; wx < WINDOWS_W; wx++) {
                                        // The one of a window's inputs that its winner meets.
                                        var met = 0u;
                                        for (var py = 0u; py < POOL_H; py++) {
                                            let row = (wy * POOL_H + py) * STRIDE_Y + ky * DILATION_Y;
                                            var across = 0u;
                                            for (var px = 0u; px < POOL_W; px++) {
                                                let column = (wx * POOL_W + px) * STRIDE_X + kx * DILATION_X;
                                                let q = row % STEP_ROWS * AREA_W + column;
                                                let value = bitcast<u32>(values[row / STEP_ROWS][q / LANES][q % LANES]);
                                                across = pick(across, value, select(behind[wy][wx][n][px], ALL, px == 0u));
                                            }
                                            met = pick(met, across, select(below[wy][wx][n][py], ALL, py == 0u));
                                        }
                                        sum = fma(grads[wy][wx][n], bitcast<f32>(met), sum);
                                    }
                                }
                                sums[step][n][ky][kx] = sum;
                            }
                        }
                    }
                }
            }
        }
    }

    if c0 == 0u {
        for (var n = 0u; n < SPAN; n++) {
            if o + n < O {
                put_bias((part * GROUPS + g) * O + o + n, bias_sums[n]);
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
                        dw[at + n * weights] = sums[step][n][ky][kx];
                    }
                }
            }
        }
    }
}
