//! A device that fails: what is said, and how a training goes on.

mod support;

use gpucnn::data::{Dataset, Split};
use gpucnn::gpu::Gpu;
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::{Backend, GpuBackend};
use gpucnn::model::{BatchNorm2d, Conv2d, Dense, Dropout, Flatten, Model};
use gpucnn::ops::Draw;
use gpucnn::tensor::TensorType;
use gpucnn::train::{
    Callbacks, Config, Event, Retry, RunFolder, Start, Summary, Weights, train_with_retries,
};
use gpucnn::{Error, Result};
use std::rc::Rc;
use std::time::Duration;

/// Forty grey images of 6 by 6.
fn data() -> Dataset {
    let mut draw = Draw::new(3);
    let images: Vec<u8> = (0..40 * 36).map(|_| draw.int(0, 255) as u8).collect();
    Dataset {
        name: "random".into(),
        shape: [1, 6, 6],
        classes: (0..4).map(|c| c.to_string()).collect(),
        train: Split {
            images: images.into(),
            labels: (0..40).map(|i| i % 4).collect(),
        },
        test: None,
        notes: vec![],
    }
}

fn model() -> Model {
    Model::builder("small", [1, 6, 6])
        .add(Conv2d::new(3, 3))
        .add(BatchNorm2d::default())
        .add(Flatten)
        .add(Dropout::new(0.2))
        .add(Dense::new(4))
        .build()
        .unwrap()
}

/// Three epochs of ten steps, with a checkpoint after every submission.
fn config() -> Config {
    Config {
        data: "random".into(),
        epochs: 3,
        batch_size: 4,
        log_every: 1,
        checkpoint_minutes: 1e-9,
        ..Config::default()
    }
}

/// What a training with retries said and left.
struct Outcome {
    result: Result<Summary>,
    warnings: Vec<String>,
    opened: usize,
    weights: Option<Weights>,
    run: String,
}

/// Trains, and destroys the device at each of the steps `deaths`, once.
fn train(deaths: &[u32], attempts: usize) -> Outcome {
    let (model, data, config) = (model(), data(), config());
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut folder = RunFolder::create(Some(&path), &model, &config, &data.classes).unwrap();
    let (mut deaths, mut warnings, mut opened) = (deaths.to_vec(), vec![], 0);
    let device = std::cell::RefCell::new(None::<Rc<Gpu>>);
    let mut watch = |event| match event {
        Event::Step { step, .. } if deaths.contains(&step) => {
            deaths.retain(|d| *d != step);
            device.borrow().as_ref().unwrap().destroy();
        }
        Event::Warning(text) => warnings.push(text),
        _ => {}
    };
    let mut open = || {
        opened += 1;
        let gpu = support::open(ProfileKind::CpuLike, false);
        *device.borrow_mut() = Some(gpu.clone());
        Ok(Box::new(GpuBackend::new(gpu)?) as Box<dyn Backend>)
    };
    let weights = model.initial_weights(config.seed);
    let result = train_with_retries(
        &model,
        &data,
        &config,
        Start::Weights(&weights),
        &mut open,
        &mut folder,
        Callbacks::new(&mut watch),
        Retry {
            attempts,
            pause: Duration::ZERO,
        },
    );
    let left = result.is_ok().then(|| folder.weights(&model).unwrap());
    Outcome {
        result,
        warnings,
        opened,
        weights: left,
        run: path.display().to_string(),
    }
}

#[test]
fn a_lost_device_is_opened_again_and_ends_in_the_same_bits() {
    let alone = train(&[], 0);
    assert_eq!((alone.opened, alone.warnings.len()), (1, 0));
    let retried = train(&[3, 14, 15, 30], 1);
    retried.result.unwrap();
    assert_eq!(retried.weights, alone.weights);
    assert!((3..=5).contains(&retried.opened), "{}", retried.opened);
    assert_eq!(retried.warnings.len(), retried.opened - 1);
    for warning in &retried.warnings {
        for text in [
            "device failure: the device was destroyed",
            "the last checkpoint is",
            "opening the device again in 0 s, attempt 1 of 1",
        ] {
            assert!(warning.contains(text), "no {text:?} in: {warning}");
        }
    }
}

#[test]
fn without_retries_the_error_names_the_last_checkpoint() {
    let outcome = train(&[12], 0);
    let error = outcome.result.unwrap_err();
    assert!(matches!(error, Error::Fault(_)), "{error:?}");
    assert_eq!(error.exit_code(), 1);
    let message = error.to_string();
    let checkpoint = format!("the last checkpoint is {}/checkpoints/step-", outcome.run);
    let remedy = format!("`gpucnn train --resume {}`", outcome.run);
    for text in ["the device was destroyed", &checkpoint, &remedy] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    assert_eq!(outcome.opened, 1);
}

/// A device that fails at once, every time.
#[test]
fn attempts_are_bounded() {
    let (model, data, config) = (model(), data(), config());
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut folder = RunFolder::create(Some(&path), &model, &config, &data.classes).unwrap();
    let (mut warnings, mut opened) = (Vec::new(), 0);
    let mut keep = |event| {
        if let Event::Warning(text) = event {
            warnings.push(text);
        }
    };
    let mut open = || {
        opened += 1;
        // The second time the driver has not recovered yet.
        if opened == 2 {
            return Err(Error::Device("no adapter".into()));
        }
        let gpu = support::open(ProfileKind::CpuLike, false);
        let backend = GpuBackend::new(gpu.clone())?;
        gpu.destroy();
        Ok(Box::new(backend) as Box<dyn Backend>)
    };
    let weights = model.initial_weights(0);
    let result = train_with_retries(
        &model,
        &data,
        &config,
        Start::Weights(&weights),
        &mut open,
        &mut folder,
        Callbacks::new(&mut keep),
        Retry {
            attempts: 3,
            pause: Duration::ZERO,
        },
    );
    let message = result.unwrap_err().to_string();
    assert!(message.contains("the device was destroyed"), "{message}");
    assert_eq!((opened, warnings.len()), (4, 3), "{warnings:?}");
}

#[test]
fn a_buffer_beyond_the_device_is_refused_by_name() {
    let gpu = support::open(ProfileKind::CpuLike, false);
    let adapter = gpucnn::gpu::adapters().swap_remove(0);
    let mut backend = GpuBackend::new(gpu).unwrap();
    let most = adapter.limits.max_buffer_size as usize;
    let error = backend.create("giant", &TensorType::f32([most / 4 + 4]));
    let message = error.unwrap_err().to_string();
    for text in ["giant needs", "max_buffer_size", &most.to_string()] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
}
