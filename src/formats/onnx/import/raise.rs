//! A graph of ops as layers.

use super::Imported;
use super::name::{Names, layer_of};
use crate::error::{Error, Result};
use crate::formats::safetensors::Tensors;
use crate::graph::{Graph, Node, Origin};
use crate::model::{
    self, Add, AvgPool2d, BatchNorm2d, Concat, Conv2d, Dense, DepthwiseConv2d, Flatten,
    GlobalAvgPool, INPUT, Layer, MaxPool2d, Model, Mul, Pad as Padding, ZeroPad2d,
};
use crate::ops::activation::{Activation, Function};
use crate::ops::batch::Normalization;
use crate::ops::batch_norm::BatchNormInference;
use crate::ops::bias::BiasAdd;
use crate::ops::binary::{Binary, BinaryOp};
use crate::ops::pad::Pad;
use crate::ops::pool2d;
use crate::ops::reshape::Reshape;
use crate::ops::softmax::Softmax;
use crate::ops::transpose::Transpose;
use crate::ops::{Array, Builder, Pads, Value, Window, concat, conv2d, matmul};
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

    /// What the file does to its input, or what was stated.
    fn normalization(&mut self, stated: Option<Normalization>) -> Result<Normalization> {
        let channels = self.image[0];
        if let Some(n) = &stated
            && [&n.mean, &n.std]
                .iter()
                .any(|v| !v.is_empty() && v.len() != channels)
        {
            let problem = format!("mean and deviation: expected {channels} numbers each, or none");
            return Err(Error::shape(INPUT, problem));
        }
        let Some(affine) = self.normalized.take() else {
            if stated.is_none() {
                self.notes.push(
                    "the file does not say what input it expects; taking pixels times 1/255, \
                     unless --scale, --mean and --std say otherwise"
                        .into(),
                );
            }
            return Ok(stated.unwrap_or_default());
        };
        // Our own exporter's, to the bit.
        let same = |n: &Normalization| {
            (0..channels).all(|c| {
                let (factor, summand) = n.affine(c);
                let close = |a: f64, b: f32| (a - f64::from(b)).abs() <= 1e-6 * a.abs().max(1e-6);
                close(affine.factor[c], factor) && close(affine.summand[c], summand)
            })
        };
        if let Some(stated) = stated.filter(same) {
            return Ok(stated);
        }
        let positive = affine.factor.iter().all(|f| *f > 0.0);
        if !positive {
            let problem = "the input is multiplied by a number that is not above zero";
            return Err(Error::shape(INPUT, problem));
        }
        // factor x + summand = (x - mean) / std.
        let pairs = affine.factor.iter().zip(&affine.summand);
        Ok(Normalization {
            scale: 1.0,
            mean: pairs.map(|(f, s)| (-s / f) as f32).collect(),
            std: affine.factor.iter().map(|f| (1.0 / f) as f32).collect(),
        })
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

    /// The bias that the only reader of node `at` adds, if it is one number a channel; the
    /// reader is then part of the layer.
    fn following_bias(&mut self, at: usize, channels: usize) -> Option<(Value, Vec<f64>)> {
        let value = self.graph.nodes()[at].outputs[0];
        let nodes = self.graph.nodes().iter().enumerate();
        let mut readers = nodes.filter(|(_, n)| n.inputs.contains(&value));
        let (reader, node) = readers.next()?;
        if readers.next().is_some() || value == self.output {
            return None;
        }
        let adds = node.op.downcast::<BiasAdd>().is_some()
            || node
                .op
                .downcast::<Binary>()
                .is_some_and(|b| b.0 == BinaryOp::Add);
        let other = *node.inputs.iter().find(|v| **v != value)?;
        let (_, array) = self.constant(other).filter(|_| adds)?;
        let by_row = node.op.downcast::<BiasAdd>().is_some();
        let data = by_channel(array, self.shape(value), by_row)?;
        if data.len() != channels {
            return None;
        }
        self.done[reader] = true;
        Some((node.outputs[0], data))
    }

    fn convolution(&mut self, at: usize, op: &conv2d::Conv2d) -> Result<()> {
        let node = &self.graph.nodes()[at];
        let x = self.plain(node, node.inputs[0])?;
        let (weight, array) = self.weight(node, node.inputs[1])?;
        let dims = array.dims().to_vec();
        let mut output = node.outputs[0];
        let bias = match node.inputs.get(2) {
            Some(bias) => Some(self.weight(node, *bias)?.1.f().to_vec()),
            None => self.following_bias(at, dims[0]).map(|(value, data)| {
                output = value;
                data
            }),
        };
        let window = op.window;
        let layer = Conv2d::new(dims[0], window.kernel)
            .stride(window.stride)
            .padding(padding(window.pads))
            .dilation(window.dilation)
            .groups(op.groups)
            .bias(bias.is_some());
        let name = self.layer(layer, "conv", layer_of(weight), &[&x], output);
        self.put(
            &name,
            "weight",
            Shape::new(dims.clone()),
            array.f().to_vec(),
        )?;
        match bias {
            Some(bias) => self.put(&name, "bias", [dims[0]], bias),
            None => Ok(()),
        }
    }

    fn dense(&mut self, at: usize, op: matmul::MatMul) -> Result<()> {
        let node = &self.graph.nodes()[at];
        let x = self.place(node, node.inputs[0])?;
        let (weight, array) = self.weight(node, node.inputs[1])?;
        let [rows, columns] = [array.dims()[0], array.dims()[1]];
        let [units, features] = if op.transpose_b {
            [rows, columns]
        } else {
            [columns, rows]
        };
        if op.transpose_a || matches!(x.layout, Layout::Permuted(_)) {
            return Err(no_layer(node, "its rows are not the images"));
        }
        // Our feature f is the file's feature from[f].
        let from: Vec<usize> = match &x.layout {
            Layout::Flat { image, order } => flattened(*image, order),
            _ => (0..features).collect(),
        };
        let at_place = |unit: usize, feature: usize| match op.transpose_b {
            true => unit * features + feature,
            false => feature * units + unit,
        };
        let data = (0..units).flat_map(|u| from.iter().map(move |f| (u, *f)));
        let data = data.map(|(u, f)| array.f()[at_place(u, f)]).collect();
        let mut output = node.outputs[0];
        let bias = self.following_bias(at, units).map(|(value, data)| {
            output = value;
            data
        });
        let layer = Dense::new(units).bias(bias.is_some());
        let name = self.layer(layer, "fc", layer_of(weight), &[&x], output);
        self.put(&name, "weight", [units, features], data)?;
        match bias {
            Some(bias) => self.put(&name, "bias", [units], bias),
            None => Ok(()),
        }
    }

    /// A layer of one input that leaves the order of elements alone.
    fn elementwise(&mut self, node: &Node, layer: impl Into<Layer>, stem: &str) -> Result<()> {
        let x = self.place(node, node.inputs[0])?;
        self.layer(layer, stem, None, &[&x], node.outputs[0]);
        self.keep_layout(node.outputs[0], x.layout);
        Ok(())
    }

    fn keep_layout(&mut self, value: Value, layout: Layout) {
        if let Some(place) = self.places.get_mut(&value) {
            place.layout = layout;
        }
    }

    fn batch_norm(&mut self, node: &Node, epsilon: f64) -> Result<()> {
        let x = self.plain(node, node.inputs[0])?;
        let (weight, gamma) = self.weight(node, node.inputs[1])?;
        // PyTorch's share of the running statistics that is kept.
        let layer = BatchNorm2d {
            momentum: 0.9,
            epsilon,
        };
        let name = self.layer(layer, "bn", layer_of(weight), &[&x], node.outputs[0]);
        let roles = ["weight", "bias", "running_mean", "running_var"];
        for (role, value) in roles.iter().zip(&node.inputs[1..]) {
            let (_, array) = self.weight(node, *value)?;
            self.put(&name, role, [gamma.dims()[0]], array.f().to_vec())?;
        }
        Ok(())
    }

    fn binary(&mut self, node: &Node, op: BinaryOp) -> Result<()> {
        let constants = [0, 1].map(|i| self.constant(node.inputs[i]).is_some());
        match (op, constants) {
            (BinaryOp::Add | BinaryOp::Mul, [true, false]) => self.scaled(node, op, 1),
            (BinaryOp::Add | BinaryOp::Mul | BinaryOp::Sub | BinaryOp::Div, [false, true]) => {
                self.scaled(node, op, 0)
            }
            (BinaryOp::Add, [false, false]) => self.merged(node, Add::default(), "add"),
            (BinaryOp::Mul, [false, false]) => match self.swish(node) {
                Some(x) => {
                    let x = self.place(node, x)?;
                    let silu = model::Activation::new(Function::Silu);
                    self.layer(silu, "act", None, &[&x], node.outputs[0]);
                    self.keep_layout(node.outputs[0], x.layout);
                    Ok(())
                }
                None => self.merged(node, Mul {}, "mul"),
            },
            _ => Err(no_layer(node, "there is no layer for it")),
        }
    }

    /// The x of `x * sigmoid(x)`, which is SiLU.
    fn swish(&self, node: &Node) -> Option<Value> {
        [[0, 1], [1, 0]].into_iter().find_map(|[x, gate]| {
            let (x, gate) = (node.inputs[x], node.inputs[gate]);
            let sigmoid = self.graph.producer(gate)?;
            let is_sigmoid = sigmoid.op.downcast() == Some(&Activation(Function::Sigmoid));
            (is_sigmoid && sigmoid.inputs[0] == x).then_some(x)
        })
    }

    fn merged(&mut self, node: &Node, layer: impl Into<Layer>, stem: &str) -> Result<()> {
        let [a, b] = [
            self.place(node, node.inputs[0])?,
            self.place(node, node.inputs[1])?,
        ];
        let [first, second] = [self.shape(node.inputs[0]), self.shape(node.inputs[1])];
        // A gate may be one number a channel.
        let gate = |shape: &Shape| shape.rank() == 4 && shape.dims()[2..] == [1, 1];
        let gated = stem == "mul" && a.layout == Layout::Same && (gate(first) || gate(second));
        if (first != second && !gated) || a.layout != b.layout {
            let problem =
                format!("its inputs have shapes {first} and {second}; a layer's are alike");
            return Err(no_layer(node, &problem));
        }
        let layout = a.layout.clone();
        self.layer(layer, stem, None, &[&a, &b], node.outputs[0]);
        self.keep_layout(node.outputs[0], layout);
        Ok(())
    }

    /// A value combined with a constant: part of the input's normalisation, or a depthwise
    /// 1 x 1 convolution.
    fn scaled(&mut self, node: &Node, op: BinaryOp, x: usize) -> Result<()> {
        let (x, constant) = (node.inputs[x], node.inputs[1 - x]);
        let (weight, array) = self.weight(node, constant)?;
        let place = self.places[&x].clone();
        let by_row = node.op.downcast::<BiasAdd>().is_some();
        let channels_last = matches!(place.layout, Layout::Permuted(_));
        let shape = self.shape(x);
        let numbers = match channels_last {
            true => last_axis(array, shape),
            false => by_channel(array, shape, by_row),
        };
        let numbers =
            numbers.ok_or_else(|| no_layer(node, "its constant is not one number a channel"))?;
        if let Some(affine) = self.affine.get(&x).cloned() {
            self.affine
                .insert(node.outputs[0], affine.then(op, &numbers));
            self.places.insert(node.outputs[0], place);
            return Ok(());
        }
        if shape.rank() != 4 || place.layout != Layout::Same {
            return Err(no_layer(
                node,
                "a constant is added to or multiplied with rows or NHWC images",
            ));
        }
        let channels = numbers.len();
        let (factor, summand) = match op {
            BinaryOp::Add => (vec![1.0; channels], Some(numbers)),
            BinaryOp::Sub => (
                vec![1.0; channels],
                Some(numbers.iter().map(|n| -n).collect()),
            ),
            BinaryOp::Div => (numbers.iter().map(|n| 1.0 / n).collect(), None),
            _ => (numbers, None),
        };
        let layer = DepthwiseConv2d::new(1).bias(summand.is_some());
        let name = self.layer(layer, "scale", layer_of(weight), &[&place], node.outputs[0]);
        self.put(&name, "weight", [channels, 1, 1, 1], factor)?;
        match summand {
            Some(summand) => self.put(&name, "bias", [channels], summand),
            None => Ok(()),
        }
    }

    /// A pool; `None` where the node is none.
    fn pool(&mut self, node: &Node) -> Option<Result<()>> {
        let op = &*node.op;
        if let Some(pool) = op.downcast::<pool2d::MaxPool2d>() {
            let (window, pads) = (pool.window, self.closed(node, pool.window));
            let layer = MaxPool2d::new(window.kernel)
                .stride(window.stride)
                .padding(padding(pads));
            return Some(self.windowed(node, window, layer));
        }
        if let Some(pool) = op.downcast::<pool2d::AvgPool2d>() {
            let window = pool.window;
            let layer = AvgPool2d::new(window.kernel).stride(window.stride);
            if pool.count_include_pad && window.pads != Pads::default() {
                if window.ceil {
                    return Some(Err(no_layer(node, "ceil_mode with counted padding")));
                }
                // Padding that counts is zeros around the image.
                let zeros = ZeroPad2d {
                    padding: window.pads,
                };
                return Some(self.plain(node, node.inputs[0]).map(|x| {
                    self.layer(zeros, "pad", None, &[&x], node.outputs[0]);
                    let padded = self.places[&node.outputs[0]].clone();
                    self.layer(layer, "pool", None, &[&padded], node.outputs[0]);
                }));
            }
            let layer = layer.padding(padding(self.closed(node, window)));
            return Some(self.windowed(node, window, layer));
        }
        op.downcast::<pool2d::GlobalAvgPool>()?;
        Some(self.plain(node, node.inputs[0]).map(|x| {
            let value = node.outputs[0];
            self.layer(GlobalAvgPool {}, "gap", None, &[&x], value);
            // The layer gives rows; what wants images of one pixel gets them.
            let channels = self.shape(value)[1];
            let flat = Layout::Flat {
                image: [channels, 1, 1],
                order: vec![0, 1, 2],
            };
            let readers = self
                .graph
                .nodes()
                .iter()
                .filter(|n| n.inputs.contains(&value));
            let rows = |n: &Node| {
                n.op.downcast::<Reshape>().is_some() && self.shape(n.outputs[0]).rank() == 2
            };
            match readers.into_iter().all(rows) && value != self.output {
                true => self.keep_layout(value, flat),
                false => {
                    let pooled = self.places[&value].clone();
                    let shape = vec![channels, 1, 1];
                    self.layer(model::Reshape { shape }, "reshape", None, &[&pooled], value);
                }
            }
        }))
    }

    fn windowed(&mut self, node: &Node, window: Window, layer: impl Into<Layer>) -> Result<()> {
        if window.dilation != [1, 1] {
            return Err(no_layer(node, "pools with dilations"));
        }
        let x = self.plain(node, node.inputs[0])?;
        self.layer(layer, "pool", None, &[&x], node.outputs[0]);
        Ok(())
    }

    /// The padding with which windows that hang over the edge in ceil mode lie inside.
    fn closed(&self, node: &Node, window: Window) -> Pads {
        let mut pads = window.pads;
        if window.ceil {
            let (x, y) = (self.shape(node.inputs[0]), self.shape(node.outputs[0]));
            let span = window.span();
            let need = |axis: usize, near: usize| {
                let reach = (y[2 + axis] - 1) * window.stride[axis] + span[axis];
                reach.saturating_sub(x[2 + axis] + near)
            };
            pads.bottom = pads.bottom.max(need(0, pads.top));
            pads.right = pads.right.max(need(1, pads.left));
        }
        pads
    }

    /// Ops that move elements; `None` where the node is none.
    fn rearranged(&mut self, at: usize) -> Option<Result<()>> {
        let node = &self.graph.nodes()[at];
        let op = &*node.op;
        if op.downcast::<Reshape>().is_some() {
            return Some(self.reshape(node));
        }
        if let Some(Transpose { order }) = op.downcast() {
            return Some(self.transpose(node, order));
        }
        if let Some(op) = op.downcast::<Pad>() {
            return Some(self.pad(node, op));
        }
        if let Some(concat::Concat { axis }) = op.downcast() {
            return Some(self.concat(node, *axis));
        }
        let softmax = op.downcast::<Softmax>()?;
        Some(self.softmax(node, *softmax))
    }

    /// The last softmax is the loss's; our models give logits.
    fn softmax(&mut self, node: &Node, op: Softmax) -> Result<()> {
        if node.outputs[0] != self.output || op.axis + 1 != self.shape(node.outputs[0]).rank() {
            return Err(no_layer(
                node,
                "only a softmax at the end, over the classes, can be left out",
            ));
        }
        self.notes
            .push("the softmax at the end is left out: models give logits".into());
        let place = self.place(node, node.inputs[0])?;
        self.places.insert(node.outputs[0], place);
        Ok(())
    }

    fn transpose(&mut self, node: &Node, order: &[usize]) -> Result<()> {
        let mut place = self.places[&node.inputs[0]].clone();
        let identity: Vec<usize> = (0..order.len()).collect();
        let before = match &place.layout {
            Layout::Same => &identity,
            Layout::Permuted(before) if before.len() == order.len() => before,
            _ => return Err(no_layer(node, "it transposes flattened rows")),
        };
        let both: Vec<usize> = order.iter().map(|a| before[*a]).collect();
        place.layout = match both == identity {
            true => Layout::Same,
            false => Layout::Permuted(both),
        };
        if let Some(affine) = self.affine.get(&node.inputs[0]).cloned() {
            self.affine.insert(node.outputs[0], affine);
        }
        self.places.insert(node.outputs[0], place);
        Ok(())
    }

    fn reshape(&mut self, node: &Node) -> Result<()> {
        let (input, output) = (node.inputs[0], node.outputs[0]);
        let place = self.places[&input].clone();
        let (from, to) = (self.shape(input).dims(), self.shape(output).dims());
        if to.first() != Some(&self.batch) || from.first() != Some(&self.batch) {
            return Err(no_layer(node, "it mixes the images of a batch"));
        }
        let rows = to.len() == 2;
        match (&place.layout, from) {
            // Rows already, or rows that the layer gives and the graph had as images.
            (Layout::Flat { image, order }, _) if rows => {
                let plain = flattened(*image, order)
                    .iter()
                    .copied()
                    .eq(0..image.iter().product());
                let layout = if plain {
                    Layout::Same
                } else {
                    place.layout.clone()
                };
                self.places.insert(output, Place { layout, ..place });
            }
            (Layout::Permuted(order), [_, _, _, _]) => {
                let mut dims = [0; 4];
                order
                    .iter()
                    .zip(from)
                    .for_each(|(axis, extent)| dims[*axis] = *extent);
                let image = [dims[1], dims[2], dims[3]];
                let inner: Vec<usize> = order[1..].iter().map(|a| a - 1).collect();
                let moves = !flattened(image, &inner)
                    .iter()
                    .copied()
                    .eq(0..image.iter().product());
                // One channel last is one channel first.
                if to == dims && !moves {
                    let layout = Layout::Same;
                    if let Some(affine) = self.affine.get(&input).cloned() {
                        self.affine.insert(output, affine);
                    }
                    self.places.insert(output, Place { layout, ..place });
                } else if rows {
                    let x = self.place(node, input)?;
                    self.layer(Flatten, "flatten", None, &[&x], output);
                    if moves {
                        self.keep_layout(
                            output,
                            Layout::Flat {
                                image,
                                order: inner,
                            },
                        );
                    }
                } else {
                    return Err(no_layer(node, "it reshapes images whose channels are last"));
                }
            }
            (Layout::Same, _) => {
                let x = self.place(node, input)?;
                match rows {
                    true => self.layer(Flatten, "flatten", None, &[&x], output),
                    false => {
                        let shape = to[1..].to_vec();
                        self.layer(model::Reshape { shape }, "reshape", None, &[&x], output)
                    }
                };
            }
            _ => return Err(no_layer(node, "it reshapes what is in another order")),
        }
        Ok(())
    }

    fn pad(&mut self, node: &Node, op: &Pad) -> Result<()> {
        let x = self.place(node, node.inputs[0])?;
        let order = match &x.layout {
            Layout::Same => vec![0, 1, 2, 3],
            Layout::Permuted(order) => order.clone(),
            Layout::Flat { .. } => return Err(no_layer(node, "it pads rows")),
        };
        if op.before.len() != 4 {
            return Err(no_layer(node, "it pads what are no images"));
        }
        let (mut before, mut after) = ([0; 4], [0; 4]);
        for (k, axis) in order.iter().enumerate() {
            (before[*axis], after[*axis]) = (op.before[k], op.after[k]);
        }
        if before[..2] != [0, 0] || after[..2] != [0, 0] {
            return Err(no_layer(node, "it pads channels or images"));
        }
        let padding = Pads {
            top: before[2],
            bottom: after[2],
            left: before[3],
            right: after[3],
        };
        self.layer(ZeroPad2d { padding }, "pad", None, &[&x], node.outputs[0]);
        self.keep_layout(node.outputs[0], x.layout);
        Ok(())
    }

    fn concat(&mut self, node: &Node, axis: usize) -> Result<()> {
        let places = node.inputs.iter().map(|v| self.place(node, *v));
        let places = places.collect::<Result<Vec<_>>>()?;
        let layout = places[0].layout.clone();
        let channels = match &layout {
            Layout::Same => axis == 1,
            Layout::Permuted(order) => order.get(axis) == Some(&1),
            Layout::Flat { .. } => false,
        };
        if !channels || places.iter().any(|p| p.layout != layout) {
            return Err(no_layer(node, "it joins other axes than the channels"));
        }
        let inputs: Vec<&Place> = places.iter().collect();
        self.layer(Concat {}, "concat", None, &inputs, node.outputs[0]);
        self.keep_layout(node.outputs[0], layout);
        Ok(())
    }
}

impl Affine {
    /// This, then the operation with a number a channel.
    fn then(mut self, op: BinaryOp, numbers: &[f64]) -> Self {
        for (c, n) in numbers.iter().enumerate() {
            match op {
                BinaryOp::Sub => self.summand[c] -= n,
                BinaryOp::Mul => {
                    self.factor[c] *= n;
                    self.summand[c] *= n;
                }
                BinaryOp::Div => {
                    self.factor[c] /= n;
                    self.summand[c] /= n;
                }
                _ => self.summand[c] += n,
            }
        }
        self
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

/// For each feature of [C, H, W] in row-major order, where it lies in the rows that were
/// flattened from those axes in `order`.
fn flattened(image: [usize; 3], order: &[usize]) -> Vec<usize> {
    let mut strides = [0; 3];
    let mut stride = 1;
    for axis in order.iter().rev() {
        strides[*axis] = stride;
        stride *= image[*axis];
    }
    let [c, h, w] = image;
    let mut places = Vec::with_capacity(c * h * w);
    for i in 0..c * h * w {
        let at = [i / (h * w), i / w % h, i % w];
        places.push((0..3).map(|axis| at[axis] * strides[axis]).sum());
    }
    places
}

/// A constant that broadcasts to [N, C, ..] by channel alone, as one number a channel. With
/// `by_row` a list of C numbers is by channel; else it is broadcast along the last axis.
fn by_channel(array: &Array, shape: &Shape, by_row: bool) -> Option<Vec<f64>> {
    let channels = *shape.dims().get(1)?;
    let data = array.f();
    if data.len() == 1 {
        return Some(vec![data[0]; channels]);
    }
    let missing = shape.rank().checked_sub(array.dims().len())?;
    let aligned = [vec![1; missing], array.dims().to_vec()].concat();
    let fits = by_row
        || aligned
            .iter()
            .enumerate()
            .all(|(axis, d)| axis == 1 || *d == 1);
    (fits && data.len() == channels).then(|| data.to_vec())
}

/// A constant that broadcasts to [N, H, W, C] by channel alone, as one number a channel.
fn last_axis(array: &Array, shape: &Shape) -> Option<Vec<f64>> {
    let channels = *shape.dims().last()?;
    let data = array.f();
    let last = array.dims().last().copied().unwrap_or(1);
    match data.len() {
        1 => Some(vec![data[0]; channels]),
        n if n == channels && last == channels => Some(data.to_vec()),
        _ => None,
    }
}
