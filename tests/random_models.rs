//! Any model that `summary` accepts trains: random models take three steps and an evaluation
//! with both families of kernels, without an error, and with the losses of the reference.
//!
//! `GPUCNN_TEST_MODELS` asks for more of them, `GPUCNN_TEST_SEED` for others; a failure
//! names its seed and shows the model.

mod support;

use gpucnn::data::{Dataset, Split};
use gpucnn::gpu::Gpu;
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::{Backend, CpuBackend, GpuBackend};
use gpucnn::model::Model;
use gpucnn::ops::Draw;
use gpucnn::train::{Callbacks, Config, Event, Position, Session, initial_weights};
use std::rc::Rc;

fn number(variable: &str, default: u64) -> u64 {
    let asked = std::env::var(variable).ok();
    asked.map_or(default, |text| text.parse().unwrap())
}

/// A model under construction: its file's head and layers, as lines.
struct Sketch {
    head: String,
    layers: Vec<String>,
    names: Vec<String>,
}

impl Sketch {
    fn model(&self, further: &[String]) -> gpucnn::Result<Model> {
        let text = self.text(further);
        let model = Model::from_toml(&text, "random")?;
        model.summary().map(|_| model)
    }

    fn text(&self, further: &[String]) -> String {
        let layers = self.layers.iter().chain(further);
        let layers: String = layers.map(|line| format!("    {{ {line} }},\n")).collect();
        format!("{}layer = [\n{layers}]\n", self.head)
    }

    /// Adds the layer, if what comes of it is a model that is not too large to check.
    fn try_add(&mut self, layer: &str, tail: &[String]) {
        let name = format!("l{}", self.names.len());
        let line = format!("{layer}, name = \"{name}\"");
        let with: Vec<String> = [std::slice::from_ref(&line), tail].concat();
        let small = |model: Model| {
            let summary = model.summary().unwrap();
            model.parameter_count() < 60_000 && summary.flops < 400_000
        };
        if self.model(&with).is_ok_and(small) {
            self.layers.push(line);
            self.names.push(name);
        }
    }
}

fn pair(draw: &mut Draw, low: usize, high: usize) -> String {
    match draw.coin() {
        true => draw.int(low, high).to_string(),
        false => format!("[{}, {}]", draw.int(low, high), draw.int(low, high)),
    }
}

fn padding(draw: &mut Draw) -> String {
    let mut side = || draw.int(0, 3);
    let [a, b, c, d] = [side(), side(), side(), side()];
    let sides = format!("[{a}, {b}, {c}, {d}]");
    let choices = ["\"valid\"", "\"same\"", "1", "2", sides.as_str()];
    draw.pick(&choices).to_owned()
}

fn activation(draw: &mut Draw) -> &'static str {
    draw.pick(&[
        "linear",
        "relu",
        "leaky_relu",
        "leaky_relu(0.1)",
        "elu",
        "elu(0.5)",
        "gelu",
        "gelu_tanh",
        "silu",
        "sigmoid",
        "tanh",
    ])
}

/// A random layer, which need not fit.
fn layer(draw: &mut Draw, names: &[String]) -> String {
    let (act, bias) = (activation(draw), draw.coin());
    let pool = |draw: &mut Draw| {
        let stride = match draw.coin() {
            true => format!(", stride = {}", pair(draw, 1, 3)),
            false => String::new(),
        };
        let (size, pads) = (pair(draw, 1, 4), padding(draw));
        format!("size = {size}, padding = {pads}{stride}")
    };
    let two = |draw: &mut Draw| {
        let mut one = || match names.len() {
            0 => "input".to_owned(),
            n => draw.pick(&names[n.saturating_sub(4)..]).clone(),
        };
        format!("inputs = [\"{}\", \"{}\"]", one(), one())
    };
    let window = |draw: &mut Draw| {
        let dilation = if draw.int(0, 3) == 0 {
            pair(draw, 1, 3)
        } else {
            "1".into()
        };
        format!(
            "kernel = {}, stride = {}, padding = {}, dilation = {dilation}, bias = {bias}, \
             activation = \"{act}\"",
            pair(draw, 1, 5),
            if draw.coin() {
                "1".into()
            } else {
                pair(draw, 1, 3)
            },
            padding(draw),
        )
    };
    match draw.int(0, 15) {
        0..=4 => {
            let filters = draw.pick(&[1, 2, 3, 4, 5, 7, 8, 12, 16, 33]);
            let groups = draw.pick(&[1, 1, 1, 2, 3, 4]);
            let init = draw.pick(&["glorot_uniform", "glorot_uniform", "dirac", "zeros"]);
            let window = window(draw);
            format!(
                "type = \"conv2d\", filters = {filters}, groups = {groups}, init = \"{init}\", {window}"
            )
        }
        5 => format!("type = \"depthwise_conv2d\", {}", window(draw)),
        6 => format!("type = \"max_pool2d\", {}", pool(draw)),
        7 => format!("type = \"avg_pool2d\", {}", pool(draw)),
        8 => format!("type = \"activation\", function = \"{act}\""),
        9 => {
            let momentum = draw.pick(&["0.99", "0.5", "0.0"]);
            format!("type = \"batch_norm2d\", momentum = {momentum}")
        }
        10 => "type = \"dropout\", rate = 0.3".into(),
        11 => format!("type = \"zero_pad2d\", padding = {}", draw.int(1, 3)),
        12 => format!("type = \"add\", {}, activation = \"{act}\"", two(draw)),
        13 => format!("type = \"mul\", {}", two(draw)),
        14 => format!("type = \"concat\", {}", two(draw)),
        _ => match draw.int(0, 3) {
            0 => "type = \"global_avg_pool\"".into(),
            1 => "type = \"flatten\"".into(),
            2 => {
                let units = draw.int(1, 40);
                format!("type = \"dense\", units = {units}, bias = {bias}, activation = \"{act}\"")
            }
            _ => {
                let [a, b] = [draw.int(1, 6), draw.int(1, 6)];
                format!("type = \"reshape\", shape = [{a}, {b}, {b}]")
            }
        },
    }
}

/// A random model file.
fn sketch(draw: &mut Draw) -> (String, Model) {
    let [c, h, w] = [draw.pick(&[1, 2, 3, 4]), draw.int(1, 18), draw.int(1, 18)];
    let mut sketch = Sketch {
        head: format!("name = \"random\"\ninput = [{c}, {h}, {w}]\n"),
        layers: vec![],
        names: vec![],
    };
    let classes = draw.int(1, 12);
    // Whatever the layers give, this makes logits of it.
    let dense = format!(
        "type = \"dense\", units = {classes}, bias = {}, init = \"{}\"",
        draw.coin(),
        draw.pick(&["glorot_uniform", "zeros"])
    );
    let ends = [
        vec!["type = \"flatten\"".to_owned(), dense.clone()],
        vec![dense],
    ];
    if draw.int(0, 3) == 0 {
        let (kernel, bias) = (draw.int(1, 3), draw.coin());
        let filters = 2 * c * kernel * kernel;
        let whiten = format!(
            "type = \"conv2d\", filters = {filters}, kernel = {kernel}, padding = {}, bias = {bias}, \
             init = \"whiten\"",
            padding(draw)
        );
        let end = draw.pick(&ends);
        sketch.try_add(&whiten, &end);
    }
    for _ in 0..draw.int(1, 14) {
        let end = draw.pick(&ends);
        let line = layer(draw, &sketch.names);
        sketch.try_add(&line, &end);
    }
    let whole = |end: &Vec<String>| Some((sketch.text(end), sketch.model(end).ok()?));
    ends.iter().find_map(whole).expect("one of the ends fits")
}

fn data(draw: &mut Draw, model: &Model, images: usize) -> Dataset {
    let shape = model.input();
    let mut split = |len: usize| {
        Split::new(
            (0..len * shape.iter().product::<usize>())
                .map(|_| draw.int(0, 255) as u8)
                .collect(),
            (0..len)
                .map(|_| draw.int(0, model.classes() - 1) as u32)
                .collect(),
        )
    };
    Dataset {
        name: "random".into(),
        shape,
        classes: (0..model.classes()).map(|c| c.to_string()).collect(),
        train: split(images),
        test: Some(split(3)),
        notes: vec![],
    }
}

/// The losses of the steps and of the evaluation.
fn losses(
    model: &Model,
    data: &Dataset,
    config: &Config,
    device: Box<dyn Backend>,
) -> gpucnn::Result<Vec<f64>> {
    let weights = initial_weights(model, data, config)?;
    let mut session = Session::new(model, data, config, &weights, device)?;
    let mut losses = Vec::new();
    let mut keep = |event| {
        if let Event::Step { loss, .. } = event {
            losses.push(loss);
        }
    };
    let mut position = Position::before_epoch(1, 0);
    session.train(&mut position, None, &mut Callbacks::new(&mut keep))?;
    let mut ignore = |_| {};
    let evaluated = session.evaluate(&Callbacks::new(&mut ignore))?;
    losses.push(evaluated.expect("there are test images").loss());
    Ok(losses)
}

/// The reference computes in float64, the kernels in float32: a few dozen layers deep, a loss
/// of about 1 is off by some hundred roundings. Batches of few images in a batch norm take
/// them up to 30 times, 1 / sqrt(epsilon), each; three steps build on each other. What this
/// finds is a wrong kernel, far beyond that.
const BOUND: f64 = 2e-3;

fn check(seed: u64, gpus: &[Rc<Gpu>]) {
    let mut draw = Draw::new(seed);
    let (text, model) = sketch(&mut draw);
    let batch = draw.pick(&[1, 2, 3, 4, 8, 9]);
    // Two whole batches, and one of what is left.
    let images = 2 * batch + draw.int(1, batch);
    let config = Config {
        batch_size: batch,
        optimizer: "sgd".into(),
        learning_rate: 1e-4,
        seed: seed as u32,
        log_every: 1,
        ..Config::default()
    };
    let data = data(&mut draw, &model, images);
    let run = |name: &str, device: Box<dyn Backend>| {
        losses(&model, &data, &config, device)
            .unwrap_or_else(|error| panic!("seed {seed}, {name}, batch {batch}: {error}\n{text}"))
    };
    let expected = run("reference", Box::new(CpuBackend::new()));
    assert_eq!(expected.len(), 4);
    for gpu in gpus {
        let name = gpu.profile.kind.to_string();
        let found = run(&name, Box::new(GpuBackend::new(gpu.clone()).unwrap()));
        for (i, (e, f)) in expected.iter().zip(&found).enumerate() {
            let close = (e - f).abs() <= BOUND * (1.0 + e.abs());
            assert!(
                close && found.len() == 4,
                "seed {seed}, {name}, batch {batch}, step {i}: reference {expected:?}, found \
                 {found:?}\n{text}"
            );
        }
    }
}

#[test]
fn models_that_summary_accepts_train_on_every_profile() {
    let gpus = [ProfileKind::CpuLike, ProfileKind::Gpu].map(|kind| support::open(kind, false));
    let first = number("GPUCNN_TEST_SEED", 1);
    let count = number("GPUCNN_TEST_MODELS", 8);
    for seed in first..first + count {
        check(seed, &gpus);
    }
    eprintln!("{count} random models from seed {first} on");
}
