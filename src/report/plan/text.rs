//! The plan for a terminal.

use super::{Plan, op};
use crate::graph::{Listed, Node};
use crate::model::{bytes, grouped};
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, presets};
use std::fmt;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\non {}", self.title, self.device)?;
        writeln!(f, "\nThe graph, in the order it runs\n{}", self.nodes())?;
        for note in self.notes() {
            writeln!(f, "{note}")?;
        }
        let memory = &self.listing.memory;
        writeln!(f, "\nMemory that results take turns in\n{}", self.slots())?;
        let (node, peak) = self.peak();
        writeln!(
            f,
            "{} slots hold {}; {} are alive at most, at %{node}: {:.2} times that",
            memory.slots.len(),
            bytes(memory.bytes()),
            bytes(peak),
            memory.bytes() as f64 / peak.max(1) as f64,
        )?;
        writeln!(f, "\nMemory that outlives the step\n{}", self.states())?;
        write!(
            f,
            "\nThe dispatches\n{}\n{} nodes, {} dispatches of {} shaders, {:.3} GFLOP",
            self.dispatches(),
            self.graph.nodes().len(),
            self.listing.dispatches.len(),
            self.shaders(),
            1e-9 * self.graph.flops() as f64,
        )
    }
}

impl Plan {
    fn nodes(&self) -> Table {
        let mut table = table(&["", "Layer", "Op", "Reads", "Makes", "In"], &[0]);
        for (index, node) in self.graph.nodes().iter().enumerate() {
            let mark = if node.guard.is_some() { "*" } else { "" };
            let reads: Vec<_> = node.inputs.iter().map(|v| self.name(*v)).collect();
            let (made, homes) = self.made(node);
            table.add_row([
                format!("{mark}%{index}"),
                node.layer.clone(),
                op(node),
                reads.join(", "),
                made,
                homes,
            ]);
        }
        table
    }

    /// What a node makes, and where that lies.
    fn made(&self, node: &Node) -> (String, String) {
        let mut types = Vec::new();
        let mut homes = Vec::new();
        for (value, ty) in self.results(node) {
            types.push(ty);
            let kept = self.graph.value(self.graph.storage_root(value)).store;
            let place = self.listing.memory.place(&self.graph, value);
            homes.push(self.place(&place, kept));
        }
        // An op that only updates in place makes what it updates.
        for input in node.op.updates() {
            let updated = node.inputs[*input];
            let place = self.listing.memory.place(&self.graph, updated);
            homes.push(self.place(&place, Some(updated)));
        }
        (types.join(", "), homes.join(", "))
    }

    fn slots(&self) -> Table {
        let mut table = table(
            &["Slot", "Size", "Who lives there, from node to node"],
            &[0, 1],
        );
        for (index, slot) in self.listing.memory.slots.iter().enumerate() {
            let tenants = self.listing.memory.tenants.iter();
            let tenants = tenants.filter(|t| t.slot == index).map(|t| {
                let (start, end) = (t.life.start(), t.life.end());
                format!("{} {start}-{end}", self.tenant(t))
            });
            let tenants: Vec<_> = tenants.collect();
            table.add_row([index.to_string(), bytes(slot.bytes), tenants.join(", ")]);
        }
        table
    }

    fn states(&self) -> Table {
        let mut table = table(&["State", "Type", "Bytes"], &[2]);
        for (name, ty) in self.graph.states() {
            table.add_row([name, &ty.to_string(), &grouped(ty.bytes())]);
        }
        table
    }

    fn dispatches(&self) -> Table {
        let headings = [
            "",
            "Node",
            "Layer",
            "Shader",
            "With",
            "Workgroups",
            "Bindings",
        ];
        let mut table = table(&headings, &[0, 1]);
        for (index, listed) in self.listing.dispatches.iter().enumerate() {
            let with = listed
                .parts
                .iter()
                .map(|(name, part)| format!("{name} {part}"));
            let [x, y, z] = listed.workgroups;
            let workgroups = match (y, z) {
                (1, 1) => x.to_string(),
                (_, 1) => format!("{x} x {y}"),
                _ => format!("{x} x {y} x {z}"),
            };
            table.add_row([
                index.to_string(),
                format!("%{}", listed.node),
                listed.layer.clone(),
                listed.kernel.to_owned(),
                with.collect::<Vec<_>>().join(", "),
                workgroups,
                self.bindings(listed),
            ]);
        }
        table
    }

    fn bindings(&self, listed: &Listed) -> String {
        let node = &self.graph.nodes()[listed.node];
        // Names for one place share it: some kernels read a tensor under two types.
        let mut bound: Vec<(Vec<&str>, String)> = Vec::new();
        for (binding, place) in &listed.bindings {
            let mut values = node.inputs.iter().chain(&node.outputs);
            let value = values.find(|v| self.listing.memory.place(&self.graph, **v) == *place);
            let kept = value.map(|v| {
                let root = self.graph.storage_root(*v);
                self.graph.value(root).store.unwrap_or(*v)
            });
            let place = self.place(place, kept);
            match bound.last_mut() {
                Some((names, last)) if *last == place => names.push(&binding.name),
                _ => bound.push((vec![&binding.name], place)),
            }
        }
        let bound = bound.iter();
        let bound = bound.map(|(names, place)| match names[..] {
            [name] if name == place => name.to_owned(),
            _ => format!("{} = {place}", names.join(" = ")),
        });
        bound.collect::<Vec<_>>().join(", ")
    }
}

/// An empty table, as wide as the terminal; some columns hold numbers.
fn table(headings: &[&str], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(headings);
    for index in numbers {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
