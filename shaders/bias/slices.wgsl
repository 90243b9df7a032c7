// Bias, backward, second stage: db[c] = sum over s of partials[s, c], in order.
//
//   partials   [SLICES, CHANNELS] f32
//   db        [CHANNELS] f32
//
// One invocation a channel.

const WORKGROUP: u32 = 64u;      // invocations a workgroup
const SLICES: u32 = 1u;          // parts of the sum
const CHANNELS: u32 = 1u;        // length of db

@group(0) @binding(0) var<storage, read> partials: array<f32>;
@group(0) @binding(1) var<storage, read_write> db: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.x;
    if c >= CHANNELS {
        return;
    }
    var total = 0.0;
    for (var s = 0u; s < SLICES; s++) {
        total += partials[s * CHANNELS + c];
    }
    db[c] = total;
}
