//! What every layer shares: lowering to ops, which also finds shapes and parameters.

use super::{Init, NamedLayer, ParameterSpec, layers};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::ops::activation::{Activation, Function};
use crate::ops::{Builder, Op, Value};
use crate::tensor::{Shape, TensorType};
use std::collections::HashMap;

/// Whether batch statistics and dropout are at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, which also update the running ones; dropout drops.
    Training,
    /// Running statistics; dropout does nothing.
    Inference,
}

/// Where the values of parameters come from.
pub(super) enum Parameters<'a> {
    /// They exist.
    Given(&'a HashMap<String, Value>),
    /// They are being found: each gets a state of its own and a line in the list.
    Found(&'a mut Vec<ParameterSpec>),
}

/// A graph that layers are written into.
pub struct Lowering<'a> {
    graph: &'a mut Graph,
    mode: Mode,
    parameters: Parameters<'a>,
    layer: String,
    trainable: bool,
    index: u32,
}

impl<'a> Lowering<'a> {
    pub(super) fn new(graph: &'a mut Graph, mode: Mode, parameters: Parameters<'a>) -> Self {
        Self {
            graph,
            mode,
            parameters,
            layer: String::new(),
            trainable: true,
            index: 0,
        }
    }

    /// Lowers a layer over its inputs.
    pub(super) fn layer(&mut self, named: &NamedLayer, inputs: &[Value]) -> Result<Value> {
        self.layer.clone_from(&named.name);
        self.trainable = named.trainable;
        self.graph.set_layer(&named.name);
        self.index += 1;
        let output = named.layer.lower(self, inputs)?;
        self.check_size("its output", &self.shape(output))?;
        Ok(output)
    }

    /// Refuses what no device could hold, before anything is counted or made of it.
    fn check_size(&self, what: &str, shape: &Shape) -> Result<()> {
        match i32::try_from(shape.len()) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.error(format!("{what} {shape} has over 2^31 elements"))),
        }
    }

    /// Training or inference.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether training changes the layer.
    pub fn trainable(&self) -> bool {
        self.trainable
    }

    /// The layer's place in the model, from 1: the key of its random stream.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The shape of a value.
    pub fn shape(&self, value: Value) -> Shape {
        self.graph.ty(value).shape.clone()
    }

    /// An error about this layer.
    pub fn error(&self, problem: impl Into<String>) -> Error {
        Error::shape(&self.layer, problem)
    }

    /// The channels of an NCHW value.
    ///
    /// # Errors
    /// If it has not four dimensions, naming the layer.
    pub fn channels(&self, value: Value) -> Result<usize> {
        Ok(self.shape(value).nchw(&self.layer)?[1])
    }

    /// Adds an op and returns its first output.
    ///
    /// # Errors
    /// The op's complaint, naming the layer.
    pub fn op(&mut self, op: impl Op, inputs: &[Value]) -> Result<Value> {
        self.graph.add1(Box::new(op), inputs)
    }

    /// Adds an op and returns all its outputs.
    ///
    /// # Errors
    /// The op's complaint, naming the layer.
    pub fn ops(&mut self, op: impl Op, inputs: &[Value]) -> Result<Vec<Value>> {
        self.graph.add(Box::new(op), inputs)
    }

    /// Applies an activation, unless it is the identity.
    ///
    /// # Errors
    /// The op's complaint, naming the layer.
    pub fn activation(&mut self, function: Function, value: Value) -> Result<Value> {
        match function {
            Function::Identity => Ok(value),
            function => self.op(Activation(function), &[value]),
        }
    }

    /// The parameter `role` of this layer, which training changes if the layer is trainable.
    ///
    /// # Errors
    /// If the model was lowered with other parameters than its own.
    pub fn parameter(&mut self, role: &str, shape: impl Into<Shape>, init: Init) -> Result<Value> {
        self.tensor(role, shape.into(), init, self.trainable)
    }

    /// The running statistic `role` of this layer, which training updates without gradients.
    ///
    /// # Errors
    /// If the model was lowered with other parameters than its own.
    pub fn statistic(&mut self, role: &str, shape: impl Into<Shape>, init: Init) -> Result<Value> {
        self.tensor(role, shape.into(), init, false)
    }

    fn tensor(&mut self, role: &str, shape: Shape, init: Init, trainable: bool) -> Result<Value> {
        self.check_size(role, &shape)?;
        let name = format!("{}.{role}", self.layer);
        match &mut self.parameters {
            Parameters::Given(values) => values
                .get(&name)
                .copied()
                .ok_or_else(|| Error::shape(name, "the parameter has no value")),
            Parameters::Found(specs) => {
                let value = self.graph.state(&name, TensorType::f32(shape.clone()));
                specs.push(ParameterSpec {
                    name,
                    shape,
                    init,
                    trainable,
                });
                Ok(value)
            }
        }
    }
}

/// What a kind of layer knows: how it is written into a graph.
pub(super) trait Lower {
    /// Adds the layer's ops over its inputs and returns its output.
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value>;
}

/// Lists the kinds of layers once: the enum, its TOML type names, the stem of automatic
/// names, and the dispatch.
macro_rules! layers {
    ($($kind:ident = $type_name:literal, $stem:literal;)*) => {
        /// One layer of any kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Layer {
            $(
                #[doc = concat!("See [`", stringify!($kind), "`](super::", stringify!($kind), ").")]
                $kind(layers::$kind),
            )*
        }

        $(impl From<layers::$kind> for Layer {
            fn from(layer: layers::$kind) -> Self {
                Self::$kind(layer)
            }
        })*

        impl Layer {
            /// The `type` of every kind of layer in model files.
            pub const TYPES: &'static [&'static str] = &[$($type_name),*];

            /// The layer's `type` in model files.
            pub fn type_name(&self) -> &'static str {
                match self { $(Self::$kind(_) => $type_name,)* }
            }

            /// What automatic names of this kind begin with.
            pub(super) fn stem(&self) -> &'static str {
                match self { $(Self::$kind(_) => $stem,)* }
            }

            fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
                match self { $(Self::$kind(layer) => layer.lower(lowering, inputs),)* }
            }

            /// Reads the attributes of a layer of the type `name`; `None` for no known type.
            pub(super) fn from_table(
                name: &str,
                table: toml::Table,
            ) -> Option<std::result::Result<Self, toml::de::Error>> {
                match name {
                    $($type_name => Some(table.try_into().map(Self::$kind)),)*
                    _ => None,
                }
            }

            /// The attributes of the layer.
            pub(super) fn to_table(&self) -> std::result::Result<toml::Table, toml::ser::Error> {
                match self { $(Self::$kind(layer) => toml::Table::try_from(layer),)* }
            }
        }
    };
}

layers! {
    Conv2d = "conv2d", "conv";
    DepthwiseConv2d = "depthwise_conv2d", "dw";
    MaxPool2d = "max_pool2d", "pool";
    AvgPool2d = "avg_pool2d", "pool";
    GlobalAvgPool = "global_avg_pool", "gap";
    GlobalMaxPool = "global_max_pool", "gmp";
    Dense = "dense", "fc";
    Activation = "activation", "act";
    BatchNorm2d = "batch_norm2d", "bn";
    LayerNorm2d = "layer_norm2d", "ln";
    LayerScale = "layer_scale", "scale";
    Dropout = "dropout", "dropout";
    DropPath = "drop_path", "path";
    Flatten = "flatten", "flatten";
    Reshape = "reshape", "reshape";
    ZeroPad2d = "zero_pad2d", "pad";
    Add = "add", "add";
    Mul = "mul", "mul";
    Concat = "concat", "concat";
}
