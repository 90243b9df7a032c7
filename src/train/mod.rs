//! Training: the loop that keeps everything on the device.
//!
//! An epoch is: one dispatch that shuffles the order of the samples, then the same
//! flat list of dispatches once a step, many steps to a submission and a few
//! submissions in flight. What comes back is one row of metrics a step, copied with
//! each submission and picked up when it has arrived.

mod callbacks;
mod checkpoint;
mod config;
mod estimate;
mod examined;
mod feed;
mod finder;
mod graphs;
mod method;
mod monitor;
mod normalize;
mod observer;
mod pace;
mod preview;
mod progress;
mod retry;
mod run_folder;
mod schedule;
mod session;
mod setup;
mod stream;
mod training;
mod weights;
mod whiten;

pub use callbacks::Callbacks;
pub use checkpoint::{Checkpoint, FORMAT as CHECKPOINT_FORMAT, Position};
pub use config::Config;
pub(crate) use estimate::Use;
pub use estimate::{Estimate, Memory, Source};
pub use examined::Examined;
pub use feed::{Metrics, Part};
pub use finder::{FoundRates, RatePoint, Sweep, find_learning_rate};
pub use graphs::{EVAL_BATCH, Graphs, Suspect};
pub use method::{LayerRates, Method, OnNan, Precision};
pub use monitor::{Monitor, Patience, Verdict};
pub use normalize::normalized;
pub use observer::{Observer, Seen};
pub use preview::{Preview, preview};
pub use retry::{Retry, Start, train_with_retries};
pub use run_folder::{HistoryRow, RunFolder};
pub use schedule::{Policy, Schedule};
pub use session::Session;
pub use setup::{Setup, validation_images};
pub use weights::Weights;
pub(crate) use weights::{PARAMETERS, STATISTICS, arenas, upload_weights, weight_values};
pub use whiten::{initial_weights, whitened};

use crate::data::Dataset;
use crate::error::Result;
use crate::graph::{Arena, Backend, Graph, Profile};
use crate::model::Model;
use crate::report::Recorder;
use std::time::Instant;
use training::Training;

/// What happens during training, for whoever shows it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// What the training will take of the device's memory; nothing is allocated yet. It does
    /// not come where there is no device.
    Memory(Estimate),
    /// Everything is ready; the first step comes next.
    Start {
        /// The device in one line.
        device: String,
        /// Trainable parameters.
        parameters: usize,
        /// Training and validation images.
        images: [usize; 2],
        /// Whether the training and the validation images are streamed, as they do not all
        /// fit [`Config::data_budget`].
        streamed: [bool; 2],
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
    /// A step was left out, since its loss or gradients were not finite.
    Skipped {
        /// Steps since training began.
        step: u32,
        /// The epoch, from 1.
        epoch: usize,
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
        /// Learning rate of the last update.
        learning_rate: f64,
    },
    /// An epoch is over, validated and saved; or stopped and saved.
    Epoch(HistoryRow),
    /// Something went wrong that does not end the training.
    Warning(String),
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
    /// Whether it ended because it no longer got better, see [`Config::patience`].
    pub out_of_patience: bool,
    /// The epoch of `best.safetensors`: of those that were validated, the first with the best
    /// [`Config::monitor`].
    pub best: Option<usize>,
    /// Steps left out since training began, see [`OnNan::Skip`].
    pub skipped: u32,
    /// The last epoch.
    pub last: Option<HistoryRow>,
}

/// Trains a model and leaves it in a run folder.
///
/// `weights` are the ones to start from, such as [`initial_weights`]. Every epoch's end rewrites the folder's weights
/// and history, each whole or not at all, and `best.safetensors` where the validation was the
/// best so far. Where the callbacks stop the training, so does
/// the end of the epoch that was under way, with the images it got to. Checkpoints are
/// written before the first step, at each epoch's end and as [`Config`] says in between.
///
/// A file that cannot be written on the way is an [`Event::Warning`]; the next turn tries
/// again.
///
/// # Errors
/// If data and model do not fit, the device fails or is too small, the loss stops being
/// finite, or the folder cannot be made or the last weights not written. Where the device
/// failed, the error names the last checkpoint.
pub fn train(
    model: &Model,
    data: &Dataset,
    config: &Config,
    weights: &Weights,
    backend: Box<dyn Backend>,
    folder: &mut RunFolder,
    callbacks: Callbacks<'_>,
) -> Result<Summary> {
    let begin = Instant::now();
    let mut callbacks = callbacks;
    let setup = set_up(model, data, config, &*backend, &mut callbacks)?;
    let session = Session::begin(setup, weights, backend)?;
    folder.begin()?;
    let mut callbacks = callbacks.observed_by(Recorder::new(model, config, folder));
    callbacks.event(session.start_event());
    let position = Position::before_epoch(1, 0);
    let place = folder.path().to_owned();
    let mut training = Training::new(session, config, folder, callbacks, position)?;
    training
        .checkpoint()
        .and_then(|()| training.run(begin))
        .map_err(|error| retry::with_checkpoint(error, &place))
}

/// Goes on with a training from a checkpoint. With the same model, data, settings and device
/// it ends in the same bits as one that never stopped. There may be more epochs than before:
/// the rest then has the schedule of a training of so many.
///
/// # Errors
/// As [`train`], and if the checkpoint is of another model or data set.
pub fn resume(
    model: &Model,
    data: &Dataset,
    config: &Config,
    checkpoint: &Checkpoint,
    backend: Box<dyn Backend>,
    folder: &mut RunFolder,
    callbacks: Callbacks<'_>,
) -> Result<Summary> {
    let begin = Instant::now();
    let weights = model.initial_weights(config.seed);
    let mut callbacks = callbacks;
    let setup = set_up(model, data, config, &*backend, &mut callbacks)?;
    let mut session = Session::begin(setup, &weights, backend)?;
    session.restore(checkpoint)?;
    folder.go_on(config, &checkpoint.history)?;
    folder.begin()?;
    let mut callbacks = callbacks.observed_by(Recorder::new(model, config, folder));
    callbacks.event(session.start_event());
    let position = checkpoint.position;
    let place = folder.path().to_owned();
    Training::new(session, config, folder, callbacks, position)?
        .run(begin)
        .map_err(|error| retry::with_checkpoint(error, &place))
}

/// Sets a training up and tells what memory it takes.
fn set_up<'a>(
    model: &'a Model,
    data: &Dataset,
    config: &'a Config,
    backend: &dyn Backend,
    callbacks: &mut Callbacks<'_>,
) -> Result<Setup<'a>> {
    let setup = Setup::new(model, data, config, backend)?;
    let estimate = *setup.estimate();
    if estimate.memory.source != Source::NoDevice {
        callbacks.event(Event::Memory(estimate));
    }
    if estimate.recompute && !config.recompute {
        callbacks.event(Event::Warning(
            "that would not fit if all results were kept: those of the forward pass are computed \
             again where backward needs them, which takes more time and changes no bit"
                .into(),
        ));
    }
    Ok(setup)
}

/// The graph of a training step with these settings, and the parameters and statistics that
/// lie in its states. No device is needed.
///
/// # Errors
/// If the settings contradict the model, or an op refuses the shapes.
pub fn step(
    model: &Model,
    config: &Config,
    max_binding: u64,
) -> Result<(Graph, [(&'static str, Arena); 2])> {
    config.check()?;
    let batch = config.batch_size;
    let part = Part::new("train", batch, model.input(), max_binding);
    // Of each class as many images: how many there are of each changes no node.
    let labels: Vec<u32> = (0..model.classes() as u32).collect();
    let graphs = Graphs::new(model, config.method(&labels, model)?, max_binding);
    Ok((graphs.training(&part, batch)?, graphs.arenas()))
}
