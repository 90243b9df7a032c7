//! A long training takes no more memory at its end than at its beginning. The measure is the
//! process's, so this test has one to itself; a software adapter's memory is part of it.
#![cfg(target_os = "linux")]

use gpucnn::data::{Dataset, Split};
use gpucnn::gpu::{Gpu, OpenOptions};
use gpucnn::graph::GpuBackend;
use gpucnn::model::{BatchNorm2d, Conv2d, Dense, Flatten, Model};
use gpucnn::train::{Callbacks, Config, Event, RunFolder, train};

/// Bytes of the process that are resident.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

/// Bytes at a step: the process's, and what the driver holds for the device.
type Sample = (u32, u64, Option<u64>);

#[test]
fn ten_thousand_steps_take_no_more_memory_than_a_hundred() {
    let model = Model::builder("tiny", [1, 4, 4])
        .add(Conv2d::new(2, 3))
        .add(BatchNorm2d::default())
        .add(Flatten)
        .add(Dense::new(2))
        .build()
        .unwrap();
    const IMAGES: usize = 160;
    let data = Dataset {
        name: "noise".into(),
        shape: [1, 4, 4],
        classes: vec!["a".into(), "b".into()],
        train: Split::new(
            (0..IMAGES * 16).map(|i| (i * 31 % 251) as u8).collect(),
            (0..IMAGES as u32).map(|i| i % 2).collect(),
        ),
        test: None,
        notes: vec![],
    };
    // Epochs of 80 steps, each with its checkpoint: what the first of them allocates is
    // there at the first measure.
    let config = Config {
        data: "noise".into(),
        epochs: 125,
        batch_size: 2,
        log_every: 100,
        ..Config::default()
    };
    let gpu = Gpu::open(OpenOptions {
        name: std::env::var("GPUCNN_TEST_DEVICE").ok(),
        ..OpenOptions::default()
    })
    .unwrap();
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let mut folder = RunFolder::create(Some(&path), &model, &config, &data.classes).unwrap();
    let mut samples: Vec<Sample> = Vec::new();
    let mut measure = |event| {
        if let Event::Step { step, .. } = event {
            samples.push((step, resident(), gpu.allocated_bytes()));
        }
    };
    let device = Box::new(GpuBackend::new(gpu.clone()).unwrap());
    let weights = model.initial_weights(0);
    let callbacks = Callbacks::new(&mut measure);
    train(
        &model,
        &data,
        &config,
        &weights,
        device,
        &mut folder,
        callbacks,
    )
    .unwrap();
    let (first, last) = (samples[0], samples[samples.len() - 1]);
    eprintln!("step, resident bytes, device bytes: {first:?} to {last:?}");
    assert_eq!((first.0, last.0), (100, 10_000));
    // A faster moment has more steps in a submission, up to 64, and they take memory while they
    // are under way: half a MiB here.
    let most = 1.01 * first.1 as f64 + f64::from(512 << 10);
    assert!(last.1 as f64 <= most, "{first:?} {last:?}");
    if let (Some(before), Some(after)) = (first.2, last.2) {
        assert!(after as f64 <= 1.01 * before as f64, "{first:?} {last:?}");
    }
}
