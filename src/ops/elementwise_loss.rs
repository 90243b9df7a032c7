//! Losses of each element and its target: mean squared error, binary cross-entropy.

use super::reduction::{Reduction, saved_gradient, sum_partials};
use super::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::{Shape, TensorType};

const FORWARD: ShaderFile = shader!("elementwise_loss/forward.wgsl");
const FUNCTIONS: ShaderFile = shader!("elementwise_loss/functions.wgsl");
const WORKGROUP: usize = 64;
/// Vec4 that one workgroup does alone, so that one dispatch does all: about what another
/// dispatch would cost.
const ONE_GROUP: usize = 1 << 13;
/// Most workgroups, and so partial sums.
const GROUPS: usize = 1024;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "squared_error",
        sample: |draw| sample(LossFunction::SquaredError, draw),
    },
    Entry {
        name: "binary_cross_entropy",
        sample: |draw| sample(LossFunction::BinaryCrossEntropy, draw),
    },
];

/// The loss of one prediction `x` and its target `t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossFunction {
    /// `(x - t)^2`.
    SquaredError,
    /// `-t log s - (1 - t) log(1 - s)` with `s = sigmoid(x)`, `x` a logit and `t` from 0
    /// to 1; computed as `max(x, 0) - x t + log(1 + exp(-|x|))`, which does not overflow.
    BinaryCrossEntropy,
}

impl LossFunction {
    fn value(self, x: f64, t: f64) -> f64 {
        match self {
            Self::SquaredError => (x - t) * (x - t),
            Self::BinaryCrossEntropy => x.max(0.0) - x * t + (-x.abs()).exp().ln_1p(),
        }
    }

    fn slope(self, x: f64, t: f64) -> f64 {
        match self {
            Self::SquaredError => 2.0 * (x - t),
            Self::BinaryCrossEntropy => 1.0 / (1.0 + (-x).exp()) - t,
        }
    }

    /// The names of value and slope in `shaders/elementwise_loss/functions.wgsl`.
    fn shader_names(self) -> [&'static str; 2] {
        match self {
            Self::SquaredError => ["squared_error", "squared_error_slope"],
            Self::BinaryCrossEntropy => ["binary_cross_entropy", "binary_cross_entropy_slope"],
        }
    }
}

/// A loss of each element and its target, reduced over all elements, with its derivative.
///
/// Inputs: predictions and targets, f32 of one shape. Outputs: the loss, a scalar, or of
/// the predictions' shape where not reduced; and its derivative by the predictions, of
/// their shape, which the gradient is taken from. Targets have no gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElementwiseLoss {
    /// The loss of an element.
    pub function: LossFunction,
    /// How the elements' losses are put together.
    pub reduction: Reduction,
}

impl ElementwiseLoss {
    /// The mean of the squared errors of all elements: Keras's `mean_squared_error` and
    /// PyTorch's `MSELoss` of a batch.
    pub fn mean_squared_error() -> Self {
        Self {
            function: LossFunction::SquaredError,
            reduction: Reduction::Mean,
        }
    }

    /// The mean binary cross-entropy of all elements, each a class of its own, from
    /// logits: Keras's `binary_crossentropy(from_logits=True)` and PyTorch's
    /// `BCEWithLogitsLoss`.
    pub fn binary_cross_entropy_with_logits() -> Self {
        Self {
            function: LossFunction::BinaryCrossEntropy,
            reduction: Reduction::Mean,
        }
    }

    /// The factor of each element's loss.
    fn scale(&self, len: usize) -> f64 {
        match self.reduction {
            Reduction::Mean => 1.0 / len as f64,
            Reduction::None | Reduction::Sum => 1.0,
        }
    }
}

impl Op for ElementwiseLoss {
    fn name(&self) -> &'static str {
        self.function.shader_names()[0]
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2)?;
        let ty = TensorType::f32(inputs[0].shape.clone());
        expect_type(self, "predictions", &ty, &inputs[0])?;
        expect_type(self, "targets", &ty, &inputs[1])?;
        if ty.shape.is_empty() {
            let problem = format!("predictions: expected every extent at least 1, found {ty}");
            return Err(Error::shape(self.name(), problem));
        }
        let loss = match self.reduction {
            Reduction::None => ty.shape.clone(),
            Reduction::Mean | Reduction::Sum => Shape::default(),
        };
        Ok(vec![TensorType::f32(loss), ty])
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        if node.wanted[1] {
            return Err(Error::shape(
                self.name(),
                "has no gradient with respect to targets, only to predictions",
            ));
        }
        let gradient = saved_gradient(self, builder, node.outputs[1], upstream)?;
        Ok(vec![gradient, None])
    }

    fn full_precision(&self) -> bool {
        true
    }

    fn reference(&self, io: Reference<'_>) {
        let (x, t) = (io.inputs[0].f(), io.inputs[1].f());
        let scale = self.scale(x.len());
        let (loss, derivative) = io.outputs.split_at_mut(1);
        let (loss, derivative) = (loss[0].f_mut(), derivative[0].f_mut());
        for (i, (x, t)) in x.iter().zip(t).enumerate() {
            derivative[i] = self.function.slope(*x, *t) * scale;
            let slot = match self.reduction {
                Reduction::None => i,
                Reduction::Mean | Reduction::Sum => 0,
            };
            loss[slot] += self.function.value(*x, *t) * scale;
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let len = context.inputs[0].shape.len();
        let reduced = self.reduction != Reduction::None;
        let vec4s = len.div_ceil(4);
        let groups = match reduced && vec4s <= ONE_GROUP {
            true => 1,
            false => vec4s.div_ceil(WORKGROUP).min(GROUPS),
        };
        let staged = reduced && groups > 1;
        let loss = match staged {
            true => Arg::Scratch(0),
            false => Arg::Output(0),
        };
        let [value, slope] = self.function.shader_names();
        let kernel = Kernel::new(FORWARD)
            .hook("value", FUNCTIONS, value)
            .hook("slope", FUNCTIONS, slope)
            .set("WORKGROUP", WORKGROUP)
            .set("GROUPS", groups)
            .set("LEN", len)
            .set("SCALE", self.scale(len) as f32)
            .set("PER_ELEMENT", !reduced);
        let bindings = vec![
            ("x", Arg::Input(0)),
            ("t", Arg::Input(1)),
            ("dx", Arg::Output(1)),
            ("loss", loss),
        ];
        let mut launch = Launch::from(Dispatch::grid(kernel, bindings, [groups, 1, 1]));
        if staged {
            launch.scratch.push(4 * groups as u64);
            let sum = sum_partials(loss, Arg::Output(0), groups);
            launch.dispatches.push(sum);
        }
        Ok(launch)
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        let each = match self.function {
            // Difference, square, sum, double, scale.
            LossFunction::SquaredError => 5,
            LossFunction::BinaryCrossEntropy => 12,
        };
        each * inputs[0].shape.len() as u64
    }
}

fn sample(function: LossFunction, draw: &mut Draw) -> Sample {
    let shape = match draw.int(0, 3) {
        0 => Shape::from([draw.int(1, 9), draw.int(1, 9), draw.int(1, 40)]),
        1 => [draw.int(1, 50)].into(),
        2 => Shape::default(),
        // Enough for several workgroups.
        _ => [draw.int(33_000, 40_000)].into(),
    };
    let op = ElementwiseLoss {
        function,
        reduction: draw.pick(&[Reduction::None, Reduction::Mean, Reduction::Sum]),
    };
    let ty = TensorType::f32(shape);
    let inputs = match function {
        LossFunction::SquaredError => [Fill::UNIT, Fill::UNIT],
        LossFunction::BinaryCrossEntropy => [Fill::Uniform(-8.0, 8.0), Fill::Uniform(0.0, 1.0)],
    };
    let inputs = inputs.map(|fill| (ty.clone(), fill));
    let mut tolerance = Tolerance::transcendental();
    if op.reduction == Reduction::Sum {
        tolerance.absolute *= ty.shape.len() as f64;
    }
    Sample::new(op, inputs.into(), tolerance).gradient_of(1, &[0])
}
