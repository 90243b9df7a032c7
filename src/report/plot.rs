//! Plots that stand alone: axes of whole decades, lines and text.

use super::svg::escaped;
use std::fmt::Write as _;

/// The colours of series, of the [style](super::svg::begin), on light and on dark ground.
pub(super) const COLORS: [&str; 6] = [
    "var(--s0)",
    "var(--s1)",
    "var(--s2)",
    "var(--s3)",
    "var(--s4)",
    "var(--s6)",
];
/// The colours of a grid's lines and of what is as strong as text.
pub(super) const GRID: &str = "var(--line)";
pub(super) const STRONG: &str = "var(--text)";

/// A logarithmic axis of whole decades.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    /// Powers of ten at its ends.
    pub(super) decades: [i32; 2],
    /// Pixels at its ends.
    pub(super) pixels: [f64; 2],
}

impl Axis {
    /// The axis that holds all positive values.
    pub(super) fn of(values: impl Iterator<Item = f64>, pixels: [f64; 2]) -> Self {
        let logs = values.filter(|v| *v > 0.0 && v.is_finite()).map(f64::log10);
        let [low, high] = logs.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| {
            [low.min(v), high.max(v)]
        });
        let decades = match low <= high {
            true => [low.floor() as i32, (high.floor() as i32 + 1)],
            false => [0, 1],
        };
        Self { decades, pixels }
    }

    pub(super) fn at(self, value: f64) -> f64 {
        let [low, high] = self.decades.map(f64::from);
        let [begin, end] = self.pixels;
        begin + (value.log10() - low) / (high - low) * (end - begin)
    }

    pub(super) fn low(self) -> f64 {
        10f64.powi(self.decades[0])
    }

    pub(super) fn high(self) -> f64 {
        10f64.powi(self.decades[1])
    }
}

pub(super) fn text(out: &mut String, [x, y]: [f64; 2], anchor: &str, content: &str) {
    let content = escaped(content);
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>"
    );
}

pub(super) fn line(out: &mut String, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], color: &str) {
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\"/>"
    );
}

pub(super) fn power(decade: i32) -> String {
    format!("{}", 10f64.powi(decade))
}

/// Lines at every decade, with their labels.
pub(super) fn grid(out: &mut String, x: Axis, y: Axis) {
    let ([left, right], [bottom, top]) = (x.pixels, y.pixels);
    for decade in x.decades[0]..=x.decades[1] {
        let at = x.at(10f64.powi(decade));
        line(out, [at, top], [at, bottom], GRID);
        text(out, [at, bottom + 18.0], "middle", &power(decade));
    }
    for decade in y.decades[0]..=y.decades[1] {
        let at = y.at(10f64.powi(decade));
        line(out, [left, at], [right, at], GRID);
        text(out, [left - 8.0, at + 4.0], "end", &power(decade));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_spans_whole_decades_around_its_values() {
        let axis = Axis::of([0.0, 0.3, 40.0, f64::INFINITY].into_iter(), [100.0, 400.0]);
        assert_eq!(axis.decades, [-1, 2]);
        let at = [0.1, 1.0, 100.0].map(|v| axis.at(v).round());
        assert_eq!(at, [100.0, 200.0, 400.0]);
        assert_eq!(Axis::of([10.0].into_iter(), [0.0, 1.0]).decades, [1, 2]);
        assert_eq!(Axis::of(std::iter::empty(), [0.0, 1.0]).decades, [0, 1]);
    }
}
