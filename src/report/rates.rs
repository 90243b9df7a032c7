//! The learning-rate finder's picture and table.

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
    let rates = found.points.iter().map(|p| p.learning_rate.log10());
    let [low, high] = ends(rates);
    let x = |rate: f64| left + (rate.log10() - low) / (high - low) * (right - left);
    let [lowest, highest] = shown(&found.points);
    let y = |loss: f64| {
        let share = (loss.clamp(lowest, highest) - lowest) / (highest - lowest);
        bottom - share * (bottom - top)
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    text(&mut out, [left, 24.0], "start", &title);
    for decade in low.ceil() as i32..=high.floor() as i32 {
        let at = x(10f64.powi(decade));
        line(&mut out, [at, top], [at, bottom], "#dddddd", "");
        text(
            &mut out,
            [at, bottom + 18.0],
            "middle",
            &format!("1e{decade}"),
        );
    }
    for i in 0..=5 {
        let loss = lowest + (highest - lowest) * f64::from(i) / 5.0;
        line(&mut out, [left, y(loss)], [right, y(loss)], "#dddddd", "");
        text(
            &mut out,
            [left - 8.0, y(loss) + 4.0],
            "end",
            &format!("{loss:.2}"),
        );
    }
    let middle = f64::midpoint(left, right);
    text(&mut out, [middle, bottom + 40.0], "middle", "learning rate");
    text(&mut out, [left, top - 8.0], "middle", "loss");
    let mut curve = |color: &str, width: f64, of: fn(&RatePoint) -> f64| {
        let points = found.points.iter();
        let points: Vec<String> = points
            .map(|p| format!("{:.1},{:.1}", x(p.learning_rate), y(of(p))))
            .collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\"/>",
            points.join(" ")
        );
    };
    curve("#bbbbbb", 1.0, |p| p.loss);
    curve("#0072b2", 2.0, |p| p.smoothed);
    let suggestions = [
        (found.valley, "valley", "#d55e00"),
        (found.largest, "a tenth of the lowest", "#009e73"),
    ];
    for (i, (rate, name, color)) in suggestions.into_iter().enumerate() {
        let Some(rate) = rate else { continue };
        let dashes = " stroke-dasharray=\"5 4\"";
        line(&mut out, [x(rate), top], [x(rate), bottom], color, dashes);
        let label = format!("{name}: {rate:.1e}");
        text(
            &mut out,
            [x(rate) + 5.0, top + 14.0 + 16.0 * i as f64],
            "start",
            &label,
        );
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

/// The least and the largest of some values, apart.
fn ends(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let [low, high] = values.fold([f64::INFINITY, f64::NEG_INFINITY], |[l, h], v| {
        [l.min(v), h.max(v)]
    });
    match low < high {
        true => [low, high],
        false if low == high => [low - 0.5, high + 0.5],
        false => [0.0, 1.0],
    }
}

/// The losses that are shown: a diverging end would press all else to the ground.
fn shown(points: &[RatePoint]) -> [f64; 2] {
    let smoothed = points.iter().map(|p| p.smoothed);
    let [low, high] = ends(smoothed);
    let first = points.first().map_or(high, |p| p.smoothed);
    ends([0.9 * low, high.min(1.5 * first.max(low))].into_iter())
}

fn text(out: &mut String, [x, y]: [f64; 2], anchor: &str, content: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>"
    );
}

fn line(out: &mut String, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], color: &str, more: &str) {
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\"{more}/>"
    );
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
