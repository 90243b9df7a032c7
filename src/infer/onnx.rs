//! Running ONNX files.

use crate::error::{Error, Result};
use crate::formats::onnx::{Computed, Declared, File, Given, Lowered, Tensor, lower, run_once};
use crate::graph::Backend;
use crate::ops::Builder;
use std::collections::HashMap;

/// Runs a file's graph once on the given inputs, by name, and returns its outputs in the
/// file's order.
///
/// Floats are computed on the backend, in 32 bits; integers on the host, exactly. Where
/// integers, the shape of something or elements picked one by one follow from floats, the
/// graph is run up to there.
///
/// # Errors
/// If an input is missing, superfluous or of another type than the file declares, a node
/// cannot be run (see [`lower`]), or the device is too small or fails.
pub fn run_onnx(
    file: &File,
    inputs: HashMap<String, Tensor>,
    backend: &mut dyn Backend,
) -> Result<Vec<(String, Tensor)>> {
    check_inputs(file, &inputs)?;
    let given = inputs.into_iter().map(|(name, t)| (name, Given::Tensor(t)));
    let lowered = lower(file, &given.collect(), Some(&mut *backend))?;
    let computed = run(lowered, backend)?;
    Ok(file
        .outputs
        .iter()
        .map(|o| o.name.clone())
        .zip(computed)
        .collect())
}

/// The file's inputs with their extents, for messages.
fn describe(input: &Declared) -> String {
    let extent = |d: &Option<usize>| d.map_or("?".into(), |d| d.to_string());
    let dims = input.dims.as_ref().map(|dims| {
        let dims: Vec<String> = dims.iter().map(extent).collect();
        format!("[{}]", dims.join(", "))
    });
    format!(
        "{} {:?}{}",
        input.name,
        input.element,
        dims.unwrap_or_default()
    )
}

fn check_inputs(file: &File, inputs: &HashMap<String, Tensor>) -> Result<()> {
    let mut problems = Vec::new();
    for input in &file.inputs {
        let Some(tensor) = inputs.get(&input.name) else {
            problems.push(format!("{} is missing", describe(input)));
            continue;
        };
        let extents = |dims: &Vec<Option<usize>>| {
            let pairs = dims.iter().zip(&tensor.dims);
            dims.len() == tensor.dims.len() && pairs.clone().all(|(d, t)| d.is_none_or(|d| d == *t))
        };
        if tensor.element != input.element || !input.dims.as_ref().is_none_or(extents) {
            problems.push(format!(
                "expected {}, found {:?}{:?}",
                describe(input),
                tensor.element,
                tensor.dims
            ));
        }
    }
    let known = |name: &String| file.inputs.iter().any(|i| i.name == *name);
    let mut unknown: Vec<&String> = inputs.keys().filter(|name| !known(name)).collect();
    unknown.sort();
    problems.extend(
        unknown
            .iter()
            .map(|name| format!("the model has no input {name:?}")),
    );
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "the inputs do not fit the model:\n  {}",
        problems.join("\n  ")
    )))
}

fn run(lowered: Lowered, backend: &mut dyn Backend) -> Result<Vec<Tensor>> {
    let Lowered {
        mut graph,
        constants,
        outputs,
        step,
    } = lowered;
    let state = |i: usize| format!("output {i}");
    for (i, (_, output)) in outputs.iter().enumerate() {
        let (Computed::Device(value, _) | Computed::Indices { value, .. }) = output else {
            continue;
        };
        let ty = graph.ty(*value).clone();
        backend.create(&state(i), &ty)?;
        let target = graph.state(state(i), ty);
        graph.store(*value, target)?;
    }
    run_once(graph, constants, step, backend)?;
    let outputs = outputs.iter().enumerate();
    outputs
        .map(|(i, (_, output))| output.tensor(|| backend.read(&state(i))))
        .collect()
}
