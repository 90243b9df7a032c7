//! Training speed of burn on wgpu for one preset and batch, as one JSON line:
//! `burn-steps mnist-cnn|cifar10-cnn BATCH SECONDS`.
//!
//! Random images lie on the device before the clock starts; the first step, which compiles
//! and tunes the kernels, is timed apart.

use burn::backend::{Autodiff, Wgpu};
use burn::module::AutodiffModule;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams, Optimizer, RmsPropConfig};
use burn::prelude::*;
use burn::tensor::activation::relu;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Distribution, Int};
use std::time::Instant;

type Gpu = Autodiff<Wgpu>;

const LEARNING_RATE: f64 = 0.001;
/// Batches that take turns.
const BATCHES: usize = 8;

/// Either preset: the first two convolutions are followed by a pooling.
#[derive(Module, Debug)]
struct Net<B: Backend> {
    convs: Vec<Conv2d<B>>,
    pool: MaxPool2d,
    hidden: Linear<B>,
    output: Linear<B>,
}

impl<B: Backend> Net<B> {
    fn new(channels: &[usize], features: usize, hidden: usize, device: &B::Device) -> Self {
        let conv = |pair: &[usize]| Conv2dConfig::new([pair[0], pair[1]], [3, 3]).init(device);
        Net {
            convs: channels.windows(2).map(conv).collect(),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            hidden: LinearConfig::new(features, hidden).init(device),
            output: LinearConfig::new(hidden, 10).init(device),
        }
    }

    fn forward(&self, mut x: Tensor<B, 4>) -> Tensor<B, 2> {
        for (index, conv) in self.convs.iter().enumerate() {
            x = relu(conv.forward(x));
            if index < 2 {
                x = self.pool.forward(x);
            }
        }
        self.output
            .forward(relu(self.hidden.forward(x.flatten(1, 3))))
    }
}

/// Trains; the seconds from `began` to the first finished step, then images a second.
fn measure<B: AutodiffBackend, M: AutodiffModule<B>>(
    mut net: M,
    forward: impl Fn(&M, Tensor<B, 4>) -> Tensor<B, 2>,
    mut optimizer: impl Optimizer<M, B>,
    shape: [usize; 4],
    seconds: f64,
    began: Instant,
    device: &B::Device,
) -> (f64, f64) {
    let batch = shape[0];
    let data: Vec<(Tensor<B, 4>, Tensor<B, 1, Int>)> = (0..BATCHES)
        .map(|_| {
            let labels = Distribution::Uniform(0.0, 10.0);
            (
                Tensor::random(shape, Distribution::Uniform(0.0, 1.0), device),
                Tensor::random([batch], labels, device),
            )
        })
        .collect();
    let cross_entropy = CrossEntropyLossConfig::new().init(device);
    let mut turn = data.iter().cycle();
    let mut train = |steps: usize| {
        for (images, labels) in turn.by_ref().take(steps) {
            let loss = cross_entropy.forward(forward(&net, images.clone()), labels.clone());
            let gradients = GradientsParams::from_grads(loss.backward(), &net);
            net = optimizer.step(LEARNING_RATE, net.clone(), gradients);
        }
        B::sync(device).expect("the device answers");
    };
    train(1);
    let first = began.elapsed().as_secs_f64();
    train(2);
    let begin = Instant::now();
    let mut steps = 0;
    while begin.elapsed().as_secs_f64() < seconds {
        train(4);
        steps += 4;
    }
    (
        first,
        (steps * batch) as f64 / begin.elapsed().as_secs_f64(),
    )
}

fn main() {
    let began = Instant::now();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, batch, seconds] = &arguments[..] else {
        panic!("usage: burn-steps mnist-cnn|cifar10-cnn BATCH SECONDS");
    };
    let batch: usize = batch.parse().expect("BATCH is a number");
    let seconds: f64 = seconds.parse().expect("SECONDS is a number");
    let device = Default::default();
    let (first, speed) = match model.as_str() {
        "mnist-cnn" => {
            let net = Net::<Gpu>::new(&[1, 32, 64], 64 * 5 * 5, 128, &device);
            let optimizer = AdamConfig::new().init();
            let shape = [batch, 1, 28, 28];
            measure(net, Net::forward, optimizer, shape, seconds, began, &device)
        }
        "cifar10-cnn" => {
            let net = Net::<Gpu>::new(&[3, 32, 64, 64], 64 * 4 * 4, 64, &device);
            let optimizer = RmsPropConfig::new()
                .with_alpha(0.9)
                .with_momentum(0.0)
                .init();
            let shape = [batch, 3, 32, 32];
            measure(net, Net::forward, optimizer, shape, seconds, began, &device)
        }
        other => panic!("no model {other}"),
    };
    let line = serde_json::json!({
        "peer": "burn 0.20.1, wgpu backend in WGSL with autotune and fusion",
        "model": model,
        "batch": batch,
        "first_step_seconds": first,
        "images_per_s": speed,
    });
    println!("{line}");
}
