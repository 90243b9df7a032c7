//! The GPU backend: a graph becomes a flat list of prepared dispatches.

use super::backend::Available;
use super::memory::{Home, Shared};
use super::reference::{check_write, first};
use super::{Backend, Graph, MemoryPlan, Node, Profile, Program, Ticket, Timing};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::gpu::executor::{Command, Counters, Gate, MAX_STEPS, Range, STEP_STRIDE, padded};
use crate::gpu::host_memory::available;
use crate::gpu::kernel::{Arg, Launch};
use crate::gpu::readback::Readback;
use crate::gpu::sequence::Sequence;
use crate::gpu::texels::{self, Staging, TexturePlan};
use crate::ops::{Array, LaunchContext, Step, Value};
use crate::tensor::TensorType;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// Most bytes written by the host that wait for a submission, each in a copy: more are sent
/// before the next write.
pub(crate) const MOST_UNSENT: u64 = 256 << 20;

/// Runs graphs on a GPU.
pub struct GpuBackend {
    gpu: Rc<Gpu>,
    states: HashMap<String, State>,
    programs: Vec<Compiled>,
    /// What the results of all programs lie in.
    slots: Vec<wgpu::Buffer>,
    shared: Shared,
    steps: wgpu::Buffer,
    pending: VecDeque<Pending>,
    idle: Vec<Readback>,
    tickets: u64,
    counters: Counters,
    /// Bytes written since the last submission.
    unsent: u64,
}

struct State {
    ty: TensorType,
    buffer: wgpu::Buffer,
}

struct Compiled {
    sequence: Sequence,
    nodes: Vec<Profiled>,
    /// Bytes of textures that stand for buffers.
    staged: u64,
}

/// What a profile says of a node.
struct Profiled {
    layer: String,
    op: &'static str,
    flops: u64,
    bytes: u64,
    commands: usize,
}

struct Pending {
    ticket: Ticket,
    ty: TensorType,
    readback: Readback,
    submission: wgpu::SubmissionIndex,
}

impl GpuBackend {
    /// A backend without states on an open device.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn new(gpu: Rc<Gpu>) -> Result<Self> {
        Ok(Self {
            steps: gpu.step_buffer()?,
            gpu,
            states: HashMap::new(),
            programs: Vec::new(),
            slots: Vec::new(),
            shared: Shared::default(),
            pending: VecDeque::new(),
            idle: Vec::new(),
            tickets: 0,
            counters: Counters::default(),
            unsent: 0,
        })
    }

    /// The device it runs on.
    pub fn gpu(&self) -> &Rc<Gpu> {
        &self.gpu
    }

    fn state(&self, name: &str) -> Result<&State> {
        self.states
            .get(name)
            .ok_or_else(|| Error::Runtime(format!("there is no state {name:?}")))
    }

    fn submit(
        &mut self,
        program: Program,
        steps: &[Step],
        finish: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<wgpu::SubmissionIndex> {
        let whole = steps.len().saturating_sub(1) / MAX_STEPS * MAX_STEPS;
        let (head, tail) = steps.split_at(whole);
        for chunk in head.chunks(MAX_STEPS) {
            self.submit_chunk(program, chunk, |_| {})?;
        }
        self.submit_chunk(program, tail, finish)
    }

    fn submit_chunk(
        &mut self,
        program: Program,
        steps: &[Step],
        finish: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<wgpu::SubmissionIndex> {
        self.gpu.check()?;
        let mut bytes = vec![0; steps.len() * STEP_STRIDE as usize];
        for (slot, step) in bytes.chunks_exact_mut(STEP_STRIDE as usize).zip(steps) {
            slot[..Step::BYTES].copy_from_slice(&step.to_bytes());
        }
        self.gpu.queue.write_buffer(&self.steps, 0, &bytes);
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let sequence = &self.programs[program.0].sequence;
        sequence.encode(&mut encoder, steps.len());
        finish(&mut encoder);
        self.counters.bytes_uploaded += bytes.len() as u64;
        self.counters.dispatches += (sequence.commands().len() * steps.len()) as u64;
        self.counters.submissions += 1;
        self.unsent = 0;
        self.gpu.submit(Some(encoder.finish()))
    }

    /// Before so many bytes are written: sends what was written before, if it is much.
    fn make_room(&mut self, bytes: u64) -> Result<()> {
        if self.unsent > 0 && self.unsent + bytes > MOST_UNSENT {
            let submission = self.gpu.submit(None)?;
            self.gpu.wait(Some(&submission))?;
            self.counters.waits += 1;
            self.unsent = 0;
        }
        self.unsent += bytes;
        Ok(())
    }

    /// Buffers for a program's slots; what was in them is of no more use.
    fn place(&mut self, planned: &Planned) -> Result<Vec<wgpu::Buffer>> {
        let mut shared = self.shared.clone();
        let places = shared.place(&planned.memory.slots);
        for place in self.slots.len()..shared.sizes.len() {
            let slot = places.iter().position(|p| *p == place);
            let tenant = slot.map_or("a slot", |slot| planned.tenants[slot].as_str());
            self.slots
                .push(self.gpu.buffer(tenant, shared.sizes[place])?);
            self.shared.sizes.push(shared.sizes[place]);
        }
        let buffers = places.into_iter().map(|place| self.slots[place].clone());
        let buffers: Vec<wgpu::Buffer> = buffers.collect();
        buffers.iter().for_each(|buffer| self.gpu.poison(buffer));
        Ok(buffers)
    }

    fn readback(&mut self, bytes: u64) -> Result<Readback> {
        let capacity = Readback::capacity_for(bytes);
        match self.idle.iter().position(|r| r.capacity() == capacity) {
            Some(found) => Ok(self.idle.swap_remove(found).with_bytes(bytes)),
            None => Readback::new(&self.gpu, bytes),
        }
    }
}

impl Backend for GpuBackend {
    fn describe(&self) -> String {
        self.gpu.describe()
    }

    fn create(&mut self, name: &str, ty: &TensorType) -> Result<()> {
        if let Some(state) = self.states.get(name)
            && state.ty == *ty
        {
            let zeros = vec![0; state.buffer.size() as usize];
            self.gpu.queue.write_buffer(&state.buffer, 0, &zeros);
            return Ok(());
        }
        let buffer = self.gpu.buffer(name, ty.bytes())?;
        let ty = ty.clone();
        self.states.insert(name.into(), State { ty, buffer });
        Ok(())
    }

    fn write(&mut self, name: &str, data: &Array) -> Result<()> {
        self.gpu.check()?;
        let state = self.state(name)?;
        check_write(name, &state.ty, data.ty())?;
        let (buffer, bytes) = (state.buffer.clone(), data.to_gpu_bytes());
        self.make_room(bytes.len() as u64)?;
        self.gpu.queue.write_buffer(&buffer, 0, &bytes);
        self.counters.bytes_uploaded += bytes.len() as u64;
        Ok(())
    }

    fn read(&mut self, name: &str) -> Result<Array> {
        let ty = self.state(name)?.ty.clone();
        let mut readback = self.readback(ty.bytes())?;
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        readback.encode(&mut encoder, &self.state(name)?.buffer, 0);
        let submission = self.gpu.submit(Some(encoder.finish()))?;
        readback.request();
        let bytes = readback.wait(&self.gpu, &submission)?;
        self.idle.push(readback);
        self.counters.waits += 1;
        self.counters.submissions += 1;
        self.counters.bytes_read_back += bytes.len() as u64;
        Ok(Array::from_gpu_bytes(ty, &bytes))
    }

    fn plan(&self, graph: &Graph) -> Result<MemoryPlan> {
        let graph = graph.storable(&self.gpu.profile)?;
        let mut planned = Planned::new(self, &graph)?;
        planned.memory.textures = planned.textures(&self.gpu, &graph)?;
        Ok(planned.memory)
    }

    fn compile(&mut self, graph: Graph) -> Result<Program> {
        let graph = graph.storable(&self.gpu.profile)?;
        let planned = Planned::new(self, &graph)?;
        let slots = self.place(&planned)?;
        let lowering = Lowering {
            backend: self,
            graph: &graph,
            launches: planned.launches,
            plan: planned.memory,
            slots,
        };
        let compiled = lowering.commands()?;
        self.programs.push(compiled);
        Ok(Program(self.programs.len() - 1))
    }

    fn run(&mut self, program: Program, steps: &[Step]) -> Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        self.submit(program, steps, |_| {}).map(drop)
    }

    fn run_and_read(
        &mut self,
        program: Program,
        steps: &[Step],
        name: &str,
        len: usize,
    ) -> Result<Ticket> {
        let state = self.state(name)?;
        let ty = first(name, &state.ty, len)?;
        let buffer = state.buffer.clone();
        let mut readback = self.readback(ty.bytes())?;
        let submission = self.submit(program, steps, |encoder| {
            readback.encode(encoder, &buffer, 0);
        })?;
        readback.request();
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.pending.push_back(Pending {
            ticket,
            ty,
            readback,
            submission,
        });
        Ok(ticket)
    }

    fn take(&mut self, ticket: Ticket, wait: bool) -> Result<Option<Array>> {
        let at = self.pending.iter().position(|p| p.ticket == ticket);
        let Some(mut pending) = at.and_then(|i| self.pending.remove(i)) else {
            return Ok(None);
        };
        let mut bytes = pending.readback.poll(&self.gpu)?;
        if bytes.is_none() && wait {
            bytes = Some(pending.readback.wait(&self.gpu, &pending.submission)?);
            self.counters.waits += 1;
        }
        let Some(bytes) = bytes else {
            self.pending.push_front(pending);
            return Ok(None);
        };
        self.counters.bytes_read_back += bytes.len() as u64;
        self.idle.push(pending.readback);
        Ok(Some(Array::from_gpu_bytes(pending.ty, &bytes)))
    }

    fn synchronize(&mut self) -> Result<()> {
        self.counters.waits += 1;
        self.gpu.wait(None)
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn profile(&mut self, program: Program, step: &Step, repeats: usize) -> Result<Profile> {
        let bytes = step.to_bytes();
        self.gpu.queue.write_buffer(&self.steps, 0, &bytes);
        let compiled = &self.programs[program.0];
        let commands = compiled.sequence.commands();
        let mut seconds = self.gpu.time(commands, repeats)?.into_iter();
        let mut commands = commands.iter();
        let timings = compiled.nodes.iter().map(|node| Timing {
            layer: node.layer.clone(),
            op: node.op,
            flops: node.flops,
            bytes: node.bytes,
            dispatches: commands
                .by_ref()
                .zip(seconds.by_ref())
                .take(node.commands)
                .map(|(command, seconds)| (command.kernel, seconds))
                .collect(),
        });
        Ok(Profile {
            clock: self.gpu.clock(),
            timings: timings.filter(|t| !t.dispatches.is_empty()).collect(),
        })
    }

    fn max_binding(&self) -> u64 {
        self.gpu.profile.max_binding
    }

    fn memory(&self) -> (u64, u64) {
        let states = self.states.values().map(|s| padded(s.ty.bytes())).sum();
        let staged: u64 = self.programs.iter().map(|p| p.staged).sum();
        (states, self.shared.bytes() + staged)
    }

    fn available(&self) -> Available {
        match self.gpu.info.device_type {
            wgpu::DeviceType::Cpu | wgpu::DeviceType::IntegratedGpu => {
                available().map_or(Available::Unknown, Available::Host)
            }
            _ => Available::Unknown,
        }
    }
}

/// What a graph asks of the device, within its limits. Nothing is allocated for it yet.
struct Planned {
    launches: Vec<Launch>,
    memory: MemoryPlan,
    /// The largest tenant of each slot, for messages.
    tenants: Vec<String>,
}

impl Planned {
    fn new(backend: &GpuBackend, graph: &Graph) -> Result<Self> {
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
    fn textures(&self, gpu: &Gpu, graph: &Graph) -> Result<u64> {
        if !gpu.profile.texels {
            return Ok(0);
        }
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
                let pays = |name: &str| {
                    bound(name)
                        .is_some_and(|(p, _)| texels::pays(gpu, p.bytes, dispatch.workgroups))
                };
                let halved = |name: &str| bound(name).is_some_and(|(_, half)| half);
                let uses = dispatch.kernel.uses_with_texels(&pays, &halved)?;
                let places: Vec<_> = uses
                    .iter()
                    .filter_map(|u| Some((u, bound(&u.name)?.0)))
                    .collect();
                for (used, place) in &places {
                    if let Some(texel) = used.texel {
                        textures.texture(place.home.clone(), place.offset, place.bytes, texel);
                    }
                }
                for (_, place) in places.iter().filter(|(used, _)| used.writable) {
                    textures.release(place.home.clone(), place.offset, place.bytes);
                }
            }
            let read = read_until[index]
                .iter()
                .map(|v| self.memory.place(graph, *v));
            let scratch = (0..launch.scratch.len()).map(|i| place(Arg::Scratch(i)));
            for place in read.chain(scratch) {
                textures.release(place.home.clone(), place.offset, place.bytes);
            }
        }
        Ok(textures.bytes())
    }
}

/// A graph on its way to commands.
struct Lowering<'a> {
    backend: &'a GpuBackend,
    graph: &'a Graph,
    launches: Vec<Launch>,
    plan: MemoryPlan,
    slots: Vec<wgpu::Buffer>,
}

impl Lowering<'_> {
    fn commands(self) -> Result<Compiled> {
        let mut commands = Vec::new();
        let mut nodes = Vec::new();
        let mut staging = Staging::default();
        let read_until = self.plan.read_until(self.graph);
        let mut gate: Option<Gate> = None;
        let mut gated = 0;
        for (index, node) in self.graph.nodes().iter().enumerate() {
            let mut ranges: HashMap<Arg, Range> = HashMap::new();
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
            ranges.insert(
                Arg::Step,
                Range {
                    buffer: self.backend.steps.clone(),
                    offset: 0,
                    bytes: Step::BYTES as u64,
                    half: false,
                },
            );
            let dispatches = &self.launches[index].dispatches;
            let (inputs, outputs) = (
                self.graph.types(&node.inputs),
                self.graph.types(&node.outputs),
            );
            let updated = node.op.updates().iter().map(|i| &node.inputs[*i]);
            let moved = node.inputs.iter().chain(&node.outputs).chain(updated);
            nodes.push(Profiled {
                layer: node.layer.clone(),
                op: node.op.name(),
                flops: node.op.flops(&inputs, &outputs),
                bytes: moved.map(|v| self.graph.bytes(*v)).sum(),
                commands: dispatches.len(),
            });
            if let (Some(flag), None) = (node.guard, &gate) {
                let (made, command) = self.gate(flag)?;
                commands.push(command);
                gate = Some(made);
                if let Some(first) = nodes.last_mut() {
                    first.commands += 1;
                }
            }
            for dispatch in dispatches {
                if let Some((name, arg)) = dispatch
                    .bindings
                    .iter()
                    .find(|b| !ranges.contains_key(&b.1))
                {
                    let problem = format!("{name} is bound to {arg:?}, which does not exist");
                    return Err(Error::shader(dispatch.kernel.path(), problem));
                }
                let command = self.backend.gpu.prepare(
                    &node.label(),
                    dispatch,
                    node.op.updates(),
                    Step::BYTES as u64,
                    &|arg| ranges[&arg].clone(),
                    &mut staging,
                )?;
                commands.push(match (&gate, node.guard) {
                    (Some(gate), Some(_)) => {
                        gated += 1;
                        command.gated(gate, gated - 1)
                    }
                    _ => command,
                });
            }
            for value in &read_until[index] {
                staging.release(&self.range(*value)?);
            }
            for i in 0..self.plan.scratch[index].len() {
                staging.release(&ranges[&Arg::Scratch(i)]);
            }
        }
        Ok(Compiled {
            sequence: Sequence::new(commands),
            nodes,
            staged: staging.bytes(),
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
