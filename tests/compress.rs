//! `gpucnn prune`, `gpucnn quantize` and `train --prune-to`: what they leave in the run folder.

mod files;
mod support;

use files::{Files, gpucnn, json_lines};
use gpucnn::compress::{Calibration, calibrate, fold_batch_norms};
use gpucnn::formats::safetensors::{self, Tensors};
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::{Backend, CpuBackend, GpuBackend};
use gpucnn::infer::{Batches, Predictor};
use gpucnn::model::Model;
use gpucnn::ops::Draw;
use serde_json::Value;

fn run(files: &Files, args: &[&str]) -> Vec<Value> {
    let output = gpucnn(files, args).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {err}");
    json_lines(&output.stdout)
}

fn error(files: &Files, args: &[&str]) -> String {
    let output = gpucnn(files, args).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Trains the tiny model on made-up images until it knows them.
fn trained(extra: &[&str]) -> Files {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 80, 40));
    let args = [
        "train", &model, "--data", &data, "--epochs", "15", "--json", "--out", "run",
    ];
    run(&files, &[&args, extra].concat());
    files
}

fn weights(files: &Files, run: &str) -> Tensors {
    safetensors::load(&files.path(run).join("weights.safetensors")).unwrap()
}

/// The share of zeros of a tensor.
fn zeros(tensors: &Tensors, name: &str) -> f64 {
    let data = tensors[name].data();
    data.iter().filter(|x| **x == 0.0).count() as f64 / data.len() as f64
}

/// Before and after, of a command's event.
fn models(events: &[Value]) -> [Value; 2] {
    let models = events.last().unwrap()["models"].as_array().unwrap();
    [0, 1].map(|i| models[i]["measured"].clone())
}

fn number(value: &Value, field: &str) -> f64 {
    value[field]
        .as_f64()
        .unwrap_or_else(|| panic!("no {field:?} in {value}"))
}

#[test]
fn pruned_channels_leave_a_smaller_model_that_works() {
    let files = trained(&[]);
    let args = [
        "prune", "run", "--amount", "0.5", "--epochs", "10", "--out", "small", "--json",
    ];
    let [before, after] = models(&run(&files, &args));
    let model = Model::load(&files.text("small/model.toml")).unwrap();
    assert_eq!(model.summary().unwrap().layers[0].output[0], 2);
    for field in ["parameters", "nonzero", "flops", "bytes"] {
        assert!(
            number(&after, field) < number(&before, field),
            "{field}: {after}"
        );
    }
    assert!(
        number(&after, "accuracy") >= number(&before, "accuracy") - 0.25,
        "{before} {after}"
    );
    let eval = run(&files, &["eval", "small", "--json"]);
    assert!((number(&eval[0], "accuracy") - number(&after, "accuracy")).abs() < 1e-9);
}

#[test]
fn pruned_weights_are_zero_and_stay_it_in_training() {
    let files = trained(&[]);
    for (out, how) in [("once", &[][..]), ("slowly", &["--gradual"])] {
        let args = [
            "prune", "run", "--what", "weights", "--amount", "0.75", "--json",
        ];
        let args = [&args[..], &["--epochs", "3", "--out", out], how].concat();
        let [before, after] = models(&run(&files, &args));
        let (start, found) = (weights(&files, "run"), weights(&files, out));
        for name in ["conv1.weight", "fc1.weight"] {
            assert!(zeros(&start, name) < 0.1);
            assert!((zeros(&found, name) - 0.75).abs() < 0.01, "{out} {name}");
        }
        assert_ne!(start["fc1.bias"], found["fc1.bias"], "it was trained on");
        assert!(number(&after, "nonzero") < 0.35 * number(&before, "nonzero"));
        assert_eq!(number(&after, "parameters"), number(&before, "parameters"));
    }
}

#[test]
fn training_may_prune_from_the_start_and_resumes_with_its_mask() {
    let pruning = ["--prune-to", "0.8", "--prune-over", "0.5", "--ema", "0.9"];
    let whole = trained(&pruning);
    let found = weights(&whole, "run");
    for name in ["conv1.weight", "fc1.weight"] {
        assert!(
            (zeros(&found, name) - 0.8).abs() < 0.03,
            "{name}: {}",
            zeros(&found, name)
        );
    }
    // The zeros were all there by the end: one more epoch keeps those and no others.
    run(
        &whole,
        &["train", "--resume", "run", "--epochs", "16", "--json"],
    );
    let resumed = weights(&whole, "run");
    assert_ne!(resumed, found);
    for (name, tensor) in &resumed {
        let both = tensor.data().iter().zip(found[name].data());
        assert!(both.clone().all(|(a, b)| *b != 0.0 || *a == 0.0), "{name}");
    }
}

#[test]
fn a_quantised_run_is_smaller_and_nearly_as_good() {
    let files = trained(&[]);
    for method in ["min-max", "percentile", "entropy"] {
        let args = [
            "quantize",
            "run",
            "--calibration",
            method,
            "--out",
            method,
            "--json",
        ];
        let [before, after] = models(&run(&files, &args));
        let near = number(&after, "accuracy") - number(&before, "accuracy");
        assert!(near.abs() <= 0.05, "{method}: {before} {after}");
        // Bytes instead of floats for nearly all, and a longer header.
        assert!(
            number(&after, "bytes") < number(&before, "bytes"),
            "{method}"
        );
        let eval = run(&files, &["eval", method, "--json"]);
        assert!((number(&eval[0], "accuracy") - number(&after, "accuracy")).abs() < 1e-9);
    }
    let args = ["quantize", "run", "--to", "f16", "--out", "half", "--json"];
    let [before, after] = models(&run(&files, &args));
    assert!((number(&after, "accuracy") - number(&before, "accuracy")).abs() <= 0.05);
    let again = error(&files, &["quantize", "entropy"]);
    assert!(again.contains("is quantised already"), "{again}");
}

#[test]
fn eight_bits_are_the_same_on_the_gpu_and_in_the_reference() {
    let model = Model::load("lenet5").unwrap();
    let (model, mut weights) = fold_batch_norms(&model, &model.initial_weights(2)).unwrap();
    let image = 28 * 28;
    let mut draw = Draw::new(5);
    // Biases as large as what they are added to.
    for (_, bias) in weights
        .iter_mut()
        .filter(|(name, _)| name.ends_with("bias"))
    {
        for x in bias.data_mut() {
            *x = draw.float(-0.5, 0.5) as f32;
        }
    }
    let images: Vec<u8> = (0..32 * image).map(|_| draw.int(0, 255) as u8).collect();
    let gpu = |profile| {
        let backend = GpuBackend::new(support::open(profile, true)).unwrap();
        Box::new(backend) as Box<dyn Backend>
    };
    let int8 = calibrate(
        &model,
        &weights,
        &images,
        Calibration::MinMax,
        gpu(ProfileKind::CpuLike),
    )
    .unwrap();
    assert_eq!(int8.len(), 5);
    let logits = |backend, int8| {
        let batches = Batches::of(2);
        let mut predictor =
            Predictor::with_batches(&model, &weights, int8, batches, backend).unwrap();
        predictor.logits(&images[..2 * image]).unwrap().concat()
    };
    let expected = logits(Box::new(CpuBackend::new()), Some(&int8));
    let scale = expected.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    for profile in [ProfileKind::CpuLike, ProfileKind::Gpu] {
        for (found, expected) in logits(gpu(profile), Some(&int8)).iter().zip(&expected) {
            // Integer sums are exact; where f32 and f64 round an input to neighbouring steps,
            // a logit moves by about a step in a hundred.
            assert!(
                (found - expected).abs() <= 0.02 * scale,
                "{profile}: {found} {expected}"
            );
        }
    }
    let floats = logits(gpu(ProfileKind::CpuLike), None);
    let differ = floats.iter().zip(&expected).filter(|(a, b)| a != b).count();
    assert!(differ > 10, "it runs in eight bits: {differ}");
    for (float, int8) in floats.iter().zip(&expected) {
        assert!((float - int8).abs() <= 0.1 * scale, "{float} {int8}");
    }
}

#[test]
fn options_that_make_no_sense_are_named() {
    let files = trained(&[]);
    let cases: [(&[&str], &str); 7] = [
        (&["prune", "run", "--amount", "1"], "--amount"),
        (&["prune", "run", "--amount", "0.01"], "as it is"),
        (&["prune", "run", "--gradual"], "--gradual"),
        (
            &["prune", "run", "--what", "weights", "--global"],
            "--global",
        ),
        (&["quantize", "run", "--percentile", "0"], "--percentile"),
        (&["quantize", "run", "--images", "0"], "--images"),
        (&["quantize", "run", "--out", "run"], "holds a run already"),
    ];
    for (args, expected) in cases {
        let found = error(&files, args);
        assert!(found.contains(expected), "{args:?}: {found}");
    }
}
