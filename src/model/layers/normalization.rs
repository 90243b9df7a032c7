//! Activation and normalisation.

use super::single;
use crate::error::Result;
use crate::model::layer::{Lower, Lowering};
use crate::model::{Init, Mode, values};
use crate::ops::activation::Function;
use crate::ops::binary::{Binary, BinaryOp};
use crate::ops::reshape::Reshape;
use crate::ops::{Value, batch_norm, layer_norm};
use crate::tensor::Shape;
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

/// Layer normalisation over the channels of each place (Ba et al. 2016): [N, C, ..] to itself.
/// The norm of ConvNeXt (Liu et al. 2022).
///
/// Parameters: `weight` `[C]`, ones; `bias` `[C]`, zeros.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerNorm2d {
    /// Added to the variance; 1e-3.
    #[serde(default = "epsilon")]
    pub epsilon: f64,
}

impl Default for LayerNorm2d {
    fn default() -> Self {
        Self { epsilon: epsilon() }
    }
}

impl Lower for LayerNorm2d {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let x = single(lowering, inputs)?;
        let shape = [channels(lowering, x)?];
        let gamma = lowering.parameter("weight", shape, Init::Ones)?;
        let beta = lowering.parameter("bias", shape, Init::Zeros)?;
        let op = layer_norm::LayerNorm2d {
            epsilon: self.epsilon,
        };
        lowering.op(op, &[x, gamma, beta])
    }
}

/// A factor for each channel that is learned (Touvron et al. 2021, "Going deeper with Image
/// Transformers"): [N, C, ..] to itself. It ends a residual branch, and begins so small that
/// the branch hardly counts.
///
/// Parameter: `weight` `[C]`, all `initial`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerScale {
    /// What the factors begin as; 1e-6.
    #[serde(default = "tiny")]
    pub initial: f64,
}

fn tiny() -> f64 {
    1e-6
}

impl Default for LayerScale {
    fn default() -> Self {
        Self { initial: tiny() }
    }
}

impl Lower for LayerScale {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let x = single(lowering, inputs)?;
        let channels = channels(lowering, x)?;
        if !(self.initial as f32).is_finite() {
            let problem = format!("initial: expected a finite number, found {}", self.initial);
            return Err(lowering.error(problem));
        }
        let initial = Init::Constant(self.initial);
        let factors = lowering.parameter("weight", [channels], initial)?;
        // Broadcast from the last axis on.
        let mut extents = vec![1; lowering.shape(x).rank() - 1];
        extents[0] = channels;
        let shape = Shape::from(&extents[..]);
        let factors = lowering.op(Reshape { shape }, &[factors])?;
        lowering.op(Binary(BinaryOp::Mul), &[x, factors])
    }
}

/// The channels of [N, C, ..].
fn channels(lowering: &Lowering<'_>, x: Value) -> Result<usize> {
    match lowering.shape(x).dims() {
        [_, channels, ..] => Ok(*channels),
        dims => {
            let problem = format!("expected an input [N, C, ..], found {dims:?}");
            Err(lowering.error(problem))
        }
    }
}
