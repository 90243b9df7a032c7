//! gpucnn trains, evaluates and deploys convolutional networks on any GPU
//! through wgpu (Vulkan, Metal, DX12) with hand-written WGSL kernels.

pub mod bench;
pub mod data;
pub mod error;
pub mod formats;
pub mod gpu;
pub mod graph;
pub mod infer;
pub mod model;
pub mod ops;
pub mod report;
pub mod tensor;
pub mod train;

pub use error::{Error, Result};
pub use tensor::{DType, Shape, Tensor, TensorType};
