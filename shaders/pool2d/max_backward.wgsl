// Max pooling, backward, any window, by gather:
//
//   dx[p, h, w] = sum over the windows (oh, ow) that reach (h, w) and whose argmax is
//                 h * W + w of dy[p, oh, ow] * slope(saved[p, oh, ow])
//
//   dy, saved, argmax   [p, HO, WO] f32, f32 and u32; `saved` is what the slope of an
//                       activation behind the pool is computed from (without one the
//                       launch binds dy and nothing is read); argmax may name no element
//   dx                  [p, H, W] f32, written as vec4
//
// At most COVER_H by COVER_W windows reach an element: those that end at or after it
// of the windows that start at or before it. A window that reaches it with no tap on
// it has its argmax elsewhere, so taps need not be looked at.
//
// One invocation computes four elements of dx. Floor: dy and argmax read once, 4
// bytes written an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const ELEMENTS: u32 = 4u;        // elements of dx
const H: u32 = 2u;               // image rows
const W: u32 = 2u;               // image columns
const HO: u32 = 1u;              // output rows
const WO: u32 = 1u;              // output columns
const STRIDE_H: u32 = 2u;
const STRIDE_W: u32 = 2u;
const PAD_TOP: u32 = 0u;
const PAD_LEFT: u32 = 0u;
const COVER_H: u32 = 1u;         // most windows over a row: ceil(span / stride)
const COVER_W: u32 = 1u;         // most windows over a column
const ALPHA: f32 = 0.0;          // the activation's parameter

@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read> saved: array<f32>;
@group(0) @binding(2) var<storage, read> argmax: array<u32>;
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;

fn slope(s: f32, alpha: f32) -> f32 { return 1.0; }

fn gather(element: u32) -> f32 {
    // Past the end the last element is computed again, into the padding.
    let e = min(element, ELEMENTS - 1u);
    let plane = e / (H * W);
    let at = e % (H * W);
    let last_h = (at / W + PAD_TOP) / STRIDE_H;
    let last_w = (at % W + PAD_LEFT) / STRIDE_W;
    var sum = 0.0;
    for (var i = 0u; i < COVER_H; i++) {
        for (var j = 0u; j < COVER_W; j++) {
            // Windows before the first wrap to huge numbers and fail the same test.
            let oh = last_h - i;
            let ow = last_w - j;
            if oh < HO && ow < WO {
                let o = plane * (HO * WO) + oh * WO + ow;
                if argmax[o] == at {
                    sum += dy[o] * slope(saved[o], ALPHA);
                }
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
