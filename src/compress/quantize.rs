//! Quantisation of weights and activations to eight bits.
//!
//! `x ≈ s q` with whole numbers `q` from -127 to 127: symmetric, one step `s` for each filter
//! of a weight and one for each layer's input. Steps of weights come from their largest
//! magnitude; those of inputs from training images (calibration).

use crate::error::{Error, Result};
use crate::formats::safetensors::Int8Scales;
use crate::graph::Backend;
use crate::infer::{Taps, tapped};
use crate::model::{Layer, Model};
use crate::ops::int8::LARGEST;
use crate::tensor::Tensor;
use crate::train::Weights;
use std::collections::BTreeMap;

/// How the range of a layer's input is found from what calibration saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Calibration {
    /// The largest magnitude.
    MinMax,
    /// The magnitude that this share of the values does not exceed, such as 0.9999.
    Percentile(f64),
    /// The range whose quantised histogram loses the least information (Migacz 2017, "8-bit
    /// Inference with TensorRT").
    #[default]
    Entropy,
}

/// Bins of a histogram of magnitudes.
const BINS: usize = 2048;
/// Levels of magnitude of a signed byte.
const LEVELS: usize = 128;
/// What stands for the probability of a value that does not occur.
const NEVER: f64 = 1e-9;

/// The steps of every convolution and dense layer that runs in eight bits: all but grouped
/// convolutions, which have too few products a sum to gain.
///
/// `images` holds bytes [N, C, H, W]; the model has its normalisations
/// [folded](super::fold_batch_norms).
///
/// # Errors
/// If there is no image, or the device fails.
pub fn calibrate(
    model: &Model,
    weights: &Weights,
    images: &[u8],
    method: Calibration,
    backend: Box<dyn Backend>,
) -> Result<BTreeMap<String, Int8Scales>> {
    let layers: Vec<&str> = model
        .layers()
        .iter()
        .filter(|named| match &named.layer {
            Layer::Conv2d(conv) => conv.groups == 1,
            Layer::Dense(_) => true,
            _ => false,
        })
        .map(|named| named.name.as_str())
        .collect();
    if layers.is_empty() || images.is_empty() {
        let problem = format!("{}: there is nothing to calibrate", model.name());
        return Err(Error::Usage(problem));
    }
    let mut taps = tapped(model, weights, &layers, backend)?;
    let ranges = ranges(&mut taps, layers.len(), images, method)?;
    let scales = layers.iter().zip(ranges).map(|(layer, range)| {
        let weight = &weights[&format!("{layer}.weight")];
        let input = if range > 0.0 { range / LARGEST } else { 1.0 };
        let scales = Int8Scales {
            input: input as f32,
            weights: weight_scales(weight),
        };
        ((*layer).to_owned(), scales)
    });
    Ok(scales.collect())
}

/// The range of each layer's input.
fn ranges(taps: &mut Taps, layers: usize, images: &[u8], method: Calibration) -> Result<Vec<f64>> {
    let mut largest = vec![0.0_f64; layers];
    taps.run(images, |layer, values| {
        largest[layer] = values.iter().fold(largest[layer], |m, x| m.max(x.abs()));
    })?;
    if method == Calibration::MinMax {
        return Ok(largest);
    }
    let mut histograms = vec![vec![0_u64; BINS]; layers];
    taps.run(images, |layer, values| {
        let width = largest[layer] / BINS as f64;
        for x in values.iter().filter(|x| **x != 0.0) {
            let bin = (x.abs() / width) as usize;
            histograms[layer][bin.min(BINS - 1)] += 1;
        }
    })?;
    let bins = histograms.iter().map(|histogram| match method {
        Calibration::Percentile(share) => percentile(histogram, share),
        _ => least_divergence(histogram),
    });
    Ok(bins
        .zip(largest)
        .map(|(bins, m)| m * bins as f64 / BINS as f64)
        .collect())
}

/// The number of bins that hold this share.
fn percentile(histogram: &[u64], share: f64) -> usize {
    let total: u64 = histogram.iter().sum();
    let mut seen = 0;
    let reached = histogram.iter().position(|count| {
        seen += count;
        seen as f64 >= share * total as f64
    });
    reached.map_or(histogram.len(), |bin| bin + 1)
}

/// The number of bins whose quantisation to [`LEVELS`] diverges the least from the histogram
/// (Kullback and Leibler), what lies beyond being clamped to the last.
fn least_divergence(histogram: &[u64]) -> usize {
    let mut best = (f64::INFINITY, histogram.len());
    for bins in LEVELS..=histogram.len() {
        let divergence = divergence(histogram, bins);
        if divergence < best.0 {
            best = (divergence, bins);
        }
    }
    best.1
}

fn divergence(histogram: &[u64], bins: usize) -> f64 {
    let inside = &histogram[..bins];
    let beyond: u64 = histogram[bins..].iter().sum();
    let total = (inside.iter().sum::<u64>() + beyond) as f64;
    let kept = inside.iter().sum::<u64>() as f64;
    if kept == 0.0 {
        return f64::INFINITY;
    }
    let mut sum = 0.0;
    for level in 0..LEVELS {
        let (start, end) = (level * bins / LEVELS, (level + 1) * bins / LEVELS);
        let counts = &inside[start..end];
        let present = counts.iter().filter(|c| **c > 0).count() as f64;
        let level_total: u64 = counts.iter().sum();
        // A level spreads what it holds over the bins that had anything.
        let spread = level_total as f64 / present.max(1.0) / kept;
        for (i, count) in counts.iter().enumerate() {
            let clamped = if start + i + 1 == bins { beyond } else { 0 };
            let p = (count + clamped) as f64 / total;
            let q = if *count > 0 { spread } else { NEVER };
            if p > 0.0 {
                sum += p * (p / q).ln();
            }
        }
    }
    sum
}

/// The step of each filter: its largest magnitude over 127; 1 where it is all zero.
fn weight_scales(weight: &Tensor) -> Vec<f32> {
    let row = weight.data().len() / weight.shape()[0];
    let step = |row: &[f32]| {
        let largest = row.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        match largest > 0.0 {
            true => largest / LARGEST as f32,
            false => 1.0,
        }
    };
    weight.data().chunks_exact(row).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_thin_tail_is_cut_and_a_flat_histogram_is_not() {
        // Half a bell of deviation 100, and one value far out.
        let bell = |i: usize| 1e5 * (-0.5 * (i as f64 / 100.0).powi(2)).exp();
        let mut histogram: Vec<u64> = (0..BINS).map(|i| bell(i) as u64).collect();
        histogram[BINS - 1] = 1;
        // The normal distribution's 99% lie within 2.576 deviations.
        let bins = percentile(&histogram, 0.99);
        assert!(bins.abs_diff(258) <= 2, "{bins}");
        assert_eq!(percentile(&histogram, 1.0), BINS);
        let bins = least_divergence(&histogram);
        assert!((250..=600).contains(&bins), "{bins}");
        let flat = vec![1000; BINS];
        assert!(least_divergence(&flat) > BINS * 9 / 10);
    }

    #[test]
    fn steps_are_the_largest_magnitude_over_127_a_filter() {
        let weight = Tensor::new([3, 2], vec![1.27, -2.54, 0.0, 0.0, 0.127, 0.1]).unwrap();
        let scales = weight_scales(&weight);
        for (found, expected) in scales.iter().zip([0.02, 1.0, 0.001]) {
            assert!((found - expected).abs() < 1e-7, "{scales:?}");
        }
    }
}
