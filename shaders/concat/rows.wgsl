// Concat, one input of several: y[r, OFFSET + c] = x[r, c].
//
//   x   [ROWS, WIDTH] elements, ROWS * WIDTH = LEN; an input's axes before the one it is
//       joined along make a row's number, that axis and those after it the row
//   y   [ROWS, PITCH] elements, of which this dispatch writes WIDTH a row
//
// An element is a vec4 where all rows start at one, else an f32. One invocation an
// element. Floor: 8 bytes an f32, read once, written once.

alias Element = f32;

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const LEN: u32 = 1u;             // elements of x
const WIDTH: u32 = 1u;           // elements of a row of x
const PITCH: u32 = 1u;           // elements of a row of y
const OFFSET: u32 = 0u;          // elements of a row of y before those of x

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= LEN {
        return;
    }
    y[i / WIDTH * PITCH + OFFSET + i % WIDTH] = x[i];
}
