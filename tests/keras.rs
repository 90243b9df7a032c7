//! Models that Keras made (tests/keras/make.py), against what Keras predicts with them.

mod files;

use files::{Files, gpucnn, json_lines};
use gpucnn::formats::{hdf5, keras, npy};
use gpucnn::graph::CpuBackend;
use gpucnn::infer::Predictor;
use std::io::Read;
use std::path::{Path, PathBuf};

const MODELS: [&str; 4] = ["classic", "modern", "grey", "branched"];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/keras")
        .join(name)
}

/// Images as [N, C, H, W] and Keras's centred logits for them.
fn expected(name: &str, [channels, rows, columns]: [usize; 3]) -> (Vec<u8>, Vec<Vec<f32>>) {
    let arrays = npy::load_npz(&path(&format!("{name}.npz"))).unwrap();
    let npy::Elements::U8(bytes) = arrays["x"].elements() else {
        panic!("x is no uint8")
    };
    let pixels = rows * columns;
    let mut images = Vec::new();
    for image in bytes.chunks(channels * pixels) {
        for c in 0..channels {
            images.extend(image.iter().skip(c).step_by(channels));
        }
    }
    let classes = arrays["y"].shape()[1];
    let logits = arrays["y"].to_f32();
    (
        images,
        logits.chunks(classes).map(<[f32]>::to_vec).collect(),
    )
}

#[test]
fn keras_s_predictions() {
    for name in MODELS {
        let imported = keras::load(&path(&format!("{name}.keras"))).unwrap();
        let model = imported.model;
        let (images, expected) = expected(name, model.input());
        let backend = Box::new(CpuBackend::new());
        let weights = imported.weights.unwrap();
        let mut predictor = Predictor::new(&model, &weights, expected.len(), backend).unwrap();
        for (found, expected) in predictor.logits(&images).unwrap().iter().zip(expected) {
            let mean = found.iter().sum::<f32>() / found.len() as f32;
            let largest = expected.iter().fold(1.0_f32, |a, b| a.max(b.abs()));
            for (f, e) in found.iter().zip(&expected) {
                // Keras computes in f32, some ten layers deep, and its logits are logarithms
                // of rounded probabilities: some hundred roundings of 6e-8.
                let error = (f - mean - e).abs();
                assert!(
                    error < 2e-5 * largest,
                    "{name}: {found:?}, expected {expected:?}"
                );
            }
        }
    }
}

#[test]
fn the_json_gives_the_same_model_without_weights() {
    for name in MODELS {
        let archive = keras::load(&path(&format!("{name}.keras"))).unwrap();
        let json = keras::load(&path(&format!("{name}.json"))).unwrap();
        assert_eq!(json.weights, None);
        assert_eq!(json.model.layers(), archive.model.layers(), "{name}");
        assert_eq!(json.model.normalization(), archive.model.normalization());
        assert_eq!(json.notes, archive.notes);
        // What it becomes is a model file like any other.
        let text = archive.model.to_toml().unwrap();
        let back = gpucnn::model::Model::from_toml(&text, name).unwrap();
        assert_eq!(back, archive.model);
    }
}

/// Keras's own file for each model is the oracle: path by path, bit by bit. (`modern` has a
/// SeparableConv2D, which here is two layers.)
#[test]
fn exported_weights_are_those_that_keras_wrote() {
    for name in ["classic", "grey", "branched"] {
        let imported = keras::load(&path(&format!("{name}.keras"))).unwrap();
        let found = keras::arrays(&imported.model, &imported.weights.unwrap()).unwrap();
        let archive = std::fs::File::open(path(&format!("{name}.keras"))).unwrap();
        let mut archive = zip::ZipArchive::new(archive).unwrap();
        let mut bytes = Vec::new();
        let mut member = archive.by_name("model.weights.h5").unwrap();
        member.read_to_end(&mut bytes).unwrap();
        let mut expected = hdf5::read(&bytes).unwrap();
        // What the optimizer and the random layers keep.
        expected.retain(|path, array| path.starts_with("layers/") && array.shape != [2]);
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "{name}"
        );
        assert!(found == expected, "{name}: arrays differ");
    }
}

#[test]
fn layers_that_keras_lacks_are_named() {
    let text = "name = 'odd'\ninput = [3, 4, 4]\nlayer = [\
        { type = 'layer_scale' }, { type = 'flatten' },\
        { type = 'reshape', shape = [4, 12], name = 'turned' },\
        { type = 'flatten' }, { type = 'dense', units = 2 }]";
    let model = gpucnn::model::Model::from_toml(text, "odd").unwrap();
    let error = keras::arrays(&model, &model.initial_weights(0)).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("scale1") && error.contains("turned"),
        "{error}"
    );
}

/// Reads with h5py what `export --format keras-weights` wrote.
#[test]
#[ignore = "needs Python with h5py; .ci/run runs it"]
fn h5py_reads_what_is_exported() {
    let files = Files::new();
    let imported = keras::load(&path("branched.keras")).unwrap();
    let weights = imported.weights.unwrap();
    files.write("run/model.toml", imported.model.to_toml().unwrap());
    let file = files.path("run/weights.safetensors");
    gpucnn::formats::safetensors::save(&file, &weights, &Default::default()).unwrap();
    let args = ["export", "run", "--format", "keras-weights"];
    assert!(gpucnn(&files, &args).output().unwrap().status.success());
    let arrays = keras::arrays(&imported.model, &weights).unwrap();
    let expected: std::collections::BTreeMap<_, _> = arrays
        .iter()
        .map(|(path, array)| (path, (&array.shape, &array.data)))
        .collect();
    files.write("expected.json", serde_json::to_string(&expected).unwrap());
    let python = std::env::var("GPUCNN_PYTHON").unwrap_or("target/python/bin/python".into());
    let output = std::process::Command::new(python)
        .arg(path("check.py"))
        .args([
            files.path("run/model.weights.h5"),
            files.path("expected.json"),
        ])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

#[test]
fn what_changes_on_the_way_is_told() {
    let imported = keras::load(&path("classic.keras")).unwrap();
    let told = |word: &str| imported.notes.iter().any(|n| n.contains(word));
    assert!(
        told("softmax") && told("RandomFlip"),
        "{:?}",
        imported.notes
    );
    let training = imported.model.training();
    assert_eq!(training.optimizer, "nesterov");
    assert!((training.learning_rate.unwrap() - 0.02).abs() < 1e-6);
    let grey = keras::load(&path("grey.keras")).unwrap();
    assert!(
        grey.notes.iter().any(|n| n.contains("1/255")),
        "{:?}",
        grey.notes
    );
}

/// Keras 2's dialect, as tf.keras 2.15 writes it.
const KERAS_2: &str = r#"{"class_name": "Functional", "config": {"name": "model", "layers": [
    {"class_name": "InputLayer", "config": {"batch_input_shape": [null, 6, 6, 1],
        "name": "input_1"}, "name": "input_1", "inbound_nodes": []},
    {"class_name": "Conv2D", "config": {"name": "a", "filters": 2, "kernel_size": [3, 3],
        "strides": [1, 1], "padding": "same", "data_format": "channels_last",
        "activation": "relu", "use_bias": true}, "name": "a",
        "inbound_nodes": [[["input_1", 0, 0, {}]]]},
    {"class_name": "LeakyReLU", "config": {"name": "leaky", "alpha": 0.1}, "name": "leaky",
        "inbound_nodes": [[["a", 0, 0, {}]]]},
    {"class_name": "BatchNormalization", "config": {"name": "bn", "axis": [3]}, "name": "bn",
        "inbound_nodes": [[["leaky", 0, 0, {}]]]},
    {"class_name": "Add", "config": {"name": "add"}, "name": "add",
        "inbound_nodes": [[["a", 0, 0, {}], ["bn", 0, 0, {}]]]},
    {"class_name": "GlobalAveragePooling2D", "config": {"name": "pool"}, "name": "pool",
        "inbound_nodes": [[["add", 0, 0, {}]]]},
    {"class_name": "Dense", "config": {"name": "out", "units": 3, "activation": "softmax"},
        "name": "out", "inbound_nodes": [[["pool", 0, 0, {}]]]}],
    "input_layers": [["input_1", 0, 0]], "output_layers": [["out", 0, 0]]},
    "keras_version": "2.15.0", "backend": "tensorflow"}"#;

#[test]
fn keras_2_s_dialect() {
    let model = keras::from_json(KERAS_2, "old").unwrap().model;
    let names: Vec<_> = model.layers().iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["a", "leaky", "bn", "add", "pool", "out"]);
    assert_eq!(model.layers()[3].inputs, ["a", "bn"]);
    assert!(model.to_toml().unwrap().contains("leaky_relu(0.1)"));
    assert_eq!((model.input(), model.classes()), ([1, 6, 6], 3));
}

#[test]
fn all_that_cannot_be_taken_over_is_listed_at_once() {
    let text = KERAS_2
        .replace("\"LeakyReLU\"", "\"PReLU\"")
        .replace("\"Add\"", "\"Dot\"")
        .replace("\"relu\"", "\"softsign\"");
    let error = keras::from_json(&text, "old").unwrap_err();
    for word in [
        "3 layers",
        "leaky (PReLU)",
        "add (Dot)",
        "a (Conv2D): has activation softsign",
    ] {
        assert!(error.contains(word), "{word}: {error}");
    }
    for (from, to, word) in [
        ("\"Functional\"", "\"MyModel\"", "MyModel"),
        ("[null, 6, 6, 1]", "[null, null, null, 1]", "fixed size"),
        ("channels_last", "channels_first", "channels_first"),
        (
            "\"activation\": \"softmax\"",
            "\"activation\": \"sigmoid\"",
            "sigmoid",
        ),
    ] {
        let error = keras::from_json(&KERAS_2.replace(from, to), "old").unwrap_err();
        assert!(error.contains(word), "{word}: {error}");
    }
    assert!(
        keras::from_json("{}", "x")
            .unwrap_err()
            .contains("class_name")
    );
    assert!(
        keras::from_json("no json", "x")
            .unwrap_err()
            .contains("configuration")
    );
}

#[test]
fn a_damaged_archive_is_refused() {
    let good = std::fs::read(path("classic.keras")).unwrap();
    for length in (0..good.len()).step_by(997) {
        keras::from_bytes(&good[..length], "cut").unwrap_err();
    }
    for at in (0..good.len()).step_by(131) {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        // The checksums of the archive find what its parts do not.
        let _ = keras::from_bytes(&bad, "damaged");
    }
    assert!(hdf5::read(&good).unwrap_err().contains("no HDF5"));
}

#[test]
fn the_program_takes_keras_s_files() {
    let files = Files::new();
    let model = files.write(
        "old.json",
        KERAS_2
            .replace("6, 6, 1", "8, 8, 1")
            .replace("3, \"activation\"", "10, \"activation\""),
    );
    let data = files.idx("data", 40, 20);
    let run = |args: &[&str]| {
        let output = gpucnn(&files, args).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {error}");
        (output.stdout, error)
    };
    run(&["summary", &model]);
    let options = ["--epochs", "1", "--data", &data, "--out", "run", "--json"];
    let (out, notes) = run(&[&["train", &model], &options[..]].concat());
    assert_eq!(json_lines(&out).last().unwrap()["event"], "end");
    assert!(notes.contains("softmax"), "{notes}");
    // An archive has weights: an evaluation needs no run, only as many classes.
    let grey = path("grey.keras").to_str().unwrap().to_owned();
    let output = gpucnn(&files, &["eval", &grey, "--data", &data])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("4 outputs"));
    let output = gpucnn(&files, &["eval", &model, "--data", &data])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("holds no weights"));
}
