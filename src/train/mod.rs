//! Training: the loop that keeps everything on the device.
//!
//! An epoch is: one dispatch that shuffles the order of the samples, then the same
//! flat list of dispatches once a step, many steps to a submission and a few
//! submissions in flight. What comes back is one row of metrics a step, copied with
//! each submission and picked up when it has arrived.

mod callbacks;
mod config;
mod feed;
mod graphs;
mod pace;
mod run_folder;
mod session;
mod weights;

pub use callbacks::Callbacks;
pub use config::Config;
pub use feed::{Metrics, Part};
pub use graphs::{EVAL_BATCH, Graphs};
pub use run_folder::{HistoryRow, RunFolder};
pub use session::Session;
pub use weights::Weights;
pub(crate) use weights::{arenas, upload_weights, weight_values};

use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::graph::{Backend, Graph, MemoryPlan, Profile};
use crate::model::Model;
use std::time::Instant;

/// What happens during training, for whoever shows it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Everything is ready; the first step comes next.
    Start {
        /// The device in one line.
        device: String,
        /// Trainable parameters.
        parameters: usize,
        /// Training and validation images.
        images: [usize; 2],
        /// Bytes of states and of activations on the device.
        memory: [u64; 2],
    },
    /// A step whose turn it is to be logged (see [`Config::log_every`]).
    Step {
        /// Steps since training began.
        step: u32,
        /// The epoch, from 1.
        epoch: usize,
        /// Mean loss of the batch.
        loss: f64,
        /// Training speed so far in this epoch.
        images_per_s: f64,
    },
    /// Some submissions have come back.
    Progress {
        /// The epoch, from 1.
        epoch: usize,
        /// Images done in this epoch, of how many.
        done: usize,
        /// Images in an epoch.
        total: usize,
        /// Means over the epoch so far.
        metrics: Metrics,
        /// Training speed so far in this epoch.
        images_per_s: f64,
    },
    /// An epoch is over, validated and saved; or stopped and saved.
    Epoch(HistoryRow),
    /// How long each part of a training step takes, where it was asked for.
    Profile(Profile),
    /// Training is over.
    End(Summary),
}

/// The end of a training, in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Wall time of the training in seconds, validation included.
    pub seconds: f64,
    /// Bytes read back from the device in steady state: metrics, not the final weights.
    pub bytes_read_back: u64,
    /// Times the host blocked on the device.
    pub waits: u64,
    /// Submissions made.
    pub submissions: u64,
    /// Dispatches encoded.
    pub dispatches: u64,
    /// Whether the callbacks ended it early.
    pub stopped: bool,
    /// The last epoch.
    pub last: Option<HistoryRow>,
}

/// Trains a model and leaves it in a run folder.
///
/// `weights` are the ones to start from. Every epoch's end rewrites the folder's weights
/// and history, each whole or not at all. Where the callbacks stop the training, so does
/// the end of the epoch that was under way, with the images it got to.
///
/// # Errors
/// If data and model do not fit, the device fails or is too small, the loss stops being
/// finite, or the folder cannot be written.
pub fn train(
    model: &Model,
    data: &Dataset,
    config: &Config,
    weights: &Weights,
    backend: Box<dyn Backend>,
    folder: &mut RunFolder,
    mut callbacks: Callbacks<'_>,
) -> Result<Summary> {
    let begin = Instant::now();
    let mut session = Session::new(model, data, config, weights, backend)?;
    folder.begin()?;
    callbacks.event(session.start_event());
    let mut last = None;
    for number in 1..=config.epochs {
        let row = epoch(&mut session, config, number, &mut callbacks)?;
        folder.save_epoch(&row, &session.weights()?)?;
        callbacks.event(Event::Epoch(row.clone()));
        last = Some(row);
        if callbacks.stopped() {
            break;
        }
    }
    let counters = session.steady_counters();
    let summary = Summary {
        seconds: begin.elapsed().as_secs_f64(),
        bytes_read_back: counters.bytes_read_back,
        waits: counters.waits,
        submissions: counters.submissions,
        dispatches: counters.dispatches,
        stopped: callbacks.stopped(),
        last,
    };
    if config.profile && !summary.stopped {
        const REPEATS: usize = 9;
        callbacks.event(Event::Profile(session.profile(REPEATS)?));
    }
    callbacks.event(Event::End(summary.clone()));
    Ok(summary)
}

/// The graph of a training step on `batch` images and how the device would lay out its
/// memory. Nothing is allocated.
///
/// # Errors
/// [`Error::Limit`] where it does not fit the device.
pub fn plan(model: &Model, batch: usize, device: &dyn Backend) -> Result<(Graph, MemoryPlan)> {
    if batch == 0 {
        return Err(Error::Usage(
            "--batch-size must be at least 1, found 0".into(),
        ));
    }
    let config = Config::new(model)?;
    let limit = device.max_binding();
    let part = Part::new("train", batch, model.input(), limit);
    let graph = Graphs::new(model, config.optimizer()?, limit).training(&part, batch)?;
    let memory = device.plan(&graph)?;
    Ok((graph, memory))
}

/// Trains and validates an epoch.
fn epoch(
    session: &mut Session<'_>,
    config: &Config,
    number: usize,
    callbacks: &mut Callbacks<'_>,
) -> Result<HistoryRow> {
    let started = Instant::now();
    let trained = session.train_epoch(number, callbacks)?;
    let train_seconds = started.elapsed().as_secs_f64();
    if trained.not_finite {
        return Err(Error::Runtime(format!(
            "the loss stopped being finite in epoch {number}; try a smaller --learning-rate \
             (it was {})",
            config.learning_rate
        )));
    }
    let validation = session.evaluate(callbacks)?;
    Ok(HistoryRow {
        epoch: number,
        images: trained.samples as usize,
        loss: trained.loss(),
        accuracy: trained.accuracy(),
        val_loss: validation.map(|m| m.loss()),
        val_accuracy: validation.map(|m| m.accuracy()),
        seconds: started.elapsed().as_secs_f64(),
        images_per_s: trained.samples / train_seconds,
    })
}
