// The mean grey of each image of a batch, after its brightness has changed: what contrast is
// measured from.
//
//   order, shard0 .. 3   the data set, see source.wgsl
//   choices              five vec4 an image, see draw.wgsl
//   greys                [BATCH] f32
//   step                 step.first is the batch's place in the order
//
// One workgroup an image: lanes stride over its pixels, then a tree; the order is fixed.
// Floor: the image's bytes, once.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup; a power of two
const BATCH: u32 = 1u;           // images
const CHANNELS: u32 = 1u;
const PLANE: u32 = 1u;           // pixels of a channel

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

@group(0) @binding(5) var<storage, read> choices: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> greys: array<f32>;
@group(0) @binding(7) var<uniform> step: Step;

var<workgroup> pool: array<f32, WORKGROUP>;

fn image_at(place: u32) -> u32 { return place; }

fn byte_of(image: u32, offset: u32) -> f32 { return 0.0; }

fn brighten(pixel: vec4<f32>, factor: f32) -> vec4<f32> { return pixel; }

fn grey_of(pixel: vec4<f32>) -> f32 { return pixel.x; }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group.x + group.y * GROUPS_X;
    if n >= BATCH {
        return;
    }
    let image = image_at(step.first + n);
    let factor = choices[n * 5u + 2u].x;
    var sum = 0.0;
    for (var place = lane; place < PLANE; place += WORKGROUP) {
        var pixel = vec4<f32>();
        for (var c = 0u; c < CHANNELS; c++) {
            pixel[c] = byte_of(image, c * PLANE + place) / 255.0;
        }
        sum += grey_of(brighten(pixel, factor));
    }
    pool[lane] = sum;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            pool[lane] += pool[lane + half];
        }
    }
    if lane == 0u {
        greys[n] = pool[0] / f32(PLANE);
    }
}
