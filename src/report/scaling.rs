//! The scaling picture: images a second against the batch and against the model's width.

use super::plot::{Axis, COLORS, grid, line, text};
use super::svg::begin;
use crate::bench::ScalingPoint;
use std::fmt::Write as _;

const SIZE: [f64; 2] = [960.0, 420.0];
const TOP: f64 = 70.0;
const BOTTOM: f64 = 350.0;
/// Left and right of the two plots.
const PLOTS: [[f64; 2]; 2] = [[70.0, 460.0], [550.0, 940.0]];

/// The picture as SVG, on logarithmic axes: on the left each model's batches at its own
/// width, on the right its widths at batches of `batch`.
pub fn svg(title: &str, points: &[ScalingPoint], batch: usize) -> String {
    let mut out = begin(SIZE, title);
    text(&mut out, [PLOTS[0][0], 24.0], "start", title);
    let mut models: Vec<&str> = points.iter().map(|p| p.model.as_str()).collect();
    models.dedup();
    legend(&mut out, &models);
    let speeds = points.iter().map(|p| p.images_per_s);
    let y = Axis::of(speeds, [BOTTOM, TOP]);
    let batches: Vec<_> = points.iter().filter(|p| p.width == 1.0).collect();
    let batches = curves(&models, &batches, |p| p.batch as f64);
    let widths: Vec<_> = points.iter().filter(|p| p.batch == batch).collect();
    let widths = curves(&models, &widths, |p| p.width);
    panel(&mut out, PLOTS[0], y, &batches, "images a step");
    let label = format!("times as many filters and units, batch {batch}");
    panel(&mut out, PLOTS[1], y, &widths, &label);
    out + "</svg>\n"
}

fn legend(out: &mut String, models: &[&str]) {
    for (i, model) in models.iter().enumerate() {
        let at = PLOTS[0][0] + 170.0 * i as f64;
        let color = COLORS[i % COLORS.len()];
        let _ = writeln!(
            out,
            "<rect x=\"{at:.1}\" y=\"36\" width=\"10\" height=\"10\" fill=\"{color}\"/>"
        );
        text(out, [at + 16.0, 45.0], "start", model);
    }
}

/// Places and speeds of each model, from left to right.
fn curves(
    models: &[&str],
    points: &[&ScalingPoint],
    place: impl Fn(&ScalingPoint) -> f64,
) -> Vec<Vec<[f64; 2]>> {
    let curve = |model: &&str| {
        let of_model = points.iter().filter(|p| p.model == *model);
        let mut curve: Vec<_> = of_model.map(|p| [place(p), p.images_per_s]).collect();
        curve.sort_by(|a, b| a[0].total_cmp(&b[0]));
        curve
    };
    models.iter().map(curve).collect()
}

fn panel(out: &mut String, [left, right]: [f64; 2], y: Axis, curves: &[Vec<[f64; 2]>], what: &str) {
    let places = curves.iter().flatten().map(|p| p[0]);
    let x = Axis::of(places, [left, right]);
    grid(out, x, y);
    let middle = f64::midpoint(left, right);
    text(out, [middle, BOTTOM + 40.0], "middle", what);
    text(out, [left, TOP - 8.0], "middle", "images/s");
    for (i, curve) in curves.iter().enumerate() {
        let color = COLORS[i % COLORS.len()];
        let at = |p: &[f64; 2]| [x.at(p[0]), y.at(p[1])];
        for pair in curve.windows(2) {
            line(out, at(&pair[0]), at(&pair[1]), color);
        }
        for point in curve {
            let [cx, cy] = at(point);
            let [place, speed] = point;
            let _ = writeln!(
                out,
                "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3\" fill=\"{color}\">\
                 <title>{place}: {speed:.0} images/s</title></circle>"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Precision;

    #[test]
    fn each_point_stands_in_the_plots_it_belongs_to() {
        let point = |batch, width, images_per_s| ScalingPoint {
            model: "a<b".into(),
            batch,
            precision: Precision::F32,
            width,
            parameters: 1,
            images_per_s,
        };
        let points = [
            point(10, 1.0, 100.0),
            point(1, 1.0, 10.0),
            point(10, 2.0, 50.0),
        ];
        let picture = svg("a device", &points, 10);
        // Batches 1 and 10 on the left, widths 1 and 2 on the right.
        assert_eq!(picture.matches("<circle").count(), 4);
        // Axes run over whole decades: x from 1 to 100, y from 10 to 1000.
        let [x, y] = [265.0, 210.0];
        assert!(
            picture.contains(&format!("cx=\"{x:.1}\" cy=\"{y:.1}\"")),
            "{picture}"
        );
        assert!(picture.contains("cx=\"70.0\" cy=\"350.0\""), "{picture}");
        assert!(picture.contains("<title>2: 50 images/s</title>"));
        assert!(picture.contains("a&lt;b"));
    }
}
