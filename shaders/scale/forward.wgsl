// Scale: y[n, c, i] = x[n, c, i] * s[n, i], or * s[0] where s is a scalar.
//
//   x, y   [N, CHANNELS, INNER] f32, read as vec4; storage is padded to whole vec4
//   s      [N, INNER] f32, or one f32. With CHANNELS = 1 s has x's own shape.
//
// One invocation a vec4. Floor: 8 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const LEN: u32 = 1u;             // length of x
const CHANNELS: u32 = 1u;        // elements of x an element of s is applied to
const INNER: u32 = 1u;           // elements of a channel of one sample
const SCALAR: bool = false;      // whether s is a scalar

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> s: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

fn factor(element: u32) -> f32 {
    if SCALAR {
        return s[0];
    }
    let e = min(element, LEN - 1u);
    return s[e / (CHANNELS * INNER) * INNER + e % INNER];
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    let e = 4u * i;
    if e >= LEN {
        return;
    }
    y[i] = x[i] * vec4<f32>(factor(e), factor(e + 1u), factor(e + 2u), factor(e + 3u));
}
