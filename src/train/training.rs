//! The loop: epochs, what each leaves on the disk, and checkpoints.

use super::monitor::{Monitor, Patience, Verdict};
use super::{Callbacks, Config, Event, HistoryRow, Position, RunFolder, Seen, Session, Summary};
use crate::error::{Error, Result};
use std::time::{Duration, Instant};

/// A training under way.
pub(super) struct Training<'a, 'c> {
    session: Session<'a>,
    config: &'a Config,
    folder: &'a mut RunFolder,
    callbacks: Callbacks<'c>,
    position: Position,
    monitor: Monitor,
    patience: Patience,
    out_of_patience: bool,
    /// The epoch with the best score.
    best: Option<usize>,
    /// When a checkpoint was last written, or should have been.
    last_turn: Instant,
}

impl<'a, 'c> Training<'a, 'c> {
    pub(super) fn new(
        session: Session<'a>,
        config: &'a Config,
        folder: &'a mut RunFolder,
        callbacks: Callbacks<'c>,
        position: Position,
    ) -> Result<Self> {
        let mut training = Self {
            session,
            config,
            folder,
            callbacks,
            position,
            monitor: config.monitor()?,
            // A score is better by however little, as with Keras.
            patience: Patience::new(config.patience.unwrap_or(usize::MAX), 0.0),
            out_of_patience: false,
            best: None,
            last_turn: Instant::now(),
        };
        let over = training.folder.history().to_vec();
        for row in over.iter().filter(|row| row.epoch < position.epoch) {
            training.observe(row);
        }
        Ok(training)
    }

    /// Takes the score of an epoch that is over.
    fn observe(&mut self, row: &HistoryRow) {
        let score = self.monitor.score(row);
        self.session.observe(score);
        match self.patience.observe(score) {
            Verdict::Better => self.best = Some(row.epoch),
            Verdict::Waiting => {}
            Verdict::Exhausted => self.out_of_patience = true,
        }
    }

    /// The best epoch, where there is a validation to tell it.
    fn best(&self) -> Option<usize> {
        self.best.filter(|_| self.session.validates())
    }

    /// Trains all epochs that are left, or until the callbacks stop it.
    pub(super) fn run(&mut self, begin: Instant) -> Result<Summary> {
        let summary = self.run_epochs(begin);
        if let Err(error) = &summary {
            self.callbacks.failed(&error.to_string());
        }
        summary
    }

    fn run_epochs(&mut self, begin: Instant) -> Result<Summary> {
        let mut last = None;
        while !self.all_done() {
            last = Some(self.epoch()?);
            if self.callbacks.stopped() {
                break;
            }
        }
        let counters = self.session.steady_counters();
        let summary = Summary {
            seconds: begin.elapsed().as_secs_f64(),
            bytes_read_back: counters.bytes_read_back,
            waits: counters.waits,
            submissions: counters.submissions,
            dispatches: counters.dispatches,
            stopped: self.callbacks.stopped(),
            out_of_patience: self.out_of_patience,
            best: self.best(),
            skipped: self.position.skipped,
            last,
        };
        if self.config.profile > 0 && !summary.stopped {
            let profile = self.session.profile(self.config.profile)?;
            self.callbacks.event(Event::Profile(profile));
        }
        self.callbacks.event(Event::End(summary.clone()));
        Ok(summary)
    }

    fn all_done(&self) -> bool {
        self.out_of_patience || self.position.epoch > self.config.epochs
    }

    /// Trains, validates and saves what is left of the epoch under way.
    fn epoch(&mut self) -> Result<HistoryRow> {
        self.train()?;
        let started = Instant::now();
        let validation = self.session.evaluate(&self.callbacks)?;
        let Position {
            epoch,
            images,
            steps,
            metrics,
            seconds,
            skipped,
        } = self.position;
        if metrics.samples == 0.0 && !self.callbacks.stopped() {
            return Err(Error::Diverged(format!(
                "every step of epoch {epoch} was skipped: none had a finite loss and finite \
                 gradients; try a smaller --learning-rate (it was {})",
                self.session.learning_rate()
            )));
        }
        let row = HistoryRow {
            epoch,
            images,
            loss: metrics.loss(),
            accuracy: metrics.accuracy(),
            val_loss: validation.map(|m| m.loss()),
            val_accuracy: validation.map(|m| m.accuracy()),
            val_top5: validation
                .filter(|_| self.session.ranks_five())
                .map(|m| m.top5_accuracy()),
            learning_rate: self.session.learning_rate(),
            seconds: seconds + started.elapsed().as_secs_f64(),
            images_per_s: metrics.samples / seconds,
        };
        let validated = validation.is_some() || !self.session.validates();
        if images == self.session.epoch_images() && validated {
            self.position = Position {
                skipped,
                ..Position::before_epoch(epoch + 1, steps)
            };
            self.observe(&row);
        }
        self.save(&row)?;
        self.checkpoint()?;
        self.callbacks.event(Event::Epoch(row.clone()));
        Ok(row)
    }

    /// Trains to the end of the epoch or until stopped, with checkpoints on the way.
    fn train(&mut self) -> Result<()> {
        loop {
            let until = self.next_turn();
            let (position, callbacks) = (&mut self.position, &mut self.callbacks);
            self.session.train(position, until, callbacks)?;
            if let Some(step) = self.session.diverged() {
                return Err(self.diverged(step));
            }
            let (position, callbacks) = (&self.position, &self.callbacks);
            if position.images == self.session.epoch_images() || callbacks.stopped() {
                return Ok(());
            }
            self.checkpoint()?;
        }
    }

    /// Writes a checkpoint of the state before a step that was not finite, and tells where it
    /// went wrong.
    fn diverged(&mut self, step: u32) -> Error {
        let culprit = match self.session.diagnose() {
            Ok(Some(suspect)) => format!("the first to be NaN or infinite was {suspect}"),
            Ok(None) => "taken again, all of it was finite".to_owned(),
            Err(error) => format!("where it began could not be found: {error}"),
        };
        if let Err(error) = self.checkpoint() {
            return error;
        }
        let run = self.folder.path().display();
        Error::Diverged(format!(
            "the training diverged at step {step}, in epoch {}: {culprit}. That step was not \
             applied. Try a smaller --learning-rate (it was {}), --warmup or --clip-norm 1; \
             `gpucnn train --resume {run} --on-nan skip` goes on without such steps",
            self.position.epoch,
            self.session.learning_rate()
        ))
    }

    fn next_turn(&self) -> Option<Instant> {
        let seconds = self.config.checkpoint_minutes * 60.0;
        let pause = Duration::try_from_secs_f64(seconds).ok();
        let pause = pause.filter(|_| seconds > 0.0);
        pause.and_then(|p| self.last_turn.checked_add(p))
    }

    /// Writes weights and history; only the last ones must succeed.
    fn save(&mut self, row: &HistoryRow) -> Result<()> {
        let weights = self.session.weights()?;
        let best = self.best() == Some(row.epoch);
        self.restore();
        match self.folder.save_epoch(row, &weights, best) {
            Err(error) if !self.all_done() && !self.callbacks.stopped() => {
                self.warn(&error, "the next epoch");
            }
            saved => saved?,
        }
        self.callbacks.epoch(Seen {
            history: self.folder.history(),
            weights: &weights,
            examined: self.session.examined(),
            best: self.best(),
        });
        Ok(())
    }

    /// Writes a checkpoint, or warns.
    pub(super) fn checkpoint(&mut self) -> Result<()> {
        let history = self.folder.history();
        let checkpoint = self.session.checkpoint(&self.position, history)?;
        let keep = self.config.keep_checkpoints;
        self.restore();
        if let Err(error) = self.folder.save_checkpoint(&checkpoint, keep) {
            self.warn(&error, "the next checkpoint");
        }
        self.last_turn = Instant::now();
        Ok(())
    }

    /// Makes the run folder again where it is gone. Where that cannot be, saving fails, and
    /// tells.
    fn restore(&mut self) {
        if matches!(self.folder.restore(), Ok(true)) {
            let text = format!(
                "files of {} were gone; they are written again, but for earlier checkpoints",
                self.folder.path().display()
            );
            self.callbacks.event(Event::Warning(text));
        }
    }

    fn warn(&mut self, error: &Error, next: &str) {
        let text = match self.all_done() || self.callbacks.stopped() {
            true => error.to_string(),
            false => format!("{error}; the training goes on, {next} tries again"),
        };
        self.callbacks.event(Event::Warning(text));
    }
}
