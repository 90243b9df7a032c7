// Transpose: y[i0, .., i5] = x at the sum of ik * Sk, the axes of x in another order.
//
//   x   f32; along axis k of y it steps by Sk
//   y   [LEN / (D1 * .. * D5), D1, .., D5] f32
//
// One invocation an element of y. Floor: 8 bytes an element, read once, written once.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const LEN: u32 = 1u;             // length of y
const D1: u32 = 1u;              // extents of y's axes; the outermost is not needed
const D2: u32 = 1u;
const D3: u32 = 1u;
const D4: u32 = 1u;
const D5: u32 = 1u;
const S0: u32 = 0u;              // strides of x along them
const S1: u32 = 0u;
const S2: u32 = 0u;
const S3: u32 = 0u;
const S4: u32 = 0u;
const S5: u32 = 0u;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= LEN {
        return;
    }
    var rest = i;
    var at = rest % D5 * S5;
    rest /= D5;
    at += rest % D4 * S4;
    rest /= D4;
    at += rest % D3 * S3;
    rest /= D3;
    at += rest % D2 * S2;
    rest /= D2;
    at += rest % D1 * S1;
    rest /= D1;
    y[i] = x[at + rest * S0];
}
