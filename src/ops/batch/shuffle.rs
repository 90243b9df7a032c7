//! The order of an epoch, from a seed and the epoch's number alone.

use super::WORKGROUP;
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::ops::{
    Draw, Fill, LaunchContext, Op, Reference, Sample, Step, Tolerance, expect_inputs,
};
use crate::shader;
use crate::tensor::{DType, TensorType};

const SHUFFLE: ShaderFile = shader!("batch/shuffle.wgsl");
const ROUNDS: u32 = 12;
const GOLDEN: u32 = 0x9e37_79b9;

/// Fills `order` u32 `[T]` (updated in place) with a permutation of 0..T drawn from
/// `step.seed` and `step.number`, the epoch. The same on every device.
///
/// A Feistel network with cycle walking (Mitchell et al. 2021, "Bandwidth-Optimal Random
/// Shuffling for GPUs"); see the shader.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shuffle;

impl Shuffle {
    /// The order of `length` elements that a step draws.
    ///
    /// ```
    /// use gpucnn::ops::{Step, batch::Shuffle};
    ///
    /// let mut order = Shuffle::order(5, &Step::default());
    /// order.sort_unstable();
    /// assert_eq!(order, [0, 1, 2, 3, 4]);
    /// ```
    pub fn order(length: usize, step: &Step) -> Vec<u32> {
        let network = Feistel::new(length, step);
        let place = |i| {
            let mut place = network.permute(i);
            while place as usize >= length {
                place = network.permute(place);
            }
            place
        };
        (0..length as u32).map(place).collect()
    }
}

/// The network over `left + right` bits.
struct Feistel {
    left: u32,
    right: u32,
    key: u32,
}

impl Feistel {
    fn new(length: usize, step: &Step) -> Self {
        let (left, right) = halves(length);
        Self {
            left,
            right,
            key: mix(step.seed ^ mix(step.number)),
        }
    }

    fn permute(&self, index: u32) -> u32 {
        let (left_mask, right_mask) = ((1 << self.left) - 1, (1 << self.right) - 1);
        let (mut left, mut right) = (index >> self.right, index & right_mask);
        for round in 0..ROUNDS {
            let key = self.key.wrapping_add((round * 2).wrapping_mul(GOLDEN));
            left ^= mix(right ^ mix(key)) & left_mask;
            right ^= mix(left ^ mix(key.wrapping_add(GOLDEN))) & right_mask;
        }
        (left << self.right) | right
    }
}

/// Bits of both halves: together they just count to `length`.
fn halves(length: usize) -> (u32, u32) {
    let bits = (length.max(2) - 1).ilog2() + 1;
    (bits / 2, bits - bits / 2)
}

fn mix(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

impl Op for Shuffle {
    fn name(&self) -> &'static str {
        "shuffle"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        let length = inputs[0].shape.len();
        if inputs[0].dtype != DType::U32 || length > 1 << 30 {
            let problem = format!("expected up to 2^30 u32, found {}", inputs[0]);
            return Err(Error::shape(self.name(), problem));
        }
        Ok(vec![])
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }

    fn reference(&self, io: Reference<'_>) {
        let order = io.updates[0].u_mut();
        order.copy_from_slice(&Self::order(order.len(), io.step));
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let length = context.inputs[0].shape.len();
        let (left, right) = halves(length);
        let kernel = Kernel::new(SHUFFLE)
            .set("LENGTH", length)
            .set("LEFT_BITS", left)
            .set("RIGHT_BITS", right)
            .set("ROUNDS", ROUNDS)
            .set("WORKGROUP", WORKGROUP);
        let bindings = vec![("order", Arg::Input(0)), ("step", Arg::Step)];
        Ok(Dispatch::linear(kernel, bindings, length.div_ceil(WORKGROUP)).into())
    }
}

pub(super) fn sample(draw: &mut Draw) -> Sample {
    let ty = TensorType::u32([draw.int(1, 3000)]);
    Sample::new(Shuffle, vec![(ty, Fill::Below(1))], Tolerance::EXACT).without_gradient()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Array;

    fn order(length: usize, seed: u32, epoch: u32) -> Vec<u32> {
        let mut updates = [Array::zeros(TensorType::u32([length]))];
        let step = Step {
            number: epoch,
            seed,
            ..Step::default()
        };
        Shuffle.reference(Reference {
            inputs: &[],
            outputs: &mut [],
            updates: &mut updates,
            step: &step,
        });
        updates[0].u().to_vec()
    }

    #[test]
    fn every_length_gives_a_permutation() {
        for length in (1..130).chain([1000, 1023, 1024, 1025, 60_000]) {
            let mut sorted = order(length, 7, 1);
            sorted.sort_unstable();
            assert!(
                sorted.iter().enumerate().all(|(i, v)| i == *v as usize),
                "{length}"
            );
        }
    }

    #[test]
    fn epochs_and_seeds_give_different_orders() {
        assert_ne!(order(100, 1, 1), order(100, 1, 2));
        assert_ne!(order(100, 1, 1), order(100, 2, 1));
        assert_eq!(order(100, 1, 1), order(100, 1, 1));
    }

    /// Over many epochs each element must land on each place equally often. Chi-square
    /// with (n - 1)^2 = 121 degrees of freedom: mean 121, deviation sqrt(242) = 15.6; six
    /// deviations are allowed.
    #[test]
    fn places_are_evenly_used() {
        const N: usize = 12;
        const EPOCHS: u32 = 12_000;
        let mut counts = [[0.0_f64; N]; N];
        for epoch in 0..EPOCHS {
            for (i, place) in order(N, 5, epoch).into_iter().enumerate() {
                counts[i][place as usize] += 1.0;
            }
        }
        let expected = f64::from(EPOCHS) / N as f64;
        let squares = counts
            .iter()
            .flatten()
            .map(|c| (c - expected).powi(2) / expected);
        let chi_square: f64 = squares.sum();
        assert!(chi_square < 121.0 + 6.0 * 15.6, "{chi_square}");
    }

    /// Batches must be fair samples of images whose classes take turns, and of images sorted
    /// by class. Per batch of 32 and 10 classes, chi-square has 9 degrees of freedom and a
    /// deviation of about sqrt(18); the mean over 1562 batches deviates by 0.11, and six of
    /// that are allowed.
    #[test]
    fn batches_are_fair_samples_of_the_classes() {
        const N: usize = 50_000;
        const CLASSES: usize = 10;
        for label in [|i: usize| i % CLASSES, |i: usize| i / (N / CLASSES)] {
            let order = order(N, 0, 1);
            let batches = order.chunks_exact(32).map(|batch| {
                let mut counts = [0.0_f64; CLASSES];
                for image in batch {
                    counts[label(*image as usize)] += 1.0;
                }
                counts.iter().map(|c| (c - 3.2).powi(2) / 3.2).sum::<f64>()
            });
            let statistics: Vec<f64> = batches.collect();
            let mean = statistics.iter().sum::<f64>() / statistics.len() as f64;
            assert!((mean - 9.0).abs() < 6.0 * 0.11, "{mean}");
        }
    }
}
