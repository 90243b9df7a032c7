//! What the metrics op reports of logits that are not finite and of samples that do not
//! count; the registry's cases hold only finite numbers.

mod support;

use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::{Backend, CpuBackend, GpuBackend, Graph};
use gpucnn::ops::metrics::{Metrics, ROW};
use gpucnn::ops::{Array, Builder, Step};
use gpucnn::tensor::TensorType;

const BATCH: usize = 9;

/// The numbers of a batch in which element `at` of the logits, all else 0, is
/// `value`, and of which `count` samples count.
fn row(backend: &mut dyn Backend, classes: usize, at: usize, value: f64, count: u32) -> Vec<f64> {
    let types = [
        ("state", TensorType::f32([2, ROW])),
        ("logits", TensorType::f32([BATCH, classes])),
        ("labels", TensorType::u32([BATCH])),
    ];
    let mut graph = Graph::new();
    let values = types.clone().map(|(name, ty)| graph.state(name, ty));
    for (name, ty) in &types {
        backend.create(name, ty).unwrap();
        backend.write(name, &Array::zeros(ty.clone())).unwrap();
    }
    let mut logits = vec![0.0; BATCH * classes];
    logits[at] = value;
    let logits = Array::float(types[1].1.clone(), logits);
    backend.write("logits", &logits).unwrap();
    graph.add(Box::new(Metrics), &values).unwrap();
    let program = backend.compile(graph).unwrap();
    let step = Step {
        slot: 1,
        count,
        ..Step::default()
    };
    backend.run(program, &[step]).unwrap();
    let state = backend.read("state").unwrap();
    assert_eq!(state.f()[..ROW], [0.0; ROW], "the other slot");
    state.f()[ROW..].to_vec()
}

fn backends() -> Vec<Box<dyn Backend>> {
    let gpu = |profile| GpuBackend::new(support::open(profile, false)).unwrap();
    vec![
        Box::new(CpuBackend::new()),
        Box::new(gpu(ProfileKind::CpuLike)),
        Box::new(gpu(ProfileKind::Gpu)),
    ]
}

#[test]
fn logits_that_are_not_finite_are_reported() {
    for mut backend in backends() {
        // Few classes and many: one lane a sample and several.
        for classes in [3, 100] {
            for at in [0, 1, 4 * classes + 2, BATCH * classes - 1] {
                for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                    let row = row(&mut *backend, classes, at, value, u32::MAX);
                    assert_eq!(row[3], 1.0, "{value} at {at} of {classes} classes");
                }
                let fine = row(&mut *backend, classes, at, 3.0, u32::MAX);
                assert_eq!((fine[2], fine[3]), (BATCH as f64, 0.0));
            }
        }
    }
}

#[test]
fn samples_past_the_count_are_not_seen() {
    for mut backend in backends() {
        let row = row(&mut *backend, 4, 3 * 4, f64::NAN, 3);
        // Three samples of four equal logits with label 0: the first of equals counts.
        assert_eq!(row[1..4], [3.0, 3.0, 0.0]);
        // ln 4 in f32 within WGSL's log and exp of a few roundings each.
        assert!((row[0] - 3.0 * 4f64.ln()).abs() < 1e-5, "{}", row[0]);
    }
}
