//! What a training takes of the device's memory, as it is told before: against what is then
//! there, and where it would not fit.

mod support;

use gpucnn::data::{Dataset, Split};
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::gpu::{Gpu, OpenOptions};
use gpucnn::graph::{Backend, CpuBackend, GpuBackend};
use gpucnn::infer::{Batches, Predictor};
use gpucnn::model::{Activation, BatchNorm2d, Conv2d, Dense, Flatten, MaxPool2d, Model, Pad};
use gpucnn::ops::activation::Function::Relu;
use gpucnn::train::{Config, Estimate, Event, Session, Setup, Source, Weights};
use gpucnn::{Error, Result};
use std::rc::Rc;
use support::training::trained;

const SHAPE: [usize; 3] = [3, 32, 32];

/// Images of which the batches leave a rest, and so many to validate on.
fn data(validation: usize) -> Dataset {
    let split = |len: usize| {
        Split::new(
            (0..len * 3072).map(|i| (i * 31 % 251) as u8).collect(),
            (0..len as u32).map(|i| i % 4).collect(),
        )
    };
    Dataset {
        name: "noise".into(),
        shape: SHAPE,
        classes: (0..4).map(|c| c.to_string()).collect(),
        train: split(40),
        test: (validation > 0).then(|| split(validation)),
        notes: vec![],
    }
}

/// Deep enough that recomputation pays.
fn model() -> Model {
    let mut model = Model::builder("deep", SHAPE);
    for _ in 0..6 {
        model = model
            .add(Conv2d::new(8, 3).padding(Pad::Same).bias(false))
            .add(BatchNorm2d::default())
            .add(Activation::new(Relu));
    }
    let model = model.add(MaxPool2d::new(4)).add(Flatten);
    model.add(Dense::new(4)).build().unwrap()
}

fn config() -> Config {
    Config {
        data: "noise".into(),
        epochs: 1,
        batch_size: 16,
        ..Config::default()
    }
}

/// A device that does not fill results with NaN, which takes memory.
fn open(profile: ProfileKind) -> Rc<Gpu> {
    let options = OpenOptions {
        name: std::env::var("GPUCNN_TEST_DEVICE").ok(),
        profile: Some(profile),
        ..OpenOptions::default()
    };
    Gpu::open(options).unwrap()
}

fn device() -> Box<dyn Backend> {
    Box::new(GpuBackend::new(open(ProfileKind::CpuLike)).unwrap())
}

fn estimate(config: &Config, device: &dyn Backend) -> Result<Estimate> {
    Setup::new(&model(), &data(0), config, device).map(|setup| *setup.estimate())
}

#[test]
fn what_is_told_before_is_what_there_is_then() {
    let (model, data) = (model(), data(40));
    let weights = model.initial_weights(0);
    let plain = config();
    let configs = [
        plain.clone(),
        Config {
            accumulate: 2,
            ema: Some(0.9),
            clip_norm: Some(1.0),
            class_weights: Some("balanced".into()),
            augment: Some("flip,mixup".into()),
            data_budget: Some(0),
            prune_to: Some(0.5),
            recompute: true,
            ..plain.with_optimizer("muon").unwrap()
        },
    ];
    // Muon does not clip.
    let configs = configs.map(|config| Config {
        clip_norm: config.clip_norm.filter(|_| config.optimizer != "muon"),
        ..config
    });
    for profile in [ProfileKind::CpuLike, ProfileKind::Gpu] {
        for config in &configs {
            let gpu = open(profile);
            let backend = Box::new(GpuBackend::new(gpu.clone()).unwrap());
            let setup = Setup::new(&model, &data, config, &*backend).unwrap();
            let told = *setup.estimate();
            let session = Session::begin(setup, &weights, backend).unwrap();
            let Event::Start { memory, .. } = session.start_event() else {
                panic!("it opens the training");
            };
            let held = told.total() - told.transfers;
            // States are padded to vec4 in the device's count as in the estimate's.
            assert_eq!(held, memory[0] + memory[1], "{profile:?} {told}");
            // The driver's own count. It aligns and adds buffers for step values, and it
            // allocates in pages; what is read back is not there yet.
            if let Some(allocated) = gpu.allocated_bytes() {
                let ratio = allocated as f64 / held as f64;
                assert!(
                    (0.97..1.25).contains(&ratio),
                    "{allocated} of {held}: {told}"
                );
            }
        }
    }
}

/// What a training says and leaves, or its error.
fn run(config: &Config) -> (Vec<Event>, Result<Weights>) {
    let model = model();
    let weights = model.initial_weights(0);
    let run = trained(&model, &weights, &data(0), config, device());
    let left = run.result.and_then(|_| run.folder.weights(&model));
    (run.events, left)
}

/// The batch that an error names.
fn largest(message: &str, flag: &str) -> usize {
    let rest = message.split("the largest batch that fits is ").nth(1);
    let number = rest.and_then(|rest| rest.split_once(": try ").map(|(n, _)| n));
    let number = number.unwrap_or_else(|| panic!("no batch in: {message}"));
    assert!(
        message.contains(&format!("try {flag} {number}")),
        "{message}"
    );
    number.parse().unwrap()
}

#[test]
fn what_would_not_fit_is_computed_again_or_refused_with_a_batch_that_fits() {
    let plain = config();
    let device = device();
    let kept = estimate(&plain, &*device).unwrap();
    assert_eq!((kept.memory.source, kept.recompute), (Source::Host, false));
    let again = Config {
        recompute: true,
        ..plain.clone()
    };
    let again = estimate(&again, &*device).unwrap();
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let (all, least) = (mib(kept.total()), mib(again.total()));
    assert!(least + 1 < all, "{least} MiB against {all}");

    // Between the two: all by itself, with the same bits.
    let budget = |mib| Config {
        memory_budget: Some(mib),
        ..plain.clone()
    };
    let (events, enough) = run(&budget(all));
    let Event::Memory(told) = events[0] else {
        panic!("the estimate comes first: {:?}", events[0]);
    };
    assert_eq!(
        (told.memory.source, told.recompute),
        (Source::Budget, false)
    );
    let (events, scarce) = run(&budget(all - 1));
    let Event::Memory(told) = events[0] else {
        panic!("the estimate comes first: {:?}", events[0]);
    };
    assert!(told.fits() && told.recompute, "{told}");
    assert!(
        matches!(&events[1], Event::Warning(text) if text.contains("computed again")),
        "{:?}",
        events[1]
    );
    assert_eq!(enough.unwrap(), scarce.unwrap());

    // Below both.
    let tight = mib(again.total() * 2 / 3);
    let (events, result) = run(&budget(tight));
    assert!(events.is_empty(), "{events:?}");
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Device(_)) && error.exit_code() == 2);
    let message = error.to_string();
    let largest = largest(&message, "--batch-size");
    assert!(
        message.contains(&format!("--memory-budget of {tight}.0 MiB")),
        "{message}"
    );
    let batch = |batch_size| Config {
        batch_size,
        ..budget(tight)
    };
    assert!(estimate(&batch(largest), &*device).unwrap().fits());
    assert!(estimate(&batch(largest + 1), &*device).is_err());

    // Parameters of more than that.
    let wide = Model::builder("wide", SHAPE).add(Flatten);
    let wide = wide.add(Dense::new(128)).add(Dense::new(4));
    let (wide, config) = (wide.build().unwrap(), budget(1));
    let refused = Setup::new(&wide, &data(0), &config, &*device).err();
    let message = refused.unwrap().to_string();
    assert!(message.contains("not even a batch of 1 fits"), "{message}");
}

#[test]
fn without_a_device_nothing_is_told() {
    let told = estimate(&config(), &CpuBackend::new()).unwrap();
    assert_eq!(
        (told.memory.source, told.memory.bytes),
        (Source::NoDevice, None)
    );
}

/// An inference within so many MiB.
fn inference(gpu: &Rc<Gpu>, batches: Batches, mib: u64) -> Result<Predictor> {
    let (model, batches) = (model(), batches.within(Some(mib)));
    let backend = Box::new(GpuBackend::new(gpu.clone()).unwrap());
    Predictor::with_batches(&model, &model.initial_weights(0), None, batches, backend)
}

#[test]
fn an_inference_takes_the_batch_that_fits_or_refuses_one_that_does_not() {
    let gpu = open(ProfileKind::CpuLike);
    let before = gpu.allocated_bytes();
    let refused = |batches, mib| inference(&gpu, batches, mib).err().unwrap();
    let message = refused(Batches::of(256), 16).to_string();
    assert!(message.contains("deep in batches of 256"), "{message}");
    assert!(message.contains("--memory-budget of 16.0 MiB"), "{message}");
    let fitting = largest(&message, "--batch-size");
    assert!((1..256).contains(&fitting), "{message}");
    let error = refused(Batches::of(fitting + 1), 16);
    assert!(matches!(error, Error::Device(_)), "{error}");
    let message = refused(Batches::up_to(256), 0).to_string();
    assert!(message.contains("deep in batches of 1 "), "{message}");
    assert!(message.contains("not even a batch of 1 fits"), "{message}");
    assert_eq!(gpu.allocated_bytes(), before, "all that before anything is");

    let batch = |batches| {
        let predictor = inference(&open(ProfileKind::CpuLike), batches, 16);
        predictor.unwrap().batch()
    };
    assert_eq!(batch(Batches::of(fitting)), fitting);
    assert_eq!(batch(Batches::up_to(2)), 2);
    // Programs of several sizes share what they compute in.
    let rising = batch(Batches::up_to(256).rising());
    assert!((1..=fitting).contains(&rising), "{rising} of {fitting}");

    let fewer = inference(&gpu, Batches::up_to(256), 16).unwrap();
    assert_eq!(fewer.batch(), fitting);
    // All but copies under way, here at most the weights and a batch of images; the driver
    // aligns and adds buffers for step values.
    if let Some(allocated) = gpu.allocated_bytes() {
        let share = allocated as f64 / f64::from(16 << 20);
        assert!((0.8..1.1).contains(&share), "{allocated}");
    }
}
