//! Numbers put together, compared and converted.

use super::{Call, broadcast, nth};
use crate::error::Result;
use crate::formats::onnx::proto::data_type;
use crate::formats::onnx::small::Small;
use crate::formats::onnx::tensor::{Data, Element, Tensor};
use half::{bf16, f16};
use std::cmp::Ordering;
use std::rc::Rc;

/// A function of two numbers of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
}

impl Arithmetic {
    /// Of integers, before they are wrapped to their type; those of 64 unsigned bits come as
    /// the same bits, signed.
    pub fn of_integers(self, element: Element, a: i64, b: i64) -> i64 {
        let unsigned = element == Element::U64;
        let [wide_a, wide_b] = [a, b].map(|x| x as u64);
        match self {
            Self::Add => a.wrapping_add(b),
            Self::Sub => a.wrapping_sub(b),
            Self::Mul => a.wrapping_mul(b),
            // Division by 0 is not defined; it must not stop the program.
            Self::Div if b == 0 => 0,
            Self::Div if unsigned => (wide_a / wide_b) as i64,
            Self::Div => a.wrapping_div(b),
            Self::Max if unsigned => wide_a.max(wide_b) as i64,
            Self::Max => a.max(b),
            Self::Min if unsigned => wide_a.min(wide_b) as i64,
            Self::Min => a.min(b),
        }
    }

    pub fn of_floats(self, a: f32, b: f32) -> f32 {
        match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Div => a / b,
            Self::Max => a.max(b),
            Self::Min => a.min(b),
        }
    }
}

fn expect_one_type(call: &Call<'_>, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.element == b.element {
        return Ok(());
    }
    Err(call.error(format!(
        "expected one element type, found {:?} and {:?}",
        a.element, b.element
    )))
}

pub(super) fn of_two(
    call: &Call<'_>,
    tensors: &[Rc<Tensor>],
    op: Arithmetic,
) -> Result<Vec<Tensor>> {
    let [a, b] = [nth(call, tensors, 0)?, nth(call, tensors, 1)?];
    expect_one_type(call, a, b)?;
    let (dims, [from_a, from_b]) = broadcast(call, &a.dims, &b.dims)?;
    let places = from_a.into_iter().zip(from_b);
    Ok(vec![match (&a.data, &b.data) {
        (Data::Int(x), Data::Int(y)) => {
            let data = places.map(|(i, j)| op.of_integers(a.element, x[i], y[j]));
            Tensor::integers(dims, a.element, data.collect())
        }
        _ => {
            let (x, y) = (a.to_floats(), b.to_floats());
            let data = places.map(|(i, j)| op.of_floats(x[i], y[j]));
            Tensor::floats(dims, data.collect())
        }
    }])
}

pub(super) fn of_many(
    call: &Call<'_>,
    tensors: &[Rc<Tensor>],
    op: Arithmetic,
) -> Result<Vec<Tensor>> {
    let mut total = tensors[0].clone();
    for next in &tensors[1..] {
        let pair = [total, next.clone()];
        total = Rc::new(of_two(call, &pair, op)?.remove(0));
    }
    Ok(vec![(*total).clone()])
}

/// What a division leaves: with the divisor's sign, or by `fmod` with the dividend's.
pub(super) fn remainder(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let [a, b] = [nth(call, tensors, 0)?, nth(call, tensors, 1)?];
    expect_one_type(call, a, b)?;
    let fmod = call.flag("fmod")?;
    let (dims, [from_a, from_b]) = broadcast(call, &a.dims, &b.dims)?;
    let places = from_a.into_iter().zip(from_b);
    let of_integers = |a: i64, b: i64, unsigned: bool| match (b, unsigned, fmod) {
        // Not defined; it must not stop the program.
        (0, ..) => 0,
        (_, true, _) => (a as u64 % b as u64) as i64,
        (_, _, true) => a.wrapping_rem(b),
        _ => {
            let rest = a.wrapping_rem(b);
            let other_sign = rest != 0 && (rest < 0) != (b < 0);
            if other_sign { rest + b } else { rest }
        }
    };
    Ok(vec![match (&a.data, &b.data) {
        (Data::Int(x), Data::Int(y)) => {
            let unsigned = a.element == Element::U64;
            let data = places.map(|(i, j)| of_integers(x[i], y[j], unsigned));
            Tensor::integers(dims, a.element, data.collect())
        }
        _ if !fmod => return Err(call.error("attribute fmod: expected 1 for floats")),
        _ => {
            let (x, y) = (a.to_floats(), b.to_floats());
            Tensor::floats(dims, places.map(|(i, j)| x[i] % y[j]).collect())
        }
    }])
}

/// A function of one integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnaryInteger {
    Abs,
    Neg,
    Relu,
    Sign,
}

/// A function of integers, or of no elements.
pub(super) fn of_one(tensors: &[Rc<Tensor>], op: UnaryInteger) -> Vec<Tensor> {
    let x = &tensors[0];
    let Some(data) = x.as_integers() else {
        return vec![(**x).clone()];
    };
    let unsigned = x.element == Element::U64;
    let value = |x: i64| match op {
        UnaryInteger::Abs | UnaryInteger::Relu if unsigned => x,
        UnaryInteger::Sign if unsigned => i64::from(x != 0),
        UnaryInteger::Abs => x.wrapping_abs(),
        UnaryInteger::Neg => x.wrapping_neg(),
        UnaryInteger::Relu => x.max(0),
        UnaryInteger::Sign => x.signum(),
    };
    let data = data.iter().map(|x| value(*x)).collect();
    vec![Tensor::integers(x.dims.clone(), x.element, data)]
}

pub(super) fn clip(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let mut y = tensors[0].clone();
    for (index, op) in [(1, Arithmetic::Max), (2, Arithmetic::Min)] {
        if call.optional(index).is_some() {
            let bound = call.known(index)?.clone();
            y = Rc::new(of_two(call, &[y, bound], op)?.remove(0));
        }
    }
    Ok(vec![(*y).clone()])
}

/// A power of an integer, of which the exponent may be of another type. Whole ones wrap
/// round; others are computed in 64-bit floats, as NumPy does, and cut off.
pub(super) fn power(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let [a, b] = [nth(call, tensors, 0)?, nth(call, tensors, 1)?];
    let (dims, [from_a, from_b]) = broadcast(call, &a.dims, &b.dims)?;
    let Some(bases) = a.as_integers() else {
        // There are none.
        return Ok(vec![Tensor::floats(dims, Vec::new())]);
    };
    let real = |base: i64, exponent: f64| (base as f64).powf(exponent) as i64;
    let value = |i: usize, j: usize| match &b.data {
        Data::Int(exponents) => match u64::try_from(exponents[j]) {
            Ok(exponent) => whole_power(bases[i], exponent),
            Err(_) => real(bases[i], exponents[j] as f64),
        },
        Data::Float(exponents) => real(bases[i], f64::from(exponents[j])),
    };
    let places = from_a.into_iter().zip(from_b);
    let data = places.map(|(i, j)| value(i, j)).collect();
    Ok(vec![Tensor::integers(dims, a.element, data)])
}

fn whole_power(mut base: i64, mut exponent: u64) -> i64 {
    let mut power = 1i64;
    while exponent > 0 {
        if exponent % 2 == 1 {
            power = power.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        exponent /= 2;
    }
    power
}

/// Comparisons, exact for all types; with NaN there is no order.
pub(super) fn compare(
    call: &Call<'_>,
    tensors: &[Rc<Tensor>],
    holds: fn(Option<Ordering>) -> bool,
) -> Result<Vec<Tensor>> {
    let [a, b] = [nth(call, tensors, 0)?, nth(call, tensors, 1)?];
    expect_one_type(call, a, b)?;
    let (dims, [from_a, from_b]) = broadcast(call, &a.dims, &b.dims)?;
    let order = |i: usize, j: usize| match (&a.data, &b.data) {
        (Data::Int(x), Data::Int(y)) if a.element == Element::U64 => {
            Some((x[i] as u64).cmp(&(y[j] as u64)))
        }
        (Data::Int(x), Data::Int(y)) => Some(x[i].cmp(&y[j])),
        (Data::Float(x), Data::Float(y)) => x[i].partial_cmp(&y[j]),
        _ => None,
    };
    let places = from_a.into_iter().zip(from_b);
    let data = places.map(|(i, j)| i64::from(holds(order(i, j))));
    Ok(vec![Tensor::integers(dims, Element::Bool, data.collect())])
}

fn truths(call: &Call<'_>, tensor: &Tensor) -> Result<Vec<bool>> {
    match &tensor.data {
        Data::Int(data) if tensor.element == Element::Bool => {
            Ok(data.iter().map(|x| *x != 0).collect())
        }
        _ => Err(call.error(format!("expected truth values, found {:?}", tensor.element))),
    }
}

pub(super) fn logic(
    call: &Call<'_>,
    tensors: &[Rc<Tensor>],
    holds: fn(bool, bool) -> bool,
) -> Result<Vec<Tensor>> {
    let [a, b] = [nth(call, tensors, 0)?, nth(call, tensors, 1)?];
    let (dims, [from_a, from_b]) = broadcast(call, &a.dims, &b.dims)?;
    let (x, y) = (truths(call, a)?, truths(call, b)?);
    let places = from_a.into_iter().zip(from_b);
    let data = places.map(|(i, j)| i64::from(holds(x[i], y[j])));
    Ok(vec![Tensor::integers(dims, Element::Bool, data.collect())])
}

pub(super) fn not(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let x = nth(call, tensors, 0)?;
    let data = truths(call, x)?.into_iter().map(|x| i64::from(!x));
    let dims = x.dims.clone();
    Ok(vec![Tensor::integers(dims, Element::Bool, data.collect())])
}

pub(super) fn cast(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let x = nth(call, tensors, 0)?;
    let stated = i32::try_from(call.int("to", 0)?).unwrap_or(0);
    let to = Element::of(stated);
    let to = to.ok_or_else(|| call.error("casts to a type that is not read"))?;
    let dims = x.dims.clone();
    Ok(vec![match (&x.data, to) {
        (_, Element::F32) => {
            let (small, saturate) = (Small::of(stated), call.int("saturate", 1)? != 0);
            if small == Some(Small::E8M0) && call.text("round_mode", "up")? != "up" {
                return Err(call.error("attribute round_mode: expected \"up\""));
            }
            let round = |x: f32| match stated {
                _ if small.is_some() => small.map_or(x, |s| s.round(x, saturate)),
                data_type::FLOAT16 => f16::from_f32(x).to_f32(),
                data_type::BFLOAT16 => bf16::from_f32(x).to_f32(),
                _ => x,
            };
            Tensor::floats(dims, x.to_floats().into_iter().map(round).collect())
        }
        (Data::Int(data), Element::Bool) => {
            let data = data.iter().map(|x| i64::from(*x != 0));
            Tensor::integers(dims, to, data.collect())
        }
        (Data::Int(data), _) => Tensor::integers(dims, to, data.clone()),
        (Data::Float(data), Element::Bool) => {
            let data = data.iter().map(|x| i64::from(*x != 0.0));
            Tensor::integers(dims, to, data.collect())
        }
        // Towards zero, and kept within 64 bits.
        (Data::Float(data), Element::U64) => {
            Tensor::integers(dims, to, data.iter().map(|x| *x as u64 as i64).collect())
        }
        (Data::Float(data), _) => {
            Tensor::integers(dims, to, data.iter().map(|x| *x as i64).collect())
        }
    }])
}

/// `(x - zero) * scale` of constants: quantised weights.
pub(super) fn dequantize(call: &Call<'_>, tensors: &[Rc<Tensor>]) -> Result<Vec<Tensor>> {
    let [x, scale] = [nth(call, tensors, 0)?, nth(call, tensors, 1)?];
    let scales = scale.to_floats();
    let zeros = match tensors.get(2) {
        Some(zero) => zero.to_floats(),
        None => vec![0.0; scales.len()],
    };
    let (extent, inner) = if scales.len() == 1 {
        (1, x.len())
    } else {
        let axis = call.axis(call.int("axis", 1)?, x.dims.len())?;
        (x.dims[axis], x.dims[axis + 1..].iter().product())
    };
    if scales.len() != extent || zeros.len() != extent {
        return Err(call.error(format!("expected {extent} scales and zero points")));
    }
    let data = x.to_floats().into_iter().enumerate().map(|(i, x)| {
        let at = i / inner.max(1) % extent;
        (x - zeros[at]) * scales[at]
    });
    Ok(vec![Tensor::floats(x.dims.clone(), data.collect())])
}
