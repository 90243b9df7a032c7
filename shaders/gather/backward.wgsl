// Gather backward: dx[o, e, i] = sum of dy[o, k, i] over all k whose index is e.
//
//   dy        [outer, PICKED, INNER] elements
//   indices   [PICKED] u32
//   dx        [outer, EXTENT, INNER] elements
//
// An element is a vec4 where INNER is a multiple of 4, else an f32. One invocation an
// element of dx looks through all indices: no atomics, so the order of the sum is fixed.
// Floor: 4 bytes for each f32 of dx and of dy.

alias Element = f32;

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const LEN: u32 = 1u;             // elements of dx
const EXTENT: u32 = 1u;          // places of dx along the axis
const PICKED: u32 = 1u;          // indices
const INNER: u32 = 1u;           // elements behind the axis

@group(0) @binding(0) var<storage, read> dy: array<Element>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> dx: array<Element>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if at >= LEN {
        return;
    }
    let row = at / INNER;
    let first = row / EXTENT * PICKED;
    var total = Element();
    for (var k = 0u; k < PICKED; k++) {
        if indices[k] == row % EXTENT {
            total += dy[(first + k) * INNER + at % INNER];
        }
    }
    dx[at] = total;
}
