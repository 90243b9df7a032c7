// Batch normalisation, backward: the two sums over slices of each channel.
//
//   sums[c, s] = (sum of g, sum of g * (x - mean[c])),  g = dy * slope(saved, ALPHA)
//
//   dy, saved, x   [N, C, AREA] f32, read as vec4; planes need not start at a vec4,
//                  elements of neighbours are masked out; `saved` is what the slope of
//                  an activation behind the norm is computed from (without one the
//                  launch binds dy and nothing is read)
//   mean           [C] f32
//   sums           [C, SLICES] vec2
//
// Slices are those of moments.wgsl. One workgroup a slice; its invocations' sums are
// added as a tree. Floor: dy and x read once.

const WORKGROUP: u32 = 64u;      // invocations a workgroup, a power of two
const IMAGES_ALL: u32 = 1u;      // N
const CHANNELS: u32 = 1u;        // C
const AREA: u32 = 4u;            // H * W
const IMAGES: u32 = 1u;          // images a slice
const PART: u32 = 4u;            // elements a slice takes of each plane; divides by 4 if PARTS > 1
const PARTS: u32 = 1u;           // slices a plane is cut into
const SLICES: u32 = 1u;          // slices a channel
const ALPHA: f32 = 0.0;          // the activation's parameter

const SPAN: u32 = (PART + 3u) / 4u + select(0u, 1u, AREA % 4u != 0u);  // vec4s over a part, wherever it starts

@group(0) @binding(0) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> saved: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read_write> sums: array<vec2<f32>>;

fn slope(s: f32, alpha: f32) -> f32 { return 1.0; }

var<workgroup> shared_sums: array<vec2<f32>, WORKGROUP>;

// An invocation's share of a slice's sums.
fn add_up(channel: u32, slice: u32, lane: u32) -> vec2<f32> {
    let first_image = slice / PARTS * IMAGES;
    let images = min(IMAGES, IMAGES_ALL - first_image);
    let part = slice % PARTS * PART;
    let part_end = min(part + PART, AREA);
    let center = mean[channel];
    var sum = vec4<f32>();
    var product = vec4<f32>();
    for (var i = lane; i < images * SPAN; i += WORKGROUP) {
        let plane = ((first_image + i / SPAN) * CHANNELS + channel) * AREA;
        let start = plane + part;
        let end = plane + part_end;
        let at = start / 4u + i % SPAN;
        if at * 4u < end {
            let e = vec4<u32>(at * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
            let inside = (e >= vec4<u32>(start)) & (e < vec4<u32>(end));
            let s = saved[at];
            let slopes = vec4<f32>(slope(s.x, ALPHA), slope(s.y, ALPHA), slope(s.z, ALPHA), slope(s.w, ALPHA));
            let g = dy[at] * slopes;
            sum += select(vec4<f32>(), g, inside);
            product += select(vec4<f32>(), g * (x[at] - center), inside);
        }
    }
    return vec2<f32>((sum.x + sum.y) + (sum.z + sum.w), (product.x + product.y) + (product.z + product.w));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let slice = group.x;
    let channel = group.y;
    shared_sums[lane] = add_up(channel, slice, lane);
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            shared_sums[lane] += shared_sums[lane + half];
        }
    }
    if lane == 0u {
        sums[channel * SLICES + slice] = shared_sums[0];
    }
}
