//! The learning-rate finder: a short training whose rate grows from step to step.

use super::{Callbacks, Config, Event, Position, Session, Weights};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::model::Model;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};

/// How the rate grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sweep {
    /// The first rate and the last.
    pub rates: [f64; 2],
    /// Updates from the one to the other, by equal factors.
    pub updates: usize,
}

impl Default for Sweep {
    /// fastai's: 100 updates from 1e-7 to 10.
    fn default() -> Self {
        Self {
            rates: [1e-7, 10.0],
            updates: 100,
        }
    }
}

/// A loss at a learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RatePoint {
    /// The rate of the update.
    pub learning_rate: f64,
    /// The loss of the update's batches, before it.
    pub loss: f64,
    /// The exponential moving average of the losses up to here.
    pub smoothed: f64,
}

/// What a sweep found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FoundRates {
    /// The updates, in order.
    pub points: Vec<RatePoint>,
    /// A rate two thirds down the longest fall of the loss: fastai's `valley`. `None` where
    /// the loss did not fall.
    pub valley: Option<f64>,
    /// A tenth of the rate with the lowest smoothed loss: the largest that may do.
    pub largest: Option<f64>,
    /// Whether it ended early because the loss had become four times the lowest, or was no
    /// number any more.
    pub diverged: bool,
}

/// Looks for a good learning rate (Smith 2015, "Cyclical Learning Rates for Training Neural
/// Networks", section 3.3): trains from `weights` with a rate that grows by an equal factor
/// from update to update and notes the losses. The weights it ends with are thrown away.
///
/// # Errors
/// As for a training, and if the sweep is no sweep.
pub fn find_learning_rate(
    model: &Model,
    data: &Dataset,
    config: &Config,
    weights: &Weights,
    backend: Box<dyn Backend>,
    sweep: Sweep,
    progress: &mut dyn FnMut(usize),
) -> Result<FoundRates> {
    let [low, high] = sweep.rates;
    if !(low > 0.0 && low < high && high.is_finite() && sweep.updates >= 10) {
        let problem = format!("expected rising rates and at least 10 updates, found {sweep:?}");
        return Err(Error::Usage(problem));
    }
    let config = Config {
        log_every: 1,
        warmup: 0.0,
        ..config.clone()
    };
    let mut session = Session::new(model, data, &config, weights, backend)?;
    let schedule = session.sweep(sweep);
    let batches = session.epoch_images().div_ceil(config.batch_size);
    let mut losses = Losses::new(sweep.updates);
    let stop = AtomicBool::new(false);
    let mut epoch = 1;
    let mut steps = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut keep = |event| {
            if let Event::Step { step, loss, .. } = event {
                let (epochs, within) =
                    ((step as usize - 1) / batches, (step as usize - 1) % batches);
                let each = batches.div_ceil(config.accumulate);
                if losses.add(epochs * each + within / config.accumulate, loss) {
                    stop.store(true, Ordering::Relaxed);
                }
                progress(losses.done());
            }
        };
        let mut callbacks = Callbacks::new(&mut keep).stop_on(&stop);
        let mut position = Position::before_epoch(epoch, steps);
        session.train(&mut position, None, &mut callbacks)?;
        (epoch, steps) = (epoch + 1, position.steps);
    }
    Ok(losses.found(|update| schedule.rate(update)))
}

/// The losses of the updates so far.
struct Losses {
    wanted: usize,
    /// Sum and number of each update's batches.
    updates: Vec<(f64, usize)>,
    lowest: f64,
    diverged: bool,
}

/// What the smoothed loss keeps of itself at each update; fastai's.
const KEPT: f64 = 0.98;

/// How many times the lowest smoothed loss counts as diverged; fastai's.
const DIVERGED: f64 = 4.0;

impl Losses {
    fn new(wanted: usize) -> Self {
        Self {
            wanted,
            updates: Vec::new(),
            lowest: f64::INFINITY,
            diverged: false,
        }
    }

    fn done(&self) -> usize {
        self.updates.len()
    }

    /// Takes the loss of a batch of an update, counted from 0; whether that is enough.
    fn add(&mut self, update: usize, loss: f64) -> bool {
        if self.diverged || update >= self.wanted {
            return true;
        }
        if !loss.is_finite() {
            // The update it belongs to has no loss.
            self.updates.truncate(update);
            self.diverged = true;
            return true;
        }
        self.updates.resize(update + 1, (0.0, 0));
        let (sum, batches) = &mut self.updates[update];
        (*sum, *batches) = (*sum + loss, *batches + 1);
        let smoothed = self.smoothed().last().copied().unwrap_or(loss);
        self.lowest = self.lowest.min(smoothed);
        self.diverged = smoothed > DIVERGED * self.lowest;
        self.diverged
    }

    fn losses(&self) -> impl Iterator<Item = f64> {
        self.updates.iter().map(|(sum, n)| sum / (*n).max(1) as f64)
    }

    /// Their exponential moving averages, without the bias of starting at zero.
    fn smoothed(&self) -> Vec<f64> {
        let (mut average, mut kept) = (0.0, 1.0);
        let smooth = |loss| {
            average = KEPT * average + (1.0 - KEPT) * loss;
            kept *= KEPT;
            average / (1.0 - kept)
        };
        self.losses().map(smooth).collect()
    }

    fn found(&self, rate: impl Fn(u32) -> f64) -> FoundRates {
        let points = self.losses().zip(self.smoothed()).zip(1..);
        let points: Vec<RatePoint> = points
            .map(|((loss, smoothed), update)| RatePoint {
                learning_rate: rate(update),
                loss,
                smoothed,
            })
            .collect();
        // The first have seen too little, and the last are past the edge.
        let considered = points.get(self.wanted / 10..points.len().saturating_sub(5));
        let considered = considered.unwrap_or_default();
        let lowest = considered
            .iter()
            .min_by(|a, b| a.smoothed.total_cmp(&b.smoothed));
        FoundRates {
            valley: valley(considered),
            largest: lowest.map(|p| p.learning_rate / 10.0),
            diverged: self.diverged,
            points,
        }
    }
}

/// The rate two thirds down the longest falling subsequence of the smoothed losses (fastai's
/// `valley`).
fn valley(points: &[RatePoint]) -> Option<f64> {
    let mut lengths = vec![1; points.len()];
    let mut end = 0;
    for i in 1..points.len() {
        let before = (0..i).filter(|j| points[i].smoothed < points[*j].smoothed);
        lengths[i] = before.map(|j| lengths[j] + 1).max().unwrap_or(1);
        if lengths[i] > lengths[end] {
            end = i;
        }
    }
    let length = *lengths.get(end)?;
    if length < 3 {
        return None;
    }
    // Middle of the second third, counted from where so long a fall may begin.
    let begin = end + 1 - length;
    let third = (end - begin) as f64 / 3.0;
    Some(points[begin + third as usize + (third / 2.0) as usize].learning_rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(all: impl IntoIterator<Item = f64>) -> Losses {
        let mut losses = Losses::new(100);
        for (update, loss) in all.into_iter().enumerate() {
            losses.add(update, loss);
        }
        losses
    }

    #[test]
    fn the_suggestion_lies_where_the_loss_falls() {
        // Level, then down from update 40 to 70, then up.
        let curve = (0..100).map(|i| match i {
            0..40 => 2.3,
            40..70 => 2.3 - 0.05 * f64::from(i - 40),
            _ => 0.8 + 0.2 * f64::from(i - 70),
        });
        let found = losses(curve).found(f64::from);
        assert!(!found.diverged && found.points.len() == 100);
        let valley = found.valley.unwrap();
        assert!((42.0..75.0).contains(&valley), "{valley}");
        assert!(found.largest.unwrap() < 10.0);
    }

    #[test]
    fn it_ends_where_the_loss_diverges_or_is_no_number() {
        let mut growing = losses([1.0; 50]);
        let ended = (50..100).position(|i| growing.add(i, 80.0)).unwrap();
        assert!((1..5).contains(&ended), "{ended}");
        let mut broken = losses([1.0; 50]);
        assert!(broken.add(50, f64::NAN));
        let found = broken.found(f64::from);
        assert!(found.diverged);
        assert_eq!(found.points.len(), 50);
    }

    #[test]
    fn a_loss_that_does_not_fall_suggests_nothing() {
        assert_eq!(
            losses((0..100).map(f64::from)).found(f64::from).valley,
            None
        );
        assert_eq!(losses([]).found(f64::from).valley, None);
    }

    #[test]
    fn batches_of_one_update_are_averaged() {
        let mut losses = Losses::new(10);
        losses.add(0, 1.0);
        losses.add(0, 3.0);
        assert_eq!(losses.found(f64::from).points[0].loss, 2.0);
    }
}
