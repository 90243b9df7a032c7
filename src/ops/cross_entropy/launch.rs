//! The dispatches of softmax cross-entropy.

use super::{Labels, SoftmaxCrossEntropy};
use crate::error::Result;
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::ProfileKind;
use crate::ops::reduction::{Reduction, sum_partials};
use crate::ops::{LaunchContext, channel_extents};
use crate::shader;

const ROWS: ShaderFile = shader!("cross_entropy/rows.wgsl");
const WEIGHTS: ShaderFile = shader!("cross_entropy/weights.wgsl");

/// Logits that one workgroup does alone, so that one dispatch does all: about what
/// another dispatch would cost.
const ONE_GROUP: usize = 1 << 15;
/// Most workgroups, and so partial sums.
const GROUPS: usize = 1024;
const WEIGHTS_WORKGROUP: usize = 64;

/// How rows are dealt out.
struct Split {
    /// Lanes of a row.
    lanes: usize,
    /// Rows of a workgroup at a time.
    at_once: usize,
    /// Workgroups.
    groups: usize,
}

impl Split {
    fn new(kind: ProfileKind, rows: usize, classes: usize, inner: usize) -> Self {
        let single = rows * classes <= ONE_GROUP;
        let (lanes, invocations) = match kind {
            ProfileKind::CpuLike => (1, if single { 64 } else { 8 }),
            // Several lanes a row where its classes lie side by side.
            ProfileKind::Gpu => {
                let lanes = if inner == 1 { classes / 8 } else { 1 };
                (lanes.max(1).next_power_of_two().min(64), 256)
            }
        };
        let at_once = (invocations / lanes).min(rows.next_power_of_two());
        let groups = if single {
            1
        } else {
            rows.div_ceil(at_once).min(GROUPS)
        };
        Self {
            lanes,
            at_once,
            groups,
        }
    }
}

/// The launch under construction.
struct Plan<'a> {
    op: &'a SoftmaxCrossEntropy,
    rows: usize,
    classes: usize,
    inner: usize,
    weighted: bool,
    launch: Launch,
}

pub(super) fn launch(op: &SoftmaxCrossEntropy, context: LaunchContext<'_>) -> Result<Launch> {
    let [n, classes, inner] = channel_extents(op, "logits", &context.inputs[0])?;
    let plan = Plan {
        op,
        rows: n * inner,
        classes,
        inner,
        weighted: context.inputs.len() == 3,
        launch: Launch::default(),
    };
    let split = Split::new(context.profile.kind, n * inner, classes, inner);
    Ok(plan.build(&split))
}

impl Plan<'_> {
    fn build(mut self, split: &Split) -> Launch {
        let by_labels = self.op.divides_by_labels(self.weighted);
        // With one workgroup the kernel adds the labels' weights itself.
        let (weight_sums, parts) = if by_labels && split.groups > 1 {
            self.sum_weights()
        } else {
            (Arg::Input(0), 0)
        };
        let reduced = self.op.reduction != Reduction::None;
        let loss = if reduced && split.groups > 1 {
            self.scratch(split.groups)
        } else {
            Arg::Output(0)
        };
        let scale = match self.op.reduction {
            Reduction::Mean => 1.0 / self.rows as f32,
            Reduction::None | Reduction::Sum => 1.0,
        };
        let kernel = self
            .kernel(ROWS)
            .set("LANES", split.lanes)
            .set("AT_ONCE", split.at_once)
            .set("GROUPS", split.groups)
            .set("INNER", self.inner)
            .set("SMOOTHING", self.op.label_smoothing)
            .set("SOFT", self.op.labels == Labels::Soft)
            .set("SCALE", scale)
            .set("BY_LABELS", by_labels)
            .set("WEIGHT_SUMS", parts)
            .set("PER_ROW", !reduced);
        let bindings = vec![
            ("logits", Arg::Input(0)),
            ("labels", Arg::Input(1)),
            self.class_weights(),
            ("weight_sums", weight_sums),
            ("dlogits", Arg::Output(1)),
            ("loss", loss),
        ];
        self.dispatch(kernel, bindings, split.groups);
        if loss != Arg::Output(0) {
            let sum = sum_partials(loss, Arg::Output(0), split.groups);
            self.launch.dispatches.push(sum);
        }
        self.launch
    }

    /// The stage that adds the labels' weights: where the parts lie, and their number.
    fn sum_weights(&mut self) -> (Arg, usize) {
        let slice = self.rows.div_ceil(GROUPS).max(16 * WEIGHTS_WORKGROUP);
        let parts = self.rows.div_ceil(slice);
        let sums = self.scratch(parts);
        let kernel = self
            .kernel(WEIGHTS)
            .set("WORKGROUP", WEIGHTS_WORKGROUP)
            .set("SLICE", slice);
        let bindings = vec![
            ("labels", Arg::Input(1)),
            self.class_weights(),
            ("weight_sums", sums),
        ];
        self.dispatch(kernel, bindings, parts);
        (sums, parts)
    }

    fn kernel(&self, file: ShaderFile) -> Kernel {
        let ignored = self.op.ignored();
        Kernel::new(file)
            .set("ROWS", self.rows)
            .set("CLASSES", self.classes)
            .set("WEIGHTED", self.weighted)
            .set("IGNORE", ignored.is_some())
            .set("IGNORED", ignored.unwrap_or(0))
    }

    /// Where there are no weights, the logits stand in, unread.
    fn class_weights(&self) -> (&'static str, Arg) {
        (
            "class_weights",
            Arg::Input(if self.weighted { 2 } else { 0 }),
        )
    }

    fn scratch(&mut self, floats: usize) -> Arg {
        self.launch.scratch.push(4 * floats as u64);
        Arg::Scratch(self.launch.scratch.len() - 1)
    }

    fn dispatch(&mut self, kernel: Kernel, bindings: Vec<(&'static str, Arg)>, groups: usize) {
        let dispatch = Dispatch::grid(kernel, bindings, [groups, 1, 1]);
        self.launch.dispatches.push(dispatch);
    }
}
