//! The kernels of a model's training step against the device's ceilings.

use super::Ceilings;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{GpuBackend, Profile};
use crate::model::Model;
use crate::train::{Config, Precision, Session};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

/// Which ceiling a kernel comes nearer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Floating-point operations.
    Compute,
    /// Bytes moved.
    Memory,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compute => "compute",
            Self::Memory => "memory",
        })
    }
}

/// One dispatch of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DispatchTime {
    /// The shader, below `shaders/`.
    pub shader: String,
    /// Microseconds.
    pub us: f64,
}

/// What one node of a training step takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// The model.
    pub model: String,
    /// Images a step.
    pub batch: usize,
    /// How the step's tensors are kept.
    #[serde(default)]
    pub precision: Precision,
    /// The layer.
    pub layer: String,
    /// The op.
    pub op: String,
    /// Which of the layer's nodes of that op it is, from 1.
    pub nth: usize,
    /// Microseconds of all its dispatches.
    pub us: f64,
    /// Floating-point operations, as the op's definition counts them: a kernel that gets
    /// by with fewer (Winograd's) may pass the ceiling.
    pub flops: u64,
    /// Bytes of inputs read and outputs written, each once.
    pub bytes: u64,
    /// 10^9 operations a second.
    pub gflops: f64,
    /// 10^9 bytes a second.
    pub gb_per_s: f64,
    /// The nearer ceiling.
    pub bound: Bound,
    /// Percent of that ceiling reached.
    pub percent: f64,
    /// What measured it.
    pub clock: String,
    /// Its dispatches, in order.
    pub dispatches: Vec<DispatchTime>,
}

impl Kernel {
    /// What tells a kernel from the others, in one run and in the next.
    pub fn key(&self) -> (&str, usize, Precision, &str, &str, usize) {
        let Self {
            batch,
            precision,
            nth,
            ..
        } = *self;
        (&self.model, batch, precision, &self.layer, &self.op, nth)
    }

    /// Floating-point operations for each byte moved.
    pub fn intensity(&self) -> f64 {
        self.flops as f64 / self.bytes as f64
    }
}

/// A model's training on random images, ready to be measured.
pub struct Training {
    model: Model,
    config: Config,
    data: Dataset,
}

impl Training {
    /// Training of `model` with its own optimizer in batches of `batch` random images.
    ///
    /// # Errors
    /// If the model's training settings are out of range.
    pub fn new(model: Model, batch: usize) -> Result<Self> {
        let config = Config {
            batch_size: batch,
            shuffle: false,
            ..Config::new(&model)?.with_epochs(1)
        };
        config.check()?;
        let data = Dataset::synthetic(model.input(), model.classes(), batch);
        Ok(Self {
            model,
            config,
            data,
        })
    }

    /// The same with its tensors kept in another precision.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.config.precision = precision;
        self
    }

    /// Compiles it on a device.
    ///
    /// # Errors
    /// If the device is too small or fails.
    pub fn session(&self, gpu: &Rc<Gpu>) -> Result<Session<'_>> {
        let backend = Box::new(GpuBackend::new(gpu.clone())?);
        let weights = self.model.initial_weights(0);
        Session::new(&self.model, &self.data, &self.config, &weights, backend)
    }

    /// Measures every kernel of a training step, each as the median of `repeats`.
    ///
    /// # Errors
    /// If the device is too small or fails.
    pub fn kernels(
        &self,
        gpu: &Rc<Gpu>,
        ceilings: &Ceilings,
        repeats: usize,
    ) -> Result<Vec<Kernel>> {
        let mut session = self.session(gpu)?;
        session.submit_steps(1)?;
        let profile = session.profile(repeats)?;
        let Config {
            batch_size,
            precision,
            ..
        } = self.config;
        let name = self.model.name();
        Ok(rows(name, batch_size, precision, &profile, ceilings))
    }
}

fn rows(
    model: &str,
    batch: usize,
    precision: Precision,
    profile: &Profile,
    ceilings: &Ceilings,
) -> Vec<Kernel> {
    let mut seen: HashMap<(&str, &str), usize> = HashMap::new();
    let mut rows = Vec::with_capacity(profile.timings.len());
    for timing in &profile.timings {
        let nth = seen.entry((&timing.layer, timing.op)).or_default();
        *nth += 1;
        // A clock too coarse for the kernel reads 0; no kernel takes less than a nanosecond.
        let seconds = timing.seconds().max(1e-9);
        let gflops = 1e-9 * timing.flops as f64 / seconds;
        let gb_per_s = 1e-9 * timing.bytes as f64 / seconds;
        let compute = gflops / ceilings.f32_gflops;
        let memory = gb_per_s / ceilings.gb_per_s(timing.bytes);
        let dispatches = timing.dispatches.iter();
        let dispatches = dispatches.map(|(shader, seconds)| DispatchTime {
            shader: (*shader).to_owned(),
            us: 1e6 * seconds,
        });
        rows.push(Kernel {
            model: model.to_owned(),
            batch,
            precision,
            layer: timing.layer.clone(),
            op: timing.op.to_owned(),
            nth: *nth,
            us: 1e6 * seconds,
            flops: timing.flops,
            bytes: timing.bytes,
            gflops,
            gb_per_s,
            bound: match compute > memory {
                true => Bound::Compute,
                false => Bound::Memory,
            },
            percent: 100.0 * compute.max(memory),
            clock: profile.clock.to_string(),
            dispatches: dispatches.collect(),
        });
    }
    rows
}

/// Those whose op's name contains `op`.
///
/// # Errors
/// [`Error::Usage`] where there is none, with the ops there are.
pub fn of_op(kernels: Vec<Kernel>, op: &str) -> Result<Vec<Kernel>> {
    let (found, others): (Vec<_>, Vec<_>) = kernels.into_iter().partition(|k| k.op.contains(op));
    if !found.is_empty() {
        return Ok(found);
    }
    let mut known: Vec<String> = others.into_iter().map(|k| k.op).collect();
    known.sort();
    known.dedup();
    Err(Error::Usage(format!(
        "no kernel has {op:?} in its op's name; there are {}",
        known.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tests::ceilings;
    use crate::gpu::profiler::Clock;
    use crate::graph::Timing;

    fn timing(layer: &str, op: &'static str, flops: u64, bytes: u64, seconds: f64) -> Timing {
        Timing {
            layer: layer.into(),
            op,
            flops,
            bytes,
            dispatches: vec![("a.wgsl", 0.25 * seconds), ("b.wgsl", 0.75 * seconds)],
        }
    }

    fn kernels() -> Vec<Kernel> {
        let profile = Profile {
            clock: Clock::Host,
            timings: vec![
                timing("fc1", "matmul", 50_000_000, 1_000_000, 1e-3),
                timing("fc1", "matmul", 1_000_000, 1_000_000, 1e-3),
                timing("fc2", "matmul", 1_000_000, 8_000_000, 1e-3),
                timing("fc2", "bias_grad", 0, 4_000_000, 0.0),
            ],
        };
        rows("tiny", 32, Precision::F32, &profile, &ceilings())
    }

    #[test]
    fn rates_are_held_against_the_nearer_ceiling() {
        let found = kernels();
        let of = |k: &Kernel| [k.us, k.gflops, k.gb_per_s, k.percent].map(f64::round);
        // Ceilings: 100 GFLOP/s; 20 GB/s up to 2 MB, 10 GB/s beyond.
        assert_eq!(of(&found[0]), [1000.0, 50.0, 1.0, 50.0]);
        assert_eq!(found[0].bound, Bound::Compute);
        assert_eq!(of(&found[1]), [1000.0, 1.0, 1.0, 5.0]);
        assert_eq!(found[1].bound, Bound::Memory);
        assert_eq!(of(&found[2]), [1000.0, 1.0, 8.0, 80.0]);
        assert_eq!(found[0].intensity(), 50.0);
        assert_eq!(found[0].clock, "host clock");
        let times: Vec<_> = found[0].dispatches.iter().map(|d| d.us.round()).collect();
        assert_eq!(times, [250.0, 750.0]);
        assert!(found[3].percent.is_finite());
    }

    #[test]
    fn every_key_is_its_own() {
        let found = kernels();
        let nths: Vec<_> = found.iter().map(|k| k.nth).collect();
        assert_eq!(nths, [1, 2, 1, 1]);
        assert_eq!(
            found[1].key(),
            ("tiny", 32, Precision::F32, "fc1", "matmul", 2)
        );
    }

    #[test]
    fn ops_are_found_by_a_part_of_their_name() {
        assert_eq!(of_op(kernels(), "mat").unwrap().len(), 3);
        let error = of_op(kernels(), "conv").unwrap_err().to_string();
        assert!(error.ends_with("there are bias_grad, matmul"), "{error}");
    }
}
