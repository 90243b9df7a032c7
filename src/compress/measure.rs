//! What compression is measured by: size, accuracy, speed.

use crate::data::Split;
use crate::error::Result;
use crate::infer::Predictor;
use crate::model::Model;
use crate::train::Weights;
use serde::Serialize;
use std::time::Instant;

/// Images a step while measuring, at most.
pub const BATCH: usize = 256;
/// Batches that are timed; the median counts.
const REPEATS: usize = 9;

/// A model in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Trainable parameters.
    pub parameters: usize,
    /// Parameters that are not zero.
    pub nonzero: usize,
    /// Floating-point operations of an image.
    pub flops: u64,
    /// Bytes of the weight file.
    pub bytes: u64,
    /// Mean softmax cross-entropy over the test images.
    pub loss: f64,
    /// Share of the test images whose class is predicted.
    pub accuracy: f64,
    /// Images classified a second, from bytes on the host to logits on the host.
    pub images_per_s: f64,
}

/// Measures a model on labelled images; `bytes` is the size of its weight file.
///
/// # Errors
/// If the device fails.
pub fn measure(
    model: &Model,
    weights: &Weights,
    bytes: u64,
    predictor: &mut Predictor,
    split: &Split,
) -> Result<Measured> {
    let evaluation = predictor.evaluate(split, &|_| {})?;
    let timed = split.len().min(BATCH);
    let images = split.images.get(0..timed)?;
    let mut seconds = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let begin = Instant::now();
        predictor.logits(&images)?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let trainable = model.parameters().iter().filter(|p| p.trainable);
    let nonzero = trainable
        .filter_map(|p| weights.get(&p.name))
        .flat_map(|t| t.data())
        .filter(|x| **x != 0.0)
        .count();
    Ok(Measured {
        parameters: model.parameter_count(),
        nonzero,
        flops: model.summary()?.flops,
        bytes,
        loss: evaluation.loss(),
        accuracy: evaluation.accuracy(),
        images_per_s: timed as f64 / seconds[REPEATS / 2],
    })
}
