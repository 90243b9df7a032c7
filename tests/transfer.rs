//! Transfer learning: torchvision's names, frozen layers, new heads, layer rates.

mod files;
mod support;

use files::{Files, gpucnn, json_lines};
use gpucnn::data::{Dataset, Split};
use gpucnn::formats::safetensors;
use gpucnn::gpu::{Gpu, OpenOptions};
use gpucnn::graph::{Backend, CpuBackend, GpuBackend};
use gpucnn::infer::{Predictor, probabilities};
use gpucnn::model::{BatchNorm2d, Conv2d, Dense, Flatten, Model};
use gpucnn::ops::Draw;
use gpucnn::ops::activation::Function::Relu;
use gpucnn::tensor::Tensor;
use gpucnn::train::{Callbacks, Config, Event, Graphs, Part, RunFolder, Weights, train};
use std::collections::BTreeMap;

/// A tensor's name and extents.
type Named = (String, Vec<usize>);

/// The batch normalisation `name` in a torchvision state dict.
fn norm(name: &str, channels: usize) -> Vec<Named> {
    let roles = ["weight", "bias", "running_mean", "running_var"];
    let mut all: Vec<Named> = roles
        .map(|r| (format!("{name}.{r}"), vec![channels]))
        .into();
    all.push((format!("{name}.num_batches_tracked"), vec![]));
    all
}

/// The state dict of torchvision's `resnet18`, after torchvision/models/resnet.py.
fn torchvision_resnet18() -> Vec<Named> {
    let mut all = vec![("conv1.weight".to_owned(), vec![64, 3, 7, 7])];
    all.extend(norm("bn1", 64));
    let mut inplanes = 64;
    for (layer, planes) in [(1, 64), (2, 128), (3, 256), (4, 512)] {
        for block in 0..2 {
            let of = |part: &str| format!("layer{layer}.{block}.{part}");
            all.push((of("conv1.weight"), vec![planes, inplanes, 3, 3]));
            all.extend(norm(&of("bn1"), planes));
            all.push((of("conv2.weight"), vec![planes, planes, 3, 3]));
            all.extend(norm(&of("bn2"), planes));
            if inplanes != planes {
                all.push((of("downsample.0.weight"), vec![planes, inplanes, 1, 1]));
                all.extend(norm(&of("downsample.1"), planes));
            }
            inplanes = planes;
        }
    }
    all.push(("fc.weight".to_owned(), vec![1000, 512]));
    all.push(("fc.bias".to_owned(), vec![1000]));
    all
}

/// The state dict of torchvision's `vgg11_bn` and `vgg16_bn`, after torchvision/models/vgg.py:
/// 0 stands for "M".
fn torchvision_vgg(config: &[usize]) -> Vec<Named> {
    let (mut all, mut place, mut channels) = (Vec::new(), 0, 3);
    for &filters in config {
        if filters == 0 {
            place += 1;
            continue;
        }
        all.push((
            format!("features.{place}.weight"),
            vec![filters, channels, 3, 3],
        ));
        all.push((format!("features.{place}.bias"), vec![filters]));
        all.extend(norm(&format!("features.{}", place + 1), filters));
        (place, channels) = (place + 3, filters);
    }
    for (place, units, inputs) in [(0, 4096, 512 * 7 * 7), (3, 4096, 4096), (6, 1000, 4096)] {
        all.push((format!("classifier.{place}.weight"), vec![units, inputs]));
        all.push((format!("classifier.{place}.bias"), vec![units]));
    }
    all
}

#[test]
fn presets_for_imagenet_have_torchvisions_names_and_shapes() {
    const A: &[usize] = &[64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0];
    const D: &[usize] = &[
        64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0,
    ];
    for (preset, theirs, entries) in [
        ("resnet18-imagenet", torchvision_resnet18(), 122),
        ("vgg11-bn-imagenet", torchvision_vgg(A), 62),
        ("vgg16-bn-imagenet", torchvision_vgg(D), 97),
    ] {
        assert_eq!(theirs.len(), entries, "{preset}");
        let kept = theirs
            .into_iter()
            .filter(|(n, _)| !n.ends_with("num_batches_tracked"));
        let theirs: BTreeMap<String, Vec<usize>> = kept.collect();
        let model = Model::load(preset).unwrap();
        let ours = model.parameters().iter();
        let ours: BTreeMap<_, _> = ours
            .map(|p| (p.name.clone(), p.shape.dims().to_vec()))
            .collect();
        assert_eq!(ours, theirs, "{preset}");
    }
}

/// Writes a safetensors file as PyTorch would: f32, and the counters as i64 scalars.
fn write_state_dict(files: &Files, name: &str, dict: &[Named]) -> String {
    use ::safetensors::tensor::{Dtype, TensorView};
    let content: Vec<(Dtype, Vec<u8>)> = dict
        .iter()
        .enumerate()
        .map(
            |(i, (name, extents))| match name.ends_with("num_batches_tracked") {
                true => (Dtype::I64, 7_i64.to_le_bytes().to_vec()),
                false => {
                    let numbers = 0..extents.iter().product::<usize>();
                    let of = |n: usize| (i * 1000 + n % 1000) as f32 * 1e-6;
                    (
                        Dtype::F32,
                        numbers.flat_map(|n| of(n).to_le_bytes()).collect(),
                    )
                }
            },
        )
        .collect();
    let views = dict
        .iter()
        .zip(&content)
        .map(|((name, extents), (dtype, bytes))| {
            let view = TensorView::new(*dtype, extents.clone(), bytes).unwrap();
            (name.clone(), view)
        });
    files.write(name, ::safetensors::serialize(views, None).unwrap())
}

#[test]
fn a_resnet18_of_torchvision_loads_by_name_whatever_the_head() {
    let files = Files::new();
    let dict = torchvision_resnet18();
    let path = write_state_dict(&files, "resnet18.safetensors", &dict);
    let tensors = safetensors::load(path.as_ref()).unwrap();
    assert_eq!(tensors.len(), 102);
    let model = Model::load("resnet18-imagenet").unwrap();
    let whole = model.adopt(tensors.clone(), 0, "file").unwrap();
    whole.check_whole(&model, "file", None).unwrap();
    assert_eq!(whole.weights, tensors);
    let (small, head) = model.with_classes(3).unwrap();
    assert_eq!((head.as_str(), small.classes()), ("fc", 3));
    let part = small.adopt(tensors.clone(), 0, "file").unwrap();
    assert_eq!(part.matched.len(), 100);
    assert_eq!(
        part.misshapen,
        [
            "fc.weight: expected [3, 512], found [1000, 512]",
            "fc.bias: expected [3], found [1000]"
        ]
    );
    part.check_whole(&small, "file", Some("fc")).unwrap();
    let error = part
        .check_whole(&small, "file", None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("fc.bias") && error.contains("--partial"),
        "{error}"
    );
    assert_eq!(part.weights["fc.bias"], small.initial_weights(0)["fc.bias"]);
    // A CIFAR stem takes all but the first convolution.
    let cifar = Model::load("resnet18").unwrap();
    let (mut tensors, fresh) = (tensors, cifar.initial_weights(0));
    let part = cifar.adopt(tensors.clone(), 0, "file").unwrap();
    assert_eq!((part.missing.len(), part.misshapen.len()), (0, 3));
    assert_eq!(part.weights["conv1.weight"], fresh["conv1.weight"]);
    tensors.retain(|name, _| name.starts_with("fc"));
    let error = Model::load("vgg11-bn")
        .unwrap()
        .adopt(tensors, 0, "file")
        .unwrap_err();
    assert!(
        error.to_string().contains("nothing of file fits"),
        "{error}"
    );
}

/// Two convolutions with normalisation and a dense layer over 8 by 8 grey images.
fn model() -> Model {
    Model::builder("two", [1, 8, 8])
        .add(Conv2d::new(4, 3))
        .add(BatchNorm2d::default())
        .add(Conv2d::new(4, 3).activation(Relu))
        .add(BatchNorm2d::default())
        .add(Flatten)
        .add(Dense::new(10))
        .build()
        .unwrap()
}

fn data() -> Dataset {
    let mut draw = Draw::new(5);
    let images = (0..16 * 64).map(|_| draw.int(0, 255) as u8).collect();
    let labels = (0..16).map(|_| draw.int(0, 9) as u32).collect();
    Dataset {
        name: "random".into(),
        shape: [1, 8, 8],
        classes: (0..10).map(|c| c.to_string()).collect(),
        train: Split::new(images, labels),
        test: None,
        notes: Vec::new(),
    }
}

fn gpu() -> Box<dyn Backend> {
    let options = OpenOptions {
        name: std::env::var("GPUCNN_TEST_DEVICE").ok(),
        ..OpenOptions::default()
    };
    Box::new(GpuBackend::new(Gpu::open(options).unwrap()).unwrap())
}

fn config(optimizer: &str) -> Config {
    Config {
        data: "random".into(),
        epochs: 2,
        batch_size: 4,
        learning_rate: 0.05,
        seed: 3,
        log_every: 1,
        checkpoint_minutes: 0.0,
        ..Config::default().with_optimizer(optimizer).unwrap()
    }
}

/// The weights a training ends with, and the losses of its steps.
fn trained(model: &Model, config: &Config, weights: &Weights) -> (Weights, Vec<f64>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let data = data();
    let mut run = RunFolder::create(Some(&path), model, config, &data.classes).unwrap();
    let mut losses = Vec::new();
    let mut keep = |event| {
        if let Event::Step { loss, .. } = event {
            losses.push(loss);
        }
    };
    let callbacks = Callbacks::new(&mut keep);
    train(model, &data, config, weights, gpu(), &mut run, callbacks).unwrap();
    let left = RunFolder::open(&path).unwrap();
    assert_eq!(left.model().unwrap(), *model);
    (left.weights(model).unwrap(), losses)
}

#[test]
fn frozen_layers_keep_every_bit_whatever_the_optimizer() {
    let model = model()
        .freeze(&["*".into(), "!fc1".into(), "!conv2".into()])
        .unwrap();
    assert_eq!(model.parameter_count(), 4 * 4 * 9 + 4 + 10 * 64 + 10);
    let mut initial = model.initial_weights(3);
    let third = vec![1.0 / 3.0; 4];
    initial.insert("bn1.running_mean".into(), Tensor::new([4], third).unwrap());
    for (optimizer, ema) in [("adamw", None), ("lion", Some(0.9)), ("sgd", None)] {
        let config = Config {
            weight_decay: 0.1,
            decay_all: true,
            ema,
            ..config(optimizer)
        };
        let (after, _) = trained(&model, &config, &initial);
        for (name, weight) in &after {
            let changes = name.starts_with("fc1") || name.starts_with("conv2");
            assert_eq!(*weight != initial[name], changes, "{optimizer}: {name}");
        }
    }
}

#[test]
fn frozen_batch_normalisation_works_as_at_inference() {
    let model = model().freeze(&["bn1".into(), "bn2".into()]).unwrap();
    let mut initial = model.initial_weights(3);
    let statistics = Tensor::new([4], vec![0.2, -0.1, 0.3, 0.05]).unwrap();
    initial.insert("bn2.running_mean".into(), statistics);
    let data = data();
    let config = Config {
        batch_size: 16,
        epochs: 1,
        ..config("sgd")
    };
    let (_, losses) = trained(&model, &config, &initial);
    let mut predictor = Predictor::new(&model, &initial, 16, Box::new(CpuBackend::new())).unwrap();
    let logits = predictor.logits(&data.train.images.all().unwrap()).unwrap();
    let each = logits.iter().zip(&data.train.labels);
    let loss = each.map(|(row, label)| -probabilities(row)[*label as usize].ln());
    let expected = loss.sum::<f64>() / 16.0;
    // Sums of at most 64 products in f32.
    assert!((losses[0] - expected).abs() < 1e-5, "{losses:?} {expected}");
}

#[test]
fn backward_stops_above_the_frozen_layers() {
    let layers_with_gradients = |patterns: &[&str]| {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        let model = match patterns.is_empty() {
            true => model(),
            false => model().freeze(&patterns).unwrap(),
        };
        let config = config("sgd");
        let method = config.method(&[], &model).unwrap();
        let part = Part::new("train", 16, model.input(), 1 << 27);
        let graph = Graphs::new(&model, method, 1 << 27)
            .training(&part, 4)
            .unwrap();
        let backward = graph.nodes().iter().skip_while(|n| n.layer != "metrics");
        // What lasts, such as running statistics, is updated last and under guard.
        let backward = backward.filter(|n| n.guard.is_none());
        let mut layers: Vec<String> = backward.map(|n| n.layer.clone()).collect();
        layers.retain(|l| !["metrics", "optimizer", "loss"].contains(&l.as_str()));
        layers.dedup();
        layers
    };
    assert_eq!(
        layers_with_gradients(&[]),
        ["fc1", "flatten", "bn2", "conv2", "bn1", "conv1"]
    );
    assert_eq!(layers_with_gradients(&["*", "!fc1"]), ["fc1"]);
    // Frozen layers above one that trains pass the gradient on.
    let above = ["conv2", "bn2", "conv1", "!bn1"];
    assert_eq!(
        layers_with_gradients(&above),
        ["fc1", "flatten", "bn2", "conv2", "bn1"]
    );
}

#[test]
fn layer_rates_multiply_the_learning_rate() {
    let model = model();
    let initial = model.initial_weights(3);
    for optimizer in ["sgd", "adamw"] {
        let run = |layer_rates: &[&str]| {
            let config = Config {
                epochs: 1,
                batch_size: 16,
                layer_rates: layer_rates.iter().map(|r| (*r).to_owned()).collect(),
                weight_decay: 0.01,
                ..config(optimizer)
            };
            trained(&model, &config, &initial).0
        };
        let plain = run(&[]);
        let scaled = run(&["*.weight=0.5", "fc1=0.25", "fc1.bias=2"]);
        for (name, start) in &initial {
            let factor = match name.as_str() {
                "fc1.weight" => 0.25,
                "fc1.bias" => 2.0,
                _ if name.ends_with("weight") => 0.5,
                _ => 1.0,
            };
            let moved = |w: &Weights, i: usize| f64::from(w[name].data()[i] - start.data()[i]);
            for i in 0..start.data().len() {
                let expected = factor * moved(&plain, i);
                // A rounding of weights below 2.
                let error = (moved(&scaled, i) - expected).abs();
                assert!(error < 5e-7, "{optimizer}: {name}[{i}] {expected}");
            }
        }
    }
}

#[test]
fn bad_layer_rates_and_patterns_are_named() {
    let model = model();
    for (text, expected) in [
        ("fc1", "PATTERN=FACTOR"),
        ("fc1=x", "PATTERN=FACTOR"),
        ("fc1=0", "PATTERN=FACTOR"),
        ("fc2=1", "\"fc2\" fits no name"),
    ] {
        let config = Config {
            layer_rates: vec![text.into()],
            ..config("sgd")
        };
        let error = config.method(&[], &model).unwrap_err().to_string();
        assert!(
            error.contains("--layer-rate") && error.contains(expected),
            "{error}"
        );
    }
    let error = model.freeze(&["*".into()]).unwrap_err().to_string();
    assert!(error.contains("nothing of two to train"), "{error}");
    let error = model.freeze(&["covn1".into()]).unwrap_err().to_string();
    assert!(error.contains("did you mean \"conv1\""), "{error}");
}

#[test]
fn the_program_starts_from_another_model_and_says_what_it_took() {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 40, 20));
    let common = [
        "train", &model, "--data", &data, "--device", "cpu", "--epochs", "1",
    ];
    let run = |extra: &[&str]| gpucnn(&files, &[&common, extra].concat()).output().unwrap();
    assert!(run(&["--out", "first"]).status.success());
    let init = files.text("first/weights.safetensors");
    let head = [
        "--init",
        &init,
        "--replace-head",
        "12",
        "--freeze",
        "conv1",
        "--json",
    ];
    let output = run(&[&head, ["--out", "second"].as_slice()].concat());
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    assert!(
        err.contains("2 of the model's 4 tensors come from"),
        "{err}"
    );
    let lines = json_lines(&output.stdout);
    assert_eq!(lines[0]["event"], "init");
    assert_eq!(
        lines[0]["matched"],
        serde_json::json!(["conv1.weight", "conv1.bias"])
    );
    let start = lines.iter().find(|l| l["event"] == "start").unwrap();
    assert_eq!(start["parameters"], 12 * 36 + 12);
    let load = |run: &str| safetensors::load(&files.path(run).join("weights.safetensors")).unwrap();
    let (first, second) = (load("first"), load("second"));
    assert_eq!(first["conv1.weight"], second["conv1.weight"]);
    assert_eq!(second["fc1.weight"].shape().dims(), [12, 36]);
    // What is frozen is the model's and lasts.
    let more = ["train", "--resume", "second", "--epochs", "2"];
    assert!(gpucnn(&files, &more).output().unwrap().status.success());
    assert_eq!(load("second")["conv1.weight"], first["conv1.weight"]);
    assert_ne!(load("second")["fc1.weight"], second["fc1.weight"]);
    // Without saying so, a file must fit.
    let output = run(&[
        "--init",
        &files.text("second/weights.safetensors"),
        "--out",
        "third",
    ]);
    assert_eq!(output.status.code(), Some(2));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(
        err.contains("fc1.weight: expected [10, 36], found [12, 36]"),
        "{err}"
    );
    assert!(err.contains("--partial"), "{err}");
}
