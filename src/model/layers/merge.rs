//! Layers that join branches.

use crate::error::Result;
use crate::model::layer::{Lower, Lowering};
use crate::model::values;
use crate::ops::Value;
use crate::ops::activation::Function;
use crate::ops::binary::{Binary, BinaryOp};
use crate::tensor::Shape;
use serde::{Deserialize, Serialize};

/// The sum of two or more inputs of the same shape: the end of a residual block (He et
/// al. 2015).
///
/// In a model file the branches are named:
/// ```toml
/// [[layer]]
/// type = "add"
/// inputs = ["conv1", "conv3"]
/// activation = "relu"
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Add {
    /// Applied to the sum; none.
    #[serde(default, with = "values::function")]
    pub activation: Function,
}

impl Lower for Add {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        let sum = merged(lowering, BinaryOp::Add, inputs)?;
        lowering.activation(self.activation, sum)
    }
}

/// The product, element by element, of two or more inputs of the same shape: a gate. An
/// input [N, C, 1, 1] is one factor a channel, as in squeeze-and-excitation (Hu et al. 2018).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mul {}

impl Lower for Mul {
    fn lower(&self, lowering: &mut Lowering<'_>, inputs: &[Value]) -> Result<Value> {
        merged(lowering, BinaryOp::Mul, inputs)
    }
}

/// The inputs put together from left to right.
fn merged(lowering: &mut Lowering<'_>, op: BinaryOp, inputs: &[Value]) -> Result<Value> {
    let [first, second, rest @ ..] = inputs else {
        let problem = format!("expected 2 or more inputs, found {}", inputs.len());
        return Err(lowering.error(problem));
    };
    let expected = lowering.shape(*first);
    for input in &inputs[1..] {
        let found = lowering.shape(*input);
        if found != expected && !(op == BinaryOp::Mul && is_gate(&expected, &found)) {
            let problem = format!("expected inputs of one shape, found {expected} and {found}");
            return Err(lowering.error(problem));
        }
    }
    let mut total = lowering.op(Binary(op), &[*first, *second])?;
    for input in rest {
        total = lowering.op(Binary(op), &[total, *input])?;
    }
    Ok(total)
}

/// Whether one of two shapes is [N, C, 1, 1] and the other's images have as many channels.
fn is_gate(a: &Shape, b: &Shape) -> bool {
    let gate = |g: &Shape, x: &Shape| {
        g.rank() == 4 && x.rank() == 4 && g.dims()[2..] == [1, 1] && g.dims()[..2] == x.dims()[..2]
    };
    gate(a, b) || gate(b, a)
}

#[cfg(test)]
mod tests {
    use crate::model::{Add, Conv2d, Dense, Flatten, Model, Mul, Pad};
    use crate::ops::activation::Function;

    #[test]
    fn merge_layers_take_several_inputs_and_survive_a_model_file() {
        let mut b = Model::builder("gated", [2, 4, 4]);
        let x = b.layer(Conv2d::new(3, 3).padding(Pad::Same), &[b.input()]);
        let y = b.layer(Conv2d::new(3, 3).padding(Pad::Same), &[b.input()]);
        let z = b.layer(Mul {}, &[x.clone(), y.clone()]);
        let activation = Function::Relu;
        let z = b.layer(Add { activation }, &[x, y, z]);
        let z = b.layer(Flatten, &[z]);
        b.layer(Dense::new(2), &[z]);
        let model = b.build().unwrap();
        assert_eq!(model.layers()[3].name, "add1");
        let text = model.to_toml().unwrap();
        assert_eq!(Model::from_toml(&text, "gated").unwrap(), model);
    }

    #[test]
    fn inputs_that_do_not_fit_are_errors_that_name_the_layer() {
        let mut b = Model::builder("broken", [2, 4, 4]);
        let x = b.layer(Conv2d::new(3, 3), &[b.input()]);
        let one = b.clone().add(Add::default()).build().unwrap_err();
        assert!(one.to_string().contains("add1: expected 2"), "{one}");
        b.layer(Mul {}, &[b.input(), x]);
        let shapes = b.build().unwrap_err().to_string();
        let both = shapes.contains("[1, 2, 4, 4]") && shapes.contains("[1, 3, 2, 2]");
        assert!(both && shapes.contains("mul1"), "{shapes}");
    }
}
