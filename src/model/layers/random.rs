//! Layers that leave something out at random, in training only.

use super::single;
use crate::error::Result;
use crate::model::layer::{Lower, Lowering};
use crate::model::{Mode, values};
use crate::ops::Value;
use crate::ops::dropout::{self, Per};
use serde::{Deserialize, Serialize};

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
        dropped(lowering, inputs, Per::Element, self.rate)
    }
}

/// Stochastic depth (Huang et al. 2016): in training each image of the batch is all zeros with
/// probability `rate`, else times 1 / (1 - rate); at inference nothing changes. Any shape
/// [N, ..]. It stands at the end of a residual branch, before the `add`.
///
/// Each layer chooses for itself at each step, by the run's seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropPath {
    /// Probability that an image is dropped; at least 0 and below 1.
    pub rate: f64,
}

impl DropPath {
    /// The layer that drops this share of the images.
    pub fn new(rate: f64) -> Self {
        Self { rate }
    }
}

impl Lower for DropPath {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        dropped(lowering, inputs, Per::Image, self.rate)
    }
}

fn dropped(lowering: &mut Lowering<'_>, inputs: &[Value], per: Per, rate: f64) -> Result<Value> {
    let x = single(lowering, inputs)?;
    values::check_fraction(lowering, "rate", rate)?;
    if lowering.mode() == Mode::Inference || rate == 0.0 {
        return Ok(x);
    }
    let key = lowering.index();
    lowering.op(dropout::Dropout { per, rate, key }, &[x])
}
