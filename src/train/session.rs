//! A model in training on a device: its states and programs, and running them.

use super::checkpoint::State;
use super::feed::{MAX_STEPS, Metrics};
use super::finder::Sweep;
use super::graphs::{Graphs, LOGITS, METRICS, Suspect};
use super::pace::Pace;
use super::progress::Progress;
use super::schedule::{Policy, Schedule};
use super::setup::{Runs, Setup};
use super::stream::Feed;
use super::{Callbacks, Checkpoint, Config, Event, Examined, HistoryRow, Position, Weights};
use crate::compress;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::gpu::executor::Counters;
use crate::graph::{Backend, Profile, Program, Ticket};
use crate::model::Model;
use crate::ops::batch::Shuffle;
use crate::ops::optimizer::Optimizer;
use crate::ops::{Step, metrics};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// Submissions in flight: one runs, one waits, one is being encoded.
const IN_FLIGHT: usize = 3;

/// A model in training on a device.
pub struct Session<'a> {
    model: &'a Model,
    config: &'a Config,
    optimizer: Optimizer,
    graphs: Graphs<'a>,
    backend: Box<dyn Backend>,
    train: Feed,
    validation: Option<Feed>,
    examined: Option<Examined>,
    programs: Runs<Program>,
    schedule: Schedule,
    pruning: Option<compress::Schedule>,
    steps_taken: u32,
    /// The step that was not finite, after which nothing is updated.
    diverged: Option<Diverged>,
    pace: Pace,
    steady: Counters,
}

/// A step that was not finite, and where it was.
#[derive(Clone, Copy)]
struct Diverged {
    step: Step,
    epoch: usize,
    /// Images of the epoch before it.
    place: usize,
}

/// A submission on its way back.
struct InFlight {
    ticket: Ticket,
    steps: Vec<Step>,
    images: usize,
    /// The logits that follow the metrics, of an evaluation.
    logits: Option<Ticket>,
}

impl<'a> Session<'a> {
    /// A training set up and begun at once, see [`Setup::new`] and [`begin`](Self::begin).
    ///
    /// # Errors
    /// As these.
    pub fn new(
        model: &'a Model,
        data: &Dataset,
        config: &'a Config,
        weights: &Weights,
        backend: Box<dyn Backend>,
    ) -> Result<Self> {
        Self::begin(
            Setup::new(model, data, config, &*backend)?,
            weights,
            backend,
        )
    }

    /// Uploads data and weights and compiles the programs.
    ///
    /// # Errors
    /// If the device fails.
    pub fn begin(
        setup: Setup<'a>,
        weights: &Weights,
        mut backend: Box<dyn Backend>,
    ) -> Result<Self> {
        let Setup {
            model,
            config,
            graphs,
            train: (part, split),
            validation,
            runs,
            ..
        } = setup;
        let train = Feed::new(part, split, &mut *backend)?;
        let classes = model.classes();
        let examined = validation
            .as_ref()
            .map(|v| Examined::new(v.1.clone(), classes));
        let validation = validation
            .map(|(part, split)| Feed::new(part, split, &mut *backend))
            .transpose()?;
        graphs.create_states(&mut *backend, weights)?;
        if let Some((_, batch)) = &runs.evaluate {
            backend.create(LOGITS, &graphs.logits_type(*batch))?;
        }
        let programs = runs.try_map(&mut |graph| backend.compile(graph))?;
        let group = config.batch_size * config.accumulate;
        let images = train.part().len;
        let schedule = config.schedule(images.div_ceil(group))?;
        let steps = images.div_ceil(config.batch_size) * config.epochs;
        Ok(Self {
            model,
            config,
            optimizer: graphs.optimizer(),
            graphs,
            backend,
            train,
            validation,
            examined,
            programs,
            schedule,
            pruning: config.pruning(steps),
            steps_taken: 0,
            diverged: None,
            pace: Pace::new(MAX_STEPS),
            steady: Counters::default(),
        })
    }

    /// The event that opens a training.
    pub fn start_event(&self) -> Event {
        let (states, slots) = self.backend.memory();
        Event::Start {
            device: self.backend.describe(),
            parameters: self.model.parameter_count(),
            images: [
                self.epoch_images(),
                self.validation.as_ref().map_or(0, |v| v.part().len),
            ],
            streamed: [Some(&self.train), self.validation.as_ref()]
                .map(|feed| feed.is_some_and(|f| f.part().is_streamed())),
            memory: [states, slots],
        }
    }

    /// Training images in an epoch.
    pub fn epoch_images(&self) -> usize {
        self.train.part().len
    }

    /// Whether there are images to validate on.
    pub fn validates(&self) -> bool {
        self.validation.is_some()
    }

    /// Whether being among the five likeliest classes says anything.
    pub(super) fn ranks_five(&self) -> bool {
        self.model.classes() > metrics::TOP
    }

    /// Trains from `position` to the end of its epoch, or until the callbacks stop it or
    /// the moment `until` is past; then by at least one submission, where any is left. By
    /// [`OnNan::Stop`](super::OnNan::Stop) it ends before a step that is not finite, see
    /// [`diverged`](Self::diverged).
    ///
    /// # Errors
    /// If an image file cannot be decoded, or the device fails.
    pub fn train(
        &mut self,
        position: &mut Position,
        until: Option<Instant>,
        callbacks: &mut Callbacks<'_>,
    ) -> Result<()> {
        let before = self.backend.counters();
        let start = position.images;
        let order = self.shuffle(position.epoch)?;
        self.train.begin(order, start);
        let images = self.epoch_images();
        let mut progress = Progress::new(position, images, self.config);
        let mut flying: VecDeque<InFlight> = VecDeque::new();
        let mut first = start;
        self.pace.pause();
        loop {
            let halt = callbacks.stopped() || until.is_some_and(|t| Instant::now() >= t);
            let halt = halt || self.diverged.is_some();
            let more = first < images && (first == start || !halt);
            if more && flying.len() < IN_FLIGHT {
                let sent = self.submit_training(first)?;
                first += sent.images;
                flying.push_back(sent);
            } else if let Some(oldest) = flying.pop_front() {
                let rows = self.collect(&oldest)?;
                self.pace.finished(oldest.steps.len());
                if self.diverged.is_none() {
                    let step = progress.add(&oldest.steps, &rows, callbacks);
                    self.diverged = step.map(|step| Diverged {
                        step,
                        epoch: progress.position.epoch,
                        place: progress.position.images,
                    });
                }
            } else {
                break;
            }
        }
        progress.position.seconds = progress.seconds();
        // Steps beyond one that is not finite were not taken.
        self.steps_taken = progress.position.steps;
        self.count_steady(before);
        Ok(())
    }

    /// The step that was not finite, before which training stopped.
    pub fn diverged(&self) -> Option<u32> {
        self.diverged.map(|at| at.step.number)
    }

    /// Takes that step again, changing nothing, and tells where it went wrong: a weight that
    /// was not finite before, or the first value in the order they are computed. `None` if
    /// there was no such step, or nothing is wrong with it now.
    ///
    /// # Errors
    /// If the device fails or has no memory for it.
    pub fn diagnose(&mut self) -> Result<Option<Suspect>> {
        let Some(Diverged {
            mut step,
            epoch,
            place,
        }) = self.diverged
        else {
            return Ok(None);
        };
        let spoilt = |x: &f32| !x.is_finite();
        let weights = self.graphs.read_parameters(&mut *self.backend)?;
        let weight = weights
            .into_iter()
            .find(|(_, w)| w.data().iter().any(spoilt));
        if let Some((layer, _)) = weight {
            return Ok(Some(Suspect::Weight(layer)));
        }
        if self.train.part().is_streamed() {
            // The window may have moved on since.
            let order = self.shuffle(epoch)?;
            self.train.begin(order, place);
            let [first, _] = self.train.bring(place, &mut *self.backend)?;
            step.first = first as u32;
        }
        let (graphs, batch) = (&self.graphs, step.count as usize);
        graphs.diagnose(&mut *self.backend, self.train.part(), batch, &step)
    }

    /// Draws the order of an epoch where images are shuffled: on the device, or where they are
    /// streamed, here.
    fn shuffle(&mut self, epoch: usize) -> Result<Option<Vec<u32>>> {
        let step = Step {
            number: epoch as u32,
            seed: self.config.seed,
            ..Step::default()
        };
        match self.programs.shuffle {
            _ if !self.config.shuffle => Ok(None),
            Some(program) => self.backend.run(program, &[step]).map(|()| None),
            None => Ok(Some(Shuffle::order(self.epoch_images(), &step))),
        }
    }

    /// All that is needed to go on from `position`; its epochs that are over come from
    /// `history`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn checkpoint(
        &mut self,
        position: &Position,
        history: &[HistoryRow],
    ) -> Result<Checkpoint> {
        let over = history.iter().filter(|row| row.epoch < position.epoch);
        let history = over.cloned().collect();
        let mut states = BTreeMap::new();
        for (name, _) in self.graphs.lasting_states() {
            let state = State::new(self.backend.read(&name)?.f());
            states.insert(name, state);
        }
        Ok(Checkpoint {
            position: *position,
            epoch_images: self.epoch_images(),
            device: self.backend.describe(),
            history,
            states,
        })
    }

    /// Puts everything back as it was.
    ///
    /// # Errors
    /// If the checkpoint is of another training, or the device fails.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let (now, then) = (self.epoch_images(), checkpoint.epoch_images);
        if now != then {
            return Err(Error::data(
                &self.config.data,
                format!("has {now} training images, it had {then} when the checkpoint was written"),
            ));
        }
        for (name, ty) in self.graphs.lasting_states() {
            self.backend.write(&name, &checkpoint.state(&name, &ty)?)?;
        }
        self.steps_taken = checkpoint.position.steps;
        Ok(())
    }

    fn submit_training(&mut self, first: usize) -> Result<InFlight> {
        if let Some(sparsity) = self.pruning.and_then(|p| p.due(self.steps_taken)) {
            self.graphs.prune(&mut *self.backend, sparsity)?;
        }
        let until_change = self
            .pruning
            .and_then(|p| p.steps_until_change(self.steps_taken));
        let batch = self.config.batch_size;
        let [place, there] = self.train.bring(first, &mut *self.backend)?;
        // A window holds whole batches; the rest of an epoch is in its last one.
        let whole = there / batch;
        let (program, count, size) = match (whole, self.programs.rest) {
            (0, Some(rest)) => (rest, 1, there),
            _ => {
                let group = self.config.accumulate;
                // Not past the next update.
                let most = match self.programs.update {
                    Some(_) => group - first / batch % group,
                    None => whole,
                };
                let most = most.min(until_change.map_or(whole, |n| n as usize));
                let count = whole.min(most).min(self.pace.steps());
                (self.programs.train, count, batch)
            }
        };
        let steps: Vec<Step> = (0..count)
            .map(|slot| self.next_step(slot, place + slot * size, size))
            .collect();
        let sent = self.send(program, steps, count * size)?;
        self.submit_update(first + sent.images)?;
        Ok(sent)
    }

    /// Submits the update by what was accumulated, where it is due after `done` images of the
    /// epoch.
    fn submit_update(&mut self, done: usize) -> Result<()> {
        let Some([whole, last]) = self.programs.update else {
            return Ok(());
        };
        let group = self.config.batch_size * self.config.accumulate;
        let program = match done {
            _ if done.is_multiple_of(group) => whole,
            _ if done == self.epoch_images() => last,
            _ => return Ok(()),
        };
        let step = Step {
            number: self.updates(),
            ..self.step()
        };
        self.backend.run(program, &[step])
    }

    /// Updates made after the steps taken.
    fn updates(&self) -> u32 {
        let (batch, group) = (self.config.batch_size, self.config.accumulate);
        let steps = self.epoch_images().div_ceil(batch);
        let (epochs, within) = (
            self.steps_taken as usize / steps,
            self.steps_taken as usize % steps,
        );
        (epochs * steps.div_ceil(group) + within / group) as u32
    }

    /// The values of the last step taken.
    fn step(&self) -> Step {
        let (correction1, correction2) = self.optimizer.corrections(self.updates());
        Step {
            number: self.steps_taken,
            seed: self.config.seed,
            learning_rate: self.learning_rate(),
            correction1,
            correction2,
            ..Step::default()
        }
    }

    /// Submits steps; their rows of metrics follow.
    fn send(&mut self, program: Program, steps: Vec<Step>, images: usize) -> Result<InFlight> {
        let rows = steps.len() * Metrics::ROW;
        let ticket = self.backend.run_and_read(program, &steps, METRICS, rows)?;
        Ok(InFlight {
            ticket,
            steps,
            images,
            logits: None,
        })
    }

    fn next_step(&mut self, slot: usize, first: usize, count: usize) -> Step {
        self.steps_taken += 1;
        Step {
            first: first as u32,
            count: count as u32,
            slot: slot as u32,
            ..self.step()
        }
    }

    /// Has the rate grow from update to update from now on, and returns that schedule.
    pub(super) fn sweep(&mut self, sweep: Sweep) -> Schedule {
        let [from, to] = sweep.rates;
        self.schedule = Schedule::new(Policy::Sweep { from }, to, 0.0, 1, sweep.updates);
        self.schedule.clone()
    }

    /// The learning rate of the last update.
    pub fn learning_rate(&self) -> f64 {
        self.schedule.rate(self.updates())
    }

    /// Takes the score of an epoch that is over, for the schedule.
    pub fn observe(&mut self, score: f64) {
        self.schedule.observe(score);
    }

    fn collect(&mut self, sent: &InFlight) -> Result<Vec<Metrics>> {
        let rows = self
            .backend
            .take(sent.ticket, true)?
            .ok_or_else(|| Error::Runtime("the metrics of a submission were lost".into()))?;
        let rows = rows.f().chunks_exact(Metrics::ROW);
        Ok(rows.map(Metrics::from_row).collect())
    }

    /// Loss and accuracy over the validation images, where there are any and the
    /// callbacks do not stop it.
    ///
    /// # Errors
    /// If an image file cannot be decoded, or the device fails.
    pub fn evaluate(&mut self, callbacks: &Callbacks<'_>) -> Result<Option<Metrics>> {
        let (Some(feed), Some((program, batch))) = (&mut self.validation, self.programs.evaluate)
        else {
            return Ok(None);
        };
        let images = feed.part().len;
        let examined = self.examined.as_mut().map_or(0, Examined::restart);
        feed.begin(None, 0);
        let before = self.backend.counters();
        let mut total = Metrics::default();
        let mut flying: VecDeque<InFlight> = VecDeque::new();
        let mut first = 0;
        loop {
            let more = first < images && !callbacks.stopped();
            if more && flying.len() < IN_FLIGHT {
                let feed = self
                    .validation
                    .as_mut()
                    .expect("there are validation images");
                let [place, there] = feed.bring(first, &mut *self.backend)?;
                let count = batch.min(there);
                let steps = vec![Step {
                    first: place as u32,
                    count: count as u32,
                    ..Step::default()
                }];
                let mut sent = self.send(program, steps, count)?;
                if first < examined {
                    let wanted = count.min(examined - first) * self.model.classes();
                    let ticket = self.backend.run_and_read(program, &[], LOGITS, wanted)?;
                    sent.logits = Some(ticket);
                }
                flying.push_back(sent);
                first += count;
            } else if let Some(oldest) = flying.pop_front() {
                self.collect(&oldest)?.iter().for_each(|m| total.add(m));
                self.collect_logits(&oldest)?;
            } else {
                break;
            }
        }
        self.count_steady(before);
        Ok((first == images).then_some(total))
    }

    fn collect_logits(&mut self, sent: &InFlight) -> Result<()> {
        let (Some(ticket), Some(examined)) = (sent.logits, &mut self.examined) else {
            return Ok(());
        };
        let rows = self.backend.take(ticket, true)?;
        let rows = rows.ok_or_else(|| Error::Runtime("the logits of a step were lost".into()))?;
        examined.add(rows.f().iter().map(|x| *x as f32));
        Ok(())
    }

    /// The last evaluation, image by image.
    pub fn examined(&self) -> Option<&Examined> {
        self.examined.as_ref()
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

    /// Reads all weights back; their averages, where they are averaged.
    ///
    /// # Errors
    /// If the device fails.
    pub fn weights(&mut self) -> Result<Weights> {
        self.graphs.read_weights(&mut *self.backend)
    }
}
