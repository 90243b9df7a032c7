//! What a training runs, as graphs over shared states. No device is needed to build them.

use super::feed::{Metrics, Part};
use super::weights::{PARAMETERS, STATISTICS, Weights, arenas, upload_weights, weight_values};
use crate::error::Result;
use crate::graph::{Arena, Backend, Graph};
use crate::model::{Mode, Model};
use crate::ops::cross_entropy::{Labels, SoftmaxCrossEntropy};
use crate::ops::metrics::Metrics as MetricsOp;
use crate::ops::optimizer::{Optimizer, Update};
use crate::ops::reduction::Reduction;
use crate::ops::{Array, Builder, Value};
use crate::tensor::TensorType;

/// Images of an evaluation step, unless there are fewer or the device is too small.
pub const EVAL_BATCH: usize = 256;
/// Most steps in a submission; rows of the metrics state.
pub(super) const MAX_STEPS: usize = 64;
/// The state that holds a row of metrics for each step of a submission.
pub(super) const METRICS: &str = "metrics";
const GRADIENTS: &str = "gradients";

/// The graphs of a model in training.
pub struct Graphs<'a> {
    model: &'a Model,
    optimizer: Optimizer,
    parameters: Arena,
    statistics: Arena,
    max_binding: u64,
}

impl<'a> Graphs<'a> {
    /// Graphs for devices that bind at most `max_binding` bytes of one tensor.
    pub fn new(model: &'a Model, optimizer: Optimizer, max_binding: u64) -> Self {
        let [parameters, statistics] = arenas(model);
        Self {
            model,
            optimizer,
            parameters,
            statistics,
            max_binding,
        }
    }

    /// One training step on `batch` images of a part: gather, forward, loss and metrics,
    /// backward, update.
    ///
    /// # Errors
    /// If an op refuses the shapes.
    pub fn training(&self, part: &Part, batch: usize) -> Result<Graph> {
        let mut graph = Graph::new();
        let [images, labels] = part.gather(&mut graph, batch, self.model.normalization())?;
        let (values, weights) = weight_values(&mut graph, &self.parameters, &self.statistics)?;
        let logits = self
            .model
            .lower(&mut graph, &values, images, Mode::Training)?;
        graph.set_layer("loss");
        let loss = SoftmaxCrossEntropy {
            labels: Labels::Hard { ignore: None },
            label_smoothing: 0.0,
            reduction: Reduction::Mean,
        };
        let loss = graph.add(Box::new(loss), &[logits, labels])?[0];
        add_metrics(&mut graph, logits, labels)?;
        let found = graph.gradients(loss, &weights)?;
        graph.set_layer("optimizer");
        let gradients = graph.state(GRADIENTS, self.parameters.ty());
        let targets = self.parameters.views(&mut graph, gradients)?;
        for (gradient, target) in found.into_iter().zip(targets) {
            if let Some(gradient) = gradient {
                graph.store(gradient, target)?;
            }
        }
        self.add_optimizer(&mut graph, gradients)?;
        Ok(graph.optimized())
    }

    /// Metrics of `batch` images of a part, in inference mode.
    ///
    /// # Errors
    /// If an op refuses the shapes.
    pub fn evaluation(&self, part: &Part, batch: usize) -> Result<Graph> {
        let mut graph = Graph::new();
        let [images, labels] = part.gather(&mut graph, batch, self.model.normalization())?;
        let (values, _) = weight_values(&mut graph, &self.parameters, &self.statistics)?;
        let logits = self
            .model
            .lower(&mut graph, &values, images, Mode::Inference)?;
        add_metrics(&mut graph, logits, labels)?;
        Ok(graph.optimized())
    }

    fn add_optimizer(&self, graph: &mut Graph, gradients: Value) -> Result<()> {
        if self.parameters.is_empty() {
            return Ok(());
        }
        let mut states = vec![graph.state(PARAMETERS, self.parameters.ty()), gradients];
        for (name, _) in self.optimizer.rule.states() {
            states.push(graph.state(optimizer_state(name), self.parameters.ty()));
        }
        let chunks = states
            .into_iter()
            .map(|s| self.parameters.chunks(graph, s, self.max_binding))
            .collect::<Result<Vec<_>>>()?;
        for i in 0..chunks[0].len() {
            let inputs: Vec<Value> = chunks.iter().map(|c| c[i]).collect();
            graph.add(Box::new(Update(self.optimizer)), &inputs)?;
        }
        Ok(())
    }

    /// Creates and fills the states of weights, gradients, optimizer and metrics.
    pub(super) fn create_states(&self, backend: &mut dyn Backend, weights: &Weights) -> Result<()> {
        upload_weights(backend, &self.parameters, &self.statistics, weights)?;
        let ty = self.parameters.ty();
        backend.create(GRADIENTS, &ty)?;
        for (name, initial) in self.optimizer.rule.states() {
            let values = vec![*initial; self.parameters.len()];
            let name = optimizer_state(name);
            backend.create(&name, &ty)?;
            backend.write(&name, &Array::float(ty.clone(), values))?;
        }
        backend.create(METRICS, &metrics_type())
    }

    /// Reads all weights back.
    pub(super) fn read_weights(&self, backend: &mut dyn Backend) -> Result<Weights> {
        let mut weights = Weights::new();
        for (state, arena) in [
            (PARAMETERS, &self.parameters),
            (STATISTICS, &self.statistics),
        ] {
            if !arena.is_empty() {
                weights.extend(arena.unpack(&backend.read(state)?)?);
            }
        }
        Ok(weights)
    }
}

fn optimizer_state(name: &str) -> String {
    format!("optimizer.{name}")
}

fn metrics_type() -> TensorType {
    TensorType::f32([MAX_STEPS, Metrics::ROW])
}

fn add_metrics(graph: &mut Graph, logits: Value, labels: Value) -> Result<()> {
    graph.set_layer("metrics");
    let rows = graph.state(METRICS, metrics_type());
    graph.add(Box::new(MetricsOp), &[rows, logits, labels])?;
    Ok(())
}
