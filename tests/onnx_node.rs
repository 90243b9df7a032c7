//! The ONNX project's backend node tests, on the CPU reference and on the GPU, by the way
//! that `gpucnn run` goes.
//!
//! Each folder of `tests/onnx_node` holds a model of one operator, inputs and expected
//! outputs (see the README there). Every test runs, unless [`NOT_BUILT`] gives the reason why
//! not. `GPUCNN_ONNX_NODE` names another folder of tests, all of the ONNX wheel for example:
//! then those of operators that are read run, and what does not pass is only listed.

mod support;

use gpucnn::formats::onnx::{Data, File, Tensor, load, operators, read_tensor_file};
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::{Backend, CpuBackend, GpuBackend};
use gpucnn::infer::run_onnx;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Tests that are not run.
const NOT_BUILT: &[(&str, &str)] = &[
    (
        "test_convtranspose_3d",
        "convolutions have one or two dimensions",
    ),
    (
        "test_adam_multiple",
        "its expected output is not what its model gives; ONNX's own reference fails it too",
    ),
    (
        "test_training_dropout",
        "the mask is drawn by NumPy's generator",
    ),
    (
        "test_training_dropout_default",
        "the mask is drawn by NumPy's generator",
    ),
    (
        "test_training_dropout_mask",
        "the mask is drawn by NumPy's generator",
    ),
    (
        "test_training_dropout_default_mask",
        "the mask is drawn by NumPy's generator",
    ),
];

fn reason_not_built(test: &str) -> Option<&'static str> {
    let listed = NOT_BUILT.iter().find(|(name, _)| *name == test);
    listed.map(|(_, reason)| *reason)
}

/// A test: a model, what it is given and what it has to give.
struct Case {
    name: String,
    file: File,
    inputs: HashMap<String, Tensor>,
    outputs: Vec<Tensor>,
}

impl Case {
    fn read(folder: &Path) -> Result<Self, String> {
        let file = load(&folder.join("model.onnx")).map_err(|e| e.to_string())?;
        let tensors = |kind: &str| -> Result<Vec<Tensor>, String> {
            let path = |i| folder.join(format!("test_data_set_0/{kind}_{i}.pb"));
            let paths = (0..).map(path).take_while(|p| p.exists());
            let read = |p: PathBuf| read_tensor_file(&std::fs::read(p).unwrap());
            paths.map(read).collect()
        };
        let names = file.inputs.iter().map(|i| i.name.clone());
        Ok(Self {
            name: folder.file_name().unwrap().to_string_lossy().into(),
            inputs: names.zip(tensors("input")?).collect(),
            outputs: tensors("output")?,
            file,
        })
    }

    /// Runs the case and compares as ONNX's own runner does (`onnx.backend.test.runner`):
    /// shapes equal, floats within 1e-3 of themselves and 1e-7, integers equal.
    fn check(&self, backend: &mut dyn Backend) -> Result<(), String> {
        let found = run_onnx(&self.file, self.inputs.clone(), backend);
        let found = found.map_err(|e| e.to_string())?;
        if found.len() != self.outputs.len() {
            return Err(format!("{} outputs", found.len()));
        }
        for ((name, found), expected) in found.iter().zip(&self.outputs) {
            let same = (&found.dims, found.element) == (&expected.dims, expected.element);
            let equal = match (&found.data, &expected.data) {
                (Data::Float(found), Data::Float(expected)) => {
                    let near = |(f, e): (&f32, &f32)| {
                        f == e
                            || (f.is_nan() && e.is_nan())
                            || (f - e).abs() <= 1e-7 + 1e-3 * e.abs()
                    };
                    found.iter().zip(expected).all(near)
                }
                (found, expected) => found == expected,
            };
            if !same || !equal {
                return Err(format!("{name}: found {found:?}, expected {expected:?}"));
            }
        }
        Ok(())
    }
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).unwrap();
    let paths = entries.map(|e| e.unwrap().path());
    let mut folders: Vec<_> = paths.filter(|p| p.is_dir()).collect();
    folders.sort();
    folders
}

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx_node")
}

#[test]
fn every_test_of_a_built_operator_passes() {
    let gpu = support::open(ProfileKind::CpuLike, false);
    let (mut passed, mut failed, mut left_out) = (0, Vec::new(), Vec::new());
    for folder in folders(&committed()) {
        let test = folder.file_name().unwrap().to_string_lossy().into_owned();
        if let Some(reason) = reason_not_built(&test) {
            left_out.push(format!("{test}: {reason}"));
            continue;
        }
        let case = Case::read(&folder).unwrap_or_else(|e| panic!("{test}: {e}"));
        let on_cpu = case.check(&mut CpuBackend::new());
        let on_gpu = case.check(&mut GpuBackend::new(gpu.clone()).unwrap());
        for (device, result) in [("CPU", on_cpu), ("GPU", on_gpu)] {
            if let Err(problem) = result {
                failed.push(format!("{} on {device}: {problem:.600}", case.name));
            }
        }
        passed += 1;
    }
    println!(
        "{passed} ONNX node tests pass; {} are not built:",
        left_out.len()
    );
    left_out.iter().for_each(|line| println!("  {line}"));
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(passed > 0, "no test was found");
}

/// A survey, not a test: how many tests of the operators that are read pass.
#[test]
#[ignore = "needs GPUCNN_ONNX_NODE, a folder of ONNX's node tests"]
fn survey_of_another_folder() {
    let Some(root) = std::env::var_os("GPUCNN_ONNX_NODE") else {
        return;
    };
    let read = operators();
    let (mut passed, mut failed, mut not_read) = (0, Vec::new(), Vec::new());
    for folder in folders(Path::new(&root)) {
        let test = folder.file_name().unwrap().to_string_lossy().into_owned();
        let case = match Case::read(&folder) {
            Ok(case) => case,
            Err(problem) => {
                not_read.push(format!("{test}: {problem}"));
                continue;
            }
        };
        let claimed = |n: &gpucnn::formats::onnx::Node| {
            n.domain == "ai.onnx.preview.training"
                || (n.domain.is_empty() && read.contains(&n.operator.as_str()))
        };
        if !case.file.nodes.iter().all(claimed) {
            continue;
        }
        match case.check(&mut CpuBackend::new()) {
            Ok(()) => passed += 1,
            Err(problem) => failed.push(format!("{test}: {problem:.300}")),
        }
    }
    println!(
        "{passed} of {} tests of operators that are read pass",
        passed + failed.len()
    );
    failed.iter().for_each(|line| println!("  {line}"));
    println!("{} tests cannot be read:", not_read.len());
    not_read.iter().for_each(|line| println!("  {line}"));
}

#[test]
fn the_table_lists_nothing_that_is_not_there() {
    for (test, _) in NOT_BUILT {
        assert!(committed().join(test).is_dir(), "{test} is not there");
    }
}
