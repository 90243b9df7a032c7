// Gathers a batch of images from the bytes of the data set, changes each as was drawn for it
// and normalises:
//
//   y[n, c, p] = colour(x[order[(step.first + n) mod LENGTH], ., place(n, p)])[c] * SCALE[c]
//              + SHIFT[c], or 0 where p is erased
//
//   order, shard0 .. 3   the data set, see source.wgsl
//   choices              five vec4 an image, see draw.wgsl
//   greys                [BATCH] f32, mean greys; not read unless READS_GREYS
//   y                    [BATCH, CHANNELS, HEIGHT, WIDTH] f32
//   step                 step.first is the batch's place in the order
//
// One invocation PIXELS pixels of one image, with all their channels. Where images are turned,
// zoomed or shifted (AFFINE), a pixel is the bilinear mean of four, else it is one. Floor: 5
// bytes an element.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const PIXELS: u32 = 4u;          // pixels an invocation
const BATCH: u32 = 1u;           // images
const CHANNELS: u32 = 1u;
const HEIGHT: u32 = 1u;
const WIDTH: u32 = 1u;
const AFFINE: bool = false;
const BORDER: u32 = 0u;          // outside: 0 black, 1 the image mirrored, 2 its nearest pixel
const ERASES: bool = false;      // whether anything is cut out or erased
const JITTERS: bool = false;     // whether colours change
const READS_GREYS: bool = false; // whether contrast does
const SCALE: vec4<f32> = vec4<f32>(1.0, 1.0, 1.0, 1.0); // of a byte
const SHIFT: vec4<f32> = vec4<f32>(0.0, 0.0, 0.0, 0.0);
const PLANE: u32 = HEIGHT * WIDTH;
const PIECES: u32 = (PLANE + PIXELS - 1u) / PIXELS;

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

@group(0) @binding(5) var<storage, read> choices: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> greys: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> step: Step;

fn image_at(place: u32) -> u32 { return place; }

fn byte_of(image: u32, offset: u32) -> f32 { return 0.0; }

fn jitter(pixel: vec4<f32>, factors: vec4<f32>, mean_grey: f32) -> vec4<f32> { return pixel; }

// The row or column shown at `at`, which may lie outside of 0 .. extent.
fn inside(at: i32, extent: u32) -> u32 {
    let last = i32(extent) - 1;
    if BORDER != 1u {
        return u32(clamp(at, 0, last));
    }
    let period = max(2 * last, 1);
    let within = (at % period + period) % period;
    return u32(min(min(within, period - within), last));
}

// All channels, as bytes.
fn pixel_at(image: u32, row: i32, column: i32) -> vec4<f32> {
    var pixel = vec4<f32>();
    let outside = u32(row) >= HEIGHT || u32(column) >= WIDTH;
    if BORDER == 0u && outside {
        return pixel;
    }
    let place = inside(row, HEIGHT) * WIDTH + inside(column, WIDTH);
    for (var c = 0u; c < CHANNELS; c++) {
        pixel[c] = byte_of(image, c * PLANE + place);
    }
    return pixel;
}

fn pixel_between(image: u32, row: f32, column: f32) -> vec4<f32> {
    if !AFFINE {
        return pixel_at(image, i32(row), i32(column));
    }
    let top = floor(row);
    let left = floor(column);
    let r = i32(top);
    let c = i32(left);
    let upper = mix(pixel_at(image, r, c), pixel_at(image, r, c + 1), column - left);
    let lower = mix(pixel_at(image, r + 1, c), pixel_at(image, r + 1, c + 1), column - left);
    return mix(upper, lower, row - top);
}

fn holds(area: vec4<f32>, row: f32, column: f32) -> bool {
    return area.x <= row && row < area.y && area.z <= column && column < area.w;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    let n = at / PIECES;
    if n >= BATCH {
        return;
    }
    let image = image_at(step.first + n);
    let rows = choices[n * 5u].xyz;
    let columns = choices[n * 5u + 1u].xyz;
    let first = (at % PIECES) * PIXELS;
    for (var place = first; place < min(first + PIXELS, PLANE); place++) {
        let row = f32(place / WIDTH);
        let column = f32(place % WIDTH);
        let here = vec3<f32>(row, column, 1.0);
        var pixel = pixel_between(image, dot(rows, here), dot(columns, here));
        if JITTERS {
            var grey = 0.0;
            if READS_GREYS {
                grey = greys[n];
            }
            pixel = 255.0 * jitter(pixel / 255.0, choices[n * 5u + 2u], grey);
        }
        pixel = pixel * SCALE + SHIFT;
        if ERASES {
            let erased = holds(choices[n * 5u + 3u], row, column)
                || holds(choices[n * 5u + 4u], row, column);
            pixel = select(pixel, vec4<f32>(), erased);
        }
        for (var c = 0u; c < CHANNELS; c++) {
            y[(n * CHANNELS + c) * PLANE + place] = pixel[c];
        }
    }
}
