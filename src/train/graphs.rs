//! What a training runs, as graphs over shared states. No device is needed to build them.

use super::feed::{self, Metrics};
use super::method::Method;
use super::weights::{PARAMETERS, STATISTICS, Weights, arenas, upload_as, upload_weights};
use super::weights::{values_in, weight_values};
use crate::compress;
use crate::error::Result;
use crate::graph::{Arena, Backend, Graph, Part};
use crate::model::{Mode, Model};
use crate::ops::augment::{Augmentation, Mix};
use crate::ops::binary::{Binary, BinaryOp};
use crate::ops::cross_entropy::{Labels, SoftmaxCrossEntropy};
use crate::ops::fill::Fill;
use crate::ops::metrics::Metrics as MetricsOp;
use crate::ops::optimizer::{BLOCK, Clip, Running, SquaredNorm, Update};
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
/// The sum of the gradients of the images since the last update.
const ACCUMULATED: &str = "accumulated";
/// Moving averages of parameters and statistics.
const AVERAGES: [&str; 2] = ["average.parameters", "average.statistics"];
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

/// The graphs of a model in training.
pub struct Graphs<'a> {
    model: &'a Model,
    method: Method,
    parameters: Arena,
    statistics: Arena,
    max_binding: u64,
}

impl<'a> Graphs<'a> {
    /// Graphs for devices that bind at most `max_binding` bytes of one tensor.
    pub fn new(model: &'a Model, method: impl Into<Method>, max_binding: u64) -> Self {
        let [parameters, statistics] = arenas(model);
        Self {
            model,
            method: method.into(),
            parameters,
            statistics,
            max_binding,
        }
    }

    /// One training step on `batch` images of a part: gather, forward, loss and metrics,
    /// backward, and the update; where gradients are accumulated, that is a graph of
    /// [its own](Self::update).
    ///
    /// # Errors
    /// If an op refuses the shapes.
    pub fn training(&self, part: &feed::Part, batch: usize) -> Result<Graph> {
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
        graph.set_layer("loss");
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
        let found = graph.gradients(loss, &weights)?;
        graph.set_layer("optimizer");
        let gradients = graph.state(GRADIENTS, self.parameters.ty());
        let targets = self.parameters.views(&mut graph, gradients)?;
        for (gradient, target) in found.into_iter().zip(targets) {
            if let Some(gradient) = gradient {
                graph.store(gradient, target)?;
            }
        }
        if self.method.accumulate > 1 {
            // The loss is a mean: the sum over images is that many times its gradient.
            let weight = batch as f64;
            self.run_along(&mut graph, ACCUMULATED, GRADIENTS, Running::Sum { weight })?;
        } else {
            self.add_update(&mut graph, gradients, 1.0)?;
        }
        Ok(graph.optimized())
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

    /// Creates the states that [`preview`](Self::preview) needs besides the part's own, and
    /// names the one that the images come to lie in.
    pub(super) fn create_preview(
        &self,
        part: &feed::Part,
        backend: &mut dyn Backend,
    ) -> Result<&'static str> {
        if let Some(mix) = self.mix() {
            backend.create(MIX_SHARES, &Mix::table_type())?;
            backend.write(MIX_SHARES, &mix.table())?;
        }
        let [c, h, w] = self.model.input();
        backend.create(PREVIEW, &TensorType::f32([part.len, c, h, w]))?;
        Ok(PREVIEW)
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
        Ok(graph)
    }

    /// Metrics of `batch` images of a part, in inference mode.
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
        Ok(graph.optimized())
    }

    /// The states that are evaluated and saved.
    fn results(&self) -> [(&'static str, &Arena); 2] {
        let [parameters, statistics] = match self.method.ema {
            Some(_) => AVERAGES,
            None => [PARAMETERS, STATISTICS],
        };
        [
            (parameters, &self.parameters),
            (statistics, &self.statistics),
        ]
    }

    /// Views that cover a state of the parameters' layout.
    fn chunks(&self, graph: &mut Graph, of: Value) -> Result<Vec<Value>> {
        self.parameters.chunks(graph, of, self.max_binding)
    }

    /// Takes the state `new` of the parameters' layout into the state `running`.
    fn run_along(&self, graph: &mut Graph, running: &str, new: &str, op: Running) -> Result<()> {
        let arena = match new {
            STATISTICS => &self.statistics,
            _ => &self.parameters,
        };
        if arena.is_empty() {
            return Ok(());
        }
        let states = [running, new].map(|name| graph.state(name, arena.ty()));
        let [running, new] = states.map(|s| arena.chunks(graph, s, self.max_binding));
        for (running, new) in running?.into_iter().zip(new?) {
            graph.add(Box::new(op), &[running, new])?;
        }
        Ok(())
    }

    /// Adds the update of the parameters by `scale` times the gradients, and of the
    /// averages.
    fn add_update(&self, graph: &mut Graph, gradients: Value, scale: f64) -> Result<()> {
        self.add_optimizer(graph, gradients, scale)?;
        if self.method.prunes {
            self.run_along(graph, PARAMETERS, MASK, Running::Mask)?;
        }
        if let Some(decay) = self.method.ema {
            for (average, new) in AVERAGES.into_iter().zip([PARAMETERS, STATISTICS]) {
                self.run_along(graph, average, new, Running::Average { decay })?;
            }
            if self.method.prunes {
                self.run_along(graph, AVERAGES[0], MASK, Running::Mask)?;
            }
        }
        Ok(())
    }

    fn add_optimizer(&self, graph: &mut Graph, gradients: Value, scale: f64) -> Result<()> {
        if self.parameters.is_empty() {
            return Ok(());
        }
        let mut states = vec![graph.state(PARAMETERS, self.parameters.ty()), gradients];
        for (name, _) in self.method.optimizer.rule.states() {
            states.push(graph.state(optimizer_state(name), self.parameters.ty()));
        }
        let chunks = states
            .into_iter()
            .map(|s| self.chunks(graph, s))
            .collect::<Result<Vec<_>>>()?;
        let norm = self.squared_norm(graph, &chunks[1])?;
        let groups = self.groups();
        let groups = groups.map(|g| graph.state(GROUPS, g.ty().clone()));
        for (i, first) in first_blocks(graph, &chunks[0]).into_iter().enumerate() {
            let mut inputs: Vec<Value> = chunks.iter().map(|c| c[i]).collect();
            inputs.extend(groups);
            inputs.extend(norm);
            let update = Update {
                groups_from: groups.map(|_| first),
                clip: self.method.clip,
                scale,
                ..Update::new(self.method.optimizer)
            };
            graph.add(Box::new(update), &inputs)?;
        }
        Ok(())
    }

    /// How images are put together, if at all.
    fn mix(&self) -> Option<Mix> {
        Mix::new(&self.method.augmentation, self.model.classes())
    }

    /// The squared norm of the gradients in these chunks, where they are clipped by it.
    fn squared_norm(&self, graph: &mut Graph, chunks: &[Value]) -> Result<Option<Value>> {
        let Some(Clip::Norm(_)) = self.method.clip else {
            return Ok(None);
        };
        let counts = graph.state(COUNTS, self.counts().ty().clone());
        let mut total = None;
        for (chunk, first_block) in chunks.iter().zip(first_blocks(graph, chunks)) {
            let part = graph.add1(Box::new(SquaredNorm { first_block }), &[*chunk, counts])?;
            total = Some(match total {
                None => part,
                Some(sum) => graph.add1(Box::new(Binary(BinaryOp::Add)), &[sum, part])?,
            });
        }
        Ok(total)
    }

    /// The weight decay of each block and the factor of its learning rate, unless they are
    /// the same for all.
    fn groups(&self) -> Option<Array> {
        let decay = self.method.optimizer.weight_decay;
        let of = |part: &Part| {
            let spared = part.shape.dims().len() <= 1 && !self.method.decay_all;
            let decay = if spared { 0.0 } else { decay };
            [decay, self.method.rate_factor(&part.name)]
        };
        if self
            .parameters
            .parts()
            .iter()
            .all(|p| of(p) == [decay, 1.0])
        {
            return None;
        }
        let groups: Vec<f64> = self.parameters.blocks().flat_map(|(p, _)| of(p)).collect();
        Some(Array::float(TensorType::f32([groups.len() / 2, 2]), groups))
    }

    fn counts(&self) -> Array {
        let counts: Vec<u32> = self.parameters.blocks().map(|(_, n)| n as u32).collect();
        Array::index(TensorType::u32([counts.len()]), counts)
    }

    /// What the update reads besides parameters, gradients and the optimizer's states.
    fn constants(&self) -> Vec<(&'static str, Array)> {
        let weights = self.method.class_weights.as_ref();
        let weights = weights.map(|w| Array::float(TensorType::f32([w.len()]), w.clone()));
        let clips_norm = matches!(self.method.clip, Some(Clip::Norm(_)));
        [
            (MIX_SHARES, self.mix().map(|mix| mix.table())),
            (CLASS_WEIGHTS, weights),
            (GROUPS, self.groups()),
            (COUNTS, clips_norm.then(|| self.counts())),
        ]
        .into_iter()
        .filter_map(|(name, content)| Some((name, content?)))
        .collect()
    }

    /// Creates and fills the states of weights, gradients, optimizer and metrics.
    pub(super) fn create_states(&self, backend: &mut dyn Backend, weights: &Weights) -> Result<()> {
        upload_weights(backend, &self.parameters, &self.statistics, weights)?;
        if self.method.ema.is_some() {
            upload_as(backend, self.results(), weights)?;
        }
        let ty = self.parameters.ty();
        if self.method.prunes && !self.parameters.is_empty() {
            let ones = vec![1.0; self.parameters.len()];
            backend.create(MASK, &ty)?;
            backend.write(MASK, &Array::float(ty.clone(), ones))?;
        }
        backend.create(GRADIENTS, &ty)?;
        if self.method.accumulate > 1 {
            backend.create(ACCUMULATED, &ty)?;
        }
        for (name, initial) in self.method.optimizer.rule.states() {
            let values = vec![*initial; self.parameters.len()];
            let name = optimizer_state(name);
            backend.create(&name, &ty)?;
            backend.write(&name, &Array::float(ty.clone(), values))?;
        }
        for (name, content) in self.constants() {
            backend.create(name, content.ty())?;
            backend.write(name, &content)?;
        }
        backend.create(METRICS, &metrics_type())
    }

    /// The states that steps change and the next ones build on, with their types. A
    /// checkpoint is their content.
    pub(super) fn lasting_states(&self) -> Vec<(String, TensorType)> {
        let mut states = vec![
            (PARAMETERS.to_owned(), self.parameters.ty()),
            (STATISTICS.to_owned(), self.statistics.ty()),
        ];
        for (name, _) in self.method.optimizer.rule.states() {
            states.push((optimizer_state(name), self.parameters.ty()));
        }
        if self.method.ema.is_some() {
            states.extend(
                self.results()
                    .map(|(name, arena)| (name.into(), arena.ty())),
            );
        }
        if self.method.accumulate > 1 {
            states.push((ACCUMULATED.to_owned(), self.parameters.ty()));
        }
        if self.method.prunes {
            states.push((MASK.to_owned(), self.parameters.ty()));
        }
        states.retain(|(_, ty)| !ty.shape.is_empty());
        states
    }

    /// Makes the share `sparsity` of each weight zero, the smallest magnitudes, and keeps it
    /// that from now on.
    pub(super) fn prune(&self, backend: &mut dyn Backend, sparsity: f64) -> Result<()> {
        if self.parameters.is_empty() {
            return Ok(());
        }
        let read = |backend: &mut dyn Backend, state| {
            let parts = self.parameters.unpack(&backend.read(state)?)?;
            Ok(parts.into_iter().collect::<Weights>())
        };
        let pack = |tensors: &Weights| self.parameters.pack(|part| Ok(&tensors[&part.name]));
        let parameters = read(backend, PARAMETERS)?;
        let mask = compress::mask(&parameters, sparsity);
        backend.write(MASK, &pack(&mask)?)?;
        backend.write(PARAMETERS, &pack(&compress::masked(&parameters, &mask))?)?;
        if self.method.ema.is_some() {
            let averages = read(backend, AVERAGES[0])?;
            backend.write(AVERAGES[0], &pack(&compress::masked(&averages, &mask))?)?;
        }
        Ok(())
    }

    /// Reads all weights back; their averages, where they are averaged.
    pub(super) fn read_weights(&self, backend: &mut dyn Backend) -> Result<Weights> {
        let mut weights = Weights::new();
        for (state, arena) in self.results() {
            if !arena.is_empty() {
                weights.extend(arena.unpack(&backend.read(state)?)?);
            }
        }
        Ok(weights)
    }
}

/// The block of the arena that each of its chunks begins with.
fn first_blocks(graph: &Graph, chunks: &[Value]) -> Vec<usize> {
    let mut next = 0;
    let begin = |chunk: &Value| {
        let first = next;
        next += graph.ty(*chunk).shape.len() / BLOCK;
        first
    };
    chunks.iter().map(begin).collect()
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
