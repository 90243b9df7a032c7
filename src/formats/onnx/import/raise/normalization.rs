//! What a file does to its input before the first layer.

use super::{Affine, Raise};
use crate::error::{Error, Result};
use crate::model::INPUT;
use crate::ops::batch::Normalization;
use crate::ops::binary::BinaryOp;

impl<'a> Raise<'a> {
    /// What the file does to its input, or what was stated.
    pub(super) fn normalization(&mut self, stated: Option<Normalization>) -> Result<Normalization> {
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
}

impl Affine {
    /// This, then the operation with a number a channel.
    pub(super) fn then(mut self, op: BinaryOp, numbers: &[f64]) -> Self {
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
