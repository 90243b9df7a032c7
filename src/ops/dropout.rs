//! Dropout: elements set to zero at random.

use super::random::{PHILOX, philox4x32};
use super::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Step, Tolerance,
    Value, expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::TensorType;

const FORWARD: ShaderFile = shader!("dropout/forward.wgsl");
const WORKGROUP: usize = 64;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "dropout",
    sample,
}];

/// Inverted dropout (Srivastava et al. 2014): each element is zero with probability
/// `rate`, else times `1 / (1 - rate)`, so that its expectation stays; any shape.
///
/// Which elements are kept follows from the run's seed, the step's number, `key` and the
/// element's index, by [`philox4x32`]. So the gradient is this very op on the upstream
/// gradient, no mask is stored, and host and device keep the same elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability that an element is dropped; at least 0 and below 1.
    pub rate: f64,
    /// Sets the masks of a model's dropout ops apart from each other.
    pub key: u32,
}

impl Dropout {
    /// An element is kept if its random word is at least this: `rate` in units of 2^-32.
    fn threshold(self) -> u32 {
        (self.rate * 2f64.powi(32)) as u32
    }

    fn scale(self) -> f64 {
        1.0 / (1.0 - self.rate)
    }

    /// Whether each of the elements 4 `quad`, … , 4 `quad` + 3 is kept.
    fn kept(self, quad: u32, step: &Step) -> [bool; 4] {
        let words = philox4x32([quad, step.number, self.key, 0], [step.seed, 0]);
        words.map(|word| word >= self.threshold())
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        let ty = TensorType::f32(inputs[0].shape.clone());
        expect_type(self, "x", &ty, &inputs[0])?;
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
        let x = io.inputs[0].f().chunks(4);
        let y = io.outputs[0].f_mut().chunks_mut(4);
        for ((y, x), quad) in y.zip(x).zip(0..) {
            let kept = self.kept(quad, io.step);
            for (i, y) in y.iter_mut().enumerate() {
                *y = if kept[i] { x[i] * self.scale() } else { 0.0 };
            }
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let vec4s = context.inputs[0].shape.len().div_ceil(4);
        let kernel = Kernel::new(FORWARD)
            .hook("random", PHILOX, "philox4x32")
            .set("WORKGROUP", WORKGROUP)
            .set("VEC4S", vec4s)
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

fn sample(draw: &mut Draw) -> Sample {
    let op = Dropout {
        rate: draw.pick(&[0.0, 0.1, 0.5, 0.9, 0.999]),
        key: draw.int(0, u32::MAX as usize) as u32,
    };
    let ty = TensorType::f32([draw.int(1, 9), draw.int(1, 60)]);
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

    fn dropped(op: Dropout, len: usize, number: u32, seed: u32) -> Vec<f64> {
        let ty = TensorType::f32([len]);
        let ones = Array::float(ty.clone(), vec![1.0; len]);
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

    /// The number of dropped elements is binomial, with deviation sqrt(n p (1 - p)); six
    /// deviations are allowed.
    #[test]
    fn the_rate_is_the_share_of_zeros_and_the_others_are_scaled_up() {
        const LEN: usize = 100_000;
        for rate in [0.0, 0.1, 0.25, 0.5, 0.9] {
            let op = Dropout { rate, key: 1 };
            let y = dropped(op, LEN, 1, 7);
            let zeros = y.iter().filter(|y| **y == 0.0).count() as f64;
            let (n, p) = (LEN as f64, rate);
            assert!((zeros - n * p).abs() <= 6.0 * (n * p * (1.0 - p)).sqrt());
            let scaled = |y: &&f64| **y == 1.0 / (1.0 - rate);
            assert_eq!(y.iter().filter(scaled).count() as f64, n - zeros);
        }
    }

    #[test]
    fn step_seed_and_key_each_change_the_mask() {
        let [a, b] = [1, 2].map(|key| Dropout { rate: 0.5, key });
        let mask = dropped(a, 256, 1, 1);
        assert_eq!(mask, dropped(a, 256, 1, 1));
        assert_ne!(mask, dropped(a, 256, 2, 1));
        assert_ne!(mask, dropped(a, 256, 1, 2));
        assert_ne!(mask, dropped(b, 256, 1, 1));
    }

    #[test]
    fn a_rate_of_one_is_an_error_that_names_it() {
        let op = Dropout { rate: 1.0, key: 0 };
        let error = op.infer(&[TensorType::f32([3])]).unwrap_err();
        assert!(error.to_string().contains("found 1"), "{error}");
    }
}
