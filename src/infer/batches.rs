//! How many images go through the device at a time.

use crate::error::{Error, Result};
use crate::graph::{Backend, batch_advice, largest_batch};
use crate::train::{Estimate, Memory};

/// How many images go through the device at a time. Whether they fit is known before anything
/// is allocated.
///
/// ```
/// use gpucnn::infer::Batches;
///
/// let refused_where_they_do_not_fit = Batches::of(64);
/// let fewer_where_they_do_not_fit = Batches::up_to(256).within(Some(512));
/// # let _ = (refused_where_they_do_not_fit, fewer_where_they_do_not_fit);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    most: usize,
    fewer: bool,
    rising: bool,
    memory_budget: Option<u64>,
    flag: &'static str,
}

impl Batches {
    /// `images` at a time; where they do not fit, an error names the most that would.
    pub fn of(images: usize) -> Self {
        Self {
            most: images,
            fewer: false,
            rising: false,
            memory_budget: None,
            flag: "--batch-size",
        }
    }

    /// As many as fit, at most `most`.
    pub fn up_to(most: usize) -> Self {
        Self {
            fewer: true,
            ..Self::of(most)
        }
    }

    /// Also 1, 2, 4 and so on: each run takes the smallest that is enough, so that few images
    /// do not cost as much as many.
    #[must_use]
    pub fn rising(mut self) -> Self {
        self.rising = true;
        self
    }

    /// Takes at most so many MiB of the device's memory; without a number, what is free, where
    /// the device tells.
    #[must_use]
    pub fn within(mut self, memory_budget: Option<u64>) -> Self {
        self.memory_budget = memory_budget;
        self
    }

    /// The flag that sets the number, for errors: `--batch-size`, unless told otherwise.
    #[must_use]
    pub(crate) fn set_by(mut self, flag: &'static str) -> Self {
        self.flag = flag;
        self
    }

    /// The numbers of images that programs are for, where `most` is the largest.
    pub(super) fn sizes(self, most: usize) -> Vec<usize> {
        let powers = (0..usize::BITS).map(|k| 1 << k);
        let mut sizes: Vec<usize> = powers.take_while(|n| *n < most && self.rising).collect();
        sizes.push(most);
        sizes
    }

    /// The largest number of images, where `estimate` tells what a number takes.
    ///
    /// # Errors
    /// If it is 0, or does not fit.
    pub(crate) fn fitting(
        self,
        model: &str,
        backend: &dyn Backend,
        estimate: impl Fn(usize, Memory) -> Result<Estimate>,
    ) -> Result<usize> {
        if self.most == 0 {
            return Err(Error::Usage("a batch must hold at least 1 image".into()));
        }
        let memory = Memory::of(self.memory_budget, backend);
        let fits = |n| estimate(n, memory).is_ok_and(|e| e.fits());
        let largest = largest_batch(self.most, fits);
        if largest == self.most || (self.fewer && largest > 0) {
            return Ok(largest);
        }
        let refused = if self.fewer { 1 } else { self.most };
        let advice = batch_advice(largest, self.flag);
        Err(match estimate(refused, memory) {
            Ok(estimate) => Error::Device(format!(
                "{model} in batches of {refused} takes too much memory: {estimate}; {advice}"
            )),
            Err(limit @ Error::Limit { .. }) => Error::Device(format!("{limit}; {advice}")),
            Err(error) => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Batches;

    #[test]
    fn rising_sizes_are_powers_of_two_and_the_largest() {
        assert_eq!(Batches::of(12).sizes(12), [12]);
        for (most, sizes) in [
            (1, vec![1]),
            (8, vec![1, 2, 4, 8]),
            (12, vec![1, 2, 4, 8, 12]),
        ] {
            assert_eq!(Batches::up_to(20).rising().sizes(most), sizes);
        }
    }
}
