//! What the training leans on in every backend.

mod support;

use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::{Backend, CpuBackend, GpuBackend};
use gpucnn::ops::Array;
use gpucnn::tensor::TensorType;

fn backends() -> [Box<dyn Backend>; 2] {
    // Its results are poisoned; its states must not be.
    let gpu = support::open(ProfileKind::Gpu, false);
    [
        Box::new(CpuBackend::new()),
        Box::new(GpuBackend::new(gpu).unwrap()),
    ]
}

#[test]
fn a_state_is_zero_when_it_is_created_and_when_it_is_created_again() {
    for mut backend in backends() {
        let ty = TensorType::f32([5]);
        let ones = Array::float(ty.clone(), vec![1.0; 5]);
        for _ in 0..2 {
            backend.create("state", &ty).unwrap();
            let found = backend.read("state").unwrap();
            assert_eq!(found.f(), [0.0; 5], "{}", backend.describe());
            backend.write("state", &ones).unwrap();
            assert_eq!(backend.read("state").unwrap().f(), [1.0; 5]);
        }
    }
}
