//! A model in training on a device: its states and programs, and running them.

use super::feed::{Metrics, Part};
use super::pace::Pace;
use super::weights::{PARAMETERS, STATISTICS, arenas, upload_weights, weight_values};
use super::{Config, Event, Weights};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::gpu::executor::Counters;
use crate::graph::{Arena, Backend, Graph, Profile, Program, Ticket, advise_batch};
use crate::model::{Mode, Model};
use crate::ops::batch::Shuffle;
use crate::ops::cross_entropy::{Labels, SoftmaxCrossEntropy};
use crate::ops::metrics::Metrics as MetricsOp;
use crate::ops::optimizer::{Optimizer, Update};
use crate::ops::reduction::Reduction;
use crate::ops::{Array, Builder, Step, Value};
use crate::tensor::TensorType;
use std::collections::VecDeque;
use std::time::Instant;

/// Most steps in a submission; rows of the metrics state.
const MAX_STEPS: usize = 64;
/// Submissions in flight: one runs, one waits, one is being encoded.
const IN_FLIGHT: usize = 3;
/// Images of an evaluation step, unless there are fewer.
const EVAL_BATCH: usize = 256;

const METRICS: &str = "metrics";
const GRADIENTS: &str = "gradients";

/// A model in training on a device.
pub struct Session<'a> {
    model: &'a Model,
    config: &'a Config,
    optimizer: Optimizer,
    backend: Box<dyn Backend>,
    parameters: Arena,
    statistics: Arena,
    train: Part,
    validation: Option<Part>,
    programs: Programs,
    steps_taken: u32,
    pace: Pace,
    steady: Counters,
}

#[derive(Clone, Copy)]
struct Programs {
    train: Program,
    /// The last, smaller batch of an epoch, where the images do not divide.
    rest: Option<Program>,
    shuffle: Program,
    evaluate: Option<Program>,
}

/// A submission on its way back.
struct InFlight {
    ticket: Ticket,
    steps: Vec<Step>,
    images: usize,
}

impl<'a> Session<'a> {
    /// Uploads data and weights and compiles the programs.
    ///
    /// # Errors
    /// If data and model do not fit, or the device is too small; then with the largest
    /// batch that would do.
    pub fn new(
        model: &'a Model,
        data: &Dataset,
        config: &'a Config,
        weights: &Weights,
        mut backend: Box<dyn Backend>,
    ) -> Result<Self> {
        check_fit(model, data)?;
        let limited = match config.limit {
            Some(limit) => data.train.first(limit),
            None => data.train.clone(),
        };
        let (train, validation) = match config.val_split {
            Some(fraction) => {
                let [train, validation] = limited.cut(fraction)?;
                (train, Some(validation))
            }
            None => (limited, data.test.clone()),
        };
        if config.batch_size > train.len() {
            return Err(Error::Usage(format!(
                "--batch-size {} is larger than the {} training images",
                config.batch_size,
                train.len()
            )));
        }
        let limit = backend.max_binding();
        let train = Part::upload("train", &train, data.shape, limit, &mut *backend)?;
        let validation = validation
            .map(|v| Part::upload("validation", &v, data.shape, limit, &mut *backend))
            .transpose()?;
        let optimizer = config.optimizer()?;
        let [parameters, statistics] = arenas(model);
        create_states(&mut *backend, &parameters, &statistics, weights, &optimizer)?;
        let mut session = Self {
            model,
            config,
            optimizer,
            backend,
            parameters,
            statistics,
            train,
            validation,
            programs: Programs {
                train: Program::NONE,
                rest: None,
                shuffle: Program::NONE,
                evaluate: None,
            },
            steps_taken: 0,
            pace: Pace::new(MAX_STEPS),
            steady: Counters::default(),
        };
        session.compile()?;
        Ok(session)
    }

    fn compile(&mut self) -> Result<()> {
        let rest = self.train.len % self.config.batch_size;
        self.programs.train = self.compile_training(self.config.batch_size)?;
        if rest > 0 {
            self.programs.rest = Some(self.compile_training(rest)?);
        }
        let mut graph = Graph::new();
        graph.set_layer("shuffle");
        let order = graph.state(self.train.order(), TensorType::u32([self.train.len]));
        graph.add(Box::new(Shuffle), &[order])?;
        self.programs.shuffle = self.backend.compile(graph)?;
        if let Some(part) = &self.validation {
            let batch = part.len.min(EVAL_BATCH);
            let graph = self.evaluation_graph(part, batch)?;
            self.programs.evaluate = Some(self.backend.compile(graph)?);
        }
        Ok(())
    }

    fn compile_training(&mut self, batch: usize) -> Result<Program> {
        let graph = self.training_graph(batch)?;
        self.backend
            .compile(graph)
            .map_err(|error| advise_batch(error, batch, &*self.backend, |n| self.training_graph(n)))
    }

    fn training_graph(&self, batch: usize) -> Result<Graph> {
        let mut graph = Graph::new();
        let normalization = self.model.normalization();
        let [images, labels] = self.train.gather(&mut graph, batch, normalization)?;
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
        self.add_metrics(&mut graph, logits, labels)?;
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

    fn evaluation_graph(&self, part: &Part, batch: usize) -> Result<Graph> {
        let mut graph = Graph::new();
        let normalization = self.model.normalization();
        let [images, labels] = part.gather(&mut graph, batch, normalization)?;
        let (values, _) = weight_values(&mut graph, &self.parameters, &self.statistics)?;
        let logits = self
            .model
            .lower(&mut graph, &values, images, Mode::Inference)?;
        self.add_metrics(&mut graph, logits, labels)?;
        Ok(graph.optimized())
    }

    fn add_metrics(&self, graph: &mut Graph, logits: Value, labels: Value) -> Result<()> {
        graph.set_layer("metrics");
        let rows = graph.state(METRICS, TensorType::f32([MAX_STEPS, Metrics::ROW]));
        graph.add(Box::new(MetricsOp), &[rows, logits, labels])?;
        Ok(())
    }

    fn add_optimizer(&self, graph: &mut Graph, gradients: Value) -> Result<()> {
        if self.parameters.is_empty() {
            return Ok(());
        }
        let mut states = vec![graph.state(PARAMETERS, self.parameters.ty()), gradients];
        for (name, _) in self.optimizer.rule.states() {
            states.push(graph.state(format!("optimizer.{name}"), self.parameters.ty()));
        }
        let limit = self.backend.max_binding();
        let chunks = states
            .into_iter()
            .map(|s| self.parameters.chunks(graph, s, limit))
            .collect::<Result<Vec<_>>>()?;
        for i in 0..chunks[0].len() {
            let inputs: Vec<Value> = chunks.iter().map(|c| c[i]).collect();
            graph.add(Box::new(Update(self.optimizer)), &inputs)?;
        }
        Ok(())
    }

    /// The event that opens a training.
    pub fn start_event(&self) -> Event {
        let (states, slots) = self.backend.memory();
        Event::Start {
            device: self.backend.describe(),
            parameters: self.model.parameter_count(),
            images: [
                self.train.len,
                self.validation.as_ref().map_or(0, |v| v.len),
            ],
            memory: [states, slots],
        }
    }

    /// Trains one epoch, numbered from 1.
    ///
    /// # Errors
    /// If the device fails.
    pub fn train_epoch(&mut self, epoch: usize, observe: &mut dyn FnMut(Event)) -> Result<Metrics> {
        let before = self.backend.counters();
        if self.config.shuffle {
            let step = Step {
                number: epoch as u32,
                seed: self.config.seed,
                ..Step::default()
            };
            self.backend.run(self.programs.shuffle, &[step])?;
        }
        let mut progress = Progress::new(epoch, self.train.len, self.config.log_every);
        let mut flying: VecDeque<InFlight> = VecDeque::new();
        let mut first = 0;
        self.pace.pause();
        while first < self.train.len || !flying.is_empty() {
            if first < self.train.len && flying.len() < IN_FLIGHT {
                let sent = self.submit_training(first)?;
                first += sent.images;
                flying.push_back(sent);
            } else if let Some(oldest) = flying.pop_front() {
                let rows = self.collect(&oldest)?;
                self.pace.finished(oldest.steps.len());
                progress.add(&oldest, &rows, observe);
            }
        }
        self.count_steady(before);
        Ok(progress.metrics)
    }

    fn submit_training(&mut self, first: usize) -> Result<InFlight> {
        let batch = self.config.batch_size;
        let whole = (self.train.len - first) / batch;
        let (program, count, size) = match (whole, self.programs.rest) {
            (0, Some(rest)) => (rest, 1, self.train.len - first),
            _ => (self.programs.train, whole.min(self.pace.steps()), batch),
        };
        let steps: Vec<Step> = (0..count)
            .map(|slot| self.next_step(slot, first + slot * size, size))
            .collect();
        let ticket = self.backend.run_and_read(program, &steps, METRICS)?;
        Ok(InFlight {
            ticket,
            images: count * size,
            steps,
        })
    }

    fn next_step(&mut self, slot: usize, first: usize, count: usize) -> Step {
        self.steps_taken += 1;
        let (correction1, correction2) = self.optimizer.corrections(self.steps_taken);
        Step {
            number: self.steps_taken,
            seed: self.config.seed,
            first: first as u32,
            count: count as u32,
            slot: slot as u32,
            learning_rate: self.config.learning_rate,
            correction1,
            correction2,
        }
    }

    fn collect(&mut self, sent: &InFlight) -> Result<Vec<Metrics>> {
        let rows = self
            .backend
            .take(sent.ticket, true)?
            .ok_or_else(|| Error::Runtime("the metrics of a submission were lost".into()))?;
        let rows = rows.f().chunks_exact(Metrics::ROW).map(Metrics::from_row);
        Ok(rows.take(sent.steps.len()).collect())
    }

    /// Loss and accuracy over the validation images, where there are any.
    ///
    /// # Errors
    /// If the device fails.
    pub fn evaluate(&mut self) -> Result<Option<Metrics>> {
        let (Some(part), Some(program)) = (self.validation.clone(), self.programs.evaluate) else {
            return Ok(None);
        };
        let before = self.backend.counters();
        let batch = part.len.min(EVAL_BATCH);
        let mut total = Metrics::default();
        let mut flying: VecDeque<InFlight> = VecDeque::new();
        let mut first = 0;
        while first < part.len || !flying.is_empty() {
            if first < part.len && flying.len() < IN_FLIGHT {
                let count = batch.min(part.len - first);
                let steps = vec![Step {
                    first: first as u32,
                    count: count as u32,
                    ..Step::default()
                }];
                let ticket = self.backend.run_and_read(program, &steps, METRICS)?;
                flying.push_back(InFlight {
                    ticket,
                    steps,
                    images: count,
                });
                first += count;
            } else if let Some(oldest) = flying.pop_front() {
                self.collect(&oldest)?.iter().for_each(|m| total.add(m));
            }
        }
        self.count_steady(before);
        Ok(Some(total))
    }

    fn count_steady(&mut self, before: Counters) {
        let now = self.backend.counters();
        self.steady.bytes_read_back += now.bytes_read_back - before.bytes_read_back;
        self.steady.bytes_uploaded += now.bytes_uploaded - before.bytes_uploaded;
        self.steady.waits += now.waits - before.waits;
        self.steady.dispatches += now.dispatches - before.dispatches;
        self.steady.submissions += now.submissions - before.submissions;
    }

    /// Times the dispatches of a training step, as the median of `repeats`. The step is
    /// taken for real: the weights are not the same afterwards.
    ///
    /// # Errors
    /// If the device fails, or is the reference path.
    pub fn profile(&mut self, repeats: usize) -> Result<Profile> {
        let step = self.next_step(0, 0, self.config.batch_size);
        self.backend.profile(self.programs.train, &step, repeats)
    }

    /// Submits so many training steps, all on the first images, and does not wait. For
    /// benchmarks.
    ///
    /// # Errors
    /// If the device failed.
    pub fn submit_steps(&mut self, count: usize) -> Result<()> {
        let batch = self.config.batch_size;
        let steps: Vec<Step> = (0..count)
            .map(|slot| self.next_step(slot % MAX_STEPS, 0, batch))
            .collect();
        self.backend.run(self.programs.train, &steps)
    }

    /// Waits for everything submitted.
    ///
    /// # Errors
    /// If the device failed.
    pub fn synchronize(&mut self) -> Result<()> {
        self.backend.synchronize()
    }

    /// What crossed the bus in epochs and evaluations, without setting up and saving.
    pub fn steady_counters(&self) -> Counters {
        self.steady
    }

    /// Reads all weights back.
    ///
    /// # Errors
    /// If the device fails.
    pub fn weights(&mut self) -> Result<Weights> {
        let mut weights = Weights::new();
        for (state, arena) in [
            (PARAMETERS, &self.parameters),
            (STATISTICS, &self.statistics),
        ] {
            if !arena.is_empty() {
                let content = self.backend.read(state)?;
                weights.extend(arena.unpack(&content)?);
            }
        }
        Ok(weights)
    }
}

/// An epoch so far.
struct Progress {
    epoch: usize,
    total: usize,
    done: usize,
    log_every: usize,
    started: Instant,
    metrics: Metrics,
}

impl Progress {
    fn new(epoch: usize, total: usize, log_every: usize) -> Self {
        Self {
            epoch,
            total,
            done: 0,
            log_every,
            started: Instant::now(),
            metrics: Metrics::default(),
        }
    }

    fn add(&mut self, sent: &InFlight, rows: &[Metrics], observe: &mut dyn FnMut(Event)) {
        self.done += sent.images;
        let images_per_s = self.done as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        for (step, row) in sent.steps.iter().zip(rows) {
            self.metrics.add(row);
            if self.log_every > 0 && (step.number as usize).is_multiple_of(self.log_every) {
                observe(Event::Step {
                    step: step.number,
                    epoch: self.epoch,
                    loss: row.loss(),
                    images_per_s,
                });
            }
        }
        observe(Event::Progress {
            epoch: self.epoch,
            done: self.done,
            total: self.total,
            metrics: self.metrics,
            images_per_s,
        });
    }
}

fn check_fit(model: &Model, data: &Dataset) -> Result<()> {
    if data.shape != model.input() {
        return Err(Error::model(
            model.name(),
            format!(
                "takes images of {:?} (channels, rows, columns), the data set {} has {:?}",
                model.input(),
                data.name,
                data.shape
            ),
        ));
    }
    if data.classes.len() > model.classes() {
        return Err(Error::model(
            model.name(),
            format!(
                "has {} outputs, the data set {} has {} classes (labels 0 to {})",
                model.classes(),
                data.name,
                data.classes.len(),
                data.classes.len() - 1
            ),
        ));
    }
    Ok(())
}

/// Creates and fills the states of weights, gradients, optimizer and metrics.
fn create_states(
    backend: &mut dyn Backend,
    parameters: &Arena,
    statistics: &Arena,
    weights: &Weights,
    optimizer: &Optimizer,
) -> Result<()> {
    upload_weights(backend, parameters, statistics, weights)?;
    backend.create(GRADIENTS, &parameters.ty())?;
    for (name, initial) in optimizer.rule.states() {
        let name = format!("optimizer.{name}");
        let values = vec![*initial; parameters.len()];
        backend.create(&name, &parameters.ty())?;
        backend.write(&name, &Array::float(parameters.ty(), values))?;
    }
    backend.create(METRICS, &TensorType::f32([MAX_STEPS, Metrics::ROW]))
}
