//! Training end to end, through the library.

mod support;

use gpucnn::data::{Dataset, Request};
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::CpuBackend;
use gpucnn::model::{Dense, Flatten, MaxPool2d, Model};
use gpucnn::train::{Callbacks, Config, Event, HistoryRow, RunFolder, Weights, train};
use std::sync::atomic::{AtomicBool, Ordering};
use support::small::{
    AT_REST, Run, assert_close, config, gpu, image_losses, mean, own_gpu, random_data, small_model,
};

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
