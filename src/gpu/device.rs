//! Choosing and opening a device.

use super::ahead::Ahead;
use super::half::Half;
use super::pipeline::PipelineCache;
use super::profile::{Profile, ProfileKind, Texels};
use crate::error::{Error, Result};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What to open and how.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Part of the adapter's name, any case; `None` takes the best: discrete before
    /// integrated before virtual before software.
    pub name: Option<String>,
    /// The kernel family, where it should not follow from the adapter's type.
    pub profile: Option<ProfileKind>,
    /// Keeps WebGPU's runtime checks (bounds, loop bounds, division) in the shaders.
    /// They cost speed; launches prove their ranges and the tests run both ways.
    pub runtime_checks: bool,
    /// Fills the memory of results with NaN bits, so that a kernel that leaves an
    /// element unwritten is found out. For tests.
    pub poison: bool,
    /// How long to wait for a submission before the device is taken for hung;
    /// [`PATIENCE`] by default.
    pub patience: Option<Duration>,
    /// Reads every operand through a texture, however small, where the device reads any
    /// so. For tests.
    pub stage_all: bool,
    /// What a software adapter's kernels read through textures, where it should not follow
    /// from the processor. The results are the same.
    pub texels: Option<Texels>,
    /// The layout of tensors in half precision, where it should not follow from the
    /// adapter's features.
    pub half: Option<Half>,
    /// Binds at most this many bytes of one tensor, where the device would more. For tests.
    pub max_binding: Option<u64>,
}

/// The longest wait for a submission. Training's take some tens of milliseconds, and drivers
/// reset a GPU that takes seconds; a batch of a large model on a software adapter may take
/// minutes.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// An open device.
pub struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(super) adapter: wgpu::Adapter,
    pub(crate) pipelines: RefCell<PipelineCache>,
    pub(super) ahead: RefCell<Ahead>,
    /// What the driver says of itself.
    pub info: wgpu::AdapterInfo,
    /// What kernels need to know.
    pub profile: Profile,
    pub(crate) options: OpenOptions,
    failure: Failure,
    /// What was submitted last.
    last: RefCell<Option<wgpu::SubmissionIndex>>,
}

/// The first failure the driver reported outside a call, if any.
type Failure = Arc<Mutex<Option<Reported>>>;

/// What the driver reported.
#[derive(Clone)]
enum Reported {
    /// The device is of no more use.
    Gone(String),
    /// It refused work.
    Refused(String),
}

/// One adapter, as `gpucnn devices` lists it.
#[derive(Clone, Debug)]
pub struct AdapterSummary {
    /// What the driver says of itself.
    pub info: wgpu::AdapterInfo,
    /// Everything the adapter can do.
    pub features: wgpu::Features,
    /// Its limits.
    pub limits: wgpu::Limits,
    /// The kernel family chosen for it.
    pub profile: Profile,
}

/// What to do where no adapter is found.
pub const NO_ADAPTER: &str = "no GPU adapter found. Install your GPU's Vulkan driver, or a \
    software one (Debian, Ubuntu: apt install mesa-vulkan-drivers; Fedora: dnf install \
    mesa-vulkan-drivers), or run on the reference path with --device cpu (slow)";

const WANTED: wgpu::Features = wgpu::Features::SUBGROUP
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    // It costs a dispatch for each whose size lies in a buffer; ours hold checked sizes or 0.
    descriptor
        .flags
        .remove(wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL);
    wgpu::Instance::new(descriptor)
}

fn enumerate() -> Vec<wgpu::Adapter> {
    let all = pollster::block_on(instance().enumerate_adapters(wgpu::Backends::PRIMARY));
    let mut adapters: Vec<_> = all
        .into_iter()
        .filter(|a| {
            let flags = a.get_downlevel_capabilities().flags;
            flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
        })
        .collect();
    adapters.sort_by_key(|a| rank(a.get_info().device_type));
    adapters
}

fn rank(device_type: wgpu::DeviceType) -> u8 {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

/// Rows and columns of the largest cooperative matrices that kernels can use.
fn matrix_size(adapter: &wgpu::Adapter) -> Option<u32> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let supported = adapter.cooperative_matrix_properties().into_iter();
    let usable = supported.filter(|p| {
        (p.ab_type, p.cr_type) == (F16, F32) && p.m_size == p.n_size && p.n_size == p.k_size
    });
    usable.map(|p| p.m_size).max()
}

fn texels_of(kind: ProfileKind, limits: &wgpu::Limits, asked: Option<Texels>) -> Texels {
    // As many textures as a kernel may bind buffers.
    let enough = limits.max_storage_textures_per_shader_stage
        >= wgpu::Limits::default().max_storage_buffers_per_shader_stage;
    if kind == ProfileKind::Gpu || !enough {
        return Texels::Never;
    }
    asked.unwrap_or(match has_masked_moves() {
        true => Texels::Reused,
        false => Texels::Always,
    })
}

/// Whether the processor, on which a software adapter computes, puts a word into one lane of
/// a vector without a round trip through memory: it has AVX-512.
fn has_masked_moves() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512vl");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

fn profile_of(adapter: &wgpu::Adapter, options: &OpenOptions) -> Profile {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    let features = adapter.features() & WANTED;
    let one_size = info.subgroup_min_size == info.subgroup_max_size;
    let has_subgroups = features.contains(wgpu::Features::SUBGROUP) && one_size;
    let kind = options.profile.unwrap_or(match info.device_type {
        wgpu::DeviceType::Cpu => ProfileKind::CpuLike,
        _ => ProfileKind::Gpu,
    });
    let has_matrices = has_subgroups
        && kind == ProfileKind::Gpu
        && features.contains(wgpu::Features::SHADER_F16)
        && features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
    Profile {
        kind,
        texels: texels_of(kind, &limits, options.texels),
        subgroup_size: has_subgroups.then_some(info.subgroup_min_size),
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        max_binding: limits.max_storage_buffer_binding_size,
        binding_alignment: 256
            .max(u64::from(limits.min_storage_buffer_offset_alignment))
            .max(u64::from(limits.min_uniform_buffer_offset_alignment)),
        half: options
            .half
            .unwrap_or(match features.contains(wgpu::Features::SHADER_F16) {
                true => Half::Native,
                false => Half::Packed,
            }),
        matrix: match has_matrices {
            true => matrix_size(adapter),
            false => None,
        },
    }
}

/// Every adapter that can run compute shaders, best first.
pub fn adapters() -> Vec<AdapterSummary> {
    enumerate()
        .iter()
        .map(|adapter| {
            let (info, features, limits) =
                (adapter.get_info(), adapter.features(), adapter.limits());
            AdapterSummary {
                profile: profile_of(adapter, &OpenOptions::default()),
                info,
                features,
                limits,
            }
        })
        .collect()
}

impl Gpu {
    /// Opens a device.
    ///
    /// # Errors
    /// [`Error::Device`] where there is no adapter, none of the name, or it refuses.
    pub fn open(options: OpenOptions) -> Result<Rc<Self>> {
        let gpu = Self::on(select(options.name.as_deref())?, options)?;
        log::info!(
            "opened {} with the {} profile",
            gpu.info.name,
            gpu.profile.kind
        );
        Ok(Rc::new(gpu))
    }

    /// Opens a device on an adapter.
    pub(super) fn on(adapter: wgpu::Adapter, options: OpenOptions) -> Result<Self> {
        let (info, limits) = (adapter.get_info(), adapter.limits());
        let features = adapter.features() & WANTED;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("gpucnn"),
            required_features: features,
            required_limits: limits.clone(),
            // SAFETY: the one experimental feature asked for is cooperative matrices, by which
            // shaders/gemm/matrix.wgsl reads and writes workgroup memory at offsets that are
            // constant in its loops and inside its arrays; tests/ops.rs compares every result.
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|e| Error::Device(format!("{} cannot be opened: {e}", info.name)))?;
        let failure = Failure::default();
        watch(&device, &failure);
        let mut profile = profile_of(&adapter, &options);
        if let Some(most) = options.max_binding {
            profile.max_binding = profile.max_binding.min(most);
        }
        Ok(Self {
            device,
            queue,
            adapter,
            pipelines: RefCell::default(),
            ahead: RefCell::default(),
            info,
            profile,
            options,
            failure,
            last: RefCell::default(),
        })
    }

    /// The device in one line: name, driver, backend, profile.
    pub fn describe(&self) -> String {
        let info = &self.info;
        let driver = [info.driver.as_str(), info.driver_info.as_str()]
            .iter()
            .filter(|s| !s.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join(" ");
        let kind = match info.device_type {
            wgpu::DeviceType::Cpu => "software adapter, ",
            _ => "",
        };
        format!(
            "{} ({kind}{}, {driver}; {} kernels)",
            info.name, info.backend, self.profile.kind
        )
    }

    /// Fails if the device was lost or refused work since it was opened.
    ///
    /// # Errors
    /// [`Error::Fault`] if it was lost, else [`Error::Runtime`]; with the driver's words.
    pub fn check(&self) -> Result<()> {
        match self.reported() {
            Some(Reported::Gone(message)) => Err(Error::Fault(message)),
            Some(Reported::Refused(message)) => Err(self.refused(message)),
            None => Ok(()),
        }
    }

    fn reported(&self) -> Option<Reported> {
        let failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        failure.clone()
    }

    /// The error of work that was refused, which may be so for the device is gone: that
    /// comes out only once it has settled.
    pub(crate) fn refused(&self, problem: String) -> Error {
        let patience = self.options.patience.unwrap_or(PATIENCE);
        let _ = self.device.poll(wgpu::PollType::Wait {
            submission_index: None,
            timeout: Some(patience),
        });
        match self.reported() {
            Some(Reported::Gone(message)) => Error::Fault(message),
            _ => Error::Runtime(problem),
        }
    }

    /// Bytes of memory in use on the device, where that can be told.
    pub fn allocated_bytes(&self) -> Option<u64> {
        let report = self.device.generate_allocator_report();
        report.map(|r| r.total_allocated_bytes)
    }

    /// Gives the device up at once, with all that is on it. Whatever uses it from then on
    /// fails.
    pub fn destroy(&self) {
        self.device.destroy();
    }

    /// Submits commands, or what was written since the last of them.
    ///
    /// A software driver may wait for the submission before in that very call, without end:
    /// wgpu chains submissions by binary semaphores, and where a thread of the driver's own
    /// executes them Mesa holds the next one back until the last is done. There it is waited
    /// for first, where the wait has an end.
    ///
    /// # Errors
    /// If the device failed, or did not finish in [`OpenOptions::patience`].
    pub(crate) fn submit(
        &self,
        commands: Option<wgpu::CommandBuffer>,
    ) -> Result<wgpu::SubmissionIndex> {
        let last = self.last.borrow().clone();
        match last {
            Some(last) if self.info.device_type == wgpu::DeviceType::Cpu => {
                self.wait(Some(&last))?;
            }
            _ => self.check()?,
        }
        let submission = self.queue.submit(commands);
        self.last.replace(Some(submission.clone()));
        Ok(submission)
    }

    /// Waits for a submission, or for all work.
    ///
    /// # Errors
    /// If the device failed, or did not finish in [`OpenOptions::patience`].
    pub(crate) fn wait(&self, submission: Option<&wgpu::SubmissionIndex>) -> Result<()> {
        let patience = self.options.patience.unwrap_or(PATIENCE);
        let waited = self.device.poll(wgpu::PollType::Wait {
            submission_index: submission.cloned(),
            timeout: Some(patience),
        });
        self.check()?;
        match waited {
            Ok(_) => Ok(()),
            Err(wgpu::PollError::Timeout) => {
                // The last owner of a queue waits for it as it goes; this one never would end.
                std::mem::forget(self.queue.clone());
                let message = format!(
                    "{} did not finish its work within {} s; it hangs, or is far too slow for \
                     this batch",
                    self.info.name,
                    patience.as_secs_f64()
                );
                note(&self.failure, Reported::Gone(message.clone()));
                Err(Error::Fault(message))
            }
            Err(error) => Err(self.refused(error.to_string())),
        }
    }

    /// Runs `work`, turning validation and out-of-memory errors it causes into `Err`.
    pub(crate) fn scoped<T>(&self, what: &str, work: impl FnOnce() -> T) -> Result<T> {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let result = work();
        let validation = pollster::block_on(validation.pop());
        let memory = pollster::block_on(memory.pop());
        match memory.or(validation) {
            // A lost device makes no errors: its results are of no use, however.
            None => self.check().map(|()| result),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::Fault(format!(
                "{what}: {} is out of memory; use a smaller batch",
                self.info.name
            ))),
            Some(error) => Err(self.refused(format!("{what}: {error}"))),
        }
    }
}

/// Keeps the first report; that the device is gone outranks what follows from it.
fn note(failure: &Failure, report: Reported) {
    let mut slot = failure.lock().unwrap_or_else(|e| e.into_inner());
    match (&*slot, &report) {
        (None, _) | (Some(Reported::Refused(_)), Reported::Gone(_)) => *slot = Some(report),
        _ => {}
    }
}

fn watch(device: &wgpu::Device, failure: &Failure) {
    let seen = failure.clone();
    device.set_device_lost_callback(move |reason, message| {
        let text = match reason {
            wgpu::DeviceLostReason::Destroyed => "the device was destroyed".to_owned(),
            _ => format!("the device was lost: {message}"),
        };
        note(&seen, Reported::Gone(text));
    });
    let seen = failure.clone();
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        note(
            &seen,
            match error {
                wgpu::Error::Validation { .. } => Reported::Refused(error.to_string()),
                _ => Reported::Gone(error.to_string()),
            },
        );
    }));
}

fn select(name: Option<&str>) -> Result<wgpu::Adapter> {
    let adapters = enumerate();
    if adapters.is_empty() {
        return Err(Error::Device(NO_ADAPTER.into()));
    }
    let Some(name) = name else {
        return Ok(adapters.into_iter().next().expect("not empty"));
    };
    let known: Vec<String> = adapters.iter().map(|a| a.get_info().name).collect();
    adapters
        .into_iter()
        .find(|a| {
            let found = a.get_info().name.to_lowercase();
            found.contains(&name.to_lowercase())
        })
        .ok_or_else(|| {
            Error::Device(format!(
                "unknown device {name:?}; expected auto, cpu, or part of one of: {}",
                known.join(", ")
            ))
        })
}
