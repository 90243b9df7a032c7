//! The images and labels of one part of a data set, on the device, and what is counted
//! over them.

use crate::data::Split;
use crate::error::Result;
use crate::graph::{Backend, Graph};
use crate::ops::augment::{AugmentImages, Augmentation};
use crate::ops::batch::{GatherImages, GatherLabels, MAX_SHARDS, Normalization, Shuffle};
use crate::ops::metrics;
use crate::ops::{Array, Builder, Op, Value};
use crate::tensor::TensorType;

/// Most steps in a submission; rows of the metrics state.
pub(super) const MAX_STEPS: usize = 64;

/// Totals of a number of samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Sum of the samples' losses.
    pub loss_sum: f64,
    /// Samples whose highest logit is the label's.
    pub correct: f64,
    /// Samples whose label is among the five highest logits.
    pub top5: f64,
    /// Samples counted.
    pub samples: f64,
    /// Whether a loss or logit was NaN or infinite.
    pub not_finite: bool,
}

impl Metrics {
    /// Floats of a row of the metrics state.
    pub const ROW: usize = metrics::ROW;

    /// One row of the metrics state.
    pub fn from_row(row: &[f64]) -> Self {
        Self {
            loss_sum: row[0],
            correct: row[1],
            top5: row[4],
            samples: row[2],
            not_finite: row[3] != 0.0 || !row[0].is_finite(),
        }
    }

    /// Adds the totals of other samples.
    pub fn add(&mut self, other: &Self) {
        self.loss_sum += other.loss_sum;
        self.correct += other.correct;
        self.top5 += other.top5;
        self.samples += other.samples;
        self.not_finite |= other.not_finite;
    }

    /// Mean loss.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.samples
    }

    /// Fraction whose label is among the five highest logits.
    pub fn top5_accuracy(&self) -> f64 {
        self.top5 / self.samples
    }

    /// Fraction correct.
    pub fn accuracy(&self) -> f64 {
        self.correct / self.samples
    }
}

/// Most bytes of images that the data sets of a training take on the device, unless told
/// otherwise: what any GPU of the last years has to spare.
const BUDGET: u64 = 2 << 30;
/// Most bytes of streamed images on the device. More would bring nothing: it is many steps.
const WINDOW: u64 = 64 << 20;

/// A part of a data set as states: bytes, labels and the order they are taken in; all of it,
/// or a window of so many images that moves through it.
#[derive(Clone, Debug)]
pub struct Part {
    name: &'static str,
    /// Number of images.
    pub len: usize,
    shape: [usize; 3],
    /// Images of each shard but the last.
    shard: usize,
    /// Images on the device at a time.
    held: usize,
}

impl Part {
    /// A part of `len` images of `shape`, cut into shards of at most `max_binding` bytes.
    /// Its states are named after it.
    pub fn new(name: &'static str, len: usize, shape: [usize; 3], max_binding: u64) -> Self {
        let bytes: usize = shape.iter().product();
        let fitting = usize::try_from(max_binding).unwrap_or(usize::MAX) / bytes;
        Self {
            name,
            len,
            shape,
            // Whole words in every shard but the last.
            shard: (fitting / 4 * 4).max(4),
            held: len,
        }
    }

    /// The most bytes of images on a device that binds at most `max_binding` bytes of a
    /// tensor, unless told otherwise.
    pub(super) fn default_budget(max_binding: u64) -> u64 {
        BUDGET.min(max_binding.saturating_mul(MAX_SHARDS as u64))
    }

    /// Bytes of an image.
    fn image(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of all images.
    pub(super) fn bytes(&self) -> u64 {
        self.len as u64 * self.image() as u64
    }

    /// The same part, streamed in batches of `batch`: as many of them on the device at a time
    /// as `budget` bytes hold, at least one. Where all images fit, they all are there.
    #[must_use]
    pub fn within(mut self, budget: u64, batch: usize) -> Self {
        let shards = self.len.div_ceil(self.shard);
        if self.bytes() > budget || shards > MAX_SHARDS {
            let images = budget.min(WINDOW) as usize / self.image();
            let batches = (images / batch).clamp(1, MAX_STEPS);
            self.held = self.len.min(batches * batch);
        }
        self
    }

    /// Images on the device at a time.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whether they are fewer than all.
    pub(super) fn is_streamed(&self) -> bool {
        self.held < self.len
    }

    /// Creates the states; the order is the stored one.
    ///
    /// # Errors
    /// If the device cannot hold them.
    pub fn create(&self, backend: &mut dyn Backend) -> Result<()> {
        for (i, images) in self.shards(self.held) {
            backend.create(&self.images(i), &self.shard_type(images))?;
        }
        let ty = TensorType::u32([self.held]);
        backend.create(&self.labels(), &ty)?;
        backend.create(&self.order(), &ty)?;
        let order = (0..self.held as u32).collect();
        backend.write(&self.order(), &Array::index(ty, order))
    }

    /// Writes the images that are held from now on, with their labels.
    ///
    /// # Errors
    /// If the states are missing or smaller, an image file cannot be decoded, or the device
    /// failed.
    pub fn put(&self, split: &Split, backend: &mut dyn Backend) -> Result<()> {
        let labels = &split.labels;
        for (i, count) in self.shards(labels.len()) {
            let first = i * self.shard;
            // Of a set in files no more than a shard is decoded at a time.
            let images = split.images.get(first..first + count)?;
            let images = Array::bytes(self.shard_type(count), (&*images).into());
            backend.write(&self.images(i), &images)?;
        }
        let labels = Array::index(TensorType::u32([labels.len()]), labels.to_vec());
        backend.write(&self.labels(), &labels)
    }

    /// The shards of so many images, each with its number of images.
    fn shards(&self, images: usize) -> impl Iterator<Item = (usize, usize)> {
        let shard = self.shard;
        let starts = (0..images).step_by(shard).enumerate();
        starts.map(move |(i, start)| (i, shard.min(images - start)))
    }

    /// The graph that shuffles the order, by the seed and number of the step.
    ///
    /// # Errors
    /// If there are more images than can be shuffled.
    pub fn shuffle(&self) -> Result<Graph> {
        let mut graph = Graph::new();
        graph.set_layer("shuffle");
        let order = graph.state(self.order(), TensorType::u32([self.held]));
        graph.add(Box::new(Shuffle), &[order])?;
        Ok(graph)
    }

    fn order(&self) -> String {
        format!("{}.order", self.name)
    }

    fn labels(&self) -> String {
        format!("{}.labels", self.name)
    }

    fn images(&self, shard: usize) -> String {
        format!("{}.images.{shard}", self.name)
    }

    fn shard_type(&self, images: usize) -> TensorType {
        let [c, h, w] = self.shape;
        TensorType::u8([images, c, h, w])
    }

    /// Adds the nodes that gather a batch and augment it; returns images and labels.
    ///
    /// # Errors
    /// If the ops refuse the shapes.
    pub fn gather(
        &self,
        graph: &mut Graph,
        batch: usize,
        normalization: &Normalization,
        augmentation: &Augmentation,
    ) -> Result<[Value; 2]> {
        graph.set_layer("input");
        let order = graph.state(self.order(), TensorType::u32([self.held]));
        let labels = graph.state(self.labels(), TensorType::u32([self.held]));
        let mut inputs = vec![order];
        for (i, images) in self.shards(self.held) {
            inputs.push(graph.state(self.images(i), self.shard_type(images)));
        }
        let gather = GatherImages {
            batch,
            normalization: normalization.clone(),
        };
        let images: Box<dyn Op> = match augmentation.leaves_images() {
            true => Box::new(gather),
            false => Box::new(AugmentImages {
                gather,
                augmentation: augmentation.clone(),
            }),
        };
        let images = graph.add1(images, &inputs)?;
        let labels = graph.add1(Box::new(GatherLabels { batch }), &[order, labels])?;
        Ok([images, labels])
    }
}
