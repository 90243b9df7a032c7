// Shuffle: order[i] = P(i), a permutation of 0..LENGTH drawn from the seed and the
// step's number (the epoch), without an upload and without a sort.
//
// P is a Feistel network over the smallest power of two 2^BITS >= LENGTH (Mitchell et
// al. 2021, "Bandwidth-Optimal Random Shuffling for GPUs"): BITS are cut in a left and
// a right half; each round changes one half by a hash of the other, so every round, and
// thus the whole, is invertible. A result past the end is put through again until it
// lies inside (cycle walking): fewer than two passes on average, since 2^BITS < 2 LENGTH,
// and never endless, since the walk is on a cycle that holds the start.
//
//   order   LENGTH u32, written
//
// One invocation an element. Floor: 4 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const LENGTH: u32 = 1u;          // elements permuted
const LEFT_BITS: u32 = 1u;
const RIGHT_BITS: u32 = 1u;
const ROUNDS: u32 = 12u;         // of both halves
const GOLDEN: u32 = 0x9e3779b9u; // 2^32 / golden ratio: spreads the round numbers

struct Step {
    number: u32,
    seed: u32,
    first: u32,
    count: u32,
    slot: u32,
    learning_rate: f32,
    correction1: f32,
    correction2: f32,
}

@group(0) @binding(0) var<storage, read_write> order: array<u32>;
@group(0) @binding(1) var<uniform> step: Step;

// An integer hash of 32 bits (Wellons 2018, "lowbias32").
fn mix(value: u32) -> u32 {
    var x = value;
    x = (x ^ (x >> 16u)) * 0x7feb352du;
    x = (x ^ (x >> 15u)) * 0x846ca68bu;
    return x ^ (x >> 16u);
}

fn permute(index: u32, key: u32) -> u32 {
    var left = index >> RIGHT_BITS;
    var right = index & ((1u << RIGHT_BITS) - 1u);
    for (var round = 0u; round < ROUNDS; round++) {
        let round_key = key + round * 2u * GOLDEN;
        left ^= mix(right ^ mix(round_key)) & ((1u << LEFT_BITS) - 1u);
        right ^= mix(left ^ mix(round_key + GOLDEN)) & ((1u << RIGHT_BITS) - 1u);
    }
    return (left << RIGHT_BITS) | right;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= LENGTH {
        return;
    }
    let key = mix(step.seed ^ mix(step.number));
    var place = permute(i, key);
    while place >= LENGTH {
        place = permute(place, key);
    }
    order[i] = place;
}
