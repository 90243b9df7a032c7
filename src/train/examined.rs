//! A validation image by image.

use crate::data::Split;
use crate::error::Result;
use std::borrow::Cow;

/// Logits of the images of a validation, at most so many bytes of f32.
const MOST_BYTES: usize = 16 << 20;

/// What a model said of each image it was validated on. The logits come back with the
/// metrics of the validation: there is no second pass.
#[derive(Clone, Debug)]
pub struct Examined {
    split: Split,
    classes: usize,
    logits: Vec<f32>,
}

impl Examined {
    /// No image of `split` yet, by a model of so many classes.
    pub fn new(split: Split, classes: usize) -> Self {
        Self {
            split,
            classes,
            logits: Vec::new(),
        }
    }

    /// Begins anew; how many images are to be examined: all, unless their logits would take
    /// more than 16 MiB, then the first.
    pub(super) fn restart(&mut self) -> usize {
        self.logits.clear();
        self.split.len().min(MOST_BYTES / (4 * self.classes))
    }

    /// Takes the logits of the next images.
    pub(crate) fn add(&mut self, logits: impl IntoIterator<Item = f32>) {
        self.logits.extend(logits);
    }

    /// Classes of the model.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Images examined so far.
    pub fn len(&self) -> usize {
        self.logits.len() / self.classes
    }

    /// Whether no image has been.
    pub fn is_empty(&self) -> bool {
        self.logits.is_empty()
    }

    /// Images of the whole validation.
    pub fn total(&self) -> usize {
        self.split.len()
    }

    /// The label and the logits of each image, in the order of the data set.
    pub fn rows(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let labels = self.split.labels.iter().map(|l| *l as usize);
        labels.zip(self.logits.chunks_exact(self.classes))
    }

    /// The bytes of an image, [C, H, W].
    ///
    /// # Errors
    /// If its file cannot be decoded.
    pub fn image(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        self.split.images.get(index..index + 1)
    }
}
