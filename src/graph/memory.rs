//! The memory plan: results share slots by liveness.
//!
//! Nodes run in order, so a result is alive from the node that computes it to the last that
//! reads it; a launch's scratch lives for its node only. Tenants are placed from the largest
//! to the smallest, each into the smallest slot that is free for its whole life, or into a
//! new one ("greedy by size", Pisarchyk and Lee 2020, "Efficient Memory Management for Deep
//! Neural Net Inference").

use super::{Graph, Origin};
use crate::gpu::kernel::{Arg, Dispatch};
use crate::ops::{Step, Value};
use std::collections::HashMap;
use std::ops::RangeInclusive;

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
    /// What lives in the slots, in the order it comes to life.
    pub tenants: Vec<Tenant>,
    /// The most bytes alive at one node: no plan can do with less.
    pub lower_bound: u64,
    /// Bytes of textures that the device reads in the stead of buffers; see
    /// [`texels`](crate::gpu::texels).
    pub textures: u64,
}

/// Buffers that the programs of a backend take turns in: results do not outlive a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    /// Bytes of each buffer.
    pub sizes: Vec<u64>,
}

impl Shared {
    /// A buffer for each slot of a program, from the largest slot to the smallest: the smallest
    /// that is large enough, or a new one.
    pub fn place(&mut self, slots: &[Slot]) -> Vec<usize> {
        let mut by_size: Vec<usize> = (0..slots.len()).collect();
        by_size.sort_by_key(|slot| std::cmp::Reverse(slots[*slot].bytes));
        let mut free: Vec<usize> = (0..self.sizes.len()).collect();
        free.sort_by_key(|buffer| std::cmp::Reverse(self.sizes[*buffer]));
        let mut places = vec![0; slots.len()];
        for slot in by_size {
            let bytes = slots[slot].bytes;
            let found = free.iter().rposition(|b| self.sizes[*b] >= bytes);
            places[slot] = match found {
                Some(found) => free.remove(found),
                None => {
                    self.sizes.push(bytes);
                    self.sizes.len() - 1
                }
            };
        }
        places
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.sizes.iter().sum()
    }
}

/// The memory that a value lies in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Home {
    /// A state, by name.
    State(String),
    /// A slot of the plan, by index.
    Slot(usize),
    /// The uniform of the current step.
    Step,
}

/// Where a value lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// In which memory.
    pub home: Home,
    /// Its first byte there.
    pub offset: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl Place {
    /// What a dispatch's binding sees of it.
    pub(crate) fn seen_by(self, dispatch: &Dispatch, name: &str) -> Self {
        let (offset, bytes) = dispatch.seen(name, self.offset, self.bytes);
        Self {
            offset,
            bytes,
            ..self
        }
    }
}

impl MemoryPlan {
    /// Where a value of the planned graph lies.
    pub fn place(&self, graph: &Graph, value: Value) -> Place {
        let root = graph.storage_root(value);
        let info = graph.value(root);
        let bytes = info.bytes();
        if let Some(target) = info.store {
            return self.place(graph, target);
        }
        let (home, offset) = match &info.origin {
            Origin::Result => (Home::Slot(self.results[&root]), 0),
            Origin::State(name) => (Home::State(name.clone()), 0),
            Origin::View { of, offset } => {
                let whole = self.place(graph, *of);
                let offset = (offset * info.ty.dtype.size()) as u64;
                (whole.home, whole.offset + offset)
            }
        };
        Place {
            home,
            offset,
            bytes,
        }
    }

    /// Where an operand of the node of this index lies; `scratch` holds the bytes of the
    /// node's scratch buffers.
    pub(crate) fn operand(&self, graph: &Graph, index: usize, arg: Arg, scratch: &[u64]) -> Place {
        let node = &graph.nodes()[index];
        match arg {
            Arg::Input(i) => self.place(graph, node.inputs[i]),
            Arg::Output(i) => self.place(graph, node.outputs[i]),
            Arg::Scratch(i) => Place {
                home: Home::Slot(self.scratch[index][i]),
                offset: 0,
                bytes: scratch[i],
            },
            Arg::Step => Place {
                home: Home::Step,
                offset: 0,
                bytes: Step::BYTES as u64,
            },
        }
    }

    /// For each node the values that it reads and no later one does.
    pub(super) fn read_until(&self, graph: &Graph) -> Vec<Vec<Value>> {
        let mut last = HashMap::new();
        for (index, node) in graph.nodes().iter().enumerate() {
            for value in &node.inputs {
                let place = self.place(graph, *value);
                // Slots have one tenant after the other, states have several names.
                let tenant = match place.home {
                    Home::Slot(_) => Some(graph.storage_root(*value)),
                    _ => None,
                };
                last.insert((place, tenant), (index, *value));
            }
        }
        let mut last: Vec<(usize, Value)> = last.into_values().collect();
        last.sort_unstable();
        let mut by_node = vec![Vec::new(); graph.nodes().len()];
        for (index, value) in last {
            by_node[index].push(value);
        }
        by_node
    }

    /// Bytes of all slots together.
    pub fn bytes(&self) -> u64 {
        self.slots.iter().map(|s| s.bytes).sum()
    }

    /// Plans a graph; `scratch` holds the bytes of each node's scratch buffers.
    pub fn new(graph: &Graph, scratch: &[Vec<u64>]) -> Self {
        let mut plan = Self {
            scratch: scratch.iter().map(|s| vec![0; s.len()]).collect(),
            tenants: tenants(graph, scratch),
            ..Self::default()
        };
        let alive = plan.alive(graph.nodes().len());
        plan.lower_bound = alive.into_iter().max().unwrap_or(0);
        let mut taken: Vec<Vec<RangeInclusive<usize>>> = Vec::new();
        let mut by_size: Vec<&mut Tenant> = plan.tenants.iter_mut().collect();
        by_size.sort_by_key(|t| std::cmp::Reverse(t.bytes));
        for tenant in by_size {
            // Slots are in falling order of size, all large enough.
            let free = |lives: &Vec<_>| lives.iter().all(|life| !meet(life, &tenant.life));
            let slot = taken.iter().rposition(free).unwrap_or_else(|| {
                plan.slots.push(Slot {
                    bytes: tenant.bytes,
                });
                taken.push(Vec::new());
                taken.len() - 1
            });
            taken[slot].push(tenant.life.clone());
            tenant.slot = slot;
            match tenant.holds {
                Holds::Result(value) => {
                    plan.results.insert(value, slot);
                }
                Holds::Scratch { node, index } => plan.scratch[node][index] = slot,
            }
        }
        plan
    }

    /// Bytes alive at each of the graph's `nodes` nodes.
    pub fn alive(&self, nodes: usize) -> Vec<u64> {
        let mut alive = vec![0; nodes];
        for tenant in &self.tenants {
            for bytes in &mut alive[tenant.life.clone()] {
                *bytes += tenant.bytes;
            }
        }
        alive
    }
}

/// Something that needs a slot, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// What it is.
    pub holds: Holds,
    /// Its bytes, which may be fewer than the slot's.
    pub bytes: u64,
    /// The nodes it lives for: from the one that computes it to the last that reads it.
    pub life: RangeInclusive<usize>,
    /// Where it lives, by index of the slot.
    pub slot: usize,
}

/// What a slot holds for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// A node's result.
    Result(Value),
    /// A scratch buffer of a node's launch.
    Scratch {
        /// The node, by index.
        node: usize,
        /// Which of its scratch buffers.
        index: usize,
    },
}

fn meet(a: &RangeInclusive<usize>, b: &RangeInclusive<usize>) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}

fn tenants(graph: &Graph, scratch: &[Vec<u64>]) -> Vec<Tenant> {
    let last_reader = last_readers(graph);
    let mut tenants = Vec::new();
    for (index, node) in graph.nodes().iter().enumerate() {
        for value in &node.outputs {
            let info = graph.value(*value);
            if node.op.alias().is_none() && info.store.is_none() {
                let end = last_reader.get(value).copied().unwrap_or(index);
                tenants.push(Tenant {
                    holds: Holds::Result(*value),
                    bytes: info.bytes(),
                    life: index..=end,
                    slot: 0,
                });
            }
        }
        for (i, bytes) in scratch[index].iter().enumerate() {
            tenants.push(Tenant {
                holds: Holds::Scratch {
                    node: index,
                    index: i,
                },
                bytes: *bytes,
                life: index..=index,
                slot: 0,
            });
        }
    }
    tenants
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
