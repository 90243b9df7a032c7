//! From the bytes of a data set to a batch: shuffle, gather, normalise, on the device.

mod shuffle;

pub use shuffle::Shuffle;

use super::{
    Array, Draw, Entry, Fill, LaunchContext, Op, Reference, Sample, Step, Tolerance, expect_inputs,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::{DType, TensorType};

const IMAGES: ShaderFile = shader!("batch/images.wgsl");
const LABELS: ShaderFile = shader!("batch/labels.wgsl");
const WORKGROUP: usize = 64;

/// Buffers one kernel gathers from: what WebGPU's eight storage bindings leave room for.
pub const MAX_SHARDS: usize = 4;

/// The ops of this folder.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "gather_images",
        sample: sample_images,
    },
    Entry {
        name: "gather_labels",
        sample: sample_labels,
    },
    Entry {
        name: "shuffle",
        sample: shuffle::sample,
    },
];

/// How bytes become floats: `(byte * scale - mean) / std`, mean and std by channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// Factor of every byte; 1/255 brings them into [0, 1].
    pub scale: f32,
    /// Mean of each channel after scaling; empty for zeros.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel after scaling; empty for ones.
    pub std: Vec<f32>,
}

impl Default for Normalization {
    /// Bytes to [0, 1] and no more.
    fn default() -> Self {
        Self {
            scale: 1.0 / 255.0,
            mean: Vec::new(),
            std: Vec::new(),
        }
    }
}

impl Normalization {
    /// Factor and summand of a channel: `byte * factor + summand`.
    pub fn affine(&self, channel: usize) -> (f32, f32) {
        let mean = self.mean.get(channel).copied().unwrap_or(0.0);
        let std = self.std.get(channel).copied().unwrap_or(1.0);
        (self.scale / std, -mean / std)
    }
}

/// A batch of images: inputs `order` u32 `[T]`, then one to four shards of the data set's
/// bytes u8 [S, C, H, W], all but the last with as many images; output
/// f32 [batch, C, H, W]. Image n is `order[(step.first + n) mod T]`.
#[derive(Clone, Debug, PartialEq)]
pub struct GatherImages {
    /// Images to gather.
    pub batch: usize,
    /// How bytes become floats.
    pub normalization: Normalization,
}

impl GatherImages {
    /// For the reference: the bytes of image `n` of the batch.
    pub(crate) fn source<'a>(&self, inputs: &'a [&Array], step: &Step, n: usize) -> &'a [u8] {
        let (order, shards) = (inputs[0].u(), &inputs[1..]);
        let index = order[(step.first as usize + n) % order.len()] as usize;
        let dims = shards[0].dims();
        let image: usize = dims[1..].iter().product();
        let start = index % dims[0] * image;
        &shards[index / dims[0]].b()[start..start + image]
    }
}

impl Op for GatherImages {
    fn name(&self) -> &'static str {
        "gather_images"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let shards = inputs.len().saturating_sub(1);
        if !(1..=MAX_SHARDS).contains(&shards) {
            return Err(Error::shape(
                self.name(),
                format!(
                    "expected an order and 1 to {MAX_SHARDS} shards of images, found {} inputs: \
                     the data set is larger than {MAX_SHARDS} of the device's bindings",
                    inputs.len()
                ),
            ));
        }
        let [_, c, h, w] = inputs[1].shape.nchw(self.name())?;
        let fits = |t: &TensorType| t.dtype == DType::U8 && t.shape.dims()[1..] == [c, h, w];
        if inputs[0].dtype != DType::U32 || !inputs[1..].iter().all(fits) || c > 4 {
            return Err(Error::shape(
                self.name(),
                format!("expected a u32 order and u8 images of up to 4 channels, found {inputs:?}"),
            ));
        }
        let Normalization { mean, std, .. } = &self.normalization;
        for (statistic, name) in [(mean, "mean"), (std, "std")] {
            if !statistic.is_empty() && statistic.len() != c {
                let problem = format!("{name}: expected none or {c}, found {}", statistic.len());
                return Err(Error::shape(self.name(), problem));
            }
        }
        Ok(vec![TensorType::f32([self.batch, c, h, w])])
    }

    fn reference(&self, io: Reference<'_>) {
        let [_, c, h, w] = io.outputs[0]
            .ty()
            .shape
            .nchw(self.name())
            .expect("inferred");
        let images = io.outputs[0].f_mut().chunks_exact_mut(c * h * w);
        for (n, image) in images.enumerate() {
            let source = self.source(io.inputs, io.step, n);
            for (pixel, (y, byte)) in image.iter_mut().zip(source).enumerate() {
                let (factor, summand) = self.normalization.affine(pixel / (h * w));
                *y = f64::from(*byte) * f64::from(factor) + f64::from(summand);
            }
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let [_, c, h, w] = context.inputs[1].shape.nchw(self.name())?;
        let mut scale = [1.0; 4];
        let mut shift = [0.0; 4];
        for channel in 0..c {
            (scale[channel], shift[channel]) = self.normalization.affine(channel);
        }
        let kernel = Kernel::new(IMAGES)
            .sparse("order")
            .sparse("shard0")
            .sparse("shard1")
            .sparse("shard2")
            .sparse("shard3")
            .set("LENGTH", context.inputs[0].shape.len())
            .set("BATCH", self.batch)
            .set("CHANNELS", c)
            .set("PLANE", h * w)
            .set("SHARD", context.inputs[1].shape[0])
            .set("SCALE", scale)
            .set("SHIFT", shift)
            .set("WORKGROUP", WORKGROUP);
        // Shards that do not exist are bound to the first and never reached.
        let shard = |i: usize| {
            Arg::Input(if i + 1 < context.inputs.len() {
                i + 1
            } else {
                1
            })
        };
        let bindings = vec![
            ("order", Arg::Input(0)),
            ("shard0", shard(0)),
            ("shard1", shard(1)),
            ("shard2", shard(2)),
            ("shard3", shard(3)),
            ("y", Arg::Output(0)),
            ("step", Arg::Step),
        ];
        let vec4s = (self.batch * c * h * w).div_ceil(4);
        Ok(Dispatch::linear(kernel, bindings, vec4s.div_ceil(WORKGROUP)).into())
    }
}

/// The labels of a batch: inputs `order` u32 `[T]`, `labels` u32 `[T]`; output u32 `[batch]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GatherLabels {
    /// Labels to gather.
    pub batch: usize,
}

impl Op for GatherLabels {
    fn name(&self) -> &'static str {
        "gather_labels"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2)?;
        if inputs[0] != inputs[1] || inputs[0].dtype != DType::U32 {
            return Err(Error::shape(
                self.name(),
                format!("expected order and labels of one length, found {inputs:?}"),
            ));
        }
        Ok(vec![TensorType::u32([self.batch])])
    }

    fn reference(&self, io: Reference<'_>) {
        let (order, labels) = (io.inputs[0].u(), io.inputs[1].u());
        for (n, y) in io.outputs[0].u_mut().iter_mut().enumerate() {
            *y = labels[order[(io.step.first as usize + n) % order.len()] as usize];
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let kernel = Kernel::new(LABELS)
            .sparse("order")
            .sparse("labels")
            .set("LENGTH", context.inputs[0].shape.len())
            .set("BATCH", self.batch)
            .set("WORKGROUP", WORKGROUP);
        let bindings = vec![
            ("order", Arg::Input(0)),
            ("labels", Arg::Input(1)),
            ("y", Arg::Output(0)),
            ("step", Arg::Step),
        ];
        Ok(Dispatch::linear(kernel, bindings, self.batch.div_ceil(WORKGROUP)).into())
    }
}

fn sample_images(draw: &mut Draw) -> Sample {
    let [c, h, w] = [draw.int(1, 4), draw.int(1, 6), draw.int(1, 6)];
    let shards = draw.int(1, MAX_SHARDS);
    let shard = 4 * draw.int(1, 3);
    let last = draw.int(1, shard);
    let total = (shards - 1) * shard + last;
    let op = GatherImages {
        batch: draw.int(1, 9),
        normalization: Normalization {
            scale: 1.0 / 255.0,
            mean: (0..c).map(|_| draw.float(0.2, 0.8) as f32).collect(),
            std: (0..c).map(|_| draw.float(0.2, 0.8) as f32).collect(),
        },
    };
    let order = TensorType::u32([draw.int(1, 2 * total)]);
    let mut inputs = vec![(order, Fill::Below(total as u32))];
    for i in 0..shards {
        let images = if i + 1 == shards { last } else { shard };
        inputs.push((TensorType::u8([images, c, h, w]), Fill::Bytes));
    }
    // One product and one sum of at most 255 / 255 / 0.2 + 0.8 / 0.2.
    let mut sample = Sample::new(op, inputs, Tolerance::sum(2, 9.0)).without_gradient();
    sample.step.first = draw.int(0, 9) as u32;
    sample
}

fn sample_labels(draw: &mut Draw) -> Sample {
    let length = draw.int(1, 90);
    let ty = TensorType::u32([length]);
    let op = GatherLabels {
        batch: draw.int(1, 99),
    };
    let inputs = vec![
        (ty.clone(), Fill::Below(length as u32)),
        (ty, Fill::Below(10)),
    ];
    let mut sample = Sample::new(op, inputs, Tolerance::EXACT).without_gradient();
    sample.step.first = draw.int(0, 50) as u32;
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_std_are_stated_for_every_channel_or_none() {
        let inputs = [TensorType::u32([4]), TensorType::u8([4, 3, 2, 2])];
        for (mean, std, problem) in [
            (0, 0, None),
            (3, 3, None),
            (1, 3, Some("mean: expected none or 3, found 1")),
            (3, 4, Some("std: expected none or 3, found 4")),
        ] {
            let op = GatherImages {
                batch: 2,
                normalization: Normalization {
                    mean: vec![0.5; mean],
                    std: vec![0.5; std],
                    ..Normalization::default()
                },
            };
            let found = op.infer(&inputs).err().map(|e| e.to_string());
            assert_eq!(found, problem.map(|p| format!("gather_images: {p}")));
        }
    }
}
