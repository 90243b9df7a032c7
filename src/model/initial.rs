//! How parameters start.

use crate::tensor::{Shape, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// An initialiser. Keras's defaults: Glorot uniform for kernels, zeros for biases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// All this number.
    Constant(f64),
    /// Uniform in ±√(6 / (fan_in + fan_out)) (Glorot and Bengio 2010).
    GlorotUniform {
        /// Inputs of one output.
        fan_in: usize,
        /// Outputs of one input.
        fan_out: usize,
    },
}

impl Init {
    /// The tensor of a shape, drawn from stream `index` of the seed.
    pub(super) fn draw(&self, shape: &Shape, seed: u32, index: usize) -> Tensor {
        let mut tensor = Tensor::zeros(shape.clone());
        match self {
            Self::Zeros => {}
            Self::Ones => tensor.data_mut().fill(1.0),
            Self::Constant(value) => tensor.data_mut().fill(*value as f32),
            Self::GlorotUniform { fan_in, fan_out } => {
                let limit = (6.0 / (*fan_in as f64 + *fan_out as f64)).sqrt() as f32;
                let mut rng = ChaCha8Rng::seed_from_u64(u64::from(seed));
                rng.set_stream(index as u64);
                for x in tensor.data_mut() {
                    *x = rng.random_range(-limit..limit);
                }
            }
        }
        tensor
    }
}
