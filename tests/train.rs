//! Training end to end, through the library.

mod support;

use gpucnn::data::{Dataset, Request, Split};
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::gpu::{Gpu, OpenOptions};
use gpucnn::graph::{Backend, CpuBackend, GpuBackend};
use gpucnn::infer::{Predictor, probabilities};
use gpucnn::model::{
    Activation, Add, BatchNorm2d, Conv2d, Dense, Dropout, Flatten, MaxPool2d, Model, Pad,
};
use gpucnn::ops::activation::Function::Relu;
use gpucnn::tensor::Tensor;
use gpucnn::train::{Callbacks, Config, Event, HistoryRow, RunFolder, Summary, Weights, train};
use std::sync::atomic::{AtomicBool, Ordering};
use support::training::{self, trained};

fn gpu(profile: ProfileKind) -> Box<dyn Backend> {
    Box::new(GpuBackend::new(support::open(profile, false)).unwrap())
}

/// The adapter with the kernels of its own profile.
fn own_gpu() -> Box<dyn Backend> {
    let options = OpenOptions {
        name: std::env::var("GPUCNN_TEST_DEVICE").ok(),
        ..OpenOptions::default()
    };
    Box::new(GpuBackend::new(Gpu::open(options).unwrap()).unwrap())
}

fn random_data(shape: [usize; 3], train: usize, test: usize) -> Dataset {
    training::random_data(7, shape, 10, [train, test])
}

/// A convolution, a pool and two dense layers over 12 by 12 grey images.
fn small_model() -> Model {
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
fn config() -> Config {
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
const AT_REST: f64 = 1e-12;

/// What a training said and left.
struct Run {
    events: Vec<Event>,
    summary: Summary,
    weights: Weights,
}

impl Run {
    /// Trains from the given weights.
    fn from(
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

    fn new(model: &Model, data: &Dataset, config: &Config, backend: Box<dyn Backend>) -> Self {
        let weights = model.initial_weights(config.seed);
        Self::from(&weights, model, data, config, backend)
    }

    /// What opened it.
    fn start(&self) -> &Event {
        let opens = |event: &&Event| matches!(event, Event::Start { .. });
        self.events.iter().find(opens).unwrap()
    }

    fn history(&self) -> Vec<HistoryRow> {
        let row = |event: &Event| match event {
            Event::Epoch(row) => Some(row.clone()),
            _ => None,
        };
        self.events.iter().filter_map(row).collect()
    }

    /// The loss of each step.
    fn losses(&self) -> Vec<f64> {
        let step = |event: &Event| match event {
            Event::Step { loss, .. } => Some(*loss),
            _ => None,
        };
        self.events.iter().filter_map(step).collect()
    }
}

/// The cross-entropy of each image of a split, on the reference path.
fn image_losses(model: &Model, weights: &Weights, split: &Split) -> Vec<f64> {
    let cpu = Box::new(CpuBackend::new());
    let mut predictor = Predictor::new(model, weights, split.len(), cpu).unwrap();
    let logits = predictor.logits(&split.images.all().unwrap()).unwrap();
    let rows = logits.iter().zip(&split.labels);
    rows.map(|(row, label)| -probabilities(row)[*label as usize].ln())
        .collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Compares losses of at most about 8 that a few dozen f32 roundings of logits of that
/// size went into: 8 * 2^-24 each.
fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() < 1e-5, "{i}: found {f}, expected {e}");
    }
}

#[test]
fn a_short_mnist_training_reaches_95_percent() {
    let model = Model::load("mnist-cnn").unwrap();
    let data = Request::new("mnist").load().unwrap();
    let config = Config {
        data: "mnist".into(),
        epochs: 2,
        batch_size: 32,
        optimizer: "adam".into(),
        learning_rate: 0.001,
        seed: 0,
        limit: Some(6400),
        ..config()
    };
    let run = Run::new(&model, &data, &config, own_gpu());
    let accuracy = run.summary.last.unwrap().val_accuracy.unwrap();
    assert!(accuracy >= 0.95, "{accuracy}");
}

/// The first 20 losses of a preset by its own settings, on the reference path and with
/// both families of kernels.
fn compare_losses(model: &Model, data: &Dataset) {
    let defaults = model.training();
    let config = Config {
        optimizer: defaults.optimizer.clone(),
        learning_rate: defaults.learning_rate.unwrap(),
        ..config()
    };
    let expected = Run::new(model, data, &config, Box::new(CpuBackend::new())).losses();
    assert_eq!(expected.len(), 20);
    for profile in [ProfileKind::CpuLike, ProfileKind::Gpu] {
        let found = Run::new(model, data, &config, gpu(profile)).losses();
        assert_eq!(found.len(), 20);
        for (step, (f, e)) in found.iter().zip(&expected).enumerate() {
            // A loss near ln 10 is an f32 with a rounding of 1.2e-7, and the logits behind
            // it bring a few more: 1e-6. From step to step the weights drift apart: an
            // update of at most the learning rate, 1e-3 in both presets, is off by the
            // roundings of a gradient that sums some thousand products, about 1e-5 of
            // itself, so 1e-8 a weight in a random direction. Along a gradient of length
            // below 10 that moves the loss by less than 1e-7 a step. (Where a gradient is
            // nothing but rounding, Adam and RMSprop may turn it into a larger step, but
            // there the loss does not depend on the weight.)
            let bound = 1e-6 + 1e-7 * step as f64;
            let error = (f - e).abs();
            assert!(
                error < bound,
                "step {step}: {f} on {profile}, {e}: {error:e}"
            );
        }
    }
}

#[test]
fn mnist_losses_are_those_of_the_reference() {
    let mut data = Request::new("mnist").load().unwrap();
    data.train = data.train.first(80);
    data.test = None;
    compare_losses(&Model::load("mnist-cnn").unwrap(), &data);
}

#[test]
fn cifar_losses_are_those_of_the_reference() {
    let model = Model::load("cifar10-cnn").unwrap();
    compare_losses(&model, &random_data(model.input(), 80, 0));
}

#[test]
fn a_step_sends_back_its_row_of_metrics_and_a_validation_its_logits() {
    // Eight f32: loss, correct, samples, not finite, in the top five; and padding.
    const ROW: u64 = 32;
    let data = random_data([1, 12, 12], 120, 300);
    for batch_size in [4, 7, 60] {
        let config = Config {
            batch_size,
            epochs: 2,
            ..config()
        };
        let summary = Run::new(&small_model(), &data, &config, own_gpu()).summary;
        // 300 images are evaluated in two steps.
        let steps = 2 * (120_u64.div_ceil(batch_size as u64) + 2);
        let logits = 2 * 300 * 4 * small_model().classes() as u64;
        let expected = ROW * steps + logits;
        assert_eq!(summary.bytes_read_back, expected, "batch {batch_size}");
        assert!(summary.waits <= summary.submissions, "{summary:?}");
    }
}

#[test]
fn the_seed_alone_decides_the_weights() {
    let data = random_data([1, 12, 12], 42, 0);
    let model = small_model();
    let weights = model.initial_weights(0);
    let run = |seed| {
        let config = Config { seed, ..config() };
        Run::from(&weights, &model, &data, &config, own_gpu()).weights
    };
    assert_eq!(run(1), run(1));
    // From the same weights: the seed also decides the order of the images.
    assert_ne!(run(1), run(2));
}

#[test]
fn neither_checkpoints_nor_the_steps_of_a_submission_change_a_bit() {
    let data = random_data([1, 12, 12], 400, 30);
    let model = small_model();
    let run = |checkpoint_minutes| {
        let config = Config {
            epochs: 2,
            optimizer: "adam".into(),
            learning_rate: 0.01,
            augment: Some("flip,crop=2,rotate=20,contrast=0.3,cutout=4,erase".into()),
            checkpoint_minutes,
            ..config()
        };
        Run::new(&model, &data, &config, own_gpu())
    };
    let alone = run(0.0);
    // Always due: one submission of one step between two checkpoints.
    let interrupted = run(1e-9);
    let submissions = |run: &Run| run.summary.submissions;
    assert!(
        submissions(&interrupted) > 2 * 100,
        "{}",
        submissions(&interrupted)
    );
    assert!(submissions(&alone) < 2 * 100, "{}", submissions(&alone));
    assert_eq!(timeless(&interrupted), timeless(&alone));
}

/// What a run is, but for the time it took.
fn timeless(run: &Run) -> (Vec<f64>, Vec<HistoryRow>, &Weights) {
    let timeless = |row| HistoryRow {
        seconds: 0.0,
        images_per_s: 0.0,
        ..row
    };
    let rows = run.history().into_iter().map(timeless).collect();
    (run.losses(), rows, &run.weights)
}

#[test]
fn a_streamed_set_gives_the_bits_of_one_on_the_device() {
    let grey = random_data([1, 12, 12], 103, 50);
    // 1.2 MB to train on and as much to validate on: a window and a rest of each.
    let colored = random_data([3, 32, 32], 403, 400);
    let small = small_model();
    let large = Model::builder("large", [3, 32, 32])
        .add(MaxPool2d::new(4))
        .add(Flatten)
        .add(Dense::new(10))
        .build()
        .unwrap();
    // A negligible time between checkpoints begins the epoch anew at every step, as a resume
    // does. The 50 images are one batch of an evaluation, the least that is there at a time.
    for (model, data, budget, shuffle, minutes, expected) in [
        (&small, &grey, 0, true, 1e-9, [true, false]),
        (&small, &grey, 0, false, 0.0, [true, false]),
        (&large, &colored, 1, true, 0.0, [true, true]),
    ] {
        let run = |data_budget, checkpoint_minutes| {
            let config = Config {
                epochs: 2,
                shuffle,
                accumulate: 3,
                augment: Some("crop=2,rotate=20,mixup=0.4,cutmix".into()),
                data_budget,
                checkpoint_minutes,
                ..config()
            };
            Run::new(model, data, &config, own_gpu())
        };
        let streamed = |run: &Run| match run.start() {
            Event::Start { streamed, .. } => *streamed,
            other => panic!("{other:?}"),
        };
        let resident = run(None, 0.0);
        assert_eq!(streamed(&resident), [false; 2]);
        let other = run(Some(budget), minutes);
        assert_eq!(streamed(&other), expected);
        assert_eq!(timeless(&other), timeless(&resident));
    }
}

#[test]
fn without_shuffling_images_come_in_stored_order() {
    let data = random_data([1, 12, 12], 30, 0);
    let model = small_model();
    let stored = image_losses(&model, &model.initial_weights(3), &data.train);
    let run = |shuffle| {
        let config = Config {
            batch_size: 1,
            epochs: 2,
            learning_rate: AT_REST,
            shuffle,
            ..config()
        };
        let losses = Run::new(&model, &data, &config, own_gpu()).losses();
        let (first, second) = losses.split_at(30);
        [first.to_vec(), second.to_vec()]
    };
    for epoch in run(false) {
        assert_close(&epoch, &stored);
    }
    // Shuffled, each image comes once an epoch, in another order in each.
    let sorted = |losses: &[f64]| {
        let mut losses = losses.to_vec();
        losses.sort_by(f64::total_cmp);
        losses
    };
    let [first, second] = run(true);
    assert_close(&sorted(&first), &sorted(&stored));
    assert_close(&sorted(&second), &sorted(&stored));
    for (a, b) in [(&first, &stored), (&second, &stored), (&first, &second)] {
        let moved = a.iter().zip(b).filter(|(a, b)| (*a - *b).abs() > 1e-5);
        assert!(moved.count() > 20, "{a:?} {b:?}");
    }
}

#[test]
fn the_last_smaller_batch_is_trained_on() {
    let data = random_data([1, 12, 12], 10, 0);
    let model = small_model();
    let config = Config {
        shuffle: false,
        ..config()
    };
    let all = Run::new(&model, &data, &config, own_gpu());
    assert_eq!(all.losses().len(), 3);
    assert_eq!(all.summary.last.as_ref().unwrap().images, 10);

    // The same in two trainings: two batches of 4, then one of 2.
    let mut first = data.clone();
    first.train = data.train.first(8);
    let mut last = data.clone();
    let [_, rest] = data.train.cut(0.2).unwrap();
    last.train = rest;
    let first = Run::new(&model, &first, &config, own_gpu());
    let config = Config {
        batch_size: 2,
        ..config
    };
    let last = Run::from(&first.weights, &model, &last, &config, own_gpu());
    assert_eq!(all.losses(), [first.losses(), last.losses()].concat());
    assert_ne!(all.weights, first.weights);
    assert_eq!(all.weights, last.weights);
}

#[test]
fn val_split_sets_the_last_images_aside() {
    let data = random_data([1, 12, 12], 20, 5);
    let model = small_model();
    let split = Config {
        limit: Some(16),
        val_split: Some(0.25),
        ..config()
    };
    let run = Run::new(&model, &data, &split, own_gpu());
    let Event::Start { images, .. } = run.start() else {
        panic!("{:?}", run.start());
    };
    assert_eq!(*images, [12, 4]);

    let kept = Config {
        limit: Some(12),
        ..config()
    };
    let same = Run::new(&model, &data, &kept, own_gpu());
    assert_eq!(run.weights, same.weights);

    let [_, aside] = data.train.first(16).cut(0.25).unwrap();
    assert_eq!(aside.labels, data.train.labels[12..16]);
    let expected = mean(&image_losses(&model, &run.weights, &aside));
    let found = run.summary.last.unwrap().val_loss.unwrap();
    assert_close(&[found], &[expected]);
}

#[test]
fn a_stopped_training_leaves_a_run_with_the_images_it_saw() {
    let data = random_data([1, 12, 12], 4000, 10);
    let model = small_model();
    let config = Config {
        epochs: 3,
        ..config()
    };
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut folder = RunFolder::create(Some(&path), &model, &config, &data.classes).unwrap();
    let stop = AtomicBool::new(false);
    let mut stop_in_epoch_2 = |event| {
        if let Event::Progress { epoch: 2, .. } = event {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let weights = model.initial_weights(0);
    let callbacks = Callbacks::new(&mut stop_in_epoch_2).stop_on(&stop);
    let summary = train(
        &model,
        &data,
        &config,
        &weights,
        own_gpu(),
        &mut folder,
        callbacks,
    )
    .unwrap();
    assert!(summary.stopped);
    let last = summary.last.unwrap();
    assert_eq!(last.epoch, 2);
    assert!((4..4000).contains(&last.images), "{}", last.images);
    assert_eq!(last.val_loss, None);

    let history = csv::Reader::from_path(path.join("history.csv")).unwrap();
    let rows: Vec<HistoryRow> = history.into_deserialize().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].images, 4000);
    assert!(rows[0].val_loss.is_some());
    assert_eq!(rows[1], last);
    let left = RunFolder::open(&path).unwrap();
    assert_ne!(left.weights(&model).unwrap(), weights);
}

#[test]
fn updates_take_the_learning_rate_of_the_schedule() {
    let data = random_data([1, 12, 12], 20, 0);
    let model = small_model();
    let scheduled = Config {
        epochs: 2,
        schedule: "step".into(),
        schedule_every: Some(1),
        schedule_factor: AT_REST,
        ..config()
    };
    let run = Run::new(&model, &data, &scheduled, own_gpu());
    let rates: Vec<f64> = run.history().iter().map(|r| r.learning_rate).collect();
    assert_eq!(rates, [0.05, 0.05 * AT_REST]);
    // The second epoch moves nothing, the first as without a schedule.
    let one = Run::new(&model, &data, &config(), own_gpu());
    assert_eq!(run.losses()[..5], one.losses());
    for (name, weight) in &run.weights {
        for (a, b) in weight.data().iter().zip(one.weights[name].data()) {
            assert!((a - b).abs() <= 1e-9, "{name}: {a} {b}");
        }
    }
    let warm = Config {
        warmup: 1.0,
        schedule: "cosine".into(),
        epochs: 3,
        ..config()
    };
    let run = Run::new(&model, &data, &warm, own_gpu());
    let rates: Vec<f64> = run.history().iter().map(|r| r.learning_rate).collect();
    // The last updates of the epochs: 5 of 5 warm, then 4 and 9 of 10 updates of the cosine.
    let cosine = |done: f64| 0.025 * (1.0 + (std::f64::consts::PI * done / 10.0).cos());
    assert_eq!(rates, [0.05, cosine(4.0), cosine(9.0)]);
}

#[test]
fn plateau_lowers_the_rate_where_the_score_stays() {
    let data = random_data([1, 12, 12], 20, 10);
    let plateau = Config {
        epochs: 4,
        learning_rate: AT_REST,
        schedule: "plateau".into(),
        schedule_every: Some(1),
        schedule_factor: 0.5,
        ..config()
    };
    let run = Run::new(&small_model(), &data, &plateau, own_gpu());
    let rates: Vec<f64> = run.history().iter().map(|r| r.learning_rate).collect();
    // The first score is the best so far; the others are the same.
    let expected = [1.0, 1.0, 0.5, 0.25].map(|f| f * AT_REST);
    assert_eq!(rates, expected);
}

#[test]
fn label_smoothing_and_class_weights_shape_the_gradient() {
    let data = random_data([1, 12, 12], 4, 0);
    let model = small_model();
    let initial = model.initial_weights(3);
    let cpu = Box::new(CpuBackend::new());
    let mut predictor = Predictor::new(&model, &initial, 4, cpu).unwrap();
    let logits = predictor.logits(&data.train.images.all().unwrap()).unwrap();
    let listed: Vec<f64> = (0..10).map(|c| 0.5 + f64::from(c)).collect();
    let text = listed.iter().map(f64::to_string).collect::<Vec<_>>();
    for (smoothing, weighted) in [(0.0, false), (0.2, false), (0.0, true), (0.2, true)] {
        let config = Config {
            label_smoothing: smoothing,
            class_weights: weighted.then(|| text.join(",")),
            ..config()
        };
        let trained = Run::new(&model, &data, &config, own_gpu()).weights;
        // By the last bias, loss = sum_i l_i / sum_i w_(y_i) has the derivative of each l_i
        // by its logits: T p_c - t_c, t_c = w_c (e / 10 + (1 - e) [c = y]), T = sum t_c.
        let weight = |c: usize| if weighted { listed[c] } else { 1.0 };
        let labels = || data.train.labels.iter().map(|l| *l as usize);
        let total: f64 = labels().map(weight).sum();
        for c in 0..10 {
            let mut gradient = 0.0;
            for (row, label) in logits.iter().zip(labels()) {
                let hit = |c: usize| f64::from(u8::from(c == label));
                let target = |c: usize| weight(c) * (smoothing / 10.0 + (1.0 - smoothing) * hit(c));
                let mass: f64 = (0..10).map(target).sum();
                gradient += (mass * probabilities(row)[c] - target(c)) / total;
            }
            let moved = |w: &Weights| f64::from(w["fc2.bias"].data()[c]);
            let found = (moved(&initial) - moved(&trained)) / config.learning_rate;
            // A few roundings of numbers of about 1 in f32, over the learning rate.
            assert!((found - gradient).abs() < 1e-5, "{c}: {found} {gradient}");
        }
    }
}

/// The movement of every weight, and its norm.
fn movement(from: &Weights, to: &Weights) -> (Vec<f64>, f64) {
    let pairs = from.iter().map(|(name, w)| (w.data(), to[name].data()));
    let moved: Vec<f64> = pairs
        .flat_map(|(a, b)| a.iter().zip(b).map(|(a, b)| f64::from(*b) - f64::from(*a)))
        .collect();
    let norm = moved.iter().map(|m| m * m).sum::<f64>().sqrt();
    (moved, norm)
}

#[test]
fn weight_decay_spares_biases_unless_all_shall_decay() {
    let data = random_data([1, 12, 12], 4, 0);
    let model = small_model();
    let mut initial = model.initial_weights(3);
    for weight in initial.values_mut() {
        // Biases begin at zero, where no decay would show.
        let shifted = weight.data().iter().map(|w| w + 0.5).collect();
        *weight = Tensor::new(weight.shape().clone(), shifted).unwrap();
    }
    for (optimizer, profile) in [("sgd", ProfileKind::CpuLike), ("adamw", ProfileKind::Gpu)] {
        let run = |weight_decay, decay_all| {
            let config = Config {
                optimizer: optimizer.into(),
                weight_decay,
                decay_all,
                ..config()
            };
            Run::from(&initial, &model, &data, &config, gpu(profile)).weights
        };
        let [without, some, all] = [run(0.0, false), run(0.1, false), run(0.1, true)];
        for (name, weight) in &without {
            let decays = |decayed: &Weights| {
                let pairs = weight.data().iter().zip(decayed[name].data());
                let mut differences = pairs.zip(initial[name].data()).map(|((a, b), start)| {
                    // Both kinds of decay take lr * wd * p from it.
                    (f64::from(a - b) - 0.05 * 0.1 * f64::from(*start)).abs()
                });
                // Some roundings of weights below 2.
                differences.all(|d| d < 1e-6)
            };
            assert_eq!(
                decays(&some),
                !name.ends_with("bias"),
                "{optimizer}: {name}"
            );
            assert!(decays(&all), "{optimizer}: {name}");
        }
    }
}

#[test]
fn gradients_are_clipped_by_norm_and_by_value() {
    let data = random_data([1, 12, 12], 4, 0);
    let model = small_model();
    let initial = model.initial_weights(3);
    for profile in [ProfileKind::CpuLike, ProfileKind::Gpu] {
        // What a step of SGD takes from the weights, over its learning rate.
        let run = |clip_norm, clip_value| {
            let config = Config {
                clip_norm,
                clip_value,
                learning_rate: 1.0,
                ..config()
            };
            let trained = Run::new(&model, &data, &config, gpu(profile)).weights;
            movement(&initial, &trained)
        };
        let (free, norm) = run(None, None);
        // Twenty roundings of gradients and weights of at most about 2 each.
        let same = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-6);
        assert!(norm > 0.1, "{norm}");
        assert!(same(&run(Some(2.0 * norm), None).0, &free));
        let (clipped, _) = run(Some(0.25 * norm), None);
        let expected: Vec<f64> = free.iter().map(|g| 0.25 * g).collect();
        assert!(same(&clipped, &expected), "{profile}");
        let largest = free.iter().fold(0.0, |a: f64, g| a.max(g.abs()));
        let limit = 0.3 * largest;
        let (clipped, _) = run(None, Some(limit));
        let expected: Vec<f64> = free.iter().map(|g| g.clamp(-limit, limit)).collect();
        assert!(same(&clipped, &expected), "{profile}");
    }
}

#[test]
fn clipping_and_groups_add_no_more_than_two_dispatches_a_step() {
    let data = random_data([1, 12, 12], 4, 0);
    let dispatches = |config: &Config| {
        let run = Run::new(&small_model(), &data, config, own_gpu());
        (run.summary.dispatches, run.summary.bytes_read_back)
    };
    let (plain, bytes) = dispatches(&config());
    let clipped = Config {
        clip_norm: Some(1.0),
        weight_decay: 0.1,
        ..config()
    };
    // The norm takes two, the update stays one, and nothing more is read back.
    assert_eq!(dispatches(&clipped), (plain + 2, bytes));
}

#[test]
fn training_ends_when_patience_does_and_keeps_the_best() {
    let data = random_data([1, 12, 12], 40, 20);
    let model = small_model();
    for monitor in ["loss", "accuracy"] {
        let config = Config {
            epochs: 60,
            learning_rate: 0.2,
            monitor: monitor.into(),
            patience: Some(3),
            ..config()
        };
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        let mut folder = RunFolder::create(Some(&path), &model, &config, &data.classes).unwrap();
        let mut history = Vec::new();
        let mut keep = |event| {
            if let Event::Epoch(row) = event {
                history.push(row);
            }
        };
        let callbacks = Callbacks::new(&mut keep);
        let weights = model.initial_weights(0);
        let backend = own_gpu();
        let summary = train(
            &model,
            &data,
            &config,
            &weights,
            backend,
            &mut folder,
            callbacks,
        )
        .unwrap();
        // Random labels: what is learned of the training images is worth nothing soon.
        assert!(summary.out_of_patience && !summary.stopped, "{summary:?}");
        let score = |row: &HistoryRow| match monitor {
            "loss" => -row.val_loss.unwrap(),
            _ => row.val_accuracy.unwrap(),
        };
        let top = history.iter().map(score).fold(f64::MIN, f64::max);
        let best = history.iter().find(|row| score(row) == top).unwrap();
        assert_eq!(summary.best, Some(best.epoch));
        assert_eq!(history.len(), best.epoch + 3, "{monitor}");
        let left = RunFolder::open(&path).unwrap();
        let [kept, last] = [left.best_weights(&model), left.weights(&model)].map(Result::unwrap);
        assert_ne!(kept, last);
        let test = data.test.as_ref().unwrap();
        let loss = mean(&image_losses(&model, &kept, test));
        assert_close(&[loss], &[best.val_loss.unwrap()]);
    }
}

#[test]
fn a_run_without_validation_has_no_best() {
    let data = random_data([1, 12, 12], 8, 0);
    let model = small_model();
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut folder = RunFolder::create(Some(&path), &model, &config(), &data.classes).unwrap();
    let mut ignore = |_| {};
    let weights = model.initial_weights(0);
    let callbacks = Callbacks::new(&mut ignore);
    let backend = own_gpu();
    let summary = train(
        &model,
        &data,
        &config(),
        &weights,
        backend,
        &mut folder,
        callbacks,
    )
    .unwrap();
    assert_eq!(summary.best, None);
    let error = folder.best_weights(&model).unwrap_err().to_string();
    assert!(error.contains("no best.safetensors"), "{error}");
}

/// The small model with batch normalisation behind its convolution.
fn normalized_model() -> Model {
    Model::builder("normalized", [1, 12, 12])
        .add(Conv2d::new(4, 3))
        .add(BatchNorm2d::default())
        .add(Flatten)
        .add(Dense::new(10))
        .build()
        .unwrap()
}

#[test]
fn moving_averages_are_validated_and_saved() {
    let data = random_data([1, 12, 12], 12, 8);
    let model = normalized_model();
    let initial = model.initial_weights(3);
    // The weights after each of three updates, without averages.
    let after = |updates: usize, ema: Option<f64>| {
        let config = Config {
            shuffle: false,
            limit: Some(4 * updates),
            ema,
            ..config()
        };
        Run::new(&model, &data, &config, own_gpu())
    };
    let steps: Vec<Weights> = (1..=3).map(|n| after(n, None).weights).collect();
    for decay in [0.2, 0.9] {
        let run = after(3, Some(decay));
        for (name, found) in &run.weights {
            for (i, found) in found.data().iter().enumerate() {
                let mut average = f64::from(initial[name].data()[i]);
                for (t, weights) in steps.iter().enumerate() {
                    // (1 + t) / (10 + t) with t from 1: 2/11, 3/12, 4/13.
                    let t = t as f64 + 1.0;
                    let d = f64::min(decay, (1.0 + t) / (10.0 + t));
                    average += (1.0 - d) * (f64::from(weights[name].data()[i]) - average);
                }
                // A few roundings, of running variances of up to about 100.
                let bound = 1e-6 * average.abs().max(1.0);
                let error = (f64::from(*found) - average).abs();
                assert!(error < bound, "{name}: {found} {average}");
            }
        }
        let loss = mean(&image_losses(
            &model,
            &run.weights,
            data.test.as_ref().unwrap(),
        ));
        assert_close(&[run.summary.last.unwrap().val_loss.unwrap()], &[loss]);
    }
}

#[test]
fn accumulated_batches_are_one_large_batch() {
    // Groups of 12 images: two whole ones, and one of a batch of 4 and one of 1.
    let data = random_data([1, 12, 12], 29, 10);
    let model = small_model();
    let recipes = [
        Config {
            optimizer: "momentum".into(),
            weight_decay: 0.01,
            clip_norm: Some(0.5),
            ..config()
        },
        Config {
            ema: Some(0.5),
            schedule: "cosine".into(),
            warmup: 0.5,
            ..config()
        },
    ];
    for (recipe, profile) in recipes
        .into_iter()
        .zip([ProfileKind::CpuLike, ProfileKind::Gpu])
    {
        let run = |batch_size, accumulate| {
            let config = Config {
                batch_size,
                accumulate,
                epochs: 3,
                ..recipe.clone()
            };
            Run::new(&model, &data, &config, gpu(profile))
        };
        let [parts, whole] = [run(4, 3), run(12, 1)];
        let [a, b] = [&parts, &whole].map(|r| r.summary.last.clone().unwrap());
        assert_eq!(a.learning_rate, b.learning_rate);
        // Nine updates. A gradient that sums some hundred products in another order is off by
        // some 1e-6 of itself, and is taken times at most 0.05, ten times over by momentum.
        let (moved, _) = movement(&whole.weights, &parts.weights);
        let most = moved.iter().fold(0.0, |a: f64, m| a.max(m.abs()));
        assert!(most < 1e-5, "{most}");
        let (_, trained) = movement(&model.initial_weights(3), &whole.weights);
        assert!(trained > 0.05, "{trained}");
        assert_close(&[a.val_loss.unwrap()], &[b.val_loss.unwrap()]);
        // Without accumulation it is another training.
        let (_, other) = movement(&whole.weights, &run(4, 1).weights);
        assert!(other > 1e-3, "{other}");
    }
}

/// Convolutions with normalisation and dropout, a shortcut and a pool: enough results to drop.
fn deep_model() -> Model {
    let mut b = Model::builder("deep", [1, 12, 12]);
    let mut x = b.input();
    for block in 0..6 {
        let conv = || Conv2d::new(6, 3).padding(Pad::Same);
        let y = b.layer(conv().bias(false), std::slice::from_ref(&x));
        let y = b.layer(BatchNorm2d::default(), &[y]);
        let y = b.layer(Activation::new(Relu), &[y]);
        let y = b.layer(Dropout::new(0.1), &[y]);
        x = match block {
            0 => b.layer(conv().activation(Relu), &[y]),
            _ => b.layer(Add::default(), &[x, y]),
        };
    }
    let x = b.layer(MaxPool2d::new(2), &[x]);
    let x = b.layer(Flatten, &[x]);
    b.layer(Dense::new(10), &[x]);
    b.build().unwrap()
}

#[test]
fn recomputing_changes_no_bit_and_needs_less_memory() {
    let data = random_data([1, 12, 12], 12, 0);
    let model = deep_model();
    for profile in [ProfileKind::CpuLike, ProfileKind::Gpu] {
        let [kept, again] = [false, true].map(|recompute| {
            let config = Config {
                recompute,
                ..config()
            };
            let run = Run::new(&model, &data, &config, gpu(profile));
            let Event::Start { memory, .. } = *run.start() else {
                panic!("{:?}", run.start());
            };
            (run.weights, memory[1])
        });
        assert_eq!(kept.0, again.0, "{profile:?}");
        let share = again.1 as f64 / kept.1 as f64;
        assert!(share < 0.75, "{profile:?}: {} of {}", again.1, kept.1);
    }
}

#[test]
fn muon_moves_hidden_matrices_and_adamw_the_rest() {
    let data = random_data([1, 12, 12], 8, 0);
    let model = small_model();
    let initial = model.initial_weights(3);
    let run = |optimizer: &str, epochs| {
        let config = Config {
            learning_rate: 0.01,
            epochs,
            ..config().with_optimizer(optimizer).unwrap()
        };
        Run::new(&model, &data, &config, own_gpu())
    };
    let [muon, adamw] = ["muon", "adamw"].map(|o| run(o, 1));
    for name in ["conv1.weight", "fc1.weight"] {
        assert_ne!(muon.weights[name], adamw.weights[name], "{name}");
        // The rows of the movement are of one length if they are orthogonal; the step's size
        // is 0.2 sqrt(max(rows, columns)) times the rate, and two of them may add up or not.
        let (from, to) = (&initial[name], &muon.weights[name]);
        let (rows, len) = (from.shape()[0], from.data().len());
        let moved = to
            .data()
            .iter()
            .zip(from.data())
            .map(|(a, b)| f64::from(a - b));
        let norm = moved.map(|m| m * m).sum::<f64>().sqrt();
        let size = 0.01 * 0.2 * (rows.max(len / rows) as f64).sqrt();
        let root = (rows.min(len / rows) as f64).sqrt();
        assert!(
            (0.3..2.6).contains(&(norm / (size * root))),
            "{name}: {norm}"
        );
    }
    // Both step the last layer's bias by AdamW; in the first step it sees the same gradient.
    assert!(muon.losses()[0] == adamw.losses()[0]);
    let longer = run("muon", 12);
    assert!(longer.losses().last().unwrap() < &longer.losses()[0]);
}
