// Where conv2d/correlate.wgsl puts the bias's gradient, a library for the hook
//   fn put_bias(at: u32, value: f32)
//
//   db   [PARTS, GROUPS * O] f32

@group(0) @binding(2) var<storage, read_write> db: array<f32>;

fn put_bias_grad(at: u32, value: f32) {
    db[at] = value;
}
