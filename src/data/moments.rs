//! Means and deviations of images.

use super::Split;
use crate::error::Result;
use rayon::prelude::*;

/// Images a thread adds up at a time.
const CHUNK: usize = 1024;

/// Mean and standard deviation of a channel's bytes over 255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// The mean, from 0 to 1.
    pub mean: f64,
    /// The standard deviation, of all pixels of all images together.
    pub std: f64,
}

impl Split {
    /// The moments of each of `channels` channels over all pixels of all images: what Keras's
    /// `Normalization.adapt` measures of images in [0, 1]. Sums are of whole numbers, so
    /// they are the same whatever the machine.
    ///
    /// # Errors
    /// If an image file cannot be decoded.
    pub fn moments(&self, channels: usize) -> Result<Vec<Moments>> {
        let image = self.images.size();
        let plane = (image / channels).max(1);
        let sums = |images: &[u8]| {
            let mut sums = vec![[0_u64; 2]; channels];
            for (i, plane) in images.chunks_exact(plane).enumerate() {
                for byte in plane.iter().map(|b| u64::from(*b)) {
                    sums[i % channels][0] += byte;
                    sums[i % channels][1] += byte * byte;
                }
            }
            sums
        };
        let add = |mut a: Vec<[u64; 2]>, b: Vec<[u64; 2]>| {
            for (a, b) in a.iter_mut().zip(b) {
                *a = [a[0] + b[0], a[1] + b[1]];
            }
            a
        };
        let mut total = vec![[0; 2]; channels];
        for portion in self.images.portions() {
            let portion = portion?;
            let chunks = portion.par_chunks((CHUNK * image).max(1));
            total = add(
                total,
                chunks.map(sums).reduce(|| vec![[0; 2]; channels], add),
            );
        }
        let pixels = (self.len() * plane).max(1) as f64;
        let moments = |[sum, squares]: [u64; 2]| {
            let mean = sum as f64 / pixels;
            let variance = (squares as f64 / pixels - mean * mean).max(0.0);
            Moments {
                mean: mean / 255.0,
                std: variance.sqrt() / 255.0,
            }
        };
        Ok(total.into_iter().map(moments).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_each_channel_over_all_images() {
        // Two images of two channels of two pixels.
        let split = Split::new(vec![0, 255, 51, 51, 255, 0, 51, 51], vec![0, 1]);
        let found = split.moments(2).unwrap();
        let expected = [(0.5, 0.5), (0.2, 0.0)].map(|(mean, std)| Moments { mean, std });
        for (found, expected) in found.iter().zip(expected) {
            assert!((found.mean - expected.mean).abs() < 1e-12, "{found:?}");
            assert!((found.std - expected.std).abs() < 1e-7, "{found:?}");
        }
    }

    /// 0.1307 and 0.3081, as PyTorch's example states for MNIST.
    #[test]
    fn moments_of_mnist_are_the_known_ones() {
        let data = crate::data::Request::new("mnist").load().unwrap();
        let [moments] = data.train.moments(1).unwrap()[..] else {
            panic!("MNIST has one channel");
        };
        assert!((moments.mean - 0.1307).abs() < 5e-5, "{moments:?}");
        assert!((moments.std - 0.3081).abs() < 5e-5, "{moments:?}");
    }
}
