//! JSON lines of a benchmark, and a run against an earlier one.

use super::{Ceilings, Kernel, ScalingPoint};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A line of `gpucnn bench --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// The device's ceilings: the first line.
    Ceilings(Ceilings),
    /// A kernel.
    Kernel(Compared),
    /// A batch and width, with --scaling.
    Scaling(ScalingPoint),
}

/// A kernel with its time in an earlier run, where it was in one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// The kernel as it is now.
    #[serde(flatten)]
    pub kernel: Kernel,
    /// Microseconds before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub us_before: Option<f64>,
    /// How many times faster it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speedup: Option<f64>,
}

impl From<Kernel> for Compared {
    fn from(kernel: Kernel) -> Self {
        Self {
            kernel,
            us_before: None,
            speedup: None,
        }
    }
}

/// An earlier run.
#[derive(Clone, Debug, PartialEq)]
pub struct Earlier {
    /// Its device's ceilings.
    pub ceilings: Ceilings,
    /// Its kernels.
    pub kernels: Vec<Kernel>,
}

impl Earlier {
    /// Reads what `gpucnn bench --json` wrote.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be read, [`Error::Data`] where a line is none
    /// of a benchmark's.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", e))?;
        Self::parse(&text).map_err(|problem| Error::data(path, problem))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut ceilings = None;
        let mut kernels = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let parsed = serde_json::from_str(line).map_err(|e| {
                let number = i + 1;
                format!("line {number} is no line of `gpucnn bench --json`: {e}")
            })?;
            match parsed {
                Line::Ceilings(found) => ceilings = Some(found),
                Line::Kernel(found) => kernels.push(found.kernel),
                Line::Scaling(_) => {}
            }
        }
        let ceilings = ceilings.ok_or("there is no line of ceilings; was it cut short?")?;
        Ok(Self { ceilings, kernels })
    }

    /// The kernels of now, each with its time then, matched by model, batch, precision, layer, op
    /// and place among the layer's nodes of that op.
    pub fn compare(&self, now: Vec<Kernel>) -> Vec<Compared> {
        let compare = |kernel: Kernel| {
            let before = self.kernels.iter().find(|k| k.key() == kernel.key());
            let us_before = before.map(|k| k.us);
            Compared {
                speedup: us_before.map(|us| us / kernel.us),
                us_before,
                kernel,
            }
        };
        now.into_iter().map(compare).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tests::ceilings;
    use crate::bench::tests::kernel;
    use crate::train::Precision;

    fn lines(kernels: &[Kernel]) -> String {
        let kernels = kernels.iter().cloned().map(Compared::from);
        let lines = std::iter::once(Line::Ceilings(ceilings())).chain(kernels.map(Line::Kernel));
        let lines = lines.map(|l| serde_json::to_string(&l).unwrap());
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn lines_are_read_as_they_were_written() {
        let kernels = [kernel("conv1", "conv2d", 1), kernel("fc1", "matmul", 2)];
        let text = lines(&kernels);
        assert!(text.starts_with(r#"{"event":"ceilings","device":"a device""#));
        assert!(!text.contains("speedup"));
        let read = Earlier::parse(&text).unwrap();
        assert_eq!(read.ceilings, ceilings());
        assert_eq!(read.kernels, kernels);
    }

    #[test]
    fn what_is_no_benchmark_is_refused() {
        let error = Earlier::parse("{\"event\":\"epoch\"}").unwrap_err();
        assert!(error.starts_with("line 1 is no line"), "{error}");
        assert!(Earlier::parse("").unwrap_err().contains("cut short"));
    }

    #[test]
    fn kernels_are_matched_by_all_of_their_key() {
        let timed = |nth, us| Kernel {
            us,
            ..kernel("fc1", "matmul", nth)
        };
        let mut elsewhere = timed(1, 900.0);
        elsewhere.batch += 1;
        let mut halved = timed(1, 700.0);
        halved.precision = Precision::F16;
        let earlier = Earlier {
            ceilings: ceilings(),
            kernels: vec![elsewhere, halved, timed(2, 600.0), timed(1, 100.0)],
        };
        let now = vec![timed(1, 50.0), timed(2, 1200.0), timed(3, 7.0)];
        let compared = earlier.compare(now);
        let speedups: Vec<_> = compared.iter().map(|c| c.speedup).collect();
        assert_eq!(speedups, [Some(2.0), Some(0.5), None]);
        assert_eq!(compared[0].us_before, Some(100.0));
    }
}
