//! Transfer learning: another number of classes, layers that stay, weights of other models.

use super::{Layer, Model, ModelBuilder, Patterns};
use crate::error::{Error, Result};
use crate::formats::safetensors::Tensors;

/// Weights for a model, of which some came from elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Adopted {
    /// All of the model's weights: those that were found, the rest drawn from the seed.
    pub weights: Tensors,
    /// The names that were found, with the model's shapes.
    pub matched: Vec<String>,
    /// What the model has and was not found, with its shape.
    pub missing: Vec<String>,
    /// What was found with another shape, with both.
    pub misshapen: Vec<String>,
    /// What was found and the model has no place for, with its shape.
    pub unused: Vec<String>,
}

impl Model {
    /// The model with layers that training leaves as they are, on top of those that are so
    /// already. Each pattern is a layer's name; `*` stands for any text, `?` for one
    /// character. A pattern that fits the beginning of a name up to a dot fits the name, and
    /// one that begins with `!` lets the layers train. The last that fits decides.
    ///
    /// ```
    /// use gpucnn::model::Model;
    ///
    /// let model = Model::load("resnet18")?;
    /// let patterns = ["*", "!layer4", "!fc"].map(String::from);
    /// let model = model.freeze(&patterns)?;
    /// let trainable = model.layers().iter().filter(|l| l.trainable);
    /// assert!(trainable.into_iter().all(|l| l.name.starts_with("layer4") || l.name == "fc"));
    /// # Ok::<(), gpucnn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Usage`] if a pattern fits no layer, or nothing would be left to train.
    pub fn freeze(&self, patterns: &[String]) -> Result<Self> {
        let names: Vec<&str> = self.layers.iter().map(|l| l.name.as_str()).collect();
        let patterns = Patterns(patterns);
        patterns
            .check(&names)
            .map_err(|problem| Error::Usage(format!("--freeze: {problem}")))?;
        let mut builder = ModelBuilder::from_model(self);
        for named in &mut builder.layers {
            named.trainable &= !patterns.choose(&named.name);
        }
        let frozen = builder.build()?;
        match frozen.parameter_count() {
            0 => Err(Error::Usage(format!(
                "--freeze leaves nothing of {} to train; let a layer be, as in --freeze '*,!{}'",
                self.name,
                names.last().unwrap_or(&"fc")
            ))),
            _ => Ok(frozen),
        }
    }

    /// The model with `classes` outputs: its last layer that has parameters, which is dense or
    /// a convolution, gets as many units or filters. Returns that layer's name too.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no such layer or it does not decide the number of outputs.
    pub fn with_classes(&self, classes: usize) -> Result<(Self, String)> {
        let fail = |problem: String| Error::Usage(format!("--replace-head: {problem}"));
        if classes == 0 {
            return Err(fail("expected at least 1 class, found 0".into()));
        }
        let head = self.parameters.last();
        let head = head.ok_or_else(|| fail(format!("{} has no parameters", self.name)))?;
        let head = head.layer().to_owned();
        let mut builder = ModelBuilder::from_model(self);
        for named in builder.layers.iter_mut().filter(|l| l.name == head) {
            match &mut named.layer {
                Layer::Dense(dense) => dense.units = classes,
                Layer::Conv2d(convolution) => convolution.set_filters(classes),
                other => {
                    return Err(fail(format!(
                        "the last layer with parameters, {head}, is {}; expected dense or conv2d",
                        other.type_name()
                    )));
                }
            }
        }
        let model = builder.build()?;
        if model.classes != classes {
            return Err(fail(format!(
                "with {classes} units of {head} the model still has {} outputs",
                model.classes
            )));
        }
        Ok((model, head))
    }

    /// Takes from `found` what fits the model by name and shape, and draws the rest from the
    /// seed.
    ///
    /// # Errors
    /// [`Error::Model`] if nothing fits; `source` names where the tensors came from.
    pub fn adopt(&self, mut found: Tensors, seed: u32, source: &str) -> Result<Adopted> {
        let mut weights = self.initial_weights(seed);
        let [mut matched, mut missing, mut misshapen] = [const { Vec::new() }; 3];
        for p in &self.parameters {
            match found.remove(&p.name) {
                Some(tensor) if *tensor.shape() == p.shape => {
                    matched.push(p.name.clone());
                    weights.insert(p.name.clone(), tensor);
                }
                Some(other) => misshapen.push(format!(
                    "{}: expected {}, found {}",
                    p.name,
                    p.shape,
                    other.shape()
                )),
                None => missing.push(format!("{} {}", p.name, p.shape)),
            }
        }
        if matched.is_empty() {
            let theirs: Vec<_> = found.keys().take(4).map(String::as_str).collect();
            let ours = self.parameters.iter().take(4).map(|p| p.name.as_str());
            let ours: Vec<_> = ours.collect();
            return Err(Error::model(
                &self.name,
                format!(
                    "nothing of {source} fits: the file has {}, … and the model {}, …",
                    theirs.join(", "),
                    ours.join(", ")
                ),
            ));
        }
        let unused = found.iter().map(|(n, t)| format!("{n} {}", t.shape()));
        Ok(Adopted {
            weights,
            matched,
            missing,
            misshapen,
            unused: unused.collect(),
        })
    }
}

impl Adopted {
    /// Checks that all of the model came from the file and all of the file went into it, but
    /// for the layer `head`, which starts anew.
    ///
    /// # Errors
    /// [`Error::Model`] that lists every tensor that did not.
    pub fn check_whole(&self, model: &Model, source: &str, head: Option<&str>) -> Result<()> {
        let of_head = |name: &str| {
            let behind = head.and_then(|h| name.strip_prefix(h));
            behind.is_some_and(|rest| rest.starts_with('.'))
        };
        let missing = self.missing.iter().map(|text| format!("{text} is missing"));
        let unused = self.unused.iter();
        let unused = unused.map(|text| format!("{text} is not in the model"));
        let problems: Vec<String> = missing
            .chain(self.misshapen.iter().cloned())
            .chain(unused)
            .filter(|text| !of_head(text))
            .collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::model(
            &model.name,
            format!(
                "{source} does not match; --partial takes what does:\n  {}",
                problems.join("\n  ")
            ),
        ))
    }
}
