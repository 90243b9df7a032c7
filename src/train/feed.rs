//! The images and labels of one part of a data set, on the device, and what is counted
//! over them.

use crate::data::Split;
use crate::error::Result;
use crate::graph::{Backend, Graph};
use crate::ops::augment::{AugmentImages, Augmentation};
use crate::ops::batch::{GatherImages, GatherLabels, Normalization, Shuffle};
use crate::ops::{Array, Builder, Op, Value};
use crate::tensor::TensorType;

/// Totals of a number of samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Sum of the samples' losses.
    pub loss_sum: f64,
    /// Samples whose highest logit is the label's.
    pub correct: f64,
    /// Samples counted.
    pub samples: f64,
    /// Whether a loss or logit was NaN or infinite.
    pub not_finite: bool,
}

impl Metrics {
    /// Floats of a row of the metrics state.
    pub const ROW: usize = 4;

    /// One row of the metrics state.
    pub fn from_row(row: &[f64]) -> Self {
        Self {
            loss_sum: row[0],
            correct: row[1],
            samples: row[2],
            not_finite: row[3] != 0.0 || !row[0].is_finite(),
        }
    }

    /// Adds the totals of other samples.
    pub fn add(&mut self, other: &Self) {
        self.loss_sum += other.loss_sum;
        self.correct += other.correct;
        self.samples += other.samples;
        self.not_finite |= other.not_finite;
    }

    /// Mean loss.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.samples
    }

    /// Fraction correct.
    pub fn accuracy(&self) -> f64 {
        self.correct / self.samples
    }
}

/// A part of a data set as states: bytes, labels and the order they are taken in.
#[derive(Clone, Debug)]
pub struct Part {
    name: &'static str,
    /// Number of images.
    pub len: usize,
    shape: [usize; 3],
    /// Images of each shard but the last.
    shard: usize,
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
        }
    }

    /// Creates and fills the states; the order is the stored one.
    ///
    /// # Errors
    /// If the device cannot hold them.
    pub fn upload(&self, split: &Split, backend: &mut dyn Backend) -> Result<()> {
        let bytes: usize = self.shape.iter().product();
        for (i, images) in split.images.chunks(self.shard * bytes).enumerate() {
            let ty = self.shard_type(images.len() / bytes);
            let state = self.images(i);
            backend.create(&state, &ty)?;
            backend.write(&state, &Array::bytes(ty, images.into()))?;
        }
        let order = (0..self.len as u32).collect();
        for (state, data) in [(self.labels(), split.labels.clone()), (self.order(), order)] {
            let ty = TensorType::u32([self.len]);
            backend.create(&state, &ty)?;
            backend.write(&state, &Array::index(ty, data))?;
        }
        Ok(())
    }

    /// The graph that shuffles the order, by the seed and number of the step.
    ///
    /// # Errors
    /// If there are more images than can be shuffled.
    pub fn shuffle(&self) -> Result<Graph> {
        let mut graph = Graph::new();
        graph.set_layer("shuffle");
        let order = graph.state(self.order(), TensorType::u32([self.len]));
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
        let order = graph.state(self.order(), TensorType::u32([self.len]));
        let labels = graph.state(self.labels(), TensorType::u32([self.len]));
        let mut inputs = vec![order];
        for (i, start) in (0..self.len).step_by(self.shard).enumerate() {
            let ty = self.shard_type(self.shard.min(self.len - start));
            inputs.push(graph.state(self.images(i), ty));
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
