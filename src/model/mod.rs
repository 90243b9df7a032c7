//! Models: named layers, as a chain or a graph.
//!
//! A model is built with [`Model::builder`], read from a TOML file or taken from a
//! preset ([`Model::load`]). It knows nothing of devices: [`Model::lower`] writes it
//! into a [`Graph`] as ops.
//!
//! ```
//! use gpucnn::model::{Model, Conv2d, Dense, Flatten, MaxPool2d};
//! use gpucnn::ops::activation::Function::Relu;
//!
//! let model = Model::builder("small", [1, 28, 28])
//!     .add(Conv2d::new(32, 3).activation(Relu))
//!     .add(MaxPool2d::new(2))
//!     .add(Flatten)
//!     .add(Dense::new(10))
//!     .build()?;
//! assert_eq!(model.parameter_count(), 320 + 54_090);
//! # Ok::<(), gpucnn::Error>(())
//! ```

mod builder;
mod file;
mod initial;
mod layer;
mod layers;
mod pattern;
mod presets;
mod summary;
mod transfer;
mod values;
mod widened;

pub use builder::{ModelBuilder, Node};
pub use initial::{Init, KernelInit};
pub use layer::{Layer, Lowering, Mode};
pub use layers::{
    Activation, Add, AvgPool2d, BatchNorm2d, Concat, Conv2d, Dense, DepthwiseConv2d, DropPath,
    Dropout, Flatten, GlobalAvgPool, GlobalMaxPool, LayerNorm2d, LayerScale, MaxPool2d, Mul,
    Reshape, ZeroPad2d,
};
pub(crate) use pattern::Patterns;
pub use summary::{LayerSummary, Summary};
pub(crate) use summary::{bytes, grouped};
pub use transfer::Adopted;
pub(crate) use values::parse_function;
pub use values::{Pad, Pair};

use crate::error::{Error, Result};
use crate::formats::safetensors::Tensors;
use crate::graph::Graph;
use crate::ops::batch::Normalization;
use crate::ops::{Builder, Value};
use crate::tensor::{Shape, TensorType};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// A layer in its place: its name and what it reads.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedLayer {
    /// Unique in the model; parameters are named after it.
    pub name: String,
    /// Names of the layers it reads, or [`INPUT`].
    pub inputs: Vec<String>,
    /// What it computes.
    pub layer: Layer,
    /// Whether training changes it. Where not, its parameters stay, and batch normalisation
    /// works as at inference, with running statistics that stay too, as in Keras.
    pub trainable: bool,
}

/// The name of the model's input among layer names.
pub const INPUT: &str = "input";

/// A parameter or running statistic of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpec {
    /// Layer and role: `conv1.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// How it starts.
    pub init: Init,
    /// Whether the optimizer changes it: not running statistics, nor anything of a layer that
    /// is not trainable.
    pub trainable: bool,
}

impl ParameterSpec {
    /// The layer it belongs to.
    pub fn layer(&self) -> &str {
        let role = self.name.rfind('.');
        role.map_or("", |dot| &self.name[..dot])
    }
}

/// How a model is trained unless told otherwise: the `[training]` table of a model file,
/// each key as the field of [`Config`](crate::train::Config) of that name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingDefaults {
    /// Optimizer by name.
    pub optimizer: String,
    /// Learning rate; `None` for the optimizer's own default.
    pub learning_rate: Option<f64>,
    /// Weight decay; `None` for the optimizer's own default.
    pub weight_decay: Option<f64>,
    /// Whether weight decay also acts on biases and normalisation.
    pub decay_all: bool,
    /// Factors of the learning rate of some parameters, `PATTERN=FACTOR` each.
    pub layer_rates: Vec<String>,
    /// Largest norm of the gradient of all parameters.
    pub clip_norm: Option<f64>,
    /// Largest magnitude of a gradient's elements; not with `clip_norm`.
    pub clip_value: Option<f64>,
    /// Decay of moving averages of the weights.
    pub ema: Option<f64>,
    /// Batches an update.
    pub accumulate: usize,
    /// Label smoothing.
    pub label_smoothing: f64,
    /// How training images are changed at random, as a list.
    pub augment: Option<String>,
    /// Images a step.
    pub batch_size: usize,
    /// Passes over the training images.
    pub epochs: usize,
    /// Learning-rate schedule by name.
    pub schedule: String,
    /// Epochs between two changes, or plateau's patience; `None` for the schedule's own.
    pub schedule_every: Option<usize>,
    /// What a change multiplies the rate by.
    pub schedule_factor: f64,
    /// The smallest rate of cosine and plateau.
    pub min_learning_rate: f64,
    /// Epochs of linear warm-up, where there are [`epochs`](Self::epochs) in all; of more
    /// or fewer epochs the same share.
    pub warmup: f64,
}

impl Default for TrainingDefaults {
    /// Keras's: batches of 32; Adam at its default rate throughout, 10 epochs.
    fn default() -> Self {
        Self {
            optimizer: "adam".into(),
            learning_rate: None,
            weight_decay: None,
            decay_all: false,
            layer_rates: Vec::new(),
            clip_norm: None,
            clip_value: None,
            ema: None,
            accumulate: 1,
            label_smoothing: 0.0,
            augment: None,
            batch_size: 32,
            epochs: 10,
            schedule: "constant".into(),
            schedule_every: None,
            schedule_factor: 0.1,
            min_learning_rate: 0.0,
            warmup: 0.0,
        }
    }
}

/// A network of layers over one image input, whose last layer gives logits [N, classes].
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    name: String,
    input: [usize; 3],
    normalization: Normalization,
    training: TrainingDefaults,
    layers: Vec<NamedLayer>,
    parameters: Vec<ParameterSpec>,
    classes: usize,
}

impl Model {
    /// Starts a model over images of `input` = [C, H, W].
    pub fn builder(name: impl Into<String>, input: [usize; 3]) -> ModelBuilder {
        ModelBuilder::new(name.into(), input)
    }

    /// A checked model: every layer's shapes fit, names are unique, the output is
    /// [N, classes].
    fn new(builder: ModelBuilder) -> Result<Self> {
        let mut model = Self::untraced(builder);
        model.check_names()?;
        let (graph, outputs, parameters) = model.trace(1)?;
        let output = outputs[outputs.len() - 1];
        model.parameters = parameters;
        match graph.ty(output).shape.dims() {
            [_, classes] => model.classes = *classes,
            _ => {
                let last = model.layers.last().map_or("the input", |l| l.name.as_str());
                return Err(Error::model(
                    &model.name,
                    format!(
                        "the last layer must give logits [N, classes], {last} gives {}; end with \
                         a flatten (or global_avg_pool and flatten) and a dense layer",
                        graph.ty(output).shape
                    ),
                ));
            }
        }
        Ok(model)
    }

    /// A model whose layers nobody has looked at yet.
    fn untraced(builder: ModelBuilder) -> Self {
        let ModelBuilder {
            name,
            input,
            normalization,
            training,
            layers,
            ..
        } = builder;
        Self {
            name,
            input,
            normalization,
            training,
            layers,
            parameters: Vec::new(),
            classes: 0,
        }
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Channels, rows and columns of an image.
    pub fn input(&self) -> [usize; 3] {
        self.input
    }

    /// Number of logits.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How bytes become the floats the first layer sees.
    pub fn normalization(&self) -> &Normalization {
        &self.normalization
    }

    /// The same model with another normalisation, which needs a mean and a deviation for each
    /// channel or none.
    #[must_use]
    pub fn with_normalization(mut self, normalization: Normalization) -> Self {
        self.normalization = normalization;
        self
    }

    /// How it is trained unless told otherwise.
    pub fn training(&self) -> &TrainingDefaults {
        &self.training
    }

    /// The layers, each after those it reads.
    pub fn layers(&self) -> &[NamedLayer] {
        &self.layers
    }

    /// Parameters and running statistics, in the order of the layers.
    pub fn parameters(&self) -> &[ParameterSpec] {
        &self.parameters
    }

    /// This model with other layers in the places of its own, of the same names and inputs.
    ///
    /// # Errors
    /// If the new layers do not fit together.
    pub fn map_layers(&self, change: impl Fn(&NamedLayer) -> Layer) -> Result<Self> {
        let layers = self.layers.iter().map(|named| NamedLayer {
            layer: change(named),
            ..named.clone()
        });
        self.with_layers(layers.collect())
    }

    /// This model with other layers.
    ///
    /// # Errors
    /// If they do not fit together.
    pub fn with_layers(&self, layers: Vec<NamedLayer>) -> Result<Self> {
        let mut builder = ModelBuilder::new(self.name.clone(), self.input)
            .normalization(self.normalization.clone())
            .training(self.training.clone());
        builder.layers = layers;
        builder.build()
    }

    /// Numbers that training changes.
    pub fn parameter_count(&self) -> usize {
        let trainable = self.parameters.iter().filter(|p| p.trainable);
        trainable.map(|p| p.shape.len()).sum()
    }

    /// Fresh weights: each parameter from its own stream of the seed. What starts from the
    /// training images needs [`train::initial_weights`](crate::train::initial_weights).
    pub fn initial_weights(&self, seed: u32) -> Tensors {
        let parameters = self.parameters.iter().enumerate();
        let fresh =
            |(i, p): (usize, &ParameterSpec)| (p.name.clone(), p.init.draw(&p.shape, seed, i));
        parameters.map(fresh).collect()
    }

    /// Checks that weights are those of this model.
    ///
    /// # Errors
    /// One error that lists every missing, superfluous and misshapen tensor; `source`
    /// names where they came from.
    pub fn check_weights(&self, weights: &Tensors, source: &str) -> Result<()> {
        let mut problems = Vec::new();
        for p in &self.parameters {
            match weights.get(&p.name) {
                None => problems.push(format!("{} {} is missing", p.name, p.shape)),
                Some(t) if *t.shape() != p.shape => {
                    problems.push(format!(
                        "{}: expected {}, found {}",
                        p.name,
                        p.shape,
                        t.shape()
                    ));
                }
                Some(_) => {}
            }
        }
        for (name, tensor) in weights {
            if !self.parameters.iter().any(|p| p.name == *name) {
                problems.push(format!("{name} {} is not in the model", tensor.shape()));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::model(
            &self.name,
            format!("{source} does not match:\n  {}", problems.join("\n  ")),
        ))
    }

    /// Writes the model's ops into a graph. `parameters` gives the value of every
    /// parameter and statistic by name; `images` is [N, C, H, W], normalised. Returns the
    /// logits [N, classes].
    ///
    /// # Errors
    /// [`Error::Shape`] that names the layer.
    pub fn lower(
        &self,
        graph: &mut Graph,
        parameters: &HashMap<String, Value>,
        images: Value,
        mode: Mode,
    ) -> Result<Value> {
        let mut lowering = Lowering::new(graph, mode, layer::Parameters::Given(parameters));
        let outputs = self.lower_into(&mut lowering, images)?;
        graph.shrink_first()?;
        Ok(outputs[outputs.len() - 1])
    }

    /// The model's ops as for inference on `batch` images, in a graph whose states are
    /// [`INPUT`] and the parameters under their names. Returns the images, then each layer's
    /// output.
    ///
    /// # Errors
    /// None that the model did not have before.
    pub fn inference_graph(&self, batch: usize) -> Result<(Graph, Vec<Value>)> {
        let (graph, outputs, _) = self.trace(batch)?;
        Ok((graph, outputs))
    }

    /// Lowers into a graph of its own to find parameters and shapes; `batch` images.
    /// The values are those of [`lower_into`](Self::lower_into).
    fn trace(&self, batch: usize) -> Result<(Graph, Vec<Value>, Vec<ParameterSpec>)> {
        let [c, h, w] = self.input;
        if self.input.contains(&0) {
            let problem = format!("input {:?} must be at least 1 everywhere", self.input);
            return Err(Error::model(&self.name, problem));
        }
        let size = Shape::from(self.input).len();
        if i32::try_from(size).is_err() {
            let problem = format!("input {:?} has over 2^31 elements", self.input);
            return Err(Error::model(&self.name, problem));
        }
        let mut graph = Graph::new();
        let images = graph.state(INPUT, TensorType::f32([batch, c, h, w]));
        let mut found = Vec::new();
        let mut lowering = Lowering::new(
            &mut graph,
            Mode::Inference,
            layer::Parameters::Found(&mut found),
        );
        let outputs = self.lower_into(&mut lowering, images)?;
        Ok((graph, outputs, found))
    }

    /// Lowers every layer; returns the images, then each layer's output.
    fn lower_into(&self, lowering: &mut Lowering<'_>, images: Value) -> Result<Vec<Value>> {
        let mut values = HashMap::from([(INPUT, images)]);
        let mut outputs = vec![images];
        for named in &self.layers {
            let inputs: Vec<Value> = named.inputs.iter().map(|n| values[n.as_str()]).collect();
            let output = lowering.layer(named, &inputs)?;
            values.insert(&named.name, output);
            outputs.push(output);
        }
        Ok(outputs)
    }

    fn check_names(&self) -> Result<()> {
        let mut known = vec![INPUT];
        for named in &self.layers {
            let fail = |problem: String| Err(Error::model(&self.name, problem));
            if known.contains(&named.name.as_str()) {
                return fail(format!("two layers are named {:?}", named.name));
            }
            // Parts between dots, as in torchvision's layer1.0.conv1, are names themselves.
            if named.name.split('.').any(str::is_empty) {
                let problem = "is no layer name: it must not be empty, nor begin or end with a dot";
                return fail(format!("{:?} {problem}", named.name));
            }
            if let Some(unknown) = named.inputs.iter().find(|i| !known.contains(&i.as_str())) {
                return fail(format!(
                    "layer {} reads {unknown:?}, which is not defined before it; there are {}",
                    named.name,
                    known.join(", ")
                ));
            }
            if let Layer::Conv2d(convolution) = &named.layer
                && convolution.init == KernelInit::Whiten
                && named.inputs != [INPUT]
            {
                return fail(format!(
                    "layer {}: init whiten is for a convolution of the images themselves; it \
                     reads {}",
                    named.name,
                    named.inputs.join(", ")
                ));
            }
            known.push(&named.name);
        }
        Ok(())
    }
}
