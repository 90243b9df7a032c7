//! Buffers, recorded command lists and submissions. Knows nothing of graphs.

use super::device::Gpu;
use super::kernel::{Arg, Dispatch, Kernel, ShaderFile};
use super::pipeline::{Access, Binding, Pipeline, match_bindings};
use super::profile::Texels;
use super::range::{Range, padded};
use super::sequence::{Piece, Touched};
use super::staging::{Copy, Staging, in_rows};
use crate::error::{Error, Result};
use crate::shader;
use std::rc::Rc;

const GATE: ShaderFile = shader!("executor/gate.wgsl");

/// Bytes between the step uniforms of one submission: the largest alignment
/// WebGPU lets a device ask of a dynamic offset.
pub const STEP_STRIDE: u64 = 256;

/// Most steps one submission may hold.
pub const MAX_STEPS: usize = 256;

/// One dispatch, ready to be encoded.
#[derive(Debug)]
pub struct Command {
    /// The shader's path, for profiles.
    pub(crate) kernel: &'static str,
    pipeline: Rc<Pipeline>,
    bind_group: wgpu::BindGroup,
    takes_step: bool,
    size: Size,
    /// What is copied into textures before.
    copies: Vec<Copy>,
    /// The textures it reads.
    textures: Vec<wgpu::Texture>,
    writes: Vec<Range>,
}

/// How many workgroups a command has.
#[derive(Debug)]
enum Size {
    Fixed([u32; 3]),
    /// Where a buffer says so, from this byte on.
    Told(wgpu::Buffer, u64),
}

/// The sizes of dispatches that run only where a flag is not raised; [`Command::gated`] has
/// one told by them.
pub(crate) struct Gate {
    sizes: wgpu::Buffer,
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
    /// What must be copied before the dispatch.
    pub(crate) fn copies(&self) -> &[Copy] {
        &self.copies
    }

    /// What it writes, reads as textures and needs copied.
    pub(crate) fn touched(&self) -> Touched<wgpu::Buffer, wgpu::Texture> {
        Touched {
            writes: self.writes.iter().map(Piece::from).collect(),
            reads: self.textures.clone(),
            copies: self.copies.iter().map(Copy::touched).collect(),
        }
    }

    /// Encodes the dispatch with the step values at `offset` bytes.
    pub(crate) fn encode(&self, pass: &mut wgpu::ComputePass<'_>, offset: u32) {
        let offset = [offset];
        let offsets: &[u32] = if self.takes_step { &offset } else { &[] };
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.bind_group, offsets);
        match &self.size {
            Size::Fixed([x, y, z]) => pass.dispatch_workgroups(*x, *y, *z),
            Size::Told(buffer, offset) => pass.dispatch_workgroups_indirect(buffer, *offset),
        }
    }

    /// The command with the gate's size number `index`.
    pub(crate) fn gated(self, gate: &Gate, index: usize) -> Self {
        Self {
            size: Size::Told(gate.sizes.clone(), 12 * index as u64),
            ..self
        }
    }
}

impl Gpu {
    /// A new storage buffer of at least `bytes`, zeroed, padded to whole vec4. Where kernels
    /// read textures it is padded to whole rows of one and may be read as a uniform.
    ///
    /// # Errors
    /// [`Error::Limit`] beyond the device's largest buffer, [`Error::Fault`] when
    /// it is out of memory.
    pub(crate) fn buffer(&self, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
        self.check_buffer(label, bytes)?;
        let most = self.device.limits().max_buffer_size;
        let mut usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let mut size = padded(bytes);
        if self.profile.texels != Texels::Never {
            size = in_rows(size).min(most);
            usage |= wgpu::BufferUsages::UNIFORM;
        }
        self.scoped(label, || {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size,
                usage,
                mapped_at_creation: false,
            })
        })
    }

    /// Poisons a buffer of results, which kernels write before they read, where the device was
    /// opened so.
    pub(crate) fn poison(&self, buffer: &wgpu::Buffer) {
        if self.options.poison {
            let nan = vec![0xff; buffer.size() as usize];
            self.queue.write_buffer(buffer, 0, &nan);
        }
    }

    /// A gate before dispatches of so many workgroups each, which are held back where `flag`,
    /// an f32, is not 0; and the command that sets it.
    ///
    /// # Errors
    /// If the device failed.
    pub(crate) fn gate(&self, flag: &Range, workgroups: &[[u32; 3]]) -> Result<(Gate, Command)> {
        let counts: Vec<u32> = workgroups.concat();
        let bytes = 4 * counts.len() as u64;
        let buffer = |usage| {
            self.scoped("gate", || {
                self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("gate"),
                    size: padded(bytes),
                    usage: wgpu::BufferUsages::STORAGE | usage,
                    mapped_at_creation: false,
                })
            })
        };
        let stored = buffer(wgpu::BufferUsages::COPY_DST)?;
        let sizes = buffer(wgpu::BufferUsages::INDIRECT)?;
        self.queue
            .write_buffer(&stored, 0, bytemuck::cast_slice(&counts));
        let kernel = Kernel::new(GATE)
            .set("LEN", counts.len())
            .sparse("flag")
            .sparse("counts");
        let bindings = vec![
            ("flag", Arg::Input(0)),
            ("counts", Arg::Input(1)),
            ("sizes", Arg::Output(0)),
        ];
        let dispatch = Dispatch::grid(kernel, bindings, [counts.len().div_ceil(64), 1, 1]);
        let whole = |buffer: &wgpu::Buffer| Range {
            buffer: buffer.clone(),
            offset: 0,
            bytes,
            half: false,
        };
        let place = |arg| match arg {
            Arg::Input(0) => flag.clone(),
            Arg::Input(_) => whole(&stored),
            _ => whole(&sizes),
        };
        let staging = &mut Staging::default();
        let command = self.prepare("gate", &dispatch, &[], 0, &place, staging)?;
        Ok((Gate { sizes }, command))
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
    /// `updates` lists the inputs that may be bound writable; `staging` holds the
    /// textures of the commands before it.
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
        staging: &mut Staging,
    ) -> Result<Command> {
        let pipeline = self.pipeline(dispatch, resolve)?;
        let args = match_bindings(dispatch, &pipeline.bindings, updates)?;
        self.check_bindings(label, dispatch, &pipeline)?;
        let bindings = pipeline.bindings.iter();
        let seen = |(binding, arg): (&Binding, &Arg)| {
            dispatch.part_of(binding.launch_name(), resolve(*arg))
        };
        let ranges: Vec<_> = bindings.zip(&args).map(seen).collect();
        let bound: Vec<_> = pipeline.bindings.iter().zip(&ranges).collect();
        let mut copies = Vec::new();
        let mut textures = Vec::new();
        for (binding, range) in &bound {
            if let Access::Texel(texel) = binding.access {
                let (texture, copy) = staging.texture(self, range, texel)?;
                textures.push(texture);
                copies.extend(copy);
            }
        }
        self.note_kernel(dispatch.kernel.path(), &pipeline, &textures);
        let bind_group = self.bind(label, &pipeline, &bound, &textures, step_bytes)?;
        let written = bound.iter().filter(|(b, _)| b.access == Access::ReadWrite);
        let writes: Vec<Range> = written.map(|(_, range)| (*range).clone()).collect();
        writes.iter().for_each(|range| staging.release(range));
        Ok(Command {
            kernel: dispatch.kernel.path(),
            takes_step: args.contains(&Arg::Step),
            pipeline,
            bind_group,
            size: Size::Fixed(dispatch.workgroups),
            copies,
            textures,
            writes,
        })
    }

    /// The bind group; `textures` are those of the texels, in order.
    fn bind(
        &self,
        label: &str,
        pipeline: &Pipeline,
        bound: &[(&Binding, &Range)],
        textures: &[wgpu::Texture],
        step_bytes: u64,
    ) -> Result<wgpu::BindGroup> {
        let views = textures.iter().map(|t| t.create_view(&Default::default()));
        let views: Vec<_> = views.collect();
        let mut views = views.iter();
        let mut entries = Vec::with_capacity(bound.len());
        for (binding, range) in bound {
            let buffer = |bytes| {
                wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &range.buffer,
                    offset: range.offset,
                    size: std::num::NonZeroU64::new(bytes),
                })
            };
            entries.push(wgpu::BindGroupEntry {
                binding: binding.index,
                resource: match (binding.access, views.as_slice()) {
                    (Access::Texel(_), [view, rest @ ..]) => {
                        views = rest.iter();
                        wgpu::BindingResource::TextureView(view)
                    }
                    (Access::Uniform, _) => buffer(step_bytes),
                    _ => buffer(padded(range.bytes)),
                },
            });
        }
        self.scoped(label, || {
            self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(label),
                layout: &pipeline.layout,
                entries: &entries,
            })
        })
    }

    /// Checks that one binding can see so many bytes; `what` names the tensor.
    ///
    /// # Errors
    /// [`Error::Limit`] where it cannot.
    pub(crate) fn check_binding(&self, what: &str, bytes: u64) -> Result<()> {
        let limit = self.profile.max_binding;
        let name = "max_storage_buffer_binding_size";
        within(what, padded(bytes), name, limit, "bytes")
    }

    /// Checks that a buffer can have so many bytes.
    ///
    /// # Errors
    /// [`Error::Limit`] where it cannot.
    pub(crate) fn check_buffer(&self, what: &str, bytes: u64) -> Result<()> {
        let limit = self.device.limits().max_buffer_size;
        within(what, padded(bytes), "max_buffer_size", limit, "bytes")
    }

    /// Checks a dispatch's number of workgroups; `label` names the node.
    ///
    /// # Errors
    /// [`Error::Limit`] where there are too many.
    pub(crate) fn check_workgroups(&self, label: &str, dispatch: &Dispatch) -> Result<()> {
        let needed = dispatch.workgroups.into_iter().max().unwrap_or(0);
        let limit = self.device.limits().max_compute_workgroups_per_dimension;
        let what = format!("{label} ({})", dispatch.kernel.path());
        let name = "max_compute_workgroups_per_dimension";
        within(&what, needed.into(), name, limit.into(), "workgroups")
    }

    fn check_bindings(&self, label: &str, dispatch: &Dispatch, pipeline: &Pipeline) -> Result<()> {
        let storage = pipeline.bindings.iter();
        let is_buffer = |b: &&Binding| matches!(b.access, Access::Read | Access::ReadWrite);
        let storage = storage.filter(is_buffer).count() as u64;
        let limit = self.device.limits().max_storage_buffers_per_shader_stage;
        let what = format!("{label} ({})", dispatch.kernel.path());
        let name = "max_storage_buffers_per_shader_stage";
        within(&what, storage, name, limit.into(), "buffers")
    }
}

fn within(
    what: &str,
    needed: u64,
    limit_name: &'static str,
    limit: u64,
    unit: &'static str,
) -> Result<()> {
    if needed <= limit {
        return Ok(());
    }
    Err(Error::Limit {
        what: what.to_owned(),
        needed,
        limit_name,
        limit,
        unit,
    })
}
