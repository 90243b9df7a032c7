//! A dense layer whose weight is more than the device binds at once trains and predicts as it
//! would on a device that binds it whole.

mod support;

use gpucnn::data::Dataset;
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::GpuBackend;
use gpucnn::infer::Predictor;
use gpucnn::model::{Dense, Flatten, Model};
use gpucnn::ops::activation::Function::Relu;
use gpucnn::train::{Callbacks, Config, RunFolder, Weights, train};
use support::training::random_data;

/// The second layer's weight has 24,000 bytes, 192 rows of it 15,360 and 64 rows 5,120.
fn model() -> Model {
    Model::builder("wide", [1, 8, 8])
        .add(Flatten)
        .add(Dense::new(20).activation(Relu))
        .add(Dense::new(300).activation(Relu))
        .add(Dense::new(5))
        .build()
        .unwrap()
}

const LIMIT: u64 = 16 << 10;

fn data() -> Dataset {
    random_data(9, [1, 8, 8], 5, [30, 9])
}

/// Weights after an epoch, and the logits of two images by them.
fn run(limit: Option<u64>) -> (Weights, Vec<Vec<f32>>) {
    let (model, data) = (model(), data());
    let config = Config {
        data: "random".into(),
        epochs: 1,
        batch_size: 8,
        optimizer: "momentum".into(),
        learning_rate: 0.01,
        clip_norm: Some(1.0),
        ..Config::default()
    };
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut folder = RunFolder::create(Some(&path), &model, &config, &data.classes).unwrap();
    let gpu = match limit {
        Some(limit) => support::open_bound(ProfileKind::CpuLike, true, limit),
        None => support::open(ProfileKind::CpuLike, true),
    };
    let device = || Box::new(GpuBackend::new(gpu.clone()).unwrap());
    let start = model.initial_weights(1);
    let mut ignore = |_| {};
    let callbacks = Callbacks::new(&mut ignore);
    train(
        &model,
        &data,
        &config,
        &start,
        device(),
        &mut folder,
        callbacks,
    )
    .unwrap();
    let weights = folder.weights(&model).unwrap();
    let mut predictor = Predictor::new(&model, &weights, 2, device()).unwrap();
    let images = data.train.images.get(0..2).unwrap();
    let logits = predictor.logits(&images).unwrap();
    (weights, logits)
}

/// Both add the same f32 products, in another order: after four steps each weight has moved
/// by its gradients' rounding times the rate, far below 1e-6 here.
#[test]
fn a_weight_above_the_limit_trains_as_one_below() {
    let (expected, expected_logits) = run(None);
    let (found, logits) = run(Some(LIMIT));
    for (name, tensor) in &expected {
        let pairs = found[name].data().iter().zip(tensor.data());
        let largest = pairs.map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
        assert!(largest <= 1e-6, "{name}: {largest}");
    }
    let pairs = logits.concat().into_iter().zip(expected_logits.concat());
    let largest = pairs.map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
    assert!(largest <= 1e-5, "{largest}");
}

#[test]
fn a_row_above_the_limit_is_an_error_that_names_the_layer() {
    let model = model();
    let gpu = support::open_bound(ProfileKind::CpuLike, true, 5_000);
    let backend = Box::new(GpuBackend::new(gpu).unwrap());
    let error = Predictor::new(&model, &model.initial_weights(1), 2, backend).err();
    let error = error.expect("64 rows are 5,120 bytes").to_string();
    assert!(
        error.contains("fc") && error.contains("max_storage_buffer_binding_size"),
        "{error}"
    );
}
