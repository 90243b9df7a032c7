//! A curve over a whole training in bounded memory.

use crate::train::{Event, Metrics};
use serde::{Deserialize, Serialize};

/// Points kept; when there are more, neighbours are put together.
const MOST: usize = 400;

/// The training loss and accuracy between readbacks, over epochs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Curve {
    points: Vec<Point>,
    /// Readbacks to a point.
    stride: usize,
    /// Readbacks in the last point.
    filled: usize,
    #[serde(skip)]
    epoch: usize,
    #[serde(skip)]
    before: Metrics,
}

/// Sums over the images since the point before.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Point {
    /// Epochs done.
    at: f64,
    loss: f64,
    correct: f64,
    images: f64,
}

impl Point {
    fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.correct += other.correct;
        self.images += other.images;
    }
}

impl Curve {
    /// Takes what an [`Event::Progress`] tells; other events tell nothing.
    pub fn observe(&mut self, event: &Event) {
        let Event::Progress {
            epoch,
            done,
            total,
            metrics,
            ..
        } = event
        else {
            return;
        };
        if *epoch != self.epoch {
            self.epoch = *epoch;
            self.before = Metrics::default();
        }
        let before = std::mem::replace(&mut self.before, *metrics);
        self.add(Point {
            at: (*epoch - 1) as f64 + *done as f64 / *total as f64,
            loss: metrics.loss_sum - before.loss_sum,
            correct: metrics.correct - before.correct,
            images: metrics.samples - before.samples,
        });
    }

    fn add(&mut self, point: Point) {
        let stride = self.stride.max(1);
        match self.points.last_mut() {
            Some(last) if self.filled < stride => {
                last.at = point.at;
                last.add(&point);
                self.filled += 1;
            }
            _ => {
                self.points.push(point);
                self.filled = 1;
            }
        }
        if self.points.len() > MOST {
            let pairs = self.points.chunks(2).map(|pair| {
                let mut whole = pair[pair.len() - 1];
                if let [first, _] = pair {
                    whole.add(first);
                }
                whole
            });
            self.points = pairs.collect();
            self.stride = 2 * stride;
            // The last one may have had no partner.
            self.filled = if MOST.is_multiple_of(2) {
                stride
            } else {
                2 * stride
            };
        }
    }

    /// Forgets what came after so many epochs: a run that goes on from there does it anew.
    pub fn cut(&mut self, epochs: f64) {
        self.points.retain(|p| p.at <= epochs);
        self.filled = self.stride;
    }

    /// Epochs done and mean loss.
    pub fn losses(&self) -> Vec<[f64; 2]> {
        let points = self.points.iter();
        points.map(|p| [p.at, p.loss / p.images]).collect()
    }

    /// Epochs done and share of images told right.
    pub fn accuracies(&self) -> Vec<[f64; 2]> {
        let points = self.points.iter();
        points.map(|p| [p.at, p.correct / p.images]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_long_a_training_the_curve_stays_short_and_true() {
        let mut curve = Curve::default();
        let (epochs, readbacks) = (3, 1000);
        for epoch in 1..=epochs {
            for done in 1..=readbacks {
                // In every epoch the loss is 1 up to the half, then 2.
                let half = readbacks / 2;
                let loss = done.min(half) + 2 * (done - done.min(half));
                curve.observe(&Event::Progress {
                    epoch,
                    done,
                    total: readbacks,
                    metrics: Metrics {
                        loss_sum: loss as f64,
                        correct: done as f64 / 2.0,
                        top5: done as f64,
                        samples: done as f64,
                        not_finite: false,
                    },
                    images_per_s: 1.0,
                    learning_rate: 0.1,
                });
            }
        }
        let losses = curve.losses();
        assert!(
            (MOST / 2..=MOST).contains(&losses.len()),
            "{}",
            losses.len()
        );
        assert!(losses.is_sorted_by(|a, b| a[0] < b[0]));
        assert_eq!(losses.last().unwrap()[0], 3.0);
        let total: f64 = curve.points.iter().map(|p| p.images).sum();
        assert_eq!(total, 3000.0);
        let near = |x: f64| {
            losses
                .iter()
                .min_by_key(|p| ((p[0] - x).abs() * 1e6) as u64)
        };
        assert_eq!(near(1.25).unwrap()[1], 1.0);
        assert_eq!(near(1.75).unwrap()[1], 2.0);
        assert!(curve.accuracies().iter().all(|p| p[1] == 0.5));
    }
}
