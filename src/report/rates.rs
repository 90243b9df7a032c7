//! The learning-rate finder's picture and table.

use super::plot::{GRID, line, text};
use super::svg::{Scale, begin, short};
use crate::train::{FoundRates, RatePoint};
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use std::fmt::Write as _;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 480.0;
/// Left, right, top and bottom of the plot.
const PLOT: [f64; 4] = [70.0, 770.0, 50.0, 420.0];

/// The picture as SVG: the loss, and the loss smoothed, over the learning rate; the
/// suggestions as lines.
pub fn svg(title: &str, found: &FoundRates) -> String {
    let [left, right, top, bottom] = PLOT;
    let rates = found.points.iter().map(|p| p.learning_rate);
    let x = Scale::logarithmic(rates, [left, right]);
    let y = Scale::linear(shown(&found.points).into_iter(), [bottom, top]);
    let mut out = begin([WIDTH, HEIGHT], title);
    text(&mut out, [left, 24.0], "start", title);
    for tick in x.ticks() {
        let at = x.at(tick);
        line(&mut out, [at, top], [at, bottom], GRID);
        text(&mut out, [at, bottom + 18.0], "middle", &short(tick));
    }
    for tick in y.ticks() {
        let at = y.at(tick);
        line(&mut out, [left, at], [right, at], GRID);
        text(&mut out, [left - 8.0, at + 4.0], "end", &short(tick));
    }
    let middle = f64::midpoint(left, right);
    text(&mut out, [middle, bottom + 40.0], "middle", "learning rate");
    text(&mut out, [left, top - 8.0], "middle", "loss");
    let mut curve = |class: &str, width: f64, of: fn(&RatePoint) -> f64| {
        let points = found.points.iter();
        let points: Vec<String> = points
            .map(|p| format!("{:.1},{:.1}", x.at(p.learning_rate), y.at(of(p))))
            .collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" class=\"{class}\" stroke-width=\"{width}\"/>",
            points.join(" ")
        );
    };
    curve("lc7", 1.0, |p| p.loss);
    curve("lc0", 2.0, |p| p.smoothed);
    let suggestions = [
        (found.valley, "valley", 1),
        (found.largest, "a tenth of the lowest", 2),
    ];
    for (i, (rate, name, color)) in suggestions.into_iter().enumerate() {
        let Some(rate) = rate else { continue };
        let at = x.at(rate);
        let _ = writeln!(
            out,
            "<path class=\"lc{color}\" stroke-dasharray=\"5 4\" d=\"M{at:.1} {top}V{bottom}\"/>"
        );
        let label = format!("{name}: {rate:.1e}");
        let height = top + 14.0 + 16.0 * i as f64;
        text(&mut out, [at + 5.0, height], "start", &label);
    }
    out + "</svg>\n"
}

/// About twenty of the points as a table, and the suggestion.
pub fn table(found: &FoundRates) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header(["Learning rate", "Loss", "Smoothed"]);
    for point in found
        .points
        .iter()
        .step_by(found.points.len().div_ceil(20).max(1))
    {
        table.add_row([
            format!("{:.2e}", point.learning_rate),
            format!("{:.4}", point.loss),
            format!("{:.4}", point.smoothed),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let end = match found.diverged {
        true => "the loss diverged there",
        false => "the sweep ended there",
    };
    let suggestion = match (found.valley, found.largest) {
        (Some(valley), Some(largest)) => format!(
            "suggestion: --learning-rate {valley:.1e} (two thirds down the longest fall; a tenth \
             of the rate with the lowest loss is {largest:.1e})"
        ),
        _ => "no suggestion: the loss did not fall".to_owned(),
    };
    format!("{table}\n{end}\n{suggestion}")
}

/// The ends of the losses that are shown: a diverging end would press all else to the ground.
fn shown(points: &[RatePoint]) -> [f64; 2] {
    let low = points.iter().map(|p| p.smoothed.min(p.loss));
    let low = low.fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|p| p.smoothed);
    let high = high.fold(f64::NEG_INFINITY, f64::max);
    let first = points.first().map_or(high, |p| p.smoothed);
    [low, high.min(1.5 * first.max(low))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_or_no_points_still_make_a_picture() {
        let found = FoundRates {
            points: Vec::new(),
            valley: None,
            largest: None,
            diverged: true,
        };
        let point = RatePoint {
            learning_rate: 0.1,
            loss: 2.0,
            smoothed: 2.0,
        };
        let one = FoundRates {
            points: vec![point],
            valley: Some(0.1),
            ..found.clone()
        };
        for found in [found, one] {
            let picture = svg("a<b", &found);
            assert!(
                picture.contains("a&lt;b") && !picture.contains("NaN"),
                "{picture}"
            );
            assert!(table(&found).contains("no suggestion"));
        }
    }
}
