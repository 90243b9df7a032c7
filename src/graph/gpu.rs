//! The GPU backend: a graph becomes a flat list of prepared dispatches.

use super::backend::Available;
use super::lowering::{Compiled, Planned};
use super::memory::Shared;
use super::reference::{check_write, first};
use super::{Backend, Graph, MemoryPlan, Profile, Program, Ticket, Timing};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::gpu::executor::{Counters, MAX_STEPS, STEP_STRIDE};
use crate::gpu::host_memory::available;
use crate::gpu::range::padded;
use crate::gpu::readback::Readback;
use crate::ops::{Array, Step};
use crate::tensor::TensorType;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// Most bytes written by the host that wait for a submission, each in a copy: more are sent
/// before the next write.
pub(crate) const MOST_UNSENT: u64 = 256 << 20;

/// Runs graphs on a GPU.
pub struct GpuBackend {
    pub(super) gpu: Rc<Gpu>,
    states: HashMap<String, State>,
    programs: Vec<Compiled>,
    /// What the results of all programs lie in.
    slots: Vec<wgpu::Buffer>,
    shared: Shared,
    pub(super) steps: wgpu::Buffer,
    pending: VecDeque<Pending>,
    idle: Vec<Readback>,
    tickets: u64,
    counters: Counters,
    /// Bytes written since the last submission.
    unsent: u64,
}

pub(super) struct State {
    pub(super) ty: TensorType,
    pub(super) buffer: wgpu::Buffer,
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

    pub(super) fn state(&self, name: &str) -> Result<&State> {
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
        let graph = graph.adapted(&self.gpu.profile)?;
        let mut planned = Planned::new(self, &graph)?;
        planned.memory.textures = planned.textures(&self.gpu, &graph)?;
        Ok(planned.memory)
    }

    fn compile(&mut self, graph: Graph) -> Result<Program> {
        let graph = graph.adapted(&self.gpu.profile)?;
        let planned = Planned::new(self, &graph)?;
        let slots = self.place(&planned)?;
        let compiled = planned.compile(self, &graph, slots)?;
        self.gpu.compile_ahead();
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
        self.gpu.wait(None)?;
        self.gpu.wait_for_ahead();
        Ok(())
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn profile(&mut self, program: Program, step: &Step, repeats: usize) -> Result<Profile> {
        self.gpu.wait_for_ahead();
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
