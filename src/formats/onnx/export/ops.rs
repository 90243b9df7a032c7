//! Each op in ONNX's operators.

use crate::formats::onnx::proto::{GraphProto, NodeProto};
use crate::formats::onnx::write::{floats, integers, node, with};
use crate::ops::activation::{Activation, Function};
use crate::ops::batch_norm::BatchNormInference;
use crate::ops::bias::BiasAdd;
use crate::ops::binary::{Binary, BinaryOp};
use crate::ops::concat::Concat;
use crate::ops::conv2d::Conv2d;
use crate::ops::layer_norm::LayerNorm2d;
use crate::ops::matmul::MatMul;
use crate::ops::pad::{Pad, Slice};
use crate::ops::pool2d::{AvgPool2d, GlobalAvgPool, MaxPool2d};
use crate::ops::reshape::Reshape;
use crate::ops::softmax::Softmax;
use crate::ops::transpose::Transpose;
use crate::ops::{Op, Window};
use crate::tensor::Shape;
use std::f64::consts::{PI, SQRT_2};

/// Where an op is written to, and what it reads there.
pub(super) struct Place<'a> {
    pub file: &'a mut GraphProto,
    /// What its inputs are called.
    pub inputs: Vec<String>,
    /// What its first output, the only one that is read, is to be called.
    pub output: String,
    /// Shapes of its first input and its first output, for one image and for two.
    pub shapes: [[Shape; 2]; 2],
}

impl Place<'_> {
    /// A node that gives the output.
    fn last(&mut self, op_type: &str, inputs: Vec<String>) -> NodeProto {
        node(op_type, inputs, &self.output)
    }

    /// A node that gives the output from all inputs.
    fn whole(&mut self, op_type: &str) -> NodeProto {
        let inputs = self.inputs.clone();
        self.last(op_type, inputs)
    }

    fn push(&mut self, node: NodeProto) {
        self.file.node.push(node);
    }

    /// Adds a node on the way to the output; returns what its result is called.
    fn step(&mut self, op_type: &str, inputs: &[&str]) -> String {
        self.step_with(op_type, inputs, |node| node)
    }

    /// As [`step`](Self::step), of a node with attributes.
    fn step_with(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        attributes: impl FnOnce(NodeProto) -> NodeProto,
    ) -> String {
        let count = self.file.node.len();
        let name = format!("{}/{}_{count}", self.output, op_type.to_lowercase());
        let inputs = inputs.iter().map(|i| (*i).to_owned()).collect();
        self.push(attributes(node(op_type, inputs, &name)));
        name
    }

    fn number(&mut self, role: &str, value: f64) -> String {
        let name = format!("{}.{role}", self.output);
        self.file
            .initializer
            .push(floats(&name, &[], &[value as f32]));
        name
    }

    fn integers(&mut self, role: &str, values: &[i64]) -> String {
        let name = format!("{}.{role}", self.output);
        self.file.initializer.push(integers(&name, values));
        name
    }
}

/// Whether a product and the op behind it are one `Gemm`.
pub(super) fn is_gemm(product: &dyn Op, next: &dyn Op) -> bool {
    product.downcast::<MatMul>().is_some() && next.downcast::<BiasAdd>().is_some()
}

/// Whether an op reads a weight that may be in eight bits.
pub(super) fn has_weight(op: &dyn Op) -> bool {
    op.downcast::<MatMul>().is_some() || op.downcast::<Conv2d>().is_some()
}

/// Writes an op; false where ONNX has no operators for it.
pub(super) fn write(op: &dyn Op, mut place: Place<'_>) -> bool {
    let place = &mut place;
    let families = [windowed, elementwise, product, rearranging];
    let Some(node) = families.iter().find_map(|write| write(op, place)) else {
        return false;
    };
    place.push(node);
    true
}

/// Convolutions and pools.
fn windowed(op: &dyn Op, place: &mut Place<'_>) -> Option<NodeProto> {
    if let Some(op) = op.downcast::<Conv2d>() {
        let plain = op.pool.is_none() && op.activation == Function::Identity;
        let conv = plain.then(|| window(place.whole("Conv"), &op.window))?;
        let conv = with(conv, "dilations", op.window.dilation);
        return Some(with(conv, "group", op.groups));
    }
    if let Some(op) = op.downcast::<MaxPool2d>() {
        let pool = window(place.whole("MaxPool"), &op.window);
        let pool = with(pool, "dilations", op.window.dilation);
        return Some(with(pool, "ceil_mode", usize::from(op.window.ceil)));
    }
    if let Some(op) = op.downcast::<AvgPool2d>() {
        // AveragePool has dilations from version 19 on.
        let undilated = op.window.dilation == [1, 1];
        let pool = undilated.then(|| window(place.whole("AveragePool"), &op.window))?;
        let pool = with(pool, "ceil_mode", usize::from(op.window.ceil));
        let counted = usize::from(op.count_include_pad);
        return Some(with(pool, "count_include_pad", counted));
    }
    op.downcast::<GlobalAvgPool>()
        .map(|_| place.whole("GlobalAveragePool"))
}

fn elementwise(op: &dyn Op, place: &mut Place<'_>) -> Option<NodeProto> {
    if let Some(Activation(function)) = op.downcast() {
        return Some(activation(*function, place));
    }
    if let Some(Binary(op)) = op.downcast() {
        return binary(*op, place);
    }
    if let Some(op) = op.downcast::<BatchNormInference>() {
        let norm = place.whole("BatchNormalization");
        return op
            .activation
            .is_none()
            .then(|| with(norm, "epsilon", op.epsilon));
    }
    if let Some(op) = op.downcast::<LayerNorm2d>() {
        return Some(layer_norm(op.epsilon, place));
    }
    if let Some(Softmax { axis, log }) = op.downcast() {
        let softmax = if *log { "LogSoftmax" } else { "Softmax" };
        return Some(with(place.whole(softmax), "axis", *axis));
    }
    op.downcast::<BiasAdd>().map(|_| bias(place))
}

fn binary(op: BinaryOp, place: &mut Place<'_>) -> Option<NodeProto> {
    Some(place.whole(match op {
        BinaryOp::Add => "Add",
        BinaryOp::Sub => "Sub",
        BinaryOp::Mul => "Mul",
        BinaryOp::Div => "Div",
        BinaryOp::Min => "Min",
        BinaryOp::Max => "Max",
        BinaryOp::Pow => "Pow",
        BinaryOp::PRelu => "PRelu",
        // No layer has these in inference.
        BinaryOp::PReluSlope | BinaryOp::Less | BinaryOp::LessOrEqual | BinaryOp::Equal => {
            return None;
        }
    }))
}

/// A matrix product, with the bias that [`is_gemm`] found.
fn product(op: &dyn Op, place: &mut Place<'_>) -> Option<NodeProto> {
    let op = op.downcast::<MatMul>()?;
    if op.bias || op.activation != Function::Identity {
        return None;
    }
    let gemm = with(place.whole("Gemm"), "transA", usize::from(op.transpose_a));
    Some(with(gemm, "transB", usize::from(op.transpose_b)))
}

/// Ops that compute nothing.
fn rearranging(op: &dyn Op, place: &mut Place<'_>) -> Option<NodeProto> {
    if let Some(Concat { axis }) = op.downcast() {
        return Some(with(place.whole("Concat"), "axis", *axis));
    }
    if let Some(op) = op.downcast::<Pad>() {
        return Some(pad(op, place));
    }
    if let Some(op) = op.downcast::<Slice>() {
        return Some(slice(op, place));
    }
    if let Some(Transpose { order }) = op.downcast() {
        return Some(with(place.whole("Transpose"), "perm", order.clone()));
    }
    op.downcast::<Reshape>().and_then(|_| reshape(place))
}

/// A node with a window's attributes, but for dilations and ceil mode.
fn window(node: NodeProto, window: &Window) -> NodeProto {
    let pads = window.pads;
    let node = with(node, "kernel_shape", window.kernel);
    let node = with(node, "strides", window.stride);
    let pads = vec![pads.top, pads.left, pads.bottom, pads.right];
    with(node, "pads", pads)
}

fn activation(function: Function, place: &mut Place<'_>) -> NodeProto {
    let x = place.inputs[0].clone();
    let x = x.as_str();
    match function {
        Function::Identity => place.whole("Identity"),
        Function::Relu => place.whole("Relu"),
        Function::LeakyRelu { slope } => with(place.whole("LeakyRelu"), "alpha", slope),
        Function::Elu { alpha } => with(place.whole("Elu"), "alpha", alpha),
        Function::Sigmoid => place.whole("Sigmoid"),
        Function::Tanh => place.whole("Tanh"),
        Function::Silu => {
            let gate = place.step("Sigmoid", &[x]);
            place.last("Mul", vec![x.into(), gate])
        }
        Function::Relu6 => {
            let (low, high) = (place.number("min", 0.0), place.number("max", 6.0));
            place.last("Clip", vec![x.into(), low, high])
        }
        Function::HardSigmoid => {
            let node = with(place.whole("HardSigmoid"), "alpha", 1.0 / 6.0);
            with(node, "beta", 0.5)
        }
        Function::HardSwish => place.whole("HardSwish"),
        Function::Softplus => place.whole("Softplus"),
        Function::Mish => {
            let inner = place.step("Softplus", &[x]);
            let gate = place.step("Tanh", &[&inner]);
            place.last("Mul", vec![x.into(), gate])
        }
        // 0.5 x (1 + erf(x / sqrt 2)), in PyTorch's order, which runtimes know and fuse.
        Function::Gelu => {
            let root = place.number("sqrt2", SQRT_2);
            let scaled = place.step("Div", &[x, &root]);
            let inner = place.step("Erf", &[&scaled]);
            gelu(x, &inner, place)
        }
        // 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
        Function::GeluTanh => {
            let cubic = place.number("cubic", 0.044_715);
            let factor = place.number("factor", (2.0 / PI).sqrt());
            let square = place.step("Mul", &[x, x]);
            let cube = place.step("Mul", &[&square, x]);
            let cube = place.step("Mul", &[&cube, &cubic]);
            let sum = place.step("Add", &[x, &cube]);
            let sum = place.step("Mul", &[&sum, &factor]);
            let inner = place.step("Tanh", &[&sum]);
            gelu(x, &inner, place)
        }
    }
}

/// `x (1 + inner) / 2`.
fn gelu(x: &str, inner: &str, place: &mut Place<'_>) -> NodeProto {
    let one = place.number("one", 1.0);
    let half = place.number("half", 0.5);
    let sum = place.step("Add", &[inner, &one]);
    let product = place.step("Mul", &[x, &sum]);
    place.last("Mul", vec![product, half])
}

/// A number for each channel: [C] added to [N, C, ..].
fn bias(place: &mut Place<'_>) -> NodeProto {
    let rank = place.shapes[0][0].rank();
    if rank <= 2 {
        return place.whole("Add");
    }
    let axes: Vec<i64> = (1..rank as i64 - 1).collect();
    let axes = place.integers("axes", &axes);
    let [x, b] = [0, 1].map(|i| place.inputs[i].clone());
    let b = place.step("Unsqueeze", &[&b, &axes]);
    place.last("Add", vec![x, b])
}

/// Over the channels, which ONNX normalises where they are the last axis.
fn layer_norm(epsilon: f64, place: &mut Place<'_>) -> NodeProto {
    let last = place.shapes[0][0].rank() - 1;
    let norm = |node| with(with(node, "axis", last), "epsilon", epsilon);
    if last == 1 {
        return norm(place.whole("LayerNormalization"));
    }
    let [x, gamma, beta] = [0, 1, 2].map(|i| place.inputs[i].clone());
    let there = [vec![0], (2..=last).collect(), vec![1]].concat();
    let back: Vec<usize> = [vec![0, last], (1..last).collect()].concat();
    let x = place.step_with("Transpose", &[&x], |node| with(node, "perm", there));
    let y = place.step_with("LayerNormalization", &[&x, &gamma, &beta], norm);
    with(place.last("Transpose", vec![y]), "perm", back)
}

fn pad(op: &Pad, place: &mut Place<'_>) -> NodeProto {
    let pads = op.before.iter().chain(&op.after);
    let pads: Vec<i64> = pads.map(|p| *p as i64).collect();
    let pads = place.integers("pads", &pads);
    let x = place.inputs[0].clone();
    place.last("Pad", vec![x, pads])
}

fn slice(op: &Slice, place: &mut Place<'_>) -> NodeProto {
    let [from, to] = &place.shapes;
    // An axis that is whole is left out: so the batch stays free.
    let axes = (0..op.starts.len()).filter(|a| from[0][*a] != to[0][*a]);
    let axes: Vec<usize> = axes.collect();
    let of = |f: &dyn Fn(usize) -> usize| axes.iter().map(|a| f(*a) as i64).collect::<Vec<_>>();
    let starts = of(&|a| op.starts[a]);
    let ends = of(&|a| op.starts[a] + op.shape[a]);
    let axes = of(&|a| a);
    let x = place.inputs[0].clone();
    let starts = place.integers("starts", &starts);
    let ends = place.integers("ends", &ends);
    let axes = place.integers("axes", &axes);
    place.last("Slice", vec![x, starts, ends, axes])
}

/// A reshape whose extent that depends on the batch, if any, is left open; `None` where
/// several do.
fn reshape(place: &mut Place<'_>) -> Option<NodeProto> {
    let [from, [one, two]] = &place.shapes;
    let keeps_batch = from[0].rank() > 1 && (0..2).all(|i| from[i][0] == place.shapes[1][i][0]);
    if keeps_batch && one.rank() == 2 {
        return Some(with(place.whole("Flatten"), "axis", 1));
    }
    let extents = one.dims().iter().zip(two.dims());
    let extents = extents.map(|(a, b)| if a == b { *a as i64 } else { -1 });
    let extents: Vec<i64> = extents.collect();
    if extents.iter().filter(|e| **e == -1).count() > 1 {
        return None;
    }
    let shape = place.integers("shape", &extents);
    let x = place.inputs[0].clone();
    Some(place.last("Reshape", vec![x, shape]))
}
