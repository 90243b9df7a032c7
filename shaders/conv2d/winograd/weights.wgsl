// Gradients of filters of 3 x 3, a library for the hook of winograd/transform.wgsl
//   fn give(plane: u32, quad: u32, results: array<array<vec4<f32>, TO>, TO>)
// A plane is a filter, its places are channels.
//
//   dw   [O, C, 3, 3] f32

const C: u32 = 1u;
const SIDE: u32 = 3u;
const TAPS: u32 = SIDE * SIDE;

@group(0) @binding(1) var<storage, read_write> dw: array<f32>;

fn write_weights(o: u32, quad: u32, results: array<array<vec4<f32>, SIDE>, SIDE>) {
    for (var j = 0u; j < min(4u, C - quad * 4u); j++) {
        for (var r = 0u; r < SIDE; r++) {
            for (var s = 0u; s < SIDE; s++) {
                dw[(o * C + quad * 4u + j) * TAPS + r * SIDE + s] = results[r][s][j];
            }
        }
    }
}
