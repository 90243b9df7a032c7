//! Steps that are not finite: found at once, their origin named, nothing of them applied.

mod support;

use gpucnn::Error;
use gpucnn::data::{Dataset, Split};
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::{Backend, CpuBackend, GpuBackend};
use gpucnn::model::{AvgPool2d, BatchNorm2d, Conv2d, Dense, Flatten, Model};
use gpucnn::tensor::Tensor;
use gpucnn::train::{Callbacks, Config, Event, OnNan, RunFolder, Weights, resume};
use support::training::{Trained, trained};

fn backends() -> Vec<Box<dyn Backend>> {
    let gpu = |profile| {
        let gpu = support::open(profile, false);
        Box::new(GpuBackend::new(gpu).unwrap()) as Box<dyn Backend>
    };
    vec![
        Box::new(CpuBackend::new()),
        gpu(ProfileKind::CpuLike),
        gpu(ProfileKind::Gpu),
    ]
}

/// Images of one row of two pixels, the first between 20 and 220; those in `poisoned` have their second one set.
fn data(images: usize, poisoned: &[usize]) -> Dataset {
    let pixels = |i: usize| {
        [
            (37 * i % 200) as u8 + 20,
            255 * u8::from(poisoned.contains(&i)),
        ]
    };
    Dataset {
        name: "pairs".into(),
        shape: [1, 1, 2],
        classes: vec!["a".into(), "b".into()],
        train: Split::new(
            (0..images).flat_map(pixels).collect(),
            (0..images).map(|i| (i % 3 == 0).into()).collect(),
        ),
        test: None,
        notes: vec![],
    }
}

/// A convolution that a set second pixel leads beyond all bounds, in a norm and a dense layer.
fn poisonable() -> (Model, Weights) {
    let model = Model::builder("poisonable", [1, 1, 2])
        .add(Conv2d::new(3, [1, 2]))
        .add(BatchNorm2d::default())
        .add(Flatten)
        .add(Dense::new(2))
        .build()
        .unwrap();
    let mut weights = model.initial_weights(4);
    let filters = vec![0.5, 1e38, -0.25, 1e38, 0.125, 1e38];
    set(&mut weights, "conv1.weight", filters);
    (model, weights)
}

fn set(weights: &mut Weights, name: &str, values: Vec<f32>) {
    let shape = weights[name].shape().clone();
    weights.insert(name.into(), Tensor::new(shape, values).unwrap());
}

fn config(on_nan: OnNan) -> Config {
    Config {
        data: "pairs".into(),
        epochs: 2,
        batch_size: 4,
        optimizer: "momentum".into(),
        learning_rate: 0.05,
        // Small enough that the number of steps does not matter to it.
        ema: Some(0.1),
        shuffle: false,
        log_every: 1,
        on_nan,
        ..Config::default()
    }
}

fn run(
    (model, weights): &(Model, Weights),
    data: &Dataset,
    config: &Config,
    backend: Box<dyn Backend>,
) -> Trained {
    trained(model, weights, data, config, backend)
}

fn assert_diverged(outcome: &Trained, wanted: &[&str]) {
    let error = outcome.result.as_ref().unwrap_err();
    assert!(matches!(error, Error::Diverged(_)), "{error:?}");
    let message = error.to_string();
    for text in wanted.iter().chain(&["--on-nan skip", "--learning-rate"]) {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
}

#[test]
fn a_step_that_is_skipped_leaves_no_trace() {
    // The third of five batches has a poisoned image.
    let poisoned = data(20, &[9]);
    let mut clean = poisoned.clone();
    let [images, labels] = [8..12, 8..12];
    let keep = |i: usize, range: &std::ops::Range<usize>| !range.contains(&i);
    let pixels = clean.train.images.all().unwrap().into_owned();
    let pixels = pixels.chunks(2).enumerate();
    clean.train = Split::new(
        pixels
            .filter(|(i, _)| keep(*i, &images))
            .flat_map(|(_, p)| p.to_vec())
            .collect(),
        (0..20)
            .filter(|i| keep(*i, &labels))
            .map(|i| poisoned.train.labels[i])
            .collect(),
    );
    let start = poisonable();
    for (backend, other) in backends().into_iter().zip(backends()) {
        let name = backend.describe();
        // The reference computes in float64, where 1e38 squared is a number like any other.
        if name.contains("reference") {
            continue;
        }
        let skipping = run(&start, &poisoned, &config(OnNan::Skip), backend);
        let without = run(&start, &clean, &config(OnNan::Stop), other);
        let summary = skipping.result.as_ref().unwrap();
        assert_eq!(summary.skipped, 2, "{name}");
        let skipped = |e: &Event| match e {
            Event::Skipped { step, epoch } => Some((*step, *epoch)),
            _ => None,
        };
        let steps: Vec<_> = skipping.events.iter().filter_map(skipped).collect();
        assert_eq!(steps, [(3, 1), (8, 2)], "{name}");
        let weights = |o: &Trained| o.folder.weights(&start.0).unwrap();
        assert_eq!(weights(&skipping), weights(&without), "{name}");
        let losses = |o: &Trained| {
            o.folder
                .history()
                .iter()
                .map(|r| r.loss)
                .collect::<Vec<_>>()
        };
        assert_eq!(losses(&skipping), losses(&without), "{name}");
        let (checkpoint, _) = skipping.folder.checkpoint().unwrap();
        assert_eq!(checkpoint.position.skipped, 2);
    }
}

#[test]
fn stopping_saves_the_state_before_the_step_and_skipping_goes_on_from_it() {
    let data = data(20, &[9]);
    let start = poisonable();
    for profile in [ProfileKind::CpuLike, ProfileKind::Gpu] {
        let gpu = || Box::new(GpuBackend::new(support::open(profile, false)).unwrap());
        let mut stopped = run(&start, &data, &config(OnNan::Stop), gpu());
        let wanted = [
            "step 3, in epoch 1",
            "layer bn1 (batch_norm2d)",
            "That step was not",
        ];
        assert_diverged(&stopped, &wanted);
        let (checkpoint, _) = stopped.folder.checkpoint().unwrap();
        let position = checkpoint.position;
        assert_eq!((position.steps, position.images), (2, 8));

        let skip = config(OnNan::Skip);
        let mut ignore = |_| {};
        let callbacks = Callbacks::new(&mut ignore);
        let folder = &mut stopped.folder;
        let summary = resume(
            &start.0,
            &data,
            &skip,
            &checkpoint,
            gpu(),
            folder,
            callbacks,
        );
        assert_eq!(summary.unwrap().skipped, 2);
        let whole = run(&start, &data, &skip, gpu());
        let weights = |folder: &RunFolder| folder.weights(&start.0).unwrap();
        assert_eq!(weights(&stopped.folder), weights(&whole.folder));
    }
}

#[test]
fn a_batch_that_is_not_finite_is_left_out_of_accumulated_gradients() {
    let data = data(20, &[9]);
    let start = poisonable();
    let config = Config {
        accumulate: 2,
        ..config(OnNan::Skip)
    };
    for profile in [ProfileKind::CpuLike, ProfileKind::Gpu] {
        let gpu = Box::new(GpuBackend::new(support::open(profile, false)).unwrap());
        let outcome = run(&start, &data, &config, gpu);
        assert_eq!(outcome.result.as_ref().unwrap().skipped, 2);
        let weights = outcome.folder.weights(&start.0).unwrap();
        for (name, tensor) in &weights {
            assert!(
                tensor.data().iter().all(|x| x.is_finite()),
                "{name}: {tensor:?}"
            );
        }
        let stop = Config {
            on_nan: OnNan::Stop,
            ..config.clone()
        };
        let gpu = Box::new(GpuBackend::new(support::open(profile, false)).unwrap());
        assert_diverged(&run(&start, &data, &stop, gpu), &["step 3", "bn1"]);
    }
}

/// The same images, each pixel 256 rows by 128 columns of it: 64 KiB, of which a budget of 1 MiB
/// holds 16; and the model that takes the mean of them first.
fn enlarged(data: &Dataset, (model, weights): (Model, Weights)) -> (Dataset, (Model, Weights)) {
    let row = |pair: &[u8]| [[pair[0]; 128], [pair[1]; 128]].concat().repeat(256);
    let large = Dataset {
        shape: [1, 256, 256],
        train: Split::new(
            data.train
                .images
                .all()
                .unwrap()
                .chunks(2)
                .flat_map(row)
                .collect(),
            data.train.labels.clone(),
        ),
        ..data.clone()
    };
    let pooled = Model::builder(model.name(), large.shape)
        .add(AvgPool2d::new([256, 128]))
        .add(Conv2d::new(3, [1, 2]))
        .add(BatchNorm2d::default())
        .add(Flatten)
        .add(Dense::new(2))
        .build()
        .unwrap();
    (large, (pooled, weights))
}

#[test]
fn streamed_images_are_stopped_at_and_skipped_as_those_on_the_device() {
    // Windows of four batches of the five: a poisoned image in each of the two.
    let (data, start) = enlarged(&data(20, &[9, 18]), poisonable());
    let weights = |folder: &RunFolder| folder.weights(&start.0).unwrap();
    for profile in [ProfileKind::CpuLike, ProfileKind::Gpu] {
        let gpu = || Box::new(GpuBackend::new(support::open(profile, false)).unwrap());
        let with = |on_nan, data_budget, shuffle| Config {
            data_budget,
            shuffle,
            ..config(on_nan)
        };
        let run = |config: &Config| run(&start, &data, config, gpu());
        for shuffle in [false, true] {
            let streamed = run(&with(OnNan::Skip, Some(1), shuffle));
            let streams = |e: &Event| {
                matches!(
                    e,
                    Event::Start {
                        streamed: [true, _],
                        ..
                    }
                )
            };
            assert!(streamed.events.iter().any(streams));
            let resident = run(&with(OnNan::Skip, None, shuffle));
            assert!(!resident.events.iter().any(streams));
            assert_eq!(
                streamed.result.unwrap().skipped,
                resident.result.unwrap().skipped
            );
            assert_eq!(weights(&streamed.folder), weights(&resident.folder));
        }

        // Stopped in the first window, and gone on from there.
        let mut stopped = run(&with(OnNan::Stop, Some(1), false));
        assert_diverged(
            &stopped,
            &["step 3, in epoch 1", "layer bn1 (batch_norm2d)"],
        );
        let (checkpoint, _) = stopped.folder.checkpoint().unwrap();
        assert_eq!(
            (checkpoint.position.steps, checkpoint.position.images),
            (2, 8)
        );
        let skip = with(OnNan::Skip, Some(1), false);
        let mut ignore = |_| {};
        let summary = resume(
            &start.0,
            &data,
            &skip,
            &checkpoint,
            gpu(),
            &mut stopped.folder,
            Callbacks::new(&mut ignore),
        );
        assert_eq!(summary.unwrap().skipped, 4);
        assert_eq!(weights(&stopped.folder), weights(&run(&skip).folder));
    }
}

#[test]
fn a_step_in_a_later_window_is_diagnosed_there() {
    let (data, start) = enlarged(&data(20, &[18]), poisonable());
    for profile in [ProfileKind::CpuLike, ProfileKind::Gpu] {
        let gpu = Box::new(GpuBackend::new(support::open(profile, false)).unwrap());
        let stop = Config {
            data_budget: Some(1),
            ..config(OnNan::Stop)
        };
        let stopped = run(&start, &data, &stop, gpu);
        assert_diverged(
            &stopped,
            &["step 5, in epoch 1", "layer bn1 (batch_norm2d)"],
        );
        let (checkpoint, _) = stopped.folder.checkpoint().unwrap();
        assert_eq!(
            (checkpoint.position.steps, checkpoint.position.images),
            (4, 16)
        );
    }
}

#[test]
fn an_epoch_without_a_finite_step_is_an_error() {
    let data = data(8, &[0, 5]);
    let gpu = Box::new(GpuBackend::new(support::open(ProfileKind::CpuLike, false)).unwrap());
    let outcome = run(&poisonable(), &data, &config(OnNan::Skip), gpu);
    let error = outcome.result.unwrap_err().to_string();
    assert!(
        error.contains("every step of epoch 1 was skipped"),
        "{error}"
    );
}

/// Three dense layers of the given weights: one value for each layer but the last, which has
/// one for each class.
fn stack(first: f32, second: f32, last: [f32; 2]) -> (Model, Weights) {
    let model = Model::builder("stack", [1, 1, 2])
        .add(Flatten)
        .add(Dense::new(4))
        .add(Dense::new(4))
        .add(Dense::new(2))
        .build()
        .unwrap();
    let mut weights = model.initial_weights(0);
    set(&mut weights, "fc1.weight", vec![first; 8]);
    set(&mut weights, "fc2.weight", vec![second; 16]);
    let [a, b] = last;
    set(&mut weights, "fc3.weight", vec![a, a, a, a, b, b, b, b]);
    (model, weights)
}

#[test]
fn the_layer_that_began_it_is_named() {
    let data = data(8, &[]);
    let stop = config(OnNan::Stop);
    // Pixels are about 0.5: 4 * 1e20 * 1e25 is more than 3.4e38.
    let forward = stack(1e20, 1e25, [1.0, 2.0]);
    // Going back, 1e22 for the class that is not the label, times 3e17, what goes in.
    let backward = stack(1e18, 1e-37, [1e22, 2e22]);
    let mut spoilt = stack(1.0, 1.0, [1.0, 2.0]);
    set(&mut spoilt.1, "fc2.bias", vec![0.0, f32::NAN, 0.0, 0.0]);
    for profile in [ProfileKind::CpuLike, ProfileKind::Gpu] {
        let gpu = || Box::new(GpuBackend::new(support::open(profile, false)).unwrap());
        let wanted = ["step 1, in epoch 1", "the output of layer fc2"];
        assert_diverged(&run(&forward, &data, &stop, gpu()), &wanted);
        let wanted = ["step 1, in epoch 1", "a gradient of layer fc2"];
        assert_diverged(&run(&backward, &data, &stop, gpu()), &wanted);
        let wanted = ["step 1, in epoch 1", "the weight fc2.bias"];
        assert_diverged(&run(&spoilt, &data, &stop, gpu()), &wanted);
    }
    let wanted = ["step 1, in epoch 1", "the weight fc2.bias"];
    let cpu = Box::new(CpuBackend::new());
    assert_diverged(&run(&spoilt, &data, &stop, cpu), &wanted);
}

#[test]
fn a_training_that_runs_away_is_stopped_with_its_weights_intact() {
    let start = poisonable();
    let fast = Config {
        learning_rate: 1e30,
        ..config(OnNan::Stop)
    };
    for backend in backends() {
        let name = backend.describe();
        let outcome = run(&start, &data(20, &[]), &fast, backend);
        assert_diverged(&outcome, &["the training diverged at step"]);
        // The step before it may have been the one that went too far; it was finite.
        let (checkpoint, _) = outcome.folder.checkpoint().unwrap();
        assert!(checkpoint.position.steps >= 1, "{name}");
    }
}
