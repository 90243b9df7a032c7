//! How parameters start.

use crate::tensor::{Shape, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

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
    /// A convolution `[filters, channels, kH, kW]` that begins as the identity: filter `i`
    /// passes channel `i` on, by a one in the middle of the kernel among zeros (Zagoruyko and
    /// Komodakis 2017, "DiracNets"). Filters beyond the channels are Glorot uniform, as for
    /// airbench.
    Dirac {
        /// Inputs of one output.
        fan_in: usize,
        /// Outputs of one input.
        fan_out: usize,
    },
}

/// How the weights of a convolution or a dense layer start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelInit {
    /// As [`Init::GlorotUniform`].
    #[default]
    GlorotUniform,
    /// As [`Init::Zeros`]: for the last layer, whose first logits then tell nothing, or for the
    /// end of a residual branch.
    Zeros,
    /// As [`Init::Dirac`], of convolutions only.
    Dirac,
    /// From the training images, so that over all their patches the results are uncorrelated
    /// and of one variance: see [`train::whitened`](crate::train::whitened). Of convolutions
    /// only; without images, Glorot uniform.
    Whiten,
}

impl Init {
    /// The tensor of a shape, drawn from stream `index` of the seed.
    pub(super) fn draw(&self, shape: &Shape, seed: u32, index: usize) -> Tensor {
        let mut tensor = Tensor::zeros(shape.clone());
        match self {
            Self::Zeros => {}
            Self::Ones => tensor.data_mut().fill(1.0),
            Self::Constant(value) => tensor.data_mut().fill(*value as f32),
            Self::GlorotUniform { fan_in, fan_out } | Self::Dirac { fan_in, fan_out } => {
                let limit = (6.0 / (*fan_in as f64 + *fan_out as f64)).sqrt() as f32;
                let mut rng = ChaCha8Rng::seed_from_u64(u64::from(seed));
                rng.set_stream(index as u64);
                for x in tensor.data_mut() {
                    *x = rng.random_range(-limit..limit);
                }
            }
        }
        if matches!(self, Self::Dirac { .. }) {
            pass_on(&mut tensor);
        }
        tensor
    }
}

/// Makes the first filters pass a channel on each.
fn pass_on(kernel: &mut Tensor) {
    let [_, channels, rows, columns] = *kernel.shape().dims() else {
        unreachable!("kernels of convolutions have four axes");
    };
    let (plane, middle) = (rows * columns, rows / 2 * columns + columns / 2);
    let filters = kernel.data_mut().chunks_exact_mut(channels * plane);
    for (i, filter) in filters.take(channels).enumerate() {
        filter.fill(0.0);
        filter[i * plane + middle] = 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Dense, Flatten, Model};

    #[test]
    fn dirac_passes_each_channel_on() {
        let init = Init::Dirac {
            fan_in: 18,
            fan_out: 27,
        };
        let kernel = init.draw(&Shape::from([3, 2, 3, 3]), 1, 0);
        let filters: Vec<&[f32]> = kernel.data().chunks(18).collect();
        for (i, filter) in filters[..2].iter().enumerate() {
            let ones = filter.iter().enumerate().filter(|(_, x)| **x != 0.0);
            assert_eq!(ones.collect::<Vec<_>>(), [(9 * i + 4, &1.0)]);
        }
        assert!(filters[2].iter().all(|x| *x != 0.0 && x.abs() < 0.4));
    }

    #[test]
    fn dense_layers_start_by_glorot_or_at_zero() {
        let model = |init| {
            let builder = Model::builder("test", [1, 2, 2]).add(Flatten);
            builder.add(Dense::new(3).init(init)).build()
        };
        let all_zero = |init| {
            let weights = model(init).unwrap().initial_weights(0);
            weights.values().all(|w| w.data().iter().all(|x| *x == 0.0))
        };
        assert!(all_zero(KernelInit::Zeros));
        assert!(!all_zero(KernelInit::GlorotUniform));
        for init in [KernelInit::Dirac, KernelInit::Whiten] {
            let error = model(init).unwrap_err().to_string();
            assert!(error.contains("glorot_uniform or zeros"), "{error}");
        }
    }
}
