#![no_main]
#[path = "../targets.rs"]
#[allow(dead_code, reason = "this fuzzer is for one of the targets")]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::onnx(bytes));
