//! Inference in eight bits: convolutions and dense layers of a graph are put in integers.

use super::{Batches, IMAGES, create_images, images_value, used_for};
use crate::error::{Error, Result};
use crate::formats::safetensors::Int8Scales;
use crate::graph::{Arena, Backend, Graph, Node, Program};
use crate::model::{Mode, Model};
use crate::ops::conv2d::Conv2d;
use crate::ops::int8::{Conv2dInt8, QuantizeInt8, pack_filters, quantized};
use crate::ops::matmul::MatMul;
use crate::ops::{Array, Builder, Step, Value, Window};
use crate::tensor::TensorType;
use crate::train::{Estimate, Use, Weights, arenas, upload_weights, weight_values};
use std::collections::BTreeMap;

/// The steps of each layer that runs in eight bits, by its name.
pub type Int8 = BTreeMap<String, Int8Scales>;

/// Creates the states that hold the packed filters and their steps.
pub(super) fn upload(backend: &mut dyn Backend, weights: &Weights, int8: &Int8) -> Result<()> {
    for (layer, scales) in int8 {
        let name = format!("{layer}.weight");
        let tensor = weights.get(&name);
        let tensor = tensor.ok_or_else(|| Error::shape(&name, "the weight is missing"))?;
        let filters = tensor.shape().dims().first().copied().unwrap_or(0);
        if filters != scales.weights.len() || filters == 0 {
            let found = scales.weights.len();
            return Err(Error::shape(
                &name,
                format!("expected {filters} steps, found {found}"),
            ));
        }
        let row = tensor.data().len() / filters;
        let rows = tensor.data().chunks_exact(row).zip(&scales.weights);
        let bytes: Vec<i8> = rows
            .flat_map(|(row, step)| {
                row.iter()
                    .map(|w| quantized(f64::from(*w) / f64::from(*step), 1.0))
            })
            .collect();
        let packed = pack_filters(&bytes, tensor.shape().dims());
        let steps = scales.weights.iter();
        let steps = steps
            .map(|s| f64::from(*s) * f64::from(scales.input))
            .collect();
        let steps = Array::float(TensorType::f32([filters]), steps);
        for (name, array) in [(weight_state(layer), &packed), (scale_state(layer), &steps)] {
            backend.create(&name, array.ty())?;
            backend.write(&name, array)?;
        }
    }
    Ok(())
}

fn weight_state(layer: &str) -> String {
    format!("int8.{layer}.weight")
}

fn scale_state(layer: &str) -> String {
    format!("int8.{layer}.scale")
}

/// Puts the convolutions and products of these layers in integers.
pub(super) fn rewrite(graph: &mut Graph, int8: &Int8) -> Result<()> {
    graph.rewrite(|graph, node| {
        let Some(scales) = int8.get(&node.layer) else {
            return Ok(None);
        };
        // What else the node does, such as adding its bias, the integer one must do too.
        let (window, flat, bias, activation) =
            match (node.op.downcast::<Conv2d>(), node.op.downcast::<MatMul>()) {
                (Some(conv), _) if conv.groups == 1 && conv.pool.is_none() => {
                    (conv.window, false, conv.bias, conv.activation)
                }
                (_, Some(product)) if !product.transpose_a && product.transpose_b => {
                    (Window::new([1, 1]), true, product.bias, product.activation)
                }
                _ => return Ok(None),
            };
        let quantize = QuantizeInt8 {
            inverse: 1.0 / scales.input,
        };
        let x = graph.add1(Box::new(quantize), &[node.inputs[0]])?;
        let filters = scales.weights.len();
        let [kh, kw] = window.kernel;
        let words = graph.ty(x).shape[1];
        let ty = TensorType::u32([filters.div_ceil(4), words, kh, kw, 4]);
        let w = graph.state(weight_state(&node.layer), ty);
        let scale = graph.state(scale_state(&node.layer), TensorType::f32([filters]));
        let conv = Conv2dInt8 {
            window,
            filters,
            bias,
            flat,
            activation,
        };
        let mut inputs = vec![x, w, scale];
        inputs.extend(&node.inputs[2..]);
        graph.add1(Box::new(conv), &inputs).map(Some)
    })
}

/// Most images a calibration step.
const BATCH: usize = 32;

/// A model whose layers' inputs can be looked at.
pub(crate) struct Taps {
    backend: Box<dyn Backend>,
    program: Program,
    batch: usize,
    image: [usize; 3],
    layers: usize,
}

/// Makes a model ready for looking at what the given layers read.
pub(crate) fn tapped(
    model: &Model,
    weights: &Weights,
    layers: &[&str],
    mut backend: Box<dyn Backend>,
) -> Result<Taps> {
    let arenas = arenas(model);
    let graph = |batch| tapped_graph(model, &arenas, layers, batch);
    let batches = Batches::up_to(BATCH);
    let batch = batches.fitting(model.name(), &*backend, |batch, memory| {
        let (graph, taps) = graph(batch)?;
        Estimate::new([&graph], tapped_for, &taps, &*backend, memory)
    })?;
    let (graph, taps) = graph(batch)?;
    upload_weights(&mut *backend, &arenas[0], &arenas[1], weights)?;
    create_images(&mut *backend, model, batch)?;
    for (name, ty) in &taps {
        backend.create(name, ty)?;
    }
    Ok(Taps {
        program: backend.compile(graph)?,
        backend,
        batch,
        image: model.input(),
        layers: layers.len(),
    })
}

/// The graph that stores what layers read, and the states it stores that in.
fn tapped_graph(
    model: &Model,
    [parameters, statistics]: &[Arena; 2],
    layers: &[&str],
    batch: usize,
) -> Result<(Graph, Vec<(String, TensorType)>)> {
    let mut graph = Graph::new();
    let images = images_value(&mut graph, model, [batch; 2])?;
    let (values, _) = weight_values(&mut graph, parameters, statistics)?;
    model.lower(&mut graph, &values, images, Mode::Inference)?;
    let mut taps = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let value = input_of(&graph, layer)?;
        let ty = graph.ty(value).clone();
        let target = graph.state(tap(i), ty.clone());
        graph.store(value, target)?;
        taps.push((tap(i), ty));
    }
    Ok((graph.optimized(), taps))
}

/// What a state of a tapped inference is for, by its name.
fn tapped_for(state: &str) -> Use {
    match state.starts_with(TAP) {
        true => Use::Activations,
        false => used_for(state),
    }
}

const TAP: &str = "tap";

fn tap(layer: usize) -> String {
    format!("{TAP}{layer}")
}

/// What the convolution or product of a layer reads.
fn input_of(graph: &Graph, layer: &str) -> Result<Value> {
    let is_it = |node: &&Node| {
        let op = &node.op;
        node.layer == layer
            && (op.downcast::<Conv2d>().is_some() || op.downcast::<MatMul>().is_some())
    };
    let node = graph.nodes().iter().find(is_it);
    let node = node.ok_or_else(|| Error::shape(layer, "has no convolution and no product"))?;
    Ok(node.inputs[0])
}

impl Taps {
    /// Runs images, bytes [N, C, H, W], and shows what each layer, by its index, read of each
    /// batch.
    pub fn run(&mut self, images: &[u8], mut see: impl FnMut(usize, &[f64])) -> Result<()> {
        let [c, h, w] = self.image;
        let image = c * h * w;
        for chunk in images.chunks(self.batch * image) {
            let mut bytes = chunk.to_vec();
            bytes.resize(self.batch * image, 0);
            let ty = TensorType::u8([self.batch, c, h, w]);
            self.backend
                .write(IMAGES, &Array::bytes(ty, bytes.into()))?;
            self.backend.run(self.program, &[Step::default()])?;
            for layer in 0..self.layers {
                let read = self.backend.read(&tap(layer))?;
                let each = read.f().len() / self.batch;
                see(layer, &read.f()[..each * (chunk.len() / image)]);
            }
        }
        Ok(())
    }
}
