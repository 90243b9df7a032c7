//! What a training computes besides the model itself.

use crate::error::{Error, Result};
use crate::model::{Model, Patterns};
use crate::ops::augment::Augmentation;
use crate::ops::optimizer::{Clip, Optimizer};
use serde::{Deserialize, Serialize};

/// What becomes of a step whose loss or gradients are not finite. It changes nothing that
/// lasts, either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNan {
    /// The training ends with an error that names the first layer that gave such a value.
    #[default]
    Stop,
    /// It is left out and counted; where gradients are accumulated, its batch is.
    Skip,
}

impl OnNan {
    /// By name.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the two.
    pub fn by_name(name: &str) -> Result<Self> {
        match name {
            "stop" => Ok(Self::Stop),
            "skip" => Ok(Self::Skip),
            _ => Err(Error::Usage(format!(
                "--on-nan must be stop or skip, found {name}"
            ))),
        }
    }
}

/// How the tensors of a training step are kept in memory. Parameters, the optimizer's states,
/// statistics and losses are f32 always, and so is all arithmetic; evaluation is f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As f32.
    #[default]
    F32,
    /// Activations, their gradients and the layers' copies of weights as f16, with a
    /// [scaled loss](crate::ops::loss_scale).
    F16,
}

impl Precision {
    /// By name.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the two.
    pub fn by_name(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            _ => Err(Error::Usage(format!(
                "--precision must be f32 or f16, found {name}"
            ))),
        }
    }
}

/// How the loss is formed and how its gradient changes the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Method {
    /// The optimizer, with its weight decay.
    pub optimizer: Optimizer,
    /// Share of the target spread evenly over the classes (Szegedy et al. 2016).
    pub label_smoothing: f64,
    /// The weight of each class in the loss; the mean of a batch divides by the sum of its
    /// labels' weights.
    pub class_weights: Option<Vec<f64>>,
    /// Whether weight decay also acts on parameters of one axis: biases, and the scales and
    /// shifts of normalisation. It is common practice that it does not (He et al. 2018, "Bag
    /// of Tricks", section 3.1).
    pub decay_all: bool,
    /// How training images are changed at random.
    pub augmentation: Augmentation,
    /// What the learning rate of some parameters is multiplied by.
    pub layer_rates: LayerRates,
    /// How gradients are clipped.
    pub clip: Option<Clip>,
    /// The decay of moving averages of parameters and running statistics. They begin as the
    /// initial weights; see [`Running::Average`](crate::ops::optimizer::Running).
    pub ema: Option<f64>,
    /// Batches whose gradients are put together for an update.
    pub accumulate: usize,
    /// Whether a mask holds weights at zero.
    pub prunes: bool,
    /// What becomes of a step that is not finite.
    pub on_nan: OnNan,
    /// Whether backward computes results of the forward pass again, not to keep them.
    pub recompute: bool,
    /// How activations and gradients are kept.
    pub precision: Precision,
}

impl From<Optimizer> for Method {
    /// The optimizer alone.
    fn from(optimizer: Optimizer) -> Self {
        Self {
            optimizer,
            label_smoothing: 0.0,
            class_weights: None,
            decay_all: false,
            augmentation: Augmentation::default(),
            layer_rates: LayerRates::default(),
            clip: None,
            ema: None,
            accumulate: 1,
            prunes: false,
            on_nan: OnNan::Stop,
            recompute: false,
            precision: Precision::F32,
        }
    }
}

impl Method {
    /// What the learning rate of a parameter is multiplied by.
    pub fn rate_factor(&self, parameter: &str) -> f64 {
        let LayerRates { patterns, factors } = &self.layer_rates;
        let place = Patterns(patterns).place(parameter);
        place.map_or(1.0, |i| factors[i])
    }
}

/// Factors of the learning rate by pattern of the parameters' names, as
/// [`Model::freeze`] has them; of several that fit the last one counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerRates {
    patterns: Vec<String>,
    factors: Vec<f64>,
}

impl LayerRates {
    /// Those of texts `PATTERN=FACTOR`, for the parameters of a model.
    ///
    /// # Errors
    /// [`Error::Usage`] if a text is no such, a factor not positive, or a pattern fits no
    /// parameter that is trained.
    pub fn parse(texts: &[String], model: &Model) -> Result<Self> {
        let mut rates = Self::default();
        for text in texts {
            let parts = text.rsplit_once('=');
            let parts = parts.and_then(|(pattern, factor)| Some((pattern, factor.parse().ok()?)));
            match parts {
                Some((pattern, factor)) if f64::is_finite(factor) && factor > 0.0 => {
                    rates.patterns.push(pattern.trim().to_owned());
                    rates.factors.push(factor);
                }
                _ => {
                    return Err(Error::Usage(format!(
                        "--layer-rate must be PATTERN=FACTOR with a positive factor, such as \
                         'layer1=0.1', found {text:?}"
                    )));
                }
            }
        }
        let trained = model.parameters().iter().filter(|p| p.trainable);
        let names: Vec<&str> = trained.map(|p| p.name.as_str()).collect();
        let checked = Patterns(&rates.patterns).check(&names);
        checked.map_err(|problem| Error::Usage(format!("--layer-rate: {problem}")))?;
        Ok(rates)
    }
}

/// The weights of `classes` classes that `text` names: `balanced`, or a number for each,
/// separated by commas.
///
/// Balanced weights are `n / (k n_c)` for a class with `n_c` of the `n` labels, `k` of the
/// classes having any (scikit-learn's `class_weight="balanced"`); a class without labels
/// weighs nothing.
///
/// # Errors
/// [`Error::Usage`] if there are not as many weights, or one is negative or no number, or all
/// are zero.
pub(super) fn class_weights(text: &str, labels: &[u32], classes: usize) -> Result<Vec<f64>> {
    if text == "balanced" {
        let mut counts = vec![0.0; classes];
        for label in labels {
            counts[*label as usize] += 1.0;
        }
        let present = counts.iter().filter(|c| **c > 0.0).count() as f64;
        let weight = |count: f64| match count > 0.0 {
            true => labels.len() as f64 / (present * count),
            false => 0.0,
        };
        return Ok(counts.into_iter().map(weight).collect());
    }
    let weights: Vec<f64> = text
        .split(',')
        .map(|part| part.trim().parse().ok())
        .map(|weight| weight.filter(|w: &f64| w.is_finite() && *w >= 0.0))
        .collect::<Option<_>>()
        .unwrap_or_default();
    if weights.len() == classes && weights.iter().any(|w| *w > 0.0) {
        return Ok(weights);
    }
    Err(Error::Usage(format!(
        "--class-weights must be \"balanced\" or {classes} numbers from zero up, one for each \
         class, separated by commas and not all zero; found {text:?}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_weights_are_scikit_learns() {
        // compute_class_weight("balanced") of these six labels: 6 / (3 * [3, 2, 1]).
        let labels = [0, 0, 0, 1, 1, 3];
        let found = class_weights("balanced", &labels, 4).unwrap();
        assert_eq!(found, [2.0 / 3.0, 1.0, 0.0, 2.0]);
    }

    #[test]
    fn lists_of_weights_are_checked() {
        assert_eq!(class_weights("1, 0,2.5", &[], 3).unwrap(), [1.0, 0.0, 2.5]);
        for text in ["1,2", "1,2,3,4", "1,-2,3", "1,x,3", "1,inf,3", "0,0,0", ""] {
            let error = class_weights(text, &[], 3).unwrap_err().to_string();
            let names = error.contains("--class-weights") && error.contains("3 numbers");
            assert!(names, "{text}: {error}");
        }
    }
}
