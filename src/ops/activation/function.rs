//! The activation functions themselves.

use crate::ops::Draw;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Function {
    /// `x`.
    #[default]
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `x` where positive, else `slope * x` (Maas et al. 2013).
    LeakyRelu {
        /// Slope on the negative side.
        slope: f64,
    },
    /// `x` where positive, else `alpha * (exp(x) - 1)` (Clevert et al. 2015).
    Elu {
        /// Minus the limit at negative infinity.
        alpha: f64,
    },
    /// `x * Phi(x)`, Phi the normal distribution function (Hendrycks and Gimpel 2016).
    Gelu,
    /// The tanh approximation of GELU, same source.
    GeluTanh,
    /// `x * sigmoid(x)`, also called swish (Ramachandran et al. 2017).
    Silu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `min(max(x, 0), 6)` (Howard et al. 2017).
    Relu6,
    /// `min(max(x + 3, 0), 6) / 6`, as in Keras 3 and PyTorch.
    HardSigmoid,
    /// `x * hard_sigmoid(x)` (Howard et al. 2019).
    HardSwish,
    /// `log(1 + exp(x))`.
    Softplus,
    /// `x * tanh(softplus(x))` (Misra 2019).
    Mish,
}

impl Function {
    /// The parameter of the function, 0 where it has none.
    pub fn alpha(self) -> f64 {
        match self {
            Self::LeakyRelu { slope } => slope,
            Self::Elu { alpha } => alpha,
            _ => 0.0,
        }
    }

    /// Whether the slope can be computed from the output alone, so that the input
    /// need not be kept for the backward pass.
    pub fn slope_from_output(self) -> bool {
        match self {
            Self::Identity
            | Self::Relu
            | Self::Sigmoid
            | Self::Tanh
            | Self::Relu6
            | Self::HardSigmoid => true,
            Self::LeakyRelu { slope: p } | Self::Elu { alpha: p } => p >= 0.0,
            Self::Gelu
            | Self::GeluTanh
            | Self::Silu
            | Self::HardSwish
            | Self::Softplus
            | Self::Mish => false,
        }
    }

    /// Whether the function never decreases, so that it commutes with a maximum.
    pub fn is_monotone(self) -> bool {
        self.slope_from_output()
    }

    /// The function's name in `shaders/activation/functions.wgsl`.
    pub fn shader_name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Relu => "relu",
            Self::LeakyRelu { .. } => "leaky_relu",
            Self::Elu { .. } => "elu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Silu => "silu",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh_activation",
            Self::Relu6 => "relu6",
            Self::HardSigmoid => "hard_sigmoid",
            Self::HardSwish => "hard_swish",
            Self::Softplus => "softplus",
            Self::Mish => "mish",
        }
    }

    /// The name of the slope in `shaders/activation/functions.wgsl`.
    pub fn shader_slope_name(self) -> &'static str {
        match self {
            Self::Identity => "identity_slope",
            Self::Relu => "relu_slope",
            Self::LeakyRelu { .. } => "leaky_relu_slope",
            // With a negative alpha the input is saved and the output's formula does not hold.
            Self::Elu { alpha } if alpha < 0.0 => "elu_slope_from_input",
            Self::Elu { .. } => "elu_slope",
            Self::Gelu => "gelu_slope",
            Self::GeluTanh => "gelu_tanh_slope",
            Self::Silu => "silu_slope",
            Self::Sigmoid => "sigmoid_slope",
            Self::Tanh => "tanh_activation_slope",
            Self::Relu6 => "relu6_slope",
            Self::HardSigmoid => "hard_sigmoid_slope",
            Self::HardSwish => "hard_swish_slope",
            Self::Softplus => "softplus_slope",
            Self::Mish => "mish_slope",
        }
    }

    /// The function, in float64.
    pub fn value(self, x: f64) -> f64 {
        match self {
            Self::Identity => x,
            Self::Relu => x.max(0.0),
            Self::LeakyRelu { slope } if x <= 0.0 => slope * x,
            Self::Elu { alpha } if x <= 0.0 => alpha * x.exp_m1(),
            Self::LeakyRelu { .. } | Self::Elu { .. } => x,
            Self::Gelu => 0.5 * x * (1.0 + libm::erf(x * FRAC_1_SQRT_2)),
            Self::GeluTanh => 0.5 * x * (1.0 + gelu_inner(x).tanh()),
            Self::Silu => x * sigmoid(x),
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::HardSigmoid => hard_sigmoid(x),
            Self::HardSwish => x * hard_sigmoid(x),
            Self::Softplus => softplus(x),
            Self::Mish => x * softplus(x).tanh(),
        }
    }

    /// dy/dx, in float64, from the saved tensor's element: the output where
    /// [`slope_from_output`](Self::slope_from_output), else the input.
    pub fn slope(self, saved: f64) -> f64 {
        match self {
            Self::Identity => 1.0,
            Self::Relu => f64::from(u8::from(saved > 0.0)),
            Self::LeakyRelu { .. } | Self::Elu { .. } if saved > 0.0 => 1.0,
            Self::LeakyRelu { slope } => slope,
            Self::Elu { alpha } if alpha < 0.0 => alpha * saved.exp(),
            Self::Elu { alpha } => saved + alpha,
            Self::Gelu => {
                let density = (-0.5 * saved * saved).exp() / (2.0 * PI).sqrt();
                0.5 * (1.0 + libm::erf(saved * FRAC_1_SQRT_2)) + saved * density
            }
            Self::GeluTanh => {
                let t = gelu_inner(saved).tanh();
                let inner_slope = (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044_715 * saved * saved);
                0.5 * (1.0 + t) + 0.5 * saved * (1.0 - t * t) * inner_slope
            }
            Self::Silu => {
                let s = sigmoid(saved);
                s * (1.0 + saved * (1.0 - s))
            }
            Self::Sigmoid => saved * (1.0 - saved),
            Self::Tanh => 1.0 - saved * saved,
            Self::Relu6 => f64::from(u8::from(saved > 0.0 && saved < 6.0)),
            Self::HardSigmoid if saved > 0.0 && saved < 1.0 => 1.0 / 6.0,
            Self::HardSigmoid => 0.0,
            Self::HardSwish if saved.abs() < 3.0 => (2.0 * saved + 3.0) / 6.0,
            Self::HardSwish => f64::from(u8::from(saved > 0.0)),
            Self::Softplus => sigmoid(saved),
            Self::Mish => {
                let t = softplus(saved).tanh();
                t + saved * (1.0 - t * t) * sigmoid(saved)
            }
        }
    }

    /// A random function with random parameters, for property tests.
    pub fn draw(draw: &mut Draw) -> Self {
        draw.pick(&[
            Self::Identity,
            Self::Relu,
            Self::LeakyRelu { slope: 0.25 },
            Self::LeakyRelu { slope: -0.5 },
            Self::Elu { alpha: 1.5 },
            Self::Elu { alpha: -0.5 },
            Self::Gelu,
            Self::GeluTanh,
            Self::Silu,
            Self::Sigmoid,
            Self::Tanh,
            Self::Relu6,
            Self::HardSigmoid,
            Self::HardSwish,
            Self::Softplus,
            Self::Mish,
        ])
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn hard_sigmoid(x: f64) -> f64 {
    ((x + 3.0) / 6.0).clamp(0.0, 1.0)
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn gelu_inner(x: f64) -> f64 {
    (2.0 / PI).sqrt() * (x + 0.044_715 * x * x * x)
}
