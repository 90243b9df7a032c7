//! Values of the device that are needed while the graph is written.
//!
//! What is written so far is run, and a new graph goes on from its results: what is read back
//! becomes a tensor of the host, the rest states of the backend. So each op runs once.

use super::{Item, Lowering, host};
use crate::error::Result;
use crate::formats::onnx::read::Node;
use crate::formats::onnx::tensor::{Element, Tensor};
use crate::graph::{Backend, Graph, Origin};
use crate::ops::{Array, Builder, Step, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Inputs that have to be known: shapes, axes, indices, bounds, labels, rates.
const PARAMETERS: &[(&str, &[usize])] = &[
    ("Adagrad", &[0, 1]),
    ("Adam", &[0, 1]),
    ("Clip", &[1, 2]),
    ("Dropout", &[1, 2]),
    ("Expand", &[1]),
    ("Gather", &[1]),
    ("Momentum", &[0, 1]),
    ("NegativeLogLikelihoodLoss", &[1, 2]),
    ("Pad", &[1, 2, 3]),
    ("QuantizeLinear", &[2]),
    ("ReduceL1", &[1]),
    ("ReduceL2", &[1]),
    ("ReduceLogSum", &[1]),
    ("ReduceLogSumExp", &[1]),
    ("ReduceMax", &[1]),
    ("ReduceMean", &[1]),
    ("ReduceMin", &[1]),
    ("ReduceProd", &[1]),
    ("ReduceSum", &[1]),
    ("ReduceSumSquare", &[1]),
    ("Reshape", &[1]),
    ("Resize", &[1, 2, 3]),
    ("Slice", &[1, 2, 3, 4]),
    ("SoftmaxCrossEntropyLoss", &[1]),
    ("Split", &[1]),
    ("Squeeze", &[1]),
    ("Tile", &[1]),
    ("Unsqueeze", &[1]),
    ("Upsample", &[1]),
];

/// The inputs of a node that are on the device and have to be on the host.
pub(super) fn wanted<'n>(node: &'n Node, items: &HashMap<&str, Item>) -> Vec<&'n str> {
    let parameters = PARAMETERS.iter().find(|(name, _)| *name == node.operator);
    let parameters = parameters.map_or(&[][..], |(_, places)| *places);
    let all = host::takes_all(node, |i| items.get(node.inputs.get(i)?.as_str()));
    let of_shape = host::of_shape(&node.operator);
    let needed = |(place, name): (usize, &'n String)| {
        let needed = match items.get(name.as_str())? {
            Item::Host { .. } => false,
            Item::Device(..) => all || parameters.contains(&place),
            // Offsets in planes, not yet counted as ONNX does.
            Item::Indices { .. } => !of_shape,
        };
        needed.then_some(name.as_str())
    };
    node.inputs.iter().enumerate().filter_map(needed).collect()
}

/// Runs what is written and puts the items called `wanted` on the host.
pub(super) fn fetch<'f>(
    lowering: &mut Lowering,
    items: &mut HashMap<&'f str, Item>,
    wanted: &[&'f str],
    backend: &mut dyn Backend,
) -> Result<()> {
    let values: BTreeSet<Value> = items.values().filter_map(Item::device).collect();
    let mut kept = BTreeMap::new();
    for value in values {
        let ty = lowering.graph.ty(value).clone();
        kept.insert(value, (keep(lowering, value, backend)?, ty));
    }
    let step = lowering.step();
    let graph = std::mem::take(&mut lowering.graph);
    let constants = std::mem::take(&mut lowering.constants);
    run_once(graph, constants, step, backend)?;
    // Constants that are used again are written again.
    lowering.states.clear();
    for name in wanted {
        let Some(item) = items.get_mut(name) else {
            continue;
        };
        if let Some((state, _)) = item.device().and_then(|value| kept.get(&value)) {
            let tensor = item.clone().computed().tensor(|| backend.read(state))?;
            *item = Item::on_host(name, tensor);
        }
    }
    let states: BTreeMap<Value, Value> = kept
        .into_iter()
        .map(|(value, (name, ty))| (value, lowering.graph.state(name, ty)))
        .collect();
    for item in items.values_mut() {
        if let Item::Device(value, _) | Item::Indices { value, .. } = item {
            *value = states[value];
        }
    }
    Ok(())
}

/// Has the graph store a value in a state, and names the state.
fn keep(lowering: &mut Lowering, value: Value, backend: &mut dyn Backend) -> Result<String> {
    let info = lowering.graph.value(value);
    if let Origin::State(name) = &info.origin {
        return Ok(name.clone());
    }
    let ty = info.ty.clone();
    let name = lowering.free_name("kept");
    backend.create(&name, &ty)?;
    let state = lowering.graph.state(&name, ty);
    lowering.graph.store(value, state)?;
    Ok(name)
}

/// Writes the constants and runs the graph once.
pub fn run_once(
    graph: Graph,
    constants: BTreeMap<String, Array>,
    step: Step,
    backend: &mut dyn Backend,
) -> Result<()> {
    for (name, array) in constants {
        backend.create(&name, array.ty())?;
        backend.write(&name, &array)?;
    }
    let program = backend.compile(graph.optimized())?;
    backend.run(program, &[step])
}

/// What the device holds in floats as elements of a type.
pub(super) fn as_tensor(array: &Array, element: Element) -> Tensor {
    let dims = array.dims().to_vec();
    match element {
        Element::F32 => Tensor::floats(dims, array.f().iter().map(|x| *x as f32).collect()),
        _ => Tensor::integers(dims, element, array.f().iter().map(|x| *x as i64).collect()),
    }
}

/// Offsets in the planes of a max pool's input, counted through the whole of it as ONNX does.
pub(super) fn counted(array: &Array, input: &[usize], columns_first: bool) -> Tensor {
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
