//! The sum over axes: the inverse of broadcasting.

use super::broadcast::{self, Axis, RANK, axes, broadcast, draw_operand};
use super::{Binary, BinaryOp, Fold};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, Kernel, Launch, ShaderFile};
use crate::gpu::profile::ProfileKind;
use crate::ops::{
    Builder, Draw, Entry, Fill, LaunchContext, NodeView, Op, Reference, Sample, Tolerance, Value,
    expect_inputs, expect_type, fill,
};
use crate::shader;
use crate::tensor::{Shape, TensorType};

const SUM_TO: ShaderFile = shader!("binary/sum_to.wgsl");
/// Kept and summed axes take turns once neighbours are joined.
const RUNS: usize = RANK / 2;

pub(super) const ENTRY: Entry = Entry {
    name: "sum_to",
    sample,
};

/// The sum of `x` over the axes along which `shape` would be broadcast to it: the
/// gradient of broadcasting.
///
/// Input: `x` f32 of up to 6 axes. Output: f32 of `shape`, which has to broadcast to
/// `x`'s (see [`Binary`]): `[]` gives the sum of all elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumTo {
    /// Shape of the output.
    pub shape: Shape,
}

impl Op for SumTo {
    fn name(&self) -> &'static str {
        "sum_to"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        infer_smaller(self, inputs, &self.shape)
    }

    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let Some(dy) = upstream[0] else {
            return Ok(vec![None]);
        };
        let shape = builder.ty(node.inputs[0]).shape.clone();
        let zeros = builder.add1(Box::new(fill::Fill { shape, value: 0.0 }), &[])?;
        let dx = builder.add1(Box::new(Binary(BinaryOp::Add)), &[zeros, dy])?;
        Ok(vec![Some(dx)])
    }

    fn reference(&self, io: Reference<'_>) {
        accumulate(io, &self.shape, |sum, value| sum + value);
    }

    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch> {
        let sum = Sum::new(&context.inputs[0].shape, &self.shape, None);
        Ok(sum.launch(context.profile.kind))
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        inputs[0].shape.len() as u64
    }
}

/// The output of an op that brings its one input to `shape`, which has to broadcast to it.
pub(super) fn infer_smaller(
    op: &dyn Op,
    inputs: &[TensorType],
    shape: &Shape,
) -> Result<Vec<TensorType>> {
    expect_inputs(op, inputs, 1)?;
    let x = &inputs[0].shape;
    expect_type(op, "x", &TensorType::f32(x.clone()), &inputs[0])?;
    if x.rank() <= RANK && !x.is_empty() && broadcast(x, shape).as_ref() == Some(x) {
        return Ok(vec![TensorType::f32(shape.clone())]);
    }
    let problem = format!(
        "cannot sum {x} to {shape}: expected at most {RANK} axes, no extent of 0, and a result \
         that broadcasts to x"
    );
    Err(Error::shape(op.name(), problem))
}

/// Folds each element of x into the place of y, of `shape`, that is broadcast to it.
pub(super) fn accumulate(io: Reference<'_>, shape: &Shape, fold: impl Fn(f64, f64) -> f64) {
    let x = &io.inputs[0].ty().shape;
    let strides = broadcast::strides(shape, x);
    let y = io.outputs[0].f_mut();
    for (i, value) in io.inputs[0].f().iter().enumerate() {
        let places = x.strides().into_iter().zip(x.dims()).zip(&strides);
        let at = places.map(|((own, extent), stride)| i / own % extent * stride);
        let y = &mut y[at.sum::<usize>()];
        *y = fold(*y, *value);
    }
}

/// A sum, or another fold, by the extents and strides in x of its kept and its summed axes.
pub(super) struct Sum {
    kept: Vec<(usize, usize)>,
    summed: Vec<(usize, usize)>,
    fold: Option<Fold>,
}

impl Sum {
    /// The sum, or with `fold` something else, of `x` to a shape that broadcasts to it.
    pub(super) fn new(x: &Shape, shape: &Shape, fold: Option<Fold>) -> Self {
        let (summed, kept): (Vec<Axis>, Vec<Axis>) = axes(x, [shape, x])
            .into_iter()
            .partition(|axis| axis.strides[0] == 0);
        let runs = |axes: Vec<Axis>| axes.iter().map(|a| (a.extent, a.strides[1])).collect();
        Self {
            kept: runs(kept),
            summed: runs(summed),
            fold,
        }
    }

    pub(super) fn launch(&self, kind: ProfileKind) -> Launch {
        let outputs = extent(&self.kept);
        let split = self.split(kind);
        let (x, y) = (Arg::Input(0), Arg::Output(0));
        if split.slices == 1 {
            return self.dispatch(&split, x, y).into();
        }
        let second = Self {
            kept: vec![(outputs, 1)],
            summed: vec![(split.slices, outputs)],
            fold: self.fold,
        };
        let whole = Split {
            lanes: 1,
            at_once: outputs.next_power_of_two().min(64),
            slices: 1,
        };
        let partials = Arg::Scratch(0);
        Launch {
            scratch: vec![(4 * split.slices * outputs) as u64],
            dispatches: vec![
                self.dispatch(&split, x, partials),
                second.dispatch(&whole, partials, y),
            ],
        }
    }

    fn split(&self, kind: ProfileKind) -> Split {
        let (outputs, terms) = (extent(&self.kept), extent(&self.summed));
        let rows = self.summed.last().is_some_and(|(_, stride)| *stride == 1);
        let (invocations, groups, loads) = match kind {
            // A subgroup; slices only where they repay a second dispatch.
            ProfileKind::CpuLike => (8, 32, 256),
            ProfileKind::Gpu => (64, 256, 32),
        };
        // Neighbouring lanes read neighbouring memory: terms where these lie side by
        // side, else outputs.
        let lanes = if kind == ProfileKind::Gpu && rows {
            (terms / 4).max(1).next_power_of_two().min(invocations)
        } else {
            invocations / outputs.next_power_of_two().min(invocations)
        };
        let at_once = invocations / lanes;
        let wanted = groups / outputs.div_ceil(at_once);
        let slices = wanted.min(terms / (lanes * loads)).max(1);
        Split {
            lanes,
            at_once,
            slices: terms.div_ceil(terms.div_ceil(slices)),
        }
    }

    fn dispatch(&self, split: &Split, x: Arg, partials: Arg) -> Dispatch {
        let (outputs, terms) = (extent(&self.kept), extent(&self.summed));
        let (k, ks) = padded(&self.kept);
        let (s, ss) = padded(&self.summed);
        let kernel = match self.fold {
            None => Kernel::new(SUM_TO),
            Some(fold) => fold.hooked(Kernel::new(SUM_TO)),
        };
        let kernel = kernel
            .set("LANES", split.lanes)
            .set("AT_ONCE", split.at_once)
            .set("OUTPUTS", outputs)
            .set("TERMS", terms)
            .set("SLICE", terms.div_ceil(split.slices))
            .set("K1", k[1])
            .set("K2", k[2])
            .set("KS0", ks[0])
            .set("KS1", ks[1])
            .set("KS2", ks[2])
            .set("S1", s[1])
            .set("S2", s[2])
            .set("SS0", ss[0])
            .set("SS1", ss[1])
            .set("SS2", ss[2]);
        let bindings = vec![("x", x), ("partials", partials)];
        let groups = outputs.div_ceil(split.at_once);
        let mut dispatch = Dispatch::linear(kernel, bindings, groups);
        dispatch.workgroups[2] = split.slices as u32;
        dispatch
    }
}

/// How the sums are dealt out.
struct Split {
    /// Lanes of an output.
    lanes: usize,
    /// Outputs of a workgroup.
    at_once: usize,
    /// Parts of each sum, each a workgroup's.
    slices: usize,
}

fn extent(axes: &[(usize, usize)]) -> usize {
    axes.iter().map(|(extent, _)| extent).product()
}

/// Extents and strides with axes of extent 1 in front.
fn padded(axes: &[(usize, usize)]) -> ([usize; RUNS], [usize; RUNS]) {
    let (mut extents, mut strides) = ([1; RUNS], [0; RUNS]);
    for (i, (extent, stride)) in axes.iter().rev().enumerate() {
        extents[RUNS - 1 - i] = *extent;
        strides[RUNS - 1 - i] = *stride;
    }
    (extents, strides)
}

/// A shape, and one that broadcasts to it.
pub(super) fn draw_sum(draw: &mut Draw) -> (Shape, Shape) {
    match draw.int(0, 4) {
        // Enough for several slices, of rows and of columns.
        0 => (Shape::from([draw.int(30_000, 40_000)]), Shape::default()),
        1 => {
            let columns = draw.int(1, 20);
            ([draw.int(20_000, 30_000), columns].into(), [columns].into())
        }
        // A short sum for each row.
        2 => {
            let [rows, columns] = [draw.int(100, 200), draw.int(10, 40)];
            ([rows, columns].into(), [rows, 1].into())
        }
        _ => {
            let x = super::draw_shape(draw);
            let shape = draw_operand(draw, &x);
            (x, shape)
        }
    }
}

fn sample(draw: &mut Draw) -> Sample {
    let (x, shape) = draw_sum(draw);
    let terms = x.len() / shape.len();
    let inputs = vec![(TensorType::f32(x), Fill::UNIT)];
    Sample::new(SumTo { shape }, inputs, Tolerance::sum(terms, 1.0))
}
