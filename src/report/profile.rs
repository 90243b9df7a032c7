//! A step's profile as a table and as a trace file.

use crate::graph::{Profile, Timing};
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use serde_json::{Value, json};

/// The profile as a table: a row a node, with its share of the step and its rate.
pub fn table(profile: &Profile) -> String {
    let total: f64 = profile.timings.iter().map(Timing::seconds).sum();
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header(["Layer", "Op", "Kernels", "Time", "Share", "GFLOP/s"]);
    for timing in &profile.timings {
        let kernels = counted(timing.dispatches.iter().map(|d| d.0));
        let seconds = timing.seconds();
        table.add_row([
            timing.layer.clone(),
            timing.op.to_owned(),
            kernels.join("\n"),
            format!("{:.0} µs", 1e6 * seconds),
            format!("{:.1}%", 100.0 * seconds / total),
            format!("{:.1}", 1e-9 * timing.flops as f64 / seconds),
        ]);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!(
        "{table}\nA step: {:.2} ms in {} dispatches, timed one by one by {}",
        1e3 * total,
        profile
            .timings
            .iter()
            .map(|t| t.dispatches.len())
            .sum::<usize>(),
        profile.clock
    )
}

/// The shaders of a node's dispatches, each once, with how often it is dispatched.
pub(super) fn counted<'a>(shaders: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for shader in shaders {
        match counts.iter_mut().find(|(counted, _)| *counted == shader) {
            Some((_, count)) => *count += 1,
            None => counts.push((shader, 1)),
        }
    }
    let text = |(shader, count): (&str, usize)| match count {
        1 => shader.to_owned(),
        _ => format!("{shader} ×{count}"),
    };
    counts.into_iter().map(text).collect()
}

/// The profile as one JSON object.
pub fn as_json(profile: &Profile) -> Value {
    let nodes = profile.timings.iter().map(|timing| {
        let dispatches = timing.dispatches.iter();
        let dispatches = dispatches.map(|(k, s)| json!({"kernel": k, "seconds": s}));
        json!({"layer": timing.layer, "op": timing.op, "seconds": timing.seconds(),
            "flops": timing.flops, "dispatches": dispatches.collect::<Vec<_>>()})
    });
    json!({"event": "profile", "clock": profile.clock.to_string(),
        "nodes": nodes.collect::<Vec<_>>()})
}

/// The profile in the Trace Event Format, which Perfetto and Chrome open: the dispatches
/// of a step one after the other, below the layers they belong to.
pub fn trace(profile: &Profile) -> Value {
    const LAYERS: u32 = 1;
    const DISPATCHES: u32 = 2;
    let name = |track: u32, name: &str| json!({"name": "thread_name", "ph": "M", "pid": 1, "tid": track, "args": {"name": name}});
    let span = |track: u32, name: &str, begin: f64, seconds: f64, args: Value| {
        json!({"name": name, "ph": "X", "pid": 1, "tid": track,
            "ts": 1e6 * begin, "dur": 1e6 * seconds, "args": args})
    };
    let mut events = vec![name(LAYERS, "layers"), name(DISPATCHES, "dispatches")];
    let mut now = 0.0;
    for timing in &profile.timings {
        let label = format!("{} ({})", timing.layer, timing.op);
        let args = json!({"flops": timing.flops});
        events.push(span(LAYERS, &label, now, timing.seconds(), args));
        for (kernel, seconds) in &timing.dispatches {
            events.push(span(DISPATCHES, kernel, now, *seconds, json!({})));
            now += seconds;
        }
    }
    json!({"traceEvents": events, "displayTimeUnit": "ms"})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::profiler::Clock;

    fn profile() -> Profile {
        let timing = |layer: &str, dispatches: Vec<(&'static str, f64)>| Timing {
            layer: layer.into(),
            op: "conv2d",
            flops: 3_000_000,
            bytes: 0,
            dispatches,
        };
        Profile {
            clock: Clock::Device,
            timings: vec![
                timing("conv1", vec![("a.wgsl", 1e-3), ("b.wgsl", 2e-3)]),
                timing("conv2", vec![("a.wgsl", 1e-3)]),
            ],
        }
    }

    #[test]
    fn the_table_states_times_shares_and_rates() {
        let text = table(&profile());
        let conv1 = text.lines().find(|l| l.contains("conv1")).unwrap();
        for cell in ["3000 µs", "75.0%", "1.0"] {
            assert!(conv1.contains(cell), "{text}");
        }
        assert!(text.contains("4.00 ms in 3 dispatches"), "{text}");
    }

    #[test]
    fn the_spans_of_a_trace_follow_one_another() {
        let trace = trace(&profile());
        let events = trace["traceEvents"].as_array().unwrap();
        let spans = |track: u64| {
            events
                .iter()
                .filter(move |e| e["ph"] == "X" && e["tid"] == track)
                .map(|e| [e["ts"].as_f64().unwrap(), e["dur"].as_f64().unwrap()])
                .map(|span| span.map(f64::round))
                .collect::<Vec<_>>()
        };
        assert_eq!(spans(1), [[0.0, 3000.0], [3000.0, 1000.0]]);
        assert_eq!(
            spans(2),
            [[0.0, 1000.0], [1000.0, 2000.0], [3000.0, 1000.0]]
        );
    }
}
