//! Gathers a batch and changes each image by itself.

use super::choices::{Choices, ERASED, PROPORTIONS, STREAM};
use super::color::{grey_shares, jitter, mean_grey};
use super::{Augmentation, Border};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::ProfileKind;
use crate::ops::batch::{GatherImages, MAX_SHARDS, Normalization};
use crate::ops::random::PHILOX;
use crate::ops::{Draw, Fill, LaunchContext, Op, Reference, Sample, Tolerance};
use crate::shader;
use crate::tensor::TensorType;

const DRAW: ShaderFile = shader!("augment/draw.wgsl");
const GREY: ShaderFile = shader!("augment/grey.wgsl");
const IMAGES: ShaderFile = shader!("augment/images.wgsl");
const SOURCE: ShaderFile = shader!("augment/source.wgsl");
const COLOR: ShaderFile = shader!("augment/color.wgsl");
const WORKGROUP: usize = 64;
/// Bytes of what chance chose for an image.
const CHOICES: usize = 5 * 16;

/// A batch of augmented images: inputs and output as [`GatherImages`] has them. What is
/// erased is zero after normalisation; all else happens before.
#[derive(Clone, Debug, PartialEq)]
pub struct AugmentImages {
    /// The batch and its normalisation.
    pub gather: GatherImages,
    /// What may happen to each image.
    pub augmentation: Augmentation,
}

/// An image of the data set, as the reference reads it.
struct Source<'a> {
    bytes: &'a [u8],
    shape: [usize; 3],
    border: Border,
}

impl Source<'_> {
    /// The channels, from 0 to 1, of the pixel in a row and a column that may lie outside.
    fn pixel(&self, row: i64, column: i64) -> Vec<f64> {
        let [channels, height, width] = self.shape;
        let place = self.inside(row, height).zip(self.inside(column, width));
        let byte = |channel| match place {
            Some((row, column)) => self.bytes[(channel * height + row) * width + column],
            None => 0,
        };
        (0..channels).map(|c| f64::from(byte(c)) / 255.0).collect()
    }

    /// The row or column that is shown at `at`, of `extent`; `None` for black.
    fn inside(&self, at: i64, extent: usize) -> Option<usize> {
        let last = extent as i64 - 1;
        let shown = match self.border {
            Border::Zero => return usize::try_from(at).ok().filter(|at| *at < extent),
            Border::Edge => at.clamp(0, last),
            Border::Reflect if last == 0 => 0,
            Border::Reflect => {
                let within = at.rem_euclid(2 * last);
                within.min(2 * last - within)
            }
        };
        Some(shown as usize)
    }

    /// The colour between pixels, bilinear.
    fn between(&self, row: f64, column: f64) -> Vec<f64> {
        let (top, left) = (row.floor(), column.floor());
        let (down, right) = (row - top, column - left);
        let mut sum = vec![0.0; self.shape[0]];
        for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let share = [1.0 - down, down][y] * [1.0 - right, right][x];
            let pixel = self.pixel(top as i64 + y as i64, left as i64 + x as i64);
            sum.iter_mut().zip(pixel).for_each(|(s, v)| *s += share * v);
        }
        sum
    }

    fn mean_grey(&self, brightness: f64) -> f64 {
        let [_, height, width] = self.shape;
        let places = (0..height * width).map(|p| (p / width, p % width));
        let pixels = places.map(|(row, column)| self.pixel(row as i64, column as i64));
        mean_grey(pixels, brightness)
    }
}

impl AugmentImages {
    /// One pixel of the output, normalised.
    fn shown(&self, source: &Source<'_>, choices: &Choices, grey: f64, at: [usize; 2]) -> Vec<f64> {
        let [row, column] = at;
        let channels = source.shape[0];
        if choices.cutout.holds(row, column) || choices.erased.holds(row, column) {
            return vec![0.0; channels];
        }
        let coordinate = |by: [f64; 3]| by[0] * row as f64 + by[1] * column as f64 + by[2];
        let mut pixel = source.between(coordinate(choices.rows), coordinate(choices.columns));
        jitter(&mut pixel, &self.augmentation, choices, grey);
        for (channel, v) in pixel.iter_mut().enumerate() {
            let (factor, summand) = self.gather.normalization.affine(channel);
            *v = *v * 255.0 * f64::from(factor) + f64::from(summand);
        }
        pixel
    }

    fn draw(&self, [height, width]: [usize; 2]) -> Dispatch {
        let a = &self.augmentation;
        let batch = self.gather.batch;
        let kernel = Kernel::new(DRAW)
            .hook("random", PHILOX, "philox4x32")
            .set("WORKGROUP", WORKGROUP)
            .set("BATCH", batch)
            .set("HEIGHT", height)
            .set("WIDTH", width)
            .set("STREAM", STREAM)
            .set("FLIP", a.flip)
            .set("FLIP_VERTICAL", a.flip_vertical)
            .set("CROP", a.crop)
            .set("AFFINE", a.resamples())
            .set("ROTATE", a.rotate.to_radians())
            .set("ZOOM", a.zoom)
            .set("SHIFT", a.shift)
            .set("BRIGHTNESS", a.brightness)
            .set("CONTRAST", a.contrast)
            .set("SATURATION", a.saturation)
            .set("HUE", a.hue)
            .set("CUTOUT", a.cutout)
            .set("ERASE", a.erase)
            .set("LEAST_ERASED", ERASED[0])
            .set("MOST_ERASED", ERASED[1])
            .set("LEAST_PROPORTION", PROPORTIONS[0].ln())
            .set("MOST_PROPORTION", PROPORTIONS[1].ln());
        let bindings = vec![("choices", Arg::Scratch(0)), ("step", Arg::Step)];
        Dispatch::linear(kernel, bindings, batch.div_ceil(WORKGROUP))
    }

    /// A kernel that reads the data set, and its bindings for that.
    fn reading(
        &self,
        file: ShaderFile,
        context: LaunchContext<'_>,
    ) -> Result<(Kernel, Vec<(&'static str, Arg)>)> {
        let [_, channels, height, width] = context.inputs[1].shape.nchw(self.name())?;
        let kernel = Kernel::new(file)
            .sparse("order")
            .sparse("shard0")
            .sparse("shard1")
            .sparse("shard2")
            .sparse("shard3")
            .hook("image_at", SOURCE, "source_image")
            .hook("byte_of", SOURCE, "source_byte")
            .set("LENGTH", context.inputs[0].shape.len())
            .set("SHARDS", context.inputs.len() - 1)
            .set("SHARD", context.inputs[1].shape[0])
            .set("IMAGE", channels * height * width)
            .set("CHANNELS", channels);
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
            ("choices", Arg::Scratch(0)),
            ("step", Arg::Step),
        ];
        Ok((kernel, bindings))
    }

    fn grey(&self, context: LaunchContext<'_>) -> Result<Dispatch> {
        let [_, channels, height, width] = context.inputs[1].shape.nchw(self.name())?;
        let (kernel, mut bindings) = self.reading(GREY, context)?;
        let kernel = kernel
            .hook("brighten", COLOR, "color_brighten")
            .hook("grey_of", COLOR, "color_grey")
            .set("GREY", grey_shares(channels).map(|share| share as f32))
            .set("WORKGROUP", WORKGROUP)
            .set("BATCH", self.gather.batch)
            .set("PLANE", height * width)
            .set("BRIGHTEN", self.augmentation.brightness != 0.0);
        bindings.push(("greys", Arg::Scratch(1)));
        Ok(Dispatch::linear(kernel, bindings, self.gather.batch))
    }

    fn images(&self, context: LaunchContext<'_>) -> Result<Dispatch> {
        let a = &self.augmentation;
        let [_, channels, height, width] = context.inputs[1].shape.nchw(self.name())?;
        let mut scale = [1.0; 4];
        let mut shift = [0.0; 4];
        for channel in 0..channels {
            (scale[channel], shift[channel]) = self.gather.normalization.affine(channel);
        }
        // Neighbouring lanes of a GPU take neighbouring pixels.
        let pixels = match context.profile.kind {
            ProfileKind::CpuLike => 4,
            ProfileKind::Gpu => 1,
        };
        let (kernel, mut bindings) = self.reading(IMAGES, context)?;
        let kernel = kernel
            .hook("jitter", COLOR, "color_jitter")
            .set("WORKGROUP", WORKGROUP)
            .set("PIXELS", pixels)
            .set("BATCH", self.gather.batch)
            .set("HEIGHT", height)
            .set("WIDTH", width)
            .set("AFFINE", a.resamples())
            .set("BORDER", a.border as u32)
            .set("ERASES", a.cutout != 0 || a.erase != 0.0)
            .set("JITTERS", a.jitters())
            .set("READS_GREYS", a.contrast != 0.0)
            .set("GREY", grey_shares(channels).map(|share| share as f32))
            .set("BRIGHTEN", a.brightness != 0.0)
            .set("CONTRAST", a.contrast != 0.0)
            .set("SATURATE", a.saturation != 0.0)
            .set("TURN_HUE", a.hue != 0.0)
            .set("SCALE", scale)
            .set("SHIFT", shift);
        let greys = if a.contrast != 0.0 { 1 } else { 0 };
        bindings.push(("greys", Arg::Scratch(greys)));
        bindings.push(("y", Arg::Output(0)));
        let invocations = self.gather.batch * (height * width).div_ceil(pixels);
        Ok(Dispatch::linear(
            kernel,
            bindings,
            invocations.div_ceil(WORKGROUP),
        ))
    }
}

impl Op for AugmentImages {
    fn name(&self) -> &'static str {
        "augment_images"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let outputs = self.gather.infer(inputs)?;
        let [_, c, h, w] = outputs[0].shape.nchw(self.name())?;
        self.augmentation.check([c, h, w])?;
        Ok(outputs)
    }

    fn reference(&self, io: Reference<'_>) {
        let ty = io.outputs[0].ty();
        let [_, c, h, w] = ty.shape.nchw(self.name()).expect("inferred");
        let images = io.outputs[0].f_mut().chunks_exact_mut(c * h * w);
        for (n, image) in images.enumerate() {
            let source = Source {
                bytes: self.gather.source(io.inputs, io.step, n),
                shape: [c, h, w],
                border: self.augmentation.border,
            };
            let choices = Choices::draw(&self.augmentation, [h, w], n, io.step);
            let grey = source.mean_grey(choices.brightness);
            for place in 0..h * w {
                let pixel = self.shown(&source, &choices, grey, [place / w, place % w]);
                for (channel, v) in pixel.into_iter().enumerate() {
                    image[channel * h * w + place] = v;
                }
            }
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let [_, _, h, w] = context.inputs[1].shape.nchw(self.name())?;
        let mut launch = Launch {
            dispatches: vec![self.draw([h, w])],
            scratch: vec![(CHOICES * self.gather.batch) as u64],
        };
        if self.augmentation.contrast != 0.0 {
            launch.dispatches.push(self.grey(context)?);
            launch.scratch.push(4 * self.gather.batch as u64);
        }
        launch.dispatches.push(self.images(context)?);
        Ok(launch)
    }
}

fn augmentation(draw: &mut Draw, channels: usize) -> Augmentation {
    let mut some = |least, most| {
        if draw.coin() {
            draw.float(least, most)
        } else {
            0.0
        }
    };
    let mut augmentation = Augmentation {
        flip: some(0.2, 0.8),
        flip_vertical: some(0.2, 0.8),
        crop: some(1.0, 5.0) as usize,
        cutout: some(1.0, 5.0) as usize,
        erase: some(0.2, 1.0),
        ..Augmentation::default()
    };
    let resamples = some(0.0, 1.0) != 0.0;
    if resamples {
        augmentation.zoom = some(0.0, 0.5);
        augmentation.rotate = some(0.0, 180.0);
        augmentation.shift = some(0.0, 0.5);
    }
    let jitters = some(0.0, 1.0) != 0.0;
    if jitters {
        augmentation.brightness = some(0.1, 1.0);
        augmentation.contrast = some(0.1, 1.0);
    }
    if jitters && channels == 3 {
        augmentation.saturation = some(0.1, 1.0);
        augmentation.hue = some(0.1, 0.5);
    }
    augmentation.border = draw.pick(&Border::ALL);
    augmentation
}

pub(super) fn sample(draw: &mut Draw) -> Sample {
    let [c, h, w] = [
        draw.pick(&[1, 2, 3, 3, 4]),
        draw.int(1, 12),
        draw.int(1, 12),
    ];
    let shards = draw.int(1, MAX_SHARDS);
    let shard = 4 * draw.int(1, 3);
    let last = draw.int(1, shard);
    let total = (shards - 1) * shard + last;
    let op = AugmentImages {
        gather: GatherImages {
            batch: draw.int(1, 9),
            normalization: Normalization {
                scale: 1.0 / 255.0,
                mean: (0..c).map(|_| draw.float(0.2, 0.8) as f32).collect(),
                std: (0..c).map(|_| draw.float(0.2, 0.8) as f32).collect(),
            },
        },
        augmentation: augmentation(draw, c),
    };
    let order = TensorType::u32([draw.int(1, 2 * total)]);
    let mut inputs = vec![(order, Fill::Below(total as u32))];
    for i in 0..shards {
        let images = if i + 1 == shards { last } else { shard };
        inputs.push((TensorType::u8([images, c, h, w]), Fill::Bytes));
    }
    let mut tolerance = Tolerance::sum(2, 9.0);
    if op.augmentation.resamples() {
        // Coordinates of at most about 40 pixels (12 enlarged twice, turned, shifted) come
        // within some 4 epsilon of their size; a pixel on, the colour differs by at most 1,
        // times 2 for either axis, times 2 for contrast and for saturation, over a
        // deviation of 0.2.
        tolerance.absolute += 4.0 * f64::from(f32::EPSILON) * 40.0 * 8.0 / 0.2;
    }
    if op.augmentation.jitters() {
        // Some dozen operations on numbers from 0 to 1, doubled twice, over 0.2.
        tolerance.absolute += 12.0 * f64::from(f32::EPSILON) * 4.0 / 0.2;
    }
    let mut sample = Sample::new(op, inputs, tolerance).without_gradient();
    sample.step.first = draw.int(0, 9) as u32;
    sample.step.number = draw.int(0, u32::MAX as usize) as u32;
    sample.step.seed = draw.int(0, u32::MAX as usize) as u32;
    sample
}
