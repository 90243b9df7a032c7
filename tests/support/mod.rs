//! Shared by the integration tests: opening devices, filling and running samples.
#![allow(
    dead_code,
    reason = "each test binary uses its own part of this module"
)]

pub mod small;
pub mod training;

use gpucnn::gpu::half::Half;
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::gpu::{Gpu, OpenOptions};
use gpucnn::graph::{Backend, Graph};
use gpucnn::ops::{Array, Builder, Draw, Fill, Op, Sample, Value};
use gpucnn::tensor::{DType, TensorType};
use std::rc::Rc;

/// Opens the default adapter for tests: outputs poisoned.
///
/// `GPUCNN_TEST_DEVICE` names another adapter.
pub fn open(profile: ProfileKind, runtime_checks: bool) -> Rc<Gpu> {
    opened(profile, runtime_checks, None, None)
}

/// As [`open`], with a layout of half precision that need not be the adapter's.
pub fn open_with(profile: ProfileKind, runtime_checks: bool, half: Option<Half>) -> Rc<Gpu> {
    opened(profile, runtime_checks, half, None)
}

/// As [`open`], binding at most `max_binding` bytes of one tensor.
pub fn open_bound(profile: ProfileKind, runtime_checks: bool, max_binding: u64) -> Rc<Gpu> {
    opened(profile, runtime_checks, None, Some(max_binding))
}

fn opened(
    profile: ProfileKind,
    runtime_checks: bool,
    half: Option<Half>,
    max_binding: Option<u64>,
) -> Rc<Gpu> {
    let options = OpenOptions {
        name: std::env::var("GPUCNN_TEST_DEVICE").ok(),
        profile: Some(profile),
        runtime_checks,
        poison: true,
        patience: None,
        // Kernels must not care how they read: those with checks read buffers.
        stage_all: !runtime_checks,
        texels: None,
        half,
        max_binding,
    };
    Gpu::open(options).expect("the tests need a Vulkan, Metal or DX12 adapter; see README.md")
}

/// An array filled as a sample asks.
pub fn filled(draw: &mut Draw, ty: &TensorType, fill: &Fill) -> Array {
    let len = ty.shape.len();
    match fill {
        Fill::Uniform(low, high) => {
            // Values are f32 so that both paths start from the same bits.
            let data = (0..len).map(|_| f64::from(draw.float(*low, *high) as f32));
            Array::float(ty.clone(), data.collect())
        }
        Fill::Distinct => {
            let spacing = 2.0 / (len as f64 + 1.0);
            let order = draw.order(len).into_iter();
            // Half a step off the grid point at zero when there is one.
            let data = order.map(|i| f64::from(((i as f64 + 0.75) * spacing - 1.0) as f32));
            Array::float(ty.clone(), data.collect())
        }
        Fill::Levels(count) => {
            let spacing = 2.0 / (*count as f64 - 1.0);
            let mut level = || f64::from((draw.int(0, count - 1) as f64 * spacing - 1.0) as f32);
            Array::float(ty.clone(), (0..len).map(|_| level()).collect())
        }
        Fill::Spoilt(count) => {
            let mut data: Vec<f64> = (0..len)
                .map(|_| f64::from(draw.float(-1.0, 1.0) as f32))
                .collect();
            for _ in 0..*count {
                let spoilt = draw.pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
                data[draw.int(0, len - 1)] = spoilt;
            }
            Array::float(ty.clone(), data)
        }
        Fill::Indices(data) => Array::index(ty.clone(), data.clone()),
        Fill::Below(bound) => {
            let data = (0..len).map(|_| draw.int(0, *bound as usize - 1) as u32);
            Array::index(ty.clone(), data.collect())
        }
        Fill::Bytes => {
            let data: Vec<u8> = (0..len).map(|_| draw.int(0, 255) as u8).collect();
            Array::bytes(ty.clone(), data.into())
        }
    }
}

/// The inputs of a sample.
pub fn inputs(draw: &mut Draw, sample: &Sample) -> Vec<Array> {
    let inputs = sample.inputs.iter();
    inputs.map(|(ty, fill)| filled(draw, ty, fill)).collect()
}

/// A graph of one op whose inputs and outputs are states `in0`, … and `out0`, ….
pub fn single(sample: &Sample, op: Box<dyn Op>) -> (Graph, Vec<TensorType>) {
    let mut graph = Graph::new();
    let values: Vec<Value> = sample
        .inputs
        .iter()
        .enumerate()
        .map(|(i, (ty, _))| graph.state(format!("in{i}"), ty.clone()))
        .collect();
    let alias = op.alias().is_some();
    let outputs = graph.add(op, &values).expect("samples are legal");
    let types: Vec<_> = outputs.iter().map(|v| graph.ty(*v).clone()).collect();
    for (i, (value, ty)) in outputs.iter().zip(&types).enumerate() {
        let target = graph.state(format!("out{i}"), ty.clone());
        if !alias || ty.dtype == DType::F32 {
            graph.store(*value, target).expect("same type");
        }
    }
    (graph, types)
}

/// Runs a sample's op once on a backend and returns its outputs, then the inputs it
/// updated. `op` is the sample's, which may be run several times.
pub fn run(
    backend: &mut dyn Backend,
    sample: &Sample,
    op: Box<dyn Op>,
    inputs: &[Array],
    poison: bool,
) -> Vec<Array> {
    let updates = op.updates();
    let (graph, types) = single(sample, op);
    for (i, array) in inputs.iter().enumerate() {
        let name = format!("in{i}");
        backend.create(&name, array.ty()).unwrap();
        backend.write(&name, array).unwrap();
    }
    for (i, ty) in types.iter().enumerate() {
        let name = format!("out{i}");
        backend.create(&name, ty).unwrap();
        if poison {
            let nan = vec![0xff; ty.bytes() as usize];
            let array = Array::from_gpu_bytes(ty.clone(), &nan);
            backend.write(&name, &array).unwrap();
        }
    }
    let program = backend
        .compile(graph)
        .unwrap_or_else(|e| panic!("{:?}: {e}", sample.op));
    backend.run(program, &[sample.step]).unwrap();
    let names = (0..types.len()).map(|i| format!("out{i}"));
    let names: Vec<_> = names
        .chain(updates.iter().map(|i| format!("in{i}")))
        .collect();
    names.iter().map(|n| backend.read(n).unwrap()).collect()
}
