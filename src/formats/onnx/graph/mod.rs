//! ONNX graphs in terms of our ops.
//!
//! Shapes are known before a graph is written: whatever follows from shapes and constants
//! alone, and all arithmetic of integers, is computed on the host, exactly; so the chains of
//! `Shape`, `Gather` and `Concat` that exporters write vanish. Floats are computed on the
//! device.
//!
//! On the device everything is f32: truth values are 0 and 1, and integers those that f32
//! holds exactly. There they are only moved and compared. What computes with integers that
//! come from the device, or needs one of its values as a shape or an index, has it read back
//! first: see [`fetch`].

mod call;
mod elementwise;
mod fetch;
mod host;
mod linear;
mod loss;
mod optimizer;
mod reduce;
mod resize;
mod shape;
mod window;

use super::read::{File, Node};
use super::tensor::{Element, Tensor, count};
use crate::error::{Error, Result};
use crate::graph::{Backend, Graph};
use crate::ops::{Array, Builder, Op, Step, Value};
use crate::tensor::{Shape, TensorType};
use call::Call;
pub use fetch::run_once;
use std::collections::{BTreeMap, HashMap, HashSet};
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

impl Computed {
    /// The tensor, where the device's part of it has been read.
    pub fn tensor(&self, read: impl FnOnce() -> Result<Array>) -> Result<Tensor> {
        match self {
            Self::Host(tensor) => Ok((**tensor).clone()),
            Self::Device(_, element) => Ok(fetch::as_tensor(&read()?, *element)),
            Self::Indices {
                input,
                columns_first,
                ..
            } => Ok(fetch::counted(&read()?, input, *columns_first)),
        }
    }
}

/// A graph in our ops.
#[derive(Debug)]
pub struct Lowered {
    /// The ops. Its states are the constants, the inputs bound to [`Given::Floats`], and what
    /// the backend holds from parts that were run before.
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

    /// A tensor computed on the host.
    fn on_host(name: &str, tensor: Tensor) -> Self {
        Self::Host {
            name: name.into(),
            tensor: Rc::new(tensor),
            given: false,
        }
    }

    /// A node's output of no elements.
    fn empty(call: &Call<'_>, output: usize, dims: Vec<usize>, element: Element) -> Self {
        let tensor = match element {
            Element::F32 => Tensor::floats(dims, Vec::new()),
            _ => Tensor::integers(dims, element, Vec::new()),
        };
        let name = call.node.outputs.get(output);
        Self::on_host(name.map_or("", String::as_str), tensor)
    }

    /// Where it is on the device, if it is there.
    fn device(&self) -> Option<Value> {
        match self {
            Self::Host { .. } => None,
            Self::Device(value, _) | Self::Indices { value, .. } => Some(*value),
        }
    }

    /// The element type in the file.
    fn element(&self) -> Element {
        match self {
            Self::Host { tensor, .. } => tensor.element,
            Self::Device(_, element) => *element,
            Self::Indices { .. } => Element::I64,
        }
    }

    fn computed(self) -> Computed {
        match self {
            Self::Host { tensor, .. } => Computed::Host(tensor),
            Self::Device(value, element) => Computed::Device(value, element),
            Self::Indices {
                value,
                input,
                columns_first,
            } => Computed::Indices {
                value,
                input,
                columns_first,
            },
        }
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
        reduce::OPERATORS,
        resize::OPERATORS,
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
    let mut names: Vec<_> = device.chain(host::operators()).collect();
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
        let host = node.domain.is_empty() && host::operators().any(|n| n == node.operator);
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
/// With a backend, parts of the graph are run on it where a node needs on the host what the
/// device computes; without one such nodes are refused.
///
/// # Errors
/// If an input has no binding or another type than declared, or a node cannot be written;
/// the message names it. Or if the backend fails.
pub fn lower(
    file: &File,
    given: &HashMap<String, Given>,
    mut backend: Option<&mut dyn Backend>,
) -> Result<Lowered> {
    check_operators(file)?;
    let mut lowering = Lowering::new(file.opset);
    let mut items = lowering.bound(file, given)?;
    let last = last_uses(file);
    for (place, node) in file.nodes.iter().enumerate() {
        let wanted = fetch::wanted(node, &items);
        if let (false, Some(backend)) = (wanted.is_empty(), backend.as_deref_mut()) {
            items.retain(|name, _| last.get(name).is_some_and(|last| *last >= place));
            fetch::fetch(&mut lowering, &mut items, &wanted, backend)?;
        }
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
        Ok((output.name.clone(), item.computed()))
    });
    Ok(Lowered {
        outputs: outputs.collect::<Result<_>>()?,
        step: lowering.step(),
        graph: lowering.graph,
        constants: lowering.constants,
    })
}

/// The last node that reads a value, by the value's name; the outputs are read at the end.
fn last_uses(file: &File) -> HashMap<&str, usize> {
    let nodes = file.nodes.iter().enumerate();
    let reads = nodes.flat_map(|(place, node)| node.inputs.iter().map(move |n| (n, place)));
    let outputs = file.outputs.iter().map(|o| (&o.name, usize::MAX));
    reads
        .chain(outputs)
        .map(|(name, place)| (name.as_str(), place))
        .collect()
}

/// A graph under construction.
struct Lowering {
    opset: i64,
    graph: Graph,
    constants: BTreeMap<String, Array>,
    /// Names of all states that were ever made.
    names: HashSet<String>,
    /// States of tensors that are needed on the device, by the tensors' addresses; the
    /// tensors are kept, so that no address is used twice.
    states: HashMap<*const Tensor, (Rc<Tensor>, Value)>,
    /// The optimizers' learning rate.
    rate: Option<f64>,
    /// Adam's bias corrections.
    corrections: Option<(f64, f64)>,
}

impl Lowering {
    fn new(opset: i64) -> Self {
        Self {
            opset,
            graph: Graph::new(),
            constants: BTreeMap::new(),
            names: HashSet::new(),
            states: HashMap::new(),
            rate: None,
            corrections: None,
        }
    }

    /// The inputs and constants of a file.
    fn bound<'f>(
        &mut self,
        file: &'f File,
        given: &HashMap<String, Given>,
    ) -> Result<HashMap<&'f str, Item>> {
        let mut items = HashMap::new();
        for input in &file.inputs {
            let found = given.get(&input.name).ok_or_else(|| {
                let problem = format!("the model's input {:?} is given nothing", input.name);
                Error::Usage(problem)
            })?;
            items.insert(input.name.as_str(), self.bind(&input.name, found)?);
        }
        for (name, tensor) in &file.constants {
            items.insert(name, Item::on_host(name, tensor.clone()));
        }
        Ok(items)
    }

    /// What the optimizers of the graph take from a step.
    fn step(&self) -> Step {
        let mut step = Step::default();
        step.learning_rate = self.rate.unwrap_or(step.learning_rate);
        (step.correction1, step.correction2) = self
            .corrections
            .unwrap_or((step.correction1, step.correction2));
        step
    }

    fn bind(&mut self, name: &str, given: &Given) -> Result<Item> {
        Ok(match given {
            Given::Tensor(tensor) => Item::Host {
                name: name.into(),
                tensor: Rc::new(tensor.clone()),
                given: true,
            },
            Given::Floats(shape) => {
                check_count(name, shape.dims())?;
                self.names.insert(name.into());
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
        let state = self.free_name(name);
        let value = self.graph.state(&state, array.ty().clone());
        self.constants.insert(state, array);
        value
    }

    /// The name of a new state, after `name`.
    fn free_name(&mut self, name: &str) -> String {
        let numbered = (2..).map(|n| format!("{name}#{n}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        let free = names.find(|n| self.names.insert(n.clone()));
        free.expect("numbers do not end")
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
