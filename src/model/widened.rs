//! Models of another width.

use super::{Layer, Model, ModelBuilder};
use crate::error::{Error, Result};

impl Model {
    /// The same model with `factor` times as many filters and units in every layer but the
    /// last: its logits stay. Grouped convolutions keep their groups.
    ///
    /// # Errors
    /// [`Error::Usage`] unless `factor` is positive and finite; a shape error where a layer
    /// does not fit its inputs any more.
    pub fn widened(&self, factor: f64) -> Result<Self> {
        if !(factor > 0.0 && factor.is_finite()) {
            let problem = format!("a width must be positive and finite, found {factor}");
            return Err(Error::Usage(problem));
        }
        let scaled = |count: usize, multiple: usize| {
            let wide = (count as f64 * factor / multiple as f64).round() as usize;
            wide.max(1) * multiple
        };
        let mut layers = self.layers.clone();
        let logits = layers.len().saturating_sub(1);
        for named in &mut layers[..logits] {
            match &mut named.layer {
                Layer::Conv2d(conv) => conv.set_filters(scaled(conv.filters, conv.groups)),
                Layer::Dense(dense) => dense.units = scaled(dense.units, 1),
                _ => {}
            }
        }
        let mut builder = ModelBuilder::new(self.name.clone(), self.input)
            .normalization(self.normalization.clone())
            .training(self.training.clone());
        builder.layers = layers;
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_but_the_last_is_wider() {
        for preset in Model::presets() {
            let model = Model::load(preset).unwrap();
            let wide = model.widened(2.0).unwrap();
            assert_eq!(wide.classes(), model.classes(), "{preset}");
            assert!(wide.parameter_count() > 2 * model.parameter_count() - 4096);
            assert_eq!(model.widened(1.0).unwrap(), model);
            model.widened(0.25).unwrap();
        }
        let model = Model::load("mnist-cnn").unwrap();
        // 64 filters of 1 x 9, 128 of 64 x 9, 256 units over 128 * 25, 10 logits.
        let parameters = 64 * 10 + 128 * 577 + 256 * 3201 + 10 * 257;
        assert_eq!(model.widened(2.0).unwrap().parameter_count(), parameters);
        for factor in [0.0, -1.0, f64::NAN] {
            assert!(model.widened(factor).is_err());
        }
    }
}
