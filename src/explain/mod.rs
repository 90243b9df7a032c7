//! Why a model says what it says: which pixels a logit depends on.
//!
//! | method | map | paper |
//! |---|---|---|
//! | grad-cam | `relu(sum_k a_k A_k)`, `a_k` the mean of `dy/dA_k` | Selvaraju et al. 2017 |
//! | grad-cam++ | the same, `a_k` a weighted sum of `relu(dy/dA_k)` | Chattopadhay et al. 2018 |
//! | saliency | `max_c abs(dy/dx_c)` | Simonyan et al. 2014 |
//! | integrated-gradients | `(x - b)` times the mean of `dy/dx` from `b` to `x` | Sundararajan et al. 2017 |
//! | smoothgrad | saliency of the mean gradient over noisy copies of `x` | Smilkov et al. 2017 |
//! | occlusion | how far `y` falls where a patch of `b` hides the image | Zeiler and Fergus 2014 |
//!
//! `y` is the logit of a class, `x` the normalised image, `A_k` a channel of a layer's output,
//! `b` the black image. Gradients are the graph's own, by the kernels that train.

mod device;
mod maps;
mod overlay;

pub use overlay::overlay;

use crate::error::{Error, Result};
use crate::graph::Backend;
use crate::infer::argmax;
use crate::model::Model;
use crate::train::Weights;
use device::{Answer, Device};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How to explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Gradient-weighted class activation.
    GradCam,
    /// Grad-CAM whose channel weights look at each place.
    GradCamPlusPlus,
    /// The magnitude of the gradient.
    Saliency,
    /// The gradient along the way from black.
    IntegratedGradients,
    /// The gradient's mean under noise.
    SmoothGrad,
    /// What hiding a part does.
    Occlusion,
}

impl Method {
    /// All by name.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("grad-cam", Self::GradCam),
        ("grad-cam++", Self::GradCamPlusPlus),
        ("saliency", Self::Saliency),
        ("integrated-gradients", Self::IntegratedGradients),
        ("smoothgrad", Self::SmoothGrad),
        ("occlusion", Self::Occlusion),
    ];

    /// The method of a name.
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the known ones.
    pub fn by_name(name: &str) -> Result<Self> {
        let known = Self::NAMES.iter().find(|(n, _)| *n == name);
        known.map(|(_, method)| *method).ok_or_else(|| {
            let names = Self::NAMES.map(|(n, _)| n).join(", ");
            Error::Usage(format!("unknown method {name:?}; expected one of {names}"))
        })
    }

    /// Whether negative values of its map speak against the class.
    pub fn is_signed(self) -> bool {
        matches!(self, Self::IntegratedGradients | Self::Occlusion)
    }
}

/// How finely a method works.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detail {
    /// Points of integrated gradients between black and the image: 64.
    pub steps: usize,
    /// Noisy copies of smoothgrad: 50.
    pub samples: usize,
    /// The noise's deviation as a share of the image's range of values: 0.15.
    pub noise: f64,
    /// Seed of the noise: 0.
    pub seed: u32,
    /// Rows and columns of the patch that hides: an eighth of the image's shorter side, at
    /// least 2; it moves by half of itself.
    pub patch: Option<usize>,
}

impl Default for Detail {
    fn default() -> Self {
        Self {
            steps: 64,
            samples: 50,
            noise: 0.15,
            seed: 0,
            patch: None,
        }
    }
}

/// Which pixels a logit depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The class explained.
    pub class: usize,
    /// Logits of the image.
    pub logits: Vec<f32>,
    /// Rows and columns of the map: the image's.
    pub size: [usize; 2],
    /// The map, row by row.
    pub map: Vec<f64>,
    /// The layer whose activations were looked at, for the CAM methods.
    pub layer: Option<String>,
    /// Of integrated gradients: the sum of the attributions, and what it approaches with more
    /// steps, the logit less that of the black image (completeness).
    pub completeness: Option<[f64; 2]>,
}

/// A model ready to be explained.
pub struct Explainer {
    device: Device,
    layer: String,
    shape: [usize; 3],
    /// The normalised black image.
    black: Vec<f64>,
    /// Factor and summand of each channel from bytes.
    affine: Vec<(f64, f64)>,
}

/// Most images a step.
const BATCH: usize = 16;

impl Explainer {
    /// Compiles the model and its gradients. `layer` is the one that the CAM methods look at;
    /// without one it is the last that gives an image of more than one pixel and is no pool,
    /// dropout or padding.
    ///
    /// # Errors
    /// If there is no such layer, or the device is too small or fails.
    pub fn new(
        model: &Model,
        weights: &Weights,
        layer: Option<&str>,
        backend: Box<dyn Backend>,
    ) -> Result<Self> {
        let layer = match layer {
            Some(name) => name.to_owned(),
            None => last_spatial(model)?,
        };
        let shape = model.input();
        let affine = (0..shape[0]).map(|c| {
            let (factor, summand) = model.normalization().affine(c);
            (f64::from(factor), f64::from(summand))
        });
        let affine: Vec<_> = affine.collect();
        let plane = shape[1] * shape[2];
        let black = affine.iter().flat_map(|a| vec![a.1; plane]).collect();
        Ok(Self {
            device: Device::new(model, weights, &layer, BATCH, backend)?,
            layer,
            shape,
            black,
            affine,
        })
    }

    /// The device in one line.
    pub fn describe(&self) -> String {
        self.device.describe()
    }

    /// Explains an image of bytes [C, H, W]: the logit of `class`, or of the likeliest.
    ///
    /// # Errors
    /// If the image or the class does not fit the model, a detail is out of range, or the
    /// device fails.
    pub fn explain(
        &mut self,
        method: Method,
        image: &[u8],
        class: Option<usize>,
        detail: Detail,
    ) -> Result<Explanation> {
        detail.check(self.shape)?;
        let x = self.normalised(image)?;
        let logits = self
            .device
            .run(std::slice::from_ref(&x), 0)?
            .remove(0)
            .logits;
        let narrow: Vec<f32> = logits.iter().map(|l| *l as f32).collect();
        let class = class.unwrap_or_else(|| argmax(&narrow));
        if class >= logits.len() {
            return Err(Error::Usage(format!(
                "--class {class} is none of the model's {} (0 to {})",
                logits.len(),
                logits.len() - 1
            )));
        }
        let [_, rows, columns] = self.shape;
        let mut completeness = None;
        let map = match method {
            Method::GradCam | Method::GradCamPlusPlus => self.cam(method, &x, class)?,
            Method::Saliency => {
                let answer = self.device.run(&[x], class)?.remove(0);
                maps::magnitude(&answer.input_gradient, self.shape[0])
            }
            Method::SmoothGrad => self.smoothgrad(&x, class, detail)?,
            Method::IntegratedGradients => {
                let all = self.integrated(&x, class, detail.steps)?;
                let black = self
                    .device
                    .run(std::slice::from_ref(&self.black), class)?
                    .remove(0);
                completeness = Some([all.iter().sum(), logits[class] - black.logits[class]]);
                maps::over_channels(&all, self.shape[0])
            }
            Method::Occlusion => self.occlusion(&x, class, logits[class], detail)?,
        };
        let looks_at_a_layer = matches!(method, Method::GradCam | Method::GradCamPlusPlus);
        Ok(Explanation {
            class,
            logits: narrow,
            size: [rows, columns],
            map,
            layer: looks_at_a_layer.then(|| self.layer.clone()),
            completeness,
        })
    }

    fn normalised(&self, image: &[u8]) -> Result<Vec<f64>> {
        let [channels, rows, columns] = self.shape;
        if image.len() != channels * rows * columns {
            let problem = format!(
                "expected {channels} x {rows} x {columns} bytes, found {}",
                image.len()
            );
            return Err(Error::shape("image", problem));
        }
        let bytes = image.iter().enumerate();
        Ok(bytes
            .map(|(i, byte)| {
                let (factor, summand) = self.affine[i / (rows * columns)];
                f64::from(*byte) * factor + summand
            })
            .collect())
    }

    fn cam(&mut self, method: Method, x: &[f64], class: usize) -> Result<Vec<f64>> {
        let answer = self.device.run(&[x.to_vec()], class)?.remove(0);
        let [channels, rows, columns] = self.device.layer_shape();
        let small = match method {
            Method::GradCam => maps::grad_cam(&answer.activation, &answer.gradient, channels),
            _ => maps::grad_cam_plus_plus(&answer.activation, &answer.gradient, channels),
        };
        let [_, height, width] = self.shape;
        Ok(maps::resized(&small, [rows, columns], [height, width]))
    }

    /// The mean of the gradients at each of `inputs`.
    fn mean_gradient(
        &mut self,
        count: usize,
        class: usize,
        mut input: impl FnMut(usize) -> Vec<f64>,
    ) -> Result<Vec<f64>> {
        let mut mean = vec![0.0; self.black.len()];
        let batch = self.device.batch();
        for first in (0..count).step_by(batch) {
            let inputs: Vec<_> = (first..count.min(first + batch)).map(&mut input).collect();
            for Answer { input_gradient, .. } in self.device.run(&inputs, class)? {
                for (sum, g) in mean.iter_mut().zip(input_gradient) {
                    *sum += g / count as f64;
                }
            }
        }
        Ok(mean)
    }

    /// The attribution of each element, by the midpoint rule.
    fn integrated(&mut self, x: &[f64], class: usize, steps: usize) -> Result<Vec<f64>> {
        let black = self.black.clone();
        let mean = self.mean_gradient(steps, class, |i| {
            let along = (i as f64 + 0.5) / steps as f64;
            let point = x.iter().zip(&black);
            point.map(|(x, b)| b + along * (x - b)).collect()
        })?;
        let differences = x.iter().zip(&black).map(|(x, b)| x - b);
        Ok(mean.iter().zip(differences).map(|(g, d)| g * d).collect())
    }

    fn smoothgrad(&mut self, x: &[f64], class: usize, detail: Detail) -> Result<Vec<f64>> {
        let high = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let low = x.iter().copied().fold(f64::INFINITY, f64::min);
        let deviation = detail.noise * (high - low);
        let mut draw = ChaCha8Rng::seed_from_u64(u64::from(detail.seed));
        let mean = self.mean_gradient(detail.samples, class, |_| {
            x.iter()
                .map(|x| x + deviation * normal(&mut draw))
                .collect()
        })?;
        Ok(maps::magnitude(&mean, self.shape[0]))
    }

    fn occlusion(
        &mut self,
        x: &[f64],
        class: usize,
        logit: f64,
        detail: Detail,
    ) -> Result<Vec<f64>> {
        let [_, rows, columns] = self.shape;
        let patch = detail.patch(self.shape);
        let places = maps::patches([rows, columns], patch);
        let mut drops = Vec::with_capacity(places.len());
        for chunk in places.chunks(self.device.batch()) {
            let hidden = |place: &[usize; 2]| {
                let mut hidden = x.to_vec();
                for (i, value) in hidden.iter_mut().enumerate() {
                    let [row, column] = [i / columns % rows, i % columns];
                    if maps::covers(*place, patch, [row, column]) {
                        *value = self.black[i];
                    }
                }
                hidden
            };
            let inputs: Vec<_> = chunk.iter().map(hidden).collect();
            let answers = self.device.run(&inputs, class)?;
            drops.extend(answers.iter().map(|a| logit - a.logits[class]));
        }
        Ok(maps::spread(&places, &drops, patch, [rows, columns]))
    }
}

impl Detail {
    fn patch(&self, [_, rows, columns]: [usize; 3]) -> usize {
        self.patch.unwrap_or((rows.min(columns) / 8).max(2))
    }

    fn check(&self, shape: [usize; 3]) -> Result<()> {
        let counts = [
            ("--steps", self.steps),
            ("--samples", self.samples),
            ("--patch", self.patch(shape)),
        ];
        for (flag, value) in counts {
            if value == 0 {
                return Err(Error::Usage(format!("{flag} must be at least 1, found 0")));
            }
        }
        if self.patch(shape) > shape[1].min(shape[2]) {
            return Err(Error::Usage(format!(
                "--patch {} is larger than the image of {} x {}",
                self.patch(shape),
                shape[1],
                shape[2]
            )));
        }
        if !(self.noise.is_finite() && self.noise >= 0.0) {
            let problem = format!("--noise must be zero or positive, found {}", self.noise);
            return Err(Error::Usage(problem));
        }
        Ok(())
    }
}

/// A standard normal number (Box and Muller 1958).
fn normal(draw: &mut impl Rng) -> f64 {
    let [u, v]: [f64; 2] = [draw.random(), draw.random()];
    // In (0, 1], whose logarithm is finite.
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// The last layer whose channels are images and that computes features.
fn last_spatial(model: &Model) -> Result<String> {
    const PASSED_OVER: [&str; 5] = [
        "max_pool2d",
        "avg_pool2d",
        "dropout",
        "zero_pad2d",
        "reshape",
    ];
    let summary = model.summary()?;
    let spatial = |layer: &&crate::model::LayerSummary| {
        matches!(layer.output.as_slice(), [_, h, w] if h * w > 1)
            && !PASSED_OVER.contains(&layer.type_name)
    };
    let found = summary.layers.iter().rfind(spatial);
    found.map(|layer| layer.name.clone()).ok_or_else(|| {
        let problem = "has no layer whose output is an image; explain it by saliency, \
                       integrated-gradients, smoothgrad or occlusion, with --layer any layer";
        Error::model(model.name(), problem)
    })
}
