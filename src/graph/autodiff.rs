//! Reverse-mode differentiation: gradients as further nodes of the same graph.

use super::Graph;
use crate::error::{Error, Result};
use crate::ops::binary::{Binary, BinaryOp};
use crate::ops::{Builder, NodeView, Value};
use std::collections::{HashMap, HashSet};

impl Graph {
    /// Adds the nodes that compute d`loss`/d`w` for each `w` and returns their
    /// values; `None` where the loss does not depend on it. `loss` is a scalar.
    ///
    /// # Errors
    /// If the loss is no scalar or an op on the way has no gradient.
    pub fn gradients(&mut self, loss: Value, wrt: &[Value]) -> Result<Vec<Option<Value>>> {
        if self.value(loss).ty.shape.len() != 1 {
            let found = &self.value(loss).ty;
            return Err(Error::shape(
                "gradients",
                format!("the loss must be a scalar, found {found}"),
            ));
        }
        let reached = self.depending_on(wrt);
        let mut gradients: HashMap<Value, Value> = HashMap::new();
        let seed = self.one()?;
        gradients.insert(loss, seed);
        let outer = self.layer.clone();
        for index in (0..self.nodes.len()).rev() {
            let node = self.nodes[index].clone();
            let upstream: Vec<_> = node
                .outputs
                .iter()
                .map(|v| gradients.get(v).copied())
                .collect();
            let wanted: Vec<_> = node.inputs.iter().map(|v| reached.contains(v)).collect();
            if upstream.iter().all(Option::is_none) || !wanted.contains(&true) {
                continue;
            }
            self.set_layer(node.layer.clone());
            let view = NodeView {
                inputs: &node.inputs,
                outputs: &node.outputs,
                wanted: &wanted,
            };
            let op = node.op.clone();
            let contributions = op.gradient(self, view, &upstream)?;
            for ((input, wanted), gradient) in node.inputs.iter().zip(&wanted).zip(contributions) {
                if let (true, Some(gradient)) = (*wanted, gradient) {
                    self.accumulate(&mut gradients, *input, gradient)?;
                }
            }
        }
        self.layer = outer;
        Ok(wrt.iter().map(|v| gradients.get(v).copied()).collect())
    }

    /// Adds to the gradient of a value that several nodes read.
    fn accumulate(
        &mut self,
        gradients: &mut HashMap<Value, Value>,
        of: Value,
        gradient: Value,
    ) -> Result<()> {
        let total = match gradients.get(&of) {
            Some(so_far) => {
                let add = Box::new(Binary(BinaryOp::Add));
                self.add1(add, &[*so_far, gradient])?
            }
            None => gradient,
        };
        gradients.insert(of, total);
        Ok(())
    }

    /// The values that depend on any of `sources`, these included.
    fn depending_on(&self, sources: &[Value]) -> HashSet<Value> {
        let mut reached: HashSet<Value> = sources.iter().copied().collect();
        for node in &self.nodes {
            if node.inputs.iter().any(|v| reached.contains(v)) {
                reached.extend(&node.outputs);
            }
        }
        reached
    }
}
