// Max pooling, backward, for windows that tile the image: stride = kernel, no padding,
// no dilation.
//
//   dx[p, h, w] = dy[p, oh, ow] * slope(saved[p, oh, ow])  where argmax[p, oh, ow] is
//                 h * W + w, else 0
//
//   dy, saved, argmax   [p, HO, WO] f32, f32 and u32, read as vec4; `saved` is what the
//                       slope of an activation behind the pool is computed from
//                       (without one the launch binds dy and nothing is read); argmax may
//                       name no element
//   dx                  [p, H, W] f32
//
//       ow = 0   ow = 1
//     +--------+--------+---+
//     | window | window |   |   the last window of a row also writes the columns that
//     +--------+--------+   |   no window reaches, the last row of windows the rows
//     |                     |   below
//     +---------------------+
//
// One invocation takes four windows that lie side by side, so that dy and argmax are
// read once, whole. Floor: 8 bytes read a window, 4 written an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const WINDOWS: u32 = 1u;         // elements of dy
const H: u32 = 2u;               // image rows
const W: u32 = 2u;               // image columns
const HO: u32 = 1u;              // output rows
const WO: u32 = 1u;              // output columns
const KERNEL_H: u32 = 2u;        // rows of a window
const KERNEL_W: u32 = 2u;        // columns of a window
const ALPHA: f32 = 0.0;          // the activation's parameter

@group(0) @binding(0) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> saved: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> argmax: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

fn slope(s: f32, alpha: f32) -> f32 { return 1.0; }

fn write_tile(window: u32, gradient: f32, winner: u32) {
    if window >= WINDOWS {
        return;
    }
    let plane = window / (HO * WO) * (H * W);
    let oh = window / WO % HO;
    let ow = window % WO;
    for (var r = 0u; r < KERNEL_H; r++) {
        for (var s = 0u; s < KERNEL_W; s++) {
            let at = (oh * KERNEL_H + r) * W + ow * KERNEL_W + s;
            dx[plane + at] = select(0.0, gradient, at == winner);
        }
    }
    if ow == WO - 1u {
        for (var r = 0u; r < KERNEL_H; r++) {
            for (var w = WO * KERNEL_W; w < W; w++) {
                dx[plane + (oh * KERNEL_H + r) * W + w] = 0.0;
            }
        }
    }
    if oh == HO - 1u {
        // The corner falls to the last window.
        let end = select((ow + 1u) * KERNEL_W, W, ow == WO - 1u);
        for (var h = HO * KERNEL_H; h < H; h++) {
            for (var w = ow * KERNEL_W; w < end; w++) {
                dx[plane + h * W + w] = 0.0;
            }
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i * 4u >= WINDOWS {
        return;
    }
    let s = saved[i];
    let g = dy[i] * vec4<f32>(slope(s.x, ALPHA), slope(s.y, ALPHA), slope(s.z, ALPHA), slope(s.w, ALPHA));
    let winner = argmax[i];
    write_tile(i * 4u, g.x, winner.x);
    write_tile(i * 4u + 1u, g.y, winner.y);
    write_tile(i * 4u + 2u, g.z, winner.z);
    write_tile(i * 4u + 3u, g.w, winner.w);
}
