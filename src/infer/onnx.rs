//! Running ONNX files.

use crate::error::{Error, Result};
use crate::formats::onnx::{Computed, Declared, Element, File, Given, Lowered, Tensor, lower};
use crate::graph::Backend;
use crate::ops::Array;
use crate::ops::Builder;
use std::collections::HashMap;

/// Runs a file's graph once on the given inputs, by name, and returns its outputs in the
/// file's order.
///
/// Floats are computed on the backend, in 32 bits; integers on the host, exactly.
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
    let lowered = lower(file, &given.collect())?;
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
    for (name, array) in constants {
        backend.create(&name, array.ty())?;
        backend.write(&name, &array)?;
    }
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
    let program = backend.compile(graph.optimized())?;
    backend.run(program, &[step])?;
    let read = |(i, (_, output)): (usize, (String, Computed))| match output {
        Computed::Host(tensor) => Ok((*tensor).clone()),
        Computed::Device(_, element) => Ok(as_tensor(&backend.read(&state(i))?, element)),
        Computed::Indices {
            input,
            columns_first,
            ..
        } => Ok(counted(&backend.read(&state(i))?, &input, columns_first)),
    };
    outputs.into_iter().enumerate().map(read).collect()
}

/// What the device computed in floats as elements of a type.
fn as_tensor(array: &Array, element: Element) -> Tensor {
    let dims = array.dims().to_vec();
    match element {
        Element::F32 => Tensor::floats(dims, array.f().iter().map(|x| *x as f32).collect()),
        _ => Tensor::integers(dims, element, array.f().iter().map(|x| *x as i64).collect()),
    }
}

/// Offsets in the planes of a max pool's input, counted through the whole of it as ONNX does.
fn counted(array: &Array, input: &[usize], columns_first: bool) -> Tensor {
    let area: usize = input[2..].iter().product();
    let columns = input.last().copied().unwrap_or(1);
    let rows = area / columns;
    let plane = array.dims()[2..].iter().product::<usize>();
    let places = array.u().iter().enumerate().map(|(i, at)| {
        let at = *at as usize;
        let within = match columns_first {
            true => at % columns * rows + at / columns,
            false => at,
        };
        (i / plane * area + within) as i64
    });
    let mut dims = array.dims().to_vec();
    // A line was pooled as an image of one row.
    if input.len() == 3 {
        dims.remove(2);
    }
    Tensor::integers(dims, Element::I64, places.collect())
}
