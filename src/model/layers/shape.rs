//! Layers that change the shape only.

use super::single;
use crate::error::Result;
use crate::model::layer::{Lower, Lowering};
use crate::ops::{Value, reshape};
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
