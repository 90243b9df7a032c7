//! Activation recomputation: results of the forward pass that backward needs are computed
//! again when it gets there, not kept (Chen et al. 2016, "Training Deep Nets with Sublinear
//! Memory Cost").
//!
//! ```text
//! forward  | segment 0 | segment 1 | segment 2 |          backward
//! keeps          results that cross a line                2, again 1, 1, again 0, 0
//! ```

use super::{Graph, MemoryPlan, Node, Origin};
use crate::ops::{Builder, Value};
use std::collections::{HashMap, HashSet};

/// Numbers of segments that are tried: about the roots of the usual numbers of layers.
const SEGMENTS: [usize; 8] = [2, 3, 4, 6, 8, 12, 16, 24];

impl Graph {
    /// The graph as [`optimized`](Self::optimized) has it, with the first `forward` nodes, the
    /// forward pass, cut into segments whose results the other nodes compute again: into as
    /// many as need the least memory. Ops give the same bits for the same inputs and step, so
    /// what it computes is the same bits too.
    #[must_use]
    pub fn recomputed(&self, forward: usize) -> Self {
        let bytes = |graph: &Self| MemoryPlan::new(graph, &vec![vec![]; graph.nodes.len()]).bytes();
        let plain = self.clone().optimized();
        let cut = SEGMENTS.map(|n| self.in_segments(forward, n).optimized());
        let all = std::iter::once(plain).chain(cut);
        all.min_by_key(bytes).expect("there is one")
    }

    fn in_segments(&self, forward: usize, segments: usize) -> Self {
        let segment = self.segments(forward, segments);
        let dropped = self.dropped(forward, &segment);
        let wanted = self.wanted_again(forward, &dropped);
        let mut result = self.clone();
        let backward = result.nodes.split_off(forward);
        let mut again: HashMap<Value, Value> = HashMap::new();
        for mut node in backward {
            let mut needed: Vec<usize> = node
                .inputs
                .iter()
                .filter_map(|v| dropped.get(v).map(|n| segment[*n]))
                .collect();
            needed.sort_unstable();
            for s in needed {
                result.compute_again(&self.nodes[..forward], &segment, s, &wanted, &mut again);
            }
            redirect(&mut node, &again);
            result.nodes.push(node);
        }
        result
    }

    /// Adds copies of the nodes of a segment whose results are wanted, unless they are there.
    fn compute_again(
        &mut self,
        forward: &[Node],
        segment: &[usize],
        chosen: usize,
        wanted: &HashSet<Value>,
        again: &mut HashMap<Value, Value>,
    ) {
        for (node, _) in forward.iter().zip(segment).filter(|(_, s)| **s == chosen) {
            let missing = |v: &Value| wanted.contains(v) && !again.contains_key(v);
            if !node.outputs.iter().any(missing) {
                continue;
            }
            let mut copy = node.clone();
            redirect(&mut copy, again);
            for output in &mut copy.outputs {
                let fresh = self.push(self.ty(*output).clone(), Origin::Result);
                again.insert(std::mem::replace(output, fresh), fresh);
            }
            self.nodes.push(copy);
        }
    }

    /// The segment of each forward node: about equal shares of the bytes of all results, cut
    /// where the fewest bytes cross.
    fn segments(&self, forward: usize, segments: usize) -> Vec<usize> {
        let bytes = |node: &Node| -> u64 {
            let results = node.outputs.iter().filter(|v| self.is_free(node, **v));
            results.map(|v| self.ty(*v).bytes()).sum()
        };
        let mut so_far = 0;
        let sums: Vec<u64> = self.nodes[..forward]
            .iter()
            .map(|node| {
                so_far += bytes(node);
                so_far
            })
            .collect();
        let crossing = self.crossing(forward);
        let mut cuts = HashSet::new();
        for k in 1..segments as u64 {
            // Half a share to either side of the place of the equal share.
            let share = |halves: u64| so_far * halves / (2 * segments as u64);
            let near = (0..forward.saturating_sub(1))
                .filter(|i| (share(2 * k - 1)..=share(2 * k + 1)).contains(&sums[*i]));
            cuts.extend(near.min_by_key(|i| crossing[*i]));
        }
        let mut current = 0;
        let place = |i: usize| {
            let own = current;
            current += usize::from(cuts.contains(&i));
            own
        };
        (0..forward).map(place).collect()
    }

    /// For each forward node the bytes of results up to it that forward nodes behind it read.
    fn crossing(&self, forward: usize) -> Vec<u64> {
        let mut last: HashMap<Value, usize> = HashMap::new();
        for (i, node) in self.nodes[..forward].iter().enumerate() {
            last.extend(node.inputs.iter().map(|v| (*v, i)));
        }
        let mut crossing = vec![0; forward];
        for (i, node) in self.nodes[..forward].iter().enumerate() {
            for output in &node.outputs {
                let end = last.get(output).copied().unwrap_or(i);
                let bytes = self.ty(*output).bytes();
                crossing[i..end].iter_mut().for_each(|sum| *sum += bytes);
            }
        }
        crossing
    }

    /// Whether a node may be run again for this result, which nothing keeps.
    fn is_free(&self, node: &Node, value: Value) -> bool {
        node.op.updates().is_empty() && self.value(value).store.is_none()
    }

    /// The results that are not kept, with their nodes: those that no other segment's forward
    /// pass reads, but for the last segment's, whose backward pass comes at once.
    fn dropped(&self, forward: usize, segment: &[usize]) -> HashMap<Value, usize> {
        let last = segment.last().copied().unwrap_or(0);
        let mut dropped = HashMap::new();
        for (i, node) in self.nodes[..forward].iter().enumerate() {
            let free = node.outputs.iter().filter(|v| self.is_free(node, **v));
            dropped.extend(free.filter(|_| segment[i] < last).map(|v| (*v, i)));
        }
        for (i, node) in self.nodes[..forward].iter().enumerate() {
            for input in &node.inputs {
                if dropped
                    .get(input)
                    .is_some_and(|n| segment[*n] != segment[i])
                {
                    dropped.remove(input);
                }
            }
        }
        dropped
    }

    /// The dropped results that backward nodes read, and those these are computed from.
    fn wanted_again(&self, forward: usize, dropped: &HashMap<Value, usize>) -> HashSet<Value> {
        let read = self.nodes[forward..].iter().flat_map(|n| &n.inputs);
        let mut open: Vec<Value> = read.filter(|v| dropped.contains_key(*v)).copied().collect();
        let mut wanted = HashSet::new();
        while let Some(value) = open.pop() {
            if wanted.insert(value) {
                let inputs = &self.nodes[dropped[&value]].inputs;
                open.extend(inputs.iter().filter(|v| dropped.contains_key(*v)));
            }
        }
        wanted
    }
}

/// Has a node read what was computed again.
fn redirect(node: &mut Node, again: &HashMap<Value, Value>) {
    for input in &mut node.inputs {
        if let Some(fresh) = again.get(&*input) {
            *input = *fresh;
        }
    }
}
