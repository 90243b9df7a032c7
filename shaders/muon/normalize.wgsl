// Muon, second stage: x = x / (sqrt(square) + EPSILON), so that no singular value is above 1.
//
//   x        VEC4S vec4<f32>, updated
//   square   one f32, the sum of the squares of x
//
// One invocation a vec4. Floor: 8 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const VEC4S: u32 = 1u;
const EPSILON: f32 = 1e-7;

@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> square: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= VEC4S {
        return;
    }
    x[i] = x[i] / (sqrt(square[0]) + EPSILON);
}
