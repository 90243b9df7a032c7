//! The rules themselves, by name and in float64.

use crate::gpu::kernel::Kernel;
use crate::ops::Step;
use crate::ops::muon::MuonRule;

/// How parameters move, without weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// `p -= lr g`.
    Sgd,
    /// `v = mu v - lr g; p += v`, or `p += mu v - lr g` with Nesterov (Sutskever et al. 2013).
    Momentum {
        /// Fraction of the last step kept.
        momentum: f64,
        /// Looks ahead along the momentum.
        nesterov: bool,
    },
    /// `m += (1 - b1)(g - m); v += (1 - b2)(g² - v); p -= lr √(1 - b2^t) / (1 - b1^t) m / (√v + eps)`
    /// (Kingma and Ba 2014).
    Adam {
        /// Decay of the mean gradient.
        beta1: f64,
        /// Decay of the mean squared gradient.
        beta2: f64,
        /// Added outside the root.
        epsilon: f64,
        /// Weight decay moves the parameters directly, by lr times it (Loshchilov and
        /// Hutter 2017), not by way of the gradient.
        decoupled: bool,
    },
    /// `v = rho v + (1 - rho) g²; p -= lr g / √(v + eps)` (Hinton 2012).
    RmsProp {
        /// Decay of the mean squared gradient.
        rho: f64,
        /// Fraction of the last step kept.
        momentum: f64,
        /// Added inside the root.
        epsilon: f64,
        /// Divides by the variance of the gradient, not its second moment.
        centered: bool,
    },
    /// `v += g²; p -= lr g / √(v + eps)`, v starting at 0.1 (Duchi et al. 2011).
    Adagrad {
        /// Added inside the root.
        epsilon: f64,
    },
    /// `p -= lr sign(b1 m + (1 - b1) g); m = b2 m + (1 - b2) g` (Chen et al. 2023); weight
    /// decay is decoupled, as in the paper's algorithm 2.
    Lion {
        /// Weight of the momentum in the step.
        beta1: f64,
        /// Decay of the momentum.
        beta2: f64,
    },
}

impl Rule {
    /// The state tensors: name and initial value.
    pub fn states(&self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Sgd => &[],
            Self::Momentum { .. } => &[("velocity", 0.0)],
            Self::Adam { .. } => &[("m", 0.0), ("v", 0.0)],
            Self::RmsProp {
                momentum, centered, ..
            } => match (*centered, *momentum > 0.0) {
                (false, false) => &[("v", 0.0)],
                (false, true) => &[("v", 0.0), ("velocity", 0.0)],
                (true, false) => &[("v", 0.0), ("mean", 0.0)],
                (true, true) => &[("v", 0.0), ("mean", 0.0), ("velocity", 0.0)],
            },
            Self::Adagrad { .. } => &[("v", 0.1)],
            Self::Lion { .. } => &[("m", 0.0)],
        }
    }
}

/// An optimizer: a rule and the weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    /// How parameters move.
    pub rule: Rule,
    /// Decoupled for AdamW and Lion, `p -= lr decay p`; for all others L2,
    /// `g += decay p`, as in PyTorch.
    pub weight_decay: f64,
    /// How matrices move, where it is otherwise: by [`Muon`](crate::ops::muon::Muon).
    pub matrices: Option<MuonRule>,
}

impl Optimizer {
    /// The names [`by_name`](Self::by_name) knows.
    pub const NAMES: [&'static str; 10] = [
        "sgd",
        "momentum",
        "nesterov",
        "adam",
        "adamw",
        "rmsprop",
        "adagrad",
        "lion",
        "muon",
        "muon-normalized",
    ];

    fn new(rule: Rule) -> Self {
        Self {
            rule,
            weight_decay: 0.0,
            matrices: None,
        }
    }

    /// Plain stochastic gradient descent.
    pub fn sgd() -> Self {
        Self::new(Rule::Sgd)
    }

    /// SGD with momentum.
    pub fn momentum(momentum: f64) -> Self {
        Self::new(Rule::Momentum {
            momentum,
            nesterov: false,
        })
    }

    /// SGD with Nesterov momentum.
    pub fn nesterov(momentum: f64) -> Self {
        Self::new(Rule::Momentum {
            momentum,
            nesterov: true,
        })
    }

    /// Adam with beta1 0.9, beta2 0.999, epsilon 1e-7.
    pub fn adam() -> Self {
        Self::new(Rule::Adam {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-7,
            decoupled: false,
        })
    }

    /// Adam with decoupled weight decay, 0.004 as in Keras.
    pub fn adamw() -> Self {
        Self {
            rule: Rule::Adam {
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-7,
                decoupled: true,
            },
            weight_decay: 0.004,
            matrices: None,
        }
    }

    /// Muon for matrices (weights of convolutions count as [out, in * rows * columns]), AdamW
    /// for all else, with Keras's settings.
    pub fn muon() -> Self {
        Self {
            matrices: Some(MuonRule::default()),
            ..Self::adamw()
        }
    }

    /// airbench's (Jordan 2024): Muon with momentum 0.9 for matrices, which are
    /// [normalized](crate::ops::muon::MuonRule::normalized) and so without weight decay, and
    /// SGD with Nesterov momentum 0.85 for all else. A rate for matrices is far too small for
    /// the rest, where steps are as long as gradients: `speedrun` has a factor of some 2,000
    /// for biases.
    pub fn muon_normalized() -> Self {
        Self {
            matrices: Some(MuonRule {
                momentum: 0.9,
                normalized: true,
                ..MuonRule::default()
            }),
            ..Self::nesterov(0.85)
        }
    }

    /// RMSprop with rho 0.9, epsilon 1e-7, no momentum, not centered.
    pub fn rmsprop() -> Self {
        Self::new(Rule::RmsProp {
            rho: 0.9,
            momentum: 0.0,
            epsilon: 1e-7,
            centered: false,
        })
    }

    /// Adagrad with epsilon 1e-7.
    pub fn adagrad() -> Self {
        Self::new(Rule::Adagrad { epsilon: 1e-7 })
    }

    /// Lion with beta1 0.9, beta2 0.99.
    pub fn lion() -> Self {
        Self::new(Rule::Lion {
            beta1: 0.9,
            beta2: 0.99,
        })
    }

    /// An optimizer by its name, one of [`NAMES`](Self::NAMES), with Keras's defaults
    /// (momentum 0.9 where there is one).
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "sgd" => Self::sgd(),
            "momentum" => Self::momentum(0.9),
            "nesterov" => Self::nesterov(0.9),
            "adam" => Self::adam(),
            "adamw" => Self::adamw(),
            "rmsprop" => Self::rmsprop(),
            "adagrad" => Self::adagrad(),
            "lion" => Self::lion(),
            "muon" => Self::muon(),
            "muon-normalized" => Self::muon_normalized(),
            _ => return None,
        })
    }

    /// The same optimizer with another weight decay.
    #[must_use]
    pub fn with_weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = weight_decay;
        self
    }

    /// Keras's default learning rate: 0.01 for the SGD family, 0.001 otherwise.
    pub fn default_learning_rate(&self) -> f64 {
        match self.rule {
            Rule::Sgd | Rule::Momentum { .. } => 0.01,
            _ => 0.001,
        }
    }

    /// The bias corrections `1 - beta1^t` and `1 - beta2^t` of step `t`, from 1; 1 and 1
    /// for rules without.
    pub fn corrections(&self, step: u32) -> (f64, f64) {
        match self.rule {
            Rule::Adam { beta1, beta2, .. } => {
                let correct = |beta: f64| 1.0 - beta.powf(f64::from(step));
                (correct(beta1), correct(beta2))
            }
            _ => (1.0, 1.0),
        }
    }

    /// Whether the weight decay acts apart from the gradient.
    fn decoupled(&self) -> bool {
        matches!(
            self.rule,
            Rule::Lion { .. }
                | Rule::Adam {
                    decoupled: true,
                    ..
                }
        )
    }

    /// The new value of a parameter, its states changed in place, in float64.
    pub fn step(&self, p: f64, g: f64, state: &mut [f64; 3], step: &Step) -> f64 {
        let lr = step.learning_rate;
        let (g, decayed) = match self.decoupled() {
            true => (g, p - lr * self.weight_decay * p),
            false => (g + self.weight_decay * p, p),
        };
        match self.rule {
            Rule::Sgd => p - lr * g,
            Rule::Momentum { momentum, nesterov } => {
                state[0] = momentum * state[0] - lr * g;
                let ahead = momentum * state[0] - lr * g;
                p + if nesterov { ahead } else { state[0] }
            }
            Rule::Adam {
                beta1,
                beta2,
                epsilon,
                ..
            } => {
                let [m, v, _] = state;
                *m += (1.0 - beta1) * (g - *m);
                *v += (1.0 - beta2) * (g * g - *v);
                let rate = lr * step.correction2.sqrt() / step.correction1;
                decayed - rate * *m / (v.sqrt() + epsilon)
            }
            Rule::RmsProp {
                rho,
                momentum,
                epsilon,
                centered,
            } => {
                state[0] = rho * state[0] + (1.0 - rho) * g * g;
                let mut variance = state[0];
                if centered {
                    state[1] = rho * state[1] + (1.0 - rho) * g;
                    // Never negative but for rounding.
                    variance = (variance - state[1] * state[1]).max(0.0);
                }
                let d = lr * g / (variance + epsilon).sqrt();
                if momentum == 0.0 {
                    return p - d;
                }
                let velocity = &mut state[1 + usize::from(centered)];
                *velocity = momentum * *velocity + d;
                p - *velocity
            }
            Rule::Adagrad { epsilon } => {
                state[0] += g * g;
                p - lr * g / (state[0] + epsilon).sqrt()
            }
            Rule::Lion { beta1, beta2 } => {
                let m = state[0];
                state[0] = beta2 * m + (1.0 - beta2) * g;
                let direction = beta1 * m + (1.0 - beta1) * g;
                let sign = if direction == 0.0 {
                    0.0
                } else {
                    direction.signum()
                };
                decayed - lr * sign
            }
        }
    }

    /// Sets the rule's constants in `shaders/optimizer/update.wgsl`.
    pub(super) fn specialise(&self, kernel: Kernel) -> Kernel {
        let (mut beta1, mut beta2, mut mu, mut epsilon) = (0.0, 0.0, 0.0, 0.0);
        let (mut nesterov, mut centered) = (false, false);
        let rule = match self.rule {
            Rule::Sgd => 0,
            Rule::Momentum {
                momentum,
                nesterov: n,
            } => {
                (mu, nesterov) = (momentum, n);
                1
            }
            Rule::Adam {
                beta1: b1,
                beta2: b2,
                epsilon: e,
                ..
            } => {
                (beta1, beta2, epsilon) = (b1, b2, e);
                2
            }
            Rule::RmsProp {
                rho,
                momentum,
                epsilon: e,
                centered: c,
            } => {
                (beta2, mu, epsilon, centered) = (rho, momentum, e, c);
                3
            }
            Rule::Adagrad { epsilon: e } => {
                epsilon = e;
                4
            }
            Rule::Lion {
                beta1: b1,
                beta2: b2,
            } => {
                (beta1, beta2) = (b1, b2);
                5
            }
        };
        kernel
            .set("RULE", rule as u32)
            .set("WEIGHT_DECAY", self.weight_decay)
            .set("DECOUPLED", self.decoupled())
            .set("MU", mu)
            .set("NESTEROV", nesterov)
            .set("CENTERED", centered)
            .set("BETA1", beta1)
            .set("BETA2", beta2)
            .set("ONE_MINUS_BETA1", 1.0 - beta1)
            .set("ONE_MINUS_BETA2", 1.0 - beta2)
            .set("EPSILON", epsilon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoupled_decay_moves_parameters_apart_from_the_gradient() {
        let step = Step {
            learning_rate: 0.1,
            correction1: 1.0,
            correction2: 1.0,
            ..Step::default()
        };
        for optimizer in [Optimizer::adamw(), Optimizer::lion()] {
            let optimizer = optimizer.with_weight_decay(0.5);
            let mut state = [0.0; 3];
            let p = optimizer.step(2.0, 0.0, &mut state, &step);
            assert_eq!(p, 2.0 - 0.1 * 0.5 * 2.0, "{optimizer:?}");
            assert_eq!(state, [0.0; 3], "{optimizer:?}");
        }
    }
}
