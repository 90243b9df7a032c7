//! The number that tells whether a training gets better.

use super::HistoryRow;
use crate::error::{Error, Result};

/// Which number of an epoch decides. Of the validation, or where there is none, of the
/// training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Monitor {
    /// Mean loss; smaller is better.
    Loss,
    /// Fraction correct; larger is better.
    Accuracy,
    /// Fraction of the validation images whose class is among the five likeliest; larger is
    /// better.
    Top5,
}

impl Monitor {
    /// The names it goes by.
    pub const NAMES: [&str; 3] = ["loss", "accuracy", "val_top5"];

    /// By name; `val_loss` and `val_accuracy`, as Keras calls them, are `loss` and `accuracy`.
    ///
    /// # Errors
    /// [`Error::Usage`] for any other name.
    pub fn by_name(name: &str) -> Result<Self> {
        match name {
            "loss" | "val_loss" => Ok(Self::Loss),
            "accuracy" | "val_accuracy" => Ok(Self::Accuracy),
            "val_top5" => Ok(Self::Top5),
            _ => Err(Error::Usage(format!(
                "--monitor must be one of {}, found {name:?}",
                Self::NAMES.join(", ")
            ))),
        }
    }

    /// How good the epoch was: larger is better.
    pub fn score(self, row: &HistoryRow) -> f64 {
        match self {
            Self::Loss => -row.val_loss.unwrap_or(row.loss),
            Self::Accuracy => row.val_accuracy.unwrap_or(row.accuracy),
            // Trainings without it are refused.
            Self::Top5 => row.val_top5.unwrap_or(0.0),
        }
    }
}

/// Counts the epochs since the best score.
#[derive(Clone, Debug, PartialEq)]
pub struct Patience {
    limit: usize,
    min_delta: f64,
    best: f64,
    waited: usize,
}

/// What a score means for whoever waits for better ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Better than all before.
    Better,
    /// Not better, but there is patience left.
    Waiting,
    /// Not better for as many epochs as the limit says; counting begins anew.
    Exhausted,
}

impl Patience {
    /// Patience for `limit` epochs; a score counts as better by more than `min_delta`.
    pub fn new(limit: usize, min_delta: f64) -> Self {
        Self {
            limit,
            min_delta,
            best: f64::NEG_INFINITY,
            waited: 0,
        }
    }

    /// Takes the score of the next epoch, larger being better.
    pub fn observe(&mut self, score: f64) -> Verdict {
        if score > self.best + self.min_delta {
            self.best = score;
            self.waited = 0;
            return Verdict::Better;
        }
        self.waited += 1;
        if self.waited < self.limit {
            return Verdict::Waiting;
        }
        self.waited = 0;
        Verdict::Exhausted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_after_the_limit_without_a_better_score() {
        use Verdict::{Better, Exhausted, Waiting};
        let mut patience = Patience::new(2, 0.5);
        let verdicts = [1.0, 1.5, 1.6, 1.7, 1.8, f64::NAN, 9.0].map(|s| patience.observe(s));
        // 1.5 is not better than 1 by more than 0.5; 1.6 is; NaN never is.
        let expected = [Better, Waiting, Better, Waiting, Exhausted, Waiting, Better];
        assert_eq!(verdicts, expected);
    }
}
