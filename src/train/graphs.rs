//! What a training runs, as graphs over shared states. No device is needed to build them.

use super::feed::{self, Metrics};
use super::method::{Method, OnNan, Precision};
use super::weights::{PARAMETERS, STATISTICS, Weights, arenas, upload_as, upload_weights};
use super::weights::{values_in, weight_values};
use crate::compress;
use crate::error::Result;
use crate::graph::{Arena, Backend, Graph, Part, Probe, chunks};
use crate::model::{Layer, Mode, Model, ParameterSpec};
use crate::ops::augment::{Augmentation, Mix};
use crate::ops::binary::{Binary, BinaryOp};
use crate::ops::cross_entropy::{Labels, SoftmaxCrossEntropy};
use crate::ops::fill::Fill;
use crate::ops::loss_scale::{self, AdaptScale, Unscale};
use crate::ops::metrics::Metrics as MetricsOp;
use crate::ops::muon::Muon;
use crate::ops::non_finite::NonFinite;
use crate::ops::optimizer::{BLOCK, Clip, Optimizer, Running, SquaredNorm, Update};
use crate::ops::reduction::Reduction;
use crate::ops::{Array, Builder, Step, Value};
use crate::tensor::{Shape, TensorType};
use std::fmt;

/// Images of an evaluation step, unless there are fewer or the device is too small.
pub const EVAL_BATCH: usize = 256;
/// Most steps in a submission; rows of the metrics state.
pub(super) const MAX_STEPS: usize = 64;
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
        chunks(graph, of, 0, self.max_binding)
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
        let [running, new] = states.map(|s| chunks(graph, s, 0, self.max_binding));
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
        let parameters = graph.state(PARAMETERS, self.parameters.ty());
        let mut states = vec![(parameters, 0), (gradients, 0)];
        for state in self.optimizer_states() {
            states.push((graph.state(state.name, state.ty), state.first));
        }
        self.add_muon(graph, &states, scale)?;
        if self.matrices == self.parameters.len() {
            return Ok(());
        }
        let chunks = states
            .into_iter()
            .map(|(s, first)| chunks(graph, s, self.matrices - first, self.max_binding))
            .collect::<Result<Vec<_>>>()?;
        let norm = self.squared_norm(graph, &chunks[1])?;
        let groups = self.groups();
        let groups = groups.map(|g| graph.state(GROUPS, g.ty().clone()));
        for (i, first) in first_blocks(graph, &chunks[0]).into_iter().enumerate() {
            let mut inputs: Vec<Value> = chunks.iter().map(|c| c[i]).collect();
            inputs.extend(groups);
            inputs.extend(norm);
            let update = Update {
                groups_from: groups.map(|_| first + self.matrices / BLOCK),
                clip: self.method.clip,
                scale,
                ..Update::new(self.method.optimizer)
            };
            graph.add(Box::new(update), &inputs)?;
        }
        Ok(())
    }

    /// Moves the matrices, each by a node of its own.
    fn add_muon(&self, graph: &mut Graph, states: &[(Value, usize)], scale: f64) -> Result<()> {
        let Some(rule) = self.method.optimizer.matrices else {
            return Ok(());
        };
        for part in self.parameters.parts() {
            if part.offset >= self.matrices {
                break;
            }
            let rows = part.shape[0];
            let matrix = [rows, part.shape.len() / rows];
            // Parameters, gradients and the first state, which is the momentum.
            let inputs = states[..3].iter();
            let inputs = inputs.map(|(s, first)| graph.view(*s, part.offset - first, matrix));
            let inputs = inputs.collect::<Result<Vec<_>>>()?;
            let op = Muon {
                rule,
                weight_decay: self.method.optimizer.weight_decay,
                rate: self.method.rate_factor(&part.name),
                scale,
            };
            graph.add(Box::new(op), &inputs)?;
        }
        Ok(())
    }

    /// What the optimizer keeps.
    fn optimizer_states(&self) -> Vec<OptimizerState> {
        let states = self.method.optimizer.rule.states().iter();
        let of = |(i, (name, initial)): (usize, &(&str, f64))| {
            // Muon has a momentum, AdamW's first state, and no more.
            let first = if i == 0 { 0 } else { self.matrices };
            OptimizerState {
                name: format!("optimizer.{name}"),
                initial: *initial,
                ty: TensorType::f32([self.parameters.len() - first]),
                first,
            }
        };
        let states = states.enumerate().map(of);
        states.filter(|s| !s.ty.shape.is_empty()).collect()
    }

    /// The optimizer, with its weight decay.
    pub(super) fn optimizer(&self) -> Optimizer {
        self.method.optimizer
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
        let counts = (!self.parameters.is_empty()).then(|| self.counts());
        [
            (MIX_SHARES, self.mix().map(|mix| mix.table())),
            (CLASS_WEIGHTS, weights),
            (GROUPS, self.groups()),
            (COUNTS, counts),
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
        for OptimizerState {
            name, initial, ty, ..
        } in self.optimizer_states()
        {
            let values = vec![initial; ty.shape.len()];
            backend.create(&name, &ty)?;
            backend.write(&name, &Array::float(ty, values))?;
        }
        for (name, content) in self.constants() {
            backend.create(name, content.ty())?;
            backend.write(name, &content)?;
        }
        if self.is_halved() {
            let initial = vec![loss_scale::INITIAL, 0.0];
            backend.create(LOSS_SCALE, &loss_scale::state())?;
            backend.write(LOSS_SCALE, &Array::float(loss_scale::state(), initial))?;
        }
        backend.create(NOT_FINITE, &TensorType::f32([1]))?;
        backend.create(METRICS, &metrics_type())
    }

    /// The states that steps change and the next ones build on, with their types. A
    /// checkpoint is their content.
    pub(super) fn lasting_states(&self) -> Vec<(String, TensorType)> {
        let mut states = vec![
            (PARAMETERS.to_owned(), self.parameters.ty()),
            (STATISTICS.to_owned(), self.statistics.ty()),
        ];
        let kept = self.optimizer_states().into_iter();
        states.extend(kept.map(|s| (s.name, s.ty)));
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
        if self.is_halved() {
            states.push((LOSS_SCALE.to_owned(), loss_scale::state()));
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

    /// Takes a step on a backend that holds the states, changing nothing that lasts, and tells
    /// which value is the first that is not finite; `None` where all are.
    pub(super) fn diagnose(
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

    /// Reads the weights as they are in training back, without their averages.
    pub(super) fn read_parameters(&self, backend: &mut dyn Backend) -> Result<Weights> {
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

/// A state of the optimizer.
struct OptimizerState {
    name: String,
    initial: f64,
    ty: TensorType,
    /// The element of the parameters that its first belongs to.
    first: usize,
}

/// The arena with the matrices that Muon moves in front, and their elements: all parameters of
/// two axes or more but those of the last layer, as its author recommends, and of depthwise
/// and grouped convolutions, which are no matrices but many.
fn matrices_first(model: &Model, arena: &Arena) -> (Arena, usize) {
    let head = model.parameters().last().map_or("", ParameterSpec::layer);
    let split = |layer: &str| {
        let named = model.layers().iter().find(|l| l.name == layer);
        named.is_some_and(|l| match &l.layer {
            Layer::DepthwiseConv2d(_) => true,
            Layer::Conv2d(convolution) => convolution.groups > 1,
            _ => false,
        })
    };
    let is_matrix = |part: &Part| {
        let layer = part.name.rsplit_once('.').map_or("", |(layer, _)| layer);
        part.shape.rank() >= 2 && layer != head && !split(layer)
    };
    let (matrices, rest): (Vec<_>, Vec<_>) = arena.parts().iter().partition(|p| is_matrix(p));
    let named = |parts: &[&Part]| -> Vec<_> {
        let parts = parts.iter();
        parts.map(|p| (p.name.clone(), p.shape.clone())).collect()
    };
    let elements = Arena::new(named(&matrices)).len();
    (
        Arena::new([named(&matrices), named(&rest)].concat()),
        elements,
    )
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
