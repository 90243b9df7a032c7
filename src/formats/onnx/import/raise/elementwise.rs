//! Activations, sums and products of layers, and constants added to or multiplied with one.

use super::super::name::layer_of;
use super::{Layout, Raise, no_layer};
use crate::error::Result;
use crate::graph::Node;
use crate::model::{self, Add, DepthwiseConv2d, Layer, Mul};
use crate::ops::activation::{Activation, Function};
use crate::ops::bias::BiasAdd;
use crate::ops::binary::BinaryOp;
use crate::ops::{Array, Value};
use crate::tensor::Shape;

impl<'a> Raise<'a> {
    /// A layer of one input that leaves the order of elements alone.
    pub(super) fn elementwise(
        &mut self,
        node: &Node,
        layer: impl Into<Layer>,
        stem: &str,
    ) -> Result<()> {
        let x = self.place(node, node.inputs[0])?;
        self.layer(layer, stem, None, &[&x], node.outputs[0]);
        self.keep_layout(node.outputs[0], x.layout);
        Ok(())
    }

    pub(super) fn binary(&mut self, node: &Node, op: BinaryOp) -> Result<()> {
        let constants = [0, 1].map(|i| self.constant(node.inputs[i]).is_some());
        match (op, constants) {
            (BinaryOp::Add | BinaryOp::Mul, [true, false]) => self.scaled(node, op, 1),
            (BinaryOp::Add | BinaryOp::Mul | BinaryOp::Sub | BinaryOp::Div, [false, true]) => {
                self.scaled(node, op, 0)
            }
            (BinaryOp::Add, [false, false]) => self.merged(node, Add::default(), "add"),
            (BinaryOp::Mul, [false, false]) => match self.swish(node) {
                Some(x) => {
                    let x = self.place(node, x)?;
                    let silu = model::Activation::new(Function::Silu);
                    self.layer(silu, "act", None, &[&x], node.outputs[0]);
                    self.keep_layout(node.outputs[0], x.layout);
                    Ok(())
                }
                None => self.merged(node, Mul {}, "mul"),
            },
            _ => Err(no_layer(node, "there is no layer for it")),
        }
    }

    /// The x of `x * sigmoid(x)`, which is SiLU.
    fn swish(&self, node: &Node) -> Option<Value> {
        [[0, 1], [1, 0]].into_iter().find_map(|[x, gate]| {
            let (x, gate) = (node.inputs[x], node.inputs[gate]);
            let sigmoid = self.graph.producer(gate)?;
            let is_sigmoid = sigmoid.op.downcast() == Some(&Activation(Function::Sigmoid));
            (is_sigmoid && sigmoid.inputs[0] == x).then_some(x)
        })
    }

    fn merged(&mut self, node: &Node, layer: impl Into<Layer>, stem: &str) -> Result<()> {
        let [a, b] = [
            self.place(node, node.inputs[0])?,
            self.place(node, node.inputs[1])?,
        ];
        let [first, second] = [self.shape(node.inputs[0]), self.shape(node.inputs[1])];
        // A gate may be one number a channel.
        let gate = |shape: &Shape| shape.rank() == 4 && shape.dims()[2..] == [1, 1];
        let gated = stem == "mul" && a.layout == Layout::Same && (gate(first) || gate(second));
        if (first != second && !gated) || a.layout != b.layout {
            let problem =
                format!("its inputs have shapes {first} and {second}; a layer's are alike");
            return Err(no_layer(node, &problem));
        }
        let layout = a.layout.clone();
        self.layer(layer, stem, None, &[&a, &b], node.outputs[0]);
        self.keep_layout(node.outputs[0], layout);
        Ok(())
    }

    /// A value combined with a constant: part of the input's normalisation, or a depthwise
    /// 1 x 1 convolution.
    pub(super) fn scaled(&mut self, node: &Node, op: BinaryOp, x: usize) -> Result<()> {
        let (x, constant) = (node.inputs[x], node.inputs[1 - x]);
        let (weight, array) = self.weight(node, constant)?;
        let place = self.places[&x].clone();
        let by_row = node.op.downcast::<BiasAdd>().is_some();
        let channels_last = matches!(place.layout, Layout::Permuted(_));
        let shape = self.shape(x);
        let numbers = match channels_last {
            true => last_axis(array, shape),
            false => by_channel(array, shape, by_row),
        };
        let numbers =
            numbers.ok_or_else(|| no_layer(node, "its constant is not one number a channel"))?;
        if let Some(affine) = self.affine.get(&x).cloned() {
            self.affine
                .insert(node.outputs[0], affine.then(op, &numbers));
            self.places.insert(node.outputs[0], place);
            return Ok(());
        }
        if shape.rank() != 4 || place.layout != Layout::Same {
            return Err(no_layer(
                node,
                "a constant is added to or multiplied with rows or NHWC images",
            ));
        }
        let channels = numbers.len();
        let (factor, summand) = match op {
            BinaryOp::Add => (vec![1.0; channels], Some(numbers)),
            BinaryOp::Sub => (
                vec![1.0; channels],
                Some(numbers.iter().map(|n| -n).collect()),
            ),
            BinaryOp::Div => (numbers.iter().map(|n| 1.0 / n).collect(), None),
            _ => (numbers, None),
        };
        let layer = DepthwiseConv2d::new(1).bias(summand.is_some());
        let name = self.layer(layer, "scale", layer_of(weight), &[&place], node.outputs[0]);
        self.put(&name, "weight", [channels, 1, 1, 1], factor)?;
        match summand {
            Some(summand) => self.put(&name, "bias", [channels], summand),
            None => Ok(()),
        }
    }
}

/// A constant that broadcasts to [N, C, ..] by channel alone, as one number a channel. With
/// `by_row` a list of C numbers is by channel; else it is broadcast along the last axis.
pub(super) fn by_channel(array: &Array, shape: &Shape, by_row: bool) -> Option<Vec<f64>> {
    let channels = *shape.dims().get(1)?;
    let data = array.f();
    if data.len() == 1 {
        return Some(vec![data[0]; channels]);
    }
    let missing = shape.rank().checked_sub(array.dims().len())?;
    let aligned = [vec![1; missing], array.dims().to_vec()].concat();
    let fits = by_row
        || aligned
            .iter()
            .enumerate()
            .all(|(axis, d)| axis == 1 || *d == 1);
    (fits && data.len() == channels).then(|| data.to_vec())
}

/// A constant that broadcasts to [N, H, W, C] by channel alone, as one number a channel.
pub(super) fn last_axis(array: &Array, shape: &Shape) -> Option<Vec<f64>> {
    let channels = *shape.dims().last()?;
    let data = array.f();
    let last = array.dims().last().copied().unwrap_or(1);
    match data.len() {
        1 => Some(vec![data[0]; channels]),
        n if n == channels && last == channels => Some(data.to_vec()),
        _ => None,
    }
}
