// Batch normalisation: mean and centred squares of slices of each channel.
//
//   mean[c, s] = mean of the slice's x;  squares[c, s] = SCALE * sum of (x - mean)^2
//
//   x               [N, C, AREA] f32, read as vec4; planes need not start at a vec4,
//                   elements of neighbours are masked out
//   mean, squares   [C, SLICES] f32
//
// A slice is the elements [part * PART, (part + 1) * PART) of IMAGES consecutive
// planes of one channel; its number is (group of images) * PARTS + part:
//
//              part 0    part 1
//   image 0  [ slice 0 | slice 1 ]     IMAGES = 1, PARTS = 2, as for few large images
//   image 1  [ slice 2 | slice 3 ]
//
// One workgroup a slice. An invocation sums d = x - p and d^2 for a pivot p that is the
// mean of the first values it meets, so that (mean - p)^2 is at most its own sum of
// centred squares: with n values the subtraction in  sum d^2 - (sum d)^2 / n  loses at
// most a factor n of accuracy, and a few bits in practice, however far x is from zero.
// The invocations' moments are then merged as a tree by Chan, Golub and LeVeque's
// formula (1983). Floor: x read once.

const WORKGROUP: u32 = 64u;      // invocations a workgroup, a power of two
const IMAGES_ALL: u32 = 1u;      // N
const CHANNELS: u32 = 1u;        // C
const AREA: u32 = 4u;            // H * W
const IMAGES: u32 = 1u;          // images a slice
const PART: u32 = 4u;            // elements a slice takes of each plane; divides by 4 if PARTS > 1
const PARTS: u32 = 1u;           // slices a plane is cut into
const SLICES: u32 = 1u;          // slices a channel
const SCALE: f32 = 1.0;          // 1 / (N * AREA) where a slice is the whole channel, so that
                                 // `squares` is the variance

const SPAN: u32 = (PART + 3u) / 4u + select(0u, 1u, AREA % 4u != 0u);  // vec4s over a part, wherever it starts

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> mean: array<f32>;
@group(0) @binding(2) var<storage, read_write> squares: array<f32>;

struct Moments { count: f32, mean: f32, squares: f32 }

var<workgroup> shared_moments: array<Moments, WORKGROUP>;

fn merge(a: Moments, b: Moments) -> Moments {
    let count = a.count + b.count;
    let share = b.count / max(count, 1.0);
    let delta = b.mean - a.mean;
    return Moments(count, a.mean + delta * share, a.squares + b.squares + delta * delta * a.count * share);
}

// The moments of an invocation's share of a slice.
fn measure(channel: u32, slice: u32, lane: u32) -> Moments {
    let first_image = slice / PARTS * IMAGES;
    let images = min(IMAGES, IMAGES_ALL - first_image);
    let part = slice % PARTS * PART;
    let part_end = min(part + PART, AREA);
    var count = 0.0;
    var pivot = 0.0;
    var sum = vec4<f32>();
    var square = vec4<f32>();
    for (var i = lane; i < images * SPAN; i += WORKGROUP) {
        let plane = ((first_image + i / SPAN) * CHANNELS + channel) * AREA;
        let start = plane + part;
        let end = plane + part_end;
        let at = start / 4u + i % SPAN;
        if at * 4u < end {
            let v = x[at];
            let e = vec4<u32>(at * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
            let inside = (e >= vec4<u32>(start)) & (e < vec4<u32>(end));
            let ones = select(vec4<f32>(), vec4<f32>(1.0), inside);
            let found = dot(ones, vec4<f32>(1.0));
            if count == 0.0 {
                let known = select(vec4<f32>(), v, inside);
                pivot = (known.x + known.y + known.z + known.w) / found;
            }
            let d = select(vec4<f32>(), v - pivot, inside);
            sum += d;
            square += d * d;
            count += found;
        }
    }
    let total = (sum.x + sum.y) + (sum.z + sum.w);
    let shift = total / max(count, 1.0);
    let squares = (square.x + square.y) + (square.z + square.w) - total * shift;
    return Moments(count, pivot + shift, max(squares, 0.0));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let slice = group.x;
    let channel = group.y;
    shared_moments[lane] = measure(channel, slice, lane);
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            shared_moments[lane] = merge(shared_moments[lane], shared_moments[lane + half]);
        }
    }
    if lane == 0u {
        mean[channel * SLICES + slice] = shared_moments[0].mean;
        squares[channel * SLICES + slice] = shared_moments[0].squares * SCALE;
    }
}
