// Floats to signed bytes, four channels of a pixel to a word, the first in the low byte.
//
//   q = clamp(round(x · INVERSE), -127, 127), halves to even; channels past C are zero
//
//   x   [N, C, P] f32
//   y   [N, ceil(C / 4), P] words of four i8
//
// One invocation a word. Floor: 4 bytes read and 1 written an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const WORDS: u32 = 1u;           // length of y
const C: u32 = 1u;               // channels
const P: u32 = 1u;               // pixels of a channel
const INVERSE: f32 = 1.0;        // one over the size of a quantisation step

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= WORDS {
        return;
    }
    let quads = (C + 3u) / 4u;
    let pixel = i % P;
    let first = i / P % quads * 4u;
    let image = i / P / quads;
    var word = 0u;
    for (var k = 0u; k < 4u; k++) {
        if first + k < C {
            let value = round(x[(image * C + first + k) * P + pixel] * INVERSE);
            let byte = bitcast<u32>(i32(clamp(value, -127.0, 127.0))) & 0xffu;
            word |= byte << (8u * k);
        }
    }
    y[i] = word;
}
