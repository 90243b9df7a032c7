//! A graph as a list of dispatches for a device that need not be there: what the web export
//! and `gpucnn plan` write down.

use super::memory::{Home, Place};
use super::{Graph, MemoryPlan, Node};
use crate::error::{Error, Result};
use crate::gpu::kernel::{Arg, Dispatch, GROUPS_X, Launch};
use crate::gpu::pipeline::{Binding, match_bindings, reflect};
use crate::gpu::profile::Profile;
use crate::ops::{LaunchContext, Value};
use std::collections::HashSet;

/// Most storage buffers that WebGPU guarantees a shader.
const STORAGE_BUFFERS: usize = 8;
const BINDING: &str = "max_storage_buffer_binding_size";

/// All that runs when a graph does, and the memory it takes turns in.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The slots and who lives in them.
    pub memory: MemoryPlan,
    /// The dispatches, in order.
    pub dispatches: Vec<Listed>,
}

/// A dispatch with its bindings resolved.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The node it is part of, by index.
    pub node: usize,
    /// The layer it belongs to.
    pub layer: String,
    /// The op.
    pub op: &'static str,
    /// The shader's file below `shaders/`.
    pub kernel: &'static str,
    /// The values of its constants.
    pub constants: Vec<(&'static str, String)>,
    /// The functions, types and extensions it was given, by the names it has for them.
    pub parts: Vec<(&'static str, &'static str)>,
    /// The specialised shader, with the entry point `main`.
    pub wgsl: String,
    /// Workgroups in x, y and z.
    pub workgroups: [u32; 3],
    /// Each binding of the shader and what it refers to.
    pub bindings: Vec<(Binding, Place)>,
}

impl Graph {
    /// The dispatches of this graph, [adapted](Self::adapted) to it, on a device of a profile.
    ///
    /// # Errors
    /// [`Error::Limit`] where the profile's or WebGPU's limits do not allow it.
    pub fn listing(&self, profile: &Profile) -> Result<Listing> {
        let launches = self
            .nodes()
            .iter()
            .map(|node| self.launch(node, profile))
            .collect::<Result<Vec<_>>>()?;
        let scratch: Vec<_> = launches.iter().map(|l| l.scratch.clone()).collect();
        let memory = MemoryPlan::new(self, &scratch);
        let mut dispatches = Vec::new();
        for (index, launch) in launches.iter().enumerate() {
            for dispatch in &launch.dispatches {
                let place = |arg| memory.operand(self, index, arg, &scratch[index]);
                dispatches.push(self.listed(index, dispatch, profile, place)?);
            }
        }
        Ok(Listing { memory, dispatches })
    }

    /// The graph as a device of this profile runs it: with ops that
    /// [look through](Self::looking_through) others where its kernels gain by it, with products
    /// taken apart whose weight it cannot bind at once, and with those results in f32 again that
    /// one of their kernels cannot use in half precision, see [`Half`](crate::gpu::half::Half).
    ///
    /// # Errors
    /// [`Error::Limit`] where the profile's limits do not allow a kernel.
    pub fn adapted(&self, profile: &Profile) -> Result<Self> {
        let mut graph = self.clone().looking_through(profile);
        if graph.has_products_above(profile.max_binding) {
            graph = graph.split_products(profile.max_binding)?;
        }
        if !graph.values.iter().any(|v| v.half) {
            return Ok(graph);
        }
        let refused = graph.not_storable(profile)?;
        Ok(graph.in_full(&refused))
    }

    /// The results that one of their kernels cannot use in half precision.
    fn not_storable(&self, profile: &Profile) -> Result<HashSet<Value>> {
        let mut refused = HashSet::new();
        for node in self.nodes() {
            for dispatch in self.launch(node, profile)?.dispatches {
                let mut source = None;
                for (name, arg) in &dispatch.bindings {
                    let Some(root) = self.half_root(node, *arg) else {
                        continue;
                    };
                    if refused.contains(&root) {
                        continue;
                    }
                    let source = match &mut source {
                        Some(source) => source,
                        empty => empty.insert(dispatch.kernel.wgsl()?),
                    };
                    let kernel = dispatch.kernel.path();
                    if profile.half.rewrite(kernel, source, &[name]).is_err() {
                        refused.insert(root);
                    }
                }
            }
        }
        Ok(refused)
    }

    /// The root of what a binding refers to, if that is kept in half precision.
    pub(super) fn half_root(&self, node: &Node, arg: Arg) -> Option<Value> {
        let value = match arg {
            Arg::Input(i) => node.inputs[i],
            Arg::Output(i) => node.outputs[i],
            Arg::Scratch(_) | Arg::Step => return None,
        };
        let root = self.storage_root(value);
        self.value(root).half.then_some(root)
    }

    fn launch(&self, node: &Node, profile: &Profile) -> Result<Launch> {
        if node.op.alias().is_some() {
            return Ok(Launch::default());
        }
        // Before the launch: kernels count elements in 32 bits.
        for value in node.inputs.iter().chain(&node.outputs) {
            let ty = &self.value(*value).ty;
            if ty.bytes() > profile.max_binding {
                return Err(Error::Limit {
                    what: format!("{}: {ty}", node.label()),
                    needed: ty.bytes(),
                    limit_name: BINDING,
                    limit: profile.max_binding,
                    unit: "bytes",
                });
            }
        }
        node.op.launch(LaunchContext {
            profile,
            inputs: &self.types(&node.inputs),
            outputs: &self.types(&node.outputs),
            halves: &self.halves(&node.inputs),
        })
    }

    /// Of each value, whether it is kept in half precision.
    pub(super) fn halves(&self, values: &[Value]) -> Vec<bool> {
        let is_half = |v: &Value| self.value(self.storage_root(*v)).half;
        values.iter().map(is_half).collect()
    }

    /// A dispatch of node `index`.
    fn listed(
        &self,
        index: usize,
        dispatch: &Dispatch,
        profile: &Profile,
        place: impl Fn(Arg) -> Place,
    ) -> Result<Listed> {
        let node = &self.nodes[index];
        let kernel = dispatch.kernel.path();
        let mut wgsl = dispatch.kernel.wgsl()?;
        let bound = dispatch.bindings.iter();
        let halves = bound.filter(|(_, arg)| self.half_root(node, *arg).is_some());
        let halves: Vec<&str> = halves.map(|(name, _)| *name).collect();
        if !halves.is_empty() {
            wgsl = profile.half.rewrite(kernel, &wgsl, &halves)?;
        }
        let module = naga::front::wgsl::parse_str(&wgsl)
            .map_err(|e| Error::shader(kernel, e.emit_to_string_with_path(&wgsl, kernel)))?;
        let bindings = reflect(kernel, &module)?;
        let args = match_bindings(dispatch, &bindings, node.op.updates())?;
        let seen =
            |(binding, arg): (&Binding, Arg)| place(arg).seen_by(dispatch, binding.launch_name());
        let places: Vec<Place> = bindings.iter().zip(args).map(seen).collect();
        let limit = |what: &str, needed: u64, limit_name, limit, unit| match needed > limit {
            true => Err(Error::Limit {
                what: format!("{} ({kernel}): {what}", node.label()),
                needed,
                limit_name,
                limit,
                unit,
            }),
            false => Ok(()),
        };
        let most = dispatch.workgroups.into_iter().max().unwrap_or(0);
        let name = "max_compute_workgroups_per_dimension";
        limit("the grid", most.into(), name, GROUPS_X.into(), "workgroups")?;
        let name = "max_storage_buffers_per_shader_stage";
        let storage = places.iter().filter(|p| p.home != Home::Step).count();
        limit(
            "the shader",
            storage as u64,
            name,
            STORAGE_BUFFERS as u64,
            "buffers",
        )?;
        let largest = places.iter().map(|p| p.bytes).max().unwrap_or(0);
        limit("a buffer", largest, BINDING, profile.max_binding, "bytes")?;
        Ok(Listed {
            node: index,
            layer: node.layer.clone(),
            op: node.op.name(),
            kernel,
            constants: dispatch.kernel.constants().collect(),
            parts: dispatch.kernel.parts().collect(),
            wgsl,
            workgroups: dispatch.workgroups,
            bindings: bindings.into_iter().zip(places).collect(),
        })
    }
}
