//! ONNX files (<https://onnx.ai>): the format in which runtimes and frameworks exchange
//! trained networks.

mod export;
mod graph;
mod import;
pub mod proto;
mod read;
mod small;
mod tensor;
mod write;

pub use export::{CLASSES, NORMALIZATION, OPSET, Options, export, export_int8};
pub use graph::{Computed, Given, Lowered, lower, operators, run_once};
pub use import::{Imported, import};
pub use read::{Declared, File, Node, OPSETS, load, read, read_tensor_file};
pub use tensor::{Data, Element, Tensor};
