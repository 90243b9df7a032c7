//! Building models in Rust: chains as with Keras's Sequential, graphs as with its
//! functional API.

use super::{Flatten, INPUT, Layer, Model, NamedLayer, TrainingDefaults};
use crate::error::Result;
use crate::ops::Builder;
use crate::ops::batch::Normalization;

/// A model under construction.
///
/// A residual block:
/// ```
/// use gpucnn::model::{Model, Add, Conv2d, Dense, GlobalAvgPool, Pad};
/// use gpucnn::ops::activation::Function::Relu;
///
/// let mut b = Model::builder("residual", [3, 32, 32]);
/// let x = b.layer(Conv2d::new(16, 3).padding(Pad::Same).activation(Relu), &[b.input()]);
/// let y = b.layer(Conv2d::new(16, 3).padding(Pad::Same).activation(Relu), &[x.clone()]);
/// let y = b.layer(Conv2d::new(16, 3).padding(Pad::Same), &[y]);
/// let z = b.layer(Add { activation: Relu }, &[x, y]);
/// let z = b.layer(GlobalAvgPool {}, &[z]);
/// b.layer(Dense::new(10), &[z]);
/// let model = b.build()?;
/// assert_eq!(model.layers()[3].inputs, ["conv1", "conv3"]);
/// # Ok::<(), gpucnn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ModelBuilder {
    pub(super) name: String,
    pub(super) input: [usize; 3],
    pub(super) normalization: Normalization,
    pub(super) training: TrainingDefaults,
    pub(super) layers: Vec<NamedLayer>,
    next_name: Option<String>,
}

/// A layer's output, to be read by other layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node(String);

impl Node {
    /// The name of the layer that gives it, or [`INPUT`].
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl ModelBuilder {
    pub(super) fn new(name: String, input: [usize; 3]) -> Self {
        Self {
            name,
            input,
            normalization: Normalization::default(),
            training: TrainingDefaults::default(),
            layers: Vec::new(),
            next_name: None,
        }
    }

    /// The layers of a model under construction again.
    pub(super) fn from_model(model: &Model) -> Self {
        Self {
            normalization: model.normalization.clone(),
            training: model.training.clone(),
            layers: model.layers.clone(),
            ..Self::new(model.name.clone(), model.input)
        }
    }

    /// How bytes become floats; by default they are scaled by 1/255 and no more.
    #[must_use]
    pub fn normalization(mut self, normalization: Normalization) -> Self {
        self.normalization = normalization;
        self
    }

    /// How the model is trained unless told otherwise.
    #[must_use]
    pub fn training(mut self, training: TrainingDefaults) -> Self {
        self.training = training;
        self
    }

    /// Names the next layer; otherwise it is named after its kind and number: `conv1`.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.next_name = Some(name.into());
        self
    }

    /// Adds a layer that reads the one before it.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "Keras's name for it")]
    pub fn add(mut self, layer: impl Into<Layer>) -> Self {
        let last = self.last();
        self.layer(layer, &[last]);
        self
    }

    /// The model's input.
    pub fn input(&self) -> Node {
        Node(INPUT.into())
    }

    /// The last layer added, or the input.
    pub fn last(&self) -> Node {
        self.layers
            .last()
            .map_or_else(|| self.input(), |l| Node(l.name.clone()))
    }

    /// Adds a layer that reads the given ones.
    pub fn layer(&mut self, layer: impl Into<Layer>, inputs: &[Node]) -> Node {
        let layer = layer.into();
        let name = match self.next_name.take() {
            Some(name) => name,
            None => self.automatic_name(&layer),
        };
        self.layers.push(NamedLayer {
            name: name.clone(),
            inputs: inputs.iter().map(|n| n.0.clone()).collect(),
            layer,
            trainable: true,
        });
        Node(name)
    }

    /// Adds a layer of this name that reads the given ones.
    pub(crate) fn layer_as(
        &mut self,
        name: impl Into<String>,
        layer: impl Into<Layer>,
        inputs: &[Node],
    ) -> Node {
        self.next_name = Some(name.into());
        self.layer(layer, inputs)
    }

    /// Keeps training from changing the last layer.
    pub(crate) fn freeze_last(&mut self) {
        if let Some(last) = self.layers.last_mut() {
            last.trainable = false;
        }
    }

    /// Extents of one sample of a value, [C, H, W] or [features].
    pub(crate) fn shape_of(&self, node: &Node) -> Result<Vec<usize>> {
        // A flatten over it makes a whole model of what there is so far.
        let mut so_far = self.clone();
        so_far.layer(Flatten, std::slice::from_ref(node));
        let (graph, values, _) = Model::untraced(so_far).trace(1)?;
        let names = std::iter::once(INPUT).chain(self.layers.iter().map(|l| l.name.as_str()));
        let at = names.into_iter().position(|name| name == node.0);
        let value = at.map_or(values[0], |at| values[at]);
        Ok(graph.ty(value).shape.dims()[1..].to_vec())
    }

    /// The name a layer gets that has none: its kind's stem and its number among these.
    /// Layers that most models have once go without a number at first.
    pub(super) fn automatic_name(&self, layer: &Layer) -> String {
        let stem = layer.stem();
        let number = 1 + self
            .layers
            .iter()
            .filter(|l| l.layer.stem() == stem)
            .count();
        match layer {
            Layer::Flatten(_) | Layer::GlobalAvgPool(_) | Layer::GlobalMaxPool(_)
                if number == 1 =>
            {
                stem.to_owned()
            }
            _ => format!("{stem}{number}"),
        }
    }

    /// Adds a layer with its name and what it reads.
    #[must_use]
    pub fn with(mut self, layer: NamedLayer) -> Self {
        self.layers.push(layer);
        self
    }

    /// The finished model.
    ///
    /// # Errors
    /// If shapes do not fit (naming the layer and both shapes), names clash, or the last
    /// layer does not give logits [N, classes].
    pub fn build(self) -> Result<Model> {
        Model::new(self)
    }
}
