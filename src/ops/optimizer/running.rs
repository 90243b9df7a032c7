//! Running sums and averages over steps.

use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::ops::{
    Draw, Fill, LaunchContext, Op, Reference, Sample, Step, Tolerance, expect_inputs, expect_type,
};
use crate::shader;
use crate::tensor::TensorType;

const RUNNING: ShaderFile = shader!("optimizer/running.wgsl");
const WORKGROUP: usize = 64;

/// Takes a tensor into a running one, element by element.
///
/// Inputs: the running tensor (updated) and the new one, f32 of one type. No output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Running {
    /// `r += weight * x`.
    Sum {
        /// The factor of the new tensor.
        weight: f64,
    },
    /// `r += (1 - d)(x - r)` with `d = min(decay, (1 + t) / (10 + t))` at step `t`, so that
    /// the first values are soon forgotten (TensorFlow's `ExponentialMovingAverage` with
    /// `num_updates`).
    Average {
        /// The share of the old average, once there are enough steps.
        decay: f64,
    },
    /// `r = 0` where `x = 0`, else `r`: a mask.
    Mask,
}

impl Running {
    /// The share of the old value that is taken away, and the factor of the new one.
    fn shares(self, step: &Step) -> [f64; 2] {
        match self {
            Self::Mask => [0.0, 0.0],
            Self::Sum { weight } => [0.0, weight],
            Self::Average { decay } => {
                let t = f64::from(step.number);
                [1.0 - decay.min((1.0 + t) / (10.0 + t)); 2]
            }
        }
    }
}

impl Op for Running {
    fn name(&self) -> &'static str {
        "running"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 2)?;
        let ty = TensorType::f32(inputs[0].shape.clone());
        expect_type(self, "the running tensor", &ty, &inputs[0])?;
        expect_type(self, "the new tensor", &ty, &inputs[1])?;
        Ok(vec![])
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }

    fn reference(&self, io: Reference<'_>) {
        let [lost, gained] = self.shares(io.step);
        for (r, x) in io.updates[0].f_mut().iter_mut().zip(io.inputs[1].f()) {
            if *self == Self::Mask && *x == 0.0 {
                *r = 0.0;
            }
            *r += gained * x - lost * *r;
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let vec4s = context.inputs[0].shape.len().div_ceil(4);
        let kernel = Kernel::new(RUNNING)
            .set("VEC4S", vec4s)
            .set("WORKGROUP", WORKGROUP);
        let kernel = match *self {
            Self::Mask => kernel.set("MASK", true),
            Self::Sum { weight } => kernel.set("WEIGHT", weight),
            Self::Average { decay } => kernel
                .set("AVERAGE", true)
                .set("ONE_MINUS_DECAY", 1.0 - decay),
        };
        let bindings = vec![
            ("running", Arg::Input(0)),
            ("x", Arg::Input(1)),
            ("step", Arg::Step),
        ];
        Ok(Dispatch::linear(kernel, bindings, vec4s.div_ceil(WORKGROUP)).into())
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        3 * inputs[0].shape.len() as u64
    }
}

pub(super) fn sample(draw: &mut Draw) -> Sample {
    let op = match draw.int(0, 2) {
        0 => Running::Sum {
            weight: draw.float(0.1, 1.0),
        },
        // At step 3, (1 + t) / (10 + t) = 4/13 lies between.
        1 => Running::Average {
            decay: draw.pick(&[0.1, 0.999]),
        },
        _ => Running::Mask,
    };
    let ty = TensorType::f32([draw.int(1, 400)]);
    let new = match op {
        // A third of them zero.
        Running::Mask => Fill::Levels(3),
        _ => Fill::UNIT,
    };
    let inputs = vec![(ty.clone(), Fill::UNIT), (ty, new)];
    // A handful of roundings, and a division of 2.5 ULP.
    Sample::new(op, inputs, Tolerance::sum(4, 1.0)).without_gradient()
}
