//! Products, maxima and minima over axes.

use super::sum_to::{Sum, SumTo, accumulate, draw_sum, infer_smaller};
use super::{Binary, BinaryOp};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Kernel, Launch, ShaderFile};
use crate::ops::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
};
use crate::shader;
use crate::tensor::{Shape, TensorType};

const FOLDS: ShaderFile = shader!("binary/folds.wgsl");

pub(super) const ENTRIES: [Entry; 3] = [
    Entry {
        name: "product_to",
        sample: |draw| sample(Fold::Product, draw),
    },
    Entry {
        name: "max_to",
        sample: |draw| sample(Fold::Max, draw),
    },
    Entry {
        name: "min_to",
        sample: |draw| sample(Fold::Min, draw),
    },
];

/// How many numbers become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fold {
    /// Their product; without a gradient.
    Product,
    /// The largest, NaN where there is one.
    Max,
    /// The smallest, NaN where there is one.
    Min,
}

impl Fold {
    fn value(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Product => a * b,
            _ if a.is_nan() || b.is_nan() => f64::NAN,
            Self::Max => a.max(b),
            Self::Min => a.min(b),
        }
    }

    fn neutral(self) -> f64 {
        match self {
            Self::Product => 1.0,
            Self::Max => f64::NEG_INFINITY,
            Self::Min => f64::INFINITY,
        }
    }

    /// The kernel of sums with the fold in the sum's stead.
    pub(super) fn hooked(self, kernel: Kernel) -> Kernel {
        let (fold, begin) = match self {
            Self::Product => ("product", "begin_product"),
            Self::Max => ("largest", "begin_term"),
            Self::Min => ("smallest", "begin_term"),
        };
        let kernel = kernel.hook("fold", FOLDS, fold);
        kernel.hook("begin_with", FOLDS, begin)
    }
}

/// As [`SumTo`], with another fold than the sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoldTo {
    /// What is done in the sum's stead.
    pub fold: Fold,
    /// Shape of the output.
    pub shape: Shape,
}

impl Op for FoldTo {
    fn name(&self) -> &'static str {
        match self.fold {
            Fold::Product => "product_to",
            Fold::Max => "max_to",
            Fold::Min => "min_to",
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        infer_smaller(self, inputs, &self.shape)
    }

    /// That of a maximum or minimum is shared evenly by all elements that have it.
    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        if self.fold == Fold::Product {
            let problem = "has no gradient rule; it cannot stand between a parameter and the loss";
            return Err(Error::shape(self.name(), problem));
        }
        let Some(dy) = upstream[0] else {
            return Ok(vec![None]);
        };
        let [x, y] = [node.inputs[0], node.outputs[0]];
        let mut binary = |op, a, b| builder.add1(Box::new(Binary(op)), &[a, b]);
        let found = binary(BinaryOp::Equal, x, y)?;
        let shape = self.shape.clone();
        let count = builder.add1(Box::new(SumTo { shape }), &[found])?;
        let mut binary = |op, a, b| builder.add1(Box::new(Binary(op)), &[a, b]);
        let share = binary(BinaryOp::Div, dy, count)?;
        Ok(vec![Some(binary(BinaryOp::Mul, found, share)?)])
    }

    fn reference(&self, io: Reference<'_>) {
        io.outputs[0].f_mut().fill(self.fold.neutral());
        accumulate(io, &self.shape, |folded, value| {
            self.fold.value(folded, value)
        });
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let fold = Sum::new(&context.inputs[0].shape, &self.shape, Some(self.fold));
        Ok(fold.launch(context.profile.kind))
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        inputs[0].shape.len() as u64
    }
}

fn sample(fold: Fold, draw: &mut Draw) -> Sample {
    let (x, shape) = draw_sum(draw);
    let terms = x.len() / shape.len();
    let op = FoldTo { fold, shape };
    let x = TensorType::f32(x);
    match fold {
        Fold::Product => {
            // Near 1, so that no product of many leaves the numbers. Each of the factors
            // may round by half an epsilon of the product, which is below 3.
            let inputs = vec![(x, Fill::Uniform(1.0 - 1e-5, 1.0 + 1e-5))];
            let tolerance = Tolerance {
                absolute: 0.0,
                relative: terms as f64 * f64::from(f32::EPSILON),
            };
            Sample::new(op, inputs, tolerance).without_gradient()
        }
        Fold::Max | Fold::Min if draw.coin() => {
            let inputs = vec![(x, Fill::Spoilt(2))];
            Sample::new(op, inputs, Tolerance::EXACT).without_gradient()
        }
        Fold::Max | Fold::Min => {
            // No two so near that a finite difference changes which is the largest.
            let few = x.shape.len() < 5000;
            let sample = Sample::new(op, vec![(x, Fill::Distinct)], Tolerance::EXACT);
            if few {
                sample
            } else {
                sample.without_gradient()
            }
        }
    }
}
