// Functions of two operands: a library, hooked into `binary/forward.wgsl` as `combine`.
// It has no bindings.

fn add(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return a + b; }
fn sub(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return a - b; }
fn mul(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return a * b; }
