//! What `gpucnn train` prints.

use super::Args;
use crate::cli::output;
use gpucnn::formats::atomic;
use gpucnn::graph::Profile;
use gpucnn::report::{duration, profile};
use gpucnn::train::{Config, Estimate, Event, HistoryRow, Summary};
use indicatif::ProgressBar;
use serde_json::json;
use std::path::Path;

/// Shows events as a bar and lines, or as JSON.
pub(super) struct Reporter {
    json: bool,
    /// Whether the times of a step are shown.
    profile: bool,
    epochs: usize,
    run: String,
    bar: ProgressBar,
    /// Steps of the epoch that were left out.
    skipped: usize,
    /// What is to be shown once the screen is free again, where it is not; and whether as an
    /// error.
    pub held: Option<Vec<(String, bool)>>,
}

impl Reporter {
    pub fn new(args: &Args, config: &Config, run: String) -> Self {
        Self {
            json: args.json,
            profile: args.profile,
            epochs: config.epochs,
            run,
            bar: output::bar(""),
            skipped: 0,
            held: None,
        }
    }

    pub fn show(&mut self, event: Event) {
        match event {
            Event::Memory(estimate) => self.memory(&estimate),
            Event::Start {
                device,
                parameters,
                images,
                streamed,
                memory,
            } => self.start(&device, parameters, images, streamed, memory),
            Event::Step {
                step,
                epoch,
                loss,
                images_per_s,
            } => {
                if self.json {
                    output::json(&json!({"event": "step", "step": step, "epoch": epoch,
                        "loss": loss, "images_per_s": images_per_s}));
                } else {
                    let line = format!("step {step}: loss {loss:.4}, {images_per_s:.0} images/s");
                    self.line(&line);
                }
            }
            Event::Skipped { step, epoch } => self.skipped(step, epoch),
            Event::Progress {
                epoch,
                done,
                total,
                metrics,
                images_per_s,
                learning_rate: _,
            } if self.held.is_none() => {
                self.bar
                    .set_prefix(format!("epoch {epoch}/{}", self.epochs));
                self.bar.set_length(total as u64);
                self.bar.set_position(done as u64);
                let all = total as f64 * (self.epochs - epoch + 1) as f64;
                let left = (all - done as f64) / images_per_s;
                self.bar.set_message(format!(
                    "loss {:.4}, accuracy {:.2}%, {images_per_s:.0} images/s, {} left",
                    metrics.loss(),
                    100.0 * metrics.accuracy(),
                    duration(left)
                ));
            }
            Event::Progress { .. } => {}
            Event::Epoch(row) => self.epoch(&row),
            Event::Warning(text) => {
                if self.json {
                    output::json(&json!({"event": "warning", "message": text}));
                }
                self.note(format!("warning: {text}"));
            }
            Event::Profile(profile) if self.profile => self.profile(&profile),
            Event::Profile(_) => {}
            Event::End(summary) => self.end(&summary),
        }
    }

    fn memory(&self, estimate: &Estimate) {
        if self.json {
            let mut event = json!({"event": "memory", "total_bytes": estimate.total(),
                "available_bytes": estimate.memory.bytes, "source": estimate.memory.source.name(),
                "recompute": estimate.recompute});
            for (part, bytes) in estimate.parts() {
                event[format!("{part}_bytes")] = bytes.into();
            }
            output::json(&event);
        }
        eprintln!("memory: {estimate}");
    }

    fn start(
        &mut self,
        device: &str,
        parameters: usize,
        images: [usize; 2],
        streamed: [bool; 2],
        memory: [u64; 2],
    ) {
        let [train, validation] = images;
        if self.json {
            output::json(
                &json!({"event": "start", "device": device, "parameters": parameters,
                "train_images": train, "validation_images": validation,
                "train_streamed": streamed[0], "validation_streamed": streamed[1],
                "state_bytes": memory[0], "activation_bytes": memory[1]}),
            );
        }
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        self.note(format!(
            "{parameters} parameters; {train} training and {validation} validation images; \
             {:.0} MiB on the device",
            mib(memory[0] + memory[1])
        ));
        let parts = ["training", "validation"].into_iter().zip(streamed);
        for (part, _) in parts.filter(|(_, streamed)| *streamed) {
            self.note(format!(
                "the {part} images exceed the --data-budget on the device: they are streamed"
            ));
        }
    }

    fn epoch(&mut self, row: &HistoryRow) {
        let skipped = std::mem::take(&mut self.skipped);
        if skipped > 1 {
            let epoch = row.epoch;
            self.note(format!(
                "warning: {skipped} steps of epoch {epoch} were skipped"
            ));
        }
        if self.json {
            output::json(
                &json!({"event": "epoch", "epoch": row.epoch, "images": row.images,
                "loss": row.loss, "accuracy": row.accuracy, "val_loss": row.val_loss,
                "val_accuracy": row.val_accuracy, "val_top5": row.val_top5,
                "learning_rate": row.learning_rate,
                "seconds": row.seconds,
                "images_per_s": row.images_per_s}),
            );
            return;
        }
        let validation = match (row.val_loss, row.val_accuracy) {
            (Some(loss), Some(accuracy)) => {
                let top5 = row
                    .val_top5
                    .map(|share| format!(", top 5 {:.2}%", 100.0 * share));
                format!(
                    "; validation loss {loss:.4}, accuracy {:.2}%{}",
                    100.0 * accuracy,
                    top5.unwrap_or_default()
                )
            }
            _ => String::new(),
        };
        self.line(&format!(
            "epoch {}/{}: loss {:.4}, accuracy {:.2}%{validation}; {}, {:.0} images/s",
            row.epoch,
            self.epochs,
            row.loss,
            100.0 * row.accuracy,
            duration(row.seconds),
            row.images_per_s
        ));
    }

    /// A step that was left out. The first of an epoch is told at once, the others at its end.
    fn skipped(&mut self, step: u32, epoch: usize) {
        if self.json {
            output::json(&json!({"event": "skipped", "step": step, "epoch": epoch}));
        }
        self.skipped += 1;
        if self.skipped == 1 {
            self.note(format!(
                "warning: step {step} was skipped: its loss or gradients were not finite"
            ));
        }
    }

    fn profile(&mut self, profile: &Profile) {
        if self.json {
            output::json(&profile::as_json(profile));
        } else {
            self.line(&profile::table(profile));
        }
        let path = Path::new(&self.run).join("trace.json");
        let trace = profile::trace(profile).to_string();
        match atomic::write(&path, |file| file.write_all(trace.as_bytes())) {
            Ok(()) => self.note(format!(
                "trace for https://ui.perfetto.dev: {}",
                path.display()
            )),
            Err(error) => self.note(format!("warning: {error}")),
        }
    }

    fn end(&mut self, summary: &Summary) {
        self.release();
        self.bar.finish_and_clear();
        if self.json {
            output::json(
                &json!({"event": "end", "run": self.run, "seconds": summary.seconds,
                "bytes_read_back": summary.bytes_read_back, "waits": summary.waits,
                "submissions": summary.submissions, "dispatches": summary.dispatches,
                "stopped": summary.stopped, "out_of_patience": summary.out_of_patience,
                "best_epoch": summary.best, "skipped": summary.skipped}),
            );
            return;
        }
        let (time, run) = (duration(summary.seconds), &self.run);
        let best = match summary.best {
            Some(epoch) => format!("; the best validation was that of epoch {epoch}"),
            None => String::new(),
        };
        match &summary.last {
            Some(last) if summary.stopped => println!(
                "stopped after {time}, at {} images of epoch {}; the model is in {run}\n\
                 `gpucnn train --resume {run}` goes on from there",
                last.images, last.epoch
            ),
            _ if summary.out_of_patience => {
                println!("ended after {time}, no longer better{best}; the model is in {run}");
            }
            _ => println!("trained in {time}{best}; the model is in {run}"),
        }
    }

    /// A line above the bar.
    fn line(&mut self, text: &str) {
        match &mut self.held {
            Some(held) => held.push((text.to_owned(), false)),
            None => self.bar.suspend(|| println!("{text}")),
        }
    }

    /// The same on standard error.
    fn note(&mut self, text: String) {
        match &mut self.held {
            Some(held) => held.push((text, true)),
            None => self.bar.suspend(|| eprintln!("{text}")),
        }
    }

    /// Shows what was held back.
    pub fn release(&mut self) {
        for (text, is_error) in self.held.take().into_iter().flatten() {
            match is_error {
                true => eprintln!("{text}"),
                false => println!("{text}"),
            }
        }
    }
}
