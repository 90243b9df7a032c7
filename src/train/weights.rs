//! Weights on the device: one arena of parameters, one of running statistics.

use crate::error::{Error, Result};
use crate::formats::safetensors::Tensors;
use crate::graph::{Arena, Backend, Graph};
use crate::model::Model;
use crate::ops::Value;
use std::collections::HashMap;

/// Parameters and running statistics by name.
pub type Weights = Tensors;

pub(crate) const PARAMETERS: &str = "parameters";
pub(crate) const STATISTICS: &str = "statistics";

/// The layouts of parameters and statistics.
pub(crate) fn arenas(model: &Model) -> [Arena; 2] {
    [true, false].map(|trainable| {
        let specs = model.parameters().iter();
        let chosen = specs.filter(|p| p.trainable == trainable);
        Arena::new(chosen.map(|p| (p.name.clone(), p.shape.clone())))
    })
}

/// Creates and fills the states of parameters and statistics.
pub(crate) fn upload_weights(
    backend: &mut dyn Backend,
    parameters: &Arena,
    statistics: &Arena,
    weights: &Weights,
) -> Result<()> {
    upload_as(
        backend,
        [(PARAMETERS, parameters), (STATISTICS, statistics)],
        weights,
    )
}

/// Creates and fills the states of these names.
pub(super) fn upload_as(
    backend: &mut dyn Backend,
    states: [(&str, &Arena); 2],
    weights: &Weights,
) -> Result<()> {
    for (state, arena) in states {
        if arena.is_empty() {
            continue;
        }
        let content = arena.pack(|part| {
            weights
                .get(&part.name)
                .ok_or_else(|| Error::shape(&part.name, "the weight is missing"))
        })?;
        backend.create(state, &arena.ty())?;
        backend.write(state, &content)?;
    }
    Ok(())
}

/// The values of all parameters and statistics by name, and the trainable ones in the
/// order of their arena.
pub(crate) fn weight_values(
    graph: &mut Graph,
    parameters: &Arena,
    statistics: &Arena,
) -> Result<(HashMap<String, Value>, Vec<Value>)> {
    values_in(graph, [(PARAMETERS, parameters), (STATISTICS, statistics)])
}

/// The values in the states of these names, and those of the first in the order of its
/// arena.
pub(super) fn values_in(
    graph: &mut Graph,
    states: [(&str, &Arena); 2],
) -> Result<(HashMap<String, Value>, Vec<Value>)> {
    let mut values = HashMap::new();
    let mut trainable = Vec::new();
    for (i, (state, arena)) in states.into_iter().enumerate() {
        if arena.is_empty() {
            continue;
        }
        let whole = graph.state(state, arena.ty());
        for (part, value) in arena.parts().iter().zip(arena.views(graph, whole)?) {
            values.insert(part.name.clone(), value);
            if i == 0 {
                trainable.push(value);
            }
        }
    }
    Ok((values, trainable))
}
