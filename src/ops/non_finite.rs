//! Finding what is infinite or not a number.

use super::metrics::ROW;
use super::optimizer::BLOCK;
use super::{
    Draw, Entry, Fill, LaunchContext, Op, Reference, Sample, Tolerance, expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::shader;
use crate::tensor::{DType, TensorType};

const FIND: ShaderFile = shader!("non_finite/find.wgsl");
const WORKGROUP: usize = 64;
/// Vec4s that an invocation looks at.
const EACH: usize = 8;

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "non_finite",
    sample,
}];

/// Raises a flag where a tensor has an element that is infinite or NaN.
///
/// Inputs: the flag, an f32 of 0 or 1 (updated, never lowered); with
/// [`metrics`](Self::metrics) the rows f32 `[slots, 8]` of the op
/// [`Metrics`](super::metrics::Metrics) (updated); the tensor, f32; with
/// [`counted_from`](Self::counted_from) how many elements count of each [`BLOCK`] of an
/// arena, u32. No output.
///
/// PyTorch's gradient scaler calls the flag `found_inf`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NonFinite {
    /// Whether what row `step.slot` of the metrics tells in its last column raises the flag
    /// too, and the other way round.
    pub metrics: bool,
    /// The block that the tensor begins with, where it is a part of an arena with padding.
    pub counted_from: Option<usize>,
}

impl NonFinite {
    /// The place of the tensor among the inputs.
    fn tensor(self) -> usize {
        1 + usize::from(self.metrics)
    }
}

impl Op for NonFinite {
    fn name(&self) -> &'static str {
        "non_finite"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let tensor = self.tensor();
        let counted = usize::from(self.counted_from.is_some());
        expect_inputs(self, inputs, tensor + 1 + counted)?;
        expect_type(self, "flag", &TensorType::f32([1]), &inputs[0])?;
        if self.metrics {
            let slots = inputs[1].shape.len() / ROW;
            expect_type(self, "rows", &TensorType::f32([slots, ROW]), &inputs[1])?;
        }
        let x = &inputs[tensor];
        if x.dtype != DType::F32 || x.shape.is_empty() {
            let problem = format!("expected some f32, found {x}");
            return Err(Error::shape(self.name(), problem));
        }
        if let (Some(first), Some(counts)) = (self.counted_from, inputs.get(tensor + 1)) {
            let least = first + x.shape.len().div_ceil(BLOCK);
            if counts.dtype != DType::U32 || counts.shape.len() < least {
                let problem = format!("counts: expected at least {least} u32, found {counts}");
                return Err(Error::shape(self.name(), problem));
            }
        }
        Ok(vec![])
    }

    fn updates(&self) -> &'static [usize] {
        if self.metrics { &[0, 1] } else { &[0] }
    }

    fn reference(&self, io: Reference<'_>) {
        let tensor = self.tensor();
        let counts = self
            .counted_from
            .map(|first| &io.inputs[tensor + 1].u()[first..]);
        let counts_of = |block: usize| counts.map_or(BLOCK, |c| c[block] as usize);
        let blocks = io.inputs[tensor].f().chunks(BLOCK).enumerate();
        let mut counted = blocks.flat_map(|(i, block)| block.iter().take(counts_of(i)));
        let mut bad = counted.any(|x| !x.is_finite());
        let (flag, rows) = io.updates.split_at_mut(1);
        if let Some(rows) = rows.first_mut()
            && let Some(row) = rows.f_mut().chunks_mut(ROW).nth(io.step.slot as usize)
        {
            bad |= row[3] != 0.0;
            if bad {
                row[3] = 1.0;
            }
        }
        if bad {
            flag[0].f_mut()[0] = 1.0;
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let tensor = self.tensor();
        let len = context.inputs[tensor].shape.len();
        let slots = if self.metrics {
            context.inputs[1].shape[0]
        } else {
            1
        };
        let kernel = Kernel::new(FIND)
            .set("WORKGROUP", WORKGROUP)
            .set("LEN", len)
            .set("SLICE", WORKGROUP * EACH)
            .set("METRICS", self.metrics)
            .set("SLOTS", slots)
            .set("ROW", ROW)
            .set("COUNTED", self.counted_from.is_some())
            .set("FIRST_BLOCK", self.counted_from.unwrap_or(0));
        let mut launch = Launch::default();
        // What is not there is bound to scratch and never touched.
        let rows = match self.metrics {
            true => Arg::Input(1),
            false => launch.reserve(16),
        };
        let counts = match self.counted_from {
            Some(_) => Arg::Input(tensor + 1),
            None => launch.reserve(16),
        };
        let bindings = vec![
            ("flag", Arg::Input(0)),
            ("rows", rows),
            ("x", Arg::Input(tensor)),
            ("counts", counts),
            ("step", Arg::Step),
        ];
        let groups = len.div_ceil(4 * WORKGROUP * EACH);
        launch.dispatches = vec![Dispatch::linear(kernel, bindings, groups)];
        Ok(launch)
    }

    fn flops(&self, _inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        0
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let op = NonFinite {
        metrics: draw.coin(),
        counted_from: draw.coin().then(|| draw.int(0, 2)),
    };
    let most = draw.pick(&[5, 400, 9000]);
    let len = draw.int(1, most);
    let mut inputs = vec![(TensorType::f32([1]), Fill::Uniform(0.0, 1.0))];
    if op.metrics {
        inputs.push((TensorType::f32([draw.int(1, 4), ROW]), Fill::Levels(3)));
    }
    // Finite, or with a few that are not, which may lie in the padding.
    let spoilt = draw.pick(&[0, 1, 1, 3]);
    inputs.push((TensorType::f32([len]), Fill::Spoilt(spoilt)));
    if let Some(first) = op.counted_from {
        let blocks = first + len.div_ceil(BLOCK);
        inputs.push((TensorType::u32([blocks]), Fill::Below(BLOCK as u32 + 1)));
    }
    let mut sample = Sample::new(op, inputs, Tolerance::EXACT).without_gradient();
    sample.step.slot = draw.int(0, 4) as u32;
    sample
}
