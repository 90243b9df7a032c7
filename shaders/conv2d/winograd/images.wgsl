// The pixels below tiles of 4 x 4 outputs, a library for the hook of winograd/transform.wgsl
//   fn take(plane: u32, quad: u32) -> array<array<vec4<f32>, FROM>, FROM>
// A plane is a channel, its places are the tiles of all images.
//
//   x   [IMAGES, CHANNELS, H, W] f32. What lies beside an image is zero, as are tiles and
//       channels beyond the last
//
// SIDE is 6 for an image under 3 x 3 filters, 4 for outputs or their gradients.

const IMAGES: u32 = 1u;
const CHANNELS: u32 = 1u;
const H: u32 = 1u;
const W: u32 = 1u;
const PAD_TOP: u32 = 0u;         // modulo 2^32, as it can be negative for input_grad
const PAD_LEFT: u32 = 0u;
const SIDE: u32 = 6u;
const STEP: u32 = 4u;            // from tile to tile
const TILES_Y: u32 = 1u;         // of an image
const TILES_X: u32 = 1u;

@group(0) @binding(0) var<storage, read> x: array<f32>;

fn read_tiles(channel: u32, quad: u32) -> array<array<vec4<f32>, SIDE>, SIDE> {
    let tile = vec4<u32>(quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    let image = tile / (TILES_Y * TILES_X);
    // Negative coordinates wrap around to large ones.
    let top = tile / TILES_X % TILES_Y * STEP - vec4<u32>(PAD_TOP);
    let left = tile % TILES_X * STEP - vec4<u32>(PAD_LEFT);
    let plane = (image * CHANNELS + vec4<u32>(channel)) * (H * W);
    let exists = image < vec4<u32>(IMAGES) & vec4<bool>(channel < CHANNELS);
    var pixels: array<array<vec4<f32>, SIDE>, SIDE>;
    for (var r = 0u; r < SIDE; r++) {
        let row = top + vec4<u32>(r);
        let in_rows = exists & (row < vec4<u32>(H));
        for (var s = 0u; s < SIDE; s++) {
            let column = left + vec4<u32>(s);
            let inside = in_rows & (column < vec4<u32>(W));
            let at = select(vec4<u32>(), plane + row * W + column, inside);
            pixels[r][s] = select(vec4<f32>(), vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]), inside);
        }
    }
    return pixels;
}
