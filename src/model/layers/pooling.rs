//! Pooling layers.

use super::{setters, single};
use crate::error::Result;
use crate::model::layer::{Lower, Lowering};
use crate::model::values::{Pad, Pair};
use crate::ops::{Value, Window, pool2d};
use serde::{Deserialize, Serialize};

/// Maximum over windows: [N, C, H, W] to [N, C, oH, oW]. Padding never wins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaxPool2d {
    /// Rows and columns of the window.
    pub size: Pair,
    /// Step between windows; the size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<Pair>,
    /// Padding; `valid`.
    #[serde(default)]
    pub padding: Pad,
}

impl MaxPool2d {
    /// Windows of `size` side by side.
    pub fn new(size: impl Into<Pair>) -> Self {
        Self {
            size: size.into(),
            stride: None,
            padding: Pad::Valid,
        }
    }

    /// The same layer with another `stride`.
    #[must_use]
    pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
        self.stride = Some(stride.into());
        self
    }

    setters! {
        padding: Pad;
    }
}

impl Lower for MaxPool2d {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let x = single(lowering, inputs)?;
        let window = window(lowering, x, self.size, self.stride, self.padding)?;
        lowering.op(pool2d::MaxPool2d::new(window), &[x])
    }
}

/// Mean over windows: [N, C, H, W] to [N, C, oH, oW]. Padding does not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AvgPool2d {
    /// Rows and columns of the window.
    pub size: Pair,
    /// Step between windows; the size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<Pair>,
    /// Padding; `valid`.
    #[serde(default)]
    pub padding: Pad,
}

impl AvgPool2d {
    /// Windows of `size` side by side.
    pub fn new(size: impl Into<Pair>) -> Self {
        Self {
            size: size.into(),
            stride: None,
            padding: Pad::Valid,
        }
    }

    /// The same layer with another `stride`.
    #[must_use]
    pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
        self.stride = Some(stride.into());
        self
    }

    setters! {
        padding: Pad;
    }
}

impl Lower for AvgPool2d {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let x = single(lowering, inputs)?;
        let window = window(lowering, x, self.size, self.stride, self.padding)?;
        let count_include_pad = false;
        lowering.op(
            pool2d::AvgPool2d {
                window,
                count_include_pad,
            },
            &[x],
        )
    }
}

fn window(
    lowering: &Lowering<'_>,
    x: Value,
    size: Pair,
    stride: Option<Pair>,
    padding: Pad,
) -> Result<Window> {
    lowering.channels(x)?;
    let image = [lowering.shape(x)[2], lowering.shape(x)[3]];
    Ok(padding.window(size, stride.unwrap_or(size), Pair::default(), image))
}

/// Mean of each channel: [N, C, H, W] to [N, C], as in Keras.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalAvgPool {}

impl Lower for GlobalAvgPool {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let x = single(lowering, inputs)?;
        let y = lowering.op(pool2d::GlobalAvgPool, &[x])?;
        let flat = crate::ops::reshape::Reshape::flatten(&lowering.shape(y));
        lowering.op(flat, &[y])
    }
}

/// Maximum of each channel: [N, C, H, W] to [N, C], as in Keras.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalMaxPool {}

impl Lower for GlobalMaxPool {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let x = single(lowering, inputs)?;
        lowering.channels(x)?;
        let shape = lowering.shape(x);
        let window = Window::new([shape[2], shape[3]]);
        let y = lowering.op(pool2d::MaxPool2d::new(window), &[x])?;
        let flat = crate::ops::reshape::Reshape::flatten(&lowering.shape(y));
        lowering.op(flat, &[y])
    }
}
