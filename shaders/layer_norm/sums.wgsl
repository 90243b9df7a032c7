// Layer normalisation, the gradients of its parameters, first stage: over the places of
// slice s, dgamma[s, c] = sum of dy[n, c, i] * (x[n, c, i] - mean[n, i]) * inverse[n, i] and
// dbeta[s, c] = sum of dy[n, c, i].
//
//   dy, x           [SAMPLES, CHANNELS, INNER] f32
//   mean, inverse   [SAMPLES, INNER] f32
//   dgamma, dbeta   [SLICES, CHANNELS] f32; with one slice the gradients themselves
//
// A workgroup is one channel of one slice: lane l adds every LANES-th place from l on, then
// the lanes are added by a tree, so the order is fixed. Floor: 8 bytes an element.

const LANES: u32 = 64u;          // invocations a workgroup; a power of two
const SAMPLES: u32 = 1u;
const CHANNELS: u32 = 1u;
const INNER: u32 = 1u;           // elements of a channel of one sample
const SLICE: u32 = 1u;           // places of a slice

@group(0) @binding(0) var<storage, read> dy: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> mean: array<f32>;
@group(0) @binding(3) var<storage, read> inverse: array<f32>;
@group(0) @binding(4) var<storage, read_write> dgamma: array<f32>;
@group(0) @binding(5) var<storage, read_write> dbeta: array<f32>;

var<workgroup> pool: array<vec2<f32>, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let c = group.x;
    let begin = group.y * SLICE;
    let end = min(begin + SLICE, SAMPLES * INNER);
    var total = vec2<f32>();
    for (var place = begin + lane; place < end; place += LANES) {
        let at = (place / INNER * CHANNELS + c) * INNER + place % INNER;
        let u = (x[at] - mean[place]) * inverse[place];
        total += dy[at] * vec2<f32>(u, 1.0);
    }
    pool[lane] = total;
    for (var rows = LANES / 2u; rows > 0u; rows /= 2u) {
        workgroupBarrier();
        if lane < rows {
            pool[lane] += pool[lane + rows];
        }
    }
    if lane == 0u {
        dgamma[group.y * CHANNELS + c] = pool[0].x;
        dbeta[group.y * CHANNELS + c] = pool[0].y;
    }
}
