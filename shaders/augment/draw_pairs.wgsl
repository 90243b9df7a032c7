// What chance chooses for each image of a batch and the next one: mixup or CutMix, the
// image's own share, and the box of CutMix. By philox(counter (image, step number, 5, 0),
// key (run seed, STREAM)).
//
//   table    [2, QUANTILES] f32: quantiles of the share, at evenly spaced probabilities from
//            0 to 1; mixup's, then CutMix's
//   pairs    two vec4 an image:
//            0   its own share, and 1 where a box is cut in
//            1   rows from, to, columns from, to of the box
//
// The box has sides of sqrt(1 - share) times the image's, about any pixel, cut off at the
// edges; the share is then what it leaves. One invocation an image. `ops::augment::mix`
// chooses the same on the host.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const BATCH: u32 = 1u;           // images
const HEIGHT: u32 = 1u;
const WIDTH: u32 = 1u;
const STREAM: u32 = 1u;          // sets augmentation apart from the seed's other users
const BLENDED: f32 = 1.0;        // probability of mixup, where not CutMix
const QUANTILES: u32 = 257u;

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

@group(0) @binding(0) var<storage, read> table: array<f32>;
@group(0) @binding(1) var<storage, read_write> pairs: array<vec4<f32>>;
@group(0) @binding(2) var<uniform> step: Step;

fn random(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> { return counter; }

// In [0, 1), exact.
fn unit(word: u32) -> f32 { return f32(word >> 8u) * 0x1p-24; }

// About any row or column, as far as it lies inside.
fn span(side: f32, extent: u32, word: u32) -> vec2<f32> {
    let half = i32(floor(f32(extent) * side)) / 2;
    let middle = i32(((word >> 16u) * extent) >> 16u);
    return vec2<f32>(f32(max(middle - half, 0)), f32(min(middle + half, i32(extent))));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if n >= BATCH {
        return;
    }
    let words = random(vec4<u32>(n, step.number, 5u, 0u), vec2<u32>(step.seed, STREAM));
    let blends = unit(words.x) < BLENDED;
    let place = unit(words.y) * f32(QUANTILES - 1u);
    let quantile = u32(floor(place)) + select(QUANTILES, 0u, blends);
    var own = mix(table[quantile], table[quantile + 1u], fract(place));
    var area = vec4<f32>();
    if !blends {
        let side = sqrt(max(1.0 - own, 0.0));
        area = vec4<f32>(span(side, HEIGHT, words.z), span(side, WIDTH, words.w));
        own = 1.0 - (area.y - area.x) * (area.w - area.z) / f32(HEIGHT * WIDTH);
    }
    pairs[2u * n] = vec4<f32>(own, select(1.0, 0.0, blends), 0.0, 0.0);
    pairs[2u * n + 1u] = area;
}
