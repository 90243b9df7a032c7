//! ONNX files (<https://onnx.ai>): the format in which runtimes and frameworks exchange
//! trained networks.

mod export;
pub mod proto;
mod write;

pub use export::{CLASSES, NORMALIZATION, OPSET, Options, export, export_int8};
