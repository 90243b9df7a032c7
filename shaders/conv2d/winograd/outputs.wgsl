// What becomes of tiles of 4 x 4 outputs, a library for the hook of winograd/transform.wgsl
//   fn give(plane: u32, quad: u32, results: array<array<vec4<f32>, TO>, TO>)
// A plane is a filter, its places are the tiles of all images.
//
//   y = activate(pool(results + bias), ALPHA)
//
//   bias      [O], read where HAS_BIAS; otherwise anything
//   results   by the hook `put`, or `put_quad` where IN_QUADS: [IMAGES, O, OH, OW], or the
//             maxima of POOL_H x POOL_W windows of it that lie edge to edge, and where they
//             were found

const IMAGES: u32 = 1u;
const O: u32 = 1u;
const OH: u32 = 1u;
const OW: u32 = 1u;
const POOL_H: u32 = 1u;          // of a pool window; divides SIDE
const POOL_W: u32 = 1u;
const IN_QUADS: bool = false;    // OW divides by 4, and windows are a column wide
const HAS_BIAS: bool = false;
const ALPHA: f32 = 0.0;          // the activation's parameter
const TILES_Y: u32 = 1u;         // of an image
const TILES_X: u32 = 1u;
const SIDE: u32 = 4u;            // of a tile

const POOLED_H: u32 = OH / POOL_H;
const POOLED_W: u32 = OW / POOL_W;

@group(0) @binding(2) var<storage, read> bias: array<f32>;

fn activate(v: f32, alpha: f32) -> f32 { return v; }
fn put(at: u32, value: f32, winner: u32) {
}
fn put_quad(at: u32, values: vec4<f32>, winners: vec4<u32>) {
}

// Where a window's result goes; its row and column are those of the pool window.
fn place_of(image: u32, o: u32, row: u32, column: u32) -> u32 {
    return ((image * O + o) * POOLED_H + row) * POOLED_W + column;
}

fn finish(image: u32, o: u32, row: u32, column: u32, value: f32, winner: u32) {
    if image < IMAGES && row < POOLED_H && column < POOLED_W {
        put(place_of(image, o, row, column), activate(value, ALPHA), winner);
    }
}

fn write_outputs(o: u32, quad: u32, results: array<array<vec4<f32>, SIDE>, SIDE>) {
    let tile = vec4<u32>(quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    let image = tile / (TILES_Y * TILES_X);
    let top = tile / TILES_X % TILES_Y * SIDE;
    let left = tile % TILES_X * SIDE;
    var b = 0.0;
    if HAS_BIAS {
        b = bias[o];
    }
    // The winners so far of a row of windows, and where they are in the output plane.
    var best: array<vec4<f32>, SIDE>;
    var winner: array<vec4<u32>, SIDE>;
    for (var r = 0u; r < SIDE; r++) {
        for (var s = 0u; s < SIDE; s++) {
            let value = results[r][s] + vec4<f32>(b);
            let at = (top + vec4<u32>(r)) * OW + left + vec4<u32>(s);
            let w = s / POOL_W;
            let first = r % POOL_H == 0u && s % POOL_W == 0u;
            let wins = vec4<bool>(first) | (value > best[w]);
            best[w] = select(best[w], value, wins);
            winner[w] = select(winner[w], at, wins);
            if !IN_QUADS && r % POOL_H == POOL_H - 1u && s % POOL_W == POOL_W - 1u {
                let row = (top + vec4<u32>(r)) / POOL_H;
                let column = (left + vec4<u32>(s)) / POOL_W;
                finish(image.x, o, row.x, column.x, best[w].x, winner[w].x);
                finish(image.y, o, row.y, column.y, best[w].y, winner[w].y);
                finish(image.z, o, row.z, column.z, best[w].z, winner[w].z);
                finish(image.w, o, row.w, column.w, best[w].w, winner[w].w);
            }
        }
        if IN_QUADS && r % POOL_H == POOL_H - 1u {
            let row = (top + vec4<u32>(r)) / POOL_H;
            for (var t = 0u; t < 4u; t++) {
                if image[t] < IMAGES && row[t] < POOLED_H && left[t] < OW {
                    var values: vec4<f32>;
                    var winners: vec4<u32>;
                    for (var s = 0u; s < SIDE; s++) {
                        values[s] = activate(best[s][t], ALPHA);
                        winners[s] = winner[s][t];
                    }
                    put_quad(place_of(image[t], o, row[t], left[t]) / 4u, values, winners);
                }
            }
        }
    }
}
