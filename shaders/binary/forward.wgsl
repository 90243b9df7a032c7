// Binary: y[i] = combine(a[at(i)], b[at(i)]), a and b broadcast to the shape of y.
//
//   y      [D0, .., D5] f32, written as vec4; storage is padded to whole vec4
//   a, b   f32, read as vec4; along axis k of y an operand steps by its stride, Ak or
//          Bk, which is 0 where it is broadcast. An operand of y's own shape is WHOLE
//          and read like y.
//
// One invocation a vec4 of y. Floor: y written once, each operand read once.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const LEN: u32 = 1u;             // length of y
const A_WHOLE: bool = false;     // whether a has y's shape
const B_WHOLE: bool = false;     // whether b has y's shape
const D1: u32 = 1u;              // extents of y's axes; the outermost is not needed
const D2: u32 = 1u;
const D3: u32 = 1u;
const D4: u32 = 1u;
const D5: u32 = 1u;
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

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

fn combine(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return a + b; }

// Where the operands of an element of y lie: in a and in b.
fn places(element: u32) -> vec2<u32> {
    var rest = element;
    var at = rest % D5 * vec2<u32>(A5, B5);
    rest /= D5;
    at += rest % D4 * vec2<u32>(A4, B4);
    rest /= D4;
    at += rest % D3 * vec2<u32>(A3, B3);
    rest /= D3;
    at += rest % D2 * vec2<u32>(A2, B2);
    rest /= D2;
    at += rest % D1 * vec2<u32>(A1, B1);
    rest /= D1;
    return at + rest * vec2<u32>(A0, B0);
}

// The operands of an element of y, 0 for one that is read whole.
fn operands(element: u32) -> vec2<f32> {
    let at = places(min(element, LEN - 1u));
    var pair = vec2<f32>();
    if !A_WHOLE {
        pair.x = a[at.x / 4u][at.x % 4u];
    }
    if !B_WHOLE {
        pair.y = b[at.y / 4u][at.y % 4u];
    }
    return pair;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    let e = 4u * i;
    if e >= LEN {
        return;
    }
    var va = vec4<f32>();
    var vb = vec4<f32>();
    if !(A_WHOLE && B_WHOLE) {
        let p = operands(e);
        let q = operands(e + 1u);
        let r = operands(e + 2u);
        let s = operands(e + 3u);
        va = vec4<f32>(p.x, q.x, r.x, s.x);
        vb = vec4<f32>(p.y, q.y, r.y, s.y);
    }
    if A_WHOLE {
        va = a[i];
    }
    if B_WHOLE {
        vb = b[i];
    }
    y[i] = combine(va, vb);
}
