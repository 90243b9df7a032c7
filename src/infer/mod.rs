//! Inference: a trained model over images.

use crate::data::Split;
use crate::error::{Error, Result};
use crate::graph::{Arena, Backend, Graph, Program, advise_batch};
use crate::model::{Mode, Model};
use crate::ops::batch::GatherImages;
use crate::ops::{Array, Builder, Step};
use crate::tensor::TensorType;
use crate::train::{Weights, arenas, upload_weights, weight_values};

const IMAGES: &str = "images";
const ORDER: &str = "order";
const LOGITS: &str = "logits";

/// A model ready to predict batches of at most a fixed size.
pub struct Predictor {
    backend: Box<dyn Backend>,
    program: Program,
    batch: usize,
    input: [usize; 3],
    classes: usize,
}

impl Predictor {
    /// Uploads weights and compiles the model for `batch` images at a time.
    ///
    /// # Errors
    /// If the device is too small or fails.
    pub fn new(
        model: &Model,
        weights: &Weights,
        batch: usize,
        mut backend: Box<dyn Backend>,
    ) -> Result<Self> {
        let [c, h, w] = model.input();
        let [parameters, statistics] = arenas(model);
        upload_weights(&mut *backend, &parameters, &statistics, weights)?;
        let order_ty = TensorType::u32([batch]);
        backend.create(IMAGES, &TensorType::u8([batch, c, h, w]))?;
        backend.create(ORDER, &order_ty)?;
        backend.create(LOGITS, &TensorType::f32([batch, model.classes()]))?;
        let order = Array::index(order_ty, (0..batch as u32).collect());
        backend.write(ORDER, &order)?;
        let graph = |batch| inference_graph(model, [&parameters, &statistics], batch);
        let program = backend
            .compile(graph(batch)?)
            .map_err(|error| advise_batch(error, batch, &*backend, graph))?;
        Ok(Self {
            backend,
            program,
            batch,
            input: model.input(),
            classes: model.classes(),
        })
    }

    /// The device in one line.
    pub fn device(&self) -> String {
        self.backend.describe()
    }

    /// The logits of images given as bytes [N, C, H, W], image after image.
    ///
    /// # Errors
    /// If the bytes are no whole images or the device fails.
    pub fn logits(&mut self, images: &[u8]) -> Result<Vec<Vec<f32>>> {
        let [c, h, w] = self.input;
        let image = c * h * w;
        if !images.len().is_multiple_of(image) {
            return Err(Error::shape(
                "images",
                format!(
                    "{} bytes are no whole number of images of {c} x {h} x {w}",
                    images.len()
                ),
            ));
        }
        let mut logits = Vec::with_capacity(images.len() / image);
        for chunk in images.chunks(image * self.batch) {
            let mut bytes = chunk.to_vec();
            bytes.resize(image * self.batch, 0);
            let ty = TensorType::u8([self.batch, c, h, w]);
            self.backend
                .write(IMAGES, &Array::bytes(ty, bytes.into()))?;
            self.backend.run(self.program, &[Step::default()])?;
            let rows = self.backend.read(LOGITS)?;
            let rows = rows
                .f()
                .chunks_exact(self.classes)
                .take(chunk.len() / image);
            logits.extend(rows.map(|row| row.iter().map(|x| *x as f32).collect()));
        }
        Ok(logits)
    }

    /// Evaluates labelled images.
    ///
    /// # Errors
    /// If the device fails. `progress` is called with images done.
    pub fn evaluate(&mut self, split: &Split, progress: &dyn Fn(usize)) -> Result<Evaluation> {
        let image: usize = self.input.iter().product();
        let mut evaluation = Evaluation::new(self.classes);
        let chunks = split.images.chunks(image * self.batch);
        for (bytes, labels) in chunks.zip(split.labels.chunks(self.batch)) {
            for (logits, label) in self.logits(bytes)?.iter().zip(labels) {
                evaluation.add(logits, *label as usize);
            }
            progress(evaluation.samples());
        }
        Ok(evaluation)
    }
}

/// Bytes to logits, `batch` images at a time.
fn inference_graph(model: &Model, arenas: [&Arena; 2], batch: usize) -> Result<Graph> {
    let [c, h, w] = model.input();
    let mut graph = Graph::new();
    graph.set_layer("input");
    let order = graph.state(ORDER, TensorType::u32([batch]));
    let images = graph.state(IMAGES, TensorType::u8([batch, c, h, w]));
    let gather = GatherImages {
        batch,
        normalization: model.normalization().clone(),
    };
    let images = graph.add1(Box::new(gather), &[order, images])?;
    let (values, _) = weight_values(&mut graph, arenas[0], arenas[1])?;
    let logits = model.lower(&mut graph, &values, images, Mode::Inference)?;
    let target = graph.state(LOGITS, TensorType::f32([batch, model.classes()]));
    graph.store(logits, target)?;
    Ok(graph.optimized())
}

/// Softmax of a row of logits.
pub fn probabilities(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits
        .iter()
        .map(|x| f64::from(x - largest).exp())
        .collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

/// The index of the largest logit; of equal ones the first.
pub fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in logits.iter().enumerate() {
        if *x > logits[best] {
            best = i;
        }
    }
    best
}

/// How a model does on labelled images.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Images by true class, then by predicted class.
    pub confusion: Vec<Vec<usize>>,
    loss_sum: f64,
}

impl Evaluation {
    fn new(classes: usize) -> Self {
        Self {
            confusion: vec![vec![0; classes]; classes],
            loss_sum: 0.0,
        }
    }

    fn add(&mut self, logits: &[f32], label: usize) {
        self.confusion[label][argmax(logits)] += 1;
        self.loss_sum -= probabilities(logits)[label].max(f64::MIN_POSITIVE).ln();
    }

    /// Images seen.
    pub fn samples(&self) -> usize {
        self.confusion.iter().flatten().sum()
    }

    /// Mean softmax cross-entropy.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.samples() as f64
    }

    /// Fraction of images whose class was predicted.
    pub fn accuracy(&self) -> f64 {
        let correct: usize = (0..self.confusion.len())
            .map(|c| self.confusion[c][c])
            .sum();
        correct as f64 / self.samples() as f64
    }

    /// Precision, recall and F1 of a class; NaN where they are not defined.
    pub fn class(&self, class: usize) -> [f64; 3] {
        let hits = self.confusion[class][class] as f64;
        let predicted: usize = self.confusion.iter().map(|row| row[class]).sum();
        let actual: usize = self.confusion[class].iter().sum();
        let precision = hits / predicted as f64;
        let recall = hits / actual as f64;
        [precision, recall, 2.0 * hits / (predicted + actual) as f64]
    }
}
