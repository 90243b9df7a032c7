// Operands of 2-D convolution for the engines in shaders/gemm: implicit GEMM, one
// batch of the engine a group of channels.
//
//   forward       y[o, (i, oy, ox)]    = sum over (c, ky, kx)  of w[o, (c, ky, kx)] * x[...]
//   input_grad    dx[c, (i, iy, ix)]   = sum over (o, ky, kx)  of w[o, (c, ky, kx)] * dy[...]
//   weight_grad   dw[o, (c, ky, kx)]   = sum over (i, oy, ox)  of dy[i, o, oy, ox] * x[...]
//
// with iy = oy * STRIDE_Y + ky * DILATION_Y - PAD_TOP and likewise ix; taps outside the
// image are zero. Channels o and c are those of a group; i counts images.
//
//   image    x: [IMAGES, GROUPS * IN, H, W]; what input_grad writes to
//   filter   w: [GROUPS * O, IN, KH, KW]; what weight_grad writes to
//   windows  y or dy: [IMAGES, GROUPS * O, OH, OW]; what forward writes to
//   bias     [GROUPS * O], read by forward where HAS_BIAS; otherwise anything
//   result   the one of these three that is computed (`image`, `filter` or `windows`
//            names its layout); for weight_grad [splits, GROUPS * O, IN, KH, KW]
//   left, right   the operands in the order of the products above

const IMAGES: u32 = 1u;
const GROUPS: u32 = 1u;
const IN: u32 = 1u;              // input channels of a group
const H: u32 = 1u;
const W: u32 = 1u;
const O: u32 = 1u;               // output channels of a group
const OH: u32 = 1u;
const OW: u32 = 1u;
const KH: u32 = 1u;
const KW: u32 = 1u;
const STRIDE_Y: u32 = 1u;
const STRIDE_X: u32 = 1u;
const DILATION_Y: u32 = 1u;
const DILATION_X: u32 = 1u;
const PAD_TOP: u32 = 0u;
const PAD_LEFT: u32 = 0u;
const HAS_BIAS: bool = false;
const ALPHA: f32 = 0.0;          // the activation's parameter

const TAPS: u32 = KH * KW;
const FILTER: u32 = IN * TAPS;   // weights of an output channel

@group(0) @binding(0) var<storage, read> left: array<f32>;
@group(0) @binding(1) var<storage, read> right: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;

fn activate(x: f32, alpha: f32) -> f32 { return x; }

fn image_at(g: u32, i: u32, c: u32, iy: u32, ix: u32) -> u32 {
    return ((i * GROUPS + g) * IN + c) * (H * W) + iy * W + ix;
}

fn windows_at(g: u32, i: u32, o: u32, pixel: u32) -> u32 {
    return ((i * GROUPS + g) * O + o) * (OH * OW) + pixel;
}

// x under tap (ky, kx) of window `pixel`, from `right`; 0 in the padding.
fn image_under(g: u32, i: u32, c: u32, pixel: u32, tap: u32) -> f32 {
    // Wraps around above the image, so one comparison catches both sides.
    let iy = (pixel / OW) * STRIDE_Y + (tap / KW) * DILATION_Y - PAD_TOP;
    let ix = (pixel % OW) * STRIDE_X + (tap % KW) * DILATION_X - PAD_LEFT;
    if iy >= H || ix >= W {
        return 0.0;
    }
    return right[image_at(g, i, c, iy, ix)];
}

// forward: M = O, K = FILTER, N = IMAGES * OH * OW

fn forward_a(z: u32, m: u32, k: u32) -> f32 {
    return left[(z * O + m) * FILTER + k];
}

fn forward_b(z: u32, k: u32, n: u32) -> f32 {
    return image_under(z, n / (OH * OW), k / TAPS, n % (OH * OW), k % TAPS);
}

fn forward_c(z: u32, split: u32, m: u32, n: u32, sums: vec4<f32>) {
    for (var i = 0u; i < min(4u, IMAGES * OH * OW - n); i++) {
        let column = n + i;
        var value = sums[i];
        if HAS_BIAS {
            value += bias[z * O + m];
        }
        result[windows_at(z, column / (OH * OW), m, column % (OH * OW))] = activate(value, ALPHA);
    }
}

// input_grad: M = IN, K = O * TAPS, N = IMAGES * H * W

fn input_grad_a(z: u32, m: u32, k: u32) -> f32 {
    return left[(z * O + k / TAPS) * FILTER + m * TAPS + k % TAPS];
}

fn input_grad_b(z: u32, k: u32, n: u32) -> f32 {
    let pixel = n % (H * W);
    let tap = k % TAPS;
    // The window whose tap falls on this pixel, if the strides hit it.
    let y = pixel / W + PAD_TOP - (tap / KW) * DILATION_Y;
    let x = pixel % W + PAD_LEFT - (tap % KW) * DILATION_X;
    if y / STRIDE_Y >= OH || x / STRIDE_X >= OW || y % STRIDE_Y != 0u || x % STRIDE_X != 0u {
        return 0.0;
    }
    return right[windows_at(z, n / (H * W), k / TAPS, (y / STRIDE_Y) * OW + x / STRIDE_X)];
}

fn input_grad_c(z: u32, split: u32, m: u32, n: u32, sums: vec4<f32>) {
    for (var i = 0u; i < min(4u, IMAGES * H * W - n); i++) {
        let pixel = (n + i) % (H * W);
        result[image_at(z, (n + i) / (H * W), m, pixel / W, pixel % W)] = sums[i];
    }
}

// weight_grad: M = O, K = IMAGES * OH * OW, N = FILTER

fn weight_grad_a(z: u32, m: u32, k: u32) -> f32 {
    return left[windows_at(z, k / (OH * OW), m, k % (OH * OW))];
}

fn weight_grad_b(z: u32, k: u32, n: u32) -> f32 {
    return image_under(z, k / (OH * OW), n / TAPS, k % (OH * OW), n % TAPS);
}

fn weight_grad_c(z: u32, split: u32, m: u32, n: u32, sums: vec4<f32>) {
    for (var i = 0u; i < min(4u, FILTER - n); i++) {
        result[((split * GROUPS + z) * O + m) * FILTER + n + i] = sums[i];
    }
}
