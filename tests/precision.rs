//! Training in half precision, beside the same training in single precision.

mod support;

use gpucnn::data::{Dataset, Split};
use gpucnn::gpu::half::Half;
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::{Backend, GpuBackend};
use gpucnn::model::{Activation, BatchNorm2d, Conv2d, Dense, Flatten, MaxPool2d, Model, Pad};
use gpucnn::ops::Draw;
use gpucnn::ops::activation::Function::Relu;
use gpucnn::train::{Config, Event, Precision, Weights};
use safetensors::SafeTensors;
use support::training::trained;

/// Grey images of 12 by 12 whose class is the quarter that is bright.
fn quarters(len: usize) -> Dataset {
    let mut draw = Draw::new(11);
    let labels: Vec<u32> = (0..len).map(|_| draw.int(0, 3) as u32).collect();
    let mut images = Vec::new();
    for label in &labels {
        for pixel in 0..144 {
            let quarter = 2 * (pixel / 72) + pixel % 12 / 6;
            let least = if quarter == *label as usize { 120 } else { 0 };
            images.push(draw.int(least, least + 100) as u8);
        }
    }
    Dataset {
        name: "quarters".into(),
        shape: [1, 12, 12],
        classes: ["a", "b", "c", "d"].map(str::to_owned).into(),
        train: Split::new(images, labels),
        test: None,
        notes: Vec::new(),
    }
}

fn model() -> Model {
    Model::builder("quarters", [1, 12, 12])
        .add(Conv2d::new(8, 3).padding(Pad::Same).bias(false))
        .add(BatchNorm2d::default())
        .add(Activation::new(Relu))
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(8, 3).padding(Pad::Same).activation(Relu))
        .add(Flatten)
        .add(Dense::new(16).activation(Relu))
        .add(Dense::new(4))
        .build()
        .unwrap()
}

/// The losses of its steps, the bytes of its activations, and the last factor of the loss.
struct Run {
    losses: Vec<f64>,
    memory: u64,
    scale: Option<f32>,
}

impl Run {
    fn new(backend: Box<dyn Backend>, weights: &Weights, config: &Config) -> Self {
        let run = trained(&model(), weights, &quarters(96), config, backend);
        run.result.unwrap();
        let (mut losses, mut memory) = (Vec::new(), 0);
        for event in &run.events {
            match event {
                Event::Start { memory: bytes, .. } => memory = bytes[1],
                Event::Step { loss, .. } => losses.push(*loss),
                _ => {}
            }
        }
        let newest = std::fs::read(&run.folder.checkpoints()[0]).unwrap();
        let states = SafeTensors::deserialize(&newest).unwrap();
        let scale = states.tensor("loss_scale").ok();
        let scale = scale.map(|s| f32::from_le_bytes(s.data()[..4].try_into().unwrap()));
        Self {
            losses,
            memory,
            scale,
        }
    }
}

fn config(precision: Precision) -> Config {
    Config {
        data: "quarters".into(),
        epochs: 2,
        batch_size: 8,
        learning_rate: 0.003,
        seed: 5,
        log_every: 1,
        precision,
        ..Config::default()
    }
    .with_optimizer("adam")
    .unwrap()
}

fn backend(profile: ProfileKind, half: Option<Half>) -> Box<dyn Backend> {
    Box::new(GpuBackend::new(support::open_with(profile, false, half)).unwrap())
}

#[test]
fn half_precision_learns_as_single_precision_does() {
    let weights = model().initial_weights(5);
    for profile in [ProfileKind::CpuLike, ProfileKind::Gpu] {
        let single = Run::new(backend(profile, None), &weights, &config(Precision::F32));
        assert_eq!(single.scale, None);
        for half in [Half::Native, Half::Packed] {
            let found = Run::new(
                backend(profile, Some(half)),
                &weights,
                &config(Precision::F16),
            );
            let what = format!(
                "{profile}, {half:?}: {:?} {:?}",
                single.losses, found.losses
            );
            // Seven results in a row are rounded to 11 bits.
            let first = (found.losses[0] - single.losses[0]).abs();
            assert!(first < 7.0 * (-10f64).exp2() * single.losses[0], "{what}");
            assert!(first > 0.0, "nothing was rounded: {what}");
            let last = |run: &Run| run.losses[20..].iter().sum::<f64>() / 4.0;
            assert!(last(&found) < 0.5 * found.losses[0], "{what}");
            assert!(
                (last(&found) - last(&single)).abs() < 0.1 * single.losses[0],
                "{what}"
            );
            let share = found.memory as f64 / single.memory as f64;
            // Packed halves cannot be written one at a time: what is so stays in f32.
            // Textures that stand for buffers come and go by their own sizes.
            let most = match (profile, half) {
                (ProfileKind::Gpu, Half::Native) => 0.75,
                (ProfileKind::Gpu, Half::Packed) => 0.95,
                (ProfileKind::CpuLike, _) => 1.0,
            };
            assert!(
                share < most,
                "{} of {}: {what}",
                found.memory,
                single.memory
            );
        }
    }
}

#[test]
fn a_loss_scale_that_is_too_large_is_halved() {
    let mut weights = model().initial_weights(5);
    // Gradients grow by what the last layers multiply them with: beyond f16's 65504 at first.
    for name in ["fc1.weight", "fc2.weight"] {
        let tensor = weights.get_mut(name).unwrap();
        let scaled: Vec<f32> = tensor.data().iter().map(|x| 8.0 * x).collect();
        *tensor = gpucnn::tensor::Tensor::new(tensor.shape().clone(), scaled).unwrap();
    }
    for half in [Half::Native, Half::Packed] {
        let backend = backend(ProfileKind::CpuLike, Some(half));
        let run = Run::new(backend, &weights, &config(Precision::F16));
        let scale = run.scale.expect("half precision scales the loss");
        assert!((1.0..65536.0).contains(&scale), "{half:?}: {scale}");
        assert_eq!(scale.log2().fract(), 0.0);
        assert!(run.losses.iter().all(|loss| loss.is_finite()));
        assert!(
            run.losses.last().unwrap() < &run.losses[0],
            "{:?}",
            run.losses
        );
    }
}
