//! The same seed on the same device gives the same bits, with any batch of settings, and
//! also where the training stops somewhere and goes on; another device comes as near as its
//! roundings let it.
//!
//! `GPUCNN_TEST_CASES` asks for more random settings, `GPUCNN_TEST_SEED` for others.

mod files;
mod support;

use files::{Files, gpucnn};
use gpucnn::data::Dataset;
use gpucnn::gpu::profile::{ProfileKind, Texels};
use gpucnn::gpu::{Gpu, OpenOptions};
use gpucnn::graph::GpuBackend;
use gpucnn::model::{BatchNorm2d, Conv2d, Dense, Dropout, Flatten, MaxPool2d, Model};
use gpucnn::ops::Draw;
use gpucnn::ops::activation::Function::Relu;
use gpucnn::train::{
    Callbacks, Config, Event, HistoryRow, OnNan, Precision, RunFolder, Weights, resume, train,
};
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::training::random_data;

fn number(variable: &str, default: u64) -> u64 {
    let asked = std::env::var(variable).ok();
    asked.map_or(default, |text| text.parse().unwrap())
}

fn model() -> Model {
    Model::builder("small", [1, 8, 8])
        .add(Conv2d::new(4, 3).activation(Relu))
        .add(BatchNorm2d::default())
        .add(MaxPool2d::new(2))
        .add(Flatten)
        .add(Dropout::new(0.2))
        .add(Dense::new(5))
        .build()
        .unwrap()
}

fn data() -> Dataset {
    random_data(9, [1, 8, 8], 5, [50, 9])
}

/// Settings as a user might put them together.
fn config(draw: &mut Draw) -> Config {
    let names = [
        "sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad", "lion",
    ];
    let schedules = ["constant", "step", "cosine", "one-cycle", "plateau"];
    let some = |draw: &mut Draw, value: f64| draw.coin().then_some(value);
    let clip = draw.int(0, 2);
    Config {
        data: "random".into(),
        epochs: 3,
        batch_size: draw.int(1, 9),
        optimizer: draw.pick(&names).into(),
        learning_rate: draw.pick(&[0.001, 0.01]),
        schedule: draw.pick(&schedules).into(),
        schedule_every: Some(1),
        warmup: draw.pick(&[0.0, 0.7]),
        monitor: draw.pick(&["loss", "accuracy"]).into(),
        patience: draw.coin().then_some(2),
        weight_decay: draw.pick(&[0.0, 0.01]),
        decay_all: draw.coin(),
        clip_norm: (clip == 1).then_some(0.5),
        clip_value: (clip == 2).then_some(0.01),
        ema: some(draw, 0.9),
        accumulate: draw.int(1, 3),
        label_smoothing: draw.pick(&[0.0, 0.1]),
        class_weights: draw.coin().then(|| "balanced".into()),
        augment: draw.coin().then(|| "flip,crop=2".into()),
        on_nan: draw.pick(&[OnNan::Stop, OnNan::Skip]),
        precision: draw.pick(&[Precision::F32, Precision::F16]),
        seed: draw.int(0, 1000) as u32,
        limit: draw.coin().then_some(41),
        val_split: some(draw, 0.2),
        shuffle: draw.coin(),
        log_every: 1,
        ..Config::default()
    }
}

/// Weights, best weights and a history without times.
type Left = (Weights, Option<Weights>, Vec<HistoryRow>);

fn left(folder: &RunFolder, model: &Model) -> Left {
    let timeless = |row: &HistoryRow| HistoryRow {
        seconds: 0.0,
        images_per_s: 0.0,
        ..row.clone()
    };
    (
        folder.weights(model).unwrap(),
        folder.best_weights(model).ok(),
        folder.history().iter().map(timeless).collect(),
    )
}

/// Trains; where `stop` is a step, stops there and goes on from the checkpoint.
fn run(config: &Config, gpu: &Rc<Gpu>, stop: Option<u32>) -> Left {
    let (model, data) = (model(), data());
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut folder = RunFolder::create(Some(&path), &model, config, &data.classes).unwrap();
    let device = || Box::new(GpuBackend::new(gpu.clone()).unwrap());
    let weights = model.initial_weights(config.seed);
    let (flag, stopped) = (AtomicBool::new(false), Cell::new(false));
    let mut watch = |event| match event {
        Event::Step { step, .. } if Some(step) == stop => flag.store(true, Ordering::Relaxed),
        Event::End(summary) => stopped.set(summary.stopped),
        _ => {}
    };
    let callbacks = Callbacks::new(&mut watch).stop_on(&flag);
    train(
        &model,
        &data,
        config,
        &weights,
        device(),
        &mut folder,
        callbacks,
    )
    .unwrap();
    if stopped.get() {
        let mut folder = RunFolder::reopen(&path).unwrap();
        let (checkpoint, _) = folder.checkpoint().unwrap();
        // Stopped in the last epoch's last submission there is nothing left to do.
        if checkpoint.position.epoch <= config.epochs {
            let mut ignore = |_| {};
            let callbacks = Callbacks::new(&mut ignore);
            resume(
                &model,
                &data,
                config,
                &checkpoint,
                device(),
                &mut folder,
                callbacks,
            )
            .unwrap();
            return left(&folder, &model);
        }
    }
    left(&folder, &model)
}

#[test]
fn any_batch_of_settings_gives_the_same_bits_again() {
    let gpus = [ProfileKind::CpuLike, ProfileKind::Gpu].map(|kind| support::open(kind, false));
    let first = number("GPUCNN_TEST_SEED", 1);
    for seed in first..first + number("GPUCNN_TEST_CASES", 4) {
        let mut draw = Draw::new(seed);
        let config = config(&mut draw);
        config.check().unwrap();
        let gpu = &gpus[draw.int(0, 1)];
        let once = run(&config, gpu, None);
        assert!(once == run(&config, gpu, None), "seed {seed}: {config:?}");
        let step = draw.int(1, 15) as u32;
        let resumed = run(&config, gpu, Some(step));
        assert!(
            once == resumed,
            "seed {seed}, stopped at {step}: {config:?}"
        );
    }
}

/// Which operands are copied into textures depends on the processor; no sum does.
#[test]
fn what_is_read_through_textures_changes_no_bit() {
    let gpu_of = |texels| {
        let options = OpenOptions {
            name: std::env::var("GPUCNN_TEST_DEVICE").ok(),
            profile: Some(ProfileKind::CpuLike),
            texels: Some(texels),
            ..OpenOptions::default()
        };
        Gpu::open(options).unwrap()
    };
    let gpus = [Texels::Never, Texels::Reused, Texels::Always].map(gpu_of);
    for seed in [3, 4] {
        // Enough images for textures to be worth it.
        let batch_size = 9;
        let config = Config {
            batch_size,
            ..config(&mut Draw::new(seed))
        };
        let [buffers, reused, textures] = gpus.each_ref().map(|gpu| run(&config, gpu, None));
        assert!(buffers == reused, "seed {seed}: {config:?}");
        assert!(buffers == textures, "seed {seed}: {config:?}");
    }
}

const SWIFTSHADER: &str = "/usr/lib/chromium/vk_swiftshader_icd.json";

/// The losses of the epochs of a training on the adapter of a driver.
fn losses(files: &Files, out: &str, driver: Option<&str>) -> (String, Vec<f64>) {
    let args = "train tiny.toml --data data --epochs 2 --seed 5 --out";
    let args: Vec<&str> = args.split(' ').chain([out]).collect();
    let mut command = gpucnn(files, &args);
    if let Some(driver) = driver {
        command.env("VK_DRIVER_FILES", driver);
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let folder = RunFolder::open(&files.path(out)).unwrap();
    let (checkpoint, _) = folder.checkpoint().unwrap();
    let rows = checkpoint.history.iter();
    let losses = rows.flat_map(|row| [row.loss, row.val_loss.unwrap()]);
    (checkpoint.device, losses.collect())
}

/// Fifty updates by Adam. The losses, of about 1, sum some 1e4 products each rounded by half of
/// 2^-24; what they are off by, the updates carry on.
#[test]
fn another_device_comes_to_the_same_losses_but_for_rounding() {
    if !Path::new(SWIFTSHADER).exists() {
        eprintln!("skipped: there is no {SWIFTSHADER}; README.md tells where it comes from");
        return;
    }
    let files = Files::new();
    files.model();
    files.idx("data", 200, 40);
    let (here, expected) = losses(&files, "here", None);
    let (there, found) = losses(&files, "there", Some(SWIFTSHADER));
    assert!(there.contains("SwiftShader"), "{there}");
    assert_ne!(here, there);
    for (e, f) in expected.iter().zip(&found) {
        assert!((e - f).abs() < 1e-4 * (1.0 + e), "{expected:?} {found:?}");
    }
}
