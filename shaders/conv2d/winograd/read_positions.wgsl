// The 6 x 6 positions of products, a library for the hook of winograd/transform.wgsl
//   fn take(plane: u32, quad: u32) -> array<array<vec4<f32>, FROM>, FROM>
//
//   products   [PARTS, 6, 6] matrices, [PLANES, POSITION_QUADS] vec4, POSITION_STEP apart,
//              whose parts are added up in order

const PARTS: u32 = 1u;
const POSITION_QUADS: u32 = 1u;
const POSITION_STEP: u32 = 1u;   // vec4 from one position to the next
const POSITION_SIDE: u32 = 6u;

@group(0) @binding(0) var<storage, read> products: array<vec4<f32>>;

fn sum_of_parts(first: u32) -> vec4<f32> {
    var sum = products[first];
    for (var part = 1u; part < PARTS; part++) {
        sum += products[part * (POSITION_SIDE * POSITION_SIDE * POSITION_STEP) + first];
    }
    return sum;
}

fn read_positions(plane: u32, quad: u32) -> array<array<vec4<f32>, POSITION_SIDE>, POSITION_SIDE> {
    var sums: array<array<vec4<f32>, POSITION_SIDE>, POSITION_SIDE>;
    for (var r = 0u; r < POSITION_SIDE; r++) {
        for (var s = 0u; s < POSITION_SIDE; s++) {
            let position = r * POSITION_SIDE + s;
            sums[r][s] = sum_of_parts(position * POSITION_STEP + plane * POSITION_QUADS + quad);
        }
    }
    return sums;
}
