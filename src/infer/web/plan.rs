//! `plan.json`: buffers, shaders and dispatches.

use crate::gpu::pipeline::Access;
use crate::gpu::range::padded;
use crate::graph::{Graph, Home, Listing};
use crate::infer::{IMAGES, LOGITS, ORDER};
use crate::model::Model;
use crate::ops::Step;
use serde::Serialize;
use std::collections::HashMap;

/// The version of the format, which changes when older scripts cannot read it.
const VERSION: u32 = 1;

/// An inference of one image, as `gpucnn.js` reads it.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    version: u32,
    name: String,
    /// Channels, rows and columns.
    input: [usize; 3],
    classes: Vec<String>,
    parameters: usize,
    /// The buffer that takes the image's bytes [C, H, W], and the one that ends with the
    /// logits.
    image: usize,
    logits: usize,
    /// All buffers.
    pub buffers: Vec<Buffer>,
    /// Shader files.
    pub shaders: Vec<String>,
    /// The dispatches, in order.
    pub dispatches: Vec<Dispatch>,
}

/// A buffer.
#[derive(Clone, Debug, Serialize)]
pub struct Buffer {
    /// A state's name, `slot0` and so on, or `step`.
    pub name: String,
    /// Its size, whole vec4.
    pub bytes: u64,
    /// What it starts with; zeros otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

/// A part of `weights.bin`.
#[derive(Clone, Debug, Serialize)]
pub struct Content {
    /// Its first byte.
    pub offset: u64,
}

/// A dispatch.
#[derive(Clone, Debug, Serialize)]
pub struct Dispatch {
    layer: String,
    op: &'static str,
    /// Index among the shaders.
    shader: usize,
    workgroups: [u32; 3],
    bindings: Vec<Bound>,
}

/// What a binding of group 0 is bound to.
#[derive(Clone, Debug, Serialize)]
struct Bound {
    name: String,
    binding: u32,
    /// WebGPU's name of the kind of binding.
    #[serde(rename = "type")]
    kind: &'static str,
    buffer: usize,
    offset: u64,
    /// Whole vec4, which kernels may read and write: a browser holds an index that is outside
    /// of the binding inside, and would put the last vec4 on the one before.
    bytes: u64,
}

impl Plan {
    /// The plan of a listing, and the shader files it names.
    pub(super) fn new(
        model: &Model,
        classes: &[String],
        graph: &Graph,
        listing: &Listing,
    ) -> (Self, Vec<(String, String)>) {
        let (buffers, index) = buffers(graph, listing);
        let mut shaders: Vec<(String, String)> = Vec::new();
        let mut dispatches = Vec::new();
        for listed in &listing.dispatches {
            let known = shaders.iter().position(|(_, text)| *text == listed.wgsl);
            let shader = known.unwrap_or_else(|| {
                let kernel = listed.kernel.replace('/', "-");
                let name = format!("{:02}-{kernel}", shaders.len());
                shaders.push((name, listed.wgsl.clone()));
                shaders.len() - 1
            });
            let bind =
                |(binding, place): &(crate::gpu::pipeline::Binding, crate::graph::Place)| Bound {
                    name: binding.name.clone(),
                    binding: binding.index,
                    kind: match binding.access {
                        Access::Read => "read-only-storage",
                        Access::ReadWrite => "storage",
                        Access::Uniform => "uniform",
                        Access::UniformArray | Access::Texel(_) => {
                            unreachable!("a listing's shaders read storage buffers")
                        }
                    },
                    buffer: index[&place.home],
                    offset: place.offset,
                    bytes: padded(place.bytes),
                };
            dispatches.push(Dispatch {
                layer: listed.layer.clone(),
                op: listed.op,
                shader,
                workgroups: listed.workgroups,
                bindings: listed.bindings.iter().map(bind).collect(),
            });
        }
        let state = |name: &str| index[&Home::State(name.to_owned())];
        let plan = Self {
            version: VERSION,
            name: model.name().to_owned(),
            input: model.input(),
            classes: classes.to_vec(),
            parameters: model.parameter_count(),
            image: state(IMAGES),
            logits: state(LOGITS),
            buffers,
            shaders: shaders.iter().map(|(name, _)| name.clone()).collect(),
            dispatches,
        };
        (plan, shaders)
    }
}

/// Every buffer, and which is what.
fn buffers(graph: &Graph, listing: &Listing) -> (Vec<Buffer>, HashMap<Home, usize>) {
    let mut buffers = Vec::new();
    let mut index = HashMap::new();
    let mut add = |home, name: String, bytes, content| {
        index.insert(home, buffers.len());
        buffers.push(Buffer {
            name,
            bytes: padded(bytes),
            content,
        });
    };
    let mut offset = 0;
    for (name, ty) in graph.states() {
        // What is neither image, logits nor the order (of one image: zero) are weights, in
        // the order of their arenas.
        let content = (![IMAGES, LOGITS, ORDER].contains(&name)).then_some(Content { offset });
        if content.is_some() {
            offset += ty.bytes();
        }
        add(Home::State(name.into()), name.into(), ty.bytes(), content);
    }
    for (i, slot) in listing.memory.slots.iter().enumerate() {
        add(Home::Slot(i), format!("slot{i}"), slot.bytes, None);
    }
    add(Home::Step, "step".into(), Step::BYTES as u64, None);
    (buffers, index)
}
