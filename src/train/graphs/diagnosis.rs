//! Which value of a step is the first that is not finite.

use super::{Differentiated, Graphs, LOSS, PROBES};
use crate::error::Result;
use crate::graph::{Backend, Graph, Probe};
use crate::ops::Step;
use crate::tensor::TensorType;
use crate::train::feed;
use std::fmt;

impl Graphs<'_> {
    /// A step that changes nothing that lasts, and tells of each of its values whether it is
    /// finite.
    ///
    /// # Errors
    /// If an op refuses the shapes.
    pub fn diagnosis(
        &self,
        part: &feed::Part,
        batch: usize,
    ) -> Result<(Graph, TensorType, Vec<Probe>)> {
        let Differentiated { graph, weights, .. } = self.gradients(part, batch)?;
        let mut graph = graph.optimized();
        if self.is_halved() {
            graph = graph.halved(&weights);
        }
        graph.probed(PROBES, &self.guarded_names())
    }

    /// Takes a step on a backend that holds the states, changing nothing that lasts, and tells
    /// which value is the first that is not finite; `None` where all are.
    pub(in crate::train) fn diagnose(
        &self,
        backend: &mut dyn Backend,
        part: &feed::Part,
        batch: usize,
        step: &Step,
    ) -> Result<Option<Suspect>> {
        let (graph, ty, probes) = self.diagnosis(part, batch)?;
        backend.create(PROBES, &ty)?;
        let program = backend.compile(graph)?;
        backend.run(program, std::slice::from_ref(step))?;
        let flags = backend.read(PROBES)?;
        let raised = |probe: &&Probe| flags.f()[probe.flag] != 0.0;
        let loss = probes.iter().position(|p| p.layer == LOSS);
        let first = probes.iter().enumerate().find(|(_, p)| raised(p));
        Ok(first.map(|(i, probe)| {
            let (layer, op) = (probe.layer.clone(), probe.op);
            match loss.is_some_and(|loss| i > loss) {
                true => Suspect::Gradient { layer, op },
                false => Suspect::Output { layer, op },
            }
        }))
    }
}

/// The first value that was not finite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspect {
    /// A weight of this name, before the step.
    Weight(String),
    /// The result of an op of a layer, going forward.
    Output {
        /// The layer, or `input` or `loss`.
        layer: String,
        /// The op within it.
        op: &'static str,
    },
    /// The gradient computed by an op of a layer.
    Gradient {
        /// The layer, or `loss`.
        layer: String,
        /// The op within it.
        op: &'static str,
    },
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weight(name) => write!(f, "the weight {name}"),
            Self::Output { layer, op } => write!(f, "the output of layer {layer} ({op})"),
            Self::Gradient { layer, op } => write!(f, "a gradient of layer {layer} ({op})"),
        }
    }
}
