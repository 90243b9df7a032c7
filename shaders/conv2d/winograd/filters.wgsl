// Filters of 3 x 3, a library for the hook of winograd/transform.wgsl
//   fn take(plane: u32, quad: u32) -> array<array<vec4<f32>, FROM>, FROM>
//
//   w   [O, C, 3, 3] f32
//
// A plane is an output channel and its places are input channels; where FLIP, for the input
// gradient, it is the other way round and the filters are turned. Places beyond the last are
// zero.

const O: u32 = 1u;
const C: u32 = 1u;
const FLIP: bool = false;
const SIDE: u32 = 3u;
const TAPS: u32 = SIDE * SIDE;

@group(0) @binding(0) var<storage, read> w: array<f32>;

fn weight(plane: u32, place: u32, tap: u32) -> f32 {
    if FLIP {
        return select(0.0, w[(min(place, O - 1u) * C + plane) * TAPS + TAPS - 1u - tap], place < O);
    }
    return select(0.0, w[(plane * C + min(place, C - 1u)) * TAPS + tap], place < C);
}

fn read_filters(plane: u32, quad: u32) -> array<array<vec4<f32>, SIDE>, SIDE> {
    let at = quad * 4u;
    var taps: array<array<vec4<f32>, SIDE>, SIDE>;
    for (var r = 0u; r < SIDE; r++) {
        for (var s = 0u; s < SIDE; s++) {
            let tap = r * SIDE + s;
            taps[r][s] = vec4<f32>(
                weight(plane, at, tap), weight(plane, at + 1u, tap),
                weight(plane, at + 2u, tap), weight(plane, at + 3u, tap));
        }
    }
    return taps;
}
