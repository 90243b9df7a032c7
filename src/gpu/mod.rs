//! The GPU: devices, shaders, pipelines, buffers and the executor.

mod ahead;
pub mod device;
pub mod executor;
pub mod half;
pub mod host_memory;
pub mod kernel;
pub mod pipeline;
pub mod profile;
pub mod profiler;
pub mod range;
pub mod readback;
pub(crate) mod sequence;
pub mod staging;
pub mod texels;

pub use device::{AdapterSummary, Gpu, NO_ADAPTER, OpenOptions, adapters};
pub use profile::{Profile, ProfileKind, Texels};
