//! From a graph to a program: launches, their places in memory, and the commands made of both.

use super::gpu::GpuBackend;
use super::memory::Home;
use super::reference::check_write;
use super::{Graph, MemoryPlan, Node, Place};
use crate::error::{Error, Result};
use crate::gpu::executor::{Command, Gate};
use crate::gpu::kernel::{Arg, Launch};
use crate::gpu::range::Range;
use crate::gpu::sequence::{Piece, Sequence};
use crate::gpu::staging::{Staging, TexturePlan};
use crate::gpu::texels;
use crate::gpu::{Gpu, Texels};
use crate::ops::{LaunchContext, Step, Value};
use crate::tensor::TensorType;
use std::collections::HashMap;

/// A program that runs.
pub(super) struct Compiled {
    pub(super) sequence: Sequence,
    pub(super) nodes: Vec<Profiled>,
    /// Bytes of textures that stand for buffers.
    pub(super) staged: u64,
}

/// What a profile says of a node.
pub(super) struct Profiled {
    pub(super) layer: String,
    pub(super) op: &'static str,
    pub(super) flops: u64,
    pub(super) bytes: u64,
    pub(super) commands: usize,
}

/// What a graph asks of the device, within its limits. Nothing is allocated for it yet.
pub(super) struct Planned {
    launches: Vec<Launch>,
    pub(super) memory: MemoryPlan,
    /// The largest tenant of each slot, for messages.
    pub(super) tenants: Vec<String>,
}

impl Planned {
    pub(super) fn new(backend: &GpuBackend, graph: &Graph) -> Result<Self> {
        let launches = graph
            .nodes()
            .iter()
            .map(|node| launch(backend, graph, node))
            .collect::<Result<Vec<_>>>()?;
        let scratch: Vec<_> = launches.iter().map(|l| l.scratch.clone()).collect();
        let memory = MemoryPlan::new(graph, &scratch);
        let mut tenants = vec![String::from("scratch"); memory.slots.len()];
        for node in graph.nodes() {
            for value in &node.outputs {
                if let Some(slot) = memory.results.get(value)
                    && graph.value(*value).bytes() == memory.slots[*slot].bytes
                {
                    tenants[*slot] = format!("{}: {}", node.label(), graph.value(*value).ty);
                }
            }
        }
        for (slot, tenant) in memory.slots.iter().zip(&tenants) {
            backend.gpu.check_buffer(tenant, slot.bytes)?;
        }
        Ok(Self {
            launches,
            memory,
            tenants,
        })
    }

    /// Bytes of the textures that the dispatches read in the stead of buffers.
    pub(super) fn textures(&self, gpu: &Gpu, graph: &Graph) -> Result<u64> {
        if gpu.profile.texels == Texels::Never {
            return Ok(0);
        }
        let piece = |place: &Place| Piece::new(place.home.clone(), place.offset, place.bytes);
        let read_until = self.memory.read_until(graph);
        let mut textures = TexturePlan::default();
        for (index, (node, launch)) in graph.nodes().iter().zip(&self.launches).enumerate() {
            let is_half = |arg| graph.half_root(node, arg).is_some();
            let place = |arg| self.memory.operand(graph, index, arg, &launch.scratch);
            for dispatch in &launch.dispatches {
                let bound = |name: &str| {
                    let bound = dispatch.bindings.iter().find(|(n, _)| *n == name);
                    bound.map(|(_, arg)| (place(*arg).seen_by(dispatch, name), is_half(*arg)))
                };
                let readings = |name: &str| {
                    let of = |(place, _): (Place, bool)| {
                        texels::readings(gpu, dispatch, name, place.bytes)
                    };
                    bound(name).map(of).unwrap_or_default()
                };
                let halved = |name: &str| bound(name).is_some_and(|(_, half)| half);
                let uses = dispatch.kernel.uses_with_texels(&readings, &halved)?;
                let places: Vec<_> = uses
                    .iter()
                    .filter_map(|u| Some((u, bound(&u.name)?.0)))
                    .collect();
                for (used, place) in &places {
                    if let Some(texel) = used.texel {
                        textures.texture(piece(place), texel);
                    }
                }
                for (_, place) in places.iter().filter(|(used, _)| used.writable) {
                    textures.release(&piece(place));
                }
            }
            let read = read_until[index]
                .iter()
                .map(|v| self.memory.place(graph, *v));
            let scratch = (0..launch.scratch.len()).map(|i| place(Arg::Scratch(i)));
            for place in read.chain(scratch) {
                textures.release(&piece(&place));
            }
        }
        Ok(textures.bytes())
    }

    /// The program, its results in these buffers.
    pub(super) fn compile(
        self,
        backend: &GpuBackend,
        graph: &Graph,
        slots: Vec<wgpu::Buffer>,
    ) -> Result<Compiled> {
        let lowering = Lowering {
            backend,
            graph,
            launches: self.launches,
            plan: self.memory,
            slots,
            staging: Staging::default(),
            gate: None,
            gated: 0,
            commands: Vec::new(),
            nodes: Vec::new(),
        };
        lowering.run()
    }
}

/// A graph on its way to commands.
struct Lowering<'a> {
    backend: &'a GpuBackend,
    graph: &'a Graph,
    launches: Vec<Launch>,
    plan: MemoryPlan,
    slots: Vec<wgpu::Buffer>,
    staging: Staging,
    gate: Option<Gate>,
    /// Commands held back by the gate so far.
    gated: usize,
    commands: Vec<Command>,
    nodes: Vec<Profiled>,
}

impl Lowering<'_> {
    fn run(mut self) -> Result<Compiled> {
        let read_until = self.plan.read_until(self.graph);
        for (index, node) in self.graph.nodes().iter().enumerate() {
            let ranges = self.ranges(index, node)?;
            self.nodes.push(self.profiled(index, node));
            if let (Some(flag), None) = (node.guard, &self.gate) {
                let (gate, command) = self.gate(flag)?;
                self.gate = Some(gate);
                self.commands.push(command);
                if let Some(first) = self.nodes.last_mut() {
                    first.commands += 1;
                }
            }
            for nth in 0..self.launches[index].dispatches.len() {
                let command = self.command(index, nth, node, &ranges)?;
                self.commands.push(command);
            }
            for value in &read_until[index] {
                self.staging.release(&self.range(*value)?);
            }
            for i in 0..self.plan.scratch[index].len() {
                self.staging.release(&ranges[&Arg::Scratch(i)]);
            }
        }
        Ok(Compiled {
            sequence: Sequence::new(self.commands),
            nodes: self.nodes,
            staged: self.staging.bytes(),
        })
    }

    /// Where the arguments of a node's dispatches lie.
    fn ranges(&self, index: usize, node: &Node) -> Result<HashMap<Arg, Range>> {
        let mut ranges = HashMap::new();
        for (i, value) in node.inputs.iter().enumerate() {
            ranges.insert(Arg::Input(i), self.range(*value)?);
        }
        for (i, value) in node.outputs.iter().enumerate() {
            if node.op.alias().is_none() {
                ranges.insert(Arg::Output(i), self.range(*value)?);
            }
        }
        for (i, slot) in self.plan.scratch[index].iter().enumerate() {
            let bytes = self.launches[index].scratch[i];
            ranges.insert(Arg::Scratch(i), self.slot(*slot, bytes, false));
        }
        let step = Range {
            buffer: self.backend.steps.clone(),
            offset: 0,
            bytes: Step::BYTES as u64,
            half: false,
        };
        ranges.insert(Arg::Step, step);
        Ok(ranges)
    }

    fn profiled(&self, index: usize, node: &Node) -> Profiled {
        let inputs = self.graph.types(&node.inputs);
        let outputs = self.graph.types(&node.outputs);
        let updated = node.op.updates().iter().map(|i| &node.inputs[*i]);
        let moved = node.inputs.iter().chain(&node.outputs).chain(updated);
        Profiled {
            layer: node.layer.clone(),
            op: node.op.name(),
            flops: node.op.flops(&inputs, &outputs),
            bytes: moved.map(|v| self.graph.bytes(*v)).sum(),
            commands: self.launches[index].dispatches.len(),
        }
    }

    /// The command of a node's dispatch, behind the gate if the node is guarded.
    fn command(
        &mut self,
        index: usize,
        nth: usize,
        node: &Node,
        ranges: &HashMap<Arg, Range>,
    ) -> Result<Command> {
        let dispatch = &self.launches[index].dispatches[nth];
        let mut bindings = dispatch.bindings.iter();
        if let Some((name, arg)) = bindings.find(|(_, arg)| !ranges.contains_key(arg)) {
            let problem = format!("{name} is bound to {arg:?}, which does not exist");
            return Err(Error::shader(dispatch.kernel.path(), problem));
        }
        let command = self.backend.gpu.prepare(
            &node.label(),
            dispatch,
            node.op.updates(),
            Step::BYTES as u64,
            &|arg| ranges[&arg].clone(),
            &mut self.staging,
        )?;
        Ok(match (&self.gate, node.guard) {
            (Some(gate), Some(_)) => {
                self.gated += 1;
                command.gated(gate, self.gated - 1)
            }
            _ => command,
        })
    }

    /// The gate of all guarded nodes. Their flag is the same.
    fn gate(&self, flag: Value) -> Result<(Gate, Command)> {
        let guarded = self.graph.nodes().iter().zip(&self.launches);
        let guarded = guarded.filter(|(node, _)| node.guard.is_some());
        let dispatches = guarded.flat_map(|(_, launch)| &launch.dispatches);
        let workgroups: Vec<_> = dispatches.map(|d| d.workgroups).collect();
        self.backend.gpu.gate(&self.range(flag)?, &workgroups)
    }

    fn slot(&self, slot: usize, bytes: u64, half: bool) -> Range {
        Range {
            half,
            buffer: self.slots[slot].clone(),
            offset: 0,
            bytes,
        }
    }

    /// Where a value lives.
    fn range(&self, value: Value) -> Result<Range> {
        let place = self.plan.place(self.graph, value);
        let buffer = match place.home {
            Home::Slot(slot) => {
                let half = self.graph.value(self.graph.storage_root(value)).half;
                return Ok(self.slot(slot, place.bytes, half));
            }
            Home::Step => self.backend.steps.clone(),
            Home::State(name) => {
                let state = self.backend.state(&name)?;
                let root = self.graph.storage_root(value);
                let TensorType { shape, dtype } = &self.graph.value(root).ty;
                let before = place.offset as usize / dtype.size();
                let reached = TensorType {
                    shape: [before + shape.len()].into(),
                    dtype: *dtype,
                };
                check_write(&name, &state.ty, &reached)?;
                state.buffer.clone()
            }
        };
        let alignment = self.backend.gpu.profile.binding_alignment;
        if !place.offset.is_multiple_of(alignment) {
            return Err(Error::Runtime(format!(
                "a view starts at byte {}, the device binds at multiples of {alignment}",
                place.offset
            )));
        }
        Ok(Range {
            buffer,
            offset: place.offset,
            bytes: place.bytes,
            half: false,
        })
    }
}

/// The launch of a node, checked against the device's limits.
fn launch(backend: &GpuBackend, graph: &Graph, node: &Node) -> Result<Launch> {
    if node.op.alias().is_some() {
        return Ok(Launch::default());
    }
    let gpu = &backend.gpu;
    // Before the launch: kernels count elements in 32 bits.
    for value in node.inputs.iter().chain(&node.outputs) {
        let ty = &graph.value(*value).ty;
        gpu.check_binding(&format!("{}: {ty}", node.label()), graph.bytes(*value))?;
    }
    let (inputs, outputs) = (graph.types(&node.inputs), graph.types(&node.outputs));
    let launch = node.op.launch(LaunchContext {
        profile: &gpu.profile,
        inputs: &inputs,
        outputs: &outputs,
        halves: &graph.halves(&node.inputs),
    })?;
    for bytes in &launch.scratch {
        gpu.check_binding(&format!("{}: scratch", node.label()), *bytes)?;
    }
    for dispatch in &launch.dispatches {
        gpu.check_workgroups(&node.label(), dispatch)?;
    }
    Ok(launch)
}
