//! Layers with weights: convolutions, dense layers, batch normalisation.

use super::super::name::layer_of;
use super::elementwise::by_channel;
use super::moves::flattened;
use super::{Layout, Raise, no_layer, padding};
use crate::error::Result;
use crate::graph::Node;
use crate::model::{BatchNorm2d, Conv2d, Dense};
use crate::ops::bias::BiasAdd;
use crate::ops::binary::{Binary, BinaryOp};
use crate::ops::{Value, conv2d, matmul};
use crate::tensor::Shape;

impl<'a> Raise<'a> {
    pub(super) fn convolution(&mut self, at: usize, op: &conv2d::Conv2d) -> Result<()> {
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

    pub(super) fn dense(&mut self, at: usize, op: matmul::MatMul) -> Result<()> {
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

    pub(super) fn batch_norm(&mut self, node: &Node, epsilon: f64) -> Result<()> {
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
}
