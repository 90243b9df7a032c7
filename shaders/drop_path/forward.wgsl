// Stochastic depth: y[n, i] = x[n, i] * SCALE where image n is kept, else 0. Image n is
// kept if the first word of philox(counter (n, step number, KEY, 1), key (run seed, 0)) is at
// least THRESHOLD = rate * 2^32.
//
//   x, y   [N, INNER] f32, read as vec4; storage is padded to whole vec4
//
// One invocation a vec4; it draws once, and again where an image ends inside its vec4.
// Floor: 8 bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const VEC4S: u32 = 1u;           // length of x in vec4
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

fn kept(image: u32) -> bool {
    let words = random(vec4<u32>(image, step.number, KEY, 1u), vec2<u32>(step.seed, 0u));
    return words.x >= THRESHOLD;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if i >= VEC4S {
        return;
    }
    var image = 4u * i / INNER;
    var keep = kept(image);
    var result = vec4<f32>();
    for (var e = 0u; e < 4u; e++) {
        let here = (4u * i + e) / INNER;
        if here != image {
            image = here;
            keep = kept(image);
        }
        result[e] = select(0.0, x[i][e] * SCALE, keep);
    }
    y[i] = result;
}
