//! Augmentation: training images changed at random, on the device.
//!
//! An [`Augmentation`] says what may happen. [`AugmentImages`] gathers a batch and does
//! all that concerns one image at a time: flips, crops, shifts, rotations and zooms as one
//! resampling, colours, erased boxes. [`Mix`] puts pairs of images together.
//!
//! What happens to an image follows by [`philox4x32`] from the run's seed, the step's
//! number and the image's place in the batch alone. So it is the same on every device,
//! however steps are grouped into submissions, and after a resume.
//!
//! [`philox4x32`]: super::random::philox4x32

mod beta;
mod choices;
mod color;
mod images;
mod mix;
mod recipe;

pub use images::AugmentImages;
pub use mix::Mix;
pub use recipe::{Augmentation, Border};

use super::Entry;

/// The ops of this folder.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "augment_images",
        sample: images::sample,
    },
    Entry {
        name: "mix",
        sample: mix::sample,
    },
];
