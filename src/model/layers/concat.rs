//! Joining tensors.

use crate::error::Result;
use crate::model::layer::{Lower, Lowering};
use crate::ops::{Value, concat};
use serde::{Deserialize, Serialize};

/// Its inputs side by side along the channels: `[N, C1, …]`, `[N, C2, …]`, … to
/// `[N, C1 + C2 + …, …]`. One input or more; all other extents agree.
///
/// ```
/// use gpucnn::model::{Concat, Conv2d, Dense, Flatten, Model, Pad};
///
/// let mut b = Model::builder("two-scales", [3, 32, 32]);
/// let x = b.layer(Conv2d::new(8, 3).padding(Pad::Same), &[b.input()]);
/// let y = b.layer(Conv2d::new(4, 5).padding(Pad::Same), &[b.input()]);
/// let z = b.layer(Concat {}, &[x, y]);
/// let z = b.layer(Flatten, &[z]);
/// b.layer(Dense::new(10), &[z]);
/// assert_eq!(b.build()?.summary()?.layers[2].output, [12, 32, 32]);
/// # Ok::<(), gpucnn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concat {}

impl Lower for Concat {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        lowering.op(concat::Concat { axis: 1 }, inputs)
    }
}
