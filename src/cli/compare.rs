//! Size, accuracy and speed of models beside each other.

use super::output;
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use gpucnn::compress::Measured;
use serde_json::json;
use std::path::Path;

/// Prints models, each with a name; the last one is in the folder.
pub fn print<const N: usize>(
    event: &str,
    models: [(&str, &Measured); N],
    folder: &Path,
    as_json: bool,
) {
    if as_json {
        let rows: Vec<_> = models
            .iter()
            .map(|(name, measured)| json!({"name": name, "measured": measured}))
            .collect();
        output::json(&json!({"event": event, "run": folder.to_string_lossy(), "models": rows}));
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header([
        "",
        "Parameters",
        "Not zero",
        "MFLOPs",
        "File, kB",
        "Loss",
        "Accuracy",
        "Images/s",
    ]);
    for (name, m) in models {
        table.add_row([
            name.to_owned(),
            m.parameters.to_string(),
            m.nonzero.to_string(),
            format!("{:.2}", m.flops as f64 / 1e6),
            format!("{:.1}", m.bytes as f64 / 1e3),
            format!("{:.4}", m.loss),
            format!("{:.2}%", 100.0 * m.accuracy),
            format!("{:.0}", m.images_per_s),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    println!("the model is in {}", folder.display());
}
