// Pad and slice: y[i0, i1, i2, i3] = x[START0 + i0, .., START3 + i3], 0 outside of x.
// A slice starts inside, at START >= 0; a padded tensor starts before, at START < 0.
//
//   x   [X0, X1, X2, X3] elements
//   y   [LEN / (Y1 * Y2 * Y3), Y1, Y2, Y3] elements
//
// An element is a vec4 where all rows start and end at one, else an f32. One invocation
// an element of y. Floor: 4 bytes for each f32 of y and for each that is read of x.

alias Element = f32;

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const LEN: u32 = 1u;             // elements of y
const Y1: u32 = 1u;              // extents of y
const Y2: u32 = 1u;
const Y3: u32 = 1u;
const X0: u32 = 1u;              // extents of x
const X1: u32 = 1u;
const X2: u32 = 1u;
const X3: u32 = 1u;
const START0: i32 = 0i;          // where y starts in x
const START1: i32 = 0i;
const START2: i32 = 0i;
const START3: i32 = 0i;

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= LEN {
        return;
    }
    let place = vec4<u32>(i / (Y1 * Y2 * Y3), i / (Y2 * Y3) % Y1, i / Y3 % Y2, i % Y3);
    // A place before the first of x wraps round to one far past the last.
    let at = vec4<u32>(vec4<i32>(place) + vec4<i32>(START0, START1, START2, START3));
    var value = Element();
    if all(at < vec4<u32>(X0, X1, X2, X3)) {
        value = x[((at.x * X1 + at.y) * X2 + at.z) * X3 + at.w];
    }
    y[i] = value;
}
