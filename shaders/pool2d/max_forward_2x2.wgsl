// Max pooling, forward, for 2 by 2 windows with stride 2 on images of even width:
//
//   y[p, oh, ow]      = activate(max of x[p, 2 oh .. 2 oh + 1, 2 ow .. 2 ow + 1], ALPHA)
//   argmax[p, oh, ow] = h * W + w of the first winner in row-major order, or NO_WINNER
//
//   x           [p, H, W] f32, read as vec2: both columns of a window lie in one
//   y, argmax   by the hook `put_quad`: [p, HO, WO], four at once
//
//        columns  2 ow   2 ow + 1
//   row 2 oh       [ top.x  top.y ]    one vec2 load
//   row 2 oh + 1   [ low.x  low.y ]    one vec2 load
//
// One invocation computes four outputs that lie side by side. An odd last row is left
// out. Floor: x read once, 8 bytes written an output.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const OUTPUTS: u32 = 1u;         // elements of y
const H: u32 = 2u;               // image rows
const W: u32 = 2u;               // image columns, even
const HO: u32 = 1u;              // output rows
const WO: u32 = 1u;              // output columns, W / 2
const ALPHA: f32 = 0.0;          // the activation's parameter

@group(0) @binding(0) var<storage, read> x: array<vec2<f32>>;

struct Winner { value: f32, at: u32 }

fn activate(v: f32, alpha: f32) -> f32 { return v; }
fn put_quad(at: u32, values: vec4<f32>, winners: vec4<u32>) {
}

fn pool(output: u32) -> Winner {
    // Past the end the last output is computed again, into the padding.
    let o = min(output, OUTPUTS - 1u);
    let row = o / WO;
    let plane = row / HO;
    let at = row % HO * (2u * W) + o % WO * 2u;
    let top = x[(plane * (H * W) + at) / 2u];
    let low = x[(plane * (H * W) + at + W) / 2u];
    var best = Winner(top.x, at);
    if top.y > best.value {
        best = Winner(top.y, at + 1u);
    }
    if low.x > best.value {
        best = Winner(low.x, at + W);
    }
    if low.y > best.value {
        best = Winner(low.y, at + W + 1u);
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
