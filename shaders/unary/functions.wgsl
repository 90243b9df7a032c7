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

// To the precision of bfloat16, of two numbers to the even one, by adding to the bits that
// go: a carry goes into the exponent. A NaN stays one.
fn unary_to_bfloat16(v: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(v);
    let odd = (bits >> vec4<u32>(16u)) & vec4<u32>(1u);
    let rounded = (bits + vec4<u32>(0x7fffu) + odd) & vec4<u32>(0xffff0000u);
    let magnitude = bits & vec4<u32>(0x7fffffffu);
    return bitcast<vec4<f32>>(select(rounded, bits, magnitude > vec4<u32>(0x7f800000u)));
}

// To the precision of f16, by bits like bfloat16. From 65520 on it is infinite; below 2^-14
// numbers are multiples of 2^-24.
fn unary_to_half(v: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(v);
    let magnitude = bits & vec4<u32>(0x7fffffffu);
    let sign = bits & vec4<u32>(0x80000000u);
    let odd = (magnitude >> vec4<u32>(13u)) & vec4<u32>(1u);
    let near = (magnitude + vec4<u32>(0xfffu) + odd) & vec4<u32>(0xffffe000u);
    let bounded = select(near, vec4<u32>(0x7f800000u), near > vec4<u32>(0x477fe000u));
    let small = round(bitcast<vec4<f32>>(magnitude) * 16777216.0) * 5.9604644775390625e-8;
    let rounded = select(bounded, bitcast<vec4<u32>>(small), magnitude < vec4<u32>(0x38800000u));
    let kept = select(rounded, magnitude, magnitude > vec4<u32>(0x7f800000u));
    return bitcast<vec4<f32>>(kept | sign);
}
