//! A graph of ops as layers.

mod elementwise;
mod moves;
mod normalization;
mod weighted;
mod windows;

use super::Imported;
use super::name::Names;
use crate::error::{Error, Result};
use crate::formats::safetensors::Tensors;
use crate::graph::{Graph, Node, Origin};
use crate::model::{self, Flatten, INPUT, Layer, Model, Pad as Padding};
use crate::ops::activation::Activation;
use crate::ops::batch::Normalization;
use crate::ops::batch_norm::BatchNormInference;
use crate::ops::bias::BiasAdd;
use crate::ops::binary::{Binary, BinaryOp};
use crate::ops::{Array, Builder, Pads, Value, conv2d, matmul};
use crate::tensor::{Shape, Tensor};
use std::collections::{BTreeMap, HashMap};

/// How a value of the graph lies in the output of the layer it stands for.
#[derive(Clone, Debug, PartialEq)]
enum Layout {
    /// As it is.
    Same,
    /// Axis k is axis `order[k]` of the layer's.
    Permuted(Vec<usize>),
    /// A row for each image of what is permuted: the layer's output is flattened from
    /// [C, H, W] of these extents, the value from another order of them.
    Flat {
        image: [usize; 3],
        order: Vec<usize>,
    },
}

/// A value of the graph: the layer whose output it is, and how.
#[derive(Clone, Debug)]
struct Place {
    layer: String,
    layout: Layout,
}

/// Factor and summand of each channel of the input.
#[derive(Clone, Debug, PartialEq)]
struct Affine {
    factor: Vec<f64>,
    summand: Vec<f64>,
}

/// A graph on its way to a model.
pub(super) struct Raise<'a> {
    graph: &'a Graph,
    constants: &'a BTreeMap<String, Array>,
    output: Value,
    /// Channels, rows and columns.
    image: [usize; 3],
    batch: usize,
    places: HashMap<Value, Place>,
    /// Values that are the input, normalised.
    affine: HashMap<Value, Affine>,
    normalized: Option<Affine>,
    layers: Vec<model::NamedLayer>,
    weights: Tensors,
    names: Names,
    notes: Vec<String>,
    /// Nodes that are part of a layer already.
    done: Vec<bool>,
}

impl<'a> Raise<'a> {
    pub fn new(
        graph: &'a Graph,
        constants: &'a BTreeMap<String, Array>,
        input: &str,
        output: Value,
    ) -> Result<Self> {
        let found = graph
            .nodes()
            .iter()
            .flat_map(|n| &n.inputs)
            .find(|v| matches!(&graph.value(**v).origin, Origin::State(name) if name == input));
        let input_value = *found.ok_or_else(|| Error::shape(input, "nothing reads the input"))?;
        let [batch, a, b, c] = graph.ty(input_value).shape.nchw(input)?;
        // Keras's images have their one to four channels last.
        let channels_last = c <= 4 && a > 4;
        let (image, layout) = match channels_last {
            true => ([c, a, b], Layout::Permuted(vec![0, 2, 3, 1])),
            false => ([a, b, c], Layout::Same),
        };
        let mut names = Names::default();
        names.reserve(INPUT);
        let layer = INPUT.to_owned();
        let identity = Affine {
            factor: vec![1.0; image[0]],
            summand: vec![0.0; image[0]],
        };
        Ok(Self {
            done: vec![false; graph.nodes().len()],
            places: HashMap::from([(input_value, Place { layer, layout })]),
            affine: HashMap::from([(input_value, identity)]),
            normalized: None,
            graph,
            constants,
            output,
            image,
            batch,
            layers: Vec::new(),
            weights: Tensors::new(),
            names,
            notes: Vec::new(),
        })
    }

    pub fn run(mut self, name: &str, stated: Option<Normalization>) -> Result<Imported> {
        let mut refused = Vec::new();
        for at in 0..self.graph.nodes().len() {
            let node = &self.graph.nodes()[at];
            if self.done[at] {
                continue;
            }
            // What reads a node that is no layer is not asked.
            let ready = node
                .inputs
                .iter()
                .all(|v| self.constant(*v).is_some() || self.places.contains_key(v));
            if !ready {
                continue;
            }
            if let Err(error) = self.node(at) {
                refused.push(format!("\n  {error}"));
            }
        }
        if !refused.is_empty() {
            let problem = format!(
                "has nodes that are no layers of gpucnn:{}",
                refused.concat()
            );
            return Err(Error::model(name, problem));
        }
        self.finish(name, stated)
    }

    fn finish(mut self, name: &str, stated: Option<Normalization>) -> Result<Imported> {
        let place = self.places.get(&self.output).cloned();
        let place = place.ok_or_else(|| Error::model(name, "its output comes from no layer"))?;
        if self.graph.ty(self.output).shape.rank() != 2 && place.layout == Layout::Same {
            self.notes
                .push("the output is flattened to one row an image".into());
            self.layer(Flatten, "flatten", None, &[&place], self.output);
        } else if place.layout != Layout::Same {
            return Err(Error::model(
                name,
                "its output is in another order than a layer's",
            ));
        }
        // The model's output is its last layer's.
        if let Some(last) = self.places.get(&self.output).map(|p| p.layer.clone()) {
            self.keep_up_to(&last);
        }
        let normalization = self.normalization(stated)?;
        let mut builder = Model::builder(name, self.image).normalization(normalization);
        for layer in std::mem::take(&mut self.layers) {
            builder = builder.with(layer);
        }
        let model = builder.build()?;
        model.check_weights(&self.weights, "the imported weights")?;
        Ok(Imported {
            model,
            weights: self.weights,
            classes: None,
            notes: self.notes,
        })
    }

    /// Leaves out layers that `last` does not need.
    fn keep_up_to(&mut self, last: &str) {
        let mut needed = vec![last.to_owned()];
        let mut kept = Vec::new();
        for layer in std::mem::take(&mut self.layers).into_iter().rev() {
            if needed.contains(&layer.name) {
                needed.extend(layer.inputs.iter().cloned());
                kept.push(layer);
            }
        }
        kept.reverse();
        let of_kept = |weight: &String| {
            kept.iter().any(|l| {
                weight
                    .rsplit_once('.')
                    .is_some_and(|(layer, _)| layer == l.name)
            })
        };
        self.weights.retain(|name, _| of_kept(name));
        self.layers = kept;
    }

    fn constant(&self, value: Value) -> Option<(&'a str, &'a Array)> {
        let Origin::State(name) = &self.graph.value(value).origin else {
            return None;
        };
        let (name, array) = self.constants.get_key_value(name)?;
        Some((name, array))
    }

    fn shape(&self, value: Value) -> &'a Shape {
        &self.graph.value(value).ty.shape
    }

    /// Writes the node `at` as a layer.
    fn node(&mut self, at: usize) -> Result<()> {
        let node = &self.graph.nodes()[at];
        let op = &*node.op;
        if let Some(op) = op.downcast::<conv2d::Conv2d>() {
            return self.convolution(at, op);
        }
        if let Some(op) = op.downcast::<matmul::MatMul>() {
            return self.dense(at, *op);
        }
        if let Some(Activation(function)) = op.downcast() {
            return self.elementwise(node, model::Activation::new(*function), "act");
        }
        if let Some(op) = op.downcast::<BatchNormInference>() {
            return self.batch_norm(node, op.epsilon);
        }
        if let Some(Binary(op)) = op.downcast() {
            return self.binary(node, *op);
        }
        if op.downcast::<BiasAdd>().is_some() {
            return self.scaled(node, BinaryOp::Add, 0);
        }
        if let Some(result) = self.pool(node).or_else(|| self.rearranged(at)) {
            return result;
        }
        Err(no_layer(node, "there is no layer for it"))
    }

    /// Adds a layer over the given values' layers; its output stands for `value`.
    fn layer(
        &mut self,
        layer: impl Into<Layer>,
        stem: &str,
        wanted: Option<&str>,
        inputs: &[&Place],
        value: Value,
    ) -> String {
        let name = self.names.take(wanted, stem);
        self.layers.push(model::NamedLayer {
            name: name.clone(),
            inputs: inputs.iter().map(|p| p.layer.clone()).collect(),
            layer: layer.into(),
            trainable: true,
        });
        let place = Place {
            layer: name.clone(),
            layout: Layout::Same,
        };
        self.places.insert(value, place);
        name
    }

    /// The place of a value a layer reads; the input as it was normalised.
    fn place(&mut self, node: &Node, value: Value) -> Result<Place> {
        if let Some(affine) = self.affine.get(&value) {
            let identity =
                affine.factor.iter().all(|f| *f == 1.0) && affine.summand.iter().all(|s| *s == 0.0);
            match &self.normalized {
                Some(before) if before != affine => {
                    return Err(no_layer(
                        node,
                        "the input is read with several normalisations",
                    ));
                }
                None if !identity => self.normalized = Some(affine.clone()),
                _ => {}
            }
        }
        let found = self.places.get(&value).cloned();
        found.ok_or_else(|| no_layer(node, "it reads what no layer gives"))
    }

    /// The place of a value whose layer gives it in the very same order.
    fn plain(&mut self, node: &Node, value: Value) -> Result<Place> {
        let place = self.place(node, value)?;
        match place.layout {
            Layout::Same => Ok(place),
            _ => Err(no_layer(
                node,
                "it reads images whose channels are not the second axis",
            )),
        }
    }

    fn put(
        &mut self,
        layer: &str,
        role: &str,
        shape: impl Into<Shape>,
        data: Vec<f64>,
    ) -> Result<()> {
        let data = data.into_iter().map(|x| x as f32).collect();
        let tensor = Tensor::new(shape, data)?;
        self.weights.insert(format!("{layer}.{role}"), tensor);
        Ok(())
    }

    /// The constant an operand must be.
    fn weight(&self, node: &Node, value: Value) -> Result<(&'a str, &'a Array)> {
        self.constant(value)
            .ok_or_else(|| no_layer(node, "its weights are computed"))
    }

    fn keep_layout(&mut self, value: Value, layout: Layout) {
        if let Some(place) = self.places.get_mut(&value) {
            place.layout = layout;
        }
    }
}

fn no_layer(node: &Node, problem: &str) -> Error {
    Error::shape(node.label(), problem)
}

fn padding(pads: Pads) -> Padding {
    match pads == Pads::default() {
        true => Padding::Valid,
        false => Padding::Explicit(pads),
    }
}
