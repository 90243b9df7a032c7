//! The GPU: devices, shaders, pipelines, buffers and the executor.

pub mod kernel;
pub mod profile;
