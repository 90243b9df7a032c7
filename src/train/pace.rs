//! How many steps go into a submission.

use std::time::{Duration, Instant};

/// A submission should keep the device busy for about this long: long enough that the
/// cost of submitting vanishes, short enough that a display GPU's watchdog sleeps and
/// Ctrl-C feels immediate.
const TARGET: Duration = Duration::from_millis(30);

/// Chooses the number of steps of a submission from how long the last ones took.
#[derive(Debug)]
pub struct Pace {
    steps: usize,
    most: usize,
    last: Option<Instant>,
}

impl Pace {
    /// Starts with one step; never more than `most`.
    pub fn new(most: usize) -> Self {
        Self {
            steps: 1,
            most,
            last: None,
        }
    }

    /// Steps of the next submission.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// A submission of `steps` has come back.
    pub fn finished(&mut self, steps: usize) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            let one = (now - last).as_secs_f64() / steps as f64;
            let fitting = TARGET.as_secs_f64() / one.max(1e-9);
            // At most doubled each time: one odd measurement does no harm.
            self.steps = (fitting as usize).clamp(1, (self.steps * 2).min(self.most));
        }
    }

    /// Forgets the time since the last submission: other work came between.
    pub fn pause(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_by_doubling_and_stops_at_the_most() {
        let mut pace = Pace::new(8);
        assert_eq!(pace.steps(), 1);
        for _ in 0..6 {
            pace.finished(pace.steps());
        }
        // Calls back to back look infinitely fast.
        assert_eq!(pace.steps(), 8);
    }
}
