//! Functions of two tensors, element by element, with broadcasting.

pub(super) mod broadcast;
mod fold_to;
mod sum_to;

pub use fold_to::{Fold, FoldTo};
pub use sum_to::SumTo;

use super::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    expect_inputs, expect_type, fill, reshape,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::{Shape, TensorType};
use broadcast::{RANK, axes, broadcast, draw_operand, strides};

const FORWARD: ShaderFile = shader!("binary/forward.wgsl");
const FUNCTIONS: ShaderFile = shader!("binary/functions.wgsl");
const WORKGROUP: usize = 64;

/// The ops of this folder.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "add",
        sample: |draw| sample(BinaryOp::Add, draw),
    },
    Entry {
        name: "sub",
        sample: |draw| sample(BinaryOp::Sub, draw),
    },
    Entry {
        name: "mul",
        sample: |draw| sample(BinaryOp::Mul, draw),
    },
    Entry {
        name: "div",
        sample: |draw| sample(BinaryOp::Div, draw),
    },
    Entry {
        name: "min",
        sample: |draw| sample(BinaryOp::Min, draw),
    },
    Entry {
        name: "max",
        sample: |draw| sample(BinaryOp::Max, draw),
    },
    Entry {
        name: "pow",
        sample: |draw| sample(BinaryOp::Pow, draw),
    },
    Entry {
        name: "less",
        sample: |draw| sample_comparison(BinaryOp::Less, draw),
    },
    Entry {
        name: "less_or_equal",
        sample: |draw| sample_comparison(BinaryOp::LessOrEqual, draw),
    },
    Entry {
        name: "equal",
        sample: |draw| sample_comparison(BinaryOp::Equal, draw),
    },
    Entry {
        name: "prelu",
        sample: |draw| sample(BinaryOp::PRelu, draw),
    },
    Entry {
        name: "prelu_slope",
        sample: |draw| sample(BinaryOp::PReluSlope, draw),
    },
    sum_to::ENTRY,
    fold_to::ENTRIES[0],
    fold_to::ENTRIES[1],
    fold_to::ENTRIES[2],
];

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a * b`.
    Mul,
    /// `a / b`.
    Div,
    /// The smaller of both; without a gradient.
    Min,
    /// The larger of both; without a gradient.
    Max,
    /// `a^b`; of a negative `a` with integers `b` only. Without a gradient.
    Pow,
    /// 1 where `a < b`, else 0. Its gradient, as that of the next two, is zero.
    Less,
    /// 1 where `a <= b`, else 0.
    LessOrEqual,
    /// 1 where `a = b`, else 0.
    Equal,
    /// `a` where positive, else `b * a`: leaky ReLU with learned slopes (He et al. 2015).
    PRelu,
    /// 1 where `a` is positive, else `b`: the derivative of [`PRelu`](Self::PRelu) by `a`.
    PReluSlope,
}

impl BinaryOp {
    /// Whether the result is a truth value, 0 or 1.
    fn compares(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual | Self::Equal)
    }

    fn value(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Div => a / b,
            Self::Min => a.min(b),
            Self::Max => a.max(b),
            Self::Pow => a.powf(b),
            Self::Less => f64::from(a < b),
            Self::LessOrEqual => f64::from(a <= b),
            Self::Equal => f64::from(a == b),
            Self::PRelu if a <= 0.0 => b * a,
            Self::PRelu => a,
            Self::PReluSlope if a <= 0.0 => b,
            Self::PReluSlope => 1.0,
        }
    }

    /// Before it is summed to the operand's shape, dL/da (`operand` 0) or dL/db (1).
    fn gradient(
        self,
        builder: &mut dyn Builder,
        operand: usize,
        [a, b]: [Value; 2],
        [y, dy]: [Value; 2],
    ) -> Result<Value> {
        let mut op = |op, a, b| builder.add1(Box::new(Binary(op)), &[a, b]);
        match (self, operand) {
            (Self::Add, _) | (Self::Sub, 0) => Ok(dy),
            (Self::Sub, _) => times(builder, dy, -1.0),
            (Self::Mul, 0) => op(Self::Mul, dy, b),
            (Self::Mul, _) => op(Self::Mul, dy, a),
            (Self::Div, 0) => op(Self::Div, dy, b),
            (Self::Div, _) => {
                let product = op(Self::Mul, dy, y)?;
                let quotient = op(Self::Div, product, b)?;
                times(builder, quotient, -1.0)
            }
            (Self::PRelu, 0) => {
                let slope = op(Self::PReluSlope, a, b)?;
                op(Self::Mul, dy, slope)
            }
            (Self::PRelu, _) => {
                // min(a, 0), so that the slope counts where it was used.
                let zero = constant(builder, 0.0)?;
                let negative = builder.add1(Box::new(Binary(Self::Min)), &[a, zero])?;
                builder.add1(Box::new(Binary(Self::Mul)), &[dy, negative])
            }
            (
                Self::Min
                | Self::Max
                | Self::Pow
                | Self::PReluSlope
                | Self::Less
                | Self::LessOrEqual
                | Self::Equal,
                _,
            ) => Err(Error::shape(
                Binary(self).name(),
                "has no gradient rule; it cannot stand between a parameter and the loss",
            )),
        }
    }
}

pub(super) fn constant(builder: &mut dyn Builder, value: f32) -> Result<Value> {
    let shape = Shape::default();
    builder.add1(Box::new(fill::Fill { shape, value }), &[])
}

fn times(builder: &mut dyn Builder, value: Value, factor: f32) -> Result<Value> {
    let factor = constant(builder, factor)?;
    builder.add1(Box::new(Binary(BinaryOp::Mul)), &[value, factor])
}

/// `y = a op b`, element by element.
///
/// Inputs: `a` and `b`, f32 of up to 6 axes. Output: `y`, f32 of the shape both
/// broadcast to by NumPy's rule, which is also ONNX's: shapes are aligned at their last
/// axis, and an axis that is missing or has extent 1 is repeated. Elsewhere extents must
/// be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binary(pub BinaryOp);

impl Op for Binary {
    fn name(&self) -> &'static str {
        match self.0 {
            BinaryOp::Add => "add",
            BinaryOp::Sub => "sub",
            BinaryOp::Mul => "mul",
            BinaryOp::Div => "div",
            BinaryOp::Min => "min",
            BinaryOp::Max => "max",
            BinaryOp::Pow => "pow",
            BinaryOp::Less => "less",
            BinaryOp::LessOrEqual => "less_or_equal",
            BinaryOp::Equal => "equal",
            BinaryOp::PRelu => "prelu",
            BinaryOp::PReluSlope => "prelu_slope",
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2)?;
        let [a, b] = [&inputs[0].shape, &inputs[1].shape];
        expect_type(self, "a", &TensorType::f32(a.clone()), &inputs[0])?;
        expect_type(self, "b", &TensorType::f32(b.clone()), &inputs[1])?;
        match broadcast(a, b) {
            Some(y) if y.rank() <= RANK && !y.is_empty() => Ok(vec![TensorType::f32(y)]),
            _ => Err(Error::shape(
                self.name(),
                format!(
                    "cannot broadcast {a} and {b} to each other: expected at most {RANK} axes, \
                     no extent of 0, and from the last axis on equal extents or 1"
                ),
            )),
        }
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let Some(dy) = upstream[0].filter(|_| !self.0.compares()) else {
            return Ok(vec![None, None]);
        };
        let mut gradients = vec![None; 2];
        for (i, gradient) in gradients.iter_mut().enumerate() {
            if !node.wanted[i] {
                continue;
            }
            let operands = [node.inputs[0], node.inputs[1]];
            let whole = self
                .0
                .gradient(builder, i, operands, [node.outputs[0], dy])?;
            let shape = builder.ty(node.inputs[i]).shape.clone();
            *gradient = Some(sum_to(builder, whole, shape)?);
        }
        Ok(gradients)
    }

    fn reference(&self, io: Reference<'_>) {
        let [a, b] = [io.inputs[0], io.inputs[1]];
        let y = &io.outputs[0].ty().shape;
        let (dims, own) = (y.dims().to_vec(), y.strides());
        let [to_a, to_b] = [a, b].map(|operand| strides(&operand.ty().shape, y));
        for (i, y) in io.outputs[0].f_mut().iter_mut().enumerate() {
            let at = |strides: &[usize]| -> usize {
                let axes = 0..dims.len();
                axes.map(|k| i / own[k] % dims[k] * strides[k]).sum()
            };
            let (a, b) = (a.f()[at(&to_a)], b.f()[at(&to_b)]);
            *y = self.0.value(a, b);
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        const EXTENTS: [&str; RANK - 1] = ["D1", "D2", "D3", "D4", "D5"];
        const STRIDES: [[&str; RANK]; 2] = [
            ["A0", "A1", "A2", "A3", "A4", "A5"],
            ["B0", "B1", "B2", "B3", "B4", "B5"],
        ];
        let y = &context.outputs[0].shape;
        let [a, b] = [&context.inputs[0].shape, &context.inputs[1].shape];
        let mut kernel = Kernel::new(FORWARD)
            .hook("combine", FUNCTIONS, self.shader_name())
            .set("WORKGROUP", WORKGROUP)
            .set("LEN", y.len())
            .set("A_WHOLE", a.len() == y.len())
            .set("B_WHOLE", b.len() == y.len());
        let axes = axes(y, [a, b]);
        // The shader's outermost axes, which are left out, keep extent 1.
        for (i, axis) in (RANK - axes.len()..RANK).zip(axes) {
            if i > 0 {
                kernel = kernel.set(EXTENTS[i - 1], axis.extent);
            }
            for (names, stride) in STRIDES.iter().zip(axis.strides) {
                kernel = kernel.set(names[i], stride);
            }
        }
        let bindings = vec![
            ("a", Arg::Input(0)),
            ("b", Arg::Input(1)),
            ("y", Arg::Output(0)),
        ];
        let groups = y.len().div_ceil(4).div_ceil(WORKGROUP);
        Ok(Dispatch::linear(kernel, bindings, groups).into())
    }
}

impl Binary {
    fn shader_name(self) -> &'static str {
        match self.0 {
            // WGSL's own functions have these names.
            BinaryOp::Min => "smaller",
            BinaryOp::Max => "larger",
            BinaryOp::Pow => "power",
            _ => self.name(),
        }
    }
}

/// The gradient of a tensor of `shape` from that of what it was broadcast to; the same
/// value where nothing was repeated.
pub(super) fn sum_to(builder: &mut dyn Builder, dy: Value, shape: Shape) -> Result<Value> {
    let whole = &builder.ty(dy).shape;
    if *whole == shape {
        Ok(dy)
    } else if whole.len() == shape.len() {
        builder.add1(Box::new(reshape::Reshape { shape }), &[dy])
    } else {
        builder.add1(Box::new(SumTo { shape }), &[dy])
    }
}

/// A random shape of up to 6 axes and some hundred elements.
pub(super) fn draw_shape(draw: &mut Draw) -> Shape {
    let rank = draw.int(0, RANK);
    let most = draw.pick(&[2, 3]);
    Shape::new((0..rank).map(|_| draw.int(1, most)).collect::<Vec<_>>())
}

/// Shapes of two operands.
fn draw_operands(draw: &mut Draw) -> (Shape, Shape) {
    let (a, b) = match draw.int(0, 4) {
        // Equal shapes, more than a workgroup's.
        0 => {
            let shape = Shape::from([draw.int(1, 9), draw.int(1, 9), draw.int(1, 40)]);
            (shape.clone(), shape)
        }
        // A number for each channel.
        1 => {
            let [n, c, h, w] = [1, 1, 2, 2].map(|low| draw.int(low, 9));
            (Shape::from([n, c, h, w]), Shape::from([c, 1, 1]))
        }
        // Both are broadcast.
        2 => (
            [draw.int(2, 20), 1].into(),
            [draw.int(1, 4), 1, draw.int(2, 20)].into(),
        ),
        _ => {
            let whole = draw_shape(draw);
            (draw_operand(draw, &whole), draw_operand(draw, &whole))
        }
    };
    if draw.coin() { (a, b) } else { (b, a) }
}

fn sample_comparison(op: BinaryOp, draw: &mut Draw) -> Sample {
    let (a, b) = draw_operands(draw);
    let types = [a, b].map(TensorType::f32);
    let sample = |fills: [Fill; 2]| {
        let inputs = types.into_iter().zip(fills).collect();
        Sample::new(Binary(op), inputs, Tolerance::EXACT)
    };
    match draw.coin() {
        // Ties, at which there is no derivative.
        true => sample([Fill::Levels(3), Fill::Levels(3)]).without_gradient(),
        false => sample([Fill::Levels(2), Fill::Uniform(-0.9, 0.9)]),
    }
}

fn sample(op: BinaryOp, draw: &mut Draw) -> Sample {
    let (a, b) = draw_operands(draw);
    let positive = Fill::Uniform(0.25, 2.0);
    let (fills, tolerance) = match op {
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul => {
            ([Fill::UNIT, Fill::UNIT], Tolerance::sum(1, 1.0))
        }
        BinaryOp::Div => ([Fill::UNIT, positive], Tolerance::transcendental()),
        BinaryOp::Pow => ([positive, Fill::UNIT], Tolerance::transcendental()),
        // Away from the kink, whose side a finite difference would miss.
        _ => ([Fill::Distinct, Fill::UNIT], Tolerance::sum(1, 1.0)),
    };
    let inputs = [a, b].into_iter().zip(fills);
    let inputs = inputs.map(|(shape, fill)| (TensorType::f32(shape), fill));
    let sample = Sample::new(Binary(op), inputs.collect(), tolerance);
    match op {
        BinaryOp::Min | BinaryOp::Max | BinaryOp::Pow | BinaryOp::PReluSlope => {
            sample.without_gradient()
        }
        _ => sample,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_do_not_fit_are_an_error_that_names_both() {
        let types = [TensorType::f32([2, 3]), TensorType::f32([2, 4])];
        let error = Binary(BinaryOp::Add).infer(&types).unwrap_err().to_string();
        assert!(
            error.contains("[2, 3]") && error.contains("[2, 4]"),
            "{error}"
        );
        let shape = Shape::from([3, 1]);
        let error = SumTo { shape }.infer(&types[..1]).unwrap_err().to_string();
        assert!(error.contains("[2, 3] to [3, 1]"), "{error}");
    }
}
