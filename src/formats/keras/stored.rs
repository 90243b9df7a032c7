//! The arrays of Keras's layers.

use super::config::{KerasLayer, Network};
use crate::formats::hdf5::{Array, Arrays};

/// Where the versions of Keras keep their layers.
const ROOTS: [&str; 2] = ["layers", "_layer_checkpoint_dependencies"];

/// The arrays of a weights file.
pub(super) struct Stored<'a> {
    arrays: &'a Arrays,
    root: &'static str,
}

impl<'a> Stored<'a> {
    pub(super) fn new(arrays: &'a Arrays, network: &Network) -> Self {
        let has = |root: &&&str| {
            let mut groups = network
                .layers
                .iter()
                .map(|l| format!("{root}/{}/vars/0", l.group));
            groups.any(|path| arrays.contains_key(&path))
        };
        let root = ROOTS.iter().find(has).unwrap_or(&ROOTS[0]);
        Self { arrays, root }
    }

    /// The arrays of a layer, in Keras's order.
    pub(super) fn variables(&self, group: &str) -> Vec<&'a Array> {
        let path = |i: usize| format!("{}/{group}/vars/{i}", self.root);
        (0..).map_while(|i| self.arrays.get(&path(i))).collect()
    }

    /// Mean and variance of a Normalization that was adapted to data.
    pub(super) fn statistics(&self, layer: &KerasLayer) -> Option<[Vec<f64>; 2]> {
        let variables = self.variables(&layer.group);
        let wide = |a: &&Array| a.data.iter().map(|v| f64::from(*v)).collect();
        Some([variables.first().map(wide)?, variables.get(1).map(wide)?])
    }
}
