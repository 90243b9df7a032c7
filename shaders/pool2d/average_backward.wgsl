// Average pooling, backward, any window, by gather:
//
//   dx[p, h, w] = sum over the windows (oh, ow) with a tap on (h, w) of
//                 dy[p, oh, ow] / count(oh, ow)
//
//   dy   [p, HO, WO] f32
//   dx   [p, H, W] f32, written as vec4
//
// `count` is that of average_forward.wgsl. At most COVER_H by COVER_W windows reach an
// element: those that end at or after it of the windows that start at or before it.
//
// One invocation computes four elements of dx. Floor: dy read once, 4 bytes written an
// element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const ELEMENTS: u32 = 4u;        // elements of dx
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
const COVER_H: u32 = 1u;         // most windows over a row: ceil(span / stride)
const COVER_W: u32 = 1u;         // most windows over a column

@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read_write> dx: array<vec4<f32>>;

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

// Whether one of `kernel` taps lies `offset` past the window's start.
fn hits(offset: u32, kernel: u32, dilation: u32) -> bool {
    return offset % dilation == 0u && offset / dilation < kernel;
}

fn gather(element: u32) -> f32 {
    // Past the end the last element is computed again, into the padding.
    let e = min(element, ELEMENTS - 1u);
    let plane = e / (H * W);
    let h = e / W % H + PAD_TOP;
    let w = e % W + PAD_LEFT;
    var sum = 0.0;
    for (var i = 0u; i < COVER_H; i++) {
        for (var j = 0u; j < COVER_W; j++) {
            // Windows before the first wrap to huge numbers and fail the same test.
            let oh = h / STRIDE_H - i;
            let ow = w / STRIDE_W - j;
            if oh < HO && ow < WO
                && hits(h - oh * STRIDE_H, KERNEL_H, DILATION_H)
                && hits(w - ow * STRIDE_W, KERNEL_W, DILATION_W) {
                sum += dy[plane * (HO * WO) + oh * WO + ow] / f32(count(oh, ow));
            }
        }
    }
    return sum;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i * 4u >= ELEMENTS {
        return;
    }
    dx[i] = vec4<f32>(gather(i * 4u), gather(i * 4u + 1u), gather(i * 4u + 2u), gather(i * 4u + 3u));
}
