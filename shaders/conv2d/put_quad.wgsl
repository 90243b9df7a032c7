// Where convolutions put four neighbours of a row at once, a library for the hook
//   fn put_quad(at: u32, values: vec4<f32>, winners: vec4<u32>)
//
//   y   [IMAGES, GROUPS * O, OH, OW / 4] vec4

@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

fn put_values(at: u32, values: vec4<f32>, winners: vec4<u32>) {
    y[at] = values;
}
