//! Dropout: elements, or whole images, set to zero at random.

use super::random::{PHILOX, philox4x32};
use super::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Step, Tolerance,
    Value, expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::{Shape, TensorType};

const FORWARD: ShaderFile = shader!("dropout/forward.wgsl");
const WORKGROUP: usize = 64;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "dropout",
        sample: |draw| sample(draw, Per::Element),
    },
    Entry {
        name: "drop_path",
        sample: |draw| sample(draw, Per::Image),
    },
];

/// What is dropped or kept as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// Each element; of any shape.
    Element,
    /// Each image of a batch, `[N, ..]`: stochastic depth (Huang et al. 2016), torchvision's
    /// `StochasticDepth(rate, "row")`.
    Image,
}

/// Inverted dropout (Srivastava et al. 2014): each element, or each image, is zero with
/// probability `rate`, else times `1 / (1 - rate)`, so that its expectation stays.
///
/// Which are kept follows from the run's seed, the step's number, `key` and the index of the
/// element or the image, by [`philox4x32`]. So the gradient is this very op on the upstream
/// gradient, no mask is stored, and host and device keep the same ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// What is dropped or kept as a whole.
    pub per: Per,
    /// Probability that one is dropped; at least 0 and below 1.
    pub rate: f64,
    /// Sets the choices of a model's ops apart from each other.
    pub key: u32,
}

impl Dropout {
    /// One is kept if its random word is at least this: `rate` in units of 2^-32.
    fn threshold(self) -> u32 {
        (self.rate * 2f64.powi(32)) as u32
    }

    fn scale(self) -> f64 {
        1.0 / (1.0 - self.rate)
    }

    /// Whether an element is kept, where an image has `inner` of them.
    fn keeps(self, element: usize, inner: usize, step: &Step) -> bool {
        let (draw, word, stream) = match self.per {
            Per::Element => (element / 4, element % 4, 0),
            Per::Image => (element / inner, 0, 1),
        };
        let counter = [draw as u32, step.number, self.key, stream];
        philox4x32(counter, [step.seed, 0])[word] >= self.threshold()
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        match self.per {
            Per::Element => "dropout",
            Per::Image => "drop_path",
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        let ty = TensorType::f32(inputs[0].shape.clone());
        expect_type(self, "x", &ty, &inputs[0])?;
        if self.per == Per::Image && (ty.shape.rank() == 0 || ty.shape.is_empty()) {
            let problem = format!("x: expected f32[N, ..] with no extent of 0, found {ty}");
            return Err(Error::shape(self.name(), problem));
        }
        if !(0.0..1.0).contains(&self.rate) {
            let problem = format!("rate: expected at least 0 and below 1, found {}", self.rate);
            return Err(Error::shape(self.name(), problem));
        }
        Ok(vec![ty])
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        _node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let Some(dy) = upstream[0] else {
            return Ok(vec![None]);
        };
        Ok(vec![Some(builder.add1(Box::new(*self), &[dy])?)])
    }

    fn reference(&self, io: Reference<'_>) {
        let x = io.inputs[0].f();
        let inner = inner(&io.inputs[0].ty().shape);
        for (i, (y, x)) in io.outputs[0].f_mut().iter_mut().zip(x).enumerate() {
            let kept = self.keeps(i, inner, io.step);
            *y = if kept { x * self.scale() } else { 0.0 };
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let shape = &context.inputs[0].shape;
        let vec4s = shape.len().div_ceil(4);
        let kernel = Kernel::new(FORWARD)
            .hook("random", PHILOX, "philox4x32")
            .set("WORKGROUP", WORKGROUP)
            .set("VEC4S", vec4s)
            .set("PER_IMAGE", self.per == Per::Image)
            .set("INNER", inner(shape))
            .set("KEY", self.key)
            .set("THRESHOLD", self.threshold())
            .set("SCALE", self.scale());
        let bindings = vec![
            ("x", Arg::Input(0)),
            ("y", Arg::Output(0)),
            ("step", Arg::Step),
        ];
        Ok(Dispatch::linear(kernel, bindings, vec4s.div_ceil(WORKGROUP)).into())
    }
}

/// Elements of an image, of the first axis of a shape.
fn inner(shape: &Shape) -> usize {
    shape.dims().iter().skip(1).product::<usize>().max(1)
}

fn sample(draw: &mut Draw, per: Per) -> Sample {
    let op = Dropout {
        per,
        rate: draw.pick(&[0.0, 0.1, 0.5, 0.9, 0.999]),
        key: draw.int(0, u32::MAX as usize) as u32,
    };
    let ty = TensorType::f32([draw.int(1, 30), draw.int(1, 3), draw.int(1, 9)]);
    // One product, rounded by at most half an epsilon; a zero must be a zero.
    let tolerance = Tolerance {
        absolute: 0.0,
        relative: f64::from(f32::EPSILON),
    };
    let mut sample = Sample::new(op, vec![(ty, Fill::Distinct)], tolerance);
    sample.step.number = draw.int(0, u32::MAX as usize) as u32;
    sample.step.seed = draw.int(0, u32::MAX as usize) as u32;
    sample
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Array;

    fn dropped(op: Dropout, dims: [usize; 2], number: u32, seed: u32) -> Vec<f64> {
        let ty = TensorType::f32(dims);
        let ones = Array::float(ty.clone(), vec![1.0; ty.shape.len()]);
        let mut outputs = [Array::zeros(ty)];
        let step = Step {
            number,
            seed,
            ..Step::default()
        };
        op.reference(Reference {
            inputs: &[&ones],
            outputs: &mut outputs,
            updates: &mut [],
            step: &step,
        });
        outputs[0].f().to_vec()
    }

    /// The number of dropped ones is binomial, with deviation sqrt(n p (1 - p)); six deviations
    /// are allowed.
    #[test]
    fn the_rate_is_the_share_of_zeros_and_the_others_are_scaled_up() {
        const LEN: usize = 100_000;
        for (per, inner) in [(Per::Element, 1), (Per::Image, 3)] {
            for rate in [0.0, 0.1, 0.25, 0.5, 0.9] {
                let op = Dropout { per, rate, key: 1 };
                let y = dropped(op, [LEN, inner], 1, 7);
                let whole = |value: f64| {
                    let all = |one: &&[f64]| one.iter().all(|y| *y == value);
                    y.chunks(inner).filter(all).count() as f64
                };
                let (n, p, zeros) = (LEN as f64, rate, whole(0.0));
                assert!((zeros - n * p).abs() <= 6.0 * (n * p * (1.0 - p)).sqrt());
                assert_eq!(whole(1.0 / (1.0 - rate)), n - zeros);
            }
        }
    }

    #[test]
    fn step_seed_and_key_each_change_the_mask() {
        for per in [Per::Element, Per::Image] {
            let [a, b] = [1, 2].map(|key| Dropout {
                per,
                rate: 0.5,
                key,
            });
            let mask = dropped(a, [256, 1], 1, 1);
            assert_eq!(mask, dropped(a, [256, 1], 1, 1));
            assert_ne!(mask, dropped(a, [256, 1], 2, 1));
            assert_ne!(mask, dropped(a, [256, 1], 1, 2));
            assert_ne!(mask, dropped(b, [256, 1], 1, 1));
        }
    }

    #[test]
    fn a_rate_of_one_is_an_error_that_names_it() {
        let op = Dropout {
            per: Per::Element,
            rate: 1.0,
            key: 0,
        };
        let error = op.infer(&[TensorType::f32([3])]).unwrap_err();
        assert!(error.to_string().contains("found 1"), "{error}");
    }
}
