//! Passes: plain functions from graph to graph.

use super::{Graph, Node, Origin};
use crate::error::{Error, Result};
use crate::gpu::profile::Profile;
use crate::ops::activation::{Activation, Function};
use crate::ops::{LaunchContext, Op, Settled, Value};
use crate::tensor::DType;
use std::collections::HashSet;
use std::sync::Arc;

impl Graph {
    /// The graph as it is run: fused, and without nodes whose results nobody reads.
    #[must_use]
    pub fn optimized(self) -> Self {
        self.without_dead_nodes().fused().without_dead_nodes()
    }

    /// Turns each elementwise node and the smaller-making one that alone reads it round,
    /// where they commute: the element function then has less to do, forward and backward.
    /// To be done before gradients are added.
    ///
    /// # Errors
    /// None that the nodes did not have before.
    pub fn shrink_first(&mut self) -> Result<()> {
        for second in 0..self.nodes.len() {
            let next = self.nodes[second].clone();
            let Some(first) = self.nodes[..second].iter().position(|n| {
                n.inputs.len() == 1 && n.outputs == next.inputs && next.op.commutes_with(&*n.op)
            }) else {
                continue;
            };
            let between = next.inputs[0];
            if !self.are_a_pair(first, second, between) || !self.can_sink(first, second) {
                continue;
            }
            let mut previous = self.nodes[first].clone();
            let types = next.op.infer(&self.types(&previous.inputs))?;
            // The result keeps its name; what lies between gets a new one.
            let shrunk = self.push(types[0].clone(), Origin::Result);
            let mut earlier = next.clone();
            earlier.inputs = std::mem::replace(&mut previous.inputs, vec![shrunk]);
            previous.outputs = vec![std::mem::replace(&mut earlier.outputs[0], shrunk)];
            self.nodes[first] = earlier;
            self.nodes[second] = previous;
        }
        Ok(())
    }

    /// Puts other nodes in the places of its own: `change` adds to the graph what shall stand
    /// for a node and returns its value, or leaves the node alone.
    ///
    /// # Errors
    /// Whatever `change` fails with, or if what it adds is of another type.
    pub fn rewrite(
        &mut self,
        mut change: impl FnMut(&mut Self, &Node) -> Result<Option<Value>>,
    ) -> Result<()> {
        for node in std::mem::take(&mut self.nodes) {
            self.layer.clone_from(&node.layer);
            let Some(value) = change(self, &node)? else {
                self.nodes.push(node);
                continue;
            };
            let [expected, found] = [node.outputs[0], value].map(|v| self.value(v).ty.clone());
            if expected != found {
                let problem = format!("expected {expected} in its place, found {found}");
                return Err(Error::shape(node.label(), problem));
            }
            // The value keeps its name, so that readers need not know.
            for maker in &mut self.nodes {
                for output in maker.outputs.iter_mut().filter(|v| **v == value) {
                    *output = node.outputs[0];
                }
            }
        }
        Ok(())
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

    /// Has results kept in half precision: those of two axes and more, which is what
    /// layers and gradients hand on, unless an op that reads or computes them asks for f32
    /// ([`Op::full_precision`]) or they are kept in a state. `weights` of two axes and more,
    /// which are states, are copied into such a result for the nodes that read them. To be
    /// done last.
    #[must_use]
    pub fn halved(mut self, weights: &[Value]) -> Self {
        for weight in weights {
            self.copy_for_readers(*weight);
        }
        let full = self.nodes.iter().filter(|n| n.op.full_precision());
        let full = full.flat_map(|n| n.inputs.iter().chain(&n.outputs));
        let full: HashSet<Value> = full.map(|v| self.storage_root(*v)).collect();
        let results = self.nodes.iter().filter(|n| n.op.alias().is_none());
        let results: Vec<Value> = results.flat_map(|n| n.outputs.clone()).collect();
        for value in results {
            let info = &self.values[value.0 as usize];
            let apt = info.ty.dtype == DType::F32 && info.ty.shape.rank() >= 2;
            self.values[value.0 as usize].half =
                apt && info.store.is_none() && !full.contains(&value);
        }
        self
    }

    /// Puts a copy of a state of two axes and more before the nodes that only read it, and
    /// has them read that.
    fn copy_for_readers(&mut self, state: Value) {
        let reads = |node: &Node| {
            let mut updated = node.op.updates().iter().map(|i| node.inputs[*i]);
            let reads = node.inputs.contains(&state) && !updated.any(|v| v == state);
            reads && node.op.alias().is_none() && !node.op.full_precision()
        };
        let ty = self.value(state).ty.clone();
        let Some(first) = self.nodes.iter().position(reads) else {
            return;
        };
        if ty.shape.rank() < 2 {
            return;
        }
        let copy = self.push(ty, Origin::Result);
        for node in self.nodes.iter_mut().filter(|node| reads(node)) {
            for input in node.inputs.iter_mut().filter(|v| **v == state) {
                *input = copy;
            }
        }
        let node = Node {
            op: Arc::new(Activation(Function::Identity)),
            inputs: vec![state],
            outputs: vec![copy],
            layer: self.nodes[first].layer.clone(),
            guard: None,
            fused: Vec::new(),
        };
        self.nodes.insert(first, node);
    }

    /// The graph with these results kept in f32.
    #[must_use]
    pub(super) fn in_full(mut self, values: &HashSet<Value>) -> Self {
        for value in values {
            self.values[value.0 as usize].half = false;
        }
        self
    }

    /// Merges pairs of nodes that an op can do in one (see [`Op::fuse_epilogue`] and
    /// [`Op::fuse_prologue`]) until none is left, and lets ops do with fewer inputs where
    /// they can ([`Op::settle`]).
    #[must_use]
    pub fn fused(mut self) -> Self {
        while let Some(fusion) = self.find_fusion() {
            self.fuse(fusion);
            // At once, as a reader may soon be part of another op.
            for maker in 0..self.nodes.len() {
                self.settle(maker);
            }
        }
        self
    }

    /// Has an op say by its output 1 what that one's readers look up in output 0, where all of
    /// them can do without.
    fn settle(&mut self, maker: usize) {
        let node = &self.nodes[maker];
        let [result, told] = node.outputs[..] else {
            return;
        };
        if self.value(told).store.is_some() {
            return;
        }
        let reads = |n: &Node| n.inputs.contains(&told);
        let readers = (0..self.nodes.len()).filter(|i| reads(&self.nodes[*i]));
        let settled = readers.map(|i| {
            let reader = &self.nodes[i];
            let settled = node.op.settle(&*reader.op)?;
            (reader.inputs[settled.dropped] == result).then_some((i, settled))
        });
        let settled: Option<Vec<(usize, Settled)>> = settled.collect();
        for (reader, settled) in settled.into_iter().flatten() {
            self.nodes[maker].op = Arc::from(settled.op);
            let reader = &mut self.nodes[reader];
            reader.op = Arc::from(settled.reader);
            reader.inputs.remove(settled.dropped);
        }
    }

    /// Has ops look through what others read as well, where that is better on this device
    /// ([`Op::looks_through`]), and drops what then nobody reads.
    #[must_use]
    pub fn looking_through(mut self, profile: &Profile) -> Self {
        for reader in 0..self.nodes.len() {
            self.look_through(reader, profile);
        }
        self.without_dead_nodes()
    }

    /// Fuses into a node what computes its first input, if its op rather looks through that.
    fn look_through(&mut self, reader: usize, profile: &Profile) {
        let node = &self.nodes[reader];
        let Some(operand) = node.inputs.first().copied() else {
            return;
        };
        let made = |n: &Node| n.outputs.first() == Some(&operand);
        let Some(maker) = self.nodes[..reader].iter().position(made) else {
            return;
        };
        let previous = &self.nodes[maker];
        let changed = |n: &Node| updates_any(n, &previous.inputs);
        if previous.guard.is_some() || self.nodes[maker + 1..reader].iter().any(changed) {
            return;
        }
        let Some(op) = node.op.fuse_prologue(&*previous.op) else {
            return;
        };
        let inputs: Vec<Value> = [&previous.inputs, &node.inputs[1..]].concat();
        let context = LaunchContext {
            profile,
            inputs: &self.types(&inputs),
            outputs: &self.types(&node.outputs),
            halves: &self.halves(&inputs),
        };
        if op.looks_through(&context) {
            let node = &mut self.nodes[reader];
            node.inputs = inputs;
            node.op = Arc::from(op);
        }
    }

    fn find_fusion(&self) -> Option<Fusion> {
        for (second, next) in self.nodes.iter().enumerate() {
            let Some(operand) = next.inputs.first() else {
                continue;
            };
            let first = self.nodes[..second]
                .iter()
                .position(|n| n.outputs.first() == Some(operand));
            let Some(first) = first else { continue };
            if !self.are_a_pair(first, second, *operand) {
                continue;
            }
            let place = match (self.can_sink(first, second), self.can_rise(first, second)) {
                (true, _) => second,
                (false, true) => first,
                (false, false) => continue,
            };
            let (p, n) = (&self.nodes[first].op, &next.op);
            let fused = p.fuse_epilogue(&**n).or_else(|| n.fuse_prologue(&**p));
            if let Some(op) = fused {
                return Some(Fusion {
                    first,
                    second,
                    place,
                    op,
                });
            }
        }
        None
    }

    /// Whether `second` alone reads `operand`, which `first` computes, and both always run.
    fn are_a_pair(&self, first: usize, second: usize, operand: Value) -> bool {
        let readers = self
            .nodes
            .iter()
            .flat_map(|n| &n.inputs)
            .filter(|v| **v == operand)
            .count();
        let guarded = [first, second].map(|i| self.nodes[i].guard.is_some());
        guarded == [false; 2] && readers == 1 && self.value(operand).store.is_none()
    }

    /// Whether moving `first` to the place of `second` changes nothing that runs between them.
    fn can_sink(&self, first: usize, second: usize) -> bool {
        let producer = &self.nodes[first];
        self.nodes[first + 1..second].iter().all(|n| {
            let reads = n.inputs.iter().any(|v| producer.outputs.contains(v));
            !reads && !updates_any(n, &producer.inputs)
        })
    }

    /// Whether moving `second` to the place of `first` changes nothing of what it computes.
    fn can_rise(&self, first: usize, second: usize) -> bool {
        let reader = &self.nodes[second];
        let is_made = |n: &Node| reader.inputs.iter().any(|v| n.outputs.contains(v));
        reader.op.updates().is_empty()
            && self.nodes[first + 1..second]
                .iter()
                .all(|n| !is_made(n) && !updates_any(n, &reader.inputs))
    }

    fn fuse(&mut self, fusion: Fusion) {
        let next = self.nodes.remove(fusion.second);
        let previous = self.nodes.remove(fusion.first);
        let parts = |node: &Node| match node.fused.as_slice() {
            [] => vec![node.op.name()],
            fused => fused.to_vec(),
        };
        let join = |a: &[Value], b: &[Value]| a.iter().chain(b).copied().collect();
        let node = Node {
            inputs: join(&previous.inputs, &next.inputs[1..]),
            outputs: join(&next.outputs, &previous.outputs[1..]),
            fused: [parts(&previous), parts(&next)].concat(),
            op: Arc::from(fusion.op),
            layer: previous.layer,
            guard: None,
        };
        // The first of the pair is gone from before the second's place.
        let place = match fusion.place == fusion.first {
            true => fusion.first,
            false => fusion.second - 1,
        };
        self.nodes.insert(place, node);
    }
}

/// Two nodes that one op does, and which of their places it takes.
struct Fusion {
    first: usize,
    second: usize,
    place: usize,
    op: Box<dyn Op>,
}

/// Whether a node changes one of these.
fn updates_any(node: &Node, values: &[Value]) -> bool {
    let updates = node.op.updates();
    updates.iter().any(|i| values.contains(&node.inputs[*i]))
}
