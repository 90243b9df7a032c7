// Unary: y = apply(x), element by element.
//
//   x, y   the same number of f32, read as vec4; storage is padded to whole vec4
//
// One invocation a vec4. Floor: 8 bytes an element, read once, written once.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const VEC4S: u32 = 1u;           // length of x in vec4

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

fn apply(v: vec4<f32>) -> vec4<f32> { return v; }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= VEC4S {
        return;
    }
    y[i] = apply(x[i]);
}
