//! The kinds of layers. Each is a small value with Keras's defaults; its fields are the
//! attributes of the model file.

mod concat;
mod convolution;
mod merge;
mod normalization;
mod pooling;
mod random;
mod shape;

pub use concat::Concat;
pub use convolution::{Conv2d, Dense, DepthwiseConv2d};
pub use merge::{Add, Mul};
pub use normalization::{Activation, BatchNorm2d, LayerNorm2d, LayerScale};
pub use pooling::{AvgPool2d, GlobalAvgPool, GlobalMaxPool, MaxPool2d};
pub use random::{DropPath, Dropout};
pub use shape::{Flatten, Reshape, ZeroPad2d};

use super::layer::Lowering;
use crate::error::Result;
use crate::ops::Value;

/// The setters of a layer's attributes, for chains as `Conv2d::new(32, 3).stride(2)`.
macro_rules! setters {
    ($($field:ident: $ty:ty;)*) => {
        $(
            #[doc = concat!("The same layer with another `", stringify!($field), "`.")]
            #[must_use]
            pub fn $field(mut self, $field: impl Into<$ty>) -> Self {
                self.$field = $field.into();
                self
            }
        )*
    };
}
use setters;

/// Serde default of flags that are on unless switched off.
fn yes() -> bool {
    true
}

/// The only input of a layer.
fn single(lowering: &Lowering<'_>, inputs: &[Value]) -> Result<Value> {
    match inputs {
        [input] => Ok(*input),
        _ => Err(lowering.error(format!("expected 1 input, found {}", inputs.len()))),
    }
}
