//! Explanations against their definitions, on a small net run by the reference path.

mod files;
mod support;

use files::{Files, gpucnn, json_lines};
use gpucnn::explain::{Detail, Explainer, Explanation, Method};
use gpucnn::formats::safetensors::Tensors;
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::{Backend, CpuBackend, GpuBackend};
use gpucnn::infer::Predictor;
use gpucnn::model::Model;
use gpucnn::ops::Draw;

const SIDE: usize = 8;

/// A convolution, a smooth function, and a dense layer whose weights are the gradient of each
/// logit by the layer before.
const MODEL: &str = r#"
name = "small"
input = [2, 8, 8]
normalization = { scale = 0.01, mean = [0.5, 1.0], std = [1.0, 2.0] }
layer = [
    { type = "conv2d", filters = 3, kernel = 3, padding = "same", activation = "tanh", name = "c" },
    { type = "flatten" },
    { type = "dense", units = 4, name = "d" },
]
"#;

struct Case {
    model: Model,
    weights: Tensors,
    image: Vec<u8>,
}

impl Case {
    fn new() -> Self {
        let model = Model::from_toml(MODEL, "small").unwrap();
        let weights = model.initial_weights(3);
        let mut draw = Draw::new(5);
        let image = (0..2 * SIDE * SIDE)
            .map(|_| draw.int(0, 255) as u8)
            .collect();
        Self {
            model,
            weights,
            image,
        }
    }

    fn explain(&self, method: Method, backend: Box<dyn Backend>) -> Explanation {
        let mut explainer = Explainer::new(&self.model, &self.weights, None, backend).unwrap();
        let detail = Detail {
            steps: 200,
            samples: 20,
            ..Detail::default()
        };
        explainer
            .explain(method, &self.image, Some(1), detail)
            .unwrap()
    }

    fn by_reference(&self, method: Method) -> Explanation {
        self.explain(method, Box::new(CpuBackend::new()))
    }

    /// Logit 1 of images of bytes.
    fn logits(&self, images: &[Vec<u8>]) -> Vec<f64> {
        let backend = Box::new(CpuBackend::new());
        let mut predictor = Predictor::new(&self.model, &self.weights, 1, backend).unwrap();
        let rows = predictor.logits(&images.concat()).unwrap();
        rows.iter().map(|row| f64::from(row[1])).collect()
    }

    /// `tanh(conv(x) + b)` in plain loops, [3, 8, 8].
    fn activations(&self) -> Vec<f64> {
        let (weight, bias) = (&self.weights["c.weight"], &self.weights["c.bias"]);
        let pixel = |c: usize, y: usize, x: usize| {
            let byte = f64::from(self.image[(c * SIDE + y) * SIDE + x]);
            (byte * f64::from(0.01_f32) - [0.5, 1.0][c]) / [1.0, 2.0][c]
        };
        let mut out = Vec::new();
        for f in 0..3 {
            for place in 0..SIDE * SIDE {
                let mut sum = f64::from(bias.data()[f]);
                for tap in 0..18 {
                    let [c, dy, dx] = [tap / 9, tap / 3 % 3, tap % 3];
                    let (y, x) = (place / SIDE + dy, place % SIDE + dx);
                    if (1..=SIDE).contains(&y) && (1..=SIDE).contains(&x) {
                        sum += f64::from(weight.data()[f * 18 + tap]) * pixel(c, y - 1, x - 1);
                    }
                }
                out.push(sum.tanh());
            }
        }
        out
    }

    /// The gradient of logit 1 by those.
    fn row(&self) -> Vec<f64> {
        let row = &self.weights["d.weight"].data()[192..384];
        row.iter().map(|w| f64::from(*w)).collect()
    }
}

fn assert_near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let most = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    assert!(most > 0.0);
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance * most, "{i}: {f}, expected {e}");
    }
}

// Logits and weights are f32 on the way, of which 2^-24 is lost at each.
const ROUNDING: f64 = 1e-6;

#[test]
fn the_cams_are_their_formulas() {
    let case = Case::new();
    let (a, g) = (case.activations(), case.row());
    let plane = SIDE * SIDE;
    let map = |weight: &dyn Fn(usize) -> f64| -> Vec<f64> {
        let at = |i: usize| (0..3).map(|k| weight(k) * a[k * plane + i]).sum::<f64>();
        (0..plane).map(|i| at(i).max(0.0)).collect()
    };
    let mean = |k: usize| g[k * plane..][..plane].iter().sum::<f64>() / plane as f64;
    let found = case.by_reference(Method::GradCam);
    assert_eq!(found.layer.as_deref(), Some("c"));
    assert_near(&found.map, &map(&mean), ROUNDING);
    let plus = |k: usize| {
        let total: f64 = a[k * plane..][..plane].iter().sum();
        let terms = g[k * plane..][..plane].iter().map(|g| {
            let alpha = g.powi(2) / (2.0 * g.powi(2) + total * g.powi(3));
            alpha * g.max(0.0)
        });
        terms.sum::<f64>()
    };
    let found = case.by_reference(Method::GradCamPlusPlus);
    // A denominator near zero magnifies the rounding.
    assert_near(&found.map, &map(&plus), 1e3 * ROUNDING);
}

#[test]
fn saliency_is_the_largest_slope_over_the_channels() {
    let case = Case::new();
    let found = case.by_reference(Method::Saliency).map;
    // A byte up and a byte down, over the change of the normalised pixel. The third derivative
    // makes for a share of about (0.01)^2; the f32 of the logits for 6e-8 / 0.02.
    for place in [0, 9, 27, 36, 63] {
        let slope = |c: usize| {
            let moved = |by: i16| {
                let mut image = case.image.clone();
                let byte = &mut image[c * SIDE * SIDE + place];
                *byte = (i16::from(*byte) + by) as u8;
                image
            };
            let [up, down] = match case.image[c * SIDE * SIDE + place] {
                0 => [1, 0],
                255 => [0, -1],
                _ => [1, -1],
            };
            let logits = case.logits(&[moved(up), moved(down)]);
            let step = f64::from(up - down) * 0.01 / [1.0, 2.0][c];
            (logits[0] - logits[1]) / step
        };
        let expected = slope(0).abs().max(slope(1).abs());
        let difference = (found[place] - expected).abs();
        assert!(difference < 1e-3, "{place}: {}, {expected}", found[place]);
    }
}

#[test]
fn integrated_gradients_are_complete() {
    let case = Case::new();
    let found = case.by_reference(Method::IntegratedGradients);
    let [sum, difference] = found.completeness.unwrap();
    let logits = case.logits(&[case.image.clone(), vec![0; 2 * SIDE * SIDE]]);
    assert!((difference - (logits[0] - logits[1])).abs() < 1e-5);
    // The midpoint rule errs by at most max|f''| / (24 n^2); for n = 200 that is f'' * 1e-6,
    // and the second derivative of a sum of tanh along this way is some hundreds.
    assert!((sum - difference).abs() < 1e-3, "{sum}, {difference}");
    assert!((found.map.iter().sum::<f64>() - sum).abs() < 1e-9);
    assert!(difference.abs() > 0.01, "nothing to explain");
}

#[test]
fn without_noise_smoothgrad_is_saliency_and_with_it_repeats() {
    let case = Case::new();
    let backend = Box::new(CpuBackend::new());
    let mut explainer = Explainer::new(&case.model, &case.weights, None, backend).unwrap();
    let mut smooth = |noise, seed| {
        let detail = Detail {
            samples: 3,
            noise,
            seed,
            ..Detail::default()
        };
        let found = explainer.explain(Method::SmoothGrad, &case.image, Some(1), detail);
        found.unwrap().map
    };
    let saliency = case.by_reference(Method::Saliency).map;
    assert_near(&smooth(0.0, 0), &saliency, 1e-12);
    assert_eq!(smooth(0.2, 1), smooth(0.2, 1));
    assert_ne!(smooth(0.2, 1), smooth(0.2, 2));
}

#[test]
fn occlusion_is_what_hiding_does() {
    let case = Case::new();
    let found = case.by_reference(Method::Occlusion).map;
    // Patches of 2, one apart: the corner is under one, the pixel beside it under two.
    let hidden = |top: usize, left: usize| {
        let mut image = case.image.clone();
        for (i, byte) in image.iter_mut().enumerate() {
            let (y, x) = (i / SIDE % SIDE, i % SIDE);
            if (top..top + 2).contains(&y) && (left..left + 2).contains(&x) {
                *byte = 0;
            }
        }
        image
    };
    let logits = case.logits(&[case.image.clone(), hidden(0, 0), hidden(0, 1)]);
    let drops = [logits[0] - logits[1], logits[0] - logits[2]];
    assert!((found[0] - drops[0]).abs() < 1e-5);
    assert!((found[1] - f64::midpoint(drops[0], drops[1])).abs() < 1e-5);
}

#[test]
fn the_kernels_say_what_the_reference_says() {
    let case = Case::new();
    for (name, method) in Method::NAMES {
        let gpu = support::open(ProfileKind::CpuLike, true);
        let found = case.explain(method, Box::new(GpuBackend::new(gpu).unwrap()));
        let expected = case.by_reference(method);
        eprintln!("{name}");
        // f32 sums of at most 192 terms; Grad-CAM++ divides by what may be near zero.
        assert_near(&found.map, &expected.map, 1e-3);
    }
}

#[test]
fn the_program_writes_a_picture_and_the_numbers() {
    let files = Files::new();
    let (model, data) = (files.model(), files.idx("data", 40, 20));
    let train = [
        "train", &model, "--data", &data, "--device", "cpu", "--out", "run",
    ];
    gpucnn(&files, &train).assert().success();
    let image = files.png("seven.png", 7);
    for (name, _) in Method::NAMES {
        let args = [
            "explain", "run", &image, "--method", name, "--json", "--device", "cpu",
        ];
        let output = gpucnn(&files, &args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let line = &json_lines(&output.stdout)[0];
        assert_eq!(line["method"], name);
        assert_eq!(line["map"].as_array().unwrap().len(), 8);
        let picture = image::open(files.path(&format!("seven-{name}.png"))).unwrap();
        assert_eq!((picture.width(), picture.height()), (448, 448));
    }
    for (flag, wanted) in [
        ("--method=x", "expected one of grad-cam"),
        ("--class=x", "is no class of the run"),
        ("--layer=x", "there are conv1, pool1"),
        ("--patch=9", "larger than the image"),
    ] {
        let args = ["explain", "run", &image, flag, "--device", "cpu"];
        let output = gpucnn(&files, &args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flag}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(wanted), "{flag}: {said}");
    }
}
