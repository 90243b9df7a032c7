// Fill: y[i] = VALUE, any shape.
//
//   y   f32 seen as vec4; storage is padded to whole vec4
//
// One invocation a vec4. Floor: 4 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const VEC4S: u32 = 1u;           // length of y in vec4
const VALUE: f32 = 0.0;

@group(0) @binding(0) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= VEC4S {
        return;
    }
    y[i] = vec4<f32>(VALUE);
}
