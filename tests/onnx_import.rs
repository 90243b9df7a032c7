//! ONNX files of other programs, and our own again: as graphs that are run, and as models.

mod support;

use gpucnn::formats::onnx::{
    Data, File, Options, Tensor, export, import, load, read, read_tensor_file,
};
use gpucnn::formats::safetensors::Tensors;
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::{CpuBackend, GpuBackend};
use gpucnn::infer::{Predictor, run_onnx};
use gpucnn::model::Model;
use gpucnn::ops::Draw;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx_import");
    folder.join(name)
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let (words, _) = bytes.as_chunks();
    words.iter().map(|w| f32::from_le_bytes(*w)).collect()
}

/// What a file computes on the CPU.
fn run(file: &File, dims: &[usize], data: Vec<f32>) -> Vec<f32> {
    let given = Tensor::floats(dims, data);
    let inputs = HashMap::from([(file.inputs[0].name.clone(), given)]);
    let outputs = run_onnx(file, inputs, &mut CpuBackend::new()).unwrap();
    match &outputs[0].1.data {
        Data::Float(data) => data.clone(),
        Data::Int(_) => panic!("integers"),
    }
}

/// Within 1e-5 of the largest: f32 sums in another order.
fn assert_near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    for (f, e) in found.iter().zip(expected) {
        assert!(
            (f - e).abs() <= 1e-5 * largest,
            "{found:?}, expected {expected:?}"
        );
    }
}

#[test]
fn graphs_that_pytorch_wrote_compute_what_onnxruntime_does() {
    for (name, dims) in [("classic", [2, 1, 15, 13]), ("mobile", [2, 3, 12, 10])] {
        let file = load(&fixture(&format!("{name}.onnx"))).unwrap();
        let found = run(&file, &dims, floats(&fixture(&format!("{name}.input"))));
        assert_near(&found, &floats(&fixture(&format!("{name}.output"))));
    }
}

/// The logits of a model on bytes, on the GPU.
fn logits(model: &Model, weights: &Tensors, bytes: &[u8]) -> Vec<f32> {
    let gpu = support::open(ProfileKind::CpuLike, false);
    let backend = Box::new(GpuBackend::new(gpu).unwrap());
    let mut predictor = Predictor::new(model, weights, 2, backend).unwrap();
    predictor.logits(bytes).unwrap().concat()
}

#[test]
fn a_network_of_pytorch_becomes_a_model_that_computes_the_same() {
    let file = load(&fixture("mobile.onnx")).unwrap();
    let imported = import(&file, "mobile", None).unwrap();
    assert_eq!(imported.model.input(), [3, 12, 10]);
    let mut draw = Draw::new(1);
    let bytes: Vec<u8> = (0..2 * 360).map(|_| draw.int(0, 255) as u8).collect();
    let scaled = bytes.iter().map(|b| f32::from(*b) / 255.0).collect();
    let expected = run(&file, &[2, 3, 12, 10], scaled);
    assert_near(
        &logits(&imported.model, &imported.weights, &bytes),
        &expected,
    );
    // And leaves again.
    export(&imported.model, &imported.weights, &[], Options::default()).unwrap();
}

#[test]
fn an_exported_model_comes_back_as_it_was() {
    for name in ["lenet5", "mnist-cnn", "cifar10-cnn", "resnet20"] {
        let model = Model::load(name).unwrap();
        let weights = model.initial_weights(3);
        let classes: Vec<String> = (0..10).map(|c| format!("class {c}")).collect();
        let bytes = export(&model, &weights, &classes, Options::default()).unwrap();
        let imported = import(&read(&bytes).unwrap(), name, None).unwrap();
        assert_eq!(imported.weights, weights, "{name}");
        assert_eq!(imported.model.normalization(), model.normalization());
        assert_eq!(imported.classes, Some(classes));
        let mut draw = Draw::new(1);
        let pixels = 2 * model.input().iter().product::<usize>();
        let bytes: Vec<u8> = (0..pixels).map(|_| draw.int(0, 255) as u8).collect();
        let expected = logits(&model, &weights, &bytes);
        assert_near(
            &logits(&imported.model, &imported.weights, &bytes),
            &expected,
        );
    }
}

/// Their computation is on the host, which the device's results come back to on the way.
#[test]
fn integers_that_follow_from_floats_are_exact() {
    let file = load(&fixture("integers.onnx")).unwrap();
    let x = Tensor::floats([2, 3], vec![1.0, -2.0, 3.0, -1.0, 5.0, 0.5]);
    let inputs = HashMap::from([("x".to_owned(), x)]);
    let gpu = support::open(ProfileKind::CpuLike, false);
    let on_gpu = run_onnx(&file, inputs.clone(), &mut GpuBackend::new(gpu).unwrap()).unwrap();
    let on_cpu = run_onnx(&file, inputs, &mut CpuBackend::new()).unwrap();
    // Beyond 32 bits; and the first four of the flat ReLU, for four numbers are positive.
    let large = Tensor::list(vec![6_000_000_000, 3_000_000_000]);
    let twice = Tensor::floats([4], vec![2.0, 0.0, 6.0, 0.0]);
    let expected = [("large".to_owned(), large), ("twice".to_owned(), twice)];
    assert_eq!(on_gpu, expected);
    assert_eq!(on_cpu, expected);
}

#[test]
fn optimizers_of_one_graph_share_their_learning_rate() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx_node");
    let file = load(&root.join("test_momentum/model.onnx")).unwrap();
    let read_input = |i| {
        let path = root.join(format!("test_momentum/test_data_set_0/input_{i}.pb"));
        read_tensor_file(&std::fs::read(path).unwrap()).unwrap()
    };
    let names = file.inputs.iter().map(|i| i.name.clone());
    let inputs: HashMap<_, _> = names.zip((0..).map(read_input)).collect();
    let run_with_second = |rate: f32| {
        let mut file = file.clone();
        let mut second = file.nodes[0].clone();
        second.inputs[0] = "second rate".into();
        second.outputs = vec!["second 1".into(), "second 2".into()];
        let rate = Tensor::floats([], vec![rate]);
        file.constants.insert("second rate".into(), rate);
        file.nodes.push(second);
        run_onnx(&file, inputs.clone(), &mut CpuBackend::new())
    };
    let Data::Float(rate) = &inputs[&file.inputs[0].name].data else {
        panic!("integers")
    };
    run_with_second(rate[0]).unwrap();
    let error = run_with_second(2.0 * rate[0]).unwrap_err().to_string();
    assert!(error.contains("another learning rate"), "{error}");
}

#[test]
fn damaged_files_are_errors() {
    let bytes = std::fs::read(fixture("mobile.onnx")).unwrap();
    assert!(read(b"").unwrap_err().contains("no graph"));
    let mut draw = Draw::new(2);
    for _ in 0..300 {
        let mut damaged = bytes.clone();
        let at = draw.int(0, damaged.len() - 1);
        damaged[at] = draw.int(0, 255) as u8;
        damaged.truncate(draw.int(damaged.len() / 2, damaged.len()));
        if let Ok(file) = read(&damaged) {
            let _ = import(&file, "damaged", None);
        }
    }
}
