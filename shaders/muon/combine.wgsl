// Muon, the sums of a Newton-Schulz step: y = ALPHA y + BETA z.
//
//   y   VEC4S vec4<f32>, updated
//   z   as long
//
// One invocation a vec4. Floor: 12 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const VEC4S: u32 = 1u;
const ALPHA: f32 = 1.0;
const BETA: f32 = 1.0;

@group(0) @binding(0) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> z: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= VEC4S {
        return;
    }
    y[i] = ALPHA * y[i] + BETA * z[i];
}
