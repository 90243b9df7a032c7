// Average pooling, forward, any window:
//
//   y[p, oh, ow] = sum over the taps (r, s) that fall on the image of x[p, h, w] / count
//   h = oh * STRIDE_H + r * DILATION_H - PAD_TOP,  w likewise; p counts the N * C planes
//   count = rows(oh) * columns(ow): the taps that fall on the image, or on the padded
//   image where padding counts; what hangs over beyond the padding never counts
//
//   x   [p, H, W] f32
//   y   [p, HO, WO] f32, written as vec4
//
// One invocation computes four outputs that lie side by side. Floor: x read once, 4
// bytes written an output.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const OUTPUTS: u32 = 1u;         // elements of y
const H: u32 = 2u;               // image rows
const W: u32 = 2u;               // image columns
const HO: u32 = 1u;              // output rows
const WO: u32 = 1u;              // output columns
const KERNEL_H: u32 = 2u;        // taps a column of the window
const KERNEL_W: u32 = 2u;        // taps a row of the window
const STRIDE_H: u32 = 2u;
const STRIDE_W: u32 = 2u;
const DILATION_H: u32 = 1u;
const DILATION_W: u32 = 1u;
const PAD_TOP: u32 = 0u;
const PAD_LEFT: u32 = 0u;
const CLIPPED: bool = true;      // whether any tap of any window misses the image
const FIRST_H: u32 = 0u;         // rows [FIRST_H, END_H) of the padded image count,
const END_H: u32 = 2u;           //   row PAD_TOP being the image's first
const FIRST_W: u32 = 0u;         // columns likewise
const END_W: u32 = 2u;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

// How many of `kernel` taps from `start` on lie in [first, end).
fn taps(start: u32, kernel: u32, dilation: u32, first: u32, end: u32) -> u32 {
    let skipped = (max(first, start) - start + dilation - 1u) / dilation;
    let reached = (max(end, start) - start + dilation - 1u) / dilation;
    return min(reached, kernel) - min(skipped, kernel);
}

fn count(oh: u32, ow: u32) -> u32 {
    if !CLIPPED {
        return KERNEL_H * KERNEL_W;
    }
    return taps(oh * STRIDE_H, KERNEL_H, DILATION_H, FIRST_H, END_H)
        * taps(ow * STRIDE_W, KERNEL_W, DILATION_W, FIRST_W, END_W);
}

fn pool(output: u32) -> f32 {
    // Past the end the last output is computed again, into the padding.
    let o = min(output, OUTPUTS - 1u);
    let plane = o / (HO * WO);
    let oh = o / WO % HO;
    let ow = o % WO;
    var sum = 0.0;
    for (var r = 0u; r < KERNEL_H; r++) {
        // Rows above the image wrap to huge numbers and fail the same test.
        let h = oh * STRIDE_H + r * DILATION_H - PAD_TOP;
        for (var s = 0u; s < KERNEL_W; s++) {
            let w = ow * STRIDE_W + s * DILATION_W - PAD_LEFT;
            if !CLIPPED || (h < H && w < W) {
                sum += x[plane * (H * W) + h * W + w];
            }
        }
    }
    return sum / f32(count(oh, ow));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i * 4u >= OUTPUTS {
        return;
    }
    y[i] = vec4<f32>(pool(i * 4u), pool(i * 4u + 1u), pool(i * 4u + 2u), pool(i * 4u + 3u));
}
