//! Learning-rate schedules, worked out on the host for every update.

use super::monitor::{Patience, Verdict};
use crate::error::{Error, Result};
use std::f64::consts::PI;

/// How the learning rate changes over a training. `peak` is the configured rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// Stays.
    Constant,
    /// `peak * factor^(epoch / every)`, rounded down, epochs counted from 0 (PyTorch's `StepLR`).
    Step {
        /// Epochs between two changes.
        every: usize,
        /// What each change multiplies by.
        factor: f64,
    },
    /// Half a cosine from `peak` down to `least` (Loshchilov and Hutter 2016, without
    /// restarts; PyTorch's `CosineAnnealingLR`, stepped every update).
    Cosine {
        /// The rate it ends at.
        least: f64,
    },
    /// Half a cosine from `peak / 25` up to `peak` over the first 30 % of the updates, then one
    /// down to `peak / 250,000` (Smith and Topin 2017 with the defaults of PyTorch's
    /// `OneCycleLR`; momentum stays).
    OneCycle,
    /// From `from` to `peak` by an equal factor from update to update, for the finder of
    /// learning rates.
    Sweep {
        /// The first rate.
        from: f64,
    },
    /// Times `factor`, but not below `least`, after `patience` epochs in which the
    /// monitored score did not get better by 1e-4 (Keras's `ReduceLROnPlateau`).
    Plateau {
        /// Epochs without improvement.
        patience: usize,
        /// What each change multiplies by.
        factor: f64,
        /// The smallest rate.
        least: f64,
    },
}

impl Policy {
    /// The names [`by_name`](Self::by_name) knows.
    pub const NAMES: [&'static str; 5] = ["constant", "step", "cosine", "one-cycle", "plateau"];

    /// The policy of a name. `every` is the epochs of step (by default a third of all,
    /// rounded up) and the patience of plateau (10).
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the known ones.
    pub fn by_name(
        name: &str,
        epochs: usize,
        every: Option<usize>,
        factor: f64,
        least: f64,
    ) -> Result<Self> {
        Ok(match name {
            "constant" => Self::Constant,
            "step" => Self::Step {
                every: every.unwrap_or(epochs.div_ceil(3)),
                factor,
            },
            "cosine" => Self::Cosine { least },
            "one-cycle" => Self::OneCycle,
            "plateau" => Self::Plateau {
                patience: every.unwrap_or(10),
                factor,
                least,
            },
            _ => {
                return Err(Error::Usage(format!(
                    "unknown schedule {name:?}; expected one of {}",
                    Self::NAMES.join(", ")
                )));
            }
        })
    }
}

/// The learning rate of every update of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    policy: Policy,
    /// Updates an epoch.
    epoch: usize,
    /// Updates of the warm-up.
    warmup: usize,
    /// All updates.
    total: usize,
    /// The configured rate; plateau lowers it.
    peak: f64,
    patience: Patience,
}

impl Schedule {
    /// The schedule of `epochs` epochs of `updates` updates each. Over the first `warmup`
    /// epochs the rate rises linearly to what the policy begins with (Goyal et al. 2017);
    /// cosine and one-cycle span the rest, step counts its epochs from the very first.
    pub fn new(policy: Policy, peak: f64, warmup: f64, epochs: usize, updates: usize) -> Self {
        // Keras's min_delta.
        let patience = match policy {
            Policy::Plateau { patience, .. } => Patience::new(patience, 1e-4),
            _ => Patience::new(usize::MAX, 0.0),
        };
        Self {
            policy,
            epoch: updates,
            warmup: (warmup * updates as f64).round() as usize,
            total: epochs * updates,
            peak,
            patience,
        }
    }

    /// The rate of an update, counted from 1; past the last one that of the last.
    pub fn rate(&self, update: u32) -> f64 {
        let done = (update as usize).saturating_sub(1);
        let done = done.min(self.total.saturating_sub(1));
        if done < self.warmup {
            return self.policy_rate(self.warmup) * (done + 1) as f64 / self.warmup as f64;
        }
        self.policy_rate(done)
    }

    /// The policy's rate after `done` updates, of which the warm-up is over.
    fn policy_rate(&self, done: usize) -> f64 {
        let (past, span) = (done - self.warmup, self.total.saturating_sub(self.warmup));
        match self.policy {
            Policy::Constant | Policy::Plateau { .. } => self.peak,
            Policy::Step { every, factor } => {
                let changes = done / self.epoch.max(1) / every.max(1);
                self.peak * factor.powi(i32::try_from(changes).unwrap_or(i32::MAX))
            }
            Policy::Cosine { least } => anneal(self.peak, least, past as f64 / span.max(1) as f64),
            Policy::Sweep { from } => {
                let share = past as f64 / (span - 1).max(1) as f64;
                from * (self.peak / from).powf(share)
            }
            Policy::OneCycle => one_cycle(self.peak, past as f64, span as f64),
        }
    }

    /// Takes the score of an epoch that is over, larger being better. A training that is
    /// continued has to give the scores of the epochs before again.
    pub fn observe(&mut self, score: f64) {
        if let Policy::Plateau { factor, least, .. } = self.policy
            && self.patience.observe(score) == Verdict::Exhausted
            && self.peak > least
        {
            self.peak = (self.peak * factor).max(least);
        }
    }
}

/// Half a cosine from `from` at 0 to `to` at 1.
fn anneal(from: f64, to: f64, at: f64) -> f64 {
    to + (from - to) / 2.0 * (1.0 + (PI * at).cos())
}

/// The rate after `done` of `total` updates.
fn one_cycle(peak: f64, done: f64, total: f64) -> f64 {
    const RISING: f64 = 0.3;
    const FIRST: f64 = 25.0;
    const LAST: f64 = 1e4;
    let (top, end) = (RISING * total - 1.0, total - 1.0);
    let first = peak / FIRST;
    if done <= top {
        return anneal(first, peak, done / top);
    }
    anneal(peak, first / LAST, (done - top) / (end - top))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A few roundings of f64.
    fn assert_near(found: f64, expected: f64) {
        let error = (found - expected).abs();
        assert!(error <= 1e-14 * expected.abs(), "{found} for {expected}");
    }

    fn rates(policy: Policy, warmup: f64, epochs: usize, updates: usize) -> Vec<f64> {
        let schedule = Schedule::new(policy, 0.4, warmup, epochs, updates);
        let count = (epochs * updates) as u32;
        (1..=count).map(|u| schedule.rate(u)).collect()
    }

    #[test]
    fn constant_stays_and_step_falls_by_its_factor() {
        assert_eq!(rates(Policy::Constant, 0.0, 2, 3), [0.4; 6]);
        let step = Policy::Step {
            every: 2,
            factor: 0.1,
        };
        // StepLR(step_size=2, gamma=0.1), five epochs of two updates.
        let expected = [0.4, 0.4, 0.4, 0.4, 0.04, 0.04, 0.04, 0.04, 0.004, 0.004];
        for (found, expected) in rates(step, 0.0, 5, 2).into_iter().zip(expected) {
            assert_near(found, expected);
        }
    }

    #[test]
    fn cosine_is_pytorchs_recurrence() {
        let (least, count) = (0.01, 20);
        let found = rates(Policy::Cosine { least }, 0.0, 4, 5);
        // CosineAnnealingLR.get_lr, which goes from each rate to the next.
        let mut expected = 0.4;
        for (t, found) in found.into_iter().enumerate() {
            if t > 0 {
                let at = |t: usize| 1.0 + (PI * t as f64 / f64::from(count)).cos();
                expected = at(t) / at(t - 1) * (expected - least) + least;
            }
            assert!((found - expected).abs() < 1e-13, "{t}: {found} {expected}");
        }
    }

    #[test]
    fn one_cycle_has_pytorchs_defaults() {
        // OneCycleLR(max_lr=0.4, total_steps=20): initial_lr 0.4 / 25, min_lr that / 1e4;
        // the phases end at steps 0.3 * 20 - 1 = 5 and 19.
        let found = rates(Policy::OneCycle, 0.0, 4, 5);
        let (first, last) = (0.4 / 25.0, 0.4 / 25.0 / 1e4);
        for (t, found) in found.into_iter().enumerate() {
            let (from, to, at) = match t {
                0..=5 => (first, 0.4, t as f64 / 5.0),
                _ => (0.4, last, (t - 5) as f64 / 14.0),
            };
            let expected = to + (from - to) / 2.0 * ((PI * at).cos() + 1.0);
            assert!((found - expected).abs() < 1e-15, "{t}: {found} {expected}");
        }
        // However few the updates, every rate is a number above zero.
        for epochs in 1..=4 {
            let rates = rates(Policy::OneCycle, 0.0, epochs, 1);
            assert!(rates.iter().all(|r| *r > 0.0), "{rates:?}");
        }
    }

    #[test]
    fn plateau_falls_as_kerass_does() {
        let policy = Policy::Plateau {
            patience: 2,
            factor: 0.1,
            least: 0.03,
        };
        let mut schedule = Schedule::new(policy, 0.4, 0.0, 9, 1);
        let mut rates = Vec::new();
        // ReduceLROnPlateau(factor=0.1, patience=2, min_delta=1e-4, min_lr=0.03) on these
        // validation losses: 0.99995 is no improvement on 1, 0.9 is; then two and two not.
        for loss in [1.0, 0.99995, 0.9, 0.95, 0.91, 0.9, 0.9, 0.9, 0.9] {
            schedule.observe(-loss);
            rates.push(schedule.rate(1));
        }
        let expected = [0.4, 0.4, 0.4, 0.4, 0.04, 0.04, 0.03, 0.03, 0.03];
        for (found, expected) in rates.into_iter().zip(expected) {
            assert_near(found, expected);
        }
    }

    #[test]
    fn warmup_rises_linearly_to_where_the_policy_begins() {
        // One and a half epochs of four updates: LinearLR(start_factor=1/6, total_iters=5).
        let found = rates(Policy::Cosine { least: 0.0 }, 1.5, 3, 4);
        for (t, rate) in found[..6].iter().enumerate() {
            let start = 1.0 / 6.0;
            assert_near(*rate, 0.4 * (start + (1.0 - start) * t as f64 / 5.0));
        }
        // The cosine has the other six.
        for (t, rate) in found[6..].iter().enumerate() {
            assert_near(*rate, 0.2 * (1.0 + (PI * t as f64 / 6.0).cos()));
        }
        assert_eq!(found[6], 0.4);
    }
}
