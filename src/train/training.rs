//! The loop: epochs, what each leaves on the disk, and checkpoints.

use super::monitor::{Monitor, Patience, Verdict};
use super::{Callbacks, Config, Event, HistoryRow, Position, RunFolder, Session, Summary};
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
            last,
        };
        if self.config.profile && !summary.stopped {
            const REPEATS: usize = 9;
            let profile = self.session.profile(REPEATS)?;
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
        } = self.position;
        let row = HistoryRow {
            epoch,
            images,
            loss: metrics.loss(),
            accuracy: metrics.accuracy(),
            val_loss: validation.map(|m| m.loss()),
            val_accuracy: validation.map(|m| m.accuracy()),
            learning_rate: self.session.learning_rate(),
            seconds: seconds + started.elapsed().as_secs_f64(),
            images_per_s: metrics.samples / seconds,
        };
        let validated = validation.is_some() || !self.session.validates();
        if images == self.session.epoch_images() && validated {
            self.position = Position::before_epoch(epoch + 1, steps);
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
            if position.metrics.not_finite {
                return Err(Error::Runtime(format!(
                    "the loss stopped being finite in epoch {}; try a smaller --learning-rate \
                     (it was {})",
                    position.epoch, self.config.learning_rate
                )));
            }
            if position.images == self.session.epoch_images() || callbacks.stopped() {
                return Ok(());
            }
            self.checkpoint()?;
        }
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
        match self.folder.save_epoch(row, &weights, best) {
            Err(error) if !self.all_done() && !self.callbacks.stopped() => {
                self.warn(&error, "the next epoch");
                Ok(())
            }
            saved => saved,
        }
    }

    /// Writes a checkpoint, or warns.
    pub(super) fn checkpoint(&mut self) -> Result<()> {
        let history = self.folder.history();
        let checkpoint = self.session.checkpoint(&self.position, history)?;
        let keep = self.config.keep_checkpoints;
        if let Err(error) = self.folder.save_checkpoint(&checkpoint, keep) {
            self.warn(&error, "the next checkpoint");
        }
        self.last_turn = Instant::now();
        Ok(())
    }

    fn warn(&mut self, error: &Error, next: &str) {
        let text = match self.all_done() || self.callbacks.stopped() {
            true => error.to_string(),
            false => format!("{error}; the training goes on, {next} tries again"),
        };
        self.callbacks.event(Event::Warning(text));
    }
}
