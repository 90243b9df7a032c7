// Weight gradient of a depthwise 2-D convolution:
//
//   dw[o, ky, kx] = sum over (i, oy, ox) of dy[i, o, oy, ox] * x[i, o / O, iy, ix]
//
// with iy = oy * STRIDE_Y + ky * DILATION_Y - PAD_TOP and likewise ix; taps outside the
// image are zero.
//
//   x        by the hook `row`: [IMAGES, GROUPS, H, W]
//   dy, dy4  [IMAGES, GROUPS * O, OH, OW] f32: one buffer seen as f32 and as vec4, read by vec4
//            where IN_QUADS_DY: OW and COLUMNS divide by 4
//   dw       [PARTS, GROUPS * O, KH, KW] f32: gemm/reduce.wgsl adds the parts up, in order
//   db       by the hook `put_bias`: [PARTS, GROUPS * O], the sum of dy over (i, oy, ox)
//
// Tile picture: as in conv2d/depthwise.wgsl, an invocation goes down a strip of STRIP rows and
// COLUMNS columns of one channel, ROWS at a time, with the rows of x that the filter lies on in
// registers, in EACH images one after the other. It keeps the sums of all taps; its strip and
// images are a part.
//
//      x                                    dy
//    +------------------+
//    |  WINDOW rows of  |  moves down      +----------+  ROWS
//    |      ROW         |  by ADVANCE      | COLUMNS  |  at a time,     sums[ky][kx]
//    +------------------+  rows            +----------+  STRIP in all
//
// Neighbouring invocations have the next part where PARTS_FIRST, so that on GPUs they read
// neighbours; else the next channel, which on a software adapter spreads over fewer pages than
// the next image.
//
// The register arrays are nested, each as long as the loop that indexes it: drivers unroll
// such loops completely, and only then do the arrays stay in registers.
//
// Floor a row of x: (ROW + COLUMNS) / 4 vec4 loads, COLUMNS KH KW FMA.

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
const PAD_TOP: u32 = 0u;
const PAD_LEFT: u32 = 0u;
const ROWS: u32 = 1u;            // outputs a step
const COLUMNS: u32 = 1u;
const STRIP: u32 = 1u;           // a multiple of ROWS
const EACH: u32 = 1u;            // images of a part; divides IMAGES
const IN_QUADS_DY: bool = false;
const PARTS_FIRST: bool = false;

const STRIPS_Y: u32 = (OH + STRIP - 1u) / STRIP;
const STRIPS_X: u32 = (OW + COLUMNS - 1u) / COLUMNS;
const PLANES: u32 = GROUPS * O;
const PARTS: u32 = IMAGES / EACH * STRIPS_Y * STRIPS_X;
const TOTAL: u32 = PARTS * PLANES;
const WINDOW: u32 = (ROWS - 1u) * STRIDE_Y + (KH - 1u) * DILATION_Y + 1u;
const ROW: u32 = (COLUMNS - 1u) * STRIDE_X + (KW - 1u) * DILATION_X + 1u;
const ADVANCE: u32 = ROWS * STRIDE_Y;
const KEPT: u32 = WINDOW - min(WINDOW, ADVANCE);

@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read> dy4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dw: array<f32>;

fn row(plane: u32, iy: u32, ix: u32) -> array<f32, ROW> { return array<f32, ROW>(); }
fn put_bias(at: u32, value: f32) {
}

// Gradients of COLUMNS outputs from (oy, ox) on of the plane that begins at `plane`; beside the
// output zero.
fn gradients(plane: u32, oy: u32, ox: u32) -> array<f32, COLUMNS> {
    var values: array<f32, COLUMNS>;
    var quad: vec4<f32>;
    for (var px = 0u; px < COLUMNS; px++) {
        let ok = (OH % STRIP == 0u || oy < OH) && (OW % COLUMNS == 0u || ox + px < OW);
        let at = plane + select(0u, oy * OW + ox + px, ok);
        if !IN_QUADS_DY {
            values[px] = select(0.0, dy[at], ok);
        } else {
            if px % 4u == 0u {
                quad = select(vec4<f32>(), dy4[at / 4u], ok);
            }
            values[px] = quad[px % 4u];
        }
    }
    return values;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let place = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    // Known beforehand where a row of full workgroups is enough: else all that follows is masked.
    if (TOTAL % WORKGROUP != 0u || TOTAL > GROUPS_X * WORKGROUP) && place >= TOTAL {
        return;
    }
    let part = select(place / PLANES, place % PARTS, PARTS_FIRST);
    let o = select(place % PLANES, place / PARTS, PARTS_FIRST);
    let ox = part % STRIPS_X * COLUMNS;
    let first = part / STRIPS_X % STRIPS_Y * STRIP;
    let images = part / (STRIPS_X * STRIPS_Y) * EACH;
    let top = first * STRIDE_Y - PAD_TOP;
    let left = ox * STRIDE_X - PAD_LEFT;

    var bias_sum = 0.0;
    var sums: array<array<f32, KW>, KH>;
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
                    window[r] = row(plane, top + step * STRIDE_Y + r, left);
                }
            }
            var grads: array<array<f32, COLUMNS>, ROWS>;
            for (var u = 0u; u < ROWS; u++) {
                grads[u] = gradients((image * PLANES + o) * (OH * OW), first + step + u, ox);
                for (var px = 0u; px < COLUMNS; px++) {
                    bias_sum += grads[u][px];
                }
            }
            for (var ky = 0u; ky < KH; ky++) {
                for (var kx = 0u; kx < KW; kx++) {
                    var sum = sums[ky][kx];
                    for (var u = 0u; u < ROWS; u++) {
                        for (var px = 0u; px < COLUMNS; px++) {
                            let pixel = window[u * STRIDE_Y + ky * DILATION_Y][px * STRIDE_X + kx * DILATION_X];
                            sum = fma(grads[u][px], pixel, sum);
                        }
                    }
                    sums[ky][kx] = sum;
                }
            }
            for (var r = 0u; r < WINDOW; r++) {
                if r < KEPT {
                    window[r] = window[r + ADVANCE];
                }
            }
        }
    }

    put_bias(part * PLANES + o, bias_sum);
    for (var ky = 0u; ky < KH; ky++) {
        for (var kx = 0u; kx < KW; kx++) {
            dw[(part * PLANES + o) * (KH * KW) + ky * KW + kx] = sums[ky][kx];
        }
    }
}
