// Convolution of signed bytes, four channels to a word, with 32-bit integer sums:
//
//   y[n, o, p] = activate(scale[o] · Σ x[n, c, p · stride + tap · dilation - pad] w[o, c, tap] + bias[o])
//
//   x       [N, C4, H, W] words of four i8: channels 4c to 4c + 3
//   w       [ceil(O / 4), C4, KH, KW] vec4 of such words: filters 4o to 4o + 3
//   scale   [O] f32: the step of x times that of the filter
//   bias    [O] f32
//   y       [N, O, OH, OW] f32
//
// One invocation: four filters at four neighbouring pixels of a row, so that a vec4 of w and
// four words of x make sixteen dot products of four. A dense layer is a kernel of one tap over
// images of one pixel. Sums are exact: 127² · 4 C4 KH KW stays below 2^31 for as many as
// 133,000 products. Floor: an eighth of the f32 kernel's multiply-adds where the device
// has dot4I8Packed; elsewhere the compiler spells it out.

const GROUPS_X: u32 = 65535u;    // workgroups a row of the dispatch
const WORKGROUP: u32 = 64u;      // invocations a workgroup
const TASKS: u32 = 1u;           // invocations at work
const C4: u32 = 1u;              // words of a pixel of x
const H: u32 = 1u;               // rows of x
const W: u32 = 1u;               // columns of x
const O: u32 = 1u;               // filters
const OH: u32 = 1u;              // rows of y
const OW: u32 = 1u;              // columns of y
const KH: u32 = 1u;              // rows of the kernel
const KW: u32 = 1u;              // columns of the kernel
const STRIDE_Y: u32 = 1u;
const STRIDE_X: u32 = 1u;
const DILATION_Y: u32 = 1u;
const DILATION_X: u32 = 1u;
const PAD_TOP: u32 = 0u;
const PAD_LEFT: u32 = 0u;
const BIAS: bool = true;         // whether there is a bias
const ALPHA: f32 = 0.0;          // the activation's parameter

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn activate(x: f32, alpha: f32) -> f32 { return x; }

// The word of x at a row and column that may lie in the padding.
fn word(plane: u32, row: u32, column: u32) -> u32 {
    // A place before the image wraps round to a large number.
    if row >= H || column >= W {
        return 0u;
    }
    return x[(plane * H + row) * W + column];
}

// A word of x times one of each of four filters.
fn products(filters: vec4<u32>, pixel: u32) -> vec4<i32> {
    return vec4<i32>(
        dot4I8Packed(filters.x, pixel),
        dot4I8Packed(filters.y, pixel),
        dot4I8Packed(filters.z, pixel),
        dot4I8Packed(filters.w, pixel),
    );
}

// Four neighbouring pixels of a filter, as far as both exist.
fn put(plane: u32, o: u32, row: u32, left: u32, sums: vec4<i32>) {
    if o >= O {
        return;
    }
    var summand = 0.0;
    if BIAS {
        summand = bias[o];
    }
    let values = vec4<f32>(sums) * scale[o] + summand;
    let start = (plane * OH + row) * OW + left;
    y[start] = activate(values.x, ALPHA);
    if left + 1u < OW {
        y[start + 1u] = activate(values.y, ALPHA);
    }
    if left + 2u < OW {
        y[start + 2u] = activate(values.z, ALPHA);
    }
    if left + 3u < OW {
        y[start + 3u] = activate(values.w, ALPHA);
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let task = (group.x + group.y * GROUPS_X) * WORKGROUP + lane;
    if task >= TASKS {
        return;
    }
    let runs = (OW + 3u) / 4u;
    let quads = (O + 3u) / 4u;
    let left = task % runs * 4u;
    let row = task / runs % OH;
    let quad = task / runs / OH % quads;
    let image = task / runs / OH / quads;
    // By name, not in an array: registers cannot be indexed.
    var sums0 = vec4<i32>();
    var sums1 = vec4<i32>();
    var sums2 = vec4<i32>();
    var sums3 = vec4<i32>();
    for (var c = 0u; c < C4; c++) {
        for (var ky = 0u; ky < KH; ky++) {
            let iy = row * STRIDE_Y + ky * DILATION_Y - PAD_TOP;
            for (var kx = 0u; kx < KW; kx++) {
                let filters = w[((quad * C4 + c) * KH + ky) * KW + kx];
                let plane = image * C4 + c;
                let ix = left * STRIDE_X + kx * DILATION_X - PAD_LEFT;
                sums0 += products(filters, word(plane, iy, ix));
                sums1 += products(filters, word(plane, iy, ix + STRIDE_X));
                sums2 += products(filters, word(plane, iy, ix + 2u * STRIDE_X));
                sums3 += products(filters, word(plane, iy, ix + 3u * STRIDE_X));
            }
        }
    }
    let plane = image * O + 4u * quad;
    put(plane, 4u * quad, row, left, vec4<i32>(sums0.x, sums1.x, sums2.x, sums3.x));
    put(plane + 1u, 4u * quad + 1u, row, left, vec4<i32>(sums0.y, sums1.y, sums2.y, sums3.y));
    put(plane + 2u, 4u * quad + 2u, row, left, vec4<i32>(sums0.z, sums1.z, sums2.z, sums3.z));
    put(plane + 3u, 4u * quad + 3u, row, left, vec4<i32>(sums0.w, sums1.w, sums2.w, sums3.w));
}
