//! The operations a graph is made of: one place each.
//!
//! An op is a value that implements [`Op`]: its shape rule, its gradient as
//! further nodes, its reference in plain float64 loops and its launch on the GPU
//! stand together in one file or folder, its shaders in the folder of the same
//! name under `shaders/`. [`registry`] lists every op with a generator of random
//! legal cases; `tests/ops.rs` checks each against its reference, its gradient
//! against finite differences, and that every output element is written.
//!
//! To add an op: write the file, add its line to [`registry`]. Nothing else changes.

pub mod activation;
pub mod array;
pub mod augment;
pub mod batch;
pub mod batch_norm;
pub mod bias;
pub mod binary;
pub mod concat;
pub mod conv2d;
pub mod cross_entropy;
pub mod dropout;
pub mod elementwise_loss;
pub mod fill;
pub mod gather;
mod gemm;
pub mod int8;
mod lanes;
pub mod layer_norm;
pub mod loss_scale;
pub mod matmul;
pub mod metrics;
pub mod muon;
pub mod non_finite;
pub mod optimizer;
pub mod pad;
pub mod pool2d;
pub mod random;
pub mod reduction;
pub mod reshape;
pub mod sample;
pub mod scale;
pub mod select;
pub mod softmax;
pub mod transpose;
pub mod unary;
pub mod window;

pub use array::Array;
pub use sample::{Draw, Fill, Sample, Tolerance};
pub use window::{Pads, Window};

use crate::error::{Error, Result};
use crate::gpu::kernel::Launch;
use crate::gpu::profile::Profile;
use crate::tensor::{DType, TensorType};
use std::any::Any;
use std::fmt::Debug;

/// A tensor in a graph, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) u32);

/// The values that change from step to step. On the GPU they are the uniform
/// `Step` (see `shaders/step.wgsl`), chosen by dynamic offset.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// Steps taken since training began, this one included: 1, 2, …
    pub number: u32,
    /// Seed of the run; random ops derive their stream from it, the step and
    /// their own key.
    pub seed: u32,
    /// Position of the batch's first sample in the epoch's order.
    pub first: u32,
    /// Samples of the batch that count; the rest is padding.
    pub count: u32,
    /// The row of the metrics buffer this step writes.
    pub slot: u32,
    /// Learning rate.
    pub learning_rate: f64,
    /// The optimizer's first bias correction, 1 - beta1^t; 1 where it has none.
    pub correction1: f64,
    /// The optimizer's second bias correction, 1 - beta2^t; 1 where it has none.
    pub correction2: f64,
}

impl Step {
    /// Bytes of the `Step` uniform.
    pub const BYTES: usize = 32;

    /// The uniform's bytes, as `struct Step` in the shaders lays them out.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let words = [
            self.number,
            self.seed,
            self.first,
            self.count,
            self.slot,
            (self.learning_rate as f32).to_bits(),
            (self.correction1 as f32).to_bits(),
            (self.correction2 as f32).to_bits(),
        ];
        bytemuck::cast(words.map(u32::to_le))
    }
}

/// What a gradient rule builds with: a graph under construction.
pub trait Builder {
    /// Adds a node and returns its outputs.
    ///
    /// # Errors
    /// The op's own complaint about its inputs.
    fn add(&mut self, op: Box<dyn Op>, inputs: &[Value]) -> Result<Vec<Value>>;

    /// The type of a value.
    fn ty(&self, value: Value) -> &TensorType;

    /// Whether the value is the constant 1 that seeds the gradient of a loss, so
    /// that a rule may leave a multiplication out.
    fn is_one(&self, value: Value) -> bool;

    /// Adds a node with one output and returns it.
    ///
    /// # Errors
    /// The op's own complaint about its inputs.
    fn add1(&mut self, op: Box<dyn Op>, inputs: &[Value]) -> Result<Value> {
        Ok(self.add(op, inputs)?[0])
    }
}

/// A node as its gradient rule sees it.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// The node's inputs.
    pub inputs: &'a [Value],
    /// The node's outputs.
    pub outputs: &'a [Value],
    /// For each input, whether its gradient is needed.
    pub wanted: &'a [bool],
}

/// What a reference works on.
pub struct Reference<'a> {
    /// The inputs; those updated in place are empty here and stand in `updates`.
    pub inputs: &'a [&'a Array],
    /// The outputs, zeroed, of the types [`Op::infer`] gave.
    pub outputs: &'a mut [Array],
    /// The inputs named by [`Op::updates`], in that order, to change in place.
    pub updates: &'a mut [Array],
    /// The step's values.
    pub step: &'a Step,
}

/// What a launch is decided from.
#[derive(Clone, Copy, Debug)]
pub struct LaunchContext<'a> {
    /// The device.
    pub profile: &'a Profile,
    /// Types of the inputs.
    pub inputs: &'a [TensorType],
    /// Types of the outputs.
    pub outputs: &'a [TensorType],
    /// Of each input, whether it is kept in half precision.
    pub halves: &'a [bool],
}

impl LaunchContext<'_> {
    /// The launch on the same device of another op, which this one is made of.
    fn launch(&self, op: &dyn Op, inputs: &[TensorType], outputs: &[TensorType]) -> Result<Launch> {
        op.launch(LaunchContext {
            profile: self.profile,
            inputs,
            outputs,
            // Some may be scratch of this one, which is f32.
            halves: &[],
        })
    }
}

/// One operation. See the [module documentation](self).
pub trait Op: Any + Debug + Send + Sync {
    /// The field's standard name, as in messages and plans: `conv2d`.
    fn name(&self) -> &'static str;

    /// The types of the outputs.
    ///
    /// # Errors
    /// [`Error::Shape`] that says what was expected and what was found.
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>>;

    /// Indices of the inputs this op changes in place (parameters, running
    /// statistics). A node with any is never dropped or reordered.
    fn updates(&self) -> &'static [usize] {
        &[]
    }

    /// The input whose storage output 0 shares, for ops that only rename
    /// (reshape). Such an op has no launch.
    fn alias(&self) -> Option<usize> {
        None
    }

    /// The gradient: for each input, the value that holds dL/dinput, or `None`
    /// where it is not wanted or zero. `upstream` holds dL/doutput for each
    /// output, `None` where an output does not reach the loss.
    ///
    /// # Errors
    /// If the op has no gradient, or what the added nodes complain of.
    fn gradient(
        &self,
        builder: &mut dyn Builder,
        node: NodeView<'_>,
        upstream: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>> {
        let _ = (builder, node, upstream);
        Err(Error::shape(
            self.name(),
            "has no gradient rule; it cannot stand between a parameter and the loss",
        ))
    }

    /// The definition, in plain loops and float64.
    fn reference(&self, io: Reference<'_>);

    /// The dispatches on the given device.
    ///
    /// # Errors
    /// [`Error::Limit`] where the device cannot run it.
    fn launch(&self, context: LaunchContext<'_>) -> Result<Launch>;

    /// Whether its operands and results are kept in f32 where others are halved
    /// ([`Graph::halved`](crate::graph::Graph::halved)): losses and metrics.
    fn full_precision(&self) -> bool {
        false
    }

    /// Floating-point operations of one run (a multiply-add counts two).
    fn flops(&self, inputs: &[TensorType], outputs: &[TensorType]) -> u64 {
        let _ = inputs;
        outputs.iter().map(|t| t.shape.len() as u64).sum()
    }

    /// Whether this op, whose output is smaller than its input, gives the same before
    /// `previous`, an elementwise op, as after it. The graph then turns them round.
    fn commutes_with(&self, previous: &dyn Op) -> bool {
        let _ = previous;
        false
    }

    /// This op with `next` (which alone reads this op's output 0, as its input 0)
    /// done in its epilogue, if it can. The fused node's inputs are this node's,
    /// then `next`'s from its second; its outputs are `next`'s, then this node's
    /// from its second.
    fn fuse_epilogue(&self, next: &dyn Op) -> Option<Box<dyn Op>> {
        let _ = next;
        None
    }

    /// This op with `previous` (whose output 0 is this op's input 0 and read by
    /// nothing else) done as its operand is loaded, if it can. Inputs and outputs
    /// are ordered as for [`fuse_epilogue`](Op::fuse_epilogue), with `previous` first.
    fn fuse_prologue(&self, previous: &dyn Op) -> Option<Box<dyn Op>> {
        let _ = previous;
        None
    }

    /// This op saying by its output 1 what `reader`, which reads that, looks up in its output 0.
    fn settle(&self, reader: &dyn Op) -> Option<Settled> {
        let _ = reader;
        None
    }

    /// Whether this op, with another fused in as its prologue, is better off so on the given
    /// device even where that one stays, as others read it too.
    fn looks_through(&self, context: &LaunchContext<'_>) -> bool {
        let _ = context;
        false
    }
}

impl dyn Op {
    /// This op as its concrete type, if it is one.
    pub fn downcast<T: Op>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }
}

/// An op and a reader of its that does with an input less ([`Op::settle`]).
#[derive(Debug)]
pub struct Settled {
    /// The op.
    pub op: Box<dyn Op>,
    /// The reader, without an input.
    pub reader: Box<dyn Op>,
    /// Which input of the reader that was: output 0 of the op.
    pub dropped: usize,
}

/// An op's entry in the [`registry`].
#[derive(Clone, Copy)]
pub struct Entry {
    /// The op's [`name`](Op::name).
    pub name: &'static str,
    /// Draws a random legal case.
    pub sample: fn(&mut Draw) -> Sample,
}

/// Every op, for the tests and tools that treat them all alike.
pub fn registry() -> Vec<Entry> {
    [
        activation::ENTRIES,
        augment::ENTRIES,
        batch::ENTRIES,
        bias::ENTRIES,
        binary::ENTRIES,
        batch_norm::ENTRIES,
        concat::ENTRIES,
        conv2d::ENTRIES,
        cross_entropy::ENTRIES,
        dropout::ENTRIES,
        elementwise_loss::ENTRIES,
        fill::ENTRIES,
        gather::ENTRIES,
        int8::ENTRIES,
        layer_norm::ENTRIES,
        loss_scale::ENTRIES,
        matmul::ENTRIES,
        metrics::ENTRIES,
        non_finite::ENTRIES,
        muon::ENTRIES,
        optimizer::ENTRIES,
        pad::ENTRIES,
        pool2d::ENTRIES,
        reshape::ENTRIES,
        scale::ENTRIES,
        select::ENTRIES,
        softmax::ENTRIES,
        transpose::ENTRIES,
        unary::ENTRIES,
    ]
    .concat()
}

/// Checks the number of inputs.
///
/// # Errors
/// [`Error::Shape`] that names the op.
pub(crate) fn expect_inputs(op: &dyn Op, inputs: &[TensorType], count: usize) -> Result<()> {
    if inputs.len() == count {
        return Ok(());
    }
    Err(Error::shape(
        op.name(),
        format!("expected {count} inputs, found {}", inputs.len()),
    ))
}

/// Checks that two types agree.
///
/// # Errors
/// [`Error::Shape`] that names the op, the operand and both types.
pub(crate) fn expect_type(
    op: &dyn Op,
    operand: &str,
    expected: &TensorType,
    found: &TensorType,
) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::shape(
        op.name(),
        format!("{operand}: expected {expected}, found {found}"),
    ))
}

/// The extents of an f32 tensor `[N, C, ..]`: N, C and the product of the rest.
///
/// # Errors
/// [`Error::Shape`] that names the op, the operand and what was found.
pub(crate) fn channel_extents(
    op: &dyn Op,
    operand: &str,
    found: &TensorType,
) -> Result<[usize; 3]> {
    let dims = found.shape.dims();
    match dims {
        [n, c, rest @ ..] if found.dtype == DType::F32 && !found.shape.is_empty() => {
            Ok([*n, *c, rest.iter().product()])
        }
        _ => Err(Error::shape(
            op.name(),
            format!(
                "{operand}: expected f32[N, C, ..] with every extent at least 1, found {found}"
            ),
        )),
    }
}
