// Copy: y[i] = x[i].
//
//   x, y   [VEC4S] vec4
//
// An invocation copies EACH vec4, a workgroup's length apart, so that several loads are
// under way at once. Floor: 32 bytes a vec4, read once, written once.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const EACH: u32 = 4u;            // vec4 an invocation
const VEC4S: u32 = 256u;         // a multiple of WORKGROUP * EACH

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = (group.x + group.y * GROUPS_X) * WORKGROUP * EACH + lane;
    if first >= VEC4S {
        return;
    }
    var taken: array<vec4<f32>, EACH>;
    for (var i = 0u; i < EACH; i++) {
        taken[i] = x[first + i * WORKGROUP];
    }
    for (var i = 0u; i < EACH; i++) {
        y[first + i * WORKGROUP] = taken[i];
    }
}
