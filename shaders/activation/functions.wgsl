// Activation functions and their derivatives: a library, hooked into the
// kernels that apply one (see `Kernel::hook`). It has no bindings.
//
//   f(x, alpha)        the function
//   f_slope(s, alpha)  dy/dx from the saved tensor s, which is the output y where
//                      y determines the slope, else the input x (gelu, silu, ...)
//
// `alpha` is the negative slope of leaky_relu and the scale of elu; the others
// ignore it.

const SQRT_HALF: f32 = 0.70710678;           // 1 / sqrt(2)
const SQRT_2_OVER_PI: f32 = 0.79788456;
const INV_SQRT_2PI: f32 = 0.39894228;        // 1 / sqrt(2 pi)
const GELU_CUBIC: f32 = 0.044715;
const EXP_LIMIT: f32 = 80.0;                 // exp(80) is finite in f32, exp(-80) still normal

fn identity(x: f32, alpha: f32) -> f32 { return x; }
fn identity_slope(y: f32, alpha: f32) -> f32 { return 1.0; }

fn relu(x: f32, alpha: f32) -> f32 { return max(x, 0.0); }
fn relu_slope(y: f32, alpha: f32) -> f32 { return select(0.0, 1.0, y > 0.0); }

fn leaky_relu(x: f32, alpha: f32) -> f32 { return select(alpha * x, x, x > 0.0); }
fn leaky_relu_slope(s: f32, alpha: f32) -> f32 { return select(alpha, 1.0, s > 0.0); }

fn elu(x: f32, alpha: f32) -> f32 { return select(alpha * (exp(min(x, 0.0)) - 1.0), x, x > 0.0); }
fn elu_slope(y: f32, alpha: f32) -> f32 { return select(y + alpha, 1.0, y > 0.0); }
fn elu_slope_from_input(x: f32, alpha: f32) -> f32 { return select(alpha * exp(min(x, 0.0)), 1.0, x > 0.0); }

fn sigmoid(x: f32, alpha: f32) -> f32 { return 1.0 / (1.0 + exp(-clamp(x, -EXP_LIMIT, EXP_LIMIT))); }
fn sigmoid_slope(y: f32, alpha: f32) -> f32 { return y * (1.0 - y); }

// tanh(x) = 1 - 2 / (exp(2x) + 1); the clamp keeps exp finite and is exact:
// tanh is 1 in f32 from |x| = 9.01 on.
fn tanh_activation(x: f32, alpha: f32) -> f32 { return 1.0 - 2.0 / (exp(2.0 * clamp(x, -10.0, 10.0)) + 1.0); }
fn tanh_activation_slope(y: f32, alpha: f32) -> f32 { return 1.0 - y * y; }

fn silu(x: f32, alpha: f32) -> f32 { return x * sigmoid(x, alpha); }
fn silu_slope(x: f32, alpha: f32) -> f32 {
    let s = sigmoid(x, alpha);
    return s * (1.0 + x * (1.0 - s));
}

// Error function: Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7.
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return sign(x) * (1.0 - poly * exp(-min(x * x, EXP_LIMIT)));
}

// Exact GELU, x Phi(x) (Hendrycks and Gimpel 2016).
fn gelu(x: f32, alpha: f32) -> f32 { return 0.5 * x * (1.0 + erf(x * SQRT_HALF)); }
fn gelu_slope(x: f32, alpha: f32) -> f32 {
    let density = INV_SQRT_2PI * exp(-min(0.5 * x * x, EXP_LIMIT));
    return 0.5 * (1.0 + erf(x * SQRT_HALF)) + x * density;
}

// The tanh approximation of GELU, same source.
fn gelu_tanh(x: f32, alpha: f32) -> f32 {
    let inner = SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x);
    return 0.5 * x * (1.0 + tanh_activation(inner, alpha));
}
fn gelu_tanh_slope(x: f32, alpha: f32) -> f32 {
    let t = tanh_activation(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x), alpha);
    let inner_slope = SQRT_2_OVER_PI * (1.0 + 3.0 * GELU_CUBIC * x * x);
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner_slope;
}

fn relu6(x: f32, alpha: f32) -> f32 { return clamp(x, 0.0, 6.0); }
fn relu6_slope(y: f32, alpha: f32) -> f32 { return select(0.0, 1.0, y > 0.0 && y < 6.0); }

fn hard_sigmoid(x: f32, alpha: f32) -> f32 { return clamp(fma(x, 1.0 / 6.0, 0.5), 0.0, 1.0); }
fn hard_sigmoid_slope(y: f32, alpha: f32) -> f32 { return select(0.0, 1.0 / 6.0, y > 0.0 && y < 1.0); }

fn hard_swish(x: f32, alpha: f32) -> f32 { return x * hard_sigmoid(x, alpha); }
fn hard_swish_slope(x: f32, alpha: f32) -> f32 {
    return select(select(0.0, 1.0, x > 0.0), (2.0 * x + 3.0) / 6.0, abs(x) < 3.0);
}

// log(1 + exp(x)), with an exponential that cannot overflow.
fn softplus(x: f32, alpha: f32) -> f32 { return max(x, 0.0) + log(1.0 + exp(-min(abs(x), EXP_LIMIT))); }
fn softplus_slope(x: f32, alpha: f32) -> f32 { return sigmoid(x, alpha); }

fn mish(x: f32, alpha: f32) -> f32 { return x * tanh_activation(softplus(x, alpha), alpha); }
fn mish_slope(x: f32, alpha: f32) -> f32 {
    let t = tanh_activation(softplus(x, alpha), alpha);
    return t + x * (1.0 - t * t) * sigmoid(x, alpha);
}
