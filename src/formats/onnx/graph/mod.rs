//! ONNX graphs in terms of our ops.
//!
//! Shapes are known before a graph is written: whatever follows from shapes and constants
//! alone, and all arithmetic of integers, is computed on the host, exactly; so the chains of
//! `Shape`, `Gather` and `Concat` that exporters write vanish. Floats are computed on the
//! device.

mod call;
mod elementwise;
mod host;
mod linear;
mod loss;
mod optimizer;
mod shape;
mod window;

use super::read::{File, Node};
use super::tensor::{Element, Tensor, count};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::ops::{Array, Builder, Op, Step, Value};
use crate::tensor::{Shape, TensorType};
use call::Call;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// What an input of a graph is bound to.
#[derive(Clone, Debug)]
pub enum Given {
    /// These elements.
    Tensor(Tensor),
    /// Floats of these extents, in a state of the input's name.
    Floats(Shape),
}

/// What an output of a graph is.
#[derive(Clone, Debug)]
pub enum Computed {
    /// Known without a device.
    Host(Rc<Tensor>),
    /// A value of the graph, to be read as this element type.
    Device(Value, Element),
    /// Where the elements of a max pool came from, as offsets in their planes.
    Indices {
        /// The offsets.
        value: Value,
        /// Extents of the pool's input.
        input: Vec<usize>,
        /// Whether columns count before rows.
        columns_first: bool,
    },
}

/// A graph in our ops.
#[derive(Debug)]
pub struct Lowered {
    /// The ops. Its states are the constants and the inputs bound to [`Given::Floats`].
    pub graph: Graph,
    /// The constants' content, by state.
    pub constants: BTreeMap<String, Array>,
    /// The outputs in the file's order.
    pub outputs: Vec<(String, Computed)>,
    /// The values the optimizers of the graph take from a step.
    pub step: Step,
}

/// A value while the graph is written.
#[derive(Clone, Debug)]
enum Item {
    /// On the host, under its name in the file; `given` where it is an input.
    Host {
        name: String,
        tensor: Rc<Tensor>,
        given: bool,
    },
    /// Computed on the device.
    Device(Value, Element),
    /// See [`Computed::Indices`].
    Indices {
        value: Value,
        input: Vec<usize>,
        columns_first: bool,
    },
}

impl Item {
    fn float(value: Value) -> Self {
        Self::Device(value, Element::F32)
    }
}

/// Writes an operator into the graph.
type Write = fn(&mut Lowering, &Call<'_>) -> Result<Vec<Item>>;

/// The operators of ONNX's own domain that run on the device.
fn device_operators() -> impl Iterator<Item = &'static (&'static str, Write)> {
    [
        elementwise::OPERATORS,
        linear::OPERATORS,
        loss::OPERATORS,
        shape::OPERATORS,
        window::OPERATORS,
    ]
    .into_iter()
    .flatten()
}

/// What writes a node, if anything does.
fn writer(node: &Node) -> Option<Write> {
    let named = |(name, _): &&(&str, Write)| *name == node.operator;
    let found = match node.domain.as_str() {
        "" => device_operators().find(named),
        optimizer::DOMAIN => optimizer::OPERATORS.iter().find(named),
        _ => None,
    };
    found.map(|(_, write)| *write)
}

/// The names of all operators that are read, ONNX's own domain's alone.
pub fn operators() -> Vec<&'static str> {
    let device = device_operators().map(|(name, _)| *name);
    let mut names: Vec<_> = device
        .chain(host::OPERATORS.iter().map(|(n, _)| *n))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Checks that there is an implementation for every node.
///
/// # Errors
/// One error that names every node without one.
pub fn check_operators(file: &File) -> Result<()> {
    let known = |node: &&Node| {
        let host = node.domain.is_empty() && host::knows(&node.operator);
        host || writer(node).is_some()
    };
    let unknown: Vec<String> = file
        .nodes
        .iter()
        .filter(|n| !known(n))
        .map(|n| format!("\n  {}", n.label()))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let problem = format!(
        "has nodes that gpucnn has no operator for:{}",
        unknown.concat()
    );
    Err(Error::model(&file.name, problem))
}

/// Writes the graph of a file in our ops.
///
/// # Errors
/// If an input has no binding or another type than declared, or a node cannot be written;
/// the message names it.
pub fn lower(file: &File, given: &HashMap<String, Given>) -> Result<Lowered> {
    check_operators(file)?;
    let mut lowering = Lowering {
        opset: file.opset,
        graph: Graph::new(),
        constants: BTreeMap::new(),
        states: HashMap::new(),
        rate: None,
        corrections: None,
    };
    let mut items: HashMap<&str, Item> = HashMap::new();
    for input in &file.inputs {
        let found = given.get(&input.name).ok_or_else(|| {
            Error::Usage(format!(
                "the model's input {:?} is given nothing",
                input.name
            ))
        })?;
        let item = lowering.bind(&input.name, found)?;
        items.insert(&input.name, item);
    }
    for (name, tensor) in &file.constants {
        let tensor = Rc::new(tensor.clone());
        let (name, item) = (name.as_str(), name.clone());
        items.insert(
            name,
            Item::Host {
                name: item,
                tensor,
                given: false,
            },
        );
    }
    for node in &file.nodes {
        let outputs = lowering.node(node, &items)?;
        let names = node.outputs.iter().map(String::as_str);
        items.extend(names.zip(outputs).filter(|(name, _)| !name.is_empty()));
    }
    let outputs = file.outputs.iter().map(|output| {
        let item = items.get(output.name.as_str()).cloned();
        let item = item.ok_or_else(|| {
            let problem = format!("its output {:?} is computed by no node", output.name);
            Error::model(&file.name, problem)
        })?;
        let computed = match item {
            Item::Host { tensor, .. } => Computed::Host(tensor),
            Item::Device(value, element) => Computed::Device(value, element),
            Item::Indices {
                value,
                input,
                columns_first,
            } => Computed::Indices {
                value,
                input,
                columns_first,
            },
        };
        Ok((output.name.clone(), computed))
    });
    let mut step = Step::default();
    step.learning_rate = lowering.rate.unwrap_or(step.learning_rate);
    (step.correction1, step.correction2) = lowering
        .corrections
        .unwrap_or((step.correction1, step.correction2));
    Ok(Lowered {
        outputs: outputs.collect::<Result<_>>()?,
        graph: lowering.graph,
        constants: lowering.constants,
        step,
    })
}

/// A graph under construction.
struct Lowering {
    opset: i64,
    graph: Graph,
    constants: BTreeMap<String, Array>,
    /// States of tensors that are needed on the device, by the tensors' addresses; the
    /// tensors are kept, so that no address is used twice.
    states: HashMap<*const Tensor, (Rc<Tensor>, Value)>,
    /// The optimizers' learning rate.
    rate: Option<f64>,
    /// Adam's bias corrections.
    corrections: Option<(f64, f64)>,
}

impl Lowering {
    fn bind(&mut self, name: &str, given: &Given) -> Result<Item> {
        Ok(match given {
            Given::Tensor(tensor) => Item::Host {
                name: name.into(),
                tensor: Rc::new(tensor.clone()),
                given: true,
            },
            Given::Floats(shape) => {
                check_count(name, shape.dims())?;
                Item::float(self.graph.state(name, TensorType::f32(shape.clone())))
            }
        })
    }

    /// Writes a node, or computes it here.
    fn node(&mut self, node: &Node, items: &HashMap<&str, Item>) -> Result<Vec<Item>> {
        self.graph.set_layer(&node.name);
        let inputs = node.inputs.iter().map(|name| match name.as_str() {
            "" => Ok(None),
            name => items.get(name).cloned().map(Some).ok_or_else(|| {
                let problem = format!("reads {name:?}, which nothing before it computes");
                Error::shape(node.label(), problem)
            }),
        });
        let call = Call {
            node,
            opset: self.opset,
            inputs: inputs.collect::<Result<_>>()?,
        };
        if let Some(outputs) = host::compute(self, &call)? {
            return Ok(outputs);
        }
        let write = writer(node).ok_or_else(|| {
            call.error("expected constants, or integers, as inputs; found what the device computes")
        })?;
        write(self, &call)
    }

    /// Adds an op.
    fn op(&mut self, call: &Call<'_>, op: impl Op, inputs: &[Value]) -> Result<Value> {
        Ok(self.ops(call, op, inputs)?[0])
    }

    /// Adds an op with several outputs.
    fn ops(&mut self, call: &Call<'_>, op: impl Op, inputs: &[Value]) -> Result<Vec<Value>> {
        // Errors name the node by the graph's layer.
        let outputs = self.graph.add(Box::new(op), inputs)?;
        for output in &outputs {
            check_count(&call.node.label(), self.graph.ty(*output).shape.dims())?;
        }
        Ok(outputs)
    }

    fn shape(&self, value: Value) -> Shape {
        self.graph.ty(value).shape.clone()
    }

    /// The extents of an item.
    fn dims(&self, item: &Item) -> Vec<usize> {
        match item {
            Item::Host { tensor, .. } => tensor.dims.clone(),
            Item::Device(value, _) | Item::Indices { value, .. } => {
                self.shape(*value).dims().into()
            }
        }
    }

    /// A tensor as a state of floats on the device.
    fn on_device(&mut self, name: &str, tensor: &Rc<Tensor>) -> Value {
        let address = Rc::as_ptr(tensor);
        if let Some((_, value)) = self.states.get(&address) {
            return *value;
        }
        let ty = TensorType::f32(tensor.dims.as_slice());
        let data = tensor.to_floats().into_iter().map(f64::from);
        let array = Array::float(ty.clone(), data.collect());
        let value = self.constant(name, array);
        self.states.insert(address, (tensor.clone(), value));
        value
    }

    /// A new state with this content, named after `name`.
    fn constant(&mut self, name: &str, array: Array) -> Value {
        let numbered = (2..).map(|n| format!("{name}#{n}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        let free = names.find(|n| !self.constants.contains_key(n));
        let state = free.expect("numbers do not end");
        let value = self.graph.state(&state, array.ty().clone());
        self.constants.insert(state, array);
        value
    }

    /// A float constant made here.
    fn number(&mut self, call: &Call<'_>, value: f64) -> Value {
        let array = Array::float(TensorType::f32([]), vec![f64::from(value as f32)]);
        self.constant(&format!("{}/constant", call.node.name), array)
    }
}

/// An error unless the extents make a tensor that can exist.
fn check_count(place: &str, dims: &[usize]) -> Result<()> {
    if count(dims).is_some_and(|n| n > 0) {
        return Ok(());
    }
    let problem = format!("{dims:?} has no elements, or over 2^31");
    Err(Error::shape(place, problem))
}
