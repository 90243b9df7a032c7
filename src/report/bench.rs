//! A benchmark as tables.

use super::profile::counted;
use crate::bench::{Ceilings, Compared};
use crate::model::bytes;
use comfy_table::{CellAlignment, LineStyle, Table, presets};

/// How tables are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// With lines, for terminals.
    Terminal,
    /// As Markdown.
    Markdown,
}

impl Style {
    fn table(self) -> Table {
        let mut table = Table::new();
        match self {
            Self::Terminal => {
                let preset = presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());
                table.load_style(preset)
            }
            Self::Markdown => table.load_style(presets::ASCII_MARKDOWN),
        };
        table
    }
}

/// The device's ceilings.
pub fn ceilings(ceilings: &Ceilings, style: Style) -> String {
    let mut table = style.table();
    table.set_header(["Ceiling", "Measured"]);
    let rate = |gflops: f64| format!("{gflops:.1} GFLOP/s");
    let us = |us: f64| format!("{us:.1} µs");
    table.add_row(["f32 multiply-adds".to_owned(), rate(ceilings.f32_gflops)]);
    if let Some(f16) = ceilings.f16_gflops {
        table.add_row(["f16 multiply-adds".to_owned(), rate(f16)]);
    }
    for copy in &ceilings.copies {
        let what = format!("copy, {} read and written", bytes(copy.bytes));
        table.add_row([what, format!("{:.1} GB/s", copy.gb_per_s)]);
    }
    table.add_row(["another dispatch".to_owned(), us(ceilings.dispatch_us)]);
    table.add_row(["another submission".to_owned(), us(ceilings.submission_us)]);
    table.add_row([
        "submit, read 4 bytes back".to_owned(),
        us(ceilings.readback_us),
    ]);
    right_from(&mut table, 1);
    format!("{table}\n\nKernels timed by {}", ceilings.clock)
}

/// The kernels of one model and batch, in the order they run.
pub fn kernels(kernels: &[Compared], style: Style) -> String {
    let compared = kernels.iter().any(|c| c.speedup.is_some());
    let mut table = style.table();
    let mut header = vec![
        "Layer", "Op", "Shaders", "Time", "GFLOP/s", "GB/s", "Ceiling", "Reached",
    ];
    if compared {
        header.extend(["Before", "Faster"]);
    }
    table.set_header(header);
    let time = |us: f64| format!("{us:.0} µs");
    let join = match style {
        Style::Terminal => "\n",
        Style::Markdown => ", ",
    };
    for Compared {
        kernel,
        us_before,
        speedup,
    } in kernels
    {
        let shaders = counted(kernel.dispatches.iter().map(|d| d.shader.as_str()));
        let mut row = vec![
            kernel.layer.clone(),
            kernel.op.clone(),
            shaders.join(join),
            time(kernel.us),
            format!("{:.1}", kernel.gflops),
            format!("{:.1}", kernel.gb_per_s),
            kernel.bound.to_string(),
            format!("{:.0}%", kernel.percent),
        ];
        if compared {
            row.push(us_before.map_or("-".into(), time));
            row.push(speedup.map_or("new".into(), ratio));
        }
        table.add_row(row);
    }
    right_from(&mut table, 3);
    format!("{table}\n\n{}", total(kernels))
}

fn total(kernels: &[Compared]) -> String {
    let now: f64 = kernels.iter().map(|c| c.kernel.us).sum();
    let dispatches: usize = kernels.iter().map(|c| c.kernel.dispatches.len()).sum();
    let mut text = format!("Together: {:.2} ms in {dispatches} dispatches", 1e-3 * now);
    let matched = || kernels.iter().filter(|c| c.us_before.is_some());
    let before: f64 = matched().filter_map(|c| c.us_before).sum();
    if before > 0.0 {
        let now: f64 = matched().map(|c| c.kernel.us).sum();
        text += &format!(
            "; {} the speed of before over the {} kernels found in both",
            ratio(before / now),
            matched().count()
        );
    }
    text
}

fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}x")
}

fn right_from(table: &mut Table, column: usize) {
    for column in table.column_iter_mut().skip(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Earlier;
    use crate::bench::tests;

    #[test]
    fn ceilings_are_listed_with_their_units() {
        let text = ceilings(&tests::ceilings(), Style::Terminal);
        for part in [
            "100.0 GFLOP/s",
            "1.9 MiB",
            "20.0 GB/s",
            "50.0 µs",
            "host clock",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("f16"), "{text}");
    }

    #[test]
    fn kernels_come_with_rates_and_what_is_reached() {
        let now = [tests::kernel("conv1", "conv2d", 1).into()];
        let text = kernels(&now, Style::Markdown);
        let row = text.lines().find(|l| l.contains("conv1")).unwrap();
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let expected = [
            "conv1",
            "conv2d",
            "conv2d/forward.wgsl",
            "100 µs",
            "40.0",
            "5.0",
        ];
        assert_eq!(cells[1..7], expected);
        assert_eq!(cells[7..9], ["compute", "40%"]);
        assert!(!text.contains("Faster"), "{text}");
    }

    #[test]
    fn a_comparison_adds_ratios() {
        let [mut slow, fast] = [1, 2].map(|nth| tests::kernel("fc1", "matmul", nth));
        slow.us = 300.0;
        let earlier = Earlier {
            ceilings: tests::ceilings(),
            kernels: vec![slow],
        };
        let now = vec![tests::kernel("fc1", "matmul", 1), fast];
        let text = kernels(&earlier.compare(now), Style::Markdown);
        for part in [
            "3.00x |",
            "new |",
            "3.00x the speed of before over the 1 kernels",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
