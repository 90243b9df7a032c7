//! Mixup and CutMix: pairs of images and of labels put together.

use super::Augmentation;
use super::beta::{QUANTILES, quantiles};
use super::choices::{STREAM, pick, unit, words};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::ops::random::PHILOX;
use crate::ops::{
    Array, Draw, Fill, LaunchContext, Op, Reference, Sample, Step, Tolerance, expect_inputs,
    expect_type,
};
use crate::shader;
use crate::tensor::TensorType;

const DRAW: ShaderFile = shader!("augment/draw_pairs.wgsl");
const IMAGES: ShaderFile = shader!("augment/mix.wgsl");
const LABELS: ShaderFile = shader!("augment/mix_labels.wgsl");
const WORKGROUP: usize = 64;
/// Bytes of what chance chose for a pair.
const PAIR: usize = 2 * 16;

/// Each image of a batch mixed with the next one, the last with the first: since batches are
/// shuffled, those are random pairs.
///
/// An image's own share comes from Beta(a, a) for each image. **Mixup** (Zhang et al. 2018)
/// is the weighted sum of both images, with a = `mixup`. **CutMix** (Yun et al. 2019) puts a
/// box of the other image in, whose sides are the root of its share of this image's, cut off
/// at its edges, with a = `cutmix`. Where both are on, either happens to half of the images.
/// The labels are mixed by the shares that the images really have.
///
/// Inputs: images f32 [N, C, H, W], labels u32 `[N]`, and [`Mix::table`]'s f32 array. Outputs:
/// the images; the labels as distributions, f32 [N, classes]; and the label of the larger
/// share, u32 `[N]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// Number of classes.
    pub classes: usize,
    /// The parameter of mixup; 0 for none.
    pub mixup: f64,
    /// The parameter of CutMix; 0 for none.
    pub cutmix: f64,
}

/// What chance chose for an image and the next one.
struct Pair {
    /// The image's own share.
    own: f64,
    /// Rows and columns of the box that the other fills; `None` where they are blended.
    cut: Option<[[usize; 2]; 2]>,
}

impl Mix {
    /// What `augmentation` asks for, if anything.
    pub fn new(augmentation: &Augmentation, classes: usize) -> Option<Self> {
        let Augmentation { mixup, cutmix, .. } = *augmentation;
        (mixup != 0.0 || cutmix != 0.0).then_some(Self {
            classes,
            mixup,
            cutmix,
        })
    }

    /// The distributions that the shares are drawn from, as quantiles: first mixup's, then
    /// CutMix's.
    pub fn table(&self) -> Array {
        let of = |alpha: f64| match alpha == 0.0 {
            true => vec![1.0; QUANTILES],
            false => quantiles(alpha),
        };
        let both = [of(self.mixup), of(self.cutmix)].concat();
        // Both paths start from the same bits.
        let both = both.into_iter().map(|q| f64::from(q as f32)).collect();
        Array::float(Self::table_type(), both)
    }

    /// The type of [`table`](Self::table).
    pub fn table_type() -> TensorType {
        TensorType::f32([2, QUANTILES])
    }

    /// The share of random words that is mixup, not CutMix.
    fn blended(&self) -> f64 {
        match (self.mixup != 0.0, self.cutmix != 0.0) {
            (true, true) => 0.5,
            (blends, _) => f64::from(u8::from(blends)),
        }
    }

    fn pair(&self, table: &[f64], [height, width]: [usize; 2], image: usize, step: &Step) -> Pair {
        let words = words(step, image, 5);
        let blends = unit(words[0]) < self.blended();
        let at = unit(words[1]) * (QUANTILES - 1) as f64;
        let quantile = at.floor() as usize + if blends { 0 } else { QUANTILES };
        let own = table[quantile] + at.fract() * (table[quantile + 1] - table[quantile]);
        if blends {
            return Pair { own, cut: None };
        }
        let side = (1.0 - own).max(0.0).sqrt();
        let span = |extent: usize, word| {
            let half = (extent as f64 * side).floor() as usize / 2;
            let middle = pick(word, extent);
            [middle.saturating_sub(half), (middle + half).min(extent)]
        };
        let cut = [span(height, words[2]), span(width, words[3])];
        let area = (cut[0][1] - cut[0][0]) * (cut[1][1] - cut[1][0]);
        Pair {
            own: 1.0 - area as f64 / (height * width) as f64,
            cut: Some(cut),
        }
    }
}

impl Pair {
    /// The image's own share of a pixel.
    fn share(&self, row: usize, column: usize) -> f64 {
        match self.cut {
            None => self.own,
            Some([rows, columns]) => {
                let inside =
                    (rows[0]..rows[1]).contains(&row) && (columns[0]..columns[1]).contains(&column);
                f64::from(u8::from(!inside))
            }
        }
    }
}

impl Op for Mix {
    fn name(&self) -> &'static str {
        "mix"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 3)?;
        let [n, c, h, w] = inputs[0].shape.nchw(self.name())?;
        let images = TensorType::f32([n, c, h, w]);
        expect_type(self, "images", &images, &inputs[0])?;
        expect_type(self, "labels", &TensorType::u32([n]), &inputs[1])?;
        expect_type(self, "table", &Self::table_type(), &inputs[2])?;
        if h.max(w) > 1 << 16 {
            return Err(Error::shape(self.name(), "an image is larger than 2^16"));
        }
        let targets = TensorType::f32([n, self.classes]);
        Ok(vec![images, targets, TensorType::u32([n])])
    }

    fn reference(&self, io: Reference<'_>) {
        let [n, c, h, w] = io.inputs[0].ty().shape.nchw(self.name()).expect("inferred");
        let (images, labels, table) = (io.inputs[0].f(), io.inputs[1].u(), io.inputs[2].f());
        let [mixed, targets, main] = io.outputs else {
            unreachable!("infer gives three outputs")
        };
        for image in 0..n {
            let other = (image + 1) % n;
            let pair = self.pair(table, [h, w], image, io.step);
            for i in 0..c * h * w {
                let share = pair.share(i % (h * w) / w, i % w);
                let [a, b] = [image, other].map(|n| images[n * c * h * w + i]);
                mixed.f_mut()[image * c * h * w + i] = share * a + (1.0 - share) * b;
            }
            for (label, share) in [(labels[image], pair.own), (labels[other], 1.0 - pair.own)] {
                if (label as usize) < self.classes {
                    targets.f_mut()[image * self.classes + label as usize] += share;
                }
            }
            main.u_mut()[image] = labels[if pair.own < 0.5 { other } else { image }];
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let [n, c, h, w] = context.inputs[0].shape.nchw(self.name())?;
        let kernel = |file| {
            Kernel::new(file)
                .set("WORKGROUP", WORKGROUP)
                .set("BATCH", n)
        };
        let draw = kernel(DRAW)
            .hook("random", PHILOX, "philox4x32")
            .set("HEIGHT", h)
            .set("WIDTH", w)
            .set("STREAM", STREAM)
            .set("BLENDED", self.blended())
            .set("QUANTILES", QUANTILES);
        let pairs = ("pairs", Arg::Scratch(0));
        let bindings = vec![("table", Arg::Input(2)), pairs, ("step", Arg::Step)];
        let draw = Dispatch::linear(draw, bindings, n.div_ceil(WORKGROUP));
        let images = kernel(IMAGES)
            .set("CHANNELS", c)
            .set("HEIGHT", h)
            .set("WIDTH", w);
        let bindings = vec![("x", Arg::Input(0)), pairs, ("y", Arg::Output(0))];
        let images = Dispatch::linear(images, bindings, (n * c * h * w).div_ceil(4 * WORKGROUP));
        let labels = kernel(LABELS).set("CLASSES", self.classes);
        let bindings = vec![
            ("labels", Arg::Input(1)),
            pairs,
            ("targets", Arg::Output(1)),
            ("main_labels", Arg::Output(2)),
        ];
        let labels = Dispatch::linear(labels, bindings, (n * self.classes).div_ceil(WORKGROUP));
        Ok(Launch {
            dispatches: vec![draw, images, labels],
            scratch: vec![(PAIR * n) as u64],
        })
    }
}

pub(super) fn sample(draw: &mut Draw) -> Sample {
    let [n, c, h, w] = [
        draw.int(1, 9),
        draw.int(1, 4),
        draw.int(1, 9),
        draw.int(1, 9),
    ];
    let op = Mix {
        classes: draw.int(1, 12),
        mixup: draw.pick(&[0.0, 0.2, 1.0]),
        cutmix: draw.pick(&[0.0, 1.0]),
    };
    // Any shares that grow from 0 to 1 will do.
    let steps = Fill::Uniform(0.0, 1.0);
    let inputs = vec![
        (TensorType::f32([n, c, h, w]), Fill::UNIT),
        (TensorType::u32([n]), Fill::Below(op.classes as u32 + 1)),
        (Mix::table_type(), steps),
    ];
    // The share is a sum of two products; it weighs two images.
    let mut sample = Sample::new(op, inputs, Tolerance::sum(4, 1.0)).without_gradient();
    sample.step.number = draw.int(0, u32::MAX as usize) as u32;
    sample.step.seed = draw.int(0, u32::MAX as usize) as u32;
    sample
}
