//! File formats, and writing files so that they are whole or not there.

pub mod atomic;
pub mod npy;
pub mod onnx;
pub mod safetensors;
