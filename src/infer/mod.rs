//! Inference: a trained model over images, and ONNX files over any tensors.

mod onnx;

pub use onnx::run_onnx;

mod batches;
mod int8;
pub(crate) mod page;
pub mod web;

pub use batches::Batches;
pub use int8::Int8;
pub(crate) use int8::{Taps, tapped};

use crate::data::Split;
use crate::error::{Error, Result};
use crate::graph::{Arena, Backend, Graph, Program};
use crate::model::{Mode, Model};
use crate::ops::batch::GatherImages;
use crate::ops::{Array, Builder, Step, Value};
use crate::tensor::TensorType;
use crate::train::{
    Estimate, Examined, PARAMETERS, STATISTICS, Use, Weights, arenas, upload_weights, weight_values,
};

const IMAGES: &str = "images";
const ORDER: &str = "order";
const LOGITS: &str = "logits";

/// A model ready to predict batches of at most a fixed size.
pub struct Predictor {
    backend: Box<dyn Backend>,
    /// By the images they take, rising.
    programs: Vec<(usize, Program)>,
    batch: usize,
    input: [usize; 3],
    classes: usize,
    mirrored: bool,
}

impl Predictor {
    /// Uploads weights and compiles the model for `batch` images at a time.
    ///
    /// # Errors
    /// As [`with_batches`](Self::with_batches).
    pub fn new(
        model: &Model,
        weights: &Weights,
        batch: usize,
        backend: Box<dyn Backend>,
    ) -> Result<Self> {
        Self::with_batches(model, weights, None, Batches::of(batch), backend)
    }

    /// As [`new`](Self::new), for as many images at a time as `batches` says. The layers of
    /// `int8` run in eight bits.
    ///
    /// # Errors
    /// If the images do not fit, told before anything is allocated, or the device fails.
    pub fn with_batches(
        model: &Model,
        weights: &Weights,
        int8: Option<&Int8>,
        batches: Batches,
        mut backend: Box<dyn Backend>,
    ) -> Result<Self> {
        let [parameters, statistics] = arenas(model);
        let graphs = |most| -> Result<Vec<(usize, Graph)>> {
            let arenas = [&parameters, &statistics];
            let sizes = batches.sizes(most).into_iter();
            sizes
                .map(|n| Ok((n, inference_graph(model, arenas, [n, most], int8)?)))
                .collect()
        };
        let logits_type = |images| TensorType::f32([images, model.classes()]);
        let batch = batches.fitting(model.name(), &*backend, |most, memory| {
            let graphs = graphs(most)?;
            let read = [(LOGITS.to_owned(), logits_type(most))];
            let graphs = graphs.iter().map(|(_, graph)| graph);
            Estimate::new(graphs, used_for, &read, &*backend, memory)
        })?;
        upload_weights(&mut *backend, &parameters, &statistics, weights)?;
        if let Some(int8) = int8 {
            int8::upload(&mut *backend, weights, int8)?;
        }
        create_images(&mut *backend, model, batch)?;
        backend.create(LOGITS, &logits_type(batch))?;
        let mut programs = Vec::new();
        for (images, graph) in graphs(batch)? {
            programs.push((images, backend.compile(graph)?));
        }
        Ok(Self {
            backend,
            programs,
            batch,
            input: model.input(),
            classes: model.classes(),
            mirrored: false,
        })
    }

    /// Whether logits are the means of those of an image and of its mirror image, left to
    /// right: test-time augmentation, for twice the work (Krizhevsky et al. 2012, section 4.1).
    /// It helps models trained with flips, and harms where left and right differ, as in digits.
    #[must_use]
    pub fn mirrored(mut self, mirrored: bool) -> Self {
        self.mirrored = mirrored;
        self
    }

    /// The device in one line.
    pub fn device(&self) -> String {
        self.backend.describe()
    }

    /// Most images that go through the device at a time.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Runs each program once, on black images: drivers compile a kernel when it first runs,
    /// which may take longer than a thousand runs.
    ///
    /// # Errors
    /// If the device fails.
    pub fn warm_up(&mut self) -> Result<()> {
        let image: usize = self.input.iter().product();
        let batches: Vec<usize> = self.programs.iter().map(|(images, _)| *images).collect();
        for images in batches {
            self.logits(&vec![0; images * image])?;
        }
        Ok(())
    }

    /// The logits of images given as bytes [N, C, H, W], image after image.
    ///
    /// # Errors
    /// If the bytes are no whole images or the device fails.
    pub fn logits(&mut self, images: &[u8]) -> Result<Vec<Vec<f32>>> {
        let mut logits = self.logits_of(images)?;
        if self.mirrored {
            let mut images = images.to_vec();
            let rows = images.chunks_exact_mut(self.input[2]);
            rows.for_each(<[u8]>::reverse);
            for (row, mirrored) in logits.iter_mut().zip(self.logits_of(&images)?) {
                let both = row.iter_mut().zip(mirrored);
                both.for_each(|(x, mirrored)| *x = 0.5 * (*x + mirrored));
            }
        }
        Ok(logits)
    }

    /// The logits of images as they are.
    fn logits_of(&mut self, images: &[u8]) -> Result<Vec<Vec<f32>>> {
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
            let found = chunk.len() / image;
            let fits = self.programs.iter().find(|(images, _)| *images >= found);
            let (images, program) = *fits.expect("the largest takes a whole chunk");
            let mut bytes = chunk.to_vec();
            bytes.resize(image * images, 0);
            let ty = TensorType::u8([images, c, h, w]);
            self.backend
                .write(IMAGES, &Array::bytes(ty, bytes.into()))?;
            let steps = [Step::default()];
            let len = found * self.classes;
            let ticket = self.backend.run_and_read(program, &steps, LOGITS, len)?;
            let rows = self.backend.take(ticket, true)?;
            let rows = rows.ok_or_else(|| Error::Runtime("the logits were lost".into()))?;
            let rows = rows.f().chunks_exact(self.classes);
            logits.extend(rows.map(|row| row.iter().map(|x| *x as f32).collect()));
        }
        Ok(logits)
    }

    /// The logits of labelled images, for a report.
    ///
    /// # Errors
    /// If an image file cannot be decoded, or the device fails. `progress` is called with
    /// images done.
    pub fn examine(&mut self, split: &Split, progress: &dyn Fn(usize)) -> Result<Examined> {
        let mut examined = Examined::new(split.clone(), self.classes);
        self.each_batch(split, |logits, _| {
            logits
                .iter()
                .for_each(|row| examined.add(row.iter().copied()));
            progress(examined.len());
        })?;
        Ok(examined)
    }

    /// Evaluates labelled images.
    ///
    /// # Errors
    /// If an image file cannot be decoded, or the device fails. `progress` is called with
    /// images done.
    pub fn evaluate(&mut self, split: &Split, progress: &dyn Fn(usize)) -> Result<Evaluation> {
        let mut evaluation = Evaluation::new(self.classes);
        self.each_batch(split, |logits, labels| {
            for (logits, label) in logits.iter().zip(labels) {
                evaluation.add(logits, *label as usize);
            }
            progress(evaluation.samples());
        })?;
        Ok(evaluation)
    }

    /// Shows the logits and labels of all images, batch after batch.
    fn each_batch(
        &mut self,
        split: &Split,
        mut see: impl FnMut(&[Vec<f32>], &[u32]),
    ) -> Result<()> {
        for first in (0..split.len()).step_by(self.batch) {
            let places = first..split.len().min(first + self.batch);
            let logits = self.logits(&split.images.get(places.clone())?)?;
            see(&logits, &split.labels[places]);
        }
        Ok(())
    }
}

/// The graph of an inference of `batch` images, with the layers of `int8` in eight bits, and
/// the parameters and statistics that lie in its states. No device is needed.
///
/// # Errors
/// If an op refuses the shapes.
pub fn step(
    model: &Model,
    int8: Option<&Int8>,
    batch: usize,
) -> Result<(Graph, [(&'static str, Arena); 2])> {
    if batch == 0 {
        return Err(Error::Usage(
            "the batch must have at least 1 image, found 0".into(),
        ));
    }
    let arenas = arenas(model);
    let graph = inference_graph(model, [&arenas[0], &arenas[1]], [batch; 2], int8)?;
    let [parameters, statistics] = arenas;
    Ok((graph, [(PARAMETERS, parameters), (STATISTICS, statistics)]))
}

/// Bytes to logits; `sizes` as for [`images_value`].
fn inference_graph(
    model: &Model,
    arenas: [&Arena; 2],
    sizes: [usize; 2],
    int8: Option<&Int8>,
) -> Result<Graph> {
    let mut graph = Graph::new();
    let images = images_value(&mut graph, model, sizes)?;
    let (values, _) = weight_values(&mut graph, arenas[0], arenas[1])?;
    let logits = model.lower(&mut graph, &values, images, Mode::Inference)?;
    let target = graph.state(LOGITS, TensorType::f32([sizes[0], model.classes()]));
    graph.store(logits, target)?;
    if let Some(int8) = int8 {
        int8::rewrite(&mut graph, int8)?;
    }
    Ok(graph.optimized())
}

/// What a state of an inference is for, by its name.
fn used_for(state: &str) -> Use {
    match state {
        IMAGES | ORDER => Use::Data,
        LOGITS => Use::Activations,
        _ => Use::Weights,
    }
}

/// Creates the states of images that [`images_value`] gathers, in the order they lie in.
fn create_images(backend: &mut dyn Backend, model: &Model, room: usize) -> Result<()> {
    let [c, h, w] = model.input();
    backend.create(IMAGES, &TensorType::u8([room, c, h, w]))?;
    let order = Array::index(TensorType::u32([room]), (0..room as u32).collect());
    backend.create(ORDER, order.ty())?;
    backend.write(ORDER, &order)
}

/// A batch of normalised images, of `room` that the state holds.
fn images_value(graph: &mut Graph, model: &Model, [batch, room]: [usize; 2]) -> Result<Value> {
    let [c, h, w] = model.input();
    graph.set_layer("input");
    let order = graph.state(ORDER, TensorType::u32([batch]));
    let images = graph.state(IMAGES, TensorType::u8([room, c, h, w]));
    let gather = GatherImages {
        batch,
        normalization: model.normalization().clone(),
    };
    graph.add1(Box::new(gather), &[order, images])
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

/// The indices of the `n` largest probabilities, the largest first; of equal ones the first.
pub fn top(probabilities: &[f64], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
    order.truncate(n);
    order
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

/// How many classes come before this one by their logits; of equal ones the first comes first.
fn rank(logits: &[f32], class: usize) -> usize {
    let own = logits[class];
    let before = |(i, x): &(usize, &f32)| **x > own || (**x == own && *i < class);
    logits.iter().enumerate().filter(before).count()
}

/// How a model does on labelled images.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Images by true class, then by predicted class.
    pub confusion: Vec<Vec<usize>>,
    loss_sum: f64,
    /// Images by the rank of their class among the logits, from 0.
    ranks: Vec<usize>,
    /// Of two classes: how far the logit of class 1 is above that of class 0, and whether it
    /// is the true one, for each image.
    margins: Vec<(f32, bool)>,
}

impl Evaluation {
    pub(crate) fn new(classes: usize) -> Self {
        Self {
            confusion: vec![vec![0; classes]; classes],
            loss_sum: 0.0,
            ranks: vec![0; classes],
            margins: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, logits: &[f32], label: usize) {
        self.confusion[label][argmax(logits)] += 1;
        self.loss_sum -= probabilities(logits)[label].max(f64::MIN_POSITIVE).ln();
        self.ranks[rank(logits, label)] += 1;
        if let [zero, one] = logits {
            self.margins.push((one - zero, label == 1));
        }
    }

    /// Fraction of images whose class is among the `k` of the highest logits; of equal ones
    /// the first classes count as higher, as for [`accuracy`](Self::accuracy), which this is
    /// for `k` = 1.
    pub fn top_k(&self, k: usize) -> f64 {
        let hits: usize = self.ranks.iter().take(k).sum();
        hits as f64 / self.samples() as f64
    }

    /// The area under the receiver operating characteristic of two classes, class 1 being the
    /// positive one: the probability that a random image of class 1 has a higher score than a
    /// random one of class 0, where equal scores count half (Hanley and McNeil 1982;
    /// scikit-learn's `roc_auc_score`). `None` for another number of classes, or where one of
    /// them has no image.
    pub fn roc_auc(&self) -> Option<f64> {
        let mut margins = self.margins.clone();
        margins.sort_by(|a, b| a.0.total_cmp(&b.0));
        let positives = margins.iter().filter(|(_, positive)| *positive).count();
        let negatives = margins.len() - positives;
        if positives == 0 || negatives == 0 {
            return None;
        }
        // Twice the pairs in order: each positive counts the negatives below it, and half of
        // those that are equal.
        let (mut below, mut twice) = (0, 0);
        for equal in margins.chunk_by(|a, b| a.0 == b.0) {
            let here = equal.iter().filter(|(_, positive)| *positive).count();
            let others = equal.len() - here;
            twice += here * (2 * below + others);
            below += others;
        }
        Some(twice as f64 / (2 * positives * negatives) as f64)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(rows: &[(&[f32], usize)]) -> Evaluation {
        let mut evaluation = Evaluation::new(rows[0].0.len());
        for (logits, label) in rows {
            evaluation.add(logits, *label);
        }
        evaluation
    }

    #[test]
    fn mirrored_logits_are_the_mean_of_both_images() {
        let model = Model::builder("test", [2, 3, 5])
            .add(crate::model::Flatten)
            .add(crate::model::Dense::new(3))
            .build()
            .unwrap();
        let weights = model.initial_weights(1);
        let of = |images: &[u8], mirrored| {
            let backend = Box::new(crate::graph::CpuBackend::new());
            let predictor = Predictor::new(&model, &weights, 2, backend).unwrap();
            predictor.mirrored(mirrored).logits(images).unwrap()
        };
        let image: Vec<u8> = (0..30).map(|i| i * i % 251).collect();
        let mirror: Vec<u8> = image
            .chunks(5)
            .flat_map(|row| row.iter().rev())
            .copied()
            .collect();
        let both = of(&[image.clone(), mirror.clone()].concat(), false);
        assert_ne!(both[0], both[1]);
        let means: Vec<f32> = both[0]
            .iter()
            .zip(&both[1])
            .map(|(a, b)| 0.5 * (a + b))
            .collect();
        assert_eq!(of(&image, true), std::slice::from_ref(&means));
        assert_eq!(of(&mirror, true), [means]);
    }

    /// roc_auc_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) is 0.75 in scikit-learn's
    /// documentation; with the ties below the positives win 1.5,
    /// 1 and 0 of two negatives each.
    #[test]
    fn roc_auc_is_scikit_learns_with_ties_counted_half() {
        let rows: [(&[f32], usize); 4] = [
            (&[0.0, 0.1], 0),
            (&[0.0, 0.4], 0),
            (&[0.0, 0.35], 1),
            (&[0.0, 0.8], 1),
        ];
        assert_eq!(evaluation(&rows).roc_auc(), Some(0.75));
        let tied: [(&[f32], usize); 5] = [
            (&[0.0, 1.0], 0),
            (&[0.0, 3.0], 0),
            (&[0.0, 3.0], 1),
            (&[0.0, 2.0], 1),
            (&[0.0, 0.5], 1),
        ];
        assert_eq!(evaluation(&tied).roc_auc(), Some((1.5 + 1.0) / 6.0));
        let constant: [(&[f32], usize); 2] = [(&[0.0, 1.0], 0), (&[0.0, 1.0], 1)];
        assert_eq!(evaluation(&constant).roc_auc(), Some(0.5));
        assert_eq!(evaluation(&tied[..2]).roc_auc(), None);
        assert_eq!(evaluation(&[(&[0.0, 1.0, 2.0], 1)]).roc_auc(), None);
    }

    #[test]
    fn top_k_counts_the_first_of_equal_logits_as_higher() {
        let rows: [(&[f32], usize); 3] = [
            (&[3.0, 2.0, 1.0, 0.0], 2),
            (&[1.0, 1.0, 1.0, 1.0], 1),
            (&[0.0, 5.0, 0.0, 0.0], 1),
        ];
        let evaluation = evaluation(&rows);
        let found = [1, 2, 3, 4, 9].map(|k| 3.0 * evaluation.top_k(k));
        assert_eq!(found, [1.0, 2.0, 3.0, 3.0, 3.0]);
        assert_eq!(evaluation.top_k(1), evaluation.accuracy());
    }
}
