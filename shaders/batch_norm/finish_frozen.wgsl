// Batch normalisation, backward: gradients of each channel, and the coefficients of dx,
// where mean and variance are inputs of their own (running statistics).
//
//   S = sum of g, P = sum of g * (x - mean), r = 1 / sqrt(variance + EPSILON)
//   dbeta = S,  dgamma = P * r,  dmean = -gamma r S,  dvariance = -gamma r^3 P / 2
//   dx = gamma r g = coefficients.x * g + coefficients.y * (x - mean) + coefficients.z
//
//   sums                             [C, SLICES] vec2: (S, P) of each slice, see sums.wgsl
//   gamma, variance                  [C] f32
//   dgamma, dbeta, dmean, dvariance  [C] f32
//   coefficients                     [C] vec4
//
// One invocation a channel adds its slices in order.

const WORKGROUP: u32 = 64u;      // invocations a workgroup
const CHANNELS: u32 = 1u;        // C
const SLICES: u32 = 1u;          // slices a channel
const EPSILON: f32 = 0.001;

@group(0) @binding(0) var<storage, read> sums: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> gamma: array<f32>;
@group(0) @binding(2) var<storage, read> variance: array<f32>;
@group(0) @binding(3) var<storage, read_write> dgamma: array<f32>;
@group(0) @binding(4) var<storage, read_write> dbeta: array<f32>;
@group(0) @binding(5) var<storage, read_write> dmean: array<f32>;
@group(0) @binding(6) var<storage, read_write> dvariance: array<f32>;
@group(0) @binding(7) var<storage, read_write> coefficients: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.x;
    if c >= CHANNELS {
        return;
    }
    var total = vec2<f32>();
    for (var slice = 0u; slice < SLICES; slice++) {
        total += sums[c * SLICES + slice];
    }
    let r = 1.0 / sqrt(variance[c] + EPSILON);
    let scale = gamma[c] * r;
    dgamma[c] = total.y * r;
    dbeta[c] = total.x;
    dmean[c] = -scale * total.x;
    dvariance[c] = -0.5 * scale * r * r * total.y;
    coefficients[c] = vec4<f32>(scale, 0.0, 0.0, 0.0);
}
