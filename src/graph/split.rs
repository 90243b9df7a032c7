//! Products whose weight is more than a device can bind at once.
//!
//! A dense layer's weight W, `[out, in]`, lies in a state, and what a binding may span is a part
//! of it: some of its rows. So each of the three products of such a layer is taken apart along
//! `out`:
//!
//! ```text
//! forward           y = x Wᵀ      columns of y side by side:  y = [x W₀ᵀ, x W₁ᵀ, …]
//! input gradient    dx = dy W     a sum over columns of dy:   dx = dy₀ W₀ + dy₁ W₁ + …
//! weight gradient   dW = dyᵀ x    rows of dW one by one:      dWᵢ = dyᵢᵀ x
//! ```

use super::{Graph, Node, Origin};
use crate::error::Result;
use crate::ops::binary::{Binary, BinaryOp};
use crate::ops::concat::Concat;
use crate::ops::matmul::MatMul;
use crate::ops::optimizer::BLOCK;
use crate::ops::pad::Slice;
use crate::ops::{Builder, Op, Value};
use crate::tensor::{Shape, TensorType};
use std::ops::Range;
use std::sync::Arc;

impl Graph {
    /// Whether a product's weight, or its gradient, has more than `limit` bytes.
    pub(super) fn has_products_above(&self, limit: u64) -> bool {
        let above = |value: Value| self.ty(value).bytes() > limit;
        let products = self.nodes.iter();
        let mut products = products.filter(|n| n.op.downcast::<MatMul>().is_some());
        products.any(|n| above(n.inputs[1]) || above(n.outputs[0]))
    }

    /// The graph with the products taken apart whose weight, or its gradient, has more than
    /// `limit` bytes. Others that large stay: their launch is an error.
    ///
    /// # Errors
    /// None that the nodes did not have before.
    pub(super) fn split_products(mut self, limit: u64) -> Result<Self> {
        let nodes = std::mem::take(&mut self.nodes);
        for node in &nodes {
            self.layer.clone_from(&node.layer);
            let before = self.nodes.len();
            if !self.split_product(node, limit, &nodes)? {
                self.nodes.push(node.clone());
            }
            for made in &mut self.nodes[before..] {
                made.guard = node.guard;
            }
        }
        Ok(self)
    }

    /// Adds what stands for a node among `nodes`, if it is a product to be taken apart.
    fn split_product(&mut self, node: &Node, limit: u64, nodes: &[Node]) -> Result<bool> {
        let Some(op) = node.op.downcast::<MatMul>() else {
            return Ok(false);
        };
        let op = *op;
        let plain = !op.bias && op.activation == Default::default();
        let (b, output) = (node.inputs[1], node.outputs[0]);
        let unread = || nodes.iter().all(|n| !n.inputs.contains(&output));
        let rows_of = |graph: &Self, value| rows(graph.ty(value), limit);
        match [op.transpose_a, op.transpose_b] {
            [false, true] => match rows_of(self, b) {
                Some(parts) => self.split_forward(node, op, &parts),
                None => Ok(false),
            },
            [false, false] if plain => match rows_of(self, b) {
                Some(parts) => self.split_input_gradient(node, op, &parts),
                None => Ok(false),
            },
            [true, false] if plain && unread() => match rows_of(self, output) {
                Some(parts) => self.split_weight_gradient(node, op, &parts),
                None => Ok(false),
            },
            _ => Ok(false),
        }
    }

    fn split_forward(&mut self, node: &Node, op: MatMul, parts: &[Range<usize>]) -> Result<bool> {
        let mut columns = Vec::new();
        for part in parts {
            let mut inputs = vec![node.inputs[0]];
            for operand in &node.inputs[1..] {
                let Some(view) = self.rows(*operand, part)? else {
                    return Ok(false);
                };
                inputs.push(view);
            }
            columns.push(inputs);
        }
        let products = columns
            .iter()
            .map(|inputs| self.add1(Box::new(op), inputs))
            .collect::<Result<Vec<_>>>()?;
        self.add_for(node, Concat { axis: 1 }, products);
        Ok(true)
    }

    fn split_input_gradient(
        &mut self,
        node: &Node,
        op: MatMul,
        parts: &[Range<usize>],
    ) -> Result<bool> {
        let mut views = Vec::new();
        for part in parts {
            let Some(view) = self.rows(node.inputs[1], part)? else {
                return Ok(false);
            };
            views.push(view);
        }
        let mut sum: Option<Value> = None;
        for (i, (part, view)) in parts.iter().zip(views).enumerate() {
            let dy = self.columns(node.inputs[0], part)?;
            let product = self.add1(Box::new(op), &[dy, view])?;
            sum = match sum {
                None => Some(product),
                Some(sum) if i + 1 == parts.len() => {
                    self.add_for(node, Binary(BinaryOp::Add), vec![sum, product]);
                    None
                }
                Some(sum) => Some(self.add1(Box::new(Binary(BinaryOp::Add)), &[sum, product])?),
            };
        }
        Ok(true)
    }

    fn split_weight_gradient(
        &mut self,
        node: &Node,
        op: MatMul,
        parts: &[Range<usize>],
    ) -> Result<bool> {
        let Some(target) = self.value(node.outputs[0]).store else {
            return Ok(false);
        };
        let shape = self.ty(node.outputs[0]).shape.clone();
        for part in parts {
            let [offset, len] = [part.start, part.len()].map(|rows| rows * shape[1]);
            let Some(target) = self.part(target, offset, [len].into())? else {
                return Ok(false);
            };
            let dy = self.columns(node.inputs[0], part)?;
            let product = self.add1(Box::new(op), &[dy, node.inputs[1]])?;
            self.store(product, target)?;
        }
        Ok(true)
    }

    /// Adds a node that computes what `node` does.
    fn add_for(&mut self, node: &Node, op: impl Op, inputs: Vec<Value>) {
        self.nodes.push(Node {
            op: Arc::new(op),
            inputs,
            ..node.clone()
        });
    }

    /// Columns of a matrix, as a matrix.
    fn columns(&mut self, matrix: Value, columns: &Range<usize>) -> Result<Value> {
        let slice = Slice {
            starts: vec![0, columns.start],
            shape: [self.ty(matrix).shape[0], columns.len()].into(),
        };
        self.add1(Box::new(slice), &[matrix])
    }

    /// Elements of the first axis of a value that lies in a state, if it does.
    fn rows(&mut self, value: Value, rows: &Range<usize>) -> Result<Option<Value>> {
        let shape = self.ty(value).shape.clone();
        let row: usize = shape.dims()[1..].iter().product();
        let mut dims = shape.dims().to_vec();
        dims[0] = rows.len();
        self.part(value, rows.start * row, Shape::new(dims))
    }

    /// A part of a value that lies in a state, if it does.
    fn part(&mut self, value: Value, start: usize, shape: Shape) -> Result<Option<Value>> {
        let (of, first) = match self.value(value).origin {
            Origin::State(_) => (value, 0),
            Origin::View { of, offset } => (of, offset),
            Origin::Result => return Ok(None),
        };
        self.view(of, first + start, shape).map(Some)
    }
}

/// The rows of each part of a matrix, where it has more than `limit` bytes and whole blocks of
/// rows, so that each part and that of a bias begin where a binding may, have fewer.
fn rows(matrix: &TensorType, limit: u64) -> Option<Vec<Range<usize>>> {
    if matrix.bytes() <= limit || matrix.shape.rank() != 2 {
        return None;
    }
    let [count, row] = [matrix.shape[0], matrix.shape[1]];
    let most = limit as usize / (row * matrix.dtype.size()) / BLOCK * BLOCK;
    if most == 0 {
        return None;
    }
    // As even as blocks allow.
    let each = count.div_ceil(count.div_ceil(most)).next_multiple_of(BLOCK);
    let starts = (0..count).step_by(each);
    Some(starts.map(|s| s..count.min(s + each)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Arena, Backend, CpuBackend};
    use crate::ops::activation::{Activation, Function};
    use crate::ops::bias::BiasAdd;
    use crate::ops::cross_entropy::SoftmaxCrossEntropy;
    use crate::ops::{Array, Draw, Step};

    #[test]
    fn parts_are_even_blocks_below_the_limit() {
        let ranges = |rows, limit| super::rows(&TensorType::f32([rows, 100]), limit);
        assert_eq!(ranges(300, 400 * 300), None);
        assert_eq!(ranges(300, 400 * 63), None, "not even one block fits");
        let found = ranges(300, 400 * 130).unwrap();
        assert_eq!(found, [0..128, 128..256, 256..300]);
        assert_eq!(ranges(256, 400 * 200).unwrap(), [0..128, 128..256]);
    }

    /// Loss, gradients and logits of a dense layer of 5 images, split as `limit` asks.
    fn run(draw: &mut Draw, [inputs, units]: [usize; 2], limit: u64) -> (usize, [Array; 3]) {
        let arena = Arena::new([
            ("weight".into(), [units, inputs].into()),
            ("bias".into(), [units].into()),
        ]);
        let mut backend = CpuBackend::new();
        let mut graph = Graph::new();
        let x_ty = TensorType::f32([5, inputs]);
        let labels_ty = TensorType::u32([5]);
        let y_ty = TensorType::f32([5, units]);
        let states = [
            ("x", x_ty.clone()),
            ("dx", x_ty),
            ("y", y_ty),
            ("parameters", arena.ty()),
            ("gradients", arena.ty()),
        ];
        let [x, dx, y, parameters, gradients] = states.map(|(name, ty)| {
            backend.create(name, &ty).unwrap();
            if ["x", "parameters"].contains(&name) {
                let data = (0..ty.shape.len()).map(|_| draw.float(-1.0, 1.0));
                let data = Array::float(ty.clone(), data.collect());
                backend.write(name, &data).unwrap();
            }
            graph.state(name, ty)
        });
        backend.create("labels", &labels_ty).unwrap();
        let weights = arena.views(&mut graph, parameters).unwrap();
        let product = MatMul::new(false, true);
        let product = graph.add1(Box::new(product), &[x, weights[0]]).unwrap();
        let sum = graph
            .add1(Box::new(BiasAdd), &[product, weights[1]])
            .unwrap();
        let relu = Box::new(Activation(Function::Relu));
        let logits = graph.add1(relu, &[sum]).unwrap();
        let labels = graph.state("labels", labels_ty);
        let loss = SoftmaxCrossEntropy::default();
        let loss = graph.add(Box::new(loss), &[logits, labels]).unwrap()[0];
        let wanted = [weights[0], weights[1], x];
        let found = graph.gradients(loss, &wanted).unwrap();
        let mut targets = arena.views(&mut graph, gradients).unwrap();
        targets.push(dx);
        for (gradient, target) in found.into_iter().zip(targets) {
            graph.store(gradient.unwrap(), target).unwrap();
        }
        graph.store(logits, y).unwrap();
        let graph = graph.optimized().split_products(limit).unwrap();
        let nodes = graph.nodes().len();
        for node in graph.nodes() {
            for value in node.inputs.iter().chain(&node.outputs) {
                assert!(graph.ty(*value).bytes() <= limit, "{}", node.label());
            }
        }
        let program = backend.compile(graph).unwrap();
        backend.run(program, &[Step::default()]).unwrap();
        (
            nodes,
            ["y", "dx", "gradients"].map(|s| backend.read(s).unwrap()),
        )
    }

    /// In float64 only the order of the sums over parts differs: a few units in the last place.
    #[test]
    fn forward_and_both_gradients_are_those_of_the_whole_product() {
        for case in 0..10 {
            let shape = {
                let mut draw = Draw::new(case);
                [draw.int(1, 40), draw.int(65, 400)]
            };
            let whole = run(&mut Draw::new(case), shape, u64::MAX);
            let row = 4 * shape[0] as u64;
            let limit = (64 * row).max(4 * 5 * 400);
            let split = run(&mut Draw::new(case), shape, limit);
            let fits = 4 * (shape[0] * shape[1]) as u64 <= limit;
            assert_eq!(split.0 == whole.0, fits, "{shape:?}");
            for (found, expected) in split.1.iter().zip(&whole.1) {
                for (f, e) in found.f().iter().zip(expected.f()) {
                    assert!((f - e).abs() <= 1e-12, "{shape:?}: {f} {e}");
                }
            }
        }
    }
}
