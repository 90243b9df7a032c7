// Gather: y[o, k, i] = x[o, indices[k], i], 0 where there is no such place.
//
//   x         [outer, EXTENT, INNER] elements
//   indices   [PICKED] u32
//   y         [outer, PICKED, INNER] elements
//
// An element is a vec4 where INNER is a multiple of 4, else an f32. One invocation an
// element of y. Floor: 8 bytes for each f32 of y.

alias Element = f32;

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const LEN: u32 = 1u;             // elements of y
const EXTENT: u32 = 1u;          // places of x along the axis
const PICKED: u32 = 1u;          // indices
const INNER: u32 = 1u;           // elements behind the axis

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if at >= LEN {
        return;
    }
    let row = at / INNER;
    let place = indices[row % PICKED];
    var value = Element();
    if place < EXTENT {
        value = x[(row / PICKED * EXTENT + place) * INNER + at % INNER];
    }
    y[at] = value;
}
