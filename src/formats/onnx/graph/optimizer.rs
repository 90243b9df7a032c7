//! Optimizers, of ONNX's domain for training.

use super::call::Call;
use super::{Item, Lowering, Write};
use crate::error::Result;
use crate::ops::binary::BinaryOp;
use crate::ops::optimizer::{Optimizer, Rule, Update};
use crate::ops::{Array, Value};

pub(super) const DOMAIN: &str = "ai.onnx.preview.training";

pub(super) const OPERATORS: &[(&str, Write)] =
    &[("Adagrad", adagrad), ("Adam", adam), ("Momentum", momentum)];

/// Learning rate and steps taken, an optimizer's first two inputs.
fn progress(call: &Call<'_>) -> Result<(f64, u32)> {
    let rate = call.scalar(0)?.unwrap_or_default();
    let taken = call.integers(1)?.unwrap_or_default();
    match taken[..] {
        [taken] if u32::try_from(taken).is_ok() => Ok((rate, taken as u32)),
        _ => Err(call.error(format!(
            "expected the number of steps taken, found {taken:?}"
        ))),
    }
}

impl Lowering {
    /// Sets the learning rate, which all optimizers of a graph share, and with Adam the bias
    /// corrections, which all of Adam's share.
    fn set_step(
        &mut self,
        call: &Call<'_>,
        rate: f64,
        corrections: Option<(f64, f64)>,
    ) -> Result<()> {
        let same_rate = *self.rate.get_or_insert(rate) == rate;
        let same_corrections = corrections.is_none_or(|c| *self.corrections.get_or_insert(c) == c);
        if same_rate && same_corrections {
            return Ok(());
        }
        Err(call.error(
            "has another learning rate, or bias correction, than an optimizer before it; \
             expected one for the whole graph",
        ))
    }

    /// A copy of a value that an op may change in place.
    pub(super) fn copied(&mut self, call: &Call<'_>, value: Value) -> Result<Value> {
        let ty = self.graph.value(value).ty.clone();
        let name = format!("{}/updated", call.node.name);
        let state = self.constant(&name, Array::zeros(ty));
        self.graph.store(value, state)?;
        Ok(state)
    }
}

/// Updates each of a node's tensors. Its inputs are rate and steps, then all parameters, all
/// gradients and the states, one kind after the other; its outputs the new parameters and
/// states in that order. Our states are ONNX's times `factor`.
fn update(
    lowering: &mut Lowering,
    call: &Call<'_>,
    optimizer: Optimizer,
    factor: f64,
) -> Result<Vec<Item>> {
    let states = optimizer.rule.states().len();
    let tensors = call.inputs.len().saturating_sub(2) / (2 + states);
    if tensors == 0 || call.inputs.len() != 2 + tensors * (2 + states) {
        return Err(call.error(format!("cannot share out {} inputs", call.inputs.len())));
    }
    let mut outputs = vec![Vec::new(); 2 + states];
    for tensor in 0..tensors {
        let mut values = Vec::new();
        for (kind, output) in outputs.iter_mut().enumerate() {
            let mut value = call.float(lowering, 2 + kind * tensors + tensor)?;
            if kind >= 2 && factor != 1.0 {
                value = lowering.with_number(call, BinaryOp::Mul, value, factor)?;
            }
            if kind != 1 {
                value = lowering.copied(call, value)?;
            }
            output.push(value);
            values.push(value);
        }
        lowering.ops(call, Update::new(optimizer), &values)?;
    }
    let mut items = Vec::new();
    for (kind, values) in outputs
        .into_iter()
        .enumerate()
        .filter(|(kind, _)| *kind != 1)
    {
        for mut value in values {
            if kind >= 2 && factor != 1.0 {
                value = lowering.with_number(call, BinaryOp::Mul, value, 1.0 / factor)?;
            }
            items.push(Item::float(value));
        }
    }
    Ok(items)
}

fn optimizer(call: &Call<'_>, rule: Rule) -> Result<Optimizer> {
    let weight_decay = call.number_attribute("norm_coefficient", 0.0)?;
    Ok(Optimizer {
        matrices: None,
        rule,
        weight_decay,
    })
}

/// ONNX adds epsilon to the root, Keras and we to what is below it: with a small epsilon the
/// same.
fn adagrad(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (rate, taken) = progress(call)?;
    let epsilon = call.number_attribute("epsilon", 1e-6)?;
    let decay = call.number_attribute("decay_factor", 0.0)?;
    let optimizer = optimizer(call, Rule::Adagrad { epsilon })?;
    lowering.set_step(call, rate / (1.0 + f64::from(taken) * decay), None)?;
    update(lowering, call, optimizer, 1.0)
}

fn adam(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (rate, taken) = progress(call)?;
    if call.number_attribute("norm_coefficient_post", 0.0)? != 0.0 {
        return Err(call.error("norm_coefficient_post is not built; expected 0"));
    }
    let rule = Rule::Adam {
        beta1: call.number_attribute("alpha", 0.9)?,
        beta2: call.number_attribute("beta", 0.999)?,
        epsilon: call.number_attribute("epsilon", 1e-6)?,
        decoupled: false,
    };
    let optimizer = optimizer(call, rule)?;
    // ONNX corrects no bias in step 0.
    let corrections = match taken {
        0 => (1.0, 1.0),
        taken => optimizer.corrections(taken),
    };
    lowering.set_step(call, rate, Some(corrections))?;
    update(lowering, call, optimizer, 1.0)
}

fn momentum(lowering: &mut Lowering, call: &Call<'_>) -> Result<Vec<Item>> {
    let (rate, taken) = progress(call)?;
    let beta = call.number_attribute("beta", 1.0)?;
    // From step 1 on ONNX scales the gradient by beta, which neither Keras nor we do.
    if taken > 0 && beta != 1.0 {
        return Err(call.error(format!("attribute beta: expected 1, found {beta}")));
    }
    if rate == 0.0 {
        return Err(call.error("a learning rate of 0"));
    }
    let rule = Rule::Momentum {
        momentum: call.number_attribute("alpha", 0.0)?,
        nesterov: call.text("mode", "standard")? == "nesterov",
    };
    // Our velocity is a step, ONNX's a sum of gradients.
    let optimizer = optimizer(call, rule)?;
    lowering.set_step(call, rate, None)?;
    update(lowering, call, optimizer, -rate)
}
