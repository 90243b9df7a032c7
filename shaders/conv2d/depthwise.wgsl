// Depthwise 2-D convolution: each output channel sees one input channel.
//
//   y[i, o, oy, ox] = activate(bias[o] + sum over (ky, kx) of w[o, ky, kx] * x[i, o / O, iy, ix], ALPHA)
//
// with iy = oy * STRIDE_Y + ky * DILATION_Y - PAD_TOP and likewise ix; taps outside the
// image are zero. The input gradient is the same sum over the gradient, with filters turned
// round (FLIP) and the padding's complement, where an input channel has one filter: x then
// has rows and columns only every GAP_Y and GAP_X, with zeros between.
//
//   x        by the hook `row`: [IMAGES, GROUPS, H, W]
//   w        [GROUPS * O, KH, KW] f32
//   bias     [GROUPS * O], read where HAS_BIAS; otherwise anything
//   y        by the hook `put`, or `put_quad` where IN_QUADS: [IMAGES, GROUPS * O, OH, OW]
//
// Tile picture: an invocation computes a strip of STRIP rows and COLUMNS columns, from its
// first row down, ROWS at a time. The rows of x that the filter lies on are in registers:
// ADVANCE of them are new for the next ROWS outputs, the others move up. It does so for
// one channel of EACH images, and reads the filter once.
//
//      x                                    y
//    +------------------+
//    |  WINDOW rows of  |  moves down      +----------+  ROWS
//    |      ROW         |  by ADVANCE      | COLUMNS  |  at a time,
//    +------------------+  rows            +----------+  STRIP in all
//
// Neighbouring invocations compute neighbours in a row where STRIPS_X > 1, as GPUs like it; on a
// software adapter a strip is as wide as the image where that is not too long.
//
// The register arrays are nested, each as long as the loop that indexes it: drivers unroll
// such loops completely, and only then do the arrays stay in registers.
//
// Floor a row of x: ROW / 4 vec4 loads, COLUMNS / 4 stores, COLUMNS KH KW FMA.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const IMAGES: u32 = 1u;
const GROUPS: u32 = 1u;          // channels of x
const IN: u32 = 1u;              // of a group: always 1
const O: u32 = 1u;               // filters of a channel
const H: u32 = 1u;
const W: u32 = 1u;
const OH: u32 = 1u;
const OW: u32 = 1u;
const KH: u32 = 1u;
const KW: u32 = 1u;
const STRIDE_Y: u32 = 1u;
const STRIDE_X: u32 = 1u;
const DILATION_Y: u32 = 1u;
const DILATION_X: u32 = 1u;
const PAD_TOP: u32 = 0u;         // of those rows of x that there are; modulo 2^32, as it can be negative
const PAD_LEFT: u32 = 0u;
const GAP_Y: u32 = 1u;           // distance of x's rows; divides ROWS
const GAP_X: u32 = 1u;           // and COLUMNS
const PHASE_Y: u32 = 0u;         // the first of a window that there is
const PHASE_X: u32 = 0u;
const FLIP: bool = false;
const ROWS: u32 = 1u;            // outputs a step
const COLUMNS: u32 = 1u;
const STRIP: u32 = 1u;           // a multiple of ROWS
const EACH: u32 = 1u;            // images of an invocation; divides IMAGES
const IN_QUADS: bool = false;    // OW and COLUMNS divide by 4
const HAS_BIAS: bool = false;
const POOL_H: u32 = 1u;          // no pool
const POOL_W: u32 = 1u;
const ALPHA: f32 = 0.0;          // the activation's parameter

const STRIPS_Y: u32 = (OH + STRIP - 1u) / STRIP;
const STRIPS_X: u32 = (OW + COLUMNS - 1u) / COLUMNS;
const PLANES: u32 = GROUPS * O;
const TOTAL: u32 = IMAGES / EACH * PLANES * STRIPS_Y * STRIPS_X;
const WINDOW: u32 = ((ROWS - 1u) * STRIDE_Y + (KH - 1u) * DILATION_Y - PHASE_Y) / GAP_Y + 1u;
const ROW: u32 = ((COLUMNS - 1u) * STRIDE_X + (KW - 1u) * DILATION_X - PHASE_X) / GAP_X + 1u;
const ADVANCE: u32 = ROWS * STRIDE_Y / GAP_Y;
const KEPT: u32 = WINDOW - min(WINDOW, ADVANCE);

@group(0) @binding(5) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;

fn row(plane: u32, iy: u32, ix: u32) -> array<f32, ROW> { return array<f32, ROW>(); }
fn activate(v: f32, alpha: f32) -> f32 { return v; }
fn put(at: u32, value: f32, winner: u32) {
}
fn put_quad(at: u32, values: vec4<f32>, winners: vec4<u32>) {
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let place = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    // Known beforehand where a row of full workgroups is enough: else all that follows is masked.
    if (TOTAL % WORKGROUP != 0u || TOTAL > GROUPS_X * WORKGROUP) && place >= TOTAL {
        return;
    }
    let ox = place % STRIPS_X * COLUMNS;
    let first = place / STRIPS_X % STRIPS_Y * STRIP;
    let o = place / (STRIPS_X * STRIPS_Y) % PLANES;
    let images = place / (STRIPS_X * STRIPS_Y * PLANES) * EACH;
    let top = first * STRIDE_Y / GAP_Y - PAD_TOP;
    let left = ox * STRIDE_X / GAP_X - PAD_LEFT;

    var taps: array<array<f32, KW>, KH>;
    for (var ky = 0u; ky < KH; ky++) {
        for (var kx = 0u; kx < KW; kx++) {
            let tap = ky * KW + kx;
            taps[ky][kx] = w[o * (KH * KW) + select(tap, KH * KW - 1u - tap, FLIP)];
        }
    }
    var start = 0.0;
    if HAS_BIAS {
        start = bias[o];
    }

    for (var nth = 0u; nth < EACH; nth++) {
        let image = images + nth;
        let plane = (image * GROUPS + o / O) * (H * W);
        var window: array<array<f32, ROW>, WINDOW>;
        for (var r = 0u; r < WINDOW; r++) {
            if r < KEPT {
                window[r] = row(plane, top + r, left);
            }
        }
        for (var step = 0u; step < STRIP; step += ROWS) {
            for (var r = 0u; r < WINDOW; r++) {
                if r >= KEPT {
                    window[r] = row(plane, top + step / ROWS * ADVANCE + r, left);
                }
            }
            var sums: array<array<f32, COLUMNS>, ROWS>;
            for (var u = 0u; u < ROWS; u++) {
                for (var px = 0u; px < COLUMNS; px++) {
                    var sum = start;
                    for (var ky = 0u; ky < KH; ky++) {
                        for (var kx = 0u; kx < KW; kx++) {
                            // What falls into a gap is known beforehand.
                            let r = u * STRIDE_Y + ky * DILATION_Y;
                            let c = px * STRIDE_X + kx * DILATION_X;
                            if r % GAP_Y == PHASE_Y && c % GAP_X == PHASE_X {
                                sum = fma(taps[ky][kx], window[r / GAP_Y][c / GAP_X], sum);
                            }
                        }
                    }
                    sums[u][px] = activate(sum, ALPHA);
                }
            }
            for (var u = 0u; u < ROWS; u++) {
                let oy = first + step + u;
                let to = (image * PLANES + o) * (OH * OW) + oy * OW + ox;
                for (var px = 0u; px < COLUMNS; px++) {
                    if (OH % STRIP == 0u || oy < OH) && (OW % COLUMNS == 0u || ox + px < OW) {
                        if !IN_QUADS {
                            put(to + px, sums[u][px], 0u);
                        } else if px % 4u == 0u {
                            let quad = vec4<f32>(sums[u][px], sums[u][px + 1u], sums[u][px + 2u], sums[u][px + 3u]);
                            put_quad((to + px) / 4u, quad, vec4<u32>());
                        }
                    }
                }
            }
            for (var r = 0u; r < WINDOW; r++) {
                if r < KEPT {
                    window[r] = window[r + ADVANCE];
                }
            }
        }
    }
}
