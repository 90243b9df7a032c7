//! A model in a table: layers, shapes, parameters, work and memory.

use super::Model;
use crate::error::Result;
use crate::ops::Builder;
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use serde::Serialize;
use std::fmt;

/// A layer in numbers, for one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerSummary {
    /// The layer's name.
    pub name: String,
    /// Its type in model files.
    #[serde(rename = "type")]
    pub type_name: &'static str,
    /// What it reads.
    pub inputs: Vec<String>,
    /// Its output for one image, without the batch.
    pub output: Vec<usize>,
    /// Trainable numbers.
    pub parameters: usize,
    /// Running statistics.
    pub statistics: usize,
    /// Floating-point operations of the forward pass; a multiply-add counts two.
    pub flops: u64,
    /// Bytes of its output; 0 where it is the input under another name.
    pub activation_bytes: u64,
}

/// A model in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The model's name.
    pub model: String,
    /// Channels, rows and columns of an image.
    pub input: [usize; 3],
    /// The layers.
    pub layers: Vec<LayerSummary>,
    /// Trainable numbers.
    pub parameters: usize,
    /// Running statistics.
    pub statistics: usize,
    /// Forward FLOPs of an image.
    pub flops: u64,
    /// Bytes of all activations of an image: what training keeps.
    pub activation_bytes: u64,
}

impl Model {
    /// The model in numbers.
    ///
    /// # Errors
    /// None for a model that was built; the signature follows lowering's.
    pub fn summary(&self) -> Result<Summary> {
        let (graph, outputs, _) = self.trace(1)?;
        let layers: Vec<LayerSummary> = self
            .layers()
            .iter()
            .zip(&outputs[1..])
            .map(|(named, output)| {
                let nodes = graph.nodes().iter().filter(|n| n.layer == named.name);
                let types = |values: &[crate::ops::Value]| {
                    let types = values.iter().map(|v| graph.ty(*v).clone());
                    types.collect::<Vec<_>>()
                };
                let output = graph.ty(*output);
                let mut flops = 0;
                let mut renames = true;
                for node in nodes {
                    let more = node.op.flops(&types(&node.inputs), &types(&node.outputs));
                    flops = more.saturating_add(flops);
                    renames &= node.op.alias().is_some();
                }
                let count = |trainable: bool| {
                    let mine = self.parameters().iter();
                    mine.filter(|p| p.layer() == named.name && p.trainable == trainable)
                        .map(|p| p.shape.len())
                        .sum()
                };
                LayerSummary {
                    name: named.name.clone(),
                    type_name: named.layer.type_name(),
                    inputs: named.inputs.clone(),
                    output: output.shape.dims()[1..].to_vec(),
                    parameters: count(true),
                    statistics: count(false),
                    flops,
                    activation_bytes: if renames { 0 } else { output.bytes() },
                }
            })
            .collect();
        Ok(Summary {
            model: self.name().to_owned(),
            input: self.input(),
            parameters: layers.iter().map(|l| l.parameters).sum(),
            statistics: layers.iter().map(|l| l.statistics).sum(),
            flops: layers.iter().fold(0, |n, l| n.saturating_add(l.flops)),
            activation_bytes: layers.iter().map(|l| l.activation_bytes).sum(),
            layers,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [c, h, w] = self.input;
        writeln!(f, "{}: images of {c} x {h} x {w}", self.model)?;
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
        table.set_header([
            "Layer",
            "Type",
            "Reads",
            "Output",
            "Parameters",
            "FLOPs",
            "Memory",
        ]);
        for layer in &self.layers {
            table.add_row([
                layer.name.clone(),
                layer.type_name.to_owned(),
                layer.inputs.join(", "),
                extents(&layer.output),
                grouped(layer.parameters as u64),
                grouped(layer.flops),
                bytes(layer.activation_bytes),
            ]);
        }
        for column in table.column_iter_mut().skip(4) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        writeln!(
            f,
            "Trainable parameters: {} ({}); running statistics: {}",
            grouped(self.parameters as u64),
            bytes(4 * self.parameters as u64),
            grouped(self.statistics as u64),
        )?;
        write!(
            f,
            "An image: {} FLOPs forward, about {} to train; {} of activations",
            grouped(self.flops),
            grouped(3 * self.flops),
            bytes(self.activation_bytes),
        )
    }
}

fn extents(dims: &[usize]) -> String {
    let dims: Vec<_> = dims.iter().map(usize::to_string).collect();
    dims.join(" x ")
}

/// 1234567 as "1,234,567".
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes for people.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}
