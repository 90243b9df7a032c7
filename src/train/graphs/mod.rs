//! What a training runs, as graphs over shared states. No device is needed to build them.

mod diagnosis;
mod states;
mod update;

pub use diagnosis::Suspect;

use super::feed::{self, MAX_STEPS, Metrics};
use super::method::{Method, OnNan, Precision};
use super::weights::{PARAMETERS, STATISTICS, arenas, values_in, weight_values};
use crate::error::Result;
use crate::graph::{Arena, Graph, chunks};
use crate::model::{Mode, Model};
use crate::ops::augment::{Augmentation, Mix};
use crate::ops::binary::{Binary, BinaryOp};
use crate::ops::cross_entropy::{Labels, SoftmaxCrossEntropy};
use crate::ops::fill::Fill;
use crate::ops::loss_scale::{self, AdaptScale, Unscale};
use crate::ops::metrics::Metrics as MetricsOp;
use crate::ops::non_finite::NonFinite;
use crate::ops::optimizer::{Optimizer, Running};
use crate::ops::reduction::Reduction;
use crate::ops::{Builder, Value};
use crate::tensor::{Shape, TensorType};
use update::{first_blocks, matrices_first};

/// Images of an evaluation step, unless there are fewer or the device is too small.
pub const EVAL_BATCH: usize = 256;
/// The state that holds a row of metrics for each step of a submission.
pub(super) const METRICS: &str = "metrics";
/// The state that holds the logits of an evaluation step.
pub(super) const LOGITS: &str = "evaluation.logits";
pub(super) const GRADIENTS: &str = "gradients";
/// The layer of the loss in the graphs.
const LOSS: &str = "loss";
/// The sum of the gradients of the images since the last update.
pub(super) const ACCUMULATED: &str = "accumulated";
/// Moving averages of parameters and statistics.
pub(super) const AVERAGES: [&str; 2] = ["average.parameters", "average.statistics"];
const PREVIEW: &str = "preview";
/// What mixup and CutMix draw an image's share from.
const MIX_SHARES: &str = "mix_shares";
/// Zeros where the parameters are held at zero, ones elsewhere.
const MASK: &str = "mask";
const CLASS_WEIGHTS: &str = "class_weights";
/// The weight decay of each block of parameters and the factor of its learning rate.
const GROUPS: &str = "parameter_groups";
/// How many elements of each block of parameters are no padding.
const COUNTS: &str = "block_counts";
/// Raised where the loss or a gradient is not finite. Nothing is updated then.
const NOT_FINITE: &str = "not_finite";
/// What the loss is multiplied by before it is differentiated.
const LOSS_SCALE: &str = "loss_scale";
/// What a diagnosis finds.
const PROBES: &str = "probes";

/// The graphs of a model in training.
pub struct Graphs<'a> {
    model: &'a Model,
    method: Method,
    parameters: Arena,
    /// The elements that the arena of parameters begins with and Muon moves.
    matrices: usize,
    statistics: Arena,
    max_binding: u64,
}

impl<'a> Graphs<'a> {
    /// Graphs for devices that bind at most `max_binding` bytes of one tensor.
    pub fn new(model: &'a Model, method: impl Into<Method>, max_binding: u64) -> Self {
        let [parameters, statistics] = arenas(model);
        let method = method.into();
        let (parameters, matrices) = match method.optimizer.matrices {
            Some(_) => matrices_first(model, &parameters),
            None => (parameters, 0),
        };
        Self {
            model,
            method,
            parameters,
            matrices,
            statistics,
            max_binding,
        }
    }

    /// The states that hold the parameters and the running statistics, and how they lie there.
    pub fn arenas(&self) -> [(&'static str, Arena); 2] {
        [
            (PARAMETERS, self.parameters.clone()),
            (STATISTICS, self.statistics.clone()),
        ]
    }

    /// One training step on `batch` images of a part: gather, forward, loss and metrics,
    /// backward, and the update; where gradients are accumulated, that is a graph of
    /// [its own](Self::update).
    ///
    /// Where the loss or a gradient is not finite, nothing is changed that lasts: the step may
    /// as well not have been. By [`OnNan::Stop`] that holds for all steps after it.
    ///
    /// # Errors
    /// If an op refuses the shapes.
    pub fn training(&self, part: &feed::Part, batch: usize) -> Result<Graph> {
        let Differentiated {
            mut graph,
            weights,
            gradients,
            forward,
        } = self.gradients(part, batch)?;
        let flag = self.check_finite(&mut graph, gradients)?;
        self.unscale(&mut graph, gradients)?;
        if self.method.accumulate > 1 {
            // The loss is a mean: the sum over images is that many times its gradient.
            let weight = batch as f64;
            self.run_along(&mut graph, ACCUMULATED, GRADIENTS, Running::Sum { weight })?;
        } else {
            self.add_update(&mut graph, gradients, 1.0)?;
        }
        self.adapt_scale(&mut graph, flag)?;
        let mut graph = match self.method.recompute {
            true => graph.recomputed(forward),
            false => graph.optimized(),
        };
        if self.is_halved() {
            graph = graph.halved(&weights);
        }
        graph.guard(flag, &self.guarded_names());
        Ok(graph)
    }

    /// The graph up to the gradients.
    fn gradients(&self, part: &feed::Part, batch: usize) -> Result<Differentiated> {
        let mut graph = Graph::new();
        let normalization = self.model.normalization();
        let augmentation = &self.method.augmentation;
        let [images, labels] = part.gather(&mut graph, batch, normalization, augmentation)?;
        // Mixed images have mixed labels; metrics go by the one of the larger share.
        let [images, targets, labels] = match self.mix() {
            Some(mix) => {
                let table = graph.state(MIX_SHARES, Mix::table_type());
                let mixed = graph.add(Box::new(mix), &[images, labels, table])?;
                [mixed[0], mixed[1], mixed[2]]
            }
            None => [images, labels, labels],
        };
        let (values, weights) = weight_values(&mut graph, &self.parameters, &self.statistics)?;
        let logits = self
            .model
            .lower(&mut graph, &values, images, Mode::Training)?;
        graph.set_layer(LOSS);
        let loss = SoftmaxCrossEntropy {
            labels: match self.mix() {
                Some(_) => Labels::Soft,
                None => Labels::Hard { ignore: None },
            },
            label_smoothing: self.method.label_smoothing,
            reduction: Reduction::Mean,
        };
        let mut inputs = vec![logits, targets];
        if let Some(weights) = &self.method.class_weights {
            let ty = TensorType::f32([weights.len()]);
            inputs.push(graph.state(CLASS_WEIGHTS, ty));
        }
        let loss = graph.add(Box::new(loss), &inputs)?[0];
        add_metrics(&mut graph, logits, labels)?;
        let forward = graph.nodes().len();
        let loss = match self.loss_scale(&mut graph)? {
            Some(scale) => {
                let factor = graph.view(scale, 0, Shape::default())?;
                graph.add1(Box::new(Binary(BinaryOp::Mul)), &[loss, factor])?
            }
            None => loss,
        };
        let found = graph.gradients(loss, &weights)?;
        graph.set_layer("optimizer");
        let gradients = graph.state(GRADIENTS, self.parameters.ty());
        let targets = self.parameters.views(&mut graph, gradients)?;
        for (gradient, target) in found.into_iter().zip(targets) {
            if let Some(gradient) = gradient {
                graph.store(gradient, target)?;
            }
        }
        Ok(Differentiated {
            graph,
            weights,
            gradients,
            forward,
        })
    }

    /// Whether activations and gradients are kept in half precision.
    fn is_halved(&self) -> bool {
        self.method.precision == Precision::F16
    }

    /// The factor of the loss, where it has one.
    fn loss_scale(&self, graph: &mut Graph) -> Result<Option<Value>> {
        let has_gradients = !self.parameters.is_empty();
        let scaled = self.is_halved() && has_gradients;
        Ok(scaled.then(|| graph.state(LOSS_SCALE, loss_scale::state())))
    }

    /// Takes the factor of the loss out of the gradients again.
    fn unscale(&self, graph: &mut Graph, gradients: Value) -> Result<()> {
        let Some(scale) = self.loss_scale(graph)? else {
            return Ok(());
        };
        for chunk in self.chunks(graph, gradients)? {
            graph.add(Box::new(Unscale), &[chunk, scale])?;
        }
        Ok(())
    }

    /// Changes the factor of the loss by what the flag says of the step.
    fn adapt_scale(&self, graph: &mut Graph, flag: Value) -> Result<()> {
        if let Some(scale) = self.loss_scale(graph)? {
            let rows = graph.state(METRICS, metrics_type());
            graph.add(Box::new(AdaptScale), &[scale, flag, rows])?;
        }
        Ok(())
    }

    /// Raises the flag where a gradient, or what the step's metrics tell of, is not finite.
    fn check_finite(&self, graph: &mut Graph, gradients: Value) -> Result<Value> {
        let flag = graph.state(NOT_FINITE, TensorType::f32([1]));
        if self.method.on_nan == OnNan::Skip {
            let shape = [1].into();
            let lowered = graph.add1(Box::new(Fill { shape, value: 0.0 }), &[])?;
            graph.store(lowered, flag)?;
        }
        if self.parameters.is_empty() {
            return Ok(flag);
        }
        let rows = graph.state(METRICS, metrics_type());
        let counts = graph.state(COUNTS, self.counts().ty().clone());
        let chunks = self.chunks(graph, gradients)?;
        for (chunk, first) in chunks.iter().zip(first_blocks(graph, &chunks)) {
            let find = NonFinite {
                metrics: true,
                counted_from: Some(first),
            };
            graph.add(Box::new(find), &[flag, rows, *chunk, counts])?;
        }
        Ok(flag)
    }

    /// What must not change in a step that is not finite: all that lasts, but for the factor
    /// of the loss.
    fn guarded_names(&self) -> Vec<String> {
        let names = self.lasting_states().into_iter().map(|s| s.0);
        names.filter(|name| name != LOSS_SCALE).collect()
    }

    /// The images of a part as the model sees them, or as they are stored, in the state of
    /// [`create_preview`](Self::create_preview).
    pub(super) fn preview(&self, part: &feed::Part, augmented: bool) -> Result<Graph> {
        let mut graph = Graph::new();
        let augmentation = match augmented {
            true => self.method.augmentation.clone(),
            false => Augmentation::default(),
        };
        let normalization = self.model.normalization();
        let [mut images, labels] =
            part.gather(&mut graph, part.len, normalization, &augmentation)?;
        if let Some(mix) = self.mix().filter(|_| augmented) {
            let table = graph.state(MIX_SHARES, Mix::table_type());
            images = graph.add(Box::new(mix), &[images, labels, table])?[0];
        }
        let seen = graph.state(PREVIEW, graph.ty(images).clone());
        graph.store(images, seen)?;
        Ok(graph.without_dead_nodes())
    }

    /// The update by the gradients accumulated over `images` images, which it clears.
    ///
    /// # Errors
    /// If the parameters are too large for the device.
    pub fn update(&self, images: usize) -> Result<Graph> {
        let mut graph = Graph::new();
        graph.set_layer("optimizer");
        let gradients = graph.state(ACCUMULATED, self.parameters.ty());
        self.add_update(&mut graph, gradients, 1.0 / images as f64)?;
        for chunk in self.chunks(&mut graph, gradients)? {
            let shape = graph.ty(chunk).shape.clone();
            let zeros = graph.add1(Box::new(Fill { shape, value: 0.0 }), &[])?;
            graph.store(zeros, chunk)?;
        }
        // Gradients that are to be skipped were never put in.
        if self.method.on_nan == OnNan::Stop {
            let flag = graph.state(NOT_FINITE, TensorType::f32([1]));
            graph.guard(flag, &self.guarded_names());
        }
        Ok(graph)
    }

    /// Metrics and logits of `batch` images of a part, in inference mode.
    ///
    /// # Errors
    /// If an op refuses the shapes.
    pub fn evaluation(&self, part: &feed::Part, batch: usize) -> Result<Graph> {
        let mut graph = Graph::new();
        let normalization = self.model.normalization();
        let as_they_are = Augmentation::default();
        let [images, labels] = part.gather(&mut graph, batch, normalization, &as_they_are)?;
        let (values, _) = values_in(&mut graph, self.results())?;
        let logits = self
            .model
            .lower(&mut graph, &values, images, Mode::Inference)?;
        add_metrics(&mut graph, logits, labels)?;
        let kept = graph.state(LOGITS, self.logits_type(batch));
        graph.store(logits, kept)?;
        Ok(graph.optimized())
    }

    pub(super) fn logits_type(&self, batch: usize) -> TensorType {
        TensorType::f32([batch, self.model.classes()])
    }

    /// Views that cover a state of the parameters' layout.
    fn chunks(&self, graph: &mut Graph, of: Value) -> Result<Vec<Value>> {
        chunks(graph, of, 0, self.max_binding)
    }

    /// The optimizer, with its weight decay.
    pub(super) fn optimizer(&self) -> Optimizer {
        self.method.optimizer
    }

    /// How images are put together, if at all.
    fn mix(&self) -> Option<Mix> {
        Mix::new(&self.method.augmentation, self.model.classes())
    }
}

/// A training step up to the gradients.
struct Differentiated {
    graph: Graph,
    /// The parameters, as the layers read them.
    weights: Vec<Value>,
    /// The state that holds the gradients.
    gradients: Value,
    /// How many nodes are the forward pass.
    forward: usize,
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
