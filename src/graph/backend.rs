//! What runs a graph: the GPU, or the reference path on the CPU.

use super::{Graph, MemoryPlan};
use crate::error::{Error, Result};
use crate::gpu::executor::Counters;
use crate::gpu::profiler::Clock;
use crate::ops::{Array, Step};
use crate::tensor::TensorType;

/// A compiled graph, by index in its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program(pub(crate) usize);

/// A result under way to the host, by the order it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

/// How long one node of a program takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// The layer it belongs to.
    pub layer: String,
    /// The op.
    pub op: &'static str,
    /// Floating-point operations of one run.
    pub flops: u64,
    /// Bytes of its inputs and outputs; those updated in place count twice.
    pub bytes: u64,
    /// The shader and the seconds of each of its dispatches.
    pub dispatches: Vec<(&'static str, f64)>,
}

impl Timing {
    /// Seconds of all dispatches.
    pub fn seconds(&self) -> f64 {
        self.dispatches.iter().map(|d| d.1).sum()
    }
}

/// How long the nodes of a program take, one by one.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What measured it.
    pub clock: Clock,
    /// The nodes that dispatch anything, in the order they run.
    pub timings: Vec<Timing>,
}

/// The memory that a backend's device can give, as far as that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Available {
    /// The device uses the host's memory, of which so many bytes are free.
    Host(u64),
    /// It has its own, and does not tell how much.
    Unknown,
    /// There is no device: see [`CpuBackend`](super::CpuBackend).
    NoDevice,
}

/// Holds state and runs graphs over it.
pub trait Backend {
    /// The device in one line, for people.
    fn describe(&self) -> String;

    /// Creates the named state, zeroed. An existing one of the same type is zeroed.
    ///
    /// # Errors
    /// If the device cannot hold it.
    fn create(&mut self, name: &str, ty: &TensorType) -> Result<()>;

    /// Overwrites a state from element 0 on with the given array's elements.
    ///
    /// # Errors
    /// If there is no such state or it is smaller.
    fn write(&mut self, name: &str, data: &Array) -> Result<()>;

    /// Reads a state, waiting for all work before it.
    ///
    /// # Errors
    /// If there is no such state or the device failed.
    fn read(&mut self, name: &str) -> Result<Array>;

    /// Plans a graph's memory and checks it against the device's limits, without
    /// allocating or compiling.
    ///
    /// # Errors
    /// [`Error::Limit`] that names the tensor and the limit.
    fn plan(&self, graph: &Graph) -> Result<MemoryPlan>;

    /// Makes a graph ready to run. Its states must exist.
    ///
    /// # Errors
    /// If a state is missing, a kernel does not compile or a limit is exceeded.
    fn compile(&mut self, graph: Graph) -> Result<Program>;

    /// Runs a program once for each step, in order, without waiting.
    ///
    /// # Errors
    /// If the device failed.
    fn run(&mut self, program: Program, steps: &[Step]) -> Result<()>;

    /// Runs a program as [`run`](Self::run) does, then sends the first `len` elements of
    /// the state `name` on their way to the host as they are after the last step.
    ///
    /// # Errors
    /// If there is no such state, it is smaller, or the device failed.
    fn run_and_read(
        &mut self,
        program: Program,
        steps: &[Step],
        name: &str,
        len: usize,
    ) -> Result<Ticket>;

    /// The data of a ticket; waits for it if `wait`, else returns `None` where it
    /// has not arrived. Tickets are taken in the order they were given.
    ///
    /// # Errors
    /// If the device failed.
    fn take(&mut self, ticket: Ticket, wait: bool) -> Result<Option<Array>>;

    /// Waits for all work, that of compiling included: what follows can be timed.
    ///
    /// # Errors
    /// If the device failed.
    fn synchronize(&mut self) -> Result<()>;

    /// Runs a program `repeats` times, timing its dispatches one by one.
    ///
    /// # Errors
    /// If the device failed, or the backend has no dispatches.
    fn profile(&mut self, program: Program, step: &Step, repeats: usize) -> Result<Profile>;

    /// What crossed the bus so far.
    fn counters(&self) -> Counters;

    /// Most bytes one op may bind of one tensor.
    fn max_binding(&self) -> u64;

    /// Bytes of device memory held by states and by what programs compute on the way: slots,
    /// which the programs share, and textures.
    fn memory(&self) -> (u64, u64);

    /// What memory is there for more.
    fn available(&self) -> Available;
}

/// An error of compiling for `batch` images; where a limit is behind it, with the largest
/// batch whose graph (as `graph` builds it) stays within the device's limits.
pub(crate) fn advise_batch(
    error: Error,
    batch: usize,
    backend: &dyn Backend,
    graph: impl Fn(usize) -> Result<Graph>,
) -> Error {
    if !matches!(error, Error::Limit { .. }) {
        return error;
    }
    let within = |n| graph(n).and_then(|g| backend.plan(&g)).is_ok();
    let advice = batch_advice(largest_batch(batch - 1, within), "--batch-size");
    Error::Device(format!("{error}; {advice}"))
}

/// What to do where `largest` is the largest batch that fits, which `flag` sets.
pub(crate) fn batch_advice(largest: usize, flag: &str) -> String {
    match largest {
        0 => "not even a batch of 1 fits".to_owned(),
        n => format!("the largest batch that fits is {n}: try {flag} {n}"),
    }
}

/// The largest batch of at most `most` that `fits`; 0 where not even one image does.
pub(crate) fn largest_batch(most: usize, fits: impl Fn(usize) -> bool) -> usize {
    if most == 0 || fits(most) {
        return most;
    }
    // Tensors grow with the batch: bisect.
    let (mut fitting, mut failing) = (0, most);
    while failing - fitting > 1 {
        let middle = fitting.midpoint(failing);
        if fits(middle) {
            fitting = middle;
        } else {
            failing = middle;
        }
    }
    fitting
}
