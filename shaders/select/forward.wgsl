// Select: y = a where the condition is not 0, else b; all broadcast to the shape of y.
//
//   y                 [D0, .., D5] f32
//   condition, a, b   f32; along axis k of y they step by Ck, Ak and Bk, which are 0 where
//                     they are broadcast
//
// One invocation an element of y. Floor: y written once, each operand read once.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const LEN: u32 = 1u;             // length of y
const D1: u32 = 1u;              // extents of y's axes; the outermost is not needed
const D2: u32 = 1u;
const D3: u32 = 1u;
const D4: u32 = 1u;
const D5: u32 = 1u;
const C0: u32 = 0u;              // strides of the condition
const C1: u32 = 0u;
const C2: u32 = 0u;
const C3: u32 = 0u;
const C4: u32 = 0u;
const C5: u32 = 0u;
const A0: u32 = 0u;              // strides of a
const A1: u32 = 0u;
const A2: u32 = 0u;
const A3: u32 = 0u;
const A4: u32 = 0u;
const A5: u32 = 0u;
const B0: u32 = 0u;              // strides of b
const B1: u32 = 0u;
const B2: u32 = 0u;
const B3: u32 = 0u;
const B4: u32 = 0u;
const B5: u32 = 0u;

@group(0) @binding(0) var<storage, read> condition: array<f32>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// Where the operands of an element of y lie: in the condition, in a and in b.
fn places(element: u32) -> vec3<u32> {
    var rest = element;
    var at = rest % D5 * vec3<u32>(C5, A5, B5);
    rest /= D5;
    at += rest % D4 * vec3<u32>(C4, A4, B4);
    rest /= D4;
    at += rest % D3 * vec3<u32>(C3, A3, B3);
    rest /= D3;
    at += rest % D2 * vec3<u32>(C2, A2, B2);
    rest /= D2;
    at += rest % D1 * vec3<u32>(C1, A1, B1);
    rest /= D1;
    return at + rest * vec3<u32>(C0, A0, B0);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= LEN {
        return;
    }
    let at = places(i);
    y[i] = select(b[at.z], a[at.y], condition[at.x] != 0.0);
}
