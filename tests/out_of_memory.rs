//! A device that runs out of memory. A software adapter takes the process's own, so that a
//! limit on it provokes that for real; it holds for the process, so this test has one to
//! itself.
#![cfg(target_os = "linux")]

use gpucnn::Error;
use gpucnn::gpu::{Gpu, OpenOptions};
use gpucnn::graph::{Backend, GpuBackend};
use gpucnn::ops::Array;
use gpucnn::tensor::TensorType;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the process has mapped, in bytes.
fn mapped() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmSize:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

#[test]
fn too_much_is_an_error_with_advice_and_the_device_goes_on() {
    let gpu = Gpu::open(OpenOptions {
        name: std::env::var("GPUCNN_TEST_DEVICE").ok(),
        ..OpenOptions::default()
    })
    .unwrap();
    if gpu.info.device_type != wgpu::DeviceType::Cpu {
        eprintln!("skipped: {} has memory of its own", gpu.describe());
        return;
    }
    let name = gpu.info.name.clone();
    let mut backend = GpuBackend::new(gpu).unwrap();
    let small = TensorType::f32([64]);
    backend.create("before", &small).unwrap();

    let most = 512 << 20;
    setrlimit(
        Resource::As,
        Rlimit {
            current: Some(mapped() + most),
            ..getrlimit(Resource::As)
        },
    )
    .unwrap();
    let error = backend
        .create("giant", &TensorType::f32([most as usize / 2]))
        .unwrap_err();
    assert!(matches!(error, Error::Fault(_)), "{error:?}");
    let message = error.to_string();
    for text in ["giant", &name, "out of memory", "smaller batch"] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }

    let ones = Array::float(small.clone(), vec![1.0; 64]);
    for state in ["before", "after"] {
        backend.create(state, &small).unwrap();
        backend.write(state, &ones).unwrap();
        assert_eq!(backend.read(state).unwrap(), ones);
    }
}
