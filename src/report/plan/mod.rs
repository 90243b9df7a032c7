//! What a device does in a step, before any device does it: the fused graph, the slots of
//! memory and who lives in them when, and the dispatches. As text, JSON or a picture.

mod json;
mod svg;
mod text;

use crate::error::Result;
use crate::gpu::Profile;
use crate::graph::{Arena, Graph, Holds, Home, Listing, Node, Origin, Part, Place, Tenant};
use crate::infer::{self, Int8};
use crate::model::Model;
use crate::ops::{Builder, Value};
use crate::train::{self, Config};

/// The plan of one graph of a model on a device, which need not be there.
pub struct Plan {
    title: String,
    device: String,
    graph: Graph,
    listing: Listing,
    /// The tensors that lie in a state, by the state's name.
    arenas: Vec<(&'static str, Vec<Part>)>,
    /// Whether it is a training step.
    training: bool,
    batch: usize,
    /// Batches to an update; where it is not one, the update is a graph of its own.
    accumulate: usize,
}

/// What a plan is for.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The device in one line.
    pub device: &'a str,
    /// What its kernels need to know of it.
    pub profile: &'a Profile,
}

impl Plan {
    /// The plan of a training step with these settings.
    ///
    /// # Errors
    /// If the settings contradict the model, or the step exceeds the device's limits.
    pub fn training(model: &Model, config: &Config, target: Target<'_>) -> Result<Self> {
        let (graph, arenas) = train::step(model, config, target.profile.max_binding)?;
        let batch = config.batch_size;
        let title = format!("{}: a training step of {batch} images", model.name());
        Ok(Self {
            training: true,
            accumulate: config.accumulate,
            ..Self::new(title, graph, arenas, batch, target)?
        })
    }

    /// The plan of an inference of `batch` images, with the layers of `int8` in eight bits.
    ///
    /// # Errors
    /// If it exceeds the device's limits.
    pub fn inference(
        model: &Model,
        int8: Option<&Int8>,
        batch: usize,
        target: Target<'_>,
    ) -> Result<Self> {
        let (graph, arenas) = infer::step(model, int8, batch)?;
        let title = format!("{}: inference of {batch} images", model.name());
        Self::new(title, graph, arenas, batch, target)
    }

    fn new(
        title: String,
        graph: Graph,
        arenas: [(&'static str, Arena); 2],
        batch: usize,
        target: Target<'_>,
    ) -> Result<Self> {
        let graph = graph.adapted(target.profile)?;
        let subgroups = match target.profile.subgroup_size {
            Some(lanes) => format!("subgroups of {lanes}"),
            None => "no subgroups".into(),
        };
        Ok(Self {
            title,
            device: format!("{}; {subgroups}", target.device),
            listing: graph.listing(target.profile)?,
            graph,
            arenas: arenas
                .into_iter()
                .map(|(state, arena)| (state, arena.parts().to_vec()))
                .collect(),
            training: false,
            batch,
            accumulate: 1,
        })
    }

    /// What a value is called: `%7` for the result of node 7, `%7.1` for its second, and
    /// parameters and other states by their names.
    fn name(&self, value: Value) -> String {
        let info = self.graph.value(value);
        match &info.origin {
            Origin::State(name) => name.clone(),
            Origin::View { of, offset } => self.name_of_view(*of, *offset, info.ty.shape.len()),
            Origin::Result => {
                let made = |node: &Node| node.outputs.iter().position(|v| *v == value);
                let nodes = self.graph.nodes().iter().enumerate();
                let maker = nodes.filter_map(|(i, node)| Some((i, made(node)?))).next();
                match maker {
                    Some((node, 0)) => format!("%{node}"),
                    Some((node, output)) => format!("%{node}.{output}"),
                    None => "%?".into(),
                }
            }
        }
    }

    fn name_of_view(&self, of: Value, offset: usize, len: usize) -> String {
        let state = self.name(of);
        let part = |parts: &[Part]| {
            let fits = |p: &&Part| p.offset == offset && p.shape.len() == len;
            Some(parts.iter().find(fits)?.name.clone())
        };
        let own = self.arenas.iter().find(|(name, _)| *name == state);
        if let Some(name) = own.and_then(|(_, parts)| part(parts)) {
            return name;
        }
        // Gradients and moments lie as the parameters do.
        match self.arenas.first().and_then(|(_, parts)| part(parts)) {
            Some(name) => format!("{state}/{name}"),
            None => format!("{state}[{offset}..{}]", offset + len),
        }
    }

    /// What a slot's tenant is called.
    fn tenant(&self, tenant: &Tenant) -> String {
        match tenant.holds {
            Holds::Result(value) => self.name(value),
            Holds::Scratch { node, .. } => format!("scratch of %{node}"),
        }
    }

    /// Memory and the part of it: `slot 3`, `conv1.weight`, `metrics`.
    fn place(&self, place: &Place, value: Option<Value>) -> String {
        match &place.home {
            Home::Slot(slot) => format!("slot {slot}"),
            Home::Step => "step".into(),
            Home::State(name) => value.map_or_else(|| name.clone(), |v| self.name(v)),
        }
    }

    /// Bytes of the states.
    fn state_bytes(&self) -> u64 {
        self.graph.states().map(|(_, ty)| ty.bytes()).sum()
    }

    /// The node that needs the most memory, and all that is alive then.
    fn peak(&self) -> (usize, u64) {
        let alive = self.listing.memory.alive(self.graph.nodes().len());
        // Of equal ones the first.
        let peak = alive.into_iter().enumerate().rev();
        peak.max_by_key(|(_, bytes)| *bytes).unwrap_or((0, 0))
    }

    /// Different shaders.
    fn shaders(&self) -> usize {
        let dispatches = self.listing.dispatches.iter();
        let mut shaders: Vec<_> = dispatches.map(|d| &d.wgsl).collect();
        shaders.sort_unstable();
        shaders.dedup();
        shaders.len()
    }

    /// What belongs to the plan but is no node.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.graph.nodes().iter().any(|node| node.guard.is_some()) {
            notes.push(
                "Nodes marked * change what lasts. They run only where the loss and all \
                 gradients are finite: one more dispatch before them sets their workgroups to 0 \
                 otherwise."
                    .into(),
            );
        }
        if self.accumulate > 1 {
            notes.push(format!(
                "The update, after every {} steps, is a graph of its own and not shown.",
                self.accumulate
            ));
        }
        notes
    }

    /// The value a node makes, and its type.
    fn results<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = (Value, String)> {
        let of = |value: &Value| {
            let ty = self.graph.ty(*value);
            let half = self.graph.value(self.graph.storage_root(*value)).half;
            match half {
                true => (*value, format!("f16{}", ty.shape)),
                false => (*value, ty.to_string()),
            }
        };
        node.outputs.iter().map(of)
    }
}

/// An op with what was fused into it: `conv2d + max_pool2d + activation`.
fn op(node: &Node) -> String {
    match node.fused.as_slice() {
        [] => node.op.name().to_owned(),
        fused => fused.join(" + "),
    }
}
