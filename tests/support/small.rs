//! A small model on random images, whose trainings can be followed number by number.

use super::training::{self, trained};
use gpucnn::data::{Dataset, Split};
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::gpu::{Gpu, OpenOptions};
use gpucnn::graph::{Backend, CpuBackend, GpuBackend};
use gpucnn::infer::{Predictor, probabilities};
use gpucnn::model::{Conv2d, Dense, Flatten, MaxPool2d, Model};
use gpucnn::ops::activation::Function::Relu;
use gpucnn::train::{Config, Event, HistoryRow, RunFolder, Summary, Weights};

pub fn gpu(profile: ProfileKind) -> Box<dyn Backend> {
    Box::new(GpuBackend::new(super::open(profile, false)).unwrap())
}

/// The adapter with the kernels of its own profile.
pub fn own_gpu() -> Box<dyn Backend> {
    let options = OpenOptions {
        name: std::env::var("GPUCNN_TEST_DEVICE").ok(),
        ..OpenOptions::default()
    };
    Box::new(GpuBackend::new(Gpu::open(options).unwrap()).unwrap())
}

pub fn random_data(shape: [usize; 3], train: usize, test: usize) -> Dataset {
    training::random_data(7, shape, 10, [train, test])
}

/// A convolution, a pool and two dense layers over 12 by 12 grey images.
pub fn small_model() -> Model {
    Model::builder("small", [1, 12, 12])
        .add(Conv2d::new(4, 3).activation(Relu))
        .add(MaxPool2d::new(2))
        .add(Flatten)
        .add(Dense::new(16).activation(Relu))
        .add(Dense::new(10))
        .build()
        .unwrap()
}

/// One epoch of batches of 4 by SGD, every step reported.
pub fn config() -> Config {
    Config {
        data: "random".into(),
        epochs: 1,
        batch_size: 4,
        optimizer: "sgd".into(),
        learning_rate: 0.05,
        seed: 3,
        log_every: 1,
        checkpoint_minutes: 0.0,
        ..Config::default()
    }
}

/// A learning rate that changes no weight by more than a rounding: gradients here are
/// below 10, weights above 1e-3 but for a few.
pub const AT_REST: f64 = 1e-12;

/// What a training said and left.
pub struct Run {
    pub events: Vec<Event>,
    pub summary: Summary,
    pub weights: Weights,
}

impl Run {
    /// Trains from the given weights.
    pub fn from(
        weights: &Weights,
        model: &Model,
        data: &Dataset,
        config: &Config,
        backend: Box<dyn Backend>,
    ) -> Self {
        let trained = trained(model, weights, data, config, backend);
        let summary = trained.result.unwrap();
        let left = RunFolder::open(trained.folder.path()).unwrap();
        let weights = left.weights(&left.model().unwrap()).unwrap();
        Self {
            events: trained.events,
            summary,
            weights,
        }
    }

    pub fn new(model: &Model, data: &Dataset, config: &Config, backend: Box<dyn Backend>) -> Self {
        let weights = model.initial_weights(config.seed);
        Self::from(&weights, model, data, config, backend)
    }

    /// What opened it.
    pub fn start(&self) -> &Event {
        let opens = |event: &&Event| matches!(event, Event::Start { .. });
        self.events.iter().find(opens).unwrap()
    }

    pub fn history(&self) -> Vec<HistoryRow> {
        let row = |event: &Event| match event {
            Event::Epoch(row) => Some(row.clone()),
            _ => None,
        };
        self.events.iter().filter_map(row).collect()
    }

    /// The loss of each step.
    pub fn losses(&self) -> Vec<f64> {
        let step = |event: &Event| match event {
            Event::Step { loss, .. } => Some(*loss),
            _ => None,
        };
        self.events.iter().filter_map(step).collect()
    }
}

/// The cross-entropy of each image of a split, on the reference path.
pub fn image_losses(model: &Model, weights: &Weights, split: &Split) -> Vec<f64> {
    let cpu = Box::new(CpuBackend::new());
    let mut predictor = Predictor::new(model, weights, split.len(), cpu).unwrap();
    let logits = predictor.logits(&split.images.all().unwrap()).unwrap();
    let rows = logits.iter().zip(&split.labels);
    rows.map(|(row, label)| -probabilities(row)[*label as usize].ln())
        .collect()
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Compares losses of at most about 8 that a few dozen f32 roundings of logits of that
/// size went into: 8 * 2^-24 each.
pub fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() < 1e-5, "{i}: found {f}, expected {e}");
    }
}
