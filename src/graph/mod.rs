//! Static graphs of ops: build, differentiate, fuse, place in memory, run.
//!
//! ```text
//! Graph ──gradients──► Graph ──passes──► Graph ──plan──► slots ──backend──► runs
//! ```
//! A graph is a flat list of nodes in execution order over *values*. A value is
//! either **state** (a named tensor that outlives a run: parameters, optimizer
//! moments, the dataset, metrics), a **view** of a part of a state, or the
//! **result** of a node. Results live in memory that the plan reuses; a result
//! is kept by storing it in a state ([`Graph::store`]).

mod arena;
mod autodiff;
mod backend;
mod gpu;
mod guard;
mod listing;
mod lowering;
mod memory;
mod passes;
mod recompute;
mod reference;
mod split;

pub use arena::{Arena, Part, chunks};
pub use backend::{Available, Backend, Profile, Program, Ticket, Timing};
pub(crate) use backend::{advise_batch, batch_advice, largest_batch};
pub use gpu::GpuBackend;
pub(crate) use gpu::MOST_UNSENT;
pub use guard::Probe;
pub use listing::{Listed, Listing};
pub(crate) use memory::Shared;
pub use memory::{Holds, Home, MemoryPlan, Place, Slot, Tenant};
pub use reference::CpuBackend;

use crate::error::{Error, Result};
use crate::ops::activation::{Activation, Function};
use crate::ops::fill::Fill;
use crate::ops::{Builder, Op, Value};
use crate::tensor::{DType, Shape, TensorType};
use std::collections::HashSet;
use std::sync::Arc;

/// Where a value's data comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// A named tensor that outlives the run.
    State(String),
    /// Elements of a state from an offset on, under the value's own shape.
    View {
        /// The state.
        of: Value,
        /// First element; the backend's binding alignment divides its byte offset.
        offset: usize,
    },
    /// The output of a node.
    Result,
}

/// What a graph knows of a value.
#[derive(Clone, Debug)]
pub struct ValueInfo {
    /// Shape and element type.
    pub ty: TensorType,
    /// Where its data comes from.
    pub origin: Origin,
    /// The state or view a result is computed into, if it is kept.
    pub store: Option<Value>,
    /// Whether its floats are kept in memory as f16; see [`Graph::halved`].
    pub half: bool,
}

impl ValueInfo {
    /// Bytes it takes in memory.
    pub fn bytes(&self) -> u64 {
        match self.half {
            true => self.ty.bytes() / 2,
            false => self.ty.bytes(),
        }
    }
}

/// One op applied to values.
#[derive(Clone, Debug)]
pub struct Node {
    /// The op.
    pub op: Arc<dyn Op>,
    /// What it reads (and updates, see [`Op::updates`]).
    pub inputs: Vec<Value>,
    /// What it computes.
    pub outputs: Vec<Value>,
    /// The layer it belongs to, for messages and profiles.
    pub layer: String,
    /// A state of one f32: the node runs only where it is 0, see [`Graph::guard`].
    pub guard: Option<Value>,
    /// The names of the ops that a pass put together into this one, in the order they are
    /// done; empty where there was one.
    pub fused: Vec<&'static str>,
}

impl Node {
    /// Layer and op, for messages.
    pub fn label(&self) -> String {
        format!("{} ({})", self.layer, self.op.name())
    }
}

/// A static computation. See the [module documentation](self).
#[derive(Clone, Debug, Default)]
pub struct Graph {
    values: Vec<ValueInfo>,
    nodes: Vec<Node>,
    layer: String,
    one: Option<Value>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// The nodes, in execution order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What is known of a value.
    pub fn value(&self, value: Value) -> &ValueInfo {
        &self.values[value.0 as usize]
    }

    /// The named tensors the graph works on, each once.
    pub fn states(&self) -> impl Iterator<Item = (&str, &TensorType)> {
        let mut seen = HashSet::new();
        self.values
            .iter()
            .filter_map(move |info| match &info.origin {
                Origin::State(name) if seen.insert(name) => Some((name.as_str(), &info.ty)),
                _ => None,
            })
    }

    /// Names the layer that the nodes added from here on belong to.
    pub fn set_layer(&mut self, name: impl Into<String>) {
        self.layer = name.into();
    }

    /// The named tensor `name`, which the backend holds from run to run. Graphs that
    /// name the same state share it.
    pub fn state(&mut self, name: impl Into<String>, ty: TensorType) -> Value {
        self.push(ty, Origin::State(name.into()))
    }

    /// A part of a state: the elements from `offset` on, as `shape`.
    ///
    /// # Errors
    /// If `of` is not a state or the part does not lie inside it.
    pub fn view(&mut self, of: Value, offset: usize, shape: impl Into<Shape>) -> Result<Value> {
        let shape = shape.into();
        let whole = self.value(of).clone();
        if !matches!(whole.origin, Origin::State(_)) {
            return Err(Error::shape("view", "only a state can be viewed"));
        }
        if offset + shape.len() > whole.ty.shape.len() {
            return Err(Error::shape(
                "view",
                format!("{shape} from element {offset} leaves {}", whole.ty),
            ));
        }
        let dtype = whole.ty.dtype;
        Ok(self.push(TensorType { shape, dtype }, Origin::View { of, offset }))
    }

    /// Has `value` computed into `target`, a state or view of as many elements.
    ///
    /// # Errors
    /// If the target is no state or view, or the sizes differ.
    pub fn store(&mut self, value: Value, target: Value) -> Result<()> {
        let (from, to) = (self.value(value), self.value(target));
        if to.origin == Origin::Result {
            return Err(Error::shape("store", "the target must be a state or view"));
        }
        if from.ty.shape.len() != to.ty.shape.len() || from.ty.dtype != to.ty.dtype {
            let problem = format!("expected {}, found {}", to.ty, from.ty);
            return Err(Error::shape("store", problem));
        }
        // A value that has a home already, or shares another's, is copied.
        let shared = self.producer(value).is_none_or(|n| n.op.alias().is_some());
        let value = if shared || from.store.is_some() {
            if from.ty.dtype != DType::F32 {
                return Err(Error::shape("store", "only f32 values can be copied"));
            }
            self.add1(Box::new(Activation(Function::Identity)), &[value])?
        } else {
            value
        };
        self.values[value.0 as usize].store = Some(target);
        Ok(())
    }

    /// The node that computes a value, if any.
    pub fn producer(&self, value: Value) -> Option<&Node> {
        self.nodes.iter().find(|n| n.outputs.contains(&value))
    }

    /// The value whose storage `value` shares by way of renaming ops: itself, where
    /// it was not renamed.
    pub fn storage_root(&self, value: Value) -> Value {
        let mut root = value;
        while let Some(node) = self.producer(root) {
            match node.op.alias() {
                Some(input) => root = node.inputs[input],
                None => break,
            }
        }
        root
    }

    /// Bytes that a value's storage takes in memory.
    pub fn bytes(&self, value: Value) -> u64 {
        self.value(self.storage_root(value)).bytes()
    }

    /// The scalar 1 that seeds gradients.
    fn one(&mut self) -> Result<Value> {
        if let Some(one) = self.one {
            return Ok(one);
        }
        let fill = Fill {
            shape: Shape::default(),
            value: 1.0,
        };
        let one = self.add1(Box::new(fill), &[])?;
        self.one = Some(one);
        Ok(one)
    }

    fn push(&mut self, ty: TensorType, origin: Origin) -> Value {
        let index = u32::try_from(self.values.len()).expect("fewer than 2^32 values");
        self.values.push(ValueInfo {
            ty,
            origin,
            store: None,
            half: false,
        });
        Value(index)
    }

    fn types(&self, values: &[Value]) -> Vec<TensorType> {
        values.iter().map(|v| self.value(*v).ty.clone()).collect()
    }

    /// Floating-point operations of one run.
    pub fn flops(&self) -> u64 {
        let of = |n: &Node| n.op.flops(&self.types(&n.inputs), &self.types(&n.outputs));
        self.nodes.iter().map(of).sum()
    }
}

impl Builder for Graph {
    fn add(&mut self, op: Box<dyn Op>, inputs: &[Value]) -> Result<Vec<Value>> {
        let types = self.types(inputs);
        let inferred = op.infer(&types);
        let inferred = inferred.map_err(|e| match self.layer.as_str() {
            "" => e,
            layer => e.inside(layer),
        })?;
        let outputs: Vec<Value> = inferred
            .into_iter()
            .map(|ty| self.push(ty, Origin::Result))
            .collect();
        self.nodes.push(Node {
            op: Arc::from(op),
            inputs: inputs.to_vec(),
            outputs: outputs.clone(),
            layer: self.layer.clone(),
            guard: None,
            fused: Vec::new(),
        });
        Ok(outputs)
    }

    fn ty(&self, value: Value) -> &TensorType {
        &self.value(value).ty
    }

    fn is_one(&self, value: Value) -> bool {
        self.one == Some(value)
    }
}

#[cfg(test)]
mod tests;
