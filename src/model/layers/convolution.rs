//! Layers with kernels: convolutions and the dense layer.

use super::{setters, single, yes};
use crate::error::Result;
use crate::model::layer::{Lower, Lowering};
use crate::model::values::{self, Pad, Pair};
use crate::model::{Init, KernelInit};
use crate::ops::activation::Function;
use crate::ops::bias::BiasAdd;
use crate::ops::{Value, conv2d, matmul};
use serde::{Deserialize, Serialize};

/// 2-D convolution: [N, C, H, W] to [N, filters, oH, oW].
///
/// Parameters: `weight` `[filters, C / groups, kH, kW]`, as [`init`](Self::init) says; `bias`
/// `[filters]`, zeros.
///
/// ```
/// use gpucnn::model::{Conv2d, Pad};
/// use gpucnn::ops::activation::Function;
///
/// let layer = Conv2d::new(64, 3).stride(2).padding(Pad::Same).activation(Function::Relu);
/// assert_eq!(layer.filters, 64);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    /// Output channels.
    pub filters: usize,
    /// Rows and columns of the kernel.
    pub kernel: Pair,
    /// Step between windows; 1.
    #[serde(default)]
    pub stride: Pair,
    /// Padding; `valid`.
    #[serde(default)]
    pub padding: Pad,
    /// Step between taps; 1.
    #[serde(default)]
    pub dilation: Pair,
    /// Independent groups of channels; 1.
    #[serde(default = "one")]
    pub groups: usize,
    /// Whether a bias is added; true.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Applied to the result; none.
    #[serde(default, with = "values::function")]
    pub activation: Function,
    /// How the weights start: `glorot_uniform` (the default), `zeros`, `dirac` or `whiten`.
    #[serde(default)]
    pub init: KernelInit,
}

fn one() -> usize {
    1
}

impl Conv2d {
    /// A convolution with `filters` outputs and a kernel of `kernel` taps (a number, or
    /// `[rows, columns]`); stride 1, no padding, with bias, no activation.
    pub fn new(filters: usize, kernel: impl Into<Pair>) -> Self {
        Self {
            filters,
            kernel: kernel.into(),
            stride: Pair::default(),
            padding: Pad::Valid,
            dilation: Pair::default(),
            groups: 1,
            bias: true,
            activation: Function::Identity,
            init: KernelInit::GlorotUniform,
        }
    }

    setters! {
        stride: Pair;
        padding: Pad;
        dilation: Pair;
        groups: usize;
        bias: bool;
        activation: Function;
        init: KernelInit;
    }

    /// Changes the number of filters. Whitening goes with one number only and is given up.
    pub(crate) fn set_filters(&mut self, filters: usize) {
        if filters != self.filters && self.init == KernelInit::Whiten {
            self.init = KernelInit::GlorotUniform;
        }
        self.filters = filters;
    }

    /// How the weights start, over an image of so many channels, rows and columns.
    fn initial(&self, lowering: &Lowering<'_>, image: [usize; 3]) -> Result<Init> {
        let ([kh, kw], channels) = (self.kernel.0, image[0] / self.groups);
        let fan_in = (channels * kh).saturating_mul(kw);
        let fan_out = (self.filters * kh).saturating_mul(kw);
        let uniform = Init::GlorotUniform { fan_in, fan_out };
        let problem = match self.init {
            KernelInit::GlorotUniform => return Ok(uniform),
            KernelInit::Zeros => return Ok(Init::Zeros),
            KernelInit::Dirac if self.groups == 1 => return Ok(Init::Dirac { fan_in, fan_out }),
            KernelInit::Dirac => format!("init dirac is for one group, found {}", self.groups),
            KernelInit::Whiten => {
                let spans = [0, 1].map(|axis| {
                    let taps = self.kernel.0[axis].saturating_sub(1);
                    taps.saturating_mul(self.dilation.0[axis])
                });
                let inside = spans[0] < image[1] && spans[1] < image[2];
                if inside && self.groups == 1 && self.filters == fan_in.saturating_mul(2) {
                    return Ok(uniform);
                }
                format!(
                    "init whiten is for one group, a kernel that fits into the image and two \
                     filters for each number of a patch, {} here; found {} groups, a kernel of \
                     {kh} x {kw} on an image of {} x {}, and {} filters",
                    fan_in.saturating_mul(2),
                    self.groups,
                    image[1],
                    image[2],
                    self.filters
                )
            }
        };
        Err(lowering.error(problem))
    }
}

impl Lower for Conv2d {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let x = single(lowering, inputs)?;
        let channels = lowering.channels(x)?;
        if self.filters == 0 || self.groups == 0 {
            return Err(lowering.error("filters and groups must be at least 1"));
        }
        if channels % self.groups != 0 {
            return Err(lowering.error(format!(
                "{channels} input channels do not divide into {} groups",
                self.groups
            )));
        }
        let [kh, kw] = self.kernel.0;
        let image = [lowering.shape(x)[2], lowering.shape(x)[3]];
        let init = self.initial(lowering, [channels, image[0], image[1]])?;
        let shape = [self.filters, channels / self.groups, kh, kw];
        let weight = lowering.parameter("weight", shape, init)?;
        let window = self
            .padding
            .window(self.kernel, self.stride, self.dilation, image);
        let op = conv2d::Conv2d::new(window, self.groups).with_bias(self.bias);
        let y = if self.bias {
            let bias = lowering.parameter("bias", [self.filters], Init::Zeros)?;
            lowering.op(op, &[x, weight, bias])?
        } else {
            lowering.op(op, &[x, weight])?
        };
        lowering.activation(self.activation, y)
    }
}

/// Depthwise convolution: each channel has a kernel of its own; [N, C, H, W] to
/// [N, C, oH, oW].
///
/// Parameters: `weight` `[C, 1, kH, kW]`, Glorot uniform; `bias` `[C]`, zeros.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DepthwiseConv2d {
    /// Rows and columns of the kernel.
    pub kernel: Pair,
    /// Step between windows; 1.
    #[serde(default)]
    pub stride: Pair,
    /// Padding; `valid`.
    #[serde(default)]
    pub padding: Pad,
    /// Step between taps; 1.
    #[serde(default)]
    pub dilation: Pair,
    /// Whether a bias is added; true.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Applied to the result; none.
    #[serde(default, with = "values::function")]
    pub activation: Function,
}

impl DepthwiseConv2d {
    /// A depthwise convolution with a kernel of `kernel` taps; stride 1, no padding.
    pub fn new(kernel: impl Into<Pair>) -> Self {
        Self {
            kernel: kernel.into(),
            stride: Pair::default(),
            padding: Pad::Valid,
            dilation: Pair::default(),
            bias: true,
            activation: Function::Identity,
        }
    }

    setters! {
        stride: Pair;
        padding: Pad;
        dilation: Pair;
        bias: bool;
        activation: Function;
    }
}

impl Lower for DepthwiseConv2d {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let x = single(lowering, inputs)?;
        let channels = lowering.channels(x)?;
        Conv2d {
            filters: channels,
            kernel: self.kernel,
            stride: self.stride,
            padding: self.padding,
            dilation: self.dilation,
            groups: channels,
            bias: self.bias,
            activation: self.activation,
            init: KernelInit::GlorotUniform,
        }
        .lower(lowering, inputs)
    }
}

/// Dense (fully connected) layer: [N, in] to [N, units].
///
/// Parameters: `weight` `[units, in]`, as [`init`](Self::init) says; `bias` `[units]`, zeros.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dense {
    /// Outputs.
    pub units: usize,
    /// Whether a bias is added; true.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Applied to the result; none.
    #[serde(default, with = "values::function")]
    pub activation: Function,
    /// How the weights start: `glorot_uniform` (the default) or `zeros`.
    #[serde(default)]
    pub init: KernelInit,
}

impl Dense {
    /// A dense layer with `units` outputs and a bias.
    pub fn new(units: usize) -> Self {
        Self {
            units,
            bias: true,
            activation: Function::Identity,
            init: KernelInit::GlorotUniform,
        }
    }

    setters! {
        bias: bool;
        activation: Function;
        init: KernelInit;
    }
}

impl Lower for Dense {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let x = single(lowering, inputs)?;
        let shape = lowering.shape(x);
        let [_, features] = shape.dims() else {
            return Err(lowering.error(format!(
                "expected [N, features], found {shape}; put a flatten layer before it"
            )));
        };
        if self.units == 0 {
            return Err(lowering.error("units must be at least 1"));
        }
        let init = match self.init {
            KernelInit::GlorotUniform => Init::GlorotUniform {
                fan_in: *features,
                fan_out: self.units,
            },
            KernelInit::Zeros => Init::Zeros,
            KernelInit::Dirac | KernelInit::Whiten => {
                return Err(lowering.error(
                    "init of a dense layer must be glorot_uniform or zeros; dirac and whiten are \
                     for convolutions",
                ));
            }
        };
        let weight = lowering.parameter("weight", [self.units, *features], init)?;
        let y = lowering.op(matmul::MatMul::new(false, true), &[x, weight])?;
        biased(
            lowering,
            y,
            self.bias.then_some(self.units),
            self.activation,
        )
    }
}

fn biased(
    lowering: &mut Lowering<'_>,
    y: Value,
    bias: Option<usize>,
    activation: Function,
) -> Result<Value> {
    let y = match bias {
        Some(channels) => {
            let bias = lowering.parameter("bias", [channels], Init::Zeros)?;
            lowering.op(BiasAdd, &[y, bias])?
        }
        None => y,
    };
    lowering.activation(activation, y)
}
