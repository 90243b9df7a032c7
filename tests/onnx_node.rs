//! The ONNX project's backend node tests, on the CPU reference and on the GPU.
//!
//! Each folder of `tests/onnx_node` holds a model of one operator, inputs and expected
//! outputs (see the README there). [`OPERATORS`] says how an operator is written with our
//! ops; every test of such an operator runs, unless [`NOT_BUILT`] gives the reason why not.

mod onnx;
mod support;

use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::{Backend, CpuBackend, GpuBackend, Graph};
use gpucnn::ops::activation::{Activation, Function};
use gpucnn::ops::batch_norm::{BatchNorm2d, BatchNormInference, UpdateRunningStats};
use gpucnn::ops::binary::{Binary, BinaryOp};
use gpucnn::ops::conv2d::Conv2d;
use gpucnn::ops::cross_entropy::{Labels, SoftmaxCrossEntropy};
use gpucnn::ops::dropout::Dropout;
use gpucnn::ops::fill::Fill;
use gpucnn::ops::matmul::MatMul;
use gpucnn::ops::optimizer::{Optimizer, Rule, Update};
use gpucnn::ops::pool2d::{AvgPool2d, GlobalAvgPool, MaxPool2d};
use gpucnn::ops::reduction::Reduction;
use gpucnn::ops::reshape::Reshape;
use gpucnn::ops::scale::Scale;
use gpucnn::ops::softmax::Softmax;
use gpucnn::ops::{Array, Builder, Op, Pads, Step, Value, Window};
use gpucnn::tensor::{DType, Shape};
use onnx::{Case, Data};
use std::path::Path;

/// Writes a case into a graph and names its outputs.
type Write = fn(&Case, &mut Writer) -> Vec<Output>;

/// ONNX's operators in terms of our ops.
const OPERATORS: &[(&str, Write)] = &[
    ("Adagrad", adagrad),
    ("Adam", adam),
    ("Add", |_, w| {
        w.one(Binary(BinaryOp::Add), &[w.inputs[0], w.inputs[1]])
    }),
    ("AveragePool", average_pool),
    ("BatchNormalization", batch_normalization),
    ("Conv", conv),
    ("Dropout", dropout),
    ("Elu", |case, w| {
        let alpha = case.float("alpha", 1.0);
        w.activation(Function::Elu { alpha })
    }),
    ("Flatten", flatten),
    ("Gemm", gemm),
    ("GlobalAveragePool", |_, w| {
        w.one(GlobalAvgPool, &[w.inputs[0]])
    }),
    ("LeakyRelu", |case, w| {
        let slope = case.float("alpha", 0.01);
        w.activation(Function::LeakyRelu { slope })
    }),
    ("LogSoftmax", |case, w| softmax(case, w, true)),
    ("MatMul", |_, w| {
        w.one(MatMul::new(false, false), &[w.inputs[0], w.inputs[1]])
    }),
    ("MaxPool", max_pool),
    ("Momentum", momentum),
    ("Relu", |_, w| w.activation(Function::Relu)),
    ("Sigmoid", |_, w| w.activation(Function::Sigmoid)),
    ("Softmax", |case, w| softmax(case, w, false)),
    ("SoftmaxCrossEntropyLoss", softmax_cross_entropy),
    ("Tanh", |_, w| w.activation(Function::Tanh)),
];

/// Tests that are not run; `*` stands for any ending.
const NOT_BUILT: &[(&str, &str)] = &[
    (
        "test_adam_multiple",
        "its expected output is not what its model gives; ONNX's own reference fails it too",
    ),
    ("test_add_int*", "sums are of f32"),
    ("test_add_uint*", "sums are of f32"),
    (
        "test_dropout_default_mask*",
        "dropout stores no mask that could be given out",
    ),
    (
        "test_matmul_3d",
        "products of batches of matrices are not built",
    ),
    (
        "test_matmul_4d",
        "products of batches of matrices are not built",
    ),
    ("test_maxpool_2d_uint8", "pools are of f32"),
    (
        "test_maxpool_with_argmax_2d_precomputed_strides",
        "asks for column-major indices",
    ),
    (
        "test_training_dropout",
        "the mask is drawn by NumPy's generator",
    ),
    (
        "test_training_dropout_default",
        "the mask is drawn by NumPy's generator",
    ),
    (
        "test_training_dropout*mask",
        "dropout stores no mask that could be given out",
    ),
];

fn reason_not_built(test: &str) -> Option<&'static str> {
    let matches = |pattern: &str| match pattern.split_once('*') {
        Some((start, end)) => test.starts_with(start) && test.ends_with(end),
        None => test == pattern,
    };
    let listed = NOT_BUILT.iter().find(|(pattern, _)| matches(pattern));
    listed.map(|(_, reason)| *reason)
}

/// Where an output of a case is found after the run.
enum Output {
    /// A result of the graph.
    Result(Value),
    /// An input that was updated in place, times a factor.
    Updated(usize, f64),
}

/// A graph whose states `in0`, … are the inputs of a case.
struct Writer {
    graph: Graph,
    inputs: Vec<Value>,
    /// What each input is multiplied by before the run.
    factors: Vec<f64>,
    step: Step,
}

impl Writer {
    fn new(case: &Case) -> Self {
        let mut graph = Graph::new();
        let inputs = case.inputs.iter().enumerate();
        let inputs = inputs.map(|(i, t)| graph.state(format!("in{i}"), t.ty()));
        Self {
            inputs: inputs.collect(),
            graph,
            factors: vec![1.0; case.inputs.len()],
            step: Step::default(),
        }
    }

    fn op(&mut self, op: impl Op, inputs: &[Value]) -> Value {
        self.graph.add1(Box::new(op), inputs).unwrap()
    }

    fn one(&mut self, op: impl Op, inputs: &[Value]) -> Vec<Output> {
        vec![Output::Result(self.op(op, inputs))]
    }

    fn activation(&mut self, function: Function) -> Vec<Output> {
        self.one(Activation(function), &[self.inputs[0]])
    }

    fn reshape(&mut self, value: Value, shape: impl Into<Shape>) -> Value {
        let shape = shape.into();
        self.op(Reshape { shape }, &[value])
    }

    /// A value times a constant.
    fn times(&mut self, value: Value, factor: f64) -> Value {
        if factor == 1.0 {
            return value;
        }
        let fill = Fill {
            shape: Shape::default(),
            value: factor as f32,
        };
        let factor = self.op(fill, &[]);
        self.op(Scale, &[value, factor])
    }

    fn shape(&self, value: Value) -> Shape {
        self.graph.ty(value).shape.clone()
    }
}

/// The window of a convolution or pool with a kernel of one or two extents, which slides
/// over `image`: the last dimensions of the input.
fn window(case: &Case, kernel: &[usize], image: &[usize]) -> Window {
    let both = |values: Vec<i64>, missing: i64| -> [usize; 2] {
        // A line is an image of one row.
        let padded = [vec![missing; 2 - values.len()], values].concat();
        [0, 1].map(|i| padded[i] as usize)
    };
    let ints = |name: &str| {
        let all = vec![1; kernel.len()];
        both(case.ints(name).unwrap_or(all), 1)
    };
    let sizes = |s: &[usize]| both(s.iter().map(|k| *k as i64).collect(), 1);
    let mut window = Window {
        kernel: sizes(kernel),
        stride: ints("strides"),
        dilation: ints("dilations"),
        pads: Pads::default(),
        ceil: case.int("ceil_mode", 0) == 1,
    };
    let same = Pads::same(window.kernel, window.stride, window.dilation, sizes(image));
    window.pads = match case.text("auto_pad", "NOTSET").as_str() {
        "SAME_UPPER" => same,
        // The odd row and column go above and to the left.
        "SAME_LOWER" => Pads {
            top: same.bottom,
            bottom: same.top,
            left: same.right,
            right: same.left,
        },
        _ => {
            let pads = case.ints("pads").unwrap_or(vec![0; 2 * kernel.len()]);
            let (begin, end) = pads.split_at(kernel.len());
            let ([top, left], [bottom, right]) = (both(begin.into(), 0), both(end.into(), 0));
            Pads {
                top,
                bottom,
                left,
                right,
            }
        }
    };
    window
}

fn conv(case: &Case, w: &mut Writer) -> Vec<Output> {
    let (x, filters) = (&case.inputs[0].dims, &case.inputs[1].dims);
    let window = window(case, &filters[2..], &x[2..]);
    let groups = case.int("group", 1) as usize;
    w.one(Conv2d::new(window, groups), &w.inputs.clone())
}

/// The input of a pool as [N, C, H, W], and its window.
fn pool(case: &Case, w: &mut Writer) -> (Value, Window) {
    let dims = &case.inputs[0].dims;
    let kernel = case.ints("kernel_shape").expect("pools have a kernel");
    let kernel: Vec<usize> = kernel.iter().map(|k| *k as usize).collect();
    let window = window(case, &kernel, &dims[2..]);
    let x = match dims[..] {
        [n, c, length] => w.reshape(w.inputs[0], [n, c, 1, length]),
        _ => w.inputs[0],
    };
    (x, window)
}

/// A pool's output in the rank of its input.
fn unpooled(case: &Case, w: &mut Writer, y: Value) -> Value {
    let dims = w.shape(y).dims().to_vec();
    match case.inputs[0].dims.len() {
        3 => w.reshape(y, [dims[0], dims[1], dims[3]]),
        _ => y,
    }
}

fn average_pool(case: &Case, w: &mut Writer) -> Vec<Output> {
    let (x, window) = pool(case, w);
    let count_include_pad = case.int("count_include_pad", 0) == 1;
    let op = AvgPool2d {
        window,
        count_include_pad,
    };
    let y = w.op(op, &[x]);
    vec![Output::Result(unpooled(case, w, y))]
}

fn max_pool(case: &Case, w: &mut Writer) -> Vec<Output> {
    let (x, window) = pool(case, w);
    let outputs = w.graph.add(Box::new(MaxPool2d { window }), &[x]).unwrap();
    // Indices count from the first plane; there is one plane in the tests that ask.
    assert!(case.outputs.len() == 1 || case.inputs[0].dims[..2] == [1, 1]);
    let y = unpooled(case, w, outputs[0]);
    let outputs = [y, outputs[1]].map(Output::Result).into_iter();
    outputs.take(case.outputs.len()).collect()
}

fn batch_normalization(case: &Case, w: &mut Writer) -> Vec<Output> {
    let epsilon = case.float("epsilon", 1e-5);
    if case.int("training_mode", 0) == 0 {
        return w.one(BatchNormInference::new(epsilon), &w.inputs.clone());
    }
    let norm = Box::new(BatchNorm2d::new(epsilon));
    let found = w.graph.add(norm, &w.inputs[..3]).unwrap();
    let momentum = case.float("momentum", 0.9);
    let update = Box::new(UpdateRunningStats { momentum });
    let inputs = [w.inputs[3], w.inputs[4], found[1], found[2]];
    w.graph.add(update, &inputs).unwrap();
    vec![
        Output::Result(found[0]),
        Output::Updated(3, 1.0),
        Output::Updated(4, 1.0),
    ]
}

/// Inference, where dropout does nothing.
fn dropout(case: &Case, w: &mut Writer) -> Vec<Output> {
    match case.inputs.as_slice() {
        [_, ratio, training] if training.int() == 1 => {
            let rate = ratio.float();
            w.one(Dropout { rate, key: 1 }, &[w.inputs[0]])
        }
        _ => w.activation(Function::Identity),
    }
}

fn flatten(case: &Case, w: &mut Writer) -> Vec<Output> {
    let dims = &case.inputs[0].dims;
    let axis = axis(case, 1);
    let product = |d: &[usize]| d.iter().product();
    let y = w.reshape(
        w.inputs[0],
        [product(&dims[..axis]), product(&dims[axis..])],
    );
    vec![Output::Result(y)]
}

fn gemm(case: &Case, w: &mut Writer) -> Vec<Output> {
    let transpose = |name: &str| case.int(name, 0) == 1;
    let product = MatMul::new(transpose("transA"), transpose("transB"));
    let y = w.op(product, &[w.inputs[0], w.inputs[1]]);
    let y = w.times(y, case.float("alpha", 1.0));
    let Some(c) = w.inputs.get(2).copied() else {
        return vec![Output::Result(y)];
    };
    let c = w.times(c, case.float("beta", 1.0));
    w.one(Binary(BinaryOp::Add), &[y, c])
}

/// The axis an attribute names, where negative ones count from the end.
fn axis(case: &Case, default: i64) -> usize {
    let axis = case.int("axis", default);
    let rank = case.inputs[0].dims.len() as i64;
    usize::try_from(if axis < 0 { axis + rank } else { axis }).unwrap()
}

fn softmax(case: &Case, w: &mut Writer, log: bool) -> Vec<Output> {
    let axis = axis(case, -1);
    w.one(Softmax { axis, log }, &[w.inputs[0]])
}

fn softmax_cross_entropy(case: &Case, w: &mut Writer) -> Vec<Output> {
    let ignore = case.stated("ignore_index").map(|i| i as u32);
    let op = SoftmaxCrossEntropy {
        labels: Labels::Hard { ignore },
        label_smoothing: 0.0,
        reduction: match case.text("reduction", "mean").as_str() {
            "none" => Reduction::None,
            "sum" => Reduction::Sum,
            _ => Reduction::Mean,
        },
    };
    let mut outputs = w.one(op, &w.inputs.clone());
    if case.outputs.len() == 2 {
        let log_softmax = Softmax { axis: 1, log: true };
        outputs.extend(w.one(log_softmax, &[w.inputs[0]]));
    }
    outputs
}

/// Updates each of a case's tensors; its inputs are the learning rate, the number of steps
/// taken, then all parameters, all gradients and the states one kind after the other.
/// Returns the outputs in that order, the states divided by `state_factor` again.
fn update(
    case: &Case,
    w: &mut Writer,
    optimizer: Optimizer,
    rate: f64,
    state_factor: f64,
) -> Vec<Output> {
    w.step.learning_rate = rate;
    let states = optimizer.rule.states().len();
    let tensors = (case.inputs.len() - 2) / (2 + states);
    let at = |kind: usize, tensor: usize| 2 + kind * tensors + tensor;
    for tensor in 0..tensors {
        let inputs: Vec<Value> = (0..2 + states).map(|k| w.inputs[at(k, tensor)]).collect();
        w.graph
            .add(Box::new(Update::new(optimizer)), &inputs)
            .unwrap();
    }
    let mut outputs = Vec::new();
    for kind in (0..2 + states).filter(|k| *k != 1) {
        let factor = if kind == 0 { 1.0 } else { state_factor };
        for input in (0..tensors).map(|t| at(kind, t)) {
            w.factors[input] = factor;
            outputs.push(Output::Updated(input, 1.0 / factor));
        }
    }
    outputs
}

fn optimizer(case: &Case, rule: Rule) -> Optimizer {
    Optimizer {
        matrices: None,
        rule,
        weight_decay: case.float("norm_coefficient", 0.0),
    }
}

fn adagrad(case: &Case, w: &mut Writer) -> Vec<Output> {
    // ONNX adds epsilon (1e-5 here) to the root, Keras and we to what is below it: less
    // than 1e-5 of the step, where the runner asks for 1e-3.
    let epsilon = case.float("epsilon", 0.0);
    let taken = case.inputs[1].int();
    let rate = case.inputs[0].float() / (1.0 + taken as f64 * case.float("decay_factor", 0.0));
    update(
        case,
        w,
        optimizer(case, Rule::Adagrad { epsilon }),
        rate,
        1.0,
    )
}

fn adam(case: &Case, w: &mut Writer) -> Vec<Output> {
    let rule = Rule::Adam {
        beta1: case.float("alpha", 0.9),
        beta2: case.float("beta", 0.999),
        epsilon: case.float("epsilon", 0.0),
        decoupled: false,
    };
    let optimizer = optimizer(case, rule);
    // ONNX corrects no bias in step 0.
    (w.step.correction1, w.step.correction2) = match case.inputs[1].int() {
        0 => (1.0, 1.0),
        taken => optimizer.corrections(taken as u32),
    };
    update(case, w, optimizer, case.inputs[0].float(), 1.0)
}

fn momentum(case: &Case, w: &mut Writer) -> Vec<Output> {
    // From step 1 on ONNX scales the gradient by beta, which neither Keras nor we do.
    assert_eq!(case.inputs[1].int(), 0);
    let rule = Rule::Momentum {
        momentum: case.float("alpha", 0.0),
        nesterov: case.text("mode", "standard") == "nesterov",
    };
    // Our velocity is a step, ONNX's a sum of gradients.
    let rate = case.inputs[0].float();
    update(case, w, optimizer(case, rule), rate, -rate)
}

/// Runs a case and gives each output.
fn run(case: &Case, write: Write, backend: &mut dyn Backend) -> Vec<Array> {
    let mut writer = Writer::new(case);
    let outputs = write(case, &mut writer);
    assert_eq!(outputs.len(), case.outputs.len(), "{}", case.name);
    for (i, (tensor, factor)) in case.inputs.iter().zip(&writer.factors).enumerate() {
        let name = format!("in{i}");
        backend.create(&name, &tensor.ty()).unwrap();
        backend.write(&name, &tensor.array(*factor)).unwrap();
    }
    for (i, output) in outputs.iter().enumerate() {
        if let Output::Result(value) = output {
            let ty = writer.graph.ty(*value).clone();
            let target = writer.graph.state(format!("out{i}"), ty.clone());
            backend.create(&format!("out{i}"), &ty).unwrap();
            writer.graph.store(*value, target).unwrap();
        }
    }
    let program = backend.compile(writer.graph).unwrap();
    backend.run(program, &[writer.step]).unwrap();
    let read = |(i, output): (usize, &Output)| match output {
        Output::Result(_) => backend.read(&format!("out{i}")).unwrap(),
        Output::Updated(input, factor) => {
            let array = backend.read(&format!("in{input}")).unwrap();
            let scaled = array.f().iter().map(|x| x * factor).collect();
            Array::float(array.ty().clone(), scaled)
        }
    };
    outputs.iter().enumerate().map(read).collect()
}

/// Compares as ONNX's own runner does (`onnx.backend.test.runner`): shapes equal, floats
/// within 1e-3 of themselves and 1e-7, integers equal.
fn check(case: &Case, device: &str, found: &[Array]) {
    for (i, (found, expected)) in found.iter().zip(&case.outputs).enumerate() {
        let place = format!("{} on {device}, output {i}", case.name);
        assert_eq!(found.dims(), expected.dims, "{place}");
        match (&expected.data, found.ty().dtype) {
            (Data::Float(expected), DType::F32) => {
                for (e, f) in expected.iter().zip(found.f()) {
                    let allowed = 1e-7 + 1e-3 * e.abs();
                    assert!((f - e).abs() <= allowed, "{place}: {f:e}, expected {e:e}");
                }
            }
            (Data::Int(expected), DType::U32) => {
                let found: Vec<i64> = found.u().iter().map(|x| i64::from(*x)).collect();
                assert_eq!(&found, expected, "{place}");
            }
            (_, found) => panic!("{place}: found {found}"),
        }
    }
}

#[test]
fn every_test_of_a_built_operator_passes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx_node");
    let gpu = support::open(ProfileKind::CpuLike, false);
    let (mut passed, mut left_out) = (0, Vec::new());
    for folder in std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path()) {
        if !folder.is_dir() {
            continue;
        }
        let test = folder.file_name().unwrap().to_string_lossy().into_owned();
        if let Some(reason) = reason_not_built(&test) {
            left_out.push(format!("{test}: {reason}"));
            continue;
        }
        let case = Case::read(&folder);
        let known = OPERATORS.iter().find(|(name, _)| *name == case.operator);
        let (_, write) = known.unwrap_or_else(|| {
            panic!("{test}: {} is in neither table", case.operator);
        });
        check(&case, "CPU", &run(&case, *write, &mut CpuBackend::new()));
        let mut backend = GpuBackend::new(gpu.clone()).unwrap();
        check(&case, "GPU", &run(&case, *write, &mut backend));
        passed += 1;
    }
    left_out.sort();
    println!(
        "{passed} ONNX node tests pass; {} are not built:",
        left_out.len()
    );
    left_out.iter().for_each(|line| println!("  {line}"));
    assert!(passed > 0, "no test was found");
}

#[test]
fn the_tables_list_nothing_that_is_not_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx_node");
    let entries = std::fs::read_dir(root).unwrap();
    let names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    for (_, reason) in NOT_BUILT {
        let used = names.iter().any(|n| reason_not_built(n) == Some(reason));
        assert!(used, "no test is left out for: {reason}");
    }
}
