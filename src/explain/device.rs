//! Logits, activations and gradients of normalised images, on a device.

use crate::error::{Error, Result};
use crate::graph::{Backend, Graph, Program};
use crate::infer::Batches;
use crate::model::{INPUT, Model};
use crate::ops::binary::{Binary, BinaryOp, SumTo};
use crate::ops::{Array, Builder, Step, Value};
use crate::tensor::{Shape, TensorType};
use crate::train::{Estimate, Use, Weights};

const CHOSEN: &str = "explain.class";
const LOGITS: &str = "explain.logits";
const ACTIVATION: &str = "explain.activation";
const GRADIENT: &str = "explain.gradient";
const INPUT_GRADIENT: &str = "explain.input_gradient";

/// What an answer is read from.
const RESULTS: [&str; 4] = [LOGITS, ACTIVATION, GRADIENT, INPUT_GRADIENT];

/// A model with the gradients of one logit.
pub(super) struct Device {
    backend: Box<dyn Backend>,
    program: Program,
    input: TensorType,
    classes: usize,
    layer: Vec<usize>,
}

/// What a model says of an image, and what the logit of the class depends on.
pub(super) struct Answer {
    pub logits: Vec<f64>,
    /// Of the layer.
    pub activation: Vec<f64>,
    /// Of the logit, by the layer's activation.
    pub gradient: Vec<f64>,
    /// Of the logit, by the normalised image.
    pub input_gradient: Vec<f64>,
}

impl Device {
    /// For at most `most` images at a time, fewer where they do not fit.
    pub fn new(
        model: &Model,
        weights: &Weights,
        layer: &str,
        most: usize,
        mut backend: Box<dyn Backend>,
    ) -> Result<Self> {
        let name = model.name();
        let batch = Batches::up_to(most).fitting(name, &*backend, |batch, memory| {
            let (graph, _) = explaining(model, layer, batch)?;
            let read = states(&graph).filter(|(name, _)| RESULTS.contains(&name.as_str()));
            let read: Vec<_> = read.collect();
            Estimate::new([&graph.optimized()], used_for, &read, &*backend, memory)
        })?;
        let (graph, [images, activation]) = explaining(model, layer, batch)?;
        for (name, ty) in states(&graph) {
            backend.create(&name, &ty)?;
            if let Some(tensor) = weights.get(&name) {
                let values = tensor.data().iter().map(|x| f64::from(*x)).collect();
                backend.write(&name, &Array::float(ty, values))?;
            }
        }
        let layer = graph.ty(activation).shape.dims()[1..].to_vec();
        let input = graph.ty(images).clone();
        Ok(Self {
            program: backend.compile(graph.optimized())?,
            backend,
            input,
            classes: model.classes(),
            layer,
        })
    }

    pub fn describe(&self) -> String {
        self.backend.describe()
    }

    /// Most images it answers for at a time.
    pub fn batch(&self) -> usize {
        self.input.shape[0]
    }

    /// Channels, rows and columns of the layer; of one without rows and columns, 1 each.
    pub fn layer_shape(&self) -> [usize; 3] {
        match self.layer.as_slice() {
            [c, h, w] => [*c, *h, *w],
            other => [other.iter().product(), 1, 1],
        }
    }

    /// Answers for at most a batch of images, each [C, H, W].
    pub fn run(&mut self, images: &[Vec<f64>], class: usize) -> Result<Vec<Answer>> {
        let mut row = vec![0.0; self.classes];
        if let Some(chosen) = row.get_mut(class) {
            *chosen = 1.0;
        }
        let mut content = images.concat();
        content.resize(self.input.shape.len(), 0.0);
        let images_array = Array::float(self.input.clone(), content);
        self.backend.write(INPUT, &images_array)?;
        let chosen = Array::float(TensorType::f32([1, self.classes]), row);
        self.backend.write(CHOSEN, &chosen)?;
        self.backend.run(self.program, &[Step::default()])?;
        let batch = self.batch();
        let mut rows = |name: &str| {
            let all = self.backend.read(name)?;
            let each = all.f().len() / batch;
            Ok::<_, Error>(
                all.f()
                    .chunks_exact(each)
                    .map(<[f64]>::to_vec)
                    .collect::<Vec<_>>(),
            )
        };
        let (logits, activations) = (rows(LOGITS)?, rows(ACTIVATION)?);
        let (gradients, input_gradients) = (rows(GRADIENT)?, rows(INPUT_GRADIENT)?);
        let answers = logits
            .into_iter()
            .zip(activations)
            .zip(gradients)
            .zip(input_gradients);
        Ok(answers
            .take(images.len())
            .map(
                |(((logits, activation), gradient), input_gradient)| Answer {
                    logits,
                    activation,
                    gradient,
                    input_gradient,
                },
            )
            .collect())
    }
}

/// The graph of a logit's gradients by the images and by a layer's activation, and these two.
fn explaining(model: &Model, layer: &str, batch: usize) -> Result<(Graph, [Value; 2])> {
    let (mut graph, outputs) = model.inference_graph(batch)?;
    let logits = outputs[outputs.len() - 1];
    let index = model.layers().iter().position(|l| l.name == layer);
    let Some(index) = index else {
        let names: Vec<_> = model.layers().iter().map(|l| l.name.as_str()).collect();
        return Err(Error::Usage(format!(
            "--layer {layer:?} is no layer of {}; there are {}",
            model.name(),
            names.join(", ")
        )));
    };
    let (images, activation) = (outputs[0], outputs[index + 1]);
    graph.set_layer("explain");
    // One row of zeros and a one: the sum over the batch of that logit. No image's logits
    // depend on another, so the gradient of the sum is each image's own.
    let chosen = graph.state(CHOSEN, TensorType::f32([1, model.classes()]));
    let product = graph.add1(Box::new(Binary(BinaryOp::Mul)), &[logits, chosen])?;
    let sum = SumTo {
        shape: Shape::default(),
    };
    let score = graph.add1(Box::new(sum), &[product])?;
    let gradients = graph.gradients(score, &[activation, images])?;
    let kept = [Some(logits), Some(activation)]
        .into_iter()
        .chain(gradients);
    for (name, value) in RESULTS.into_iter().zip(kept) {
        let value = value
            .ok_or_else(|| Error::Usage(format!("the logits do not depend on layer {layer}")))?;
        let ty = graph.ty(value).clone();
        let target = graph.state(name, ty);
        graph.store(value, target)?;
    }
    Ok((graph, [images, activation]))
}

fn states(graph: &Graph) -> impl Iterator<Item = (String, TensorType)> {
    graph
        .states()
        .map(|(name, ty)| (name.to_owned(), ty.clone()))
}

/// What a state is for, by its name.
fn used_for(state: &str) -> Use {
    match state {
        INPUT => Use::Data,
        CHOSEN | LOGITS | ACTIVATION | GRADIENT | INPUT_GRADIENT => Use::Activations,
        _ => Use::Weights,
    }
}
