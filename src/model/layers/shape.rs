//! Layers that change the shape and compute nothing.

use super::single;
use crate::error::Result;
use crate::model::layer::{Lower, Lowering};
use crate::model::values;
use crate::ops::{Pads, Value, pad, reshape};
use serde::{Deserialize, Serialize};

/// [N, C, H, W] to [N, C·H·W].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Empty", into = "Empty")]
pub struct Flatten;

/// No attributes: what an empty table reads as.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

impl From<Empty> for Flatten {
    fn from(_: Empty) -> Self {
        Self
    }
}

impl From<Flatten> for Empty {
    fn from(_: Flatten) -> Self {
        Self {}
    }
}

impl Lower for Flatten {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let x = single(lowering, inputs)?;
        let op = reshape::Reshape::flatten(&lowering.shape(x));
        lowering.op(op, &[x])
    }
}

/// The same elements under another shape: [N, …] to [N, shape…].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reshape {
    /// The shape of one sample.
    pub shape: Vec<usize>,
}

impl Lower for Reshape {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let x = single(lowering, inputs)?;
        let batch = lowering.shape(x)[0];
        let dims: Vec<usize> = std::iter::once(batch).chain(self.shape.clone()).collect();
        let shape = dims.as_slice().into();
        lowering.op(reshape::Reshape { shape }, &[x])
    }
}

/// Zeros around images: [N, C, H, W] to [N, C, top + H + bottom, left + W + right].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZeroPad2d {
    /// Rows and columns of zeros; 1 on each side. In model files a number for all sides,
    /// or `[top, bottom, left, right]`.
    #[serde(default = "one_each", with = "values::pads")]
    pub padding: Pads,
}

fn one_each() -> Pads {
    Pads::uniform(1)
}

impl Default for ZeroPad2d {
    fn default() -> Self {
        Self {
            padding: one_each(),
        }
    }
}

impl Lower for ZeroPad2d {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let x = single(lowering, inputs)?;
        lowering.channels(x)?;
        lowering.op(pad::Pad::images(self.padding), &[x])
    }
}
