// Gathers a batch of images from the bytes of the data set and normalises them:
//
//   y[n, c, p] = x[order[(step.first + n) mod LENGTH], c, p] * SCALE[c] + SHIFT[c]
//
//   order          LENGTH u32, image numbers
//   shard0 .. 3    the images' bytes, four to a word; SHARD images in each but the last
//   y              [BATCH, CHANNELS, PLANE] f32, seen as vec4
//   step           step.first is the batch's place in the order
//
// One invocation a vec4 of y. Where an image is a whole number of words, that vec4 is
// one word of the source. Floor: 5 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const LENGTH: u32 = 1u;          // entries of the order
const BATCH: u32 = 1u;           // images gathered
const CHANNELS: u32 = 1u;
const PLANE: u32 = 1u;           // pixels of a channel
const SHARD: u32 = 1u;           // images of a shard
const SCALE: vec4<f32> = vec4<f32>(1.0, 1.0, 1.0, 1.0);
const SHIFT: vec4<f32> = vec4<f32>(0.0, 0.0, 0.0, 0.0);
const IMAGE: u32 = CHANNELS * PLANE;
const TOTAL: u32 = BATCH * IMAGE;

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

@group(0) @binding(0) var<storage, read> order: array<u32>;
@group(0) @binding(1) var<storage, read> shard0: array<u32>;
@group(0) @binding(2) var<storage, read> shard1: array<u32>;
@group(0) @binding(3) var<storage, read> shard2: array<u32>;
@group(0) @binding(4) var<storage, read> shard3: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<uniform> step: Step;

// The four bytes at `word` of a shard, as 0 .. 255.
fn bytes(shard: u32, word: u32) -> vec4<f32> {
    var packed = 0u;
    switch shard {
        case 0u: { packed = shard0[word]; }
        case 1u: { packed = shard1[word]; }
        case 2u: { packed = shard2[word]; }
        default: { packed = shard3[word]; }
    }
    return vec4<f32>((vec4<u32>(packed) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u));
}

fn image_of(n: u32) -> u32 {
    return order[(step.first + n) % LENGTH];
}

// Element `at` of the batch.
fn element(at: u32) -> f32 {
    let image = image_of(at / IMAGE);
    let pixel = at % IMAGE;
    let byte = (image % SHARD) * IMAGE + pixel;
    let channel = pixel / PLANE;
    return bytes(image / SHARD, byte / 4u)[byte % 4u] * SCALE[channel] + SHIFT[channel];
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = ((group.x + group.y * GROUPS_X) * WORKGROUP + lane) * 4u;
    if at >= TOTAL {
        return;
    }
    if PLANE % 4u == 0u {
        let image = image_of(at / IMAGE);
        let pixel = at % IMAGE;
        let channel = pixel / PLANE;
        let values = bytes(image / SHARD, ((image % SHARD) * IMAGE + pixel) / 4u);
        y[at / 4u] = values * SCALE[channel] + vec4<f32>(SHIFT[channel]);
        return;
    }
    var values = vec4<f32>();
    for (var i = 0u; i < min(4u, TOTAL - at); i++) {
        values[i] = element(at + i);
    }
    y[at / 4u] = values;
}
