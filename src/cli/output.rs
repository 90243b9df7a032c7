//! Bars on a terminal, plain lines elsewhere, JSON where asked.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::Write;

/// A bar on standard error; invisible where that is no terminal.
pub fn bar(label: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar:.cyan/dim} {pos}/{len} {msg}");
    // The setters would draw it at once, before there is anything to show.
    ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr())
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_prefix(label.to_owned())
}

/// A bar that counts bytes and tells the time left.
#[cfg(feature = "fetch")]
pub fn bytes_bar() -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{prefix} {wide_bar:.cyan/dim} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
    );
    bar("").with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Prints one JSON object as a line. A reader that has gone away is no error.
pub fn json(value: &impl Serialize) {
    if let Ok(line) = serde_json::to_string(value) {
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}
