//! What a training, or an inference, takes of the device's memory, told before anything is
//! allocated.

use super::graphs::{ACCUMULATED, AVERAGES, GRADIENTS, LOGITS, METRICS};
use super::weights::{PARAMETERS, STATISTICS};
use crate::error::Result;
use crate::gpu::range::padded;
use crate::gpu::readback::Readback;
use crate::graph::{Available, Backend, Graph, MOST_UNSENT, Shared};
use crate::model::bytes;
use crate::tensor::TensorType;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Of the host's free memory, what may be taken: the rest is for the driver, the
/// program itself, and others.
const SHARE_OF_HOST: f64 = 0.9;

/// Who says how much memory there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The user, see [`Config::memory_budget`](super::Config::memory_budget).
    Budget,
    /// The host, whose memory the device uses.
    Host,
    /// Nobody: the device does not tell.
    Unknown,
    /// There is no device.
    NoDevice,
}

impl Source {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Host => "host",
            Self::Unknown => "unknown",
            Self::NoDevice => "none",
        }
    }
}

/// The memory that may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of it, where they are known.
    pub bytes: Option<u64>,
    /// Who says so.
    pub source: Source,
}

impl Memory {
    /// What a device gives; at most `budget` MiB.
    pub(crate) fn of(budget: Option<u64>, backend: &dyn Backend) -> Self {
        let budget = budget.map(|mib| mib.saturating_mul(1 << 20));
        let (bytes, source) = match (budget, backend.available()) {
            (_, Available::NoDevice) => (None, Source::NoDevice),
            (Some(budget), _) => (Some(budget), Source::Budget),
            (None, Available::Host(free)) => {
                (Some((free as f64 * SHARE_OF_HOST) as u64), Source::Host)
            }
            (None, Available::Unknown) => (None, Source::Unknown),
        };
        Self { bytes, source }
    }
}

/// What a state is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Weights,
    Gradients,
    Optimizer,
    Activations,
    Data,
}

/// What a state of a training is for, by its name.
pub(super) fn used_for(state: &str) -> Use {
    match state {
        PARAMETERS | STATISTICS => Use::Weights,
        GRADIENTS | ACCUMULATED => Use::Gradients,
        METRICS | LOGITS => Use::Activations,
        _ if AVERAGES.contains(&state) => Use::Weights,
        _ if state.starts_with("train.") || state.starts_with("validation.") => Use::Data,
        _ => Use::Optimizer,
    }
}

/// The bytes that a training, or an inference, takes, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Parameters and running statistics, and their averages.
    pub weights: u64,
    /// Gradients, also those that are accumulated.
    pub gradients: u64,
    /// What the optimizer keeps of each parameter, with masks and parameter groups.
    pub optimizer: u64,
    /// Results of forward and backward pass, with scratch space, metrics and logits.
    pub activations: u64,
    /// Images and labels.
    pub data: u64,
    /// Textures that a software adapter reads in the stead of buffers.
    pub textures: u64,
    /// Copies on their way to the device or from it, at most.
    pub transfers: u64,
    /// What there is.
    pub memory: Memory,
    /// Whether results of the forward pass are computed again, not kept.
    pub recompute: bool,
    /// Images of a step of the validation.
    pub evaluation: Option<usize>,
}

impl Estimate {
    /// Of graphs that share a device; `used_for` tells what their states are for, `lasting` are
    /// those that are read back.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) where a graph does not stay within the device's
    /// limits.
    pub(crate) fn new<'g>(
        graphs: impl IntoIterator<Item = &'g Graph>,
        used_for: fn(&str) -> Use,
        lasting: &[(String, TensorType)],
        backend: &dyn Backend,
        memory: Memory,
    ) -> Result<Self> {
        let mut estimate = Self {
            weights: 0,
            gradients: 0,
            optimizer: 0,
            activations: 0,
            data: 0,
            textures: 0,
            transfers: 0,
            memory,
            recompute: false,
            evaluation: None,
        };
        let mut slots = Shared::default();
        let mut states: BTreeMap<&str, u64> = BTreeMap::new();
        for graph in graphs {
            let plan = backend.plan(graph)?;
            slots.place(&plan.slots);
            estimate.textures += plan.textures;
            for (name, ty) in graph.states() {
                let largest = states.entry(name).or_default();
                *largest = padded(ty.bytes()).max(*largest);
            }
        }
        estimate.activations = slots.bytes();
        for (name, bytes) in &states {
            *match used_for(name) {
                Use::Weights => &mut estimate.weights,
                Use::Gradients => &mut estimate.gradients,
                Use::Optimizer => &mut estimate.optimizer,
                Use::Activations => &mut estimate.activations,
                Use::Data => &mut estimate.data,
            } += bytes;
        }
        estimate.transfers = transfers(&states, lasting);
        Ok(estimate)
    }

    /// Its parts by name.
    pub fn parts(&self) -> [(&'static str, u64); 6] {
        [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("data", self.data),
            ("staging", self.textures + self.transfers),
        ]
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Whether there is memory enough, as far as that can be told.
    pub fn fits(&self) -> bool {
        self.memory.bytes.is_none_or(|most| self.total() <= most)
    }
}

/// The most bytes that are under way at once: what is written before the first step, in
/// portions, or later the buffers that checkpoints are read back through.
fn transfers(states: &BTreeMap<&str, u64>, lasting: &[(String, TensorType)]) -> u64 {
    let (all, largest) = (states.values().sum::<u64>(), states.values().max().copied());
    let upload = all.min(MOST_UNSENT.max(largest.unwrap_or(0)));
    let readbacks: BTreeSet<u64> = lasting
        .iter()
        .map(|(_, ty)| Readback::capacity_for(ty.bytes()))
        .collect();
    upload.max(readbacks.into_iter().sum())
}

impl fmt::Display for Estimate {
    /// `weights 0.9 MiB, …: 91.3 MiB in all, of 18.1 GiB …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts().into_iter().filter(|(_, n)| *n > 0);
        let parts: Vec<_> = parts
            .map(|(name, n)| format!("{name} {}", bytes(n)))
            .collect();
        let total = bytes(self.total());
        write!(f, "{}: {total} in all", parts.join(", "))?;
        let most = bytes(self.memory.bytes.unwrap_or(0));
        match self.memory.source {
            Source::Budget => write!(f, ", of a --memory-budget of {most}"),
            Source::Host => write!(
                f,
                ", of {most}, nine tenths of what is free in the host's memory, which the device \
                 uses"
            ),
            Source::Unknown => write!(
                f,
                "; this device does not tell how much it has, --memory-budget sets a limit"
            ),
            Source::NoDevice => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_go_in_portions_and_readbacks_share_buffers() {
        let ty = |n| TensorType::f32([n]);
        let lasting: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .zip([ty(4096), ty(4096), ty(256)])
            .map(|(name, ty)| (name.to_owned(), ty))
            .collect();
        let small = BTreeMap::from([("x", 100), ("y", 200)]);
        assert_eq!(transfers(&small, &lasting), 4 * 4096 + 1024);
        let large = BTreeMap::from([("x", MOST_UNSENT), ("y", 200)]);
        assert_eq!(transfers(&large, &lasting), MOST_UNSENT);
        let huge = BTreeMap::from([("x", 2 * MOST_UNSENT), ("y", 200)]);
        assert_eq!(transfers(&huge, &lasting), 2 * MOST_UNSENT);
    }
}
