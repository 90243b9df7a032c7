// Functions of two operands: a library, hooked into `binary/forward.wgsl` as `combine`.
// It has no bindings.

fn add(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return a + b; }
fn sub(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return a - b; }
fn mul(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return a * b; }
fn div(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return a / b; }
fn smaller(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return min(a, b); }
fn larger(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return max(a, b); }

// WGSL's pow is of positive numbers: the sign of a negative one is that of an odd power.
fn power(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    let magnitude = select(pow(abs(a), b), vec4<f32>(1.0), b == vec4<f32>(0.0));
    let odd = abs(b % vec4<f32>(2.0)) == vec4<f32>(1.0);
    return select(magnitude, -magnitude, (a < vec4<f32>(0.0)) & odd);
}

// Leaky ReLU with slope b, and its derivative by a.
fn prelu(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return select(b * a, a, a > vec4<f32>(0.0)); }
fn prelu_slope(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return select(b, vec4<f32>(1.0), a > vec4<f32>(0.0)); }

// Comparisons, 1 where they hold.
fn less(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return select(vec4<f32>(0.0), vec4<f32>(1.0), a < b); }
fn less_or_equal(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return select(vec4<f32>(0.0), vec4<f32>(1.0), a <= b); }
fn equal(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return select(vec4<f32>(0.0), vec4<f32>(1.0), a == b); }
