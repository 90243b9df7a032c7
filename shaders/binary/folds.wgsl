// Folds of many numbers: a library, hooked into `binary/sum_to.wgsl` as `fold`, with what
// each begins with as `begin_with`. It has no bindings.

fn product(a: f32, b: f32) -> f32 { return a * b; }
fn begin_product(x: f32) -> f32 { return 1.0; }

// Compared as bits: WGSL's own comparisons may take no number to be NaN.
fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }

// A NaN stays one. Each term may count twice, so a fold begins with any of its terms.
fn largest(a: f32, b: f32) -> f32 { return select(max(a, b), a + b, is_nan(a) || is_nan(b)); }
fn smallest(a: f32, b: f32) -> f32 { return select(min(a, b), a + b, is_nan(a) || is_nan(b)); }
fn begin_term(x: f32) -> f32 { return x; }
