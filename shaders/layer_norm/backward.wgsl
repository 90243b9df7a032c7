// Layer normalisation, the gradient of its input: with g = dy * gamma and
// u = (x - mean) * inverse, sums over the channels of each place,
// dx = inverse * (g - (sum of g + u * sum of g u) / CHANNELS).
//
//   dy, x, dx       [SAMPLES, CHANNELS, INNER] elements
//   gamma           [CHANNELS] f32
//   mean, inverse   [SAMPLES, INNER] elements
//
// An element is a float, or four neighbouring ones where they are so many. One invocation a
// place, as forward. Floor: 12 bytes a float.

alias Element = f32;

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const SAMPLES: u32 = 1u;
const CHANNELS: u32 = 1u;
const INNER: u32 = 1u;           // elements of a channel of one sample
const COUNT: f32 = 1.0;          // CHANNELS

@group(0) @binding(0) var<storage, read> dy: array<Element>;
@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> gamma: array<f32>;
@group(0) @binding(3) var<storage, read> mean: array<Element>;
@group(0) @binding(4) var<storage, read> inverse: array<Element>;
@group(0) @binding(5) var<storage, read_write> dx: array<Element>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let place = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if place >= SAMPLES * INNER {
        return;
    }
    let first = place / INNER * CHANNELS * INNER + place % INNER;
    let m = mean[place];
    let r = inverse[place];
    var sum = Element();
    var product = Element();
    for (var c = 0u; c < CHANNELS; c++) {
        let g = dy[first + c * INNER] * gamma[c];
        sum += g;
        product += g * (x[first + c * INNER] - m) * r;
    }
    for (var c = 0u; c < CHANNELS; c++) {
        let at = first + c * INNER;
        let u = (x[at] - m) * r;
        dx[at] = r * (dy[at] * gamma[c] - (sum + u * product) / COUNT);
    }
}
