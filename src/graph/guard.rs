//! Nodes that run only while all is well, and looking for the one with which it began.

use super::{Graph, Node, Origin};
use crate::error::Result;
use crate::ops::non_finite::NonFinite;
use crate::ops::{Builder, Value};
use crate::tensor::{DType, TensorType};

/// Elements between the flags of a probe: as far apart as a device may ask of bindings.
const APART: usize = 64;

impl Graph {
    /// Has every node that changes one of the named states run only where `flag`, a state of
    /// one f32, is 0 by then. Those that come before the flag is raised for the last time are
    /// moved behind that. To be done last: what is guarded is not fused.
    pub fn guard(&mut self, flag: Value, states: &[String]) {
        let raises = |node: &Node| {
            let name = self.state_name(flag);
            let mut updated = node.op.updates().iter().map(|i| node.inputs[*i]);
            node.op.downcast::<NonFinite>().is_some() && updated.any(|v| self.state_name(v) == name)
        };
        let last = self.nodes.iter().rposition(raises);
        let last = last.map_or(0, |i| i + 1);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (i, mut node) in std::mem::take(&mut self.nodes).into_iter().enumerate() {
            let guarded = self.changes(&node, states);
            node.guard = guarded.then_some(flag);
            match guarded || i >= last {
                true => after.push(node),
                false => before.push(node),
            }
        }
        before.append(&mut after);
        self.nodes = before;
    }

    /// Whether a node changes one of the named states.
    fn changes(&self, node: &Node, states: &[String]) -> bool {
        let updated = node.op.updates().iter().map(|i| node.inputs[*i]);
        let stored = node.outputs.iter().filter_map(|v| self.value(*v).store);
        let mut names = updated.chain(stored).filter_map(|v| self.state_name(v));
        names.any(|name| states.iter().any(|s| s == name))
    }

    /// The state a value is, or a view of.
    fn state_name(&self, value: Value) -> Option<&str> {
        match &self.value(value).origin {
            Origin::State(name) => Some(name),
            Origin::View { of, .. } => self.state_name(*of),
            Origin::Result => None,
        }
    }

    /// The graph without the nodes that change one of the named states, and with one behind
    /// each that computes floats: it raises a flag of its own in the state `name` where one of
    /// them is infinite or NaN. Also the state's type, and what each flag stands for.
    ///
    /// # Errors
    /// None for a graph that runs.
    pub fn probed(
        mut self,
        name: &str,
        states: &[String],
    ) -> Result<(Self, TensorType, Vec<Probe>)> {
        let mut nodes = std::mem::take(&mut self.nodes);
        nodes.retain(|node| !self.changes(node, states));
        let floats = |graph: &Self, node: &Node| -> Vec<Value> {
            let outputs = node.outputs.iter().copied();
            let float = |v: &Value| {
                let ty = &graph.value(*v).ty;
                ty.dtype == DType::F32 && !ty.shape.is_empty()
            };
            match node.op.alias() {
                Some(_) => vec![],
                None => outputs.filter(float).collect(),
            }
        };
        let count: usize = nodes.iter().map(|n| floats(&self, n).len()).sum();
        let ty = TensorType::f32([count.max(1) * APART]);
        let flags = self.state(name, ty.clone());
        let mut probes = Vec::new();
        for node in nodes {
            let outputs = floats(&self, &node);
            let (layer, op) = (node.layer.clone(), node.op.name());
            self.nodes.push(node);
            for output in outputs {
                let flag = self.view(flags, probes.len() * APART, [1])?;
                self.add(Box::new(NonFinite::default()), &[flag, output])?;
                probes.push(Probe {
                    layer: layer.clone(),
                    op,
                    flag: probes.len() * APART,
                });
            }
        }
        Ok((self, ty, probes))
    }
}

/// What a flag of a [probed](Graph::probed) graph stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The layer of the node.
    pub layer: String,
    /// The node's op.
    pub op: &'static str,
    /// The flag's element in the state.
    pub flag: usize,
}
