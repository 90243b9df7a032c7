//! The plan as a picture: a row for each node from top to bottom; beside them the slots of
//! memory as columns, in which bars show who lives there how long, and what is alive in all.

use super::{Plan, op};
use crate::graph::{Holds, Tenant};
use crate::model::bytes;
use crate::report::svg::{begin, escaped};
use std::fmt::Write as _;

const ROW: f64 = 17.0;
/// Where the rows begin.
const TOP: f64 = 148.0;
/// The left edges of layer, op and result, and of the first slot.
const COLUMNS: [f64; 4] = [62.0, 206.0, 476.0, 640.0];
const SLOT: f64 = 19.0;
/// A bar that fills its slot, and the thinnest.
const BAR: [f64; 2] = [13.0, 3.0];
/// The longest bar of what is alive, and the room for its number.
const ALIVE: [f64; 2] = [150.0, 80.0];
/// Characters that fit a column.
const FITTING: [usize; 3] = [20, 40, 24];

/// The colours of what is made going forward, going backward, by the optimizer, and of
/// scratch.
const COLORS: [(&str, &str); 4] = [
    ("forward", "c0"),
    ("backward", "c1"),
    ("update", "c2"),
    ("scratch", "c7"),
];

impl Plan {
    /// The picture.
    pub fn svg(&self) -> String {
        let nodes = self.graph.nodes().len();
        let slots = self.listing.memory.slots.len();
        let right = COLUMNS[3] + SLOT * slots as f64;
        let width = right + 16.0 + ALIVE[0] + ALIVE[1];
        let height = TOP + ROW * nodes as f64 + 14.0;
        let mut out = begin([width, height], &self.title);
        self.draw_head(&mut out, right);
        self.draw_rows(&mut out, width);
        for tenant in &self.listing.memory.tenants {
            self.draw_tenant(&mut out, tenant);
        }
        self.draw_readers(&mut out);
        self.draw_alive(&mut out, right + 16.0);
        out + "</svg>\n"
    }

    fn draw_head(&self, out: &mut String, right: f64) {
        let memory = &self.listing.memory;
        let (title, device) = (escaped(&self.title), escaped(&self.device));
        let figures = format!(
            "{} nodes, {} dispatches of {} shaders; {} slots hold {}, states {}",
            self.graph.nodes().len(),
            self.listing.dispatches.len(),
            self.shaders(),
            memory.slots.len(),
            bytes(memory.bytes()),
            bytes(self.state_bytes()),
        );
        let _ = writeln!(
            out,
            "<text x=\"12\" y=\"24\" class=\"title\">{title}</text>\
             <text x=\"12\" y=\"43\" class=\"pale\">{device}</text>\
             <text x=\"12\" y=\"61\" class=\"pale\">{figures}</text>"
        );
        let shown = if self.training {
            &COLORS[..]
        } else {
            &COLORS[..1]
        };
        for (i, (name, color)) in shown.iter().enumerate() {
            let x = 12.0 + 92.0 * i as f64;
            let _ = writeln!(
                out,
                "<rect x=\"{x}\" y=\"74\" width=\"11\" height=\"11\" rx=\"3\" class=\"f{color}\"/>\
                 <text x=\"{}\" y=\"84\">{name}</text>",
                x + 16.0
            );
        }
        let base = TOP - 6.0;
        for (x, heading) in COLUMNS.iter().zip(["layer", "op", "result"]) {
            let _ = write!(
                out,
                "<text x=\"{x}\" y=\"{base}\" class=\"pale\">{heading}</text>"
            );
        }
        for (i, slot) in memory.slots.iter().enumerate() {
            let x = COLUMNS[3] + SLOT * (i as f64 + 0.5) + 3.0;
            let _ = write!(
                out,
                "<text transform=\"translate({x} {base}) rotate(-65)\" class=\"pale\">{i}: {}</text>",
                bytes(slot.bytes)
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{base}\" class=\"pale\">alive</text>",
            right + 16.0
        );
    }

    fn draw_rows(&self, out: &mut String, width: f64) {
        for (i, node) in self.graph.nodes().iter().enumerate() {
            let y = TOP + ROW * i as f64;
            if i % 2 == 0 {
                let _ = write!(
                    out,
                    "<rect x=\"6\" y=\"{y}\" width=\"{}\" height=\"{ROW}\" class=\"raised\"/>",
                    width - 12.0
                );
            }
            let base = y + ROW - 5.0;
            let color = COLORS[self.phase(i)].1;
            let _ = write!(
                out,
                "<rect x=\"6\" y=\"{y}\" width=\"4\" height=\"{ROW}\" class=\"f{color}\"/>\
                 <text x=\"52\" y=\"{base}\" class=\"end pale\">%{i}</text>"
            );
            let result = self
                .results(node)
                .next()
                .map_or(String::new(), |(_, ty)| ty);
            let texts = [node.layer.clone(), op(node), result];
            for ((x, text), fitting) in COLUMNS.iter().zip(texts).zip(FITTING) {
                let _ = write!(
                    out,
                    "<text x=\"{x}\" y=\"{base}\">{}</text>",
                    escaped(&shortened(&text, fitting))
                );
            }
            out.push('\n');
        }
    }

    /// Of [`COLORS`] the one of a node.
    fn phase(&self, node: usize) -> usize {
        let nodes = self.graph.nodes();
        // What a step tells of itself comes between the two passes.
        let turn = nodes.iter().position(|n| n.layer == "metrics");
        match &*nodes[node].layer {
            "optimizer" if self.training => 2,
            _ if self.training && turn.is_some_and(|turn| node > turn) => 1,
            _ => 0,
        }
    }

    fn draw_tenant(&self, out: &mut String, tenant: &Tenant) {
        let (start, end) = (*tenant.life.start(), *tenant.life.end());
        let color = match tenant.holds {
            Holds::Result(_) => COLORS[self.phase(start)].1,
            Holds::Scratch { .. } => COLORS[3].1,
        };
        let share = tenant.bytes as f64 / self.listing.memory.slots[tenant.slot].bytes as f64;
        let width = (BAR[0] * share).max(BAR[1]);
        let x = COLUMNS[3] + SLOT * (tenant.slot as f64 + 0.5) - 0.5 * width;
        let y = TOP + ROW * start as f64 + 1.5;
        let height = ROW * (end - start + 1) as f64 - 3.0;
        let _ = writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"3\" \
             class=\"f{color}\"><title>{}, {}, from %{start} to %{end}</title></rect>",
            escaped(&self.tenant(tenant)),
            bytes(tenant.bytes)
        );
    }

    /// A dot for each node that reads what a slot holds.
    fn draw_readers(&self, out: &mut String) {
        for (i, node) in self.graph.nodes().iter().enumerate() {
            let mut read: Vec<usize> = node
                .inputs
                .iter()
                .filter_map(|value| {
                    let root = self.graph.storage_root(*value);
                    self.listing.memory.results.get(&root).copied()
                })
                .collect();
            read.sort_unstable();
            read.dedup();
            for slot in read {
                let x = COLUMNS[3] + SLOT * (slot as f64 + 0.5);
                let y = TOP + ROW * (i as f64 + 0.5);
                let _ = write!(
                    out,
                    "<circle cx=\"{x}\" cy=\"{y}\" r=\"2.4\" class=\"reader\"/>"
                );
            }
        }
        out.push('\n');
    }

    fn draw_alive(&self, out: &mut String, left: f64) {
        let (highest, peak) = self.peak();
        let alive = self.listing.memory.alive(self.graph.nodes().len());
        for (i, now) in alive.into_iter().enumerate() {
            let y = TOP + ROW * i as f64;
            let length = ALIVE[0] * now as f64 / peak.max(1) as f64;
            let color = if i == highest { "fc5" } else { "fc7" };
            let _ = write!(
                out,
                "<rect x=\"{left}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\" class=\"{color}\">\
                 <title>%{i}: {}</title></rect>",
                y + 3.0,
                ROW - 6.0,
                bytes(now)
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\">{}</text>",
            left + ALIVE[0] + 6.0,
            TOP + ROW * (highest as f64 + 1.0) - 5.0,
            bytes(peak)
        );
    }
}

fn shortened(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}
