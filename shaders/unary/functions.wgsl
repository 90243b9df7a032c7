// Functions of one number: a library, hooked into `unary/forward.wgsl` as `apply`. It has no
// bindings.

const ERF_LIMIT: f32 = 80.0;     // exp(-80) is still a normal f32

fn unary_abs(v: vec4<f32>) -> vec4<f32> { return abs(v); }
fn unary_ceil(v: vec4<f32>) -> vec4<f32> { return ceil(v); }
fn unary_cos(v: vec4<f32>) -> vec4<f32> { return cos(v); }
fn unary_exp(v: vec4<f32>) -> vec4<f32> { return exp(v); }
fn unary_floor(v: vec4<f32>) -> vec4<f32> { return floor(v); }
fn unary_log(v: vec4<f32>) -> vec4<f32> { return log(v); }
fn unary_neg(v: vec4<f32>) -> vec4<f32> { return -v; }
fn unary_reciprocal(v: vec4<f32>) -> vec4<f32> { return 1.0 / v; }
// Halves go to the even neighbour, in WGSL as in ONNX.
fn unary_round(v: vec4<f32>) -> vec4<f32> { return round(v); }
fn unary_sign(v: vec4<f32>) -> vec4<f32> { return sign(v); }
fn unary_sin(v: vec4<f32>) -> vec4<f32> { return sin(v); }
fn unary_sqrt(v: vec4<f32>) -> vec4<f32> { return sqrt(v); }

// Error function: Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7.
fn unary_erf(v: vec4<f32>) -> vec4<f32> {
    let t = 1.0 / (1.0 + 0.3275911 * abs(v));
    let poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return sign(v) * (1.0 - poly * exp(-min(v * v, vec4<f32>(ERF_LIMIT))));
}
