//! Batch normalisation over the channels of images (Ioffe and Szegedy 2015).

mod backward;
mod forward;
mod running;
mod slices;

pub use backward::{BatchNorm2dGrad, BatchNormInferenceGrad};
pub use forward::{BatchNorm2d, BatchNormInference};
pub use running::UpdateRunningStats;

use super::activation::{FUNCTIONS, Function};
use super::{Draw, Entry, Op, expect_inputs, expect_type};
use crate::error::{Error, Result};
use crate::gpu::kernel::Kernel;
use crate::gpu::profile::ProfileKind;
use crate::tensor::TensorType;

const WORKGROUP: usize = 64;

/// The ops of this folder.
pub const ENTRIES: &[Entry] = &[
    forward::TRAINING,
    forward::INFERENCE,
    backward::TRAINING,
    backward::INFERENCE,
    running::ENTRY,
];

/// Images as batch normalisation sees them.
#[derive(Clone, Copy, Debug)]
struct Images {
    n: usize,
    channels: usize,
    /// H * W.
    area: usize,
}

impl Images {
    fn of(op: &dyn Op, x: &TensorType) -> Result<Self> {
        let [n, channels, h, w] = x.shape.nchw(op.name())?;
        expect_type(op, "x", &TensorType::f32([n, channels, h, w]), x)?;
        if x.shape.is_empty() {
            return Err(Error::shape(
                op.name(),
                format!("expected at least one element a channel, found x of {x}"),
            ));
        }
        Ok(Self {
            n,
            channels,
            area: h * w,
        })
    }

    fn len(&self) -> usize {
        self.n * self.channels * self.area
    }

    /// Elements of a channel.
    fn count(&self) -> usize {
        self.n * self.area
    }

    /// The type of one value a channel.
    fn per_channel(&self) -> TensorType {
        TensorType::f32([self.channels])
    }

    /// The channel an element belongs to.
    fn channel(&self, element: usize) -> usize {
        element / self.area % self.channels
    }

    /// For each channel the sum of `term(element)` over its elements.
    fn sums(&self, term: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut sums = vec![0.0; self.channels];
        for element in 0..self.len() {
            sums[self.channel(element)] += term(element);
        }
        sums
    }

    /// Consecutive vec4s one invocation of an elementwise kernel takes: on software
    /// adapters up to eight of one plane, so that the channel's parameters are loaded
    /// once for them; on GPUs one, for coalesced access.
    fn run(&self, kind: ProfileKind) -> usize {
        let whole = self.area.is_multiple_of(4);
        (1..=8)
            .rev()
            .find(|run| whole && (self.area / 4).is_multiple_of(*run))
            .filter(|_| kind == ProfileKind::CpuLike)
            .unwrap_or(1)
    }

    /// Shapes from one element up to several slices a channel.
    fn draw(draw: &mut Draw) -> Self {
        match draw.int(0, 3) {
            0 => Self {
                n: draw.int(1, 2),
                channels: draw.int(1, 2),
                area: draw.int(60, 90) * draw.int(60, 90),
            },
            1 => Self {
                n: draw.int(33, 70),
                channels: draw.int(1, 3),
                area: draw.int(9, 15) * draw.int(9, 15),
            },
            _ => Self {
                n: draw.int(1, 4),
                channels: draw.int(1, 7),
                area: draw.int(1, 5) * draw.int(1, 6),
            },
        }
    }

    fn ty(&self) -> TensorType {
        TensorType::f32([self.n, self.channels, self.area, 1])
    }
}

/// Checks that input `index` holds one value a channel.
fn expect_channel(
    op: &dyn Op,
    operand: &str,
    images: &Images,
    inputs: &[TensorType],
    index: usize,
) -> Result<()> {
    expect_type(op, operand, &images.per_channel(), &inputs[index])
}

/// Checks `x` and the four per-channel inputs behind it.
fn expect_norm_inputs(op: &dyn Op, inputs: &[TensorType], names: &[&str]) -> Result<Images> {
    expect_inputs(op, inputs, 1 + names.len())?;
    let images = Images::of(op, &inputs[0])?;
    for (i, name) in names.iter().enumerate() {
        expect_channel(op, name, &images, inputs, 1 + i)?;
    }
    Ok(images)
}

/// Hooks an activation's slope into a backward kernel.
fn hook_slope(kernel: Kernel, activation: Option<Function>) -> Kernel {
    match activation {
        None => kernel,
        Some(function) => kernel
            .hook("slope", FUNCTIONS, function.shader_slope_name())
            .set("ALPHA", function.alpha()),
    }
}
