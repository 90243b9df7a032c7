//! Ops that move elements: reshapes, transpositions, padding, concatenations.

use super::{Layout, Place, Raise, no_layer};
use crate::error::Result;
use crate::graph::Node;
use crate::model::{self, Concat, Flatten, ZeroPad2d};
use crate::ops::pad::Pad;
use crate::ops::reshape::Reshape;
use crate::ops::softmax::Softmax;
use crate::ops::transpose::Transpose;
use crate::ops::{Pads, concat};

impl<'a> Raise<'a> {
    /// Ops that move elements; `None` where the node is none.
    pub(super) fn rearranged(&mut self, at: usize) -> Option<Result<()>> {
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

/// For each feature of [C, H, W] in row-major order, where it lies in the rows that were
/// flattened from those axes in `order`.
pub(super) fn flattened(image: [usize; 3], order: &[usize]) -> Vec<usize> {
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
