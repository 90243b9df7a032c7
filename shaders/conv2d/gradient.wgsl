// The gradient conv2d/correlate.wgsl reads, a library for the hook
//   fn gradient_at(at: u32) -> f32
//
//   dy   [IMAGES, GROUPS * O, OH, OW] f32

@group(0) @binding(3) var<storage, read> dy: array<f32>;

fn plain_gradient_at(at: u32) -> f32 {
    return dy[at];
}
