//! Softmax cross-entropy from logits.

mod launch;

use super::reduction::{Reduction, saved_gradient};
use super::{
    Array, Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance,
    Value, channel_extents, expect_type,
};
use crate::error::{Error, Result};
use crate::gpu::kernel::Launch;
use crate::tensor::{Shape, TensorType};

/// The ops of this folder.
pub const ENTRIES: &[Entry] = &[Entry {
    name: "softmax_cross_entropy",
    sample,
}];

/// What the labels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Labels {
    /// Class indices, u32 `[N, ..]`. A label that is no class (so also -1 or -100 as
    /// u32) has neither loss nor gradient.
    Hard {
        /// Rows with this label do not count, in the mean neither.
        ignore: Option<u32>,
    },
    /// Distributions over the classes, f32 of the logits' shape.
    Soft,
}

impl Default for Labels {
    fn default() -> Self {
        Self::Hard { ignore: None }
    }
}

/// The cross-entropy between labels and the softmax of logits, with its derivative.
///
/// For each sample and place, over its classes c,
/// `loss = -sum t_c log softmax(x)_c` with `t_c = w_c (e / C + (1 - e) p_c)`:
/// `p` the label as a distribution, `e` the label smoothing (Szegedy et al. 2016), `w`
/// the class weights. The mean of hard labels divides by the sum of the weights of the
/// labels that count (0 if none does), that of soft labels by their number: PyTorch's
/// and ONNX's definitions, and Keras's without weights.
///
/// Inputs: logits f32 `[N, C, ..]`, labels (see [`Labels`]), optional class weights
/// f32 `[C]`. Outputs: the loss, a scalar, or `[N, ..]` where not reduced; and its
/// derivative by the logits, of their shape, which the gradient is taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SoftmaxCrossEntropy {
    /// What the labels are.
    pub labels: Labels,
    /// Share of the target spread evenly over the classes, from 0 up to 1 (excluded).
    pub label_smoothing: f64,
    /// How the rows' losses are put together.
    pub reduction: Reduction,
}

impl SoftmaxCrossEntropy {
    fn ignored(&self) -> Option<u32> {
        match self.labels {
            Labels::Hard { ignore } => ignore,
            Labels::Soft => None,
        }
    }

    /// Whether the mean's divisor depends on the labels.
    fn divides_by_labels(&self, weighted: bool) -> bool {
        let hard = self.labels != Labels::Soft;
        self.reduction == Reduction::Mean && hard && (weighted || self.ignored().is_some())
    }

    fn counts(&self, label: u32, classes: usize) -> bool {
        (label as usize) < classes && self.ignored() != Some(label)
    }

    /// The factor of each row's loss.
    fn scale(&self, labels: &Array, weights: Option<&[f64]>, rows: usize, classes: usize) -> f64 {
        if self.divides_by_labels(weights.is_some()) {
            let counted = labels.u().iter().filter(|l| self.counts(**l, classes));
            let total: f64 = counted
                .map(|l| weights.map_or(1.0, |w| w[*l as usize]))
                .sum();
            return if total > 0.0 { 1.0 / total } else { 0.0 };
        }
        match self.reduction {
            Reduction::Mean => 1.0 / rows as f64,
            Reduction::None | Reduction::Sum => 1.0,
        }
    }
}

impl Op for SoftmaxCrossEntropy {
    fn name(&self) -> &'static str {
        "softmax_cross_entropy"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        if !(2..=3).contains(&inputs.len()) {
            let problem = format!("expected 2 or 3 inputs, found {}", inputs.len());
            return Err(Error::shape(self.name(), problem));
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            let problem = format!(
                "label smoothing must be at least 0 and below 1, found {}",
                self.label_smoothing
            );
            return Err(Error::shape(self.name(), problem));
        }
        let [_, classes, _] = channel_extents(self, "logits", &inputs[0])?;
        let dims = inputs[0].shape.dims();
        let rows: Shape = [&dims[..1], &dims[2..]].concat().as_slice().into();
        let labels = match self.labels {
            Labels::Hard { .. } => TensorType::u32(rows.clone()),
            Labels::Soft => inputs[0].clone(),
        };
        expect_type(self, "labels", &labels, &inputs[1])?;
        if let Some(weights) = inputs.get(2) {
            expect_type(self, "class weights", &TensorType::f32([classes]), weights)?;
        }
        let loss = match self.reduction {
            Reduction::None => rows,
            Reduction::Mean | Reduction::Sum => Shape::default(),
        };
        Ok(vec![TensorType::f32(loss), inputs[0].clone()])
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        if node.wanted[1..].contains(&true) {
            return Err(Error::shape(
                self.name(),
                "has no gradient with respect to labels or class weights, only to logits",
            ));
        }
        let mut gradients = vec![None; node.inputs.len()];
        gradients[0] = saved_gradient(self, builder, node.outputs[1], upstream)?;
        Ok(gradients)
    }

    fn full_precision(&self) -> bool {
        true
    }

    fn reference(&self, io: Reference<'_>) {
        let (logits, labels) = (io.inputs[0], io.inputs[1]);
        let weights = io.inputs.get(2).map(|a| a.f());
        let classes = logits.dims()[1];
        let inner: usize = logits.dims()[2..].iter().product();
        let rows = logits.f().len() / classes;
        let scale = self.scale(labels, weights, rows, classes);
        let smoothing = self.label_smoothing;
        let (loss, derivative) = io.outputs.split_at_mut(1);
        let (loss, derivative) = (loss[0].f_mut(), derivative[0].f_mut());
        for row in 0..rows {
            let at = |c: usize| (row / inner * classes + c) * inner + row % inner;
            let x: Vec<f64> = (0..classes).map(|c| logits.f()[at(c)]).collect();
            let target = |c: usize| {
                let p = match self.labels {
                    Labels::Soft => labels.f()[at(c)],
                    Labels::Hard { .. } if !self.counts(labels.u()[row], classes) => return 0.0,
                    Labels::Hard { .. } => f64::from(u8::from(labels.u()[row] as usize == c)),
                };
                let weight = weights.map_or(1.0, |w| w[c]);
                weight * (smoothing / classes as f64 + (1.0 - smoothing) * p)
            };
            let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = x.iter().map(|x| (x - top).exp()).sum();
            let total: f64 = (0..classes).map(target).sum();
            let mut row_loss = 0.0;
            for c in 0..classes {
                row_loss += target(c) * (sum.ln() - (x[c] - top));
                derivative[at(c)] = (total * (x[c] - top).exp() / sum - target(c)) * scale;
            }
            let slot = if loss.len() == rows { row } else { 0 };
            loss[slot] += row_loss * scale;
        }
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        launch::launch(self, context)
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        // Maximum, exponential, sum, quotient, difference, scale.
        8 * inputs[0].shape.len() as u64
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let (n, classes) = (draw.int(1, 40), draw.int(1, 40));
    let logits = match draw.int(0, 3) {
        0 => TensorType::f32([n, classes]),
        1 => TensorType::f32([n, classes, draw.int(1, 20)]),
        // Many classes, and many rows: more lanes a row and more workgroups.
        2 => TensorType::f32([n, draw.int(1000, 1100)]),
        _ => TensorType::f32([n, classes, draw.int(30, 40), draw.int(30, 40)]),
    };
    let (dims, classes) = (logits.shape.dims().to_vec(), logits.shape[1]);
    let rows: Shape = [&dims[..1], &dims[2..]].concat().as_slice().into();
    let op = SoftmaxCrossEntropy {
        labels: draw.pick(&[
            Labels::default(),
            Labels::Hard { ignore: Some(0) },
            Labels::Soft,
        ]),
        label_smoothing: draw.pick(&[0.0, 0.1]),
        reduction: draw.pick(&[Reduction::None, Reduction::Mean, Reduction::Sum]),
    };
    let labels = match op.labels {
        // One class too many: a label that is no class.
        Labels::Hard { .. } => (
            TensorType::u32(rows.clone()),
            Fill::Below(classes as u32 + 1),
        ),
        Labels::Soft => (logits.clone(), Fill::Uniform(0.0, 2.0 / classes as f64)),
    };
    let mut inputs = vec![(logits, Fill::Uniform(-8.0, 8.0)), labels];
    if draw.coin() {
        inputs.push((TensorType::f32([classes]), Fill::Uniform(0.5, 1.5)));
    }
    let mut tolerance = Tolerance::transcendental();
    // Losses reach 16 + log C; with them grows the error of exp and log, and a sum of
    // rows adds that of each.
    tolerance.absolute *= 16.0;
    if op.reduction == Reduction::Sum {
        tolerance.absolute *= rows.len() as f64;
    }
    Sample::new(op, inputs, tolerance).gradient_of(1, &[0])
}
