//! Whole small nets against Keras: logits, gradients, losses, parameters.
//!
//! `tests/golden` holds five training steps of two nets with nine optimizers, computed
//! by Keras in float64 (see its README). Here the same nets are built with the library,
//! start from the same weights and take the same steps, on the CPU reference and on the
//! GPU, in the graph that training runs (differentiated, fused, planned).

mod support;

use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::{Arena, Backend, CpuBackend, GpuBackend, Graph, Program};
use gpucnn::model::{
    Activation, AvgPool2d, BatchNorm2d, Conv2d, Dense, DepthwiseConv2d, Flatten, GlobalAvgPool,
    MaxPool2d, Mode, Model, Pad,
};
use gpucnn::ops::activation::Function::{Gelu, LeakyRelu, Relu, Silu};
use gpucnn::ops::cross_entropy::SoftmaxCrossEntropy;
use gpucnn::ops::muon::{Muon, MuonRule};
use gpucnn::ops::optimizer::{Optimizer, Rule, Update};
use gpucnn::ops::{Array, Builder, Op, Step, Value};
use gpucnn::tensor::TensorType;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
use std::path::Path;

const STEPS: usize = 5;

fn small_classic() -> Model {
    Model::builder("small_classic", [1, 12, 12])
        .add(Conv2d::new(4, 3).activation(Relu))
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(6, 3).activation(Relu))
        .add(Flatten)
        .add(Dense::new(16).activation(Relu))
        .add(Dense::new(5))
        .build()
        .unwrap()
}

fn small_modern() -> Model {
    Model::builder("small_modern", [3, 13, 11])
        .add(Conv2d::new(8, 3).stride(2))
        .add(BatchNorm2d::default())
        // TensorFlow's leaky ReLU takes its slope as an f32.
        .add(Activation::new(LeakyRelu {
            slope: through_f32(0.1),
        }))
        .named("dw")
        .add(DepthwiseConv2d::new(3).padding(Pad::Same))
        .add(Activation::new(Silu))
        .add(Conv2d::new(12, 1).bias(false))
        .add(Activation::new(Gelu))
        .add(AvgPool2d::new(2))
        .add(GlobalAvgPool {})
        .named("fc")
        .add(Dense::new(4))
        .build()
        .unwrap()
}

/// What Keras computed: tensors by key, and the optimizer's settings.
struct Golden {
    tensors: HashMap<String, (Vec<usize>, Vec<f64>)>,
    learning_rate: f64,
    optimizer: Optimizer,
}

impl Golden {
    fn read(net: &str, optimizer: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = root.join(format!("tests/golden/{net}.{optimizer}.safetensors"));
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let config = &header.metadata().as_ref().unwrap()["optimizer"];
        let config: serde_json::Value = serde_json::from_str(config).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter().map(|(name, view)| {
            let data = numbers(&view);
            (name, (view.shape().to_vec(), data))
        });
        let decay = config["weight_decay"].as_f64().unwrap_or(0.0);
        let optimizer = Optimizer::by_name(optimizer).unwrap();
        Self {
            tensors: tensors.collect(),
            learning_rate: config["learning_rate"].as_f64().unwrap(),
            optimizer: as_keras_holds_it(optimizer.with_weight_decay(decay)),
        }
    }

    fn get(&self, key: &str) -> &[f64] {
        &self
            .tensors
            .get(key)
            .unwrap_or_else(|| panic!("no {key}"))
            .1
    }

    /// Step `index` of a tensor whose outermost dimension is the steps.
    fn step(&self, key: &str, index: usize) -> &[f64] {
        let all = self.get(key);
        let each = all.len() / STEPS;
        &all[index * each..][..each]
    }

    fn batch(&self) -> usize {
        self.tensors["inputs"].0[1]
    }

    /// The values of step `number`, counted from 1. Keras raises betas that went through
    /// f32 to the power of the step, though the betas of the moments did not.
    fn values(&self, number: u32) -> Step {
        let mut rounded = self.optimizer;
        if let Rule::Adam { beta1, beta2, .. } = &mut rounded.rule {
            (*beta1, *beta2) = (through_f32(*beta1), through_f32(*beta2));
        }
        let (correction1, correction2) = rounded.corrections(number);
        Step {
            number,
            learning_rate: self.learning_rate,
            correction1,
            correction2,
            ..Step::default()
        }
    }
}

fn through_f32(setting: f64) -> f64 {
    f64::from(setting as f32)
}

/// Even in float64 Keras casts some settings by way of f32. A momentum of 0.9 becomes
/// 0.899999976, which alone moves parameters by up to 3e-8 in five steps. So does AdamW's
/// weight decay.
fn as_keras_holds_it(mut optimizer: Optimizer) -> Optimizer {
    if let Rule::Momentum { momentum, .. } = &mut optimizer.rule {
        *momentum = through_f32(*momentum);
    }
    optimizer.weight_decay = through_f32(optimizer.weight_decay);
    optimizer
}

fn numbers(view: &TensorView<'_>) -> Vec<f64> {
    fn each<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        let (chunks, _) = bytes.as_chunks::<N>();
        chunks.iter().map(|b| number(*b)).collect()
    }
    match view.dtype() {
        Dtype::F64 => each(view.data(), f64::from_le_bytes),
        Dtype::F32 => each(view.data(), |b| f32::from_le_bytes(b).into()),
        Dtype::I64 => each(view.data(), |b| i64::from_le_bytes(b) as f64),
        other => panic!("unexpected {other:?}"),
    }
}

/// A net in training, by hand: everything the files hold is a state that can be read.
struct Net<'a> {
    model: &'a Model,
    golden: &'a Golden,
    backend: &'a mut dyn Backend,
    /// Parameters, then running statistics.
    arenas: [Arena; 2],
}

const ARENAS: [&str; 2] = ["parameters", "statistics"];

impl<'a> Net<'a> {
    fn new(model: &'a Model, golden: &'a Golden, backend: &'a mut dyn Backend) -> Self {
        let arenas = [true, false].map(|trainable| {
            let specs = model.parameters().iter();
            let specs = specs.filter(|p| p.trainable == trainable);
            Arena::new(specs.map(|p| (p.name.clone(), p.shape.clone())))
        });
        let [c, h, w] = model.input();
        let batch = golden.batch();
        for (name, ty) in [
            ("images", TensorType::f32([batch, c, h, w])),
            ("labels", TensorType::u32([batch])),
            ("logits", TensorType::f32([batch, model.classes()])),
            ("loss", TensorType::f32([1])),
            ("gradients", arenas[0].ty()),
        ] {
            backend.create(name, &ty).unwrap();
        }
        for (state, arena) in ARENAS.iter().zip(&arenas) {
            let mut content = vec![0.0; arena.len()];
            for part in arena.parts() {
                let start = golden.get(&format!("init.{}", part.name));
                content[part.offset..][..start.len()].copy_from_slice(start);
            }
            backend.create(state, &arena.ty()).unwrap();
            backend
                .write(state, &Array::float(arena.ty(), content))
                .unwrap();
        }
        for (name, start) in golden.optimizer.rule.states() {
            let ty = arenas[0].ty();
            // Adagrad's accumulators start at the f32 nearest to 0.1.
            let content = vec![through_f32(*start); arenas[0].len()];
            let content = Array::float(ty.clone(), content);
            backend.create(name, &ty).unwrap();
            backend.write(name, &content).unwrap();
        }
        Self {
            model,
            golden,
            backend,
            arenas,
        }
    }

    /// Images to logits, which are stored; the parameters' values in the arena's order.
    fn forward(&self, graph: &mut Graph, mode: Mode) -> (Value, Vec<Value>) {
        let [c, h, w] = self.model.input();
        let images = graph.state("images", TensorType::f32([self.golden.batch(), c, h, w]));
        let mut named = HashMap::new();
        let mut views = Vec::new();
        for (state, arena) in ARENAS.iter().zip(&self.arenas) {
            let whole = graph.state(*state, arena.ty());
            views.push(arena.views(graph, whole).unwrap());
            let names = arena.parts().iter().map(|p| p.name.clone());
            named.extend(names.zip(views.last().unwrap().iter().copied()));
        }
        let logits = self.model.lower(graph, &named, images, mode).unwrap();
        let target = graph.state("logits", graph.ty(logits).clone());
        graph.store(logits, target).unwrap();
        (logits, views.swap_remove(0))
    }

    fn training(&mut self) -> Program {
        let mut graph = Graph::new();
        let (logits, weights) = self.forward(&mut graph, Mode::Training);
        let labels = graph.state("labels", TensorType::u32([self.golden.batch()]));
        let loss = graph
            .add1(Box::new(SoftmaxCrossEntropy::default()), &[logits, labels])
            .unwrap();
        let target = graph.state("loss", TensorType::f32([1]));
        graph.store(loss, target).unwrap();
        let found = graph.gradients(loss, &weights).unwrap();
        let ty = self.arenas[0].ty();
        let gradients = graph.state("gradients", ty.clone());
        let targets = self.arenas[0].views(&mut graph, gradients).unwrap();
        for (gradient, target) in found.into_iter().zip(targets) {
            graph.store(gradient.unwrap(), target).unwrap();
        }
        let mut inputs = vec![graph.state("parameters", ty.clone()), gradients];
        for (name, _) in self.golden.optimizer.rule.states() {
            inputs.push(graph.state(*name, ty.clone()));
        }
        match self.golden.optimizer.matrices {
            Some(rule) => self.add_muon(&mut graph, &inputs, rule),
            None => {
                let update = Update::new(self.golden.optimizer);
                graph.add(Box::new(update), &inputs).unwrap();
            }
        }
        self.backend.compile(graph.optimized()).unwrap()
    }

    /// Keras's Muon moves the weights of all dense layers here, AdamW the rest: convolutions
    /// are no matrices to it.
    fn add_muon(&self, graph: &mut Graph, states: &[Value], rule: MuonRule) {
        for part in self.arenas[0].parts() {
            let view = |graph: &mut Graph, state: &Value| {
                graph.view(*state, part.offset, part.shape.clone()).unwrap()
            };
            let op: Box<dyn Op> = match part.shape.rank() {
                2 => Box::new(Muon {
                    rule,
                    weight_decay: self.golden.optimizer.weight_decay,
                    rate: 1.0,
                    scale: 1.0,
                }),
                _ => Box::new(Update::new(self.golden.optimizer)),
            };
            let taken = if part.shape.rank() == 2 {
                3
            } else {
                states.len()
            };
            let inputs: Vec<Value> = states[..taken].iter().map(|s| view(graph, s)).collect();
            graph.add(op, &inputs).unwrap();
        }
    }

    fn inference(&mut self) -> Program {
        let mut graph = Graph::new();
        self.forward(&mut graph, Mode::Inference);
        self.backend.compile(graph.optimized()).unwrap()
    }

    fn write_batch(&mut self, index: usize) {
        let [c, h, w] = self.model.input();
        let batch = self.golden.batch();
        let images = self.golden.step("inputs", index).to_vec();
        let images = Array::float(TensorType::f32([batch, c, h, w]), images);
        self.backend.write("images", &images).unwrap();
        let labels = self.golden.step("labels", index);
        let labels = labels.iter().map(|l| *l as u32).collect();
        let labels = Array::index(TensorType::u32([batch]), labels);
        self.backend.write("labels", &labels).unwrap();
    }

    fn read(&mut self, state: &str) -> Vec<f64> {
        self.backend.read(state).unwrap().f().to_vec()
    }

    /// The state of an arena's layout against the tensors `prefix.*`.
    fn compare_arena(&mut self, state: &str, arena: usize, prefix: &str, errors: &mut Errors) {
        let content = self.read(state);
        for part in self.arenas[arena].parts() {
            let key = format!("{prefix}.{}", part.name);
            let found = &content[part.offset..][..part.shape.len()];
            errors.note(&key, found, self.golden.get(&key));
        }
    }

    /// Takes the five steps and compares all that the file holds.
    fn errors(mut self) -> Errors {
        let mut errors = Errors::default();
        let (train, infer) = (self.training(), self.inference());
        for index in 0..STEPS {
            self.write_batch(index);
            let number = index as u32 + 1;
            let step = self.golden.values(number);
            self.backend.run(train, &[step]).unwrap();
            let loss = self.read("loss");
            let expected = self.golden.step("losses", index);
            errors.note(&format!("losses[{index}]"), &loss, expected);
            if index == 0 {
                let logits = self.read("logits");
                errors.note("logits0", &logits, self.golden.get("logits0"));
                self.compare_arena("gradients", 0, "grad0", &mut errors);
            }
            if number == 1 || number == 5 {
                let prefix = format!("after{number}");
                for (i, state) in ARENAS.iter().enumerate() {
                    self.compare_arena(state, i, &prefix, &mut errors);
                }
            }
        }
        self.write_batch(0);
        self.backend.run(infer, &[Step::default()]).unwrap();
        let logits = self.read("logits");
        let expected = self.golden.get("eval_logits");
        errors.note("eval_logits", &logits, expected);
        errors
    }
}

/// How far the results may be from Keras's, relative to the largest element of a tensor.
struct Bound {
    relative: f64,
    /// Optimizers under which the step of a parameter without gradient is noise.
    noisy: &'static [&'static str],
}

/// The worst element of each tensor.
#[derive(Default)]
struct Errors(Vec<(String, f64, String)>);

impl Errors {
    fn note(&mut self, key: &str, found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len(), "{key}");
        let largest = expected.iter().fold(0.0, |a, b| f64::max(a, b.abs()));
        // A gradient that is zero but for rounding is measured like a small one.
        let scale = f64::max(largest, 1e-3);
        let pairs = found.iter().zip(expected).enumerate();
        let errors = pairs.map(|(i, (f, e))| ((f - e).abs() / scale, i, f, e));
        let worst = errors.max_by(|a, b| a.0.total_cmp(&b.0));
        let (error, i, f, e) = worst.expect("no tensor is empty");
        let text = format!("[{i}] is {f:e}, with Keras {e:e}");
        self.0.push((key.into(), error, text));
    }

    fn check(&self, device: &str, net: &str, optimizer: &str, bound: &Bound) {
        let noisy = net == "small_modern" && bound.noisy.contains(&optimizer);
        for (key, error, text) in &self.0 {
            if noisy && is_noise(key) {
                continue;
            }
            assert!(
                *error <= bound.relative,
                "{device}, {net}, {optimizer}: {key}{text}, off by {error:e} of its largest"
            );
        }
    }
}

/// The bias of conv1 in small_modern stands before a batch norm, which takes it away
/// again: its gradient is zero but for rounding. Optimizers that divide a gradient by its
/// own size (Lion takes its sign) make a step of that noise. The running mean follows the
/// bias; the logits of inference see both, and while they drift apart neither means much.
fn is_noise(key: &str) -> bool {
    key.starts_with("after") && (key.ends_with("conv1.bias") || key.ends_with("running_mean"))
        || key == "eval_logits"
}

fn for_each_file(
    device: &str,
    backend: impl Fn() -> Box<dyn Backend>,
    bound: impl Fn(&str) -> Bound,
) {
    for model in [small_classic(), small_modern()] {
        // Keras has all but this one.
        let known = |name: &&str| *name != "muon-normalized";
        for optimizer in Optimizer::NAMES.into_iter().filter(known) {
            let golden = Golden::read(model.name(), optimizer);
            let errors = Net::new(&model, &golden, &mut *backend()).errors();
            errors.check(device, model.name(), optimizer, &bound(model.name()));
        }
    }
}

#[test]
fn the_reference_trains_as_keras_does() {
    let backend = || Box::new(CpuBackend::new()) as Box<dyn Backend>;
    for_each_file("CPU", backend, |net| Bound {
        relative: match net {
            // Both compute in float64: sums of up to 700 terms, each rounded by 1.1e-16.
            "small_classic" => 1e-13,
            // Keras's GELU multiplies by the f32 nearest to the root of 1/2, off by 1.7e-8
            // of itself. With that number in our formula the logits agree to 1e-15.
            _ => 1e-8,
        },
        noisy: &["lion"],
    });
}

fn the_gpu_agrees(profile: ProfileKind) {
    let gpu = support::open(profile, false);
    let backend = || Box::new(GpuBackend::new(gpu.clone()).unwrap()) as Box<dyn Backend>;
    for_each_file("GPU", backend, |_| Bound {
        // The longest sums, of conv1's weight gradient, have 7 x 10 x 10 terms. Roundings of
        // 6e-8 of each add up like a random walk, to 27 x 6e-8 = 1.6e-6 of the terms' size;
        // the rest is for terms that cancel. Parameters move by less than themselves.
        relative: 5e-6,
        noisy: &["adam", "adamw", "lion", "muon"],
    });
}

#[test]
fn cpu_like_kernels_train_as_keras_does() {
    the_gpu_agrees(ProfileKind::CpuLike);
}

#[test]
fn gpu_kernels_train_as_keras_does() {
    the_gpu_agrees(ProfileKind::Gpu);
}
