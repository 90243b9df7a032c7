//! A node with what it reads, and its attributes by type.

use super::{Item, Lowering};
use crate::error::{Error, Result};
use crate::formats::onnx::read::{Attribute, Node};
use crate::formats::onnx::tensor::{Data, Element, Tensor};
use crate::ops::Value;
use std::rc::Rc;

/// A node that is being written.
pub(super) struct Call<'a> {
    pub node: &'a Node,
    pub opset: i64,
    pub inputs: Vec<Option<Item>>,
}

/// Integers up to this are exact as f32.
const EXACT: u64 = 1 << 24;

impl Call<'_> {
    pub fn error(&self, problem: impl Into<String>) -> Error {
        Error::shape(self.node.label(), problem)
    }

    /// An input that may be left out.
    pub fn optional(&self, index: usize) -> Option<&Item> {
        self.inputs.get(index).and_then(Option::as_ref)
    }

    /// An input that must be there.
    pub fn input(&self, index: usize) -> Result<&Item> {
        self.optional(index)
            .ok_or_else(|| self.error(format!("input {index} is missing")))
    }

    /// An input of floats, on the device.
    pub fn float(&self, lowering: &mut Lowering, index: usize) -> Result<Value> {
        match self.number(lowering, index)? {
            (value, Element::F32) => Ok(value),
            (_, other) => Err(self.error(format!(
                "input {index}: expected floats, found {other:?} on the device"
            ))),
        }
    }

    /// An input of floats or of integers that floats hold exactly, on the device.
    pub fn number(&self, lowering: &mut Lowering, index: usize) -> Result<(Value, Element)> {
        match self.input(index)? {
            Item::Device(value, element) => Ok((*value, *element)),
            Item::Host { name, tensor, .. } => {
                super::check_count(&self.node.label(), &tensor.dims)?;
                if let Data::Int(data) = &tensor.data
                    && data.iter().any(|x| x.unsigned_abs() > EXACT)
                {
                    let problem = format!("input {index}: integers beyond 2^24 on the device");
                    return Err(self.error(problem));
                }
                let value = lowering.on_device(name, tensor);
                Ok((value, tensor.element))
            }
            Item::Indices { .. } => Err(self.error(format!(
                "input {index}: the indices of a max pool can only be an output of the model"
            ))),
        }
    }

    /// An input that is known on the host.
    pub fn known(&self, index: usize) -> Result<&Rc<Tensor>> {
        match self.input(index)? {
            Item::Host { tensor, .. } => Ok(tensor),
            _ => Err(self.error(format!(
                "input {index}: expected a constant, found what the device computes"
            ))),
        }
    }

    /// The integers of an input, where it is there.
    pub fn integers(&self, index: usize) -> Result<Option<Vec<i64>>> {
        if self.optional(index).is_none() {
            return Ok(None);
        }
        let tensor = self.known(index)?;
        match tensor.as_integers() {
            Some(data) => Ok(Some(data.to_vec())),
            None => Err(self.error(format!("input {index}: expected integers, found floats"))),
        }
    }

    /// The one number of an input, where it is there.
    pub fn scalar(&self, index: usize) -> Result<Option<f64>> {
        if self.optional(index).is_none() {
            return Ok(None);
        }
        match self.known(index)?.to_floats()[..] {
            [x] => Ok(Some(x.into())),
            ref many => Err(self.error(format!(
                "input {index}: expected one number, found {}",
                many.len()
            ))),
        }
    }

    fn wrong(&self, name: &str, expected: &str) -> Error {
        self.error(format!("attribute {name}: expected {expected}"))
    }

    /// An integer attribute, where it is there.
    pub fn stated(&self, name: &str) -> Result<Option<i64>> {
        match self.node.attribute(name) {
            None => Ok(None),
            Some(Attribute::Int(i)) => Ok(Some(*i)),
            Some(_) => Err(self.wrong(name, "an integer")),
        }
    }

    /// An integer attribute.
    pub fn int(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.stated(name)?.unwrap_or(default))
    }

    /// An attribute that is 0 or 1.
    pub fn flag(&self, name: &str) -> Result<bool> {
        Ok(self.int(name, 0)? != 0)
    }

    /// A float attribute.
    pub fn number_attribute(&self, name: &str, default: f64) -> Result<f64> {
        match self.node.attribute(name) {
            None => Ok(default),
            Some(Attribute::Float(f)) if f.is_finite() => Ok(f64::from(*f)),
            Some(_) => Err(self.wrong(name, "a finite float")),
        }
    }

    /// A text attribute.
    pub fn text(&self, name: &str, default: &str) -> Result<String> {
        match self.node.attribute(name) {
            None => Ok(default.into()),
            Some(Attribute::Text(text)) => Ok(text.clone()),
            Some(_) => Err(self.wrong(name, "a text")),
        }
    }

    /// A list of integers, where it is there.
    pub fn ints(&self, name: &str) -> Result<Option<Vec<i64>>> {
        match self.node.attribute(name) {
            None => Ok(None),
            Some(Attribute::Ints(ints)) => Ok(Some(ints.clone())),
            Some(_) => Err(self.wrong(name, "a list of integers")),
        }
    }

    /// A list of integers that is an attribute in old versions and an input in new ones.
    pub fn attribute_or_input(&self, name: &str, index: usize) -> Result<Option<Vec<i64>>> {
        match self.ints(name)? {
            Some(ints) => Ok(Some(ints)),
            None => self.integers(index),
        }
    }

    /// An axis of a tensor of `rank` axes; negative ones count from the end.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let counted = if axis < 0 { axis + rank as i64 } else { axis };
        let found = usize::try_from(counted).ok().filter(|a| *a < rank);
        found.ok_or_else(|| self.error(format!("there is no axis {axis} among {rank}")))
    }

    /// Axes, sorted and each once.
    pub fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>> {
        let found = axes.iter().map(|a| self.axis(*a, rank));
        let mut found = found.collect::<Result<Vec<_>>>()?;
        found.sort_unstable();
        let twice = found.windows(2).any(|pair| pair[0] == pair[1]);
        if twice {
            return Err(self.error(format!("axes {axes:?} name one twice")));
        }
        Ok(found)
    }
}
