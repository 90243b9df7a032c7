// Where matmul/lanes.wgsl puts the first `count` of four neighbours of a row, a library for
// the hook
//   fn put(at: u32, count: u32, values: vec4<f32>)
//
//   c   [SPLITS, M, N] f32

@group(0) @binding(5) var<storage, read_write> c: array<f32>;

fn put_each(at: u32, count: u32, values: vec4<f32>) {
    for (var i = 0u; i < 4u; i++) {
        if i < count {
            c[at + i] = values[i];
        }
    }
}
