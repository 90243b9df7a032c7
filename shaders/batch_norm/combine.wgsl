// Batch normalisation: mean and variance of each channel from those of its slices (see
// moments.wgsl), merged in order by Chan, Golub and LeVeque's formula (1983).
//
//   slice_mean, slice_squares   [C, SLICES] f32: mean and centred squares of a slice
//   mean, variance              [C] f32; the variance is biased (divided by N * AREA)
//
// One invocation a channel.

const WORKGROUP: u32 = 64u;      // invocations a workgroup
const IMAGES_ALL: u32 = 1u;      // N
const CHANNELS: u32 = 1u;        // C
const AREA: u32 = 4u;            // H * W
const IMAGES: u32 = 1u;          // images a slice
const PART: u32 = 4u;            // elements a slice takes of each plane
const PARTS: u32 = 1u;           // slices a plane is cut into
const SLICES: u32 = 1u;          // slices a channel

@group(0) @binding(0) var<storage, read> slice_mean: array<f32>;
@group(0) @binding(1) var<storage, read> slice_squares: array<f32>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> variance: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let channel = id.x;
    if channel >= CHANNELS {
        return;
    }
    var count = 0.0;
    var center = 0.0;
    var squares = 0.0;
    for (var slice = 0u; slice < SLICES; slice++) {
        let images = min(IMAGES, IMAGES_ALL - slice / PARTS * IMAGES);
        let part = min(PART, AREA - slice % PARTS * PART);
        let added = f32(images * part);
        let share = added / (count + added);
        let delta = slice_mean[channel * SLICES + slice] - center;
        squares += slice_squares[channel * SLICES + slice] + delta * delta * count * share;
        center += delta * share;
        count += added;
    }
    mean[channel] = center;
    variance[channel] = squares / count;
}
