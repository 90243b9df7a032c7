//! Running statistics.

use super::WORKGROUP;
use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::ops::{
    Draw, Entry, Fill, LaunchContext, Op, Reference, Sample, Tolerance, expect_inputs, expect_type,
};
use crate::shader;
use crate::tensor::TensorType;

const UPDATE: ShaderFile = shader!("batch_norm/update.wgsl");

pub(super) const ENTRY: Entry = Entry {
    name: "update_running_stats",
    sample,
};

/// Moves running statistics towards the batch's:
/// `running = momentum * running + (1 - momentum) * batch`.
///
/// Inputs are `running_mean` and `running_variance`, updated in place, then the batch's
/// `mean` and biased `variance`, each `[C]`. Momentum is Keras's: near 1 is slow.
/// PyTorch's is one minus it, and its running variance the unbiased one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateRunningStats {
    /// The share that is kept; Keras's default is 0.99.
    pub momentum: f64,
}

impl Op for UpdateRunningStats {
    fn name(&self) -> &'static str {
        "update_running_stats"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 4)?;
        let statistic = TensorType::f32([inputs[0].shape.len()]);
        let names = ["running_mean", "running_variance", "mean", "variance"];
        for (name, input) in names.iter().zip(inputs) {
            expect_type(self, name, &statistic, input)?;
        }
        Ok(vec![])
    }

    fn updates(&self) -> &'static [usize] {
        &[0, 1]
    }

    fn reference(&self, io: Reference<'_>) {
        let momentum = self.momentum;
        for (running, batch) in io.updates.iter_mut().zip(&io.inputs[2..]) {
            for (r, b) in running.f_mut().iter_mut().zip(batch.f()) {
                *r = momentum * *r + (1.0 - momentum) * b;
            }
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let channels = context.inputs[0].shape.len();
        let kernel = Kernel::new(UPDATE)
            .set("WORKGROUP", WORKGROUP)
            .set("CHANNELS", channels)
            .set("MOMENTUM", self.momentum);
        let bindings = vec![
            ("running_mean", Arg::Input(0)),
            ("running_variance", Arg::Input(1)),
            ("mean", Arg::Input(2)),
            ("variance", Arg::Input(3)),
        ];
        Ok(Dispatch::grid(kernel, bindings, [channels.div_ceil(WORKGROUP), 1, 1]).into())
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        6 * inputs[0].shape.len() as u64
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let statistic = TensorType::f32([draw.int(1, 150)]);
    let op = UpdateRunningStats {
        momentum: draw.float(0.0, 1.0),
    };
    let inputs = vec![(statistic, Fill::Uniform(-2.0, 2.0)); 4];
    // Two products of magnitude up to 2.
    Sample::new(op, inputs, Tolerance::sum(2, 2.0)).without_gradient()
}
