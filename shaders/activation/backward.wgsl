// Activation, backward: dx[i] = dy[i] * slope(saved[i], ALPHA), any shape.
//
//   dy, saved, dx   the same number of f32, read as vec4; storage is padded to
//                   whole vec4. `saved` is the forward output, or the input for
//                   functions whose output does not determine the slope.
//
// One invocation a vec4. Floor: 12 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const VEC4S: u32 = 1u;           // length of dy in vec4
const ALPHA: f32 = 0.0;          // the activation's parameter

@group(0) @binding(0) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> saved: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dx: array<vec4<f32>>;

fn slope(s: f32, alpha: f32) -> f32 { return 1.0; }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= VEC4S {
        return;
    }
    let s = saved[i];
    dx[i] = dy[i] * vec4<f32>(slope(s.x, ALPHA), slope(s.y, ALPHA), slope(s.z, ALPHA), slope(s.w, ALPHA));
}
