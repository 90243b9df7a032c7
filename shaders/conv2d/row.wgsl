// Neighbours in a row of an image, a library for the hook
//   fn row(plane: u32, iy: u32, ix: u32) -> array<f32, ROW>
//
// those from column ix of row iy on, in the plane that begins at element `plane`. What lies
// outside of the image is zero; coordinates before it wrap around to large ones.
//
//   x, x4   [.., IMAGE_H, IMAGE_W] f32: one buffer seen as f32 and as vec4, read by vec4 where
//           IN_QUADS_X: IMAGE_W is a multiple of 4, and ix always is EARLY after one

const IMAGE_H: u32 = 1u;
const IMAGE_W: u32 = 1u;
const IMAGE_ROW: u32 = 4u;       // ROW
const IN_QUADS_X: bool = false;
const EARLY: u32 = 0u;

const QUADS: u32 = (EARLY + IMAGE_ROW + 3u) / 4u;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> x4: array<vec4<f32>>;

fn row_of_image(plane: u32, iy: u32, ix: u32) -> array<f32, IMAGE_ROW> {
    var values: array<f32, IMAGE_ROW>;
    if IN_QUADS_X {
        var quads: array<vec4<f32>, QUADS>;
        for (var q = 0u; q < QUADS; q++) {
            let column = ix - EARLY + q * 4u;
            let ok = iy < IMAGE_H && column < IMAGE_W;
            quads[q] = select(vec4<f32>(), x4[(plane + select(0u, iy * IMAGE_W + column, ok)) / 4u], ok);
        }
        for (var i = 0u; i < IMAGE_ROW; i++) {
            values[i] = quads[(EARLY + i) / 4u][(EARLY + i) % 4u];
        }
    } else {
        for (var i = 0u; i < IMAGE_ROW; i++) {
            let ok = iy < IMAGE_H && ix + i < IMAGE_W;
            values[i] = select(0.0, x[plane + select(0u, iy * IMAGE_W + ix + i, ok)], ok);
        }
    }
    return values;
}
