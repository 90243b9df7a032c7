//! The plan for scripts.

use super::{Plan, op};
use crate::graph::{Home, Listed, Place};
use serde_json::{Map, Value, json};

impl Plan {
    /// One object with nodes, slots, states and dispatches.
    pub fn json(&self) -> Value {
        let memory = &self.listing.memory;
        let states = self.graph.states();
        let states = states
            .map(|(name, ty)| json!({"name": name, "type": ty.to_string(), "bytes": ty.bytes()}));
        let dispatches = self.listing.dispatches.iter().map(dispatch);
        json!({
            "event": "plan",
            "title": self.title,
            "device": self.device,
            "training": self.training,
            "batch_size": self.batch,
            "flops": self.graph.flops(),
            "nodes": self.nodes_json(),
            "slots": self.slots_json(),
            "slot_bytes": memory.bytes(),
            "lower_bound_bytes": memory.lower_bound,
            "states": states.collect::<Vec<_>>(),
            "state_bytes": self.state_bytes(),
            "dispatches": dispatches.collect::<Vec<_>>(),
        })
    }

    fn nodes_json(&self) -> Vec<Value> {
        let nodes = self.graph.nodes().iter();
        let node = nodes.map(|node| {
            let names = |values: &[_]| -> Vec<_> { values.iter().map(|v| self.name(*v)).collect() };
            let outputs = self.results(node).map(|(value, ty)| {
                let place = self.listing.memory.place(&self.graph, value);
                json!({"name": self.name(value), "type": ty, "bytes": place.bytes,
                    "place": home(&place)})
            });
            let updates = node.op.updates().iter().map(|i| self.name(node.inputs[*i]));
            json!({
                "layer": node.layer,
                "op": op(node),
                "inputs": names(&node.inputs),
                "outputs": outputs.collect::<Vec<_>>(),
                "updates": updates.collect::<Vec<_>>(),
                "guarded": node.guard.is_some(),
            })
        });
        node.collect()
    }

    fn slots_json(&self) -> Vec<Value> {
        let memory = &self.listing.memory;
        let slots = memory.slots.iter().enumerate().map(|(index, slot)| {
            let tenants = memory.tenants.iter().filter(|t| t.slot == index).map(|t| {
                json!({"name": self.tenant(t), "bytes": t.bytes, "first_node": t.life.start(),
                    "last_node": t.life.end()})
            });
            json!({"bytes": slot.bytes, "tenants": tenants.collect::<Vec<_>>()})
        });
        slots.collect()
    }
}

fn dispatch(listed: &Listed) -> Value {
    let constants = listed.constants.iter();
    let constants: Map<_, _> = constants
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    let parts = listed.parts.iter();
    let parts: Map<_, _> = parts
        .map(|(name, part)| ((*name).to_owned(), json!(part)))
        .collect();
    let bindings = listed.bindings.iter().map(|(binding, place)| {
        json!({"name": binding.name, "binding": binding.index, "place": home(place),
            "offset": place.offset, "bytes": place.bytes})
    });
    json!({
        "node": listed.node,
        "layer": listed.layer,
        "op": listed.op,
        "shader": listed.kernel,
        "constants": constants,
        "parts": parts,
        "workgroups": listed.workgroups,
        "bindings": bindings.collect::<Vec<_>>(),
    })
}

/// `slot 3`, `state parameters` or `step`.
fn home(place: &Place) -> String {
    match &place.home {
        Home::Slot(slot) => format!("slot {slot}"),
        Home::State(name) => format!("state {name}"),
        Home::Step => "step".into(),
    }
}
