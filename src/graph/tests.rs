//! Picture-sized tests of differentiation, passes, memory plan and execution.

use super::*;
use crate::gpu::profile::{Profile, ProfileKind};
use crate::ops::activation::ActivationGrad;
use crate::ops::batch_norm::{BatchNorm2d, UpdateRunningStats};
use crate::ops::binary::{Binary, BinaryOp, SumTo};
use crate::ops::conv2d::Conv2d;
use crate::ops::pool2d::MaxPool2d;
use crate::ops::{Array, Step, Window};

const RELU: Activation = Activation(Function::Relu);

fn chain(graph: &mut Graph, x: Value, length: usize) -> Vec<Value> {
    let mut values = vec![x];
    for _ in 0..length {
        let last = values[values.len() - 1];
        values.push(graph.add1(Box::new(RELU), &[last]).unwrap());
    }
    values
}

#[test]
fn dead_nodes_are_dropped_and_stored_ones_kept() {
    let mut graph = Graph::new();
    let x = graph.state("x", TensorType::f32([8]));
    let y = graph.state("y", TensorType::f32([8]));
    let values = chain(&mut graph, x, 4);
    graph.store(values[2], y).unwrap();
    assert_eq!(graph.nodes().len(), 4);
    assert_eq!(graph.without_dead_nodes().nodes().len(), 2);
}

#[test]
fn a_chain_needs_two_slots_however_long() {
    let mut graph = Graph::new();
    let x = graph.state("x", TensorType::f32([64]));
    let y = graph.state("y", TensorType::f32([64]));
    let values = chain(&mut graph, x, 9);
    graph.store(values[9], y).unwrap();
    let plan = MemoryPlan::new(&graph, &vec![vec![]; 9]);
    assert_eq!(plan.slots.len(), 2);
    assert_eq!(plan.bytes(), plan.lower_bound);
    assert_eq!(plan.lower_bound, 2 * 64 * 4);
}

#[test]
fn inputs_and_outputs_of_a_node_never_share_a_slot() {
    let mut graph = Graph::new();
    let x = graph.state("x", TensorType::f32([64]));
    let values = chain(&mut graph, x, 6);
    // Keep an early value alive to the end.
    let last = graph
        .add1(
            Box::new(ActivationGrad(Function::Relu)),
            &[values[6], values[1]],
        )
        .unwrap();
    let y = graph.state("y", TensorType::f32([64]));
    graph.store(last, y).unwrap();
    let plan = MemoryPlan::new(&graph, &vec![vec![]; 7]);
    for node in graph.nodes() {
        for input in &node.inputs {
            for output in &node.outputs {
                if let (Some(a), Some(b)) = (plan.results.get(input), plan.results.get(output)) {
                    assert_ne!(a, b);
                }
            }
        }
    }
    assert_eq!(plan.slots.len(), 3);
}

#[test]
fn the_gradient_of_a_chain_runs_backwards_and_names_its_layers() {
    let mut graph = Graph::new();
    let x = graph.state("x", TensorType::f32([]));
    graph.set_layer("first");
    let y = graph.add1(Box::new(RELU), &[x]).unwrap();
    graph.set_layer("second");
    let z = graph.add1(Box::new(RELU), &[y]).unwrap();
    let gradient = graph.gradients(z, &[x]).unwrap()[0].unwrap();
    let layers: Vec<_> = graph.nodes().iter().map(|n| n.layer.as_str()).collect();
    assert_eq!(layers, ["first", "second", "second", "second", "first"]);
    assert_eq!(graph.producer(gradient).unwrap().layer, "first");
}

/// The loss of a residual block, sum((h + sigmoid(h))^2) with h = tanh(x), and the
/// gradient by x: h is read twice, and so is what is squared.
fn residual(x: &[f64]) -> (f64, Vec<f64>) {
    let mut graph = Graph::new();
    let ty = TensorType::f32([x.len()]);
    let input = graph.state("x", ty.clone());
    let mut add = |op: Box<dyn Op>, inputs: &[Value]| graph.add1(op, inputs).unwrap();
    let h = add(Box::new(Activation(Function::Tanh)), &[input]);
    let branch = add(Box::new(Activation(Function::Sigmoid)), &[h]);
    let sum = add(Box::new(Binary(BinaryOp::Add)), &[h, branch]);
    let square = add(Box::new(Binary(BinaryOp::Mul)), &[sum, sum]);
    let shape = Shape::default();
    let loss = add(Box::new(SumTo { shape }), &[square]);
    let gradient = graph.gradients(loss, &[input]).unwrap()[0].unwrap();
    let mut cpu = CpuBackend::new();
    let scalar = TensorType::f32([]);
    for (value, name, ty) in [(loss, "loss", &scalar), (gradient, "gradient", &ty)] {
        let target = graph.state(name, ty.clone());
        graph.store(value, target).unwrap();
        cpu.create(name, ty).unwrap();
    }
    cpu.create("x", &ty).unwrap();
    cpu.write("x", &Array::float(ty, x.to_vec())).unwrap();
    let program = cpu.compile(graph.optimized()).unwrap();
    cpu.run(program, &[Step::default()]).unwrap();
    let loss = cpu.read("loss").unwrap().f()[0];
    (loss, cpu.read("gradient").unwrap().f().to_vec())
}

#[test]
fn a_value_read_twice_gets_the_sum_of_its_gradients() {
    const STEP: f64 = 1e-4;
    // Truncation of order STEP^2 times a third derivative of order 10; rounding 1e-16 / STEP.
    const BOUND: f64 = 1e-6;
    let x = [-1.5, -0.2, 0.4, 2.0];
    let (_, gradient) = residual(&x);
    for (i, found) in gradient.iter().enumerate() {
        let at = |offset: f64| {
            let mut moved = x;
            moved[i] += offset;
            residual(&moved).0
        };
        let expected = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        assert!((found - expected).abs() < BOUND, "{i}: {found}, {expected}");
    }
}

#[test]
fn the_gradient_of_a_residual_sum_is_passed_on_without_a_copy() {
    let mut graph = Graph::new();
    let [a, b] = ["a", "b"].map(|name| graph.state(name, TensorType::f32([])));
    let sum = Box::new(Binary(BinaryOp::Add));
    let sum = graph.add1(sum, &[a, b]).unwrap();
    let gradients = graph.gradients(sum, &[a, b]).unwrap();
    assert_eq!(gradients[0], gradients[1]);
    assert!(graph.is_one(gradients[0].unwrap()));
}

#[test]
fn a_loss_that_is_no_scalar_is_an_error() {
    let mut graph = Graph::new();
    let x = graph.state("x", TensorType::f32([2]));
    let error = graph.gradients(x, &[x]).unwrap_err();
    assert!(error.to_string().contains("scalar"), "{error}");
}

#[test]
fn states_that_are_missing_or_too_small_are_errors_by_name() {
    let mut graph = Graph::new();
    let x = graph.state("x", TensorType::f32([8]));
    let y = graph.state("y", TensorType::f32([8]));
    let value = chain(&mut graph, x, 1)[1];
    graph.store(value, y).unwrap();
    let mut cpu = CpuBackend::new();
    cpu.create("x", &TensorType::f32([8])).unwrap();
    let missing = cpu.compile(graph.clone()).unwrap_err();
    assert!(missing.to_string().contains("\"y\""), "{missing}");
    cpu.create("y", &TensorType::f32([7])).unwrap();
    let small = cpu.compile(graph).unwrap_err();
    assert!(small.to_string().contains("state y"), "{small}");
}

#[test]
fn views_are_read_and_written_in_place() {
    let mut graph = Graph::new();
    let arena = graph.state("arena", TensorType::f32([192]));
    let a = graph.view(arena, 0, [2]).unwrap();
    let b = graph.view(arena, 128, [2]).unwrap();
    let value = chain(&mut graph, a, 1)[1];
    graph.store(value, b).unwrap();
    let mut cpu = CpuBackend::new();
    let ty = TensorType::f32([192]);
    cpu.create("arena", &ty).unwrap();
    let mut data = vec![0.5; 192];
    data[..2].copy_from_slice(&[-1.0, 2.0]);
    cpu.write("arena", &Array::float(ty, data)).unwrap();
    let program = cpu.compile(graph).unwrap();
    cpu.run(program, &[Step::default()]).unwrap();
    let result = cpu.read("arena").unwrap();
    assert_eq!(&result.f()[126..131], &[0.5, 0.5, 0.0, 2.0, 0.5]);
}

#[test]
fn an_activation_moves_behind_a_pool_and_all_three_become_one_node() {
    let mut graph = Graph::new();
    let x = graph.state("x", TensorType::f32([1, 1, 6, 6]));
    let w = graph.state("w", TensorType::f32([2, 1, 3, 3]));
    let conv = Conv2d::new(Window::new([3, 3]), 1);
    let y = graph.add1(Box::new(conv), &[x, w]).unwrap();
    let y = graph.add1(Box::new(RELU), &[y]).unwrap();
    let window = Window {
        stride: [2, 2],
        ..Window::new([2, 2])
    };
    let y = graph.add1(Box::new(MaxPool2d::new(window)), &[y]).unwrap();
    let out = graph.state("y", graph.ty(y).clone());
    graph.store(y, out).unwrap();
    graph.shrink_first().unwrap();
    let names: Vec<_> = graph.nodes().iter().map(|n| n.op.name()).collect();
    assert_eq!(names, ["conv2d", "max_pool2d", "activation"]);
    // What was asked for is still what is stored.
    assert_eq!(graph.nodes()[2].outputs, [y]);
    assert_eq!(graph.optimized().nodes().len(), 1);
}

/// The gradients by x and w of a function of a max-pooled convolution's ReLU, computed by
/// their graph as it is prepared, and the names of the ops that compute them.
fn pooled_gradients(prepare: impl FnOnce(Graph) -> Graph) -> (Vec<Array>, Vec<&'static str>) {
    let mut graph = Graph::new();
    let types = [[2, 2, 6, 6], [3, 2, 3, 3]].map(TensorType::f32);
    let x = graph.state("x", types[0].clone());
    let w = graph.state("w", types[1].clone());
    let window = Window {
        stride: [2, 2],
        ..Window::new([2, 2])
    };
    let mut add = |op: Box<dyn Op>, inputs: &[Value]| graph.add1(op, inputs).unwrap();
    let y = add(Box::new(Conv2d::new(Window::new([3, 3]), 1)), &[x, w]);
    let y = add(Box::new(MaxPool2d::new(window)), &[y]);
    let y = add(Box::new(RELU), &[y]);
    // Whose gradient does not vanish where the ReLU's result does.
    let y = add(Box::new(Binary(BinaryOp::Add)), &[y, y]);
    let shape = Shape::default();
    let loss = add(Box::new(SumTo { shape }), &[y]);
    let gradients = graph.gradients(loss, &[x, w]).unwrap();
    let mut cpu = CpuBackend::new();
    for ((name, ty), gradient) in ["x", "w"].into_iter().zip(&types).zip(gradients) {
        // A quarter of the pool's windows have no positive output.
        let values = (0..ty.shape.len()).map(|i| (i as f64 * 0.9).sin());
        cpu.create(name, ty).unwrap();
        cpu.write(name, &Array::float(ty.clone(), values.collect()))
            .unwrap();
        let target = format!("d{name}");
        let state = graph.state(&target, ty.clone());
        graph.store(gradient.unwrap(), state).unwrap();
        cpu.create(&target, ty).unwrap();
    }
    graph = prepare(graph);
    let names = graph.nodes().iter().map(|n| n.op.name());
    let names = names.filter(|name| name.ends_with("_grad")).collect();
    let program = cpu.compile(graph).unwrap();
    cpu.run(program, &[Step::default()]).unwrap();
    let read = ["dx", "dw"].map(|name| cpu.read(name).unwrap());
    (read.to_vec(), names)
}

#[test]
fn both_gradients_look_through_a_pool_where_the_device_gains_by_it() {
    const BOTH: [&str; 2] = ["conv2d_input_grad", "conv2d_weight_grad"];
    let (expected, plain) = pooled_gradients(Graph::optimized);
    let adapted = |kind| {
        let profile = Profile::minimal(kind);
        pooled_gradients(|graph| graph.optimized().adapted(&profile).unwrap())
    };
    let (found, through) = adapted(ProfileKind::CpuLike);
    let (_, on_gpu) = adapted(ProfileKind::Gpu);
    assert_eq!(through, BOTH);
    for pooled in [plain, on_gpu] {
        assert_eq!(pooled, [&["max_pool2d_grad"][..], &BOTH].concat());
    }
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.f(), expected.f());
    }
}

#[test]
fn a_pool_says_what_its_relu_stops_so_that_nobody_looks_it_up() {
    let inputs = |graph: &Graph| {
        let pool = |n: &&Node| n.op.name() == "max_pool2d_grad";
        let inputs = graph.nodes().iter().find(pool).map(|n| n.inputs.len());
        inputs.expect("there is a pool")
    };
    let (expected, _) = pooled_gradients(|graph| graph);
    let (found, _) = pooled_gradients(|graph| {
        let graph = graph.optimized();
        assert_eq!(inputs(&graph), 2, "dy and argmax");
        graph
    });
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.f(), expected.f());
    }
    // Who reads the winners otherwise is to find them all.
    pooled_gradients(|unstored| {
        let mut graph = unstored.clone();
        let named = |n: &Node| n.op.name() == "max_pool2d";
        let pool = graph.nodes().iter().find(|n| named(n)).unwrap();
        let argmax = pool.outputs[1];
        let state = graph.state("argmax", graph.ty(argmax).clone());
        graph.store(argmax, state).unwrap();
        let stored = graph.optimized();
        assert_eq!(inputs(&stored), 3, "dy, the ReLU's result and argmax");
        unstored
    });
}

#[test]
fn an_activation_joins_a_norm_whose_statistics_are_read_before_it() {
    let mut graph = Graph::new();
    let x = graph.state("x", TensorType::f32([2, 3, 4, 4]));
    let channel = |graph: &mut Graph, name| graph.state(name, TensorType::f32([3]));
    let parameters = ["gamma", "beta"].map(|name| channel(&mut graph, name));
    let running = ["mean", "variance"].map(|name| channel(&mut graph, name));
    let norm = BatchNorm2d::new(1e-3);
    let [y, mean, variance] = graph
        .add(Box::new(norm), &[x, parameters[0], parameters[1]])
        .unwrap()[..]
    else {
        panic!("a norm has three outputs");
    };
    let update = UpdateRunningStats { momentum: 0.9 };
    let inputs = [running[0], running[1], mean, variance];
    graph.add(Box::new(update), &inputs).unwrap();
    let y = graph.add1(Box::new(RELU), &[y]).unwrap();
    let out = graph.state("y", graph.ty(y).clone());
    graph.store(y, out).unwrap();
    let graph = graph.optimized();
    let names: Vec<_> = graph.nodes().iter().map(|n| n.op.name()).collect();
    assert_eq!(names, ["batch_norm2d", "update_running_stats"]);
    assert_eq!(graph.nodes()[0].fused, ["batch_norm2d", "activation"]);
}
