//! Which channels of a model belong together, so that one can go only with the others.
//!
//! Each layer's output has an id a channel (a feature, once flat). Ids pass through layers
//! that treat channels apart; where an addition or a product ties two, they become one. To
//! drop an id is to drop its channel everywhere: as a filter, as a scale of a normalisation,
//! as an input of the next layer (the dependency graph of Fang et al. 2023, "DepGraph").

use crate::error::Result;
use crate::model::{INPUT, Layer, Model, NamedLayer};
use std::collections::HashMap;

/// The channels of a model by id.
#[derive(Clone, Debug)]
pub struct Channels {
    /// Union-find: each id's representative is reached by following these.
    parents: Vec<usize>,
    /// Whether an id must stay; of representatives.
    fixed: Vec<bool>,
    /// The ids of each layer's output, by the layer's name.
    outputs: HashMap<String, Vec<usize>>,
}

impl Channels {
    /// The channels of a model. The input's, the last layer's and those that pass through a
    /// layer that mixes them (a reshape, a grouped convolution) are fixed.
    ///
    /// # Errors
    /// If the model's shapes cannot be told.
    pub fn new(model: &Model) -> Result<Self> {
        let mut channels = Self {
            parents: Vec::new(),
            fixed: Vec::new(),
            outputs: HashMap::new(),
        };
        let image = channels.fresh(model.input()[0]);
        channels.fix(&image);
        channels.outputs.insert(INPUT.into(), image);
        let summary = model.summary()?;
        let shapes: HashMap<&str, &[usize]> = summary
            .layers
            .iter()
            .map(|l| (l.name.as_str(), l.output.as_slice()))
            .chain([(INPUT, summary.input.as_slice())])
            .collect();
        for named in model.layers() {
            let output = channels.layer(named, &shapes);
            channels.outputs.insert(named.name.clone(), output);
        }
        if let Some(last) = model.layers().last() {
            let ids = channels.of(&last.name).to_vec();
            channels.fix(&ids);
        }
        Ok(channels)
    }

    /// The ids of the channels of a layer's output.
    pub fn of(&self, layer: &str) -> &[usize] {
        self.outputs.get(layer).map_or(&[], Vec::as_slice)
    }

    /// The ids of the channels that a layer reads, of its first input.
    pub fn read_by(&self, named: &NamedLayer) -> &[usize] {
        named.inputs.first().map_or(&[], |input| self.of(input))
    }

    /// The id that stands for all that are tied to this one.
    pub fn representative(&self, mut id: usize) -> usize {
        while self.parents[id] != id {
            id = self.parents[id];
        }
        id
    }

    /// Whether a channel must stay.
    pub fn is_fixed(&self, id: usize) -> bool {
        self.fixed[self.representative(id)]
    }

    fn layer(&mut self, named: &NamedLayer, shapes: &HashMap<&str, &[usize]>) -> Vec<usize> {
        let inputs: Vec<Vec<usize>> = named.inputs.iter().map(|i| self.of(i).to_vec()).collect();
        let Some(x) = inputs.first() else {
            return Vec::new();
        };
        match &named.layer {
            Layer::Conv2d(conv) if conv.groups == 1 => self.fresh(conv.filters),
            Layer::Conv2d(conv) if is_depthwise(conv.groups, x.len()) => {
                let each = conv.filters / conv.groups;
                x.iter().flat_map(|id| vec![*id; each]).collect()
            }
            Layer::Dense(dense) => self.fresh(dense.units),
            Layer::DepthwiseConv2d(_)
            | Layer::BatchNorm2d(_)
            | Layer::Activation(_)
            | Layer::Dropout(_)
            | Layer::MaxPool2d(_)
            | Layer::AvgPool2d(_)
            | Layer::GlobalAvgPool(_)
            | Layer::ZeroPad2d(_) => x.clone(),
            Layer::Flatten(_) => {
                let each = shapes[named.inputs[0].as_str()].iter().skip(1).product();
                x.iter().flat_map(|id| vec![*id; each]).collect()
            }
            Layer::Add(_) | Layer::Mul(_) => {
                for other in &inputs[1..] {
                    for (a, b) in x.iter().zip(other) {
                        self.tie(*a, *b);
                    }
                }
                x.clone()
            }
            Layer::Concat(_) => inputs.concat(),
            _ => {
                inputs.iter().for_each(|ids| self.fix(ids));
                let shape = shapes[named.name.as_str()];
                let output = self.fresh(shape.first().copied().unwrap_or(0));
                self.fix(&output);
                output
            }
        }
    }

    fn fresh(&mut self, count: usize) -> Vec<usize> {
        let first = self.parents.len();
        self.parents.extend(first..first + count);
        self.fixed.resize(first + count, false);
        (first..first + count).collect()
    }

    fn fix(&mut self, ids: &[usize]) {
        for id in ids {
            let root = self.representative(*id);
            self.fixed[root] = true;
        }
    }

    fn tie(&mut self, a: usize, b: usize) {
        let [a, b] = [a, b].map(|id| self.representative(id));
        self.parents[b] = a;
        self.fixed[a] |= self.fixed[b];
    }
}

/// Whether a convolution of so many groups treats every channel by itself.
pub(super) fn is_depthwise(groups: usize, channels: usize) -> bool {
    groups > 1 && groups == channels
}
