// What chance chooses for each image of a batch, by philox(counter (image, step number,
// draw, 0), key (run seed, STREAM)).
//
//   choices   five vec4 an image:
//             0   r0 r1 r2: the source's row is r0 row + r1 column + r2
//             1   likewise its column
//             2   factors of brightness, contrast, saturation; turn of the hue
//             3   rows from, to, columns from, to of the square that is cut out
//             4   likewise of the box that is erased
//
// The source's place is that of the output, taken back through a turn by a and a zoom by z
// about the centre, a shift, a crop and a flip. With (y, x) from the shifted centre,
//
//   row = (cos a y + sin a x) / z + centre      column = (-sin a y + cos a x) / z + centre
//
// One invocation an image. `ops::augment::choices` chooses the same on the host.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const BATCH: u32 = 1u;           // images
const HEIGHT: u32 = 1u;
const WIDTH: u32 = 1u;
const STREAM: u32 = 1u;          // sets augmentation apart from the seed's other users
const FLIP: f32 = 0.0;           // probabilities
const FLIP_VERTICAL: f32 = 0.0;
const CROP: u32 = 0u;            // pixels on each side
const AFFINE: bool = false;      // whether to turn, zoom or shift
const ROTATE: f32 = 0.0;         // most, in radians
const ZOOM: f32 = 0.0;
const SHIFT: f32 = 0.0;          // most, as a share of the extent
const BRIGHTNESS: f32 = 0.0;
const CONTRAST: f32 = 0.0;
const SATURATION: f32 = 0.0;
const HUE: f32 = 0.0;
const CUTOUT: u32 = 0u;          // pixels of a side
const ERASE: f32 = 0.0;          // probability
const LEAST_ERASED: f32 = 0.02;  // share of the area
const MOST_ERASED: f32 = 0.33;
const LEAST_PROPORTION: f32 = -1.2; // logarithm of rows to columns
const MOST_PROPORTION: f32 = 1.2;
const HALF_PI: f32 = 1.5707963267948966;

struct Step {
    number: u32,
    seed: u32,
    first: u32,
    count: u32,
    slot: u32,
    learning_rate: f32,
    correction1: f32,
    correction2: f32,
}

@group(0) @binding(0) var<storage, read_write> choices: array<vec4<f32>>;
@group(0) @binding(1) var<uniform> step: Step;

fn random(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> { return counter; }

fn words(image: u32, draw: u32) -> vec4<u32> {
    return random(vec4<u32>(image, step.number, draw, 0u), vec2<u32>(step.seed, STREAM));
}

// In [0, 1), exact.
fn unit(word: u32) -> f32 { return f32(word >> 8u) * 0x1p-24; }

// In [-1, 1).
fn signed(word: u32) -> f32 { return 2.0 * unit(word) - 1.0; }

// One of 0 .. count, for counts below 2^16.
fn pick(word: u32, count: u32) -> u32 { return ((word >> 16u) * count) >> 16u; }

// The sine of an angle up to a right one, to 6e-8: WGSL's own need not be better than 2^-11.
fn sine(x: f32) -> f32 {
    let s = x * x;
    let tail = 1.0 - s / 42.0 * (1.0 - s / 72.0 * (1.0 - s / 110.0));
    return x * (1.0 - s / 6.0 * (1.0 - s / 20.0 * tail));
}

// Sine and cosine of an angle up to a half turn.
fn sine_cosine(angle: f32) -> vec2<f32> {
    let size = abs(angle);
    let high = sine(min(size, 2.0 * HALF_PI - size));
    return vec2<f32>(sign(angle) * high, sine(HALF_PI - size));
}

// The span of the cut-out about `middle`, as far as it lies inside.
fn span_about(middle: u32, extent: u32) -> vec2<f32> {
    let first = i32(middle) - i32(CUTOUT / 2u);
    let ends = vec2<i32>(first, first + i32(CUTOUT));
    return vec2<f32>(clamp(ends, vec2<i32>(0), vec2<i32>(i32(extent))));
}

// A span of about `side`, made to fit, anywhere.
fn span_of(side: f32, extent: u32, word: u32) -> vec2<f32> {
    let whole = min(u32(floor(side + 0.5)), extent);
    let first = pick(word, extent - whole + 1u);
    return vec2<f32>(f32(first), f32(first + whole));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if n >= BATCH {
        return;
    }
    let extents = vec2<f32>(f32(HEIGHT), f32(WIDTH));
    let last = extents - 1.0;
    var rows = vec3<f32>(1.0, 0.0, 0.0);
    var columns = vec3<f32>(0.0, 1.0, 0.0);
    if AFFINE {
        let w = words(n, 1u);
        let zoom = 1.0 + ZOOM * signed(w.y);
        let turn = sine_cosine(ROTATE * signed(w.x)) / zoom;
        let shift = SHIFT * extents * vec2<f32>(signed(w.z), signed(w.w));
        let center = -last / 2.0 - shift;
        rows = vec3<f32>(turn.y, turn.x, turn.y * center.x + turn.x * center.y + last.x / 2.0);
        columns = vec3<f32>(-turn.x, turn.y, turn.y * center.y - turn.x * center.x + last.y / 2.0);
    }
    let w = words(n, 0u);
    let crop = vec2<u32>(pick(w.z, 2u * CROP + 1u), pick(w.w, 2u * CROP + 1u));
    rows.z += f32(crop.x) - f32(CROP);
    columns.z += f32(crop.y) - f32(CROP);
    if unit(w.x) < FLIP {
        columns = vec3<f32>(0.0, 0.0, last.y) - columns;
    }
    if unit(w.y) < FLIP_VERTICAL {
        rows = vec3<f32>(0.0, 0.0, last.x) - rows;
    }
    choices[n * 5u] = vec4<f32>(rows, 0.0);
    choices[n * 5u + 1u] = vec4<f32>(columns, 0.0);

    let c = words(n, 2u);
    let jitter = vec4<f32>(signed(c.x), signed(c.y), signed(c.z), signed(c.w));
    let strengths = vec4<f32>(BRIGHTNESS, CONTRAST, SATURATION, HUE);
    choices[n * 5u + 2u] = vec4<f32>(1.0, 1.0, 1.0, 0.0) + strengths * jitter;

    let e = words(n, 3u);
    let tall = span_about(pick(e.x, HEIGHT), HEIGHT);
    choices[n * 5u + 3u] = vec4<f32>(tall, span_about(pick(e.y, WIDTH), WIDTH));
    var erased = vec4<f32>();
    if unit(e.z) < ERASE {
        let b = words(n, 4u);
        let share = LEAST_ERASED + (MOST_ERASED - LEAST_ERASED) * unit(b.x);
        let spread = MOST_PROPORTION - LEAST_PROPORTION;
        let proportion = exp(LEAST_PROPORTION + spread * unit(b.y));
        let area = extents.x * extents.y * share;
        erased = vec4<f32>(
            span_of(sqrt(area * proportion), HEIGHT, b.z),
            span_of(sqrt(area / proportion), WIDTH, b.w),
        );
    }
    choices[n * 5u + 4u] = erased;
}
