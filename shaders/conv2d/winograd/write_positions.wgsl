// The 6 x 6 positions of transformed patches, a library for the hook of
// winograd/transform.wgsl
//   fn give(plane: u32, quad: u32, results: array<array<vec4<f32>, TO>, TO>)
//
//   positions   6 x 6 matrices for matmul, [PLANES, POSITION_QUADS] vec4, POSITION_STEP apart

const POSITION_QUADS: u32 = 1u;
const POSITION_STEP: u32 = 1u;   // vec4 from one position to the next
const POSITION_SIDE: u32 = 6u;
const SCALED: bool = false;      // multiplied by the fractions of G

@group(0) @binding(1) var<storage, read_write> positions: array<vec4<f32>>;

// The fraction of a row of G: see winograd/lines.wgsl.
fn scale(row: u32) -> f32 {
    return array<f32, POSITION_SIDE>(1.0 / 4.0, -1.0 / 6.0, -1.0 / 6.0, 1.0 / 24.0, 1.0 / 24.0, 1.0)[row];
}

fn write_positions(plane: u32, quad: u32, results: array<array<vec4<f32>, POSITION_SIDE>, POSITION_SIDE>) {
    for (var r = 0u; r < POSITION_SIDE; r++) {
        for (var s = 0u; s < POSITION_SIDE; s++) {
            let position = r * POSITION_SIDE + s;
            let factor = select(1.0, scale(r) * scale(s), SCALED);
            positions[position * POSITION_STEP + plane * POSITION_QUADS + quad] = results[r][s] * factor;
        }
    }
}
