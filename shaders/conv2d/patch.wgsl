// 2-D convolution where subgroup lanes are SIMD lanes and every load is a gather:
//
//   y[i, o, oy, ox] = activate(bias[o] + sum over (c, ky, kx) of packed[c, ky, kx, o] * x[i, c, iy, ix], ALPHA)
//
// with iy = oy * STRIDE_Y + ky * DILATION_Y - PAD_TOP and likewise ix; taps outside the
// image are zero. The input gradient of a convolution is the same sum over its output's
// gradient, with filters packed flipped, the padding's complement, stride 1, and as many
// gaps between the gradient's rows and columns as the convolution's stride skips:
// x[i, c, iy / GAP_Y, ix / GAP_X] where both divide, else zero.
//
//   x        by the hook `value_at`: [IMAGES, GROUPS * IN, H, W]. Where POOLED, what lies behind
//            a max pool's gradient, of windows of CELL_H x CELL_W edge to edge: `value_at` has a
//            value for each window, [.., H / CELL_H, W / CELL_W], which belongs to the element that
//            the hook `winner_at` names, by its offset in the plane; the others are zero
//   packed   [GROUPS, IN, KH, KW, ROW] Sums, from conv2d/pack.wgsl
//   bias     [GROUPS * O], read where HAS_BIAS; otherwise anything
//   results  by the hook `put`, or `put_quad` where IN_QUADS: [IMAGES, GROUPS * O, OH, OW], or
//            the maxima of POOL_H x POOL_W windows of it that lie edge to edge, and where
//            they were found
//
// Tile picture: a workgroup is one subgroup. Its lanes share a patch of PATCH_H x
// PATCH_W outputs of one image; each lane computes SPAN output channels of it: as many as
// leave few lanes without one.
//
//      x, one channel                       y, channels o .. o + SPAN - 1 of lane l
//    +------------------+                  +---------------+
//    | AREA_H x AREA_W  |  each lane loads |    PATCH_H    |  sums[py][px]: Sums
//    | one patch's      |  every LANES-th, |  x PATCH_W    |
//    | receptive field  |  all lanes get   +---------------+
//    +------------------+  all by spread    o = (group.z % BLOCKS * LANES + l) * SPAN
//
// Of the receptive field the area, counted in such windows, leaves out gaps and, where one patch
// is as wide or as high as the output, what is known to lie beside the image. Outputs below ROWS
// meet nothing of it.
//
// The loop over channels is rolled; taps, patch and CHANNELS a step are unrolled. The
// register arrays are nested, each as long as the loop that indexes it: drivers unroll
// such loops completely, and only then do the arrays stay in registers.
//
// A workgroup goes over SWEEP patches. Where one step takes all channels, it so loads the weights
// once for all of them.
//
// group.x and group.y count SWEEP of (image, patch), group.z (group, block of output channels).
// Floor a step: SPAN PATCH TAPS CHANNELS FMA; CHANNELS (TAPS Sums + AREA / LANES loads).

alias Sums = vec4<f32>;          // SPAN of a kind
alias Places = vec4<u32>;

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const LANES: u32 = 1u;           // of a subgroup: what `spread` gathers
const SPAN: u32 = 4u;            // output channels of a lane
const IMAGES: u32 = 1u;
const GROUPS: u32 = 1u;
const IN: u32 = 1u;              // input channels of a group
const H: u32 = 1u;
const W: u32 = 1u;
const O: u32 = 1u;               // output channels of a group
const OH: u32 = 1u;
const OW: u32 = 1u;
const KH: u32 = 1u;
const KW: u32 = 1u;
const STRIDE_Y: u32 = 1u;
const STRIDE_X: u32 = 1u;
const DILATION_Y: u32 = 1u;
const DILATION_X: u32 = 1u;
const PAD_TOP: u32 = 0u;         // modulo 2^32, as it can be negative for input_grad
const PAD_LEFT: u32 = 0u;
const GAP_Y: u32 = 1u;           // distance of x's rows; divides PATCH_H unless it is 1
const GAP_X: u32 = 1u;
const SEEN_H: u32 = 1u;          // x is zero from this row on
const SEEN_W: u32 = 1u;
const ROWS: u32 = 1u;            // of outputs that meet x; COVER_H where there is a pool
const PATCH_H: u32 = 1u;         // outputs of a workgroup
const PATCH_W: u32 = 1u;
const AREA_Y: u32 = 0u;          // the area's first row under a patch
const AREA_X: u32 = 0u;
const AREA_H: u32 = 1u;          // its rows of windows, GAP_Y apart
const AREA_W: u32 = 1u;
const POOLED: bool = false;
const CELL_H: u32 = 1u;          // of a window of x; 1 where there is a gap
const CELL_W: u32 = 1u;
const CHANNELS: u32 = 1u;        // input channels a step; divides IN
const SWEEP: u32 = 1u;           // patches of a workgroup; divides their number, and 1 unless CHANNELS is IN
const POOL_H: u32 = 1u;          // of a pool window; divides PATCH_H
const POOL_W: u32 = 1u;
const IN_QUADS: bool = false;    // results lie in aligned quads: POOLED_W and WINDOWS divide by 4
const HAS_BIAS: bool = false;
const ALPHA: f32 = 0.0;          // the activation's parameter

const POOLED_H: u32 = OH / POOL_H;
const POOLED_W: u32 = OW / POOL_W;
const COVER_H: u32 = POOLED_H * POOL_H;                // outputs that a window reaches
const COVER_W: u32 = POOLED_W * POOL_W;
const WINDOWS: u32 = PATCH_W / POOL_W;                 // of a row of a patch
const PATCHES_X: u32 = (COVER_W + PATCH_W - 1u) / PATCH_W;
const PATCHES: u32 = (ROWS + PATCH_H - 1u) / PATCH_H * PATCHES_X;
const LOADS: u32 = (AREA_H * AREA_W + LANES - 1u) / LANES;
const ROW: u32 = (O + SPAN - 1u) / SPAN;               // Sums of a tap's weights
const BLOCKS: u32 = (ROW + LANES - 1u) / LANES;
const SWEEPS: u32 = IMAGES * PATCHES / SWEEP;
const CELL: u32 = CELL_H * CELL_W;
const CELLS_W: u32 = W / CELL_W;                       // windows of a row of x
const CELLS: u32 = H / CELL_H * CELLS_W;

@group(0) @binding(1) var<storage, read> packed: array<Sums>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;

fn value_at(at: u32) -> f32 { return 0.0; }
fn winner_at(at: u32) -> u32 { return 0u; }
fn activate(v: f32, alpha: f32) -> f32 { return v; }
fn put(at: u32, value: f32, winner: u32) {
}
fn put_quad(at: u32, values: vec4<f32>, winners: vec4<u32>) {
}
fn spread(v: f32) -> array<f32, LANES> { return array<f32, LANES>(v); }

// The weights that meet a tap of an input channel, of those from `weights` on.
fn taps_at(weights: u32, c: u32, ky: u32, kx: u32) -> Sums {
    return packed[weights + (c * (KH * KW) + ky * KW + kx) * ROW];
}

fn bias_at(g: u32, o: u32) -> f32 {
    if HAS_BIAS {
        return bias[g * O + min(o, O - 1u)];
    }
    return 0.0;
}

fn finish(o: u32, at: u32, value: f32, winner: u32) {
    if o < O {
        put(at, activate(value, ALPHA), winner);
    }
}

// Stores a row of windows' results: from row oy and column ox of outputs on, from channel o on.
fn put_row(
    channel: u32, o: u32, oy: u32, ox: u32,
    best: ptr<function, array<Sums, PATCH_W>>, winner: ptr<function, array<Places, PATCH_W>>,
) {
    let row = channel * (POOLED_H * POOLED_W) + oy / POOL_H * POOLED_W + ox / POOL_W;
    if IN_QUADS {
        for (var w = 0u; w < WINDOWS; w += 4u) {
            for (var n = 0u; n < SPAN; n++) {
                if o + n < O && ox + w * POOL_W < COVER_W {
                    var values: vec4<f32>;
                    var winners: vec4<u32>;
                    for (var i = 0u; i < 4u; i++) {
                        values[i] = activate((*best)[w + i][n], ALPHA);
                        winners[i] = (*winner)[w + i][n];
                    }
                    put_quad((row + w + n * (POOLED_H * POOLED_W)) / 4u, values, winners);
                }
            }
        }
    } else {
        for (var px = 0u; px < PATCH_W; px++) {
            let w = px / POOL_W;
            if px % POOL_W == 0u && ox + px + POOL_W <= COVER_W {
                for (var n = 0u; n < SPAN; n++) {
                    finish(o + n, row + w + n * (POOLED_H * POOLED_W), (*best)[w][n], (*winner)[w][n]);
                }
            }
        }
    }
}

// Computes the place-th patch's outputs of the channels that a lane's `span` is, by their weights
// from `weights` on or by those that are kept, and their bias.
fn compute(
    place: u32, g: u32, span: u32, weights: u32, b: Sums, lane: u32,
    kept: ptr<function, array<array<array<Sums, KW>, KH>, CHANNELS>>,
) {
    let image = place / PATCHES;
    let oy = place % PATCHES / PATCHES_X * PATCH_H;
    let ox = place % PATCHES_X * PATCH_W;

    // Where this lane's share of the receptive field lies in the channel's plane.
    var inside: array<bool, LOADS>;
    var cell: array<u32, LOADS>;
    var corner: array<u32, LOADS>;                     // in the plane
    for (var i = 0u; i < LOADS; i++) {
        let q = i * LANES + lane;
        let iy = oy * STRIDE_Y + AREA_Y + q / AREA_W * (GAP_Y * CELL_H) - PAD_TOP;
        let ix = ox * STRIDE_X + AREA_X + q % AREA_W * (GAP_X * CELL_W) - PAD_LEFT;
        // Negative coordinates wrap around to large ones.
        let ok = iy < SEEN_H * GAP_Y && ix < SEEN_W * GAP_X;
        let at = iy / (GAP_Y * CELL_H) * CELLS_W + ix / (GAP_X * CELL_W);
        inside[i] = ok;
        cell[i] = (image * GROUPS + g) * (IN * CELLS) + select(0u, at, ok);
        corner[i] = iy * W + ix;
    }

    var sums: array<array<Sums, PATCH_W>, PATCH_H>;
    for (var c0 = 0u; c0 < IN; c0 += CHANNELS) {
        var area: array<array<array<array<f32, LANES>, CELL>, LOADS>, CHANNELS>;
        for (var step = 0u; step < CHANNELS; step++) {
            let c = c0 + step;
            for (var i = 0u; i < LOADS; i++) {
                let value = select(0.0, value_at(cell[i] + c * CELLS), inside[i]);
                var found = 0u;
                if POOLED {
                    found = winner_at(cell[i] + c * CELLS) - corner[i];
                }
                for (var k = 0u; k < CELL; k++) {
                    let is_it = !POOLED || found == k / CELL_W * W + k % CELL_W;
                    area[step][i][k] = spread(select(0.0, value, is_it));
                }
            }
            var taps: array<array<Sums, KW>, KH>;
            for (var ky = 0u; ky < KH; ky++) {
                for (var kx = 0u; kx < KW; kx++) {
                    if SWEEP > 1u {
                        taps[ky][kx] = (*kept)[step][ky][kx];
                    } else {
                        taps[ky][kx] = taps_at(weights, c, ky, kx);
                    }
                }
            }
            for (var py = 0u; py < PATCH_H; py++) {
                for (var px = 0u; px < PATCH_W; px++) {
                    var sum = sums[py][px];
                    for (var ky = 0u; ky < KH; ky++) {
                        for (var kx = 0u; kx < KW; kx++) {
                            // What is outside of the area, or in a gap, is known beforehand.
                            let row = py * STRIDE_Y + ky * DILATION_Y - AREA_Y;
                            let column = px * STRIDE_X + kx * DILATION_X - AREA_X;
                            let down = row / (GAP_Y * CELL_H);
                            let along = column / (GAP_X * CELL_W);
                            let is_there = down < AREA_H && along < AREA_W;
                            if is_there && row % GAP_Y == 0u && column % GAP_X == 0u {
                                let q = down * AREA_W + along;
                                let k = row / GAP_Y % CELL_H * CELL_W + column / GAP_X % CELL_W;
                                sum = fma(Sums(area[step][q / LANES][k][q % LANES]), taps[ky][kx], sum);
                            }
                        }
                    }
                    sums[py][px] = sum;
                }
            }
        }
    }

    let o = span * SPAN;
    let channel = (image * GROUPS + g) * O + o;
    // The winners so far of a row of windows, and where they are in the output plane.
    var best: array<Sums, PATCH_W>;
    var winner: array<Places, PATCH_W>;
    for (var py = 0u; py < PATCH_H; py++) {
        for (var px = 0u; px < PATCH_W; px++) {
            let value = sums[py][px] + b;
            let at = (oy + py) * OW + ox + px;
            let w = px / POOL_W;
            if py % POOL_H == 0u && px % POOL_W == 0u {
                best[w] = value;
                winner[w] = Places(at);
            } else {
                let wins = value > best[w];
                best[w] = select(best[w], value, wins);
                winner[w] = select(winner[w], Places(at), wins);
            }
        }
        if py % POOL_H == POOL_H - 1u && oy + py < ROWS {
            put_row(channel, o, oy + py, ox, &best, &winner);
        }
    }
    if ROWS < COVER_H {
        for (var w = 0u; w < PATCH_W; w++) {
            best[w] = b;
        }
        // A loop, as these skip what no lane does.
        for (var row = select(COVER_H, ROWS, oy + PATCH_H >= ROWS); row < COVER_H; row++) {
            put_row(channel, o, row, ox, &best, &winner);
        }
    }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let nth_sweep = group.x + group.y * GROUPS_X;
    // Known beforehand where one row of workgroups is enough: else all that follows is masked.
    if SWEEPS > GROUPS_X && nth_sweep >= SWEEPS {
        return;
    }
    let g = group.z / BLOCKS;
    let span = group.z % BLOCKS * LANES + lane;
    let weights = g * (IN * KH * KW * ROW) + min(span, ROW - 1u);

    var kept: array<array<array<Sums, KW>, KH>, CHANNELS>;
    if SWEEP > 1u {
        for (var c = 0u; c < CHANNELS; c++) {
            for (var ky = 0u; ky < KH; ky++) {
                for (var kx = 0u; kx < KW; kx++) {
                    kept[c][ky][kx] = taps_at(weights, c, ky, kx);
                }
            }
        }
    }
    var b: Sums;
    for (var n = 0u; n < SPAN; n++) {
        b[n] = bias_at(g, span * SPAN + n);
    }
    // A loop of a single round would be one to drivers, too.
    if SWEEP == 1u {
        compute(nth_sweep, g, span, weights, b, lane, &kept);
    } else {
        for (var nth = 0u; nth < SWEEP; nth++) {
            compute(nth_sweep * SWEEP + nth, g, span, weights, b, lane, &kept);
        }
    }
}
