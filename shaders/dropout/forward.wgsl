// Dropout: y[i] = x[i] * SCALE where element i, or with PER_IMAGE its image, is kept, else 0.
// Element i is kept if word i % 4 of philox(counter (i / 4, step number, KEY, 0), key (run seed,
// 0)) is at least THRESHOLD = rate * 2^32; image n if the first word of philox(counter (n, step
// number, KEY, 1), the same key) is.
//
//   x, y   the same number of f32, [N, INNER] with PER_IMAGE, read as vec4; storage is padded to
//          whole vec4
//
// One invocation a vec4, which takes one draw of four words; with PER_IMAGE it draws once, and
// again where an image ends inside its vec4. Floor: 8 bytes an element; the mask is never stored.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const VEC4S: u32 = 1u;           // length of x in vec4
const PER_IMAGE: bool = false;   // whether images are kept whole, not elements
const INNER: u32 = 1u;           // elements of an image
const KEY: u32 = 0u;             // sets this layer's stream apart from the others'
const THRESHOLD: u32 = 0u;
const SCALE: f32 = 1.0;          // 1 / (1 - rate)

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

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(2) var<uniform> step: Step;

fn random(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> { return counter; }

fn draw(i: u32, stream: u32) -> vec4<u32> {
    return random(vec4<u32>(i, step.number, KEY, stream), vec2<u32>(step.seed, 0u));
}

// Whether the elements 4 i, ..., 4 i + 3 are kept.
fn kept(i: u32) -> vec4<bool> {
    if !PER_IMAGE {
        return draw(i, 0u) >= vec4<u32>(THRESHOLD);
    }
    var image = 4u * i / INNER;
    var keep = draw(image, 1u).x >= THRESHOLD;
    var result = vec4<bool>(keep);
    for (var e = 1u; e < 4u; e++) {
        let here = (4u * i + e) / INNER;
        if here != image {
            image = here;
            keep = draw(image, 1u).x >= THRESHOLD;
        }
        result[e] = keep;
    }
    return result;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= VEC4S {
        return;
    }
    y[i] = select(vec4<f32>(0.0), x[i] * SCALE, kept(i));
}
