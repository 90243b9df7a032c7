//! Functions of one number that are no activations.

use super::{
    Draw, Entry, Fill, LaunchContext, Op, Reference, Sample, Tolerance, expect_inputs, expect_type,
};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::TensorType;

const FORWARD: ShaderFile = shader!("unary/forward.wgsl");
const FUNCTIONS: ShaderFile = shader!("unary/functions.wgsl");
const WORKGROUP: usize = 64;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "unary",
    sample,
}];

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// The magnitude.
    Abs,
    /// The next integer up.
    Ceil,
    /// The cosine.
    Cos,
    /// The error function.
    Erf,
    /// The exponential.
    Exp,
    /// The next integer down.
    Floor,
    /// The natural logarithm.
    Log,
    /// The negative.
    Neg,
    /// One over it.
    Reciprocal,
    /// The nearest number that bfloat16 has, of two the even one.
    ToBfloat16,
    /// The nearest number that f16 has, of two the even one; infinite beyond its range.
    ToHalf,
    /// The nearest integer, of two the even one.
    Round,
    /// -1, 0 or 1.
    Sign,
    /// The sine.
    Sin,
    /// The square root.
    Sqrt,
}

impl UnaryOp {
    fn shader_name(self) -> &'static str {
        match self {
            Self::Abs => "unary_abs",
            Self::Ceil => "unary_ceil",
            Self::Cos => "unary_cos",
            Self::Erf => "unary_erf",
            Self::Exp => "unary_exp",
            Self::Floor => "unary_floor",
            Self::Log => "unary_log",
            Self::Neg => "unary_neg",
            Self::Reciprocal => "unary_reciprocal",
            Self::Round => "unary_round",
            Self::Sign => "unary_sign",
            Self::Sin => "unary_sin",
            Self::Sqrt => "unary_sqrt",
            Self::ToBfloat16 => "unary_to_bfloat16",
            Self::ToHalf => "unary_to_half",
        }
    }

    fn value(self, x: f64) -> f64 {
        match self {
            Self::Abs => x.abs(),
            Self::Ceil => x.ceil(),
            Self::Cos => x.cos(),
            Self::Erf => libm::erf(x),
            Self::Exp => x.exp(),
            Self::Floor => x.floor(),
            Self::Log => x.ln(),
            Self::Neg => -x,
            Self::Reciprocal => 1.0 / x,
            Self::Round => x.round_ties_even(),
            Self::Sign if x == 0.0 => 0.0,
            Self::Sign => x.signum(),
            Self::Sin => x.sin(),
            Self::Sqrt => x.sqrt(),
            Self::ToBfloat16 => half::bf16::from_f64(x).to_f64(),
            Self::ToHalf => half::f16::from_f64(x).to_f64(),
        }
    }
}

/// `y = f(x)`, any shape. It has no gradient: it serves graphs that are only run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unary(pub UnaryOp);

impl Op for Unary {
    fn name(&self) -> &'static str {
        "unary"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        let ty = TensorType::f32(inputs[0].shape.clone());
        expect_type(self, "x", &ty, &inputs[0])?;
        Ok(vec![ty])
    }

    fn reference(&self, io: Reference<'_>) {
        for (y, x) in io.outputs[0].f_mut().iter_mut().zip(io.inputs[0].f()) {
            *y = self.0.value(*x);
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let vec4s = context.inputs[0].shape.len().div_ceil(4);
        let kernel = Kernel::new(FORWARD)
            .hook("apply", FUNCTIONS, self.0.shader_name())
            .set("VEC4S", vec4s)
            .set("WORKGROUP", WORKGROUP);
        let bindings = vec![("x", Arg::Input(0)), ("y", Arg::Output(0))];
        Ok(Dispatch::linear(kernel, bindings, vec4s.div_ceil(WORKGROUP)).into())
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let op = draw.pick(&[
        UnaryOp::Abs,
        UnaryOp::Ceil,
        UnaryOp::Cos,
        UnaryOp::Erf,
        UnaryOp::Exp,
        UnaryOp::Floor,
        UnaryOp::Log,
        UnaryOp::Neg,
        UnaryOp::Reciprocal,
        UnaryOp::Round,
        UnaryOp::Sign,
        UnaryOp::Sin,
        UnaryOp::Sqrt,
        UnaryOp::ToBfloat16,
        UnaryOp::ToHalf,
    ]);
    // Vulkan asks for 2^-11 of sine and cosine between -pi and pi.
    let tolerance = match op {
        UnaryOp::Sin | UnaryOp::Cos => Tolerance {
            absolute: 2f64.powi(-11),
            relative: 0.0,
        },
        UnaryOp::ToBfloat16 | UnaryOp::ToHalf => Tolerance::EXACT,
        _ => Tolerance::transcendental(),
    };
    let (low, high) = match op {
        // Beyond the range of f16, and near its smallest numbers.
        UnaryOp::ToHalf if draw.coin() => (-7e4, 7e4),
        UnaryOp::ToHalf if draw.coin() => (-1e-6, 1e-6),
        UnaryOp::Log | UnaryOp::Sqrt | UnaryOp::Reciprocal => (0.1, 4.0),
        _ => (-3.0, 3.0),
    };
    let x = TensorType::f32([draw.int(1, 5), draw.int(1, 60)]);
    let inputs = vec![(x, Fill::Uniform(low, high))];
    Sample::new(Unary(op), inputs, tolerance).without_gradient()
}
