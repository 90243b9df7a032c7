// Max pooling, forward, any window:
//
//   y[p, oh, ow]      = activate(max over the taps (r, s) that fall on the image of x[p, h, w], ALPHA)
//   argmax[p, oh, ow] = h * W + w of the first winner in row-major order, or NO_WINNER
//   h = oh * STRIDE_H + r * DILATION_H - PAD_TOP,  w likewise; p counts the N * C planes
//
//   x           [p, H, W] f32
//   y, argmax   by the hook `put_quad`: [p, HO, WO], four at once
//
// One invocation computes four outputs that lie side by side. Every window has a tap
// on the image (the op checks it). Floor: x read once, 8 bytes written an output.

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

const ALPHA: f32 = 0.0;          // the activation's parameter

const NONE: u32 = 0xffffffffu;   // no winner yet

@group(0) @binding(0) var<storage, read> x: array<f32>;

struct Winner { value: f32, at: u32 }

fn activate(v: f32, alpha: f32) -> f32 { return v; }
fn put_quad(at: u32, values: vec4<f32>, winners: vec4<u32>) {
}

fn pool(output: u32) -> Winner {
    // Past the end the last output is computed again, into the padding.
    let o = min(output, OUTPUTS - 1u);
    let plane = o / (HO * WO);
    let oh = o / WO % HO;
    let ow = o % WO;
    var best = Winner(0.0, NONE);
    for (var r = 0u; r < KERNEL_H; r++) {
        // Rows above the image wrap to huge numbers and fail the same test.
        let h = oh * STRIDE_H + r * DILATION_H - PAD_TOP;
        for (var s = 0u; s < KERNEL_W; s++) {
            let w = ow * STRIDE_W + s * DILATION_W - PAD_LEFT;
            if !CLIPPED || (h < H && w < W) {
                let value = x[plane * (H * W) + h * W + w];
                if best.at == NONE || value > best.value {
                    best = Winner(value, h * W + w);
                }
            }
        }
    }
    return best;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i * 4u >= OUTPUTS {
        return;
    }
    let a = pool(i * 4u);
    let b = pool(i * 4u + 1u);
    let c = pool(i * 4u + 2u);
    let d = pool(i * 4u + 3u);
    let values = vec4<f32>(activate(a.value, ALPHA), activate(b.value, ALPHA), activate(c.value, ALPHA), activate(d.value, ALPHA));
    put_quad(i, values, vec4<u32>(a.at, b.at, c.at, d.at));
}
