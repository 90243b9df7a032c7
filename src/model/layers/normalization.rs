//! Activation, batch normalisation, dropout.

use super::single;
use crate::error::Result;
use crate::model::layer::{Lower, Lowering};
use crate::model::{Init, Mode, values};
use crate::ops::activation::Function;
use crate::ops::{Value, batch_norm, dropout};
use serde::{Deserialize, Serialize};

/// An activation on its own; any shape.
///
/// Functions: `relu`, `leaky_relu` (slope 0.3, or `leaky_relu(0.1)`), `elu` (alpha 1, or
/// `elu(0.5)`), `gelu`, `gelu_tanh`, `silu`, `sigmoid`, `tanh`, `linear`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activation {
    /// The function.
    #[serde(with = "values::function")]
    pub function: Function,
}

impl Activation {
    /// The activation with a function.
    pub fn new(function: Function) -> Self {
        Self { function }
    }
}

impl Lower for Activation {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let x = single(lowering, inputs)?;
        lowering.activation(self.function, x)
    }
}

/// Batch normalisation over each channel (Ioffe and Szegedy 2015): [N, C, H, W] to itself.
///
/// Parameters: `weight` `[C]`, ones; `bias` `[C]`, zeros. Statistics: `running_mean` `[C]`,
/// zeros; `running_var` `[C]`, ones, of the biased variance as in Keras.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNorm2d {
    /// Share of the running statistics kept at each step; 0.99.
    #[serde(default = "momentum")]
    pub momentum: f64,
    /// Added to the variance; 1e-3.
    #[serde(default = "epsilon")]
    pub epsilon: f64,
}

fn momentum() -> f64 {
    0.99
}

fn epsilon() -> f64 {
    1e-3
}

impl Default for BatchNorm2d {
    fn default() -> Self {
        Self {
            momentum: momentum(),
            epsilon: epsilon(),
        }
    }
}

impl Lower for BatchNorm2d {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let x = single(lowering, inputs)?;
        let shape = [lowering.channels(x)?];
        values::check_fraction(lowering, "momentum", self.momentum)?;
        let gamma = lowering.parameter("weight", shape, Init::Ones)?;
        let beta = lowering.parameter("bias", shape, Init::Zeros)?;
        let mean = lowering.statistic("running_mean", shape, Init::Zeros)?;
        let variance = lowering.statistic("running_var", shape, Init::Ones)?;
        if lowering.mode() == Mode::Inference || !lowering.trainable() {
            let op = batch_norm::BatchNormInference::new(self.epsilon);
            return lowering.op(op, &[x, gamma, beta, mean, variance]);
        }
        let op = batch_norm::BatchNorm2d::new(self.epsilon);
        let outputs = lowering.ops(op, &[x, gamma, beta])?;
        let update = batch_norm::UpdateRunningStats {
            momentum: self.momentum,
        };
        lowering.ops(update, &[mean, variance, outputs[1], outputs[2]])?;
        Ok(outputs[0])
    }
}

/// Dropout (Srivastava et al. 2014), any shape: in training each element is zero with
/// probability `rate`, else times 1 / (1 - rate); at inference nothing changes.
///
/// Each layer has a mask of its own at each step, drawn from the run's seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropout {
    /// Probability that an element is dropped; at least 0 and below 1.
    pub rate: f64,
}

impl Dropout {
    /// The layer that drops this share of the elements.
    pub fn new(rate: f64) -> Self {
        Self { rate }
    }
}

impl Lower for Dropout {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let x = single(lowering, inputs)?;
        values::check_fraction(lowering, "rate", self.rate)?;
        if lowering.mode() == Mode::Inference || self.rate == 0.0 {
            return Ok(x);
        }
        let (rate, key) = (self.rate, lowering.index());
        lowering.op(dropout::Dropout { rate, key }, &[x])
    }
}
