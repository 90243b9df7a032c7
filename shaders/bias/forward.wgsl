// Bias, forward: y[n, c, i] = x[n, c, i] + b[c], i over the INNER elements of a channel.
//
//   x, y   [N, CHANNELS, INNER] f32, read as vec4; storage is padded to whole vec4
//   b      [CHANNELS] f32
//
// One invocation a vec4. Floor: 8 bytes an element, read once, written once.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const VEC4S: u32 = 1u;           // length of x in vec4
const CHANNELS: u32 = 1u;        // length of b
const INNER: u32 = 1u;           // elements of a channel of one sample

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

fn bias(element: u32) -> f32 { return b[element / INNER % CHANNELS]; }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= VEC4S {
        return;
    }
    let e = 4u * i;
    var add = vec4<f32>(bias(e));
    if INNER % 4u != 0u {
        // The vec4 may reach into further channels.
        add = vec4<f32>(add.x, bias(e + 1u), bias(e + 2u), bias(e + 3u));
    }
    y[i] = x[i] + add;
}
