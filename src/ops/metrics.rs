//! Loss, accuracy and top-5 accuracy of a batch, kept on the device.

use super::{
    Draw, Entry, Fill, LaunchContext, Op, Reference, Sample, Tolerance, expect_inputs, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::ProfileKind;
use crate::shader;
use crate::tensor::TensorType;

const ROWS: ShaderFile = shader!("metrics/rows.wgsl");

/// The ops of this file.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "metrics",
    sample,
}];

/// Floats of a row.
pub const ROW: usize = 8;
/// How many classes with the largest logits count as the top.
pub const TOP: usize = 5;

/// What a classifier's batch came to, written to a row of a state tensor.
///
/// Inputs: the state f32 `[slots, 8]`, updated in place; logits f32 `[N, C]`; labels
/// u32 `[N]`. Row `step.slot` of the state becomes, over the batch's first
/// `min(step.count, N)` samples:
///
/// | column | |
/// |---|---|
/// | 0 | sum of the softmax cross-entropies, without smoothing or weights |
/// | 1 | number of samples whose largest logit is the label's; of equal ones the first |
/// | 2 | number of samples |
/// | 3 | 1 if any of their logits or losses is not finite or a label is no class, else 0 |
/// | 4 | number of samples whose label is among the first [`TOP`] by logit; of equal ones the first |
/// | 5 to 7 | 0 |
///
/// A slot past the end leaves the state as it is. No outputs, no gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics;

impl Op for Metrics {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_inputs(self, inputs, 3)?;
        let &[batch, classes] = inputs[1].shape.dims() else {
            let problem = format!("logits: expected f32[N, C], found {}", inputs[1]);
            return Err(Error::shape(self.name(), problem));
        };
        if batch == 0 || classes == 0 {
            let problem = format!(
                "logits: every extent must be at least 1, found {}",
                inputs[1]
            );
            return Err(Error::shape(self.name(), problem));
        }
        let slots = inputs[0].shape.len() / ROW;
        expect_type(self, "state", &TensorType::f32([slots, ROW]), &inputs[0])?;
        expect_type(
            self,
            "logits",
            &TensorType::f32([batch, classes]),
            &inputs[1],
        )?;
        expect_type(self, "labels", &TensorType::u32([batch]), &inputs[2])?;
        Ok(vec![])
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }

    fn full_precision(&self) -> bool {
        true
    }

    fn reference(&self, io: Reference<'_>) {
        let (logits, labels) = (io.inputs[1], io.inputs[2].u());
        let classes = logits.dims()[1];
        let counted = (io.step.count as usize).min(labels.len());
        let mut row = [0.0; ROW];
        row[2] = counted as f64;
        for (x, label) in logits.f().chunks(classes).zip(labels).take(counted) {
            let label = *label as usize;
            let mut best = 0;
            for (c, v) in x.iter().enumerate() {
                if *v > x[best] {
                    best = c;
                }
            }
            let sum: f64 = x.iter().map(|v| (v - x[best]).exp()).sum();
            let loss = sum.ln() - (x[label.min(classes - 1)] - x[best]);
            let bad = !loss.is_finite() || label >= classes || x.iter().any(|v| !v.is_finite());
            row[0] += loss;
            row[1] += f64::from(u8::from(best == label));
            let own = label.min(classes - 1);
            let comes_first = |(c, v): &(usize, &f64)| **v > x[own] || (**v == x[own] && *c < own);
            let before = x.iter().enumerate().filter(comes_first).count();
            row[4] += f64::from(u8::from(before < TOP));
            row[3] = f64::max(row[3], f64::from(u8::from(bad)));
        }
        let mut rows = io.updates[0].f_mut().chunks_mut(ROW);
        if let Some(slot) = rows.nth(io.step.slot as usize) {
            slot.copy_from_slice(&row);
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let (batch, classes) = (context.inputs[1].shape[0], context.inputs[1].shape[1]);
        let (lanes, invocations) = match context.profile.kind {
            ProfileKind::CpuLike => (1, 32),
            ProfileKind::Gpu => ((classes / 8).max(1).next_power_of_two().min(64), 256),
        };
        let kernel = Kernel::new(ROWS)
            .set("LANES", lanes)
            .set(
                "AT_ONCE",
                (invocations / lanes).min(batch.next_power_of_two()),
            )
            .set("SLOTS", context.inputs[0].shape[0])
            .set("BATCH", batch)
            .set("CLASSES", classes)
            .set("TOP", TOP);
        let bindings = vec![
            ("state", Arg::Input(0)),
            ("logits", Arg::Input(1)),
            ("labels", Arg::Input(2)),
            ("step", Arg::Step),
        ];
        Ok(Dispatch::grid(kernel, bindings, [1, 1, 1]).into())
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        4 * inputs[1].shape.len() as u64
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let (slots, batch) = (draw.int(1, 5), draw.int(1, 300));
    let classes = draw.pick(&[1, 2, 10, 33, 100, 1000]);
    let inputs = vec![
        (TensorType::f32([slots, ROW]), Fill::Uniform(-1.0, 1.0)),
        (TensorType::f32([batch, classes]), Fill::Uniform(-8.0, 8.0)),
        (TensorType::u32([batch]), Fill::Below(classes as u32)),
    ];
    // A sum of up to 300 losses, each at most 16 + log 1000 with the error of one.
    let mut tolerance = Tolerance::transcendental();
    tolerance.absolute *= batch as f64;
    let mut sample = Sample::new(Metrics, inputs, tolerance).without_gradient();
    sample.step.slot = draw.int(0, slots) as u32;
    sample.step.count = draw.int(0, batch + 5) as u32;
    sample
}
