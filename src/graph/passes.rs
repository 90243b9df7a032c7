//! Passes: plain functions from graph to graph.

use super::{Graph, Node};
use crate::ops::{Op, Value};
use std::collections::HashSet;
use std::sync::Arc;

impl Graph {
    /// The graph as it is run: fused, and without nodes whose results nobody reads.
    #[must_use]
    pub fn optimized(self) -> Self {
        self.without_dead_nodes().fused().without_dead_nodes()
    }

    /// Drops nodes that neither update or store anything nor feed one that does.
    #[must_use]
    pub fn without_dead_nodes(mut self) -> Self {
        let mut live: HashSet<Value> = HashSet::new();
        let mut kept = Vec::with_capacity(self.nodes.len());
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            let needed = !node.op.updates().is_empty()
                || node
                    .outputs
                    .iter()
                    .any(|v| live.contains(v) || self.value(*v).store.is_some());
            if needed {
                live.extend(&node.inputs);
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
        self
    }

    /// Merges pairs of nodes that an op can do in one (see [`Op::fuse_epilogue`] and
    /// [`Op::fuse_prologue`]) until none is left.
    #[must_use]
    pub fn fused(mut self) -> Self {
        while let Some((first, second, op)) = self.find_fusion() {
            self.fuse(first, second, op);
        }
        self
    }

    fn find_fusion(&self) -> Option<(usize, usize, Box<dyn Op>)> {
        for (second, next) in self.nodes.iter().enumerate() {
            let Some(operand) = next.inputs.first() else {
                continue;
            };
            let first = self.nodes[..second]
                .iter()
                .position(|n| n.outputs.first() == Some(operand));
            let Some(first) = first else { continue };
            if !self.may_fuse(first, second, *operand) {
                continue;
            }
            let (p, n) = (&self.nodes[first].op, &next.op);
            let fused = p.fuse_epilogue(&**n).or_else(|| n.fuse_prologue(&**p));
            if let Some(op) = fused {
                return Some((first, second, op));
            }
        }
        None
    }

    /// Whether `operand` has no other reader and moving node `first` to the place of
    /// `second` changes nothing that runs between them.
    fn may_fuse(&self, first: usize, second: usize, operand: Value) -> bool {
        let producer = &self.nodes[first];
        let readers = self
            .nodes
            .iter()
            .flat_map(|n| &n.inputs)
            .filter(|v| **v == operand)
            .count();
        let between = &self.nodes[first + 1..second];
        let undisturbed = between.iter().all(|n| {
            let reads = n.inputs.iter().any(|v| producer.outputs.contains(v));
            let updates =
                n.op.updates()
                    .iter()
                    .any(|i| producer.inputs.contains(&n.inputs[*i]));
            !reads && !updates
        });
        readers == 1 && undisturbed && self.value(operand).store.is_none()
    }

    fn fuse(&mut self, first: usize, second: usize, op: Box<dyn Op>) {
        let next = self.nodes[second].clone();
        let previous = self.nodes.remove(first);
        let join = |a: &[Value], b: &[Value]| a.iter().chain(b).copied().collect();
        self.nodes[second - 1] = Node {
            op: Arc::from(op),
            inputs: join(&previous.inputs, &next.inputs[1..]),
            outputs: join(&next.outputs, &previous.outputs[1..]),
            layer: previous.layer,
        };
    }
}
