//! Operators that work element by element.

use super::call::Call;
use super::{Item, Lowering, Write};
use crate::error::Result;
use crate::formats::onnx::proto::data_type;
use crate::formats::onnx::read::{Attribute, Node};
use crate::formats::onnx::small::Small;
use crate::formats::onnx::tensor::{Element, Tensor};
use crate::ops::Value;
use crate::ops::activation::{Activation, Function};
use crate::ops::binary::{Binary, BinaryOp};
use crate::ops::dropout::{Dropout, Per};
use crate::ops::select::Select;
use crate::ops::unary::{Unary, UnaryOp};
use std::rc::Rc;

pub(super) const OPERATORS: &[(&str, Write)] = &[
    ("Abs", |l, c| unary(l, c, UnaryOp::Abs)),
    ("Add", |l, c| binary(l, c, BinaryOp::Add)),
    ("And", |l, c| logic(l, c, BinaryOp::Min)),
    ("Cast", cast),
    ("Celu", celu),
    ("Ceil", |l, c| unary(l, c, UnaryOp::Ceil)),
    ("Clip", clip),
    ("Cos", |l, c| unary(l, c, UnaryOp::Cos)),
    ("DequantizeLinear", dequantize),
    ("Div", |l, c| binary(l, c, BinaryOp::Div)),
    ("Dropout", dropout),
    ("Elu", |l, c| {
        let alpha = c.number_attribute("alpha", 1.0)?;
        activation(l, c, Function::Elu { alpha })
    }),
    ("Equal", |l, c| compare(l, c, BinaryOp::Equal, [0, 1])),
    ("Erf", |l, c| unary(l, c, UnaryOp::Erf)),
    ("Exp", |l, c| unary(l, c, UnaryOp::Exp)),
    ("Floor", |l, c| unary(l, c, UnaryOp::Floor)),
    ("Gelu", |l, c| {
        match c.text("approximate", "none")?.as_str() {
            "tanh" => activation(l, c, Function::GeluTanh),
            _ => activation(l, c, Function::Gelu),
        }
    }),
    ("Greater", |l, c| compare(l, c, BinaryOp::Less, [1, 0])),
    ("GreaterOrEqual", |l, c| {
        compare(l, c, BinaryOp::LessOrEqual, [1, 0])
    }),
    ("HardSigmoid", hard_sigmoid),
    ("HardSwish", |l, c| activation(l, c, Function::HardSwish)),
    ("Identity", |_, c| Ok(vec![c.input(0)?.clone()])),
    ("LeakyRelu", |l, c| {
        let slope = c.number_attribute("alpha", 0.01)?;
        activation(l, c, Function::LeakyRelu { slope })
    }),
    ("Less", |l, c| compare(l, c, BinaryOp::Less, [0, 1])),
    ("LessOrEqual", |l, c| {
        compare(l, c, BinaryOp::LessOrEqual, [0, 1])
    }),
    ("Log", |l, c| unary(l, c, UnaryOp::Log)),
    ("Max", |l, c| many(l, c, BinaryOp::Max)),
    ("Mean", mean),
    ("Min", |l, c| many(l, c, BinaryOp::Min)),
    ("Mish", |l, c| activation(l, c, Function::Mish)),
    ("Mul", |l, c| binary(l, c, BinaryOp::Mul)),
    ("Neg", |l, c| unary(l, c, UnaryOp::Neg)),
    ("Not", not),
    ("Or", |l, c| logic(l, c, BinaryOp::Max)),
    ("PRelu", |l, c| binary(l, c, BinaryOp::PRelu)),
    ("Pow", |l, c| binary(l, c, BinaryOp::Pow)),
    ("QuantizeLinear", quantize),
    ("Reciprocal", |l, c| unary(l, c, UnaryOp::Reciprocal)),
    ("Relu", |l, c| activation(l, c, Function::Relu)),
    ("Round", |l, c| unary(l, c, UnaryOp::Round)),
    ("Selu", selu),
    ("Shrink", shrink),
    ("Sigmoid", |l, c| activation(l, c, Function::Sigmoid)),
    ("Sign", |l, c| unary(l, c, UnaryOp::Sign)),
    ("Sin", |l, c| unary(l, c, UnaryOp::Sin)),
    ("Softplus", |l, c| activation(l, c, Function::Softplus)),
    ("Softsign", softsign),
    ("Sqrt", |l, c| unary(l, c, UnaryOp::Sqrt)),
    ("Sub", |l, c| binary(l, c, BinaryOp::Sub)),
    ("Sum", |l, c| many(l, c, BinaryOp::Add)),
    ("Swish", |l, c| activation(l, c, Function::Silu)),
    ("Tanh", |l, c| activation(l, c, Function::Tanh)),
    ("ThresholdedRelu", thresholded_relu),
    ("Where", choose),
    ("Xor", xor),
];

impl Lowering {
    pub(super) fn binary(
        &mut self,
        call: &Call<'_>,
        op: BinaryOp,
        a: Value,
        b: Value,
    ) -> Result<Value> {
        self.op(call, Binary(op), &[a, b])
    }

    /// A value with a constant.
    pub(super) fn with_number(
        &mut self,
        call: &Call<'_>,
        op: BinaryOp,
        a: Value,
        b: f64,
    ) -> Result<Value> {
        let b = self.number(call, b);
        self.binary(call, op, a, b)
    }
}

fn unary(lowering: &mut Lowering, call: &Call<'_>, op: UnaryOp) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    Ok(vec![Item::float(lowering.op(call, Unary(op), &[x])?)])
}

fn activation(lowering: &mut Lowering, call: &Call<'_>, function: Function) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    Ok(vec![Item::float(lowering.op(
        call,
        Activation(function),
        &[x],
    )?)])
}

fn binary(lowering: &mut Lowering, call: &Call<'_>, op: BinaryOp) -> Result<Vec<Item>> {
    let a = call.float(lowering, 0)?;
    // Powers may be integers.
    let b = match op {
        BinaryOp::Pow => call.number(lowering, 1)?.0,
        _ => call.float(lowering, 1)?,
    };
    Ok(vec![Item::float(lowering.binary(call, op, a, b)?)])
}

/// All inputs put together from left to right.
fn folded(lowering: &mut Lowering, call: &Call<'_>, op: BinaryOp) -> Result<Value> {
    let mut total = call.float(lowering, 0)?;
    for i in 1..call.inputs.len() {
        let next = call.float(lowering, i)?;
        total = lowering.binary(call, op, total, next)?;
    }
    Ok(total)
}

fn many(lowering: &mut Lowering, call: &Call<'_>, op: BinaryOp) -> Result<Vec<Item>> {
    Ok(vec![Item::float(folded(lowering, call, op)?)])
}

fn mean(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let total = folded(lowering, call, BinaryOp::Add)?;
    let count = call.inputs.len() as f64;
    let mean = lowering.with_number(call, BinaryOp::Mul, total, 1.0 / count)?;
    Ok(vec![Item::float(mean)])
}

/// Whether an operator is one of these.
pub(super) fn knows(operator: &str) -> bool {
    OPERATORS.iter().any(|(name, _)| *name == operator)
}

/// The data type that a cast gives, by its number in files.
fn target(node: &Node) -> Option<i32> {
    match node.attribute("to") {
        Some(Attribute::Int(to)) => i32::try_from(*to).ok(),
        _ => None,
    }
}

/// Whether a cast from `from` changes no number, or makes truth values, so that the device
/// can do it.
pub(super) fn casts_on_device(node: &Node, from: Element) -> bool {
    let stated = target(node);
    if stated.and_then(Small::of).is_some() {
        return false;
    }
    match (from, stated.and_then(Element::of)) {
        (_, Some(Element::F32 | Element::Bool)) | (Element::Bool, Some(_)) => true,
        (from, to) => to == Some(from),
    }
}

/// What becomes a float of 16 bits is rounded to it.
fn cast(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (x, from) = call.number(lowering, 0)?;
    let stated = target(call.node);
    let to = stated.and_then(Element::of);
    let to = to.ok_or_else(|| call.error("casts to a type that is not read"))?;
    if !casts_on_device(call.node, from) {
        return Err(call.error("casts to integers and small floats are done of constants only"));
    }
    let y = match to {
        Element::Bool if from != Element::Bool => {
            let zero = lowering.with_number(call, BinaryOp::Equal, x, 0.0)?;
            lowering.with_number(call, BinaryOp::Equal, zero, 0.0)?
        }
        _ if stated == Some(data_type::FLOAT16) => {
            lowering.op(call, Unary(UnaryOp::ToHalf), &[x])?
        }
        _ if stated == Some(data_type::BFLOAT16) => {
            lowering.op(call, Unary(UnaryOp::ToBfloat16), &[x])?
        }
        _ => x,
    };
    Ok(vec![Item::Device(y, to)])
}

/// Numbers of one type, compared; `order` says which input is which operand.
fn compare(
    lowering: &mut Lowering,
    call: &Call<'_>,
    op: BinaryOp,
    order: [usize; 2],
) -> Result<Vec<Item>> {
    let [first, second] = order;
    let (a, of_a) = call.number(lowering, first)?;
    let (b, of_b) = call.number(lowering, second)?;
    if of_a != of_b {
        return Err(call.error(format!(
            "expected one element type, found {of_a:?} and {of_b:?}"
        )));
    }
    let y = lowering.binary(call, op, a, b)?;
    Ok(vec![Item::Device(y, Element::Bool)])
}

/// A truth value, 0 or 1 on the device.
fn truth(lowering: &mut Lowering, call: &Call<'_>, index: usize) -> Result<Value> {
    match call.number(lowering, index)? {
        (value, Element::Bool) => Ok(value),
        (_, other) => Err(call.error(format!(
            "input {index}: expected truth values, found {other:?}"
        ))),
    }
}

fn logic(lowering: &mut Lowering, call: &Call<'_>, op: BinaryOp) -> Result<Vec<Item>> {
    let [a, b] = [truth(lowering, call, 0)?, truth(lowering, call, 1)?];
    let y = lowering.binary(call, op, a, b)?;
    Ok(vec![Item::Device(y, Element::Bool)])
}

fn xor(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let [a, b] = [truth(lowering, call, 0)?, truth(lowering, call, 1)?];
    let same = lowering.binary(call, BinaryOp::Equal, a, b)?;
    let y = lowering.with_number(call, BinaryOp::Equal, same, 0.0)?;
    Ok(vec![Item::Device(y, Element::Bool)])
}

fn not(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = truth(lowering, call, 0)?;
    let y = lowering.with_number(call, BinaryOp::Equal, x, 0.0)?;
    Ok(vec![Item::Device(y, Element::Bool)])
}

fn choose(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let condition = truth(lowering, call, 0)?;
    let (a, of_a) = call.number(lowering, 1)?;
    let (b, of_b) = call.number(lowering, 2)?;
    if of_a != of_b {
        return Err(call.error(format!(
            "expected one element type, found {of_a:?} and {of_b:?}"
        )));
    }
    let y = lowering.op(call, Select, &[condition, a, b])?;
    Ok(vec![Item::Device(y, of_a)])
}

fn clip(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let bound = |index: usize, name: &str| match call.scalar(index)? {
        Some(value) => Ok(Some(value)),
        None if call.node.attribute(name).is_some() => call.number_attribute(name, 0.0).map(Some),
        None => Ok(None),
    };
    let (low, high) = (bound(1, "min")?, bound(2, "max")?);
    // What has a name is one dispatch, with a gradient.
    let named = match (low, high) {
        (Some(0.0), None) => Some(Function::Relu),
        (Some(0.0), Some(6.0)) => Some(Function::Relu6),
        _ => None,
    };
    if let Some(function) = named {
        return activation(lowering, call, function);
    }
    let mut y = x;
    for (op, bound) in [(BinaryOp::Max, low), (BinaryOp::Min, high)] {
        if let Some(bound) = bound {
            y = lowering.with_number(call, op, y, bound)?;
        }
    }
    Ok(vec![Item::float(y)])
}

fn hard_sigmoid(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let alpha = call.number_attribute("alpha", 0.2)?;
    let beta = call.number_attribute("beta", 0.5)?;
    // Keras's and PyTorch's, whose slope is a sixth.
    if (alpha - 1.0 / 6.0).abs() < 1e-6 && beta == 0.5 {
        return activation(lowering, call, Function::HardSigmoid);
    }
    let x = call.float(lowering, 0)?;
    let y = lowering.with_number(call, BinaryOp::Mul, x, alpha)?;
    let y = lowering.with_number(call, BinaryOp::Add, y, beta)?;
    let y = lowering.with_number(call, BinaryOp::Max, y, 0.0)?;
    let y = lowering.with_number(call, BinaryOp::Min, y, 1.0)?;
    Ok(vec![Item::float(y)])
}

fn selu(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let alpha = call.number_attribute("alpha", 1.673_263_192_176_818_8)?;
    let gamma = call.number_attribute("gamma", 1.050_700_902_938_843)?;
    let x = call.float(lowering, 0)?;
    let y = lowering.op(call, Activation(Function::Elu { alpha }), &[x])?;
    let y = lowering.with_number(call, BinaryOp::Mul, y, gamma)?;
    Ok(vec![Item::float(y)])
}

/// `alpha * elu(x / alpha)`.
fn celu(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let alpha = call.number_attribute("alpha", 1.0)?;
    let x = call.float(lowering, 0)?;
    let y = lowering.with_number(call, BinaryOp::Div, x, alpha)?;
    let y = lowering.op(call, Activation(Function::Elu { alpha: 1.0 }), &[y])?;
    let y = lowering.with_number(call, BinaryOp::Mul, y, alpha)?;
    Ok(vec![Item::float(y)])
}

/// `x` where it is above alpha, else 0.
fn thresholded_relu(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let alpha = call.number_attribute("alpha", 1.0)?;
    let x = call.float(lowering, 0)?;
    let [alpha, zero] = [alpha, 0.0].map(|number| lowering.number(call, number));
    let above = lowering.binary(call, BinaryOp::Less, alpha, x)?;
    let y = lowering.op(call, Select, &[above, x, zero])?;
    Ok(vec![Item::float(y)])
}

/// `x + bias` below -lambd, `x - bias` above lambd, between them 0.
fn shrink(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let limit = call.number_attribute("lambd", 0.5)?;
    let bias = call.number_attribute("bias", 0.0)?;
    let x = call.float(lowering, 0)?;
    let [low, high, zero] = [-limit, limit, 0.0].map(|number| lowering.number(call, number));
    let up = lowering.with_number(call, BinaryOp::Add, x, bias)?;
    let down = lowering.with_number(call, BinaryOp::Sub, x, bias)?;
    let below = lowering.binary(call, BinaryOp::Less, x, low)?;
    let above = lowering.binary(call, BinaryOp::Less, high, x)?;
    let y = lowering.op(call, Select, &[above, down, zero])?;
    let y = lowering.op(call, Select, &[below, up, y])?;
    Ok(vec![Item::float(y)])
}

fn softsign(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let x = call.float(lowering, 0)?;
    let magnitude = lowering.op(call, Unary(UnaryOp::Abs), &[x])?;
    let divisor = lowering.with_number(call, BinaryOp::Add, magnitude, 1.0)?;
    Ok(vec![Item::float(lowering.binary(
        call,
        BinaryOp::Div,
        x,
        divisor,
    )?)])
}

/// Inference, where dropout does nothing, or training.
fn dropout(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let training = call.integers(2)?.is_some_and(|t| t.first() == Some(&1));
    let rate = match call.optional(1) {
        Some(_) => call.scalar(1)?.unwrap_or(0.5),
        None => call.number_attribute("ratio", 0.5)?,
    };
    let x = call.float(lowering, 0)?;
    let dims = lowering.shape(x).dims().to_vec();
    let masked = call
        .node
        .outputs
        .get(1)
        .is_some_and(|name| !name.is_empty());
    let mut outputs = vec![Item::float(x)];
    if training && rate > 0.0 {
        if !(0.0..1.0).contains(&rate) {
            return Err(call.error(format!("ratio: expected below 1, found {rate}")));
        }
        if masked {
            return Err(call.error("the mask of dropout in training is not stored"));
        }
        // Each node has a mask of its own.
        let key = lowering.graph.nodes().len() as u32 + 1;
        let per = Per::Element;
        outputs[0] = Item::float(lowering.op(call, Dropout { per, rate, key }, &[x])?);
    }
    if masked {
        let ones = vec![1; dims.iter().product()];
        outputs.push(Item::Host {
            name: call.node.outputs[1].clone(),
            tensor: Rc::new(Tensor::integers(dims, Element::Bool, ones)),
            given: false,
        });
    }
    Ok(outputs)
}

/// A scale or zero point, broadcast to the input's shape: one number, or one for each place
/// of an axis.
fn by_axis(lowering: &mut Lowering, call: &Call<'_>, index: usize, x: Value) -> Result<Value> {
    let (value, _) = call.number(lowering, index)?;
    let found = lowering.shape(value).dims().to_vec();
    if found.iter().product::<usize>() == 1 {
        return lowering.reshaped(call, value, &[]);
    }
    let dims = lowering.shape(x).dims().to_vec();
    let axis = call.axis(call.int("axis", 1)?, dims.len())?;
    if call.int("block_size", 0)? != 0 {
        return by_block(lowering, call, value, &dims, axis);
    }
    let mut place = vec![1; dims.len() - axis];
    place[0] = dims[axis];
    if found != [dims[axis]] {
        let problem = format!(
            "input {index}: expected one number, or {} along axis {axis}, found {found:?}",
            dims[axis]
        );
        return Err(call.error(problem));
    }
    lowering.reshaped(call, value, &place)
}

/// A number for each block of an axis, repeated to one for each place.
fn by_block(
    lowering: &mut Lowering,
    call: &Call<'_>,
    value: Value,
    dims: &[usize],
    axis: usize,
) -> Result<Value> {
    let block = usize::try_from(call.int("block_size", 0)?).unwrap_or(0);
    let found = lowering.shape(value).dims().to_vec();
    let mut expected = dims.to_vec();
    expected[axis] /= block.max(1);
    if found != expected || found[axis] * block != dims[axis] {
        return Err(call.error(format!(
            "expected a number for each {block} places of axis {axis} of {dims:?}, found {found:?}"
        )));
    }
    let (before, behind) = found.split_at(axis + 1);
    let column = lowering.reshaped(call, value, &[before, &[1], behind].concat())?;
    let whole = lowering.repeated(call, column, [before, &[block], behind].concat())?;
    lowering.reshaped(call, whole, dims)
}

/// The element type of quantised values.
fn quantised(call: &Call<'_>) -> Result<Element> {
    let stated = call.int("output_dtype", 0)?;
    let element = match call.optional(2) {
        Some(Item::Host { tensor, .. }) => Some(tensor.element),
        Some(_) => None,
        None if stated != 0 => Element::of(i32::try_from(stated).unwrap_or(0)),
        None => Some(Element::U8),
    };
    let small = [
        Element::U4,
        Element::I4,
        Element::U8,
        Element::I8,
        Element::U16,
        Element::I16,
    ];
    let element = element.filter(|e| small.contains(e));
    element.ok_or_else(|| call.error("expected integers of 4, 8 or 16 bits as result"))
}

/// `round(x / scale) + zero`, kept within the integers of the type; on the device as floats.
fn quantize(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let element = quantised(call)?;
    let x = call.float(lowering, 0)?;
    let scale = by_axis(lowering, call, 1, x)?;
    let y = lowering.binary(call, BinaryOp::Div, x, scale)?;
    let mut y = lowering.op(call, Unary(UnaryOp::Round), &[y])?;
    if call.optional(2).is_some() {
        let zero = by_axis(lowering, call, 2, x)?;
        y = lowering.binary(call, BinaryOp::Add, y, zero)?;
    }
    let [low, high] = element.range().unwrap_or_default();
    let y = lowering.with_number(call, BinaryOp::Max, y, low as f64)?;
    let y = lowering.with_number(call, BinaryOp::Min, y, high as f64)?;
    Ok(vec![Item::Device(y, element)])
}

/// `(x - zero) * scale`.
fn dequantize(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (mut x, _) = call.number(lowering, 0)?;
    if call.optional(2).is_some() {
        let zero = by_axis(lowering, call, 2, x)?;
        x = lowering.binary(call, BinaryOp::Sub, x, zero)?;
    }
    let scale = by_axis(lowering, call, 1, x)?;
    Ok(vec![Item::float(lowering.binary(
        call,
        BinaryOp::Mul,
        x,
        scale,
    )?)])
}
