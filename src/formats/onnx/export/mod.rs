//! Models as ONNX files.
//!
//! A model is lowered as for inference, and each op is written as ONNX operators: so a layer
//! that is made of ops that are here needs nothing of its own.

mod ops;

use super::proto::{GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto};
use super::write::{batched, bytes, floats, node, with};
use crate::error::{Error, Result};
use crate::formats::safetensors::{Int8Scales, Tensors};
use crate::graph::{Graph, Node, Origin};
use crate::model::{INPUT, Model};
use crate::ops::batch::Normalization;
use crate::ops::{Builder, Value};
use ops::Place;
use prost::Message;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The version of ONNX's operators that files are written in: the first with
/// `LayerNormalization`, and old enough for every runtime of the last years. What came later
/// is written out (GELU), or not needed.
pub const OPSET: i64 = 17;
/// The version of the format that came with it.
const IR_VERSION: i64 = 8;
/// What protobuf allows a message.
const MOST_BYTES: usize = i32::MAX as usize;

/// The key of the classes' names among a file's metadata: a JSON list.
pub const CLASSES: &str = "classes";
/// The key of the normalisation among a file's metadata: a JSON object with the fields of
/// [`Normalization`].
pub const NORMALIZATION: &str = "normalization";

/// What goes into the file besides the layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// End in `probabilities`, by softmax, instead of `logits`.
    pub softmax: bool,
    /// Take images that are normalised already; otherwise the file takes pixels from 0 to 255
    /// and normalises them itself.
    pub normalized_input: bool,
}

/// The bytes of an ONNX file of a trained model.
///
/// Input: `input`, float32 `[batch, channels, rows, columns]`, pixels from 0 to 255 (see
/// [`Options::normalized_input`]), colours in the order red, green, blue. Output: `logits`, or
/// `probabilities`, float32 `[batch, classes]`. The batch is free. Weights keep their names,
/// values are called after the layers. The file's metadata tell the names of the `classes` and
/// the `normalization`. Batch normalisation uses its running statistics, dropout is left out.
///
/// # Errors
/// One error that names every layer that ONNX 17 has no operators for; or if the weights do
/// not belong to the model.
pub fn export(
    model: &Model,
    weights: &Tensors,
    classes: &[String],
    options: Options,
) -> Result<Vec<u8>> {
    export_int8(model, weights, &Int8::new(), classes, options)
}

/// As [`export`], with the layers of `int8` in eight bits: their inputs pass through
/// `QuantizeLinear` and `DequantizeLinear`, their weights are signed bytes with one step a
/// filter and `DequantizeLinear` behind them. Runtimes fuse these into integer operators.
///
/// # Errors
/// As [`export`].
pub fn export_int8(
    model: &Model,
    weights: &Tensors,
    int8: &Int8,
    classes: &[String],
    options: Options,
) -> Result<Vec<u8>> {
    model.check_weights(weights, "weights")?;
    let graph = Exporter::new(model, weights, int8)?.run(options)?;
    let file = ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: OPSET,
        }],
        producer_name: "gpucnn".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        metadata_props: vec![
            entry(CLASSES, &serde_json::json!(classes)),
            entry(NORMALIZATION, &as_json(model.normalization())),
        ],
        ..ModelProto::default()
    };
    if file.encoded_len() > MOST_BYTES {
        let problem = "is over 2 GiB, more than an ONNX file may hold";
        return Err(Error::model(model.name(), problem));
    }
    Ok(file.encode_to_vec())
}

fn entry(key: &str, value: &serde_json::Value) -> StringStringEntryProto {
    StringStringEntryProto {
        key: key.into(),
        value: value.to_string(),
    }
}

fn as_json(normalization: &Normalization) -> serde_json::Value {
    let Normalization { scale, mean, std } = normalization;
    serde_json::json!({"scale": scale, "mean": mean, "std": std})
}

/// The steps of the layers in eight bits, by name.
type Int8 = BTreeMap<String, Int8Scales>;

/// A model on its way into a file.
struct Exporter<'a> {
    model: &'a Model,
    weights: &'a Tensors,
    int8: &'a Int8,
    /// The model's ops for one image and for two: what differs is the batch.
    graphs: [Graph; 2],
    images: Value,
    /// What the model computes.
    result: Value,
    file: GraphProto,
    names: HashMap<Value, String>,
    taken: HashSet<String>,
}

impl<'a> Exporter<'a> {
    fn new(model: &'a Model, weights: &'a Tensors, int8: &'a Int8) -> Result<Self> {
        let (one, outputs) = model.inference_graph(1)?;
        let (two, _) = model.inference_graph(2)?;
        let mut exporter = Self {
            model,
            weights,
            int8,
            graphs: [one, two],
            images: outputs[0],
            result: outputs[outputs.len() - 1],
            file: GraphProto::default(),
            names: HashMap::new(),
            taken: HashSet::from([INPUT.to_owned()]),
        };
        exporter.file.name = model.name().into();
        exporter.name(exporter.result, "logits");
        let layers = model.layers().iter().zip(&outputs[1..]);
        for (layer, value) in layers {
            // Dropout's output is its input, which has a name.
            if *value != outputs[0] && !exporter.names.contains_key(value) {
                exporter.name(*value, &layer.name);
            }
        }
        Ok(exporter)
    }

    fn run(mut self, options: Options) -> Result<GraphProto> {
        self.input(options);
        let mut refused = Vec::new();
        let mut at = 0;
        while at < self.graphs[0].nodes().len() {
            let written = self.node(at)?;
            if written == 0 {
                refused.push(self.graphs[0].nodes()[at].label());
            }
            at += written.max(1);
        }
        if !refused.is_empty() {
            let problem = format!(
                "ONNX {OPSET} has no operators for {}; leave these layers out, or export \
                 --format safetensors",
                refused.join(", ")
            );
            return Err(Error::model(self.model.name(), problem));
        }
        self.output(options);
        Ok(self.file)
    }

    /// Gives a value a name that no other has.
    fn name(&mut self, value: Value, wanted: &str) -> String {
        let numbered = (2..).map(|n| format!("{wanted}_{n}"));
        let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
        let taken = &self.taken;
        let name = names.find(|n| !taken.contains(n)).unwrap_or_default();
        self.taken.insert(name.clone());
        self.names.insert(value, name.clone());
        name
    }

    /// Declares the input and writes its normalisation.
    fn input(&mut self, options: Options) {
        let [channels, ..] = self.model.input();
        let colours = if channels == 3 { ", RGB" } else { "" };
        let doc = match options.normalized_input {
            true => format!("images{colours}, normalised as the metadata tell"),
            false => format!("images{colours}, pixels from 0 to 255"),
        };
        let input = batched(INPUT, &self.model.input(), doc);
        self.file.input.push(input);
        let mut last = INPUT.to_owned();
        if !options.normalized_input {
            last = self.normalization(last);
        }
        self.names.insert(self.images, last);
    }

    /// `pixel * factor + summand`, by channel; returns what the result is called.
    fn normalization(&mut self, pixels: String) -> String {
        let normalization = self.model.normalization();
        let channels = self.model.input()[0];
        let affine: Vec<_> = (0..channels).map(|c| normalization.affine(c)).collect();
        let (factors, summands): (Vec<f32>, Vec<f32>) = affine.into_iter().unzip();
        let dims = [1, channels, 1, 1];
        let mut last = pixels;
        for (op_type, values, neutral) in [("Mul", factors, 1.0), ("Add", summands, 0.0)] {
            if values.iter().all(|v| *v == neutral) {
                continue;
            }
            let output = format!("normalization/{}", op_type.to_lowercase());
            let constant = format!("{output}.value");
            self.file
                .initializer
                .push(floats(&constant, &dims, &values));
            self.file
                .node
                .push(node(op_type, vec![last, constant], &output));
            last = output;
        }
        last
    }

    fn output(&mut self, options: Options) {
        let mut last = self.names[&self.result].clone();
        if options.softmax {
            let softmax = node("Softmax", vec![last], "probabilities");
            self.file.node.push(with(softmax, "axis", 1));
            last = "probabilities".into();
        }
        let classes = [self.model.classes()];
        self.file
            .output
            .push(batched(&last, &classes, String::new()));
    }

    /// What a value is called; a weight that is read for the first time is put into the file.
    fn value(&mut self, value: Value) -> Result<String> {
        if let Some(name) = self.names.get(&value) {
            return Ok(name.clone());
        }
        let info = self.graphs[0].value(value);
        let Origin::State(name) = &info.origin else {
            unreachable!("inference computes what it reads");
        };
        let weight = self.weights.get(name);
        let weight = weight.ok_or_else(|| Error::model(self.model.name(), format!("no {name}")))?;
        let tensor = floats(name, weight.shape().dims(), weight.data());
        self.file.initializer.push(tensor);
        self.taken.insert(name.clone());
        self.names.insert(value, name.clone());
        Ok(name.clone())
    }

    /// What a convolution or product in eight bits reads.
    fn quantized(&mut self, from: &Node, scales: &Int8Scales) -> Result<Vec<String>> {
        let layer = &from.layer;
        let weight_name = format!("{layer}.weight");
        let weight = self.weights.get(&weight_name);
        let weight = weight.ok_or_else(|| Error::shape(&weight_name, "the weight is missing"))?;
        let x = self.value(from.inputs[0])?;
        let one = [
            floats(&format!("{layer}.input_scale"), &[], &[scales.input]),
            bytes(&format!("{layer}.input_zero"), &[], vec![0]),
        ];
        let filters = scales.weights.len();
        let row = (weight.data().len() / filters.max(1)).max(1);
        let rows = weight.data().chunks_exact(row).zip(&scales.weights);
        let quantized = rows.flat_map(|(row, step)| {
            let number = move |w: &f32| (w / step).round_ties_even().clamp(-127.0, 127.0) as i8;
            row.iter().map(number)
        });
        let each = [
            bytes(&weight_name, weight.shape().dims(), quantized.collect()),
            floats(
                &format!("{layer}.weight_scale"),
                &[filters],
                &scales.weights,
            ),
            bytes(
                &format!("{layer}.weight_zero"),
                &[filters],
                vec![0; filters],
            ),
        ];
        let names: Vec<String> = one.iter().chain(&each).map(|t| t.name.clone()).collect();
        let [scale, zero, weight, weight_scale, weight_zero] = names.try_into().expect("five");
        self.file.initializer.extend(one.into_iter().chain(each));
        let [q, x_out, w_out] = ["input_quantized", "input_dequantized", "weight_dequantized"]
            .map(|role| format!("{layer}/{role}"));
        let steps = [
            node("QuantizeLinear", vec![x, scale.clone(), zero.clone()], &q),
            node("DequantizeLinear", vec![q.clone(), scale, zero], &x_out),
            with(
                node(
                    "DequantizeLinear",
                    vec![weight, weight_scale, weight_zero],
                    &w_out,
                ),
                "axis",
                0,
            ),
        ];
        self.file.node.extend(steps);
        let mut inputs = vec![x_out, w_out];
        for value in &from.inputs[2..] {
            inputs.push(self.value(*value)?);
        }
        Ok(inputs)
    }

    /// Writes the node `at`, and with it the next where both are one operator. Returns how
    /// many were written: none where ONNX has no operators for it.
    fn node(&mut self, at: usize) -> Result<usize> {
        let nodes = self.graphs[0].nodes();
        let mut node = nodes[at].clone();
        let mut count = 1;
        if let Some(bias) = nodes.get(at + 1)
            && bias.inputs[0] == node.outputs[0]
            && ops::is_gemm(&*node.op, &*bias.op)
        {
            node.inputs.push(bias.inputs[1]);
            node.outputs.clone_from(&bias.outputs);
            count = 2;
        }
        let output = node.outputs[0];
        let shapes = |value: Value| [0, 1].map(|i| self.graphs[i].ty(value).shape.clone());
        let (from, to) = (shapes(node.inputs[0]), shapes(output));
        let inputs = match self
            .int8
            .get(&node.layer)
            .filter(|_| ops::has_weight(&*node.op))
        {
            Some(scales) => self.quantized(&node, scales)?,
            None => {
                let inputs = node.inputs.iter().map(|v| self.value(*v));
                inputs.collect::<Result<_>>()?
            }
        };
        let output = match self.names.get(&output) {
            Some(name) => name.clone(),
            None => self.name(output, &format!("{}/{}", node.layer, node.op.name())),
        };
        let place = Place {
            file: &mut self.file,
            inputs,
            output,
            shapes: [from, to],
        };
        Ok(match ops::write(&*node.op, place) {
            true => count,
            false => 0,
        })
    }
}
