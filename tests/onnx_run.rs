//! `gpucnn run`: arrays in, arrays out, of the types the model has; and `gpucnn import`.

mod files;

use files::{Files, gpucnn};
use gpucnn::formats::npy::{self, Elements};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

/// The model of one of ONNX's node tests.
fn model(test: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx_node");
    root.join(test).join("model.onnx").display().to_string()
}

/// An archive of the inputs of `test_edge_pad`: images of 32-bit and pads of 64-bit integers.
fn padded(files: &Files, element: i64) -> String {
    let mut image = vec![7i64; 60];
    image[0] = element;
    let pads = [0i64, 0, 1, 1, 0, 0, 1, 1];
    let bytes = |data: &[i64]| data.iter().flat_map(|x| x.to_le_bytes()).collect();
    let arrays = BTreeMap::from([
        ("x".to_owned(), (vec![1, 3, 4, 5], "<i8", bytes(&image))),
        ("pads".to_owned(), (vec![8], "<i8", bytes(&pads))),
    ]);
    let mut archive = Cursor::new(Vec::new());
    npy::write_npz(&mut archive, &arrays).unwrap();
    files.write("in.npz", archive.into_inner())
}

#[test]
fn integers_come_out_as_integers() {
    let files = Files::new();
    let mut array = Vec::new();
    npy::write(&mut array, &[2, 2], &[2.0, 2.0, 3.0, 10.0]).unwrap();
    let input = files.write("x.npy", array);
    let model = model("test_argmax_no_keepdims_example_select_last_index");
    let args = [
        "run", &model, "--input", &input, "--output", "y.npy", "--device", "cpu",
    ];
    gpucnn(&files, &args).assert().success();
    let bytes = std::fs::read(files.path("y.npy")).unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains("'<i8'"));
    let array = npy::load(&files.path("y.npy")).unwrap();
    assert_eq!(*array.elements(), Elements::Int(vec![1, 1]));
}

#[test]
fn an_integer_that_the_type_does_not_hold_is_refused() {
    let files = Files::new();
    let model = model("test_edge_pad");
    let run = |element| {
        let input = padded(&files, element);
        let args = [
            "run", &model, "--input", &input, "--output", "y.npz", "--device", "cpu",
        ];
        gpucnn(&files, &args).output().unwrap()
    };
    let largest = i64::from(i32::MAX);
    assert!(run(largest).status.success());
    let arrays = npy::load_npz(&files.path("y.npz")).unwrap();
    let Elements::Int(padded) = arrays["y"].elements() else {
        panic!("no integers")
    };
    assert_eq!(padded[0], largest);
    let refused = run(largest + 1);
    assert_eq!(refused.status.code(), Some(2));
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    for text in ["in.npz", "x: 2147483648 is no I32"] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
}

#[test]
fn an_imported_run_asks_for_a_data_set() {
    let files = Files::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx_import");
    let model = root.join("mobile.onnx").display().to_string();
    let import = ["import", &model, "--out", "run"];
    gpucnn(&files, &import).assert().success();
    let eval = ["eval", "run", "--device", "cpu"];
    let refused = gpucnn(&files, &eval).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        message.contains("no data set is named; give one with --data"),
        "{message}"
    );
}
