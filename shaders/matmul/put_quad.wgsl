// Where matmul/lanes.wgsl puts four neighbours of a row of whole vec4, a library for the hook
//   fn put(at: u32, count: u32, values: vec4<f32>)
//
//   c   [SPLITS, M, N] f32, written as vec4; N is a multiple of 4

@group(0) @binding(5) var<storage, read_write> c: array<vec4<f32>>;

fn put_quad(at: u32, count: u32, values: vec4<f32>) {
    c[at / 4u] = values;
}
