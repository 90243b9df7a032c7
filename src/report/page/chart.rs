//! A line chart as SVG, drawn whole without a script; the script adds what the pointer is at.

use crate::report::svg::{Scale, escaped, short};
use serde_json::json;
use std::fmt::Write as _;

const SIZE: [f64; 2] = [430.0, 250.0];
/// Left, right, top and bottom of the plot.
const PLOT: [f64; 4] = [52.0, 418.0, 12.0, 212.0];
/// Colours of series, `--s0` and on, in the style sheet.
pub(in crate::report) const COLORS: usize = 8;

/// A line.
pub(in crate::report) struct Series {
    pub name: String,
    /// Its colour, of [`COLORS`] before they repeat.
    pub color: usize,
    /// Whether it stands back: thin and pale, without marks.
    pub faint: bool,
    pub dashed: bool,
    /// x and y; what is not finite is left out.
    pub points: Vec<[f64; 2]>,
}

impl Series {
    pub fn new(name: impl Into<String>, color: usize, points: Vec<[f64; 2]>) -> Self {
        Self {
            name: name.into(),
            color: color % COLORS,
            faint: false,
            dashed: false,
            points,
        }
    }

    pub fn faint(mut self) -> Self {
        self.faint = true;
        self
    }

    pub fn dashed(mut self) -> Self {
        self.dashed = true;
        self
    }
}

/// Lines over a common x.
pub(in crate::report) struct Chart<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub series: Vec<Series>,
    /// Whether values are shares, shown as percentages.
    pub percent: bool,
    /// Whether zero is part of the picture.
    pub from_zero: bool,
}

/// The largest of the values may be this many times the smallest before the axis is
/// logarithmic.
const LINEAR_RANGE: f64 = 40.0;

impl Chart<'_> {
    /// The figure; nothing where there is no point.
    pub fn html(mut self) -> String {
        for series in &mut self.series {
            series.points.retain(|p| p.iter().all(|v| v.is_finite()));
        }
        self.series.retain(|s| !s.points.is_empty());
        if self.series.is_empty() {
            return String::new();
        }
        let (x, y) = self.scales();
        let title = escaped(self.title);
        let [width, height] = SIZE;
        let mut out = format!(
            "<figure class=\"chart\" data-chart=\"{}\"><figcaption>{title}</figcaption>{}\
             <svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">",
            escaped(&self.data(x, y)),
            self.legend()
        );
        self.draw_axes(&mut out, x, y);
        // What stands back is drawn first.
        let (faint, strong): (Vec<_>, Vec<_>) = self.series.iter().partition(|s| s.faint);
        for series in faint.into_iter().chain(strong) {
            draw_series(&mut out, series, x, y);
        }
        out + "</svg></figure>"
    }

    fn scales(&self) -> (Scale, Scale) {
        let [left, right, top, bottom] = PLOT;
        let all = |axis: usize| {
            let points = self.series.iter().flat_map(|s| &s.points);
            points.map(move |p| p[axis])
        };
        let lowest = all(0).fold(f64::INFINITY, f64::min).clamp(0.0, 1.0);
        let x = Scale {
            values: [lowest, all(0).fold(lowest + 1.0, f64::max)],
            pixels: [left, right],
            logarithmic: false,
        };
        let [low, high] = all(1).fold([f64::INFINITY, 0.0], |[l, h], v| [l.min(v), h.max(v)]);
        let y = match low > 0.0 && high / low > LINEAR_RANGE && !self.percent && !self.from_zero {
            true => Scale::logarithmic(all(1), [bottom, top]),
            false => {
                let zero = self.from_zero.then_some(0.0);
                Scale::linear(all(1).chain(zero), [bottom, top])
            }
        };
        (x, y)
    }

    fn legend(&self) -> String {
        let mut out = String::from("<div class=\"legend\">");
        for series in &self.series {
            let kind = match (series.faint, series.dashed) {
                (true, _) => " faint",
                (_, true) => " dashed",
                _ => "",
            };
            let _ = write!(
                out,
                "<span><i class=\"c{}{kind}\"></i>{}</span>",
                series.color,
                escaped(&series.name)
            );
        }
        out + "</div>"
    }

    /// What the script needs to say which values the pointer is at.
    fn data(&self, x: Scale, y: Scale) -> String {
        let series = self.series.iter().map(|s| {
            let rounded = |v: f64| (v * 1e6).round() / 1e6;
            let points = s.points.iter().map(|[px, value]| {
                let value = if value.abs() < 1e-3 {
                    *value
                } else {
                    rounded(*value)
                };
                json!([
                    rounded(*px),
                    value,
                    rounded(x.at(*px)),
                    rounded(y.at(value))
                ])
            });
            json!({"name": s.name, "color": s.color, "points": points.collect::<Vec<_>>()})
        });
        let series: Vec<_> = series.collect();
        json!({"x": self.x, "percent": self.percent, "plot": PLOT, "series": series}).to_string()
    }

    fn draw_axes(&self, out: &mut String, x: Scale, y: Scale) {
        let [left, right, top, bottom] = PLOT;
        for tick in y.ticks() {
            let at = y.at(tick);
            let label = match self.percent {
                true => format!("{}%", short(100.0 * tick)),
                false => short(tick),
            };
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{left} {at:.1}H{right}\"/>\
                 <text x=\"{:.0}\" y=\"{:.1}\" class=\"end\">{label}</text>",
                left - 6.0,
                at + 4.0
            );
        }
        let ticks = Scale::linear(x.values.into_iter(), x.pixels).ticks();
        // Half an epoch is no place to look at.
        let shown = |t: &f64| t.fract() == 0.0 && *t >= x.values[0] && *t <= x.values[1];
        for tick in ticks.into_iter().filter(shown) {
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{:.0}\" class=\"middle\">{}</text>",
                x.at(tick),
                bottom + 17.0,
                short(tick)
            );
        }
        let _ = write!(
            out,
            "<path class=\"axis\" d=\"M{left} {top}V{bottom}H{right}\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\" class=\"middle\">{}</text>",
            f64::midpoint(left, right),
            bottom + 34.0,
            escaped(self.x)
        );
    }
}

fn draw_series(out: &mut String, series: &Series, x: Scale, y: Scale) {
    let mut path = String::new();
    for (i, [px, value]) in series.points.iter().enumerate() {
        let command = if i == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{command}{:.1} {:.1}", x.at(*px), y.at(*value));
    }
    let kind = match (series.faint, series.dashed) {
        (true, _) => " faint",
        (_, true) => " dashed",
        _ => "",
    };
    let color = series.color;
    let _ = write!(out, "<path class=\"line c{color}{kind}\" d=\"{path}\"/>");
    const MARKED: usize = 40;
    if series.points.len() <= MARKED && !series.faint {
        for [px, value] in &series.points {
            let (cx, cy) = (x.at(*px), y.at(*value));
            let _ = write!(
                out,
                "<circle class=\"mark c{color}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"2.5\"/>"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<[f64; 2]>) -> String {
        let chart = Chart {
            title: "Loss <1>",
            x: "epoch",
            series: vec![Series::new("a & b", 0, points)],
            percent: false,
            from_zero: false,
        };
        chart.html()
    }

    #[test]
    fn points_stand_where_their_values_are() {
        // x from 1 to 3, y from 0 to 4: the middle of both axes.
        let html = chart(vec![[1.0, 0.0], [2.0, 2.0], [3.0, 4.0]]);
        let [x, y] = [f64::midpoint(52.0, 418.0), f64::midpoint(12.0, 212.0)];
        assert!(
            html.contains(&format!("cx=\"{x:.1}\" cy=\"{y:.1}\"")),
            "{html}"
        );
        assert!(html.contains("Loss &lt;1&gt;") && html.contains("a &amp; b"));
    }

    #[test]
    fn without_a_finite_point_there_is_no_chart() {
        assert_eq!(chart(vec![]), "");
        assert_eq!(chart(vec![[1.0, f64::NAN]]), "");
        assert!(chart(vec![[1.0, f64::NAN], [2.0, 1.0]]).contains("<circle"));
    }
}
