//! `gpucnn train --tensorboard`, read back by TensorBoard's own loader.

mod files;

use files::{Files, gpucnn};
use serde_json::Value;
use std::process::Command;

fn train(files: &Files, args: &[&str]) {
    let args = [&["train"], args].concat();
    let output = gpucnn(files, &args).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {err}");
}

/// What the loader finds in a run.
fn loaded(files: &Files, run: &str) -> Value {
    let python = std::env::var("GPUCNN_PYTHON").unwrap_or("target/python/bin/python".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tensorboard/read.py");
    let folder = files.path(run).join("tensorboard");
    let mut command = Command::new(python);
    let output = command.arg(script).arg(folder).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The columns of a run's history.
fn history(files: &Files, run: &str) -> Vec<(String, Vec<f64>)> {
    let mut table = csv::Reader::from_path(files.path(run).join("history.csv")).unwrap();
    let names: Vec<String> = table.headers().unwrap().iter().map(str::to_owned).collect();
    let rows: Vec<_> = table.records().map(|row| row.unwrap()).collect();
    let column = |i: usize| rows.iter().map(|row| row[i].parse().unwrap()).collect();
    let columns = names.into_iter().enumerate();
    columns.map(|(i, name)| (name, column(i))).collect()
}

#[test]
#[ignore = "needs TensorBoard below target/python; .ci/run runs it"]
fn tensorboard_reads_what_a_stopped_and_resumed_run_wrote() {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 44, 20));
    let options = ["--device", "cpu", "--augment", "shift=0.1", "--out", "run"];
    let begin = [&[&*model, "--data", &data, "--tensorboard"], &options[..]].concat();
    train(&files, &begin);
    // A run that has event files goes on with them without being told.
    train(&files, &["--resume", "run", "--epochs", "4"]);

    let found = loaded(&files, "run");
    assert_eq!(found["train"]["version"], 2.0);
    // Each epoch once, with the numbers of the history as f32.
    for (part, tag, column) in [
        ("train", "epoch_loss", "loss"),
        ("train", "epoch_accuracy", "accuracy"),
        ("train", "epoch_learning_rate", "learning_rate"),
        ("validation", "epoch_loss", "val_loss"),
        ("validation", "epoch_accuracy", "val_accuracy"),
        ("validation", "epoch_top5", "val_top5"),
    ] {
        let history = history(&files, "run");
        let (_, expected) = history.iter().find(|(name, _)| name == column).unwrap();
        let points = found[part]["scalars"][tag].as_array().unwrap();
        assert_eq!(points.len(), 4, "{part} {tag}: {points:?}");
        for (i, (point, expected)) in points.iter().zip(expected).enumerate() {
            assert_eq!(point[0], i + 1, "{part} {tag}");
            let value = point[1].as_f64().unwrap();
            // The history has six digits or more.
            assert!(
                (value - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                "{tag}: {point}"
            );
        }
    }
    // 44 images in batches of 8 are 6 steps an epoch; the last step of all is there.
    let losses = found["train"]["scalars"]["batch_loss"].as_array().unwrap();
    let steps: Vec<_> = losses.iter().map(|p| p[0].as_u64().unwrap()).collect();
    assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
    assert_eq!(steps.last(), Some(&24));

    // Images are PNG.
    let png = "89504e47";
    for (part, tag, count) in [
        ("train", "augmented", 1),
        ("train", "conv1/filters", 4),
        ("validation", "worst_mistakes", 1),
    ] {
        let images = found[part]["images"][tag].as_array().unwrap();
        assert!(images.len() >= count, "{tag}: {images:?}");
        for image in images {
            assert!(
                image[1].as_u64() > Some(60) && image[3] == png,
                "{tag}: {image}"
            );
        }
    }
    let weights = found["train"]["histograms"]["conv1/weight"]
        .as_array()
        .unwrap();
    assert_eq!(weights.len(), 4);
    for (i, histogram) in weights.iter().enumerate() {
        // 4 filters of 3 by 3, all in a bucket.
        assert_eq!(histogram[0], i + 1);
        assert_eq!((&histogram[1], &histogram[5]), (&36.0.into(), &36.0.into()));
    }
}
