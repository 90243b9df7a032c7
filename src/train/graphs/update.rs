//! The update of the parameters by their gradients, and what it keeps.

use super::{AVERAGES, COUNTS, GROUPS, Graphs, MASK};
use crate::error::Result;
use crate::graph::{Arena, Graph, Part, chunks};
use crate::model::{Layer, Model, ParameterSpec};
use crate::ops::binary::{Binary, BinaryOp};
use crate::ops::muon::Muon;
use crate::ops::optimizer::{BLOCK, Clip, Running, SquaredNorm, Update};
use crate::ops::{Array, Builder, Value};
use crate::tensor::TensorType;
use crate::train::weights::{PARAMETERS, STATISTICS};

impl Graphs<'_> {
    /// Takes the state `new` of the parameters' layout into the state `running`.
    pub(super) fn run_along(
        &self,
        graph: &mut Graph,
        running: &str,
        new: &str,
        op: Running,
    ) -> Result<()> {
        let arena = match new {
            STATISTICS => &self.statistics,
            _ => &self.parameters,
        };
        if arena.is_empty() {
            return Ok(());
        }
        let states = [running, new].map(|name| graph.state(name, arena.ty()));
        let [running, new] = states.map(|s| chunks(graph, s, 0, self.max_binding));
        for (running, new) in running?.into_iter().zip(new?) {
            graph.add(Box::new(op), &[running, new])?;
        }
        Ok(())
    }

    /// Adds the update of the parameters by `scale` times the gradients, and of the
    /// averages.
    pub(super) fn add_update(&self, graph: &mut Graph, gradients: Value, scale: f64) -> Result<()> {
        self.add_optimizer(graph, gradients, scale)?;
        if self.method.prunes {
            self.run_along(graph, PARAMETERS, MASK, Running::Mask)?;
        }
        if let Some(decay) = self.method.ema {
            for (average, new) in AVERAGES.into_iter().zip([PARAMETERS, STATISTICS]) {
                self.run_along(graph, average, new, Running::Average { decay })?;
            }
            if self.method.prunes {
                self.run_along(graph, AVERAGES[0], MASK, Running::Mask)?;
            }
        }
        Ok(())
    }

    fn add_optimizer(&self, graph: &mut Graph, gradients: Value, scale: f64) -> Result<()> {
        let parameters = graph.state(PARAMETERS, self.parameters.ty());
        let mut states = vec![(parameters, 0), (gradients, 0)];
        for state in self.optimizer_states() {
            states.push((graph.state(state.name, state.ty), state.first));
        }
        self.add_muon(graph, &states, scale)?;
        if self.matrices == self.parameters.len() {
            return Ok(());
        }
        let chunks = states
            .into_iter()
            .map(|(s, first)| chunks(graph, s, self.matrices - first, self.max_binding))
            .collect::<Result<Vec<_>>>()?;
        let norm = self.squared_norm(graph, &chunks[1])?;
        let groups = self.groups();
        let groups = groups.map(|g| graph.state(GROUPS, g.ty().clone()));
        for (i, first) in first_blocks(graph, &chunks[0]).into_iter().enumerate() {
            let mut inputs: Vec<Value> = chunks.iter().map(|c| c[i]).collect();
            inputs.extend(groups);
            inputs.extend(norm);
            let update = Update {
                groups_from: groups.map(|_| first + self.matrices / BLOCK),
                clip: self.method.clip,
                scale,
                ..Update::new(self.method.optimizer)
            };
            graph.add(Box::new(update), &inputs)?;
        }
        Ok(())
    }

    /// Moves the matrices, each by a node of its own.
    fn add_muon(&self, graph: &mut Graph, states: &[(Value, usize)], scale: f64) -> Result<()> {
        let Some(rule) = self.method.optimizer.matrices else {
            return Ok(());
        };
        for part in self.parameters.parts() {
            if part.offset >= self.matrices {
                break;
            }
            let rows = part.shape[0];
            let matrix = [rows, part.shape.len() / rows];
            // Parameters, gradients and the first state, which is the momentum.
            let inputs = states[..3].iter();
            let inputs = inputs.map(|(s, first)| graph.view(*s, part.offset - first, matrix));
            let inputs = inputs.collect::<Result<Vec<_>>>()?;
            let op = Muon {
                rule,
                weight_decay: self.method.optimizer.weight_decay,
                rate: self.method.rate_factor(&part.name),
                scale,
            };
            graph.add(Box::new(op), &inputs)?;
        }
        Ok(())
    }

    /// What the optimizer keeps.
    pub(super) fn optimizer_states(&self) -> Vec<OptimizerState> {
        let states = self.method.optimizer.rule.states().iter();
        let of = |(i, (name, initial)): (usize, &(&str, f64))| {
            // Muon has a momentum, AdamW's first state, and no more.
            let first = if i == 0 { 0 } else { self.matrices };
            OptimizerState {
                name: format!("optimizer.{name}"),
                initial: *initial,
                ty: TensorType::f32([self.parameters.len() - first]),
                first,
            }
        };
        let states = states.enumerate().map(of);
        states.filter(|s| !s.ty.shape.is_empty()).collect()
    }

    /// The squared norm of the gradients in these chunks, where they are clipped by it.
    fn squared_norm(&self, graph: &mut Graph, chunks: &[Value]) -> Result<Option<Value>> {
        let Some(Clip::Norm(_)) = self.method.clip else {
            return Ok(None);
        };
        let counts = graph.state(COUNTS, self.counts().ty().clone());
        let mut total = None;
        for (chunk, first_block) in chunks.iter().zip(first_blocks(graph, chunks)) {
            let part = graph.add1(Box::new(SquaredNorm { first_block }), &[*chunk, counts])?;
            total = Some(match total {
                None => part,
                Some(sum) => graph.add1(Box::new(Binary(BinaryOp::Add)), &[sum, part])?,
            });
        }
        Ok(total)
    }

    /// The weight decay of each block and the factor of its learning rate, unless they are
    /// the same for all.
    pub(super) fn groups(&self) -> Option<Array> {
        let decay = self.method.optimizer.weight_decay;
        let of = |part: &Part| {
            let spared = part.shape.dims().len() <= 1 && !self.method.decay_all;
            let decay = if spared { 0.0 } else { decay };
            [decay, self.method.rate_factor(&part.name)]
        };
        if self
            .parameters
            .parts()
            .iter()
            .all(|p| of(p) == [decay, 1.0])
        {
            return None;
        }
        let groups: Vec<f64> = self.parameters.blocks().flat_map(|(p, _)| of(p)).collect();
        Some(Array::float(TensorType::f32([groups.len() / 2, 2]), groups))
    }

    pub(super) fn counts(&self) -> Array {
        let counts: Vec<u32> = self.parameters.blocks().map(|(_, n)| n as u32).collect();
        Array::index(TensorType::u32([counts.len()]), counts)
    }
}

/// The block of the arena that each of its chunks begins with.
pub(super) fn first_blocks(graph: &Graph, chunks: &[Value]) -> Vec<usize> {
    let mut next = 0;
    let begin = |chunk: &Value| {
        let first = next;
        next += graph.ty(*chunk).shape.len() / BLOCK;
        first
    };
    chunks.iter().map(begin).collect()
}

/// A state of the optimizer.
pub(super) struct OptimizerState {
    pub name: String,
    pub initial: f64,
    pub ty: TensorType,
    /// The element of the parameters that its first belongs to.
    first: usize,
}

/// The arena with the matrices that Muon moves in front, and their elements: all parameters of
/// two axes or more but those of the last layer, as its author recommends, and of depthwise
/// and grouped convolutions, which are no matrices but many.
pub(super) fn matrices_first(model: &Model, arena: &Arena) -> (Arena, usize) {
    let head = model.parameters().last().map_or("", ParameterSpec::layer);
    let split = |layer: &str| {
        let named = model.layers().iter().find(|l| l.name == layer);
        named.is_some_and(|l| match &l.layer {
            Layer::DepthwiseConv2d(_) => true,
            Layer::Conv2d(convolution) => convolution.groups > 1,
            _ => false,
        })
    };
    let is_matrix = |part: &Part| {
        let layer = part.name.rsplit_once('.').map_or("", |(layer, _)| layer);
        part.shape.rank() >= 2 && layer != head && !split(layer)
    };
    let (matrices, rest): (Vec<_>, Vec<_>) = arena.parts().iter().partition(|p| is_matrix(p));
    let named = |parts: &[&Part]| -> Vec<_> {
        let parts = parts.iter();
        parts.map(|p| (p.name.clone(), p.shape.clone())).collect()
    };
    let elements = Arena::new(named(&matrices)).len();
    (
        Arena::new([named(&matrices), named(&rest)].concat()),
        elements,
    )
}
