// Layer normalisation over the channels of each place: with x = x[n, ., i],
// mean = sum of x / CHANNELS, inverse = 1 / sqrt(sum of (x - mean)^2 / CHANNELS + EPSILON),
// y[n, c, i] = gamma[c] * (x[n, c, i] - mean) * inverse + beta[c].
//
//   x, y            [SAMPLES, CHANNELS, INNER] elements
//   gamma, beta     [CHANNELS] f32
//   mean, inverse   [SAMPLES, INNER] elements
//
// An element is a float, or four neighbouring ones where they are so many. One invocation a
// place, so neighbouring lanes read neighbouring memory; it goes through the channels three
// times. Floor: 8 bytes a float, if the second and third time hit the cache.

alias Element = f32;

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const SAMPLES: u32 = 1u;
const CHANNELS: u32 = 1u;
const INNER: u32 = 1u;           // elements of a channel of one sample
const EPSILON: f32 = 1e-3;
const COUNT: f32 = 1.0;          // CHANNELS

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> gamma: array<f32>;
@group(0) @binding(2) var<storage, read> beta: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<Element>;
@group(0) @binding(4) var<storage, read_write> mean: array<Element>;
@group(0) @binding(5) var<storage, read_write> inverse: array<Element>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let place = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if place >= SAMPLES * INNER {
        return;
    }
    let first = place / INNER * CHANNELS * INNER + place % INNER;
    var sum = Element();
    for (var c = 0u; c < CHANNELS; c++) {
        sum += x[first + c * INNER];
    }
    let m = sum / COUNT;
    var squares = Element();
    for (var c = 0u; c < CHANNELS; c++) {
        let d = x[first + c * INNER] - m;
        squares += d * d;
    }
    let r = Element(1.0) / sqrt(squares / COUNT + EPSILON);
    for (var c = 0u; c < CHANNELS; c++) {
        y[first + c * INNER] = (x[first + c * INNER] - m) * r * gamma[c] + beta[c];
    }
    mean[place] = m;
    inverse[place] = r;
}
