//! Pools.

use super::{Layout, Raise, no_layer, padding};
use crate::error::Result;
use crate::graph::Node;
use crate::model::{self, AvgPool2d, GlobalAvgPool, Layer, MaxPool2d, ZeroPad2d};
use crate::ops::reshape::Reshape;
use crate::ops::{Pads, Window, pool2d};

impl<'a> Raise<'a> {
    /// A pool; `None` where the node is none.
    pub(super) fn pool(&mut self, node: &Node) -> Option<Result<()>> {
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
}
