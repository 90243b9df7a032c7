//! Property tests over the registry: every op, by existing, is tested here.
//!
//! For random legal cases of each op: the GPU equals the float64 reference within the
//! case's tolerance, in both kernel profiles; every output element is written (outputs
//! and scratch start as NaN bits); a second run gives the same bits; runtime checks on
//! and off give the same bits; and the gradient equals finite differences of the
//! reference.

mod support;

use gpucnn::gpu::half::Half;
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::{Backend, CpuBackend, GpuBackend, Graph};
use gpucnn::ops::activation::{Activation, Function};
use gpucnn::ops::conv2d::{Conv2d, Conv2dInputGrad, Conv2dWeightGrad, Upstream};
use gpucnn::ops::matmul::MatMul;
use gpucnn::ops::pool2d::{MaxPool2d, MaxPool2dGrad, NO_WINNER};
use gpucnn::ops::{Array, Builder, Draw, Entry, Fill, Op, Sample, Tolerance, Window, registry};
use gpucnn::tensor::{DType, TensorType};
use support::{inputs, open, open_with, run};

/// Random cases of each op and profile. `GPUCNN_TEST_CASES` asks for more.
fn cases() -> u64 {
    let asked = std::env::var("GPUCNN_TEST_CASES").ok();
    asked.and_then(|s| s.parse().ok()).unwrap_or(12)
}

/// The op's entries, or those named by `GPUCNN_TEST_OP`.
fn entries() -> Vec<Entry> {
    let wanted = std::env::var("GPUCNN_TEST_OP").ok();
    registry()
        .into_iter()
        .filter(|e| wanted.as_ref().is_none_or(|w| e.name == w))
        .collect()
}

/// The same case again: ops are values, but not clonable through the trait.
fn sample(entry: &Entry, case: u64) -> (Sample, Draw) {
    let mut draw = Draw::new(case);
    ((entry.sample)(&mut draw), draw)
}

fn bits(arrays: &[Array]) -> Vec<Vec<u8>> {
    arrays.iter().map(Array::to_gpu_bytes).collect()
}

/// The same with all zeros positive: WGSL lets a compiler ignore the sign of a zero, and whether
/// it sees that a sum begins with one depends on the text around it.
fn bits_but_of_zeros(arrays: &[Array]) -> Vec<Vec<u8>> {
    let positive = |array: &Array| match array.ty().dtype {
        DType::F32 => {
            let values = array.f().iter().map(|x| x + 0.0);
            Array::float(array.ty().clone(), values.collect())
        }
        _ => array.clone(),
    };
    bits(&arrays.iter().map(positive).collect::<Vec<_>>())
}

/// The outputs of the op that the sample's indices choose from, if it may choose otherwise than
/// the reference.
fn choices(sample: &Sample, case: u64, entry: &Entry, data: &[Array]) -> Option<Array> {
    let op = self::sample(entry, case).0.chosen_from?;
    Some(run(&mut CpuBackend::new(), sample, op, data, false).remove(0))
}

/// Whether two indices, the i-th of an output, name elements that can be told apart.
fn differ(sample: &Sample, choices: &Array, of: &Array, i: usize, named: [u32; 2]) -> bool {
    let planes: usize = of.ty().shape.dims()[..2].iter().product();
    let plane = |array: &Array| array.ty().shape.len() / planes;
    let start = i / plane(of) * plane(choices);
    // What names none was stopped: it is not above zero.
    let [e, f] = named.map(|at| match at {
        NO_WINNER => 0.0,
        at => choices.f()[start + at as usize],
    });
    !sample.tolerance.holds(e, f)
}

/// The first element that is out of tolerance, if any.
fn mismatch(
    sample: &Sample,
    choices: Option<&Array>,
    expected: &Array,
    found: &Array,
) -> Option<String> {
    match expected.ty().dtype {
        DType::F32 => {
            let pairs = expected.f().iter().zip(found.f()).enumerate();
            // What an op leaves alone may be infinite or NaN.
            let same = |e: f64, f: f64| e == f || (e.is_nan() && f.is_nan());
            let holds = |e: f64, f: f64| same(e, f) || sample.tolerance.holds(e, f);
            let mut bad = pairs.filter(|(_, (e, f))| !holds(**e, **f));
            let (i, (e, f)) = bad.next()?;
            Some(format!(
                "element {i}: reference {e:e}, GPU {f:e}, {:?}",
                sample.tolerance
            ))
        }
        DType::U32 => {
            let mut pairs = expected.u().iter().zip(found.u()).enumerate();
            let (i, (e, f)) = pairs.find(|(i, (e, f))| {
                e != f && choices.is_none_or(|c| differ(sample, c, expected, *i, [**e, **f]))
            })?;
            Some(format!("element {i}: reference {e}, GPU {f}"))
        }
        DType::U8 => (expected != found).then(|| "bytes differ".into()),
    }
}

fn compare(profile: ProfileKind, runtime_checks: bool) {
    let mut gpu = GpuBackend::new(open(profile, runtime_checks)).unwrap();
    for entry in entries() {
        for case in 0..cases() {
            let (case_sample, mut draw) = sample(&entry, case);
            let data = inputs(&mut draw, &case_sample);
            let again = || sample(&entry, case).0.op;
            let mut cpu = CpuBackend::new();
            let expected = run(&mut cpu, &case_sample, again(), &data, false);
            let found = run(&mut gpu, &case_sample, again(), &data, true);
            let choices = choices(&case_sample, case, &entry, &data);
            for (i, (e, f)) in expected.iter().zip(&found).enumerate() {
                if let Some(problem) = mismatch(&case_sample, choices.as_ref(), e, f) {
                    panic!(
                        "{} case {case} ({profile}, checks {runtime_checks}): {:?}\ninputs {:?}\noutput {i} {}: {problem}",
                        entry.name,
                        case_sample.op,
                        case_sample.inputs,
                        e.ty()
                    );
                }
            }
            let second = run(&mut gpu, &case_sample, again(), &data, true);
            assert_eq!(
                bits(&found),
                bits(&second),
                "{} case {case}: two runs differ",
                entry.name
            );
        }
    }
}

#[test]
fn cpu_like_kernels_equal_the_reference() {
    compare(ProfileKind::CpuLike, false);
}

#[test]
fn gpu_kernels_equal_the_reference() {
    compare(ProfileKind::Gpu, false);
}

#[test]
fn cpu_like_kernels_equal_the_reference_with_runtime_checks() {
    compare(ProfileKind::CpuLike, true);
}

#[test]
fn gpu_kernels_equal_the_reference_with_runtime_checks() {
    compare(ProfileKind::Gpu, true);
}

/// The random cases are too small for the largest tiles.
#[test]
fn large_products_equal_the_reference() {
    const M: usize = 1430;
    const N: usize = 1502;
    const K: usize = 21;
    let mut gpu = GpuBackend::new(open(ProfileKind::Gpu, false)).unwrap();
    for (a, b) in [(false, false), (false, true), (true, false), (true, true)] {
        let extents = [
            if a { [K, M] } else { [M, K] },
            if b { [N, K] } else { [K, N] },
        ];
        let filled = extents.map(|shape| (TensorType::f32(shape), Fill::UNIT));
        let tolerance = Tolerance::sum(K, 1.0);
        let sample = Sample::new(MatMul::new(a, b), filled.to_vec(), tolerance);
        let data = inputs(&mut Draw::new(1), &sample);
        let op = || Box::new(MatMul::new(a, b));
        let expected = run(&mut CpuBackend::new(), &sample, op(), &data, false);
        let found = run(&mut gpu, &sample, op(), &data, true);
        let problem = mismatch(&sample, None, &expected[0], &found[0]);
        assert_eq!(problem, None, "transposed {a}, {b}");
    }
}

/// Windows a column wide leave whole quads to store, of which only the last row's are results.
#[test]
fn pools_of_rows_behind_transformed_convolutions_equal_the_reference() {
    const CHANNELS: usize = 128;
    let conv = Conv2d::new(Window::new([3, 3]), 1);
    let x = TensorType::f32([4, CHANNELS, 26, 26]);
    let w = TensorType::f32([CHANNELS, CHANNELS, 3, 3]);
    // Winograd's errors reach 32 times as far as a plain sum's.
    let mut tolerance = Tolerance::sum(CHANNELS * 9, 1.0);
    tolerance.absolute *= 32.0;
    for profile in [ProfileKind::CpuLike, ProfileKind::Gpu] {
        let mut gpu = GpuBackend::new(open(profile, false)).unwrap();
        for rows in [2, 4] {
            let window = Window {
                stride: [rows, 1],
                ..Window::new([rows, 1])
            };
            let op = Conv2d {
                pool: Some(window),
                ..conv
            };
            let filled = vec![(x.clone(), Fill::UNIT), (w.clone(), Fill::UNIT)];
            let sample = Sample::new(op, filled, tolerance);
            let data = inputs(&mut Draw::new(1), &sample);
            let expected = run(&mut CpuBackend::new(), &sample, Box::new(op), &data, false);
            let found = run(&mut gpu, &sample, Box::new(op), &data, true);
            let problem = mismatch(&sample, None, &expected[0], &found[0]);
            assert_eq!(problem, None, "pools of {rows} rows, {profile}");
        }
    }
}

/// Gradients of a convolution behind which the windows of a max pool lie edge to edge and miss a
/// row and a column, or overlap, or which is depthwise. They are large enough for several patches.
#[test]
fn gradients_behind_a_pool_equal_the_reference() {
    const IMAGES: usize = 3;
    const CHANNELS: usize = 8;
    const SIDE: usize = 23;
    let strided = |side| Window {
        stride: [2, 2],
        ..Window::new([side, side])
    };
    let unit = |ty: &TensorType| (ty.clone(), Fill::UNIT);
    let kernel = Window::new([3, 3]);
    let image = [SIDE + 2; 2];
    let x = TensorType::f32([IMAGES, CHANNELS, image[0], image[1]]);
    let y = TensorType::f32([IMAGES, 2 * CHANNELS, SIDE, SIDE]);
    // A term for each pixel, and up to four windows that name it their winner.
    let tolerance = Tolerance::sum(IMAGES * SIDE * SIDE * 4, 1.0);
    let mut cpu = CpuBackend::new();
    for (window, groups) in [(strided(2), 1), (strided(3), 1), (strided(2), CHANNELS)] {
        let pool = MaxPool2d::new(window);
        let forward = Sample::new(pool, vec![unit(&y)], tolerance);
        let data = inputs(&mut Draw::new(1), &forward);
        let pooled = run(&mut cpu, &forward, Box::new(pool), &data, false);
        let upstream = Upstream {
            pool: Some(MaxPool2dGrad::new(window, [SIDE; 2])),
        };
        let by_weights = Conv2dWeightGrad {
            upstream,
            ..Conv2dWeightGrad::new(kernel, groups).with_bias(true)
        };
        let by_input = Conv2dInputGrad {
            upstream,
            ..Conv2dInputGrad::new(kernel, groups, image)
        };
        let w = TensorType::f32([2 * CHANNELS, CHANNELS / groups, 3, 3]);
        let winners = (pooled[1].ty().clone(), Fill::Below(1));
        let filled = |operand| vec![unit(pooled[0].ty()), winners.clone(), unit(operand)];
        check_behind(by_weights, filled(&x), &pooled[1], tolerance);
        check_behind(by_input, filled(&w), &pooled[1], tolerance);
    }
}

/// Checks a gradient by its reference; its second input are these winners.
fn check_behind(
    op: impl Op + Copy,
    filled: Vec<(TensorType, Fill)>,
    winners: &Array,
    tolerance: Tolerance,
) {
    let sample = Sample::new(op, filled, tolerance);
    let mut data = inputs(&mut Draw::new(3), &sample);
    data[1] = winners.clone();
    let expected = run(&mut CpuBackend::new(), &sample, Box::new(op), &data, false);
    for profile in [ProfileKind::CpuLike, ProfileKind::Gpu] {
        let mut gpu = GpuBackend::new(open(profile, false)).unwrap();
        let found = run(&mut gpu, &sample, Box::new(op), &data, true);
        for (expected, found) in expected.iter().zip(&found) {
            let problem = mismatch(&sample, None, expected, found);
            assert_eq!(problem, None, "{op:?}, {profile}");
        }
    }
}

#[test]
fn runtime_checks_do_not_change_a_bit() {
    for profile in [ProfileKind::CpuLike, ProfileKind::Gpu] {
        let mut with = GpuBackend::new(open(profile, true)).unwrap();
        let mut without = GpuBackend::new(open(profile, false)).unwrap();
        for entry in entries() {
            for case in 0..cases() / 4 {
                let (case_sample, mut draw) = sample(&entry, case);
                let data = inputs(&mut draw, &case_sample);
                let again = || sample(&entry, case).0.op;
                let a = run(&mut with, &case_sample, again(), &data, true);
                let b = run(&mut without, &case_sample, again(), &data, true);
                let [a, b] = [a, b].map(|found| bits_but_of_zeros(&found));
                assert_eq!(a, b, "{} case {case} ({profile})", entry.name);
            }
        }
    }
}

/// The floats of an input as f16 has them, so that keeping them in half precision rounds
/// nothing.
fn halved(array: &Array) -> Array {
    match array.ty().dtype {
        DType::F32 => {
            let round = |x: &f64| f64::from(half::f16::from_f64(*x));
            Array::float(array.ty().clone(), array.f().iter().map(round).collect())
        }
        _ => array.clone(),
    }
}

/// Runs a sample's op with what may be in half precision in half precision: operands are
/// copies of the inputs, and results are copied out.
fn run_halved(backend: &mut GpuBackend, entry: &Entry, case: u64, data: &[Array]) -> Vec<Array> {
    let (case_sample, _) = sample(entry, case);
    let mut graph = Graph::new();
    let copy = || Box::new(Activation(Function::Identity));
    let mut operands = Vec::new();
    for (i, array) in data.iter().enumerate() {
        let name = format!("in{i}");
        backend.create(&name, array.ty()).unwrap();
        backend.write(&name, array).unwrap();
        let state = graph.state(name, array.ty().clone());
        let copied = array.ty().dtype == DType::F32 && !case_sample.op.updates().contains(&i);
        operands.push(match copied {
            true => graph.add1(copy(), &[state]).unwrap(),
            false => state,
        });
    }
    let outputs = graph.add(sample(entry, case).0.op, &operands).unwrap();
    for (i, value) in outputs.iter().enumerate() {
        let ty = graph.ty(*value).clone();
        let name = format!("out{i}");
        backend.create(&name, &ty).unwrap();
        let target = graph.state(name, ty.clone());
        let value = match ty.dtype {
            DType::F32 => graph.add1(copy(), &[*value]).unwrap(),
            _ => *value,
        };
        graph.store(value, target).unwrap();
    }
    let program = backend.compile(graph.halved(&[])).unwrap();
    backend.run(program, &[case_sample.step]).unwrap();
    let names = (0..outputs.len()).map(|i| format!("out{i}"));
    names.map(|n| backend.read(&n).unwrap()).collect()
}

#[test]
fn kernels_in_half_precision_equal_the_reference() {
    for (profile, half) in [
        (ProfileKind::CpuLike, None),
        (ProfileKind::Gpu, None),
        (ProfileKind::CpuLike, Some(Half::Packed)),
        (ProfileKind::Gpu, Some(Half::Packed)),
    ] {
        let mut gpu = GpuBackend::new(open_with(profile, false, half)).unwrap();
        for entry in entries() {
            for case in 0..cases() / 4 {
                let (mut case_sample, mut draw) = sample(&entry, case);
                let data: Vec<_> = inputs(&mut draw, &case_sample).iter().map(halved).collect();
                let op = sample(&entry, case).0.op;
                let expected = run(&mut CpuBackend::new(), &case_sample, op, &data, false);
                let found = run_halved(&mut gpu, &entry, case, &data);
                // A result is rounded to 11 bits, perhaps towards zero, and to multiples of
                // 2^-24 where it is small.
                case_sample.tolerance.relative += (-10f64).exp2();
                case_sample.tolerance.absolute += (-24f64).exp2();
                let choices = choices(&case_sample, case, &entry, &data);
                for (i, (e, f)) in expected.iter().zip(&found).enumerate() {
                    if let Some(problem) = mismatch(&case_sample, choices.as_ref(), e, f) {
                        panic!(
                            "{} case {case} ({profile}, {half:?}): {:?}\ninputs {:?}\noutput {i} {}: {problem}",
                            entry.name,
                            case_sample.op,
                            case_sample.inputs,
                            e.ty()
                        );
                    }
                }
            }
        }
    }
}

/// The sum of the op's first `count` outputs, those that are floats, each element times
/// a fixed weight, so that every output matters differently.
fn weighted(outputs: &[Array], count: usize) -> f64 {
    let outputs = outputs.iter().take(count);
    let floats = outputs.filter(|a| a.ty().dtype == DType::F32);
    let elements = floats.flat_map(|a| a.f().iter().copied());
    elements.enumerate().map(|(i, y)| y * weight(i)).sum()
}

fn weight(i: usize) -> f64 {
    0.3 + ((i * 7919) % 13) as f64 / 13.0
}

/// Whether the sample's gradient with respect to an input is checked.
fn checked(sample: &Sample, input: usize) -> bool {
    let asked = sample.wrt.as_ref().is_none_or(|w| w.contains(&input));
    asked && sample.inputs[input].0.dtype == DType::F32
}

/// dweighted/dinput by the op's own gradient rule, on the reference backend.
fn analytic(entry: &Entry, case: u64, data: &[Array]) -> Vec<Option<Array>> {
    let (case_sample, _) = sample(entry, case);
    let mut graph = Graph::new();
    let types: Vec<_> = case_sample
        .inputs
        .iter()
        .map(|(ty, _)| ty.clone())
        .collect();
    let values: Vec<_> = types
        .iter()
        .enumerate()
        .map(|(i, ty)| graph.state(format!("in{i}"), ty.clone()))
        .collect();
    let outputs = graph.add(sample(entry, case).0.op, &values).unwrap();
    let op = graph.nodes()[0].op.clone();
    let mut cpu = CpuBackend::new();
    let mut upstream = Vec::new();
    let mut next = 0;
    for (i, value) in outputs.iter().enumerate() {
        let ty = graph.ty(*value).clone();
        if ty.dtype != DType::F32 || i >= case_sample.loss_outputs {
            upstream.push(None);
            continue;
        }
        let weights = (next..next + ty.shape.len()).map(weight).collect();
        next += ty.shape.len();
        let name = format!("d{i}");
        upstream.push(Some(graph.state(name.clone(), ty.clone())));
        cpu.create(&name, &ty).unwrap();
        cpu.write(&name, &Array::float(ty, weights)).unwrap();
    }
    let wanted = (0..types.len()).map(|i| checked(&case_sample, i));
    let wanted: Vec<_> = wanted.collect();
    let node = gpucnn::ops::NodeView {
        inputs: &values,
        outputs: &outputs,
        wanted: &wanted,
    };
    let gradients = op.gradient(&mut graph, node, &upstream).unwrap();
    for (i, gradient) in gradients.iter().enumerate() {
        if let Some(value) = gradient {
            let ty = types[i].clone();
            let target = graph.state(format!("g{i}"), ty.clone());
            graph.store(*value, target).unwrap();
            cpu.create(&format!("g{i}"), &ty).unwrap();
        }
    }
    for (i, array) in data.iter().enumerate() {
        cpu.create(&format!("in{i}"), array.ty()).unwrap();
        cpu.write(&format!("in{i}"), array).unwrap();
    }
    let program = cpu.compile(graph.without_dead_nodes()).unwrap();
    cpu.run(program, &[case_sample.step]).unwrap();
    let mut read = |i: usize| cpu.read(&format!("g{i}")).unwrap();
    gradients
        .iter()
        .enumerate()
        .map(|(i, g)| g.map(|_| read(i)))
        .collect()
}

/// Central differences in float64 with step h: the truncation error is of order h^2 and
/// the rounding error of order 1e-16 / h, both below 1e-8 here; the bound leaves room
/// for third derivatives of order 100.
const STEP: f64 = 1e-4;
const BOUND: f64 = 1e-5;

#[test]
fn gradients_equal_finite_differences_of_the_reference() {
    for entry in entries() {
        for case in 0..cases() {
            let (case_sample, mut draw) = sample(&entry, case);
            if !case_sample.differentiable {
                continue;
            }
            let data = inputs(&mut draw, &case_sample);
            let gradients = analytic(&entry, case, &data);
            for (input, array) in data.iter().enumerate() {
                if !checked(&case_sample, input) || array.ty().shape.is_empty() {
                    continue;
                }
                // A few elements of each input: enough to see a wrong index or sign.
                for _ in 0..6 {
                    let element = draw.int(0, array.ty().shape.len() - 1);
                    let at = |offset: f64| {
                        let mut moved = data.clone();
                        moved[input].f_mut()[element] += offset;
                        let op = sample(&entry, case).0.op;
                        let mut cpu = CpuBackend::new();
                        let outputs = run(&mut cpu, &case_sample, op, &moved, false);
                        weighted(&outputs, case_sample.loss_outputs)
                    };
                    let numeric = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                    let found = gradients[input].as_ref().map_or(0.0, |g| g.f()[element]);
                    assert!(
                        (numeric - found).abs() <= BOUND * (1.0 + numeric.abs()),
                        "{} case {case}: {:?}\ninputs {:?}\ninput {input} element {element}: finite differences {numeric}, gradient {found}",
                        entry.name,
                        case_sample.op,
                        case_sample.inputs
                    );
                }
            }
        }
    }
}

#[test]
fn every_op_is_named_once_in_the_registry() {
    let mut names: Vec<_> = registry().iter().map(|e| e.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    for entry in registry() {
        assert_eq!((entry.sample)(&mut Draw::new(0)).op.name(), entry.name);
    }
}
