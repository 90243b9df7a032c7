// Adds up the parts of a sum that was split: y[i] = sum over s of parts[s][i], in
// the order of s.
//
//   parts   SPLITS x LENGTH f32, each part LENGTH apart
//   y       LENGTH f32
//
// One invocation an element. Floor: 4 (SPLITS + 1) bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const LENGTH: u32 = 1u;          // elements of y
const SPLITS: u32 = 1u;          // parts

@group(0) @binding(0) var<storage, read> parts: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= LENGTH {
        return;
    }
    var sum = 0.0;
    for (var s = 0u; s < SPLITS; s++) {
        sum += parts[s * LENGTH + i];
    }
    y[i] = sum;
}
