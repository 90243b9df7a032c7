//! How fast a model trains as the batch and as the model's width grow.

use super::Training;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::model::Model;
use crate::train::Precision;
use serde::{Deserialize, Serialize};
use std::rc::Rc;
use std::time::Instant;

/// Batches measured, at the model's own width.
const BATCHES: [usize; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
/// Widths measured.
const WIDTHS: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];
/// Seconds of steps a measurement takes at least.
const LONG_ENOUGH: f64 = 0.2;

/// The speed of one batch and width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScalingPoint {
    /// The model.
    pub model: String,
    /// Images a step.
    pub batch: usize,
    /// How the step's tensors are kept.
    #[serde(default)]
    pub precision: Precision,
    /// How many times as wide as the model is.
    pub width: f64,
    /// Trainable numbers at that width.
    pub parameters: usize,
    /// Images trained a second, the median of three measurements.
    pub images_per_s: f64,
}

/// The batches and widths that [`measure`](ScalingPoint::measure) takes: all batches up to
/// `most` at the model's width, then the other widths at batches of `batch`.
pub fn places(batch: usize, most: usize) -> Vec<(usize, f64)> {
    let batches = BATCHES.iter().filter(|b| **b <= most);
    let mut places: Vec<_> = batches.map(|b| (*b, 1.0)).collect();
    for place in WIDTHS.map(|width| (batch, width)) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

impl ScalingPoint {
    /// Trains a model of another width on random images; `None` where the device is too
    /// small for it.
    ///
    /// # Errors
    /// If the device fails.
    pub fn measure(
        gpu: &Rc<Gpu>,
        model: &Model,
        (batch, width): (usize, f64),
        precision: Precision,
    ) -> Result<Option<Self>> {
        let wide = model.widened(width)?;
        let parameters = wide.parameter_count();
        let training = Training::new(wide, batch)?.with_precision(precision);
        let mut session = match training.session(gpu) {
            Err(Error::Limit { .. }) => return Ok(None),
            session => session?,
        };
        let mut seconds = |steps: usize| -> Result<f64> {
            let begin = Instant::now();
            session.submit_steps(steps)?;
            session.synchronize()?;
            Ok(begin.elapsed().as_secs_f64())
        };
        // The first step compiles.
        seconds(1)?;
        let steps = (LONG_ENOUGH / seconds(1)?).ceil().clamp(1.0, 4096.0) as usize;
        let mut times = [seconds(steps)?, seconds(steps)?, seconds(steps)?];
        times.sort_by(f64::total_cmp);
        Ok(Some(Self {
            model: model.name().to_owned(),
            batch,
            precision,
            width,
            parameters,
            images_per_s: (steps * batch) as f64 / times[1],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_is_measured_twice() {
        let found = places(32, 64);
        assert_eq!(found.len(), 7 + 4);
        assert_eq!(found[..2], [(1, 1.0), (2, 1.0)]);
        assert_eq!(found[7..], [(32, 0.25), (32, 0.5), (32, 2.0), (32, 4.0)]);
        assert_eq!(places(48, 1).len(), 1 + 5);
    }
}
