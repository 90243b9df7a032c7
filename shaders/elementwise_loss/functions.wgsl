// Losses of one prediction x and its target t, and their derivatives by x: a library,
// hooked into `elementwise_loss/forward.wgsl`. It has no bindings.

fn squared_error(x: f32, t: f32) -> f32 { return (x - t) * (x - t); }
fn squared_error_slope(x: f32, t: f32) -> f32 { return 2.0 * (x - t); }

// log(1 + e) for e in [0, 1]; below 2^-8 by its series, whose next term, e^4 / 4, is
// below f32's rounding of the first, where the sum 1 + e would lose digits of e.
fn log_of_one_plus(e: f32) -> f32 {
    return select(log(1.0 + e), e * (1.0 - e * (0.5 - e / 3.0)), e < 0.00390625);
}

// -t log s - (1 - t) log(1 - s) with s = sigmoid(x), written so that nothing overflows.
fn binary_cross_entropy(x: f32, t: f32) -> f32 {
    return max(x, 0.0) - x * t + log_of_one_plus(exp(-abs(x)));
}

// s - t, as (1 - t) s - t (1 - s): no digits cancel where s is near 1.
fn binary_cross_entropy_slope(x: f32, t: f32) -> f32 {
    let e = exp(-abs(x));
    let pair = vec2<f32>(1.0, e) / (1.0 + e);
    return select((1.0 - t) * pair.y - t * pair.x, (1.0 - t) * pair.x - t * pair.y, x > 0.0);
}
