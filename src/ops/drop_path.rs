//! Stochastic depth: a residual branch left out for some images.

use super::random::{PHILOX, philox4x32};
use super::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Step, Tolerance,
    Value, expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::TensorType;

const FORWARD: ShaderFile = shader!("drop_path/forward.wgsl");
const WORKGROUP: usize = 64;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "drop_path",
    sample,
}];

/// Stochastic depth (Huang et al. 2016) by image: each image of a batch is all zeros with
/// probability `rate`, else times `1 / (1 - rate)`, so that its expectation stays;
/// f32 `[N, ..]` to itself. torchvision's `StochasticDepth(rate, "row")`.
///
/// Which images are kept follows from the run's seed, the step's number, `key` and the
/// image's place in the batch, by [`philox4x32`]. So the gradient is this very op on the
/// upstream gradient, and host and device keep the same images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropPath {
    /// Probability that an image is dropped; at least 0 and below 1.
    pub rate: f64,
    /// Sets the choices of a model's ops apart from each other.
    pub key: u32,
}

impl DropPath {
    /// An image is kept if its random word is at least this: `rate` in units of 2^-32.
    fn threshold(self) -> u32 {
        (self.rate * 2f64.powi(32)) as u32
    }

    fn scale(self) -> f64 {
        1.0 / (1.0 - self.rate)
    }

    /// Whether an image is kept.
    fn kept(self, image: u32, step: &Step) -> bool {
        // Dropout's counters end in 0.
        philox4x32([image, step.number, self.key, 1], [step.seed, 0])[0] >= self.threshold()
    }
}

impl Op for DropPath {
    fn name(&self) -> &'static str {
        "drop_path"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 1)?;
        let ty = TensorType::f32(inputs[0].shape.clone());
        expect_type(self, "x", &ty, &inputs[0])?;
        if ty.shape.rank() == 0 || ty.shape.is_empty() {
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
        let inner = io.inputs[0].f().len() / io.inputs[0].dims()[0];
        let images = io.inputs[0].f().chunks(inner);
        let results = io.outputs[0].f_mut().chunks_mut(inner);
        for ((y, x), image) in results.zip(images).zip(0..) {
            if self.kept(image, io.step) {
                for (y, x) in y.iter_mut().zip(x) {
                    *y = x * self.scale();
                }
            }
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let shape = &context.inputs[0].shape;
        let vec4s = shape.len().div_ceil(4);
        let kernel = Kernel::new(FORWARD)
            .hook("random", PHILOX, "philox4x32")
            .set("WORKGROUP", WORKGROUP)
            .set("VEC4S", vec4s)
            .set("INNER", shape.len() / shape[0])
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
    let op = DropPath {
        rate: draw.pick(&[0.0, 0.1, 0.5, 0.9]),
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

    /// The number of dropped images is binomial, with deviation sqrt(n p (1 - p)); six
    /// deviations are allowed.
    #[test]
    fn images_are_dropped_whole_at_the_rate_and_the_others_scaled_up() {
        const IMAGES: usize = 20_000;
        let ty = TensorType::f32([IMAGES, 3]);
        let ones = Array::float(ty.clone(), vec![1.0; 3 * IMAGES]);
        for rate in [0.0, 0.2, 0.5] {
            let op = DropPath { rate, key: 4 };
            let mut outputs = [Array::zeros(ty.clone())];
            let step = Step {
                number: 9,
                seed: 1,
                ..Step::default()
            };
            op.reference(Reference {
                inputs: &[&ones],
                outputs: &mut outputs,
                updates: &mut [],
                step: &step,
            });
            let images = outputs[0].f().chunks(3);
            let dropped = images.clone().filter(|x| **x == [0.0; 3]).count();
            let kept = images.filter(|x| **x == [op.scale(); 3]).count();
            assert_eq!(dropped + kept, IMAGES);
            let (n, p) = (IMAGES as f64, rate);
            assert!((dropped as f64 - n * p).abs() <= 6.0 * (n * p * (1.0 - p)).sqrt());
        }
    }
}
