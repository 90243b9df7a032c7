//! The optimizers' first update against Keras.
//!
//! `tests/golden` holds, for two small nets, parameters, their gradients and the
//! parameters after one update, computed by Keras in float64.

mod support;

use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::{Backend, CpuBackend, GpuBackend, Graph};
use gpucnn::ops::optimizer::{Optimizer, Update};
use gpucnn::ops::{Array, Builder, Step};
use gpucnn::tensor::TensorType;
use safetensors::SafeTensors;
use std::path::Path;

/// Parameters, gradients and updated parameters of a golden file, each put end to end,
/// and the optimizer's configuration.
struct Golden {
    before: Vec<f64>,
    gradients: Vec<f64>,
    after: Vec<f64>,
    config: serde_json::Value,
}

impl Golden {
    fn read(net: &str, optimizer: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = root.join(format!("tests/golden/{net}.{optimizer}.safetensors"));
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let config = header.metadata().as_ref().unwrap()["optimizer"].clone();
        let mut names: Vec<_> = file
            .names()
            .into_iter()
            .filter_map(|n| n.strip_prefix("grad0."))
            .collect();
        names.sort_unstable();
        let concat = |prefix: &str| {
            let parts = names.iter().map(|n| format!("{prefix}.{n}"));
            parts
                .flat_map(|n| doubles(file.tensor(&n).unwrap().data()))
                .collect()
        };
        Self {
            before: concat("init"),
            gradients: concat("grad0"),
            after: concat("after1"),
            config: serde_json::from_str(&config).unwrap(),
        }
    }

    /// The parameters after one update on a backend.
    fn update(&self, optimizer: &Optimizer, backend: &mut dyn Backend) -> Array {
        let ty = TensorType::f32([self.before.len()]);
        let mut graph = Graph::new();
        let mut values = Vec::new();
        let mut state = |name: &str, data: Vec<f64>| {
            backend.create(name, &ty).unwrap();
            let array = Array::float(ty.clone(), data);
            backend.write(name, &array).unwrap();
            values.push(graph.state(name, ty.clone()));
        };
        state("parameters", self.before.clone());
        state("gradients", self.gradients.clone());
        for (name, start) in optimizer.rule.states() {
            state(name, vec![f64::from(*start); self.before.len()]);
        }
        graph.add(Box::new(Update(*optimizer)), &values).unwrap();
        let program = backend.compile(graph).unwrap();
        let (correction1, correction2) = optimizer.corrections(1);
        let step = Step {
            number: 1,
            learning_rate: self.config["learning_rate"].as_f64().unwrap(),
            correction1,
            correction2,
            ..Step::default()
        };
        backend.run(program, &[step]).unwrap();
        backend.read("parameters").unwrap()
    }

    /// The largest difference from Keras's result.
    fn error(&self, found: &Array) -> f64 {
        assert_eq!(found.f().len(), self.after.len());
        let pairs = found.f().iter().zip(&self.after);
        pairs.map(|(f, e)| (f - e).abs()).fold(0.0, f64::max)
    }
}

fn doubles(bytes: &[u8]) -> impl Iterator<Item = f64> {
    let chunks = bytes.chunks_exact(8);
    chunks.map(|c| f64::from_le_bytes(c.try_into().expect("eight bytes")))
}

fn for_each_golden(mut check: impl FnMut(&str, &Golden, &Optimizer)) {
    for net in ["small_classic", "small_modern"] {
        for name in Optimizer::NAMES {
            let golden = Golden::read(net, name);
            let mut optimizer = Optimizer::by_name(name).unwrap();
            if let Some(decay) = golden.config["weight_decay"].as_f64() {
                optimizer = optimizer.with_weight_decay(decay as f32);
            }
            check(&format!("{net}.{name}"), &golden, &optimizer);
        }
    }
}

#[test]
fn the_reference_takes_the_step_keras_takes() {
    for_each_golden(|name, golden, optimizer| {
        let error = golden.error(&golden.update(optimizer, &mut CpuBackend::new()));
        // Both compute in float64 on parameters below 10: a few roundings of 1e-16.
        // But some of Keras's settings pass through f32 on their way. Momentum 0.9 is
        // off by 2.4e-8, and the Nesterov step by that times 0.05 and a gradient below
        // 1; Adam's correction 1 - 0.999 is off by 1.3e-5 of itself, and its step, at
        // most the learning rate 0.001, by half of that.
        let bound = match name.split('.').next_back() {
            Some("nesterov") => 2e-9,
            Some("adam" | "adamw") => 7e-9,
            _ => 1e-14,
        };
        assert!(error <= bound, "{name}: {error:e}");
    });
}

#[test]
fn the_gpu_takes_the_step_keras_takes() {
    let mut gpu = GpuBackend::new(support::open(ProfileKind::Gpu, false)).unwrap();
    for_each_golden(|name, golden, optimizer| {
        let error = golden.error(&golden.update(optimizer, &mut gpu));
        // Parameters of at most 4 in f32 (rounding 2.4e-7), moved by at most 0.05 times
        // a handful of roundings. Adam and RMSprop divide nearly equal numbers, so a
        // gradient's rounding does not grow.
        assert!(error <= 1e-6, "{name}: {error:e}");
    });
}
