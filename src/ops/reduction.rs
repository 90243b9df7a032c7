//! What the losses share: how they are reduced, and how their saved derivative becomes
//! a gradient.

use super::scale::Scale;
use super::{Builder, Op, Value};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, ShaderFile};
use crate::shader;

const SUM: ShaderFile = shader!("reduction/sum.wgsl");
const WORKGROUP: usize = 64;

/// How the losses of the samples become the loss of the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Not at all: one loss for each sample.
    None,
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

/// The dispatch that adds `len` partial sums, in a fixed order, into one number.
pub(crate) fn sum_partials(partial: Arg, total: Arg, len: usize) -> Dispatch {
    let kernel = Kernel::new(SUM).set("WORKGROUP", WORKGROUP).set("LEN", len);
    let bindings = vec![("partials", partial), ("total", total)];
    Dispatch::grid(kernel, bindings, [1, 1, 1])
}

/// The gradient of a loss op whose output 0 is the loss and whose output 1 is the loss's
/// derivative: the latter, times what comes from above.
///
/// # Errors
/// If the derivative itself reaches a loss: there is no second derivative.
pub(crate) fn saved_gradient(
    op: &dyn Op,
    builder: &mut dyn Builder,
    derivative: Value,
    upstream: &[Option<Value>],
) -> Result<Option<Value>> {
    if upstream[1].is_some() {
        return Err(Error::shape(
            op.name(),
            "has no second derivative; only its loss, output 0, can be differentiated",
        ));
    }
    match upstream[0] {
        None => Ok(None),
        Some(dy) if builder.is_one(dy) => Ok(Some(derivative)),
        Some(dy) => Ok(Some(builder.add1(Box::new(Scale), &[derivative, dy])?)),
    }
}
