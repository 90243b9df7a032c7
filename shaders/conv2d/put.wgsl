// Where conv2d/patch.wgsl puts a convolution's results, a library for the hook
//   fn put(at: u32, value: f32, winner: u32)
//
//   y   [IMAGES, GROUPS * O, OH, OW] f32

@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn put_value(at: u32, value: f32, winner: u32) {
    y[at] = value;
}
