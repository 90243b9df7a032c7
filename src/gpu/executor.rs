//! Buffers, recorded command lists and submissions. Knows nothing of graphs.

use super::device::Gpu;
use super::kernel::{Arg, Dispatch};
use super::pipeline::{Access, Pipeline, match_bindings};
use crate::error::{Error, Result};
use std::rc::Rc;

/// Bytes between the step uniforms of one submission: the largest alignment
/// WebGPU lets a device ask of a dynamic offset.
pub const STEP_STRIDE: u64 = 256;

/// Most steps one submission may hold.
pub const MAX_STEPS: usize = 256;

/// A part of a buffer: what one binding sees.
#[derive(Clone, Debug)]
pub struct Range {
    /// The buffer.
    pub buffer: wgpu::Buffer,
    /// Where it starts, in bytes; a multiple of the binding alignment.
    pub offset: u64,
    /// Bytes; rounded up to whole vec4 when bound.
    pub bytes: u64,
}

/// One dispatch, ready to be encoded.
#[derive(Debug)]
pub struct Command {
    /// The shader's path, for profiles.
    pub(crate) kernel: &'static str,
    pipeline: Rc<Pipeline>,
    bind_group: wgpu::BindGroup,
    takes_step: bool,
    workgroups: [u32; 3],
}

/// What went over the bus and how often the host waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes written by the host into device buffers, step values included.
    pub bytes_uploaded: u64,
    /// Bytes read back.
    pub bytes_read_back: u64,
    /// Times the host blocked on the device.
    pub waits: u64,
    /// Dispatches encoded.
    pub dispatches: u64,
    /// Submissions made.
    pub submissions: u64,
}

impl Command {
    /// Encodes the dispatch with the step values at `offset` bytes.
    pub(crate) fn encode(&self, pass: &mut wgpu::ComputePass<'_>, offset: u32) {
        let offset = [offset];
        let offsets: &[u32] = if self.takes_step { &offset } else { &[] };
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.bind_group, offsets);
        let [x, y, z] = self.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }
}

impl Gpu {
    /// A new storage buffer of at least `bytes`, padded to whole vec4.
    ///
    /// # Errors
    /// [`Error::Limit`] beyond the device's largest buffer, [`Error::Runtime`] when
    /// it is out of memory.
    pub(crate) fn buffer(&self, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
        let size = padded(bytes);
        let limit = self.device.limits().max_buffer_size;
        if size > limit {
            return Err(Error::Limit {
                what: label.to_owned(),
                needed: size,
                limit_name: "max_buffer_size",
                limit,
                unit: "bytes",
            });
        }
        let buffer = self.scoped(label, || {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size,
                usage: wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })?;
        if self.options.poison {
            let nan = vec![0xff; size as usize];
            self.queue.write_buffer(&buffer, 0, &nan);
        }
        Ok(buffer)
    }

    /// The uniform buffer that holds the steps of one submission.
    pub(crate) fn step_buffer(&self) -> Result<wgpu::Buffer> {
        self.scoped("step values", || {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("step values"),
                size: STEP_STRIDE * MAX_STEPS as u64,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })
    }

    /// Makes a dispatch ready: compiles its pipeline, checks its bindings and
    /// limits, and builds its bind group. `resolve` gives the range of an argument;
    /// `updates` lists the inputs that may be bound writable.
    ///
    /// # Errors
    /// [`Error::Shader`] where launch and shader disagree, [`Error::Limit`] where
    /// the device is too small; `label` names the node in both.
    pub(crate) fn prepare(
        &self,
        label: &str,
        dispatch: &Dispatch,
        updates: &[usize],
        step_bytes: u64,
        resolve: &dyn Fn(Arg) -> Range,
    ) -> Result<Command> {
        let pipeline = self.pipeline(dispatch)?;
        let args = match_bindings(dispatch, &pipeline.bindings, updates)?;
        self.check_limits(label, dispatch, &pipeline)?;
        let mut ranges = Vec::with_capacity(args.len());
        for (binding, arg) in pipeline.bindings.iter().zip(&args) {
            let range = resolve(*arg);
            let size = match binding.access {
                Access::Uniform => step_bytes,
                _ => padded(range.bytes),
            };
            ranges.push((binding.index, range, size));
        }
        let entries: Vec<_> = ranges
            .iter()
            .map(|(index, range, size)| wgpu::BindGroupEntry {
                binding: *index,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &range.buffer,
                    offset: range.offset,
                    size: std::num::NonZeroU64::new(*size),
                }),
            })
            .collect();
        let bind_group = self.scoped(label, || {
            self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(label),
                layout: &pipeline.layout,
                entries: &entries,
            })
        })?;
        Ok(Command {
            kernel: dispatch.kernel.path(),
            takes_step: args.contains(&Arg::Step),
            pipeline,
            bind_group,
            workgroups: dispatch.workgroups,
        })
    }

    /// Checks that one binding can see so many bytes; `what` is the tensor's name.
    ///
    /// # Errors
    /// [`Error::Limit`] where it cannot.
    pub(crate) fn check_binding(&self, what: impl FnOnce() -> String, bytes: u64) -> Result<()> {
        let (needed, limit) = (padded(bytes), self.profile.max_binding);
        if needed <= limit {
            return Ok(());
        }
        Err(Error::Limit {
            what: what(),
            needed,
            limit_name: "max_storage_buffer_binding_size",
            limit,
            unit: "bytes",
        })
    }

    fn check_limits(&self, label: &str, dispatch: &Dispatch, pipeline: &Pipeline) -> Result<()> {
        let limits = self.device.limits();
        let groups = dispatch.workgroups.into_iter().max().unwrap_or(0);
        let storage = pipeline.bindings.iter();
        let storage = storage.filter(|b| b.access != Access::Uniform).count() as u32;
        let checks = [
            (
                groups,
                limits.max_compute_workgroups_per_dimension,
                "max_compute_workgroups_per_dimension",
                "workgroups",
            ),
            (
                storage,
                limits.max_storage_buffers_per_shader_stage,
                "max_storage_buffers_per_shader_stage",
                "buffers",
            ),
        ];
        for (needed, limit, limit_name, unit) in checks {
            if needed > limit {
                return Err(Error::Limit {
                    what: format!("{label} ({})", dispatch.kernel.path()),
                    needed: needed.into(),
                    limit_name,
                    limit: limit.into(),
                    unit,
                });
            }
        }
        Ok(())
    }

    /// Encodes the commands once for each step.
    pub(crate) fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        commands: &[Command],
        steps: usize,
    ) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for step in 0..steps {
            // MAX_STEPS * STEP_STRIDE fits 32 bits by far.
            let offset = (step as u64 * STEP_STRIDE) as u32;
            for command in commands {
                command.encode(&mut pass, offset);
            }
        }
    }
}

/// Bytes rounded up to whole vec4, at least one.
pub fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(16).max(16)
}
