//! The memory plan: results share slots by liveness.
//!
//! Nodes run in order, so a result is alive from the node that computes it to the
//! last that reads it. Going through the nodes, each result takes the free slot
//! that fits best, or grows the largest free one, or opens a new one; after its
//! last reader the slot is free again. A launch's scratch lives for its node only.

use super::{Graph, Origin};
use crate::ops::Value;
use std::collections::HashMap;

/// A piece of memory that results take turns in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its size in bytes: the largest tenant's.
    pub bytes: u64,
}

/// Which slot each result and each scratch buffer lives in.
#[derive(Clone, Debug, Default)]
pub struct MemoryPlan {
    /// The slots.
    pub slots: Vec<Slot>,
    /// The slot of each result that is neither stored in a state nor renamed.
    pub results: HashMap<Value, usize>,
    /// For each node, the slots of its scratch buffers.
    pub scratch: Vec<Vec<usize>>,
    /// The most bytes alive at one node: no plan can do with less.
    pub lower_bound: u64,
}

impl MemoryPlan {
    /// Bytes of all slots together.
    pub fn bytes(&self) -> u64 {
        self.slots.iter().map(|s| s.bytes).sum()
    }

    /// Plans a graph; `scratch` holds the bytes of each node's scratch buffers.
    pub fn new(graph: &Graph, scratch: &[Vec<u64>]) -> Self {
        let last_reader = last_readers(graph);
        let mut plan = Self::default();
        let mut free: Vec<usize> = Vec::new();
        let mut alive = 0;
        for (index, node) in graph.nodes().iter().enumerate() {
            let mut ending: Vec<(usize, u64)> = Vec::new();
            for value in &node.outputs {
                if node.op.alias().is_some() || graph.value(*value).store.is_some() {
                    continue;
                }
                let bytes = graph.value(*value).ty.bytes();
                let slot = plan.take(&mut free, bytes);
                plan.results.insert(*value, slot);
                alive += bytes;
                if !last_reader.contains_key(value) {
                    ending.push((slot, bytes));
                }
            }
            let mut held = Vec::new();
            for bytes in &scratch[index] {
                let slot = plan.take(&mut free, *bytes);
                alive += bytes;
                ending.push((slot, *bytes));
                held.push(slot);
            }
            plan.scratch.push(held);
            plan.lower_bound = plan.lower_bound.max(alive);
            let finished = last_reader.iter().filter(|(_, last)| **last == index);
            for (value, _) in finished {
                if let Some(slot) = plan.results.get(value) {
                    ending.push((*slot, graph.value(*value).ty.bytes()));
                }
            }
            ending.sort_unstable();
            for (slot, bytes) in ending {
                alive -= bytes;
                free.push(slot);
            }
        }
        plan
    }

    fn take(&mut self, free: &mut Vec<usize>, bytes: u64) -> usize {
        let size = |slot: usize| self.slots[slot].bytes;
        let fitting = (0..free.len())
            .filter(|i| size(free[*i]) >= bytes)
            .min_by_key(|i| (size(free[*i]), free[*i]));
        let largest = (0..free.len()).max_by_key(|i| (size(free[*i]), free[*i]));
        match fitting.or(largest) {
            Some(i) => {
                let slot = free.swap_remove(i);
                self.slots[slot].bytes = self.slots[slot].bytes.max(bytes);
                slot
            }
            None => {
                self.slots.push(Slot { bytes });
                self.slots.len() - 1
            }
        }
    }
}

/// For each storage root that is a result, the last node that reads it, by its
/// own or another name.
fn last_readers(graph: &Graph) -> HashMap<Value, usize> {
    let mut root: HashMap<Value, Value> = HashMap::new();
    let mut last = HashMap::new();
    for (index, node) in graph.nodes().iter().enumerate() {
        for value in &node.inputs {
            let value = *root.get(value).unwrap_or(value);
            if graph.value(value).origin == Origin::Result {
                last.insert(value, index);
            }
        }
        if let Some(input) = node.op.alias() {
            let source = node.inputs[input];
            let source = *root.get(&source).unwrap_or(&source);
            root.insert(node.outputs[0], source);
        }
    }
    last
}
