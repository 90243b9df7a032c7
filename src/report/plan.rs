//! The memory of a training step as a table.

use crate::graph::{Graph, MemoryPlan};
use crate::model::{bytes, grouped};
use crate::ops::Builder;
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use serde_json::{Value, json};

/// The nodes of a graph in the order they run, with the slots their results live in.
pub fn table(graph: &Graph, plan: &MemoryPlan) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header(["Layer", "Op", "Result", "Slot", "Bytes"]);
    for (node, scratch) in graph.nodes().iter().zip(&plan.scratch) {
        for value in &node.outputs {
            let ty = graph.ty(*value);
            let place = plan.results.get(value).map(usize::to_string);
            // A result without a slot is another's storage or a kept state's.
            let place = place.unwrap_or_default();
            let size = grouped(ty.bytes());
            table.add_row([&*node.layer, node.op.name(), &ty.to_string(), &place, &size]);
        }
        for slot in scratch {
            let place = slot.to_string();
            table.add_row([&*node.layer, node.op.name(), "scratch", &place, ""]);
        }
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{table}\nStates, which outlive the step:");
    for (name, ty) in graph.states() {
        text += &format!("\n  {name} {ty}, {}", bytes(ty.bytes()));
    }
    text + &format!(
        "\n{} slots hold {}; {} live at once at most: {:.2} times that",
        plan.slots.len(),
        bytes(plan.bytes()),
        bytes(plan.lower_bound),
        ratio(plan),
    )
}

/// The plan as one JSON object.
pub fn as_json(graph: &Graph, plan: &MemoryPlan) -> Value {
    let states = graph.states();
    let states = states.map(|(name, ty)| json!({"name": name, "bytes": ty.bytes()}));
    let slots: Vec<u64> = plan.slots.iter().map(|slot| slot.bytes).collect();
    json!({"event": "plan", "slots": slots, "slot_bytes": plan.bytes(),
        "lower_bound_bytes": plan.lower_bound, "states": states.collect::<Vec<_>>()})
}

fn ratio(plan: &MemoryPlan) -> f64 {
    plan.bytes() as f64 / plan.lower_bound.max(1) as f64
}
