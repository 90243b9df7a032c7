// What conv2d/patch.wgsl and conv2d/correlate.wgsl go over, as it lies in memory, a library for
// their hook
//   fn value_at(at: u32) -> f32
//
//   source   [IMAGES, channels, rows, columns] f32

@group(0) @binding(5) var<storage, read> source: array<f32>;

fn plain_value_at(at: u32) -> f32 {
    return source[at];
}
