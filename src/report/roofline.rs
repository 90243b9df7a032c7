//! The roofline picture: what each kernel reaches of what the device allows it.

use super::plot::{Axis, COLORS, STRONG, grid, line, text};
use super::svg::{begin, escaped};
use crate::bench::{Ceilings, Kernel};
use std::fmt::Write as _;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 600.0;
/// Left, right, top and bottom of the plot.
const PLOT: [f64; 4] = [70.0, 690.0, 50.0, 540.0];

/// The picture as SVG: operations a byte against GFLOP/s, ceilings as lines, a dot for
/// each kernel that computes, numbered as in the list beside it.
pub fn svg(ceilings: &Ceilings, kernels: &[Kernel]) -> String {
    let shown: Vec<_> = kernels
        .iter()
        .filter(|k| k.flops > 0 && k.bytes > 0)
        .collect();
    let peak = ceilings.f32_gflops;
    let slopes = slopes(ceilings);
    let ridges = slopes.iter().map(|s| peak / s.0);
    let [left, right, top, bottom] = PLOT;
    let x = Axis::of(
        shown.iter().map(|k| k.intensity()).chain(ridges),
        [left, right],
    );
    let y = Axis::of(shown.iter().map(|k| k.gflops).chain([peak]), [bottom, top]);
    let mut out = begin([WIDTH, HEIGHT], &ceilings.device);
    text(&mut out, [left, 24.0], "start", &ceilings.device);
    grid(&mut out, x, y);
    let middle = f64::midpoint(left, right);
    text(
        &mut out,
        [middle, bottom + 40.0],
        "middle",
        "operations a byte",
    );
    text(&mut out, [left, top - 8.0], "middle", "GFLOP/s");
    // Above the first line and below the second, which may be close.
    for ((gb_per_s, label), place) in slopes.iter().zip([-5, 14]) {
        roof(&mut out, [x, y], peak, *gb_per_s, label, place);
    }
    let [px, py] = [x.at(x.high()), y.at(peak)];
    text(
        &mut out,
        [px - 4.0, py - 6.0],
        "end",
        &format!("{peak:.0} GFLOP/s, f32"),
    );
    dots(&mut out, x, y, &shown);
    out + "</svg>\n"
}

/// Bandwidths to draw, with their labels: the fastest copy, and the largest where it is
/// slower.
fn slopes(ceilings: &Ceilings) -> Vec<(f64, String)> {
    let best = ceilings.gb_per_s(0);
    let largest = ceilings.gb_per_s(u64::MAX);
    let mut slopes = vec![(best, format!("{best:.1} GB/s, fastest copy"))];
    if largest < best {
        slopes.push((largest, format!("{largest:.1} GB/s, largest copy")));
    }
    slopes
}

/// A sloping line up to the ridge, then the flat one, within the axes; the label `place`
/// pixels below the slope.
fn roof(out: &mut String, [x, y]: [Axis; 2], peak: f64, gb_per_s: f64, label: &str, place: i32) {
    let ridge = peak / gb_per_s;
    let start = x.low().max(y.low() / gb_per_s);
    let [low, top] = [start, ridge].map(|i| [x.at(i), y.at(i * gb_per_s)]);
    line(out, low, top, STRONG);
    line(out, top, [x.at(x.high()), top[1]], STRONG);
    let degrees = f64::atan2(top[1] - low[1], top[0] - low[0]).to_degrees();
    let [cx, cy] = [0, 1].map(|i| low[i] + 0.35 * (top[i] - low[i]));
    let label = escaped(label);
    let _ = writeln!(
        out,
        "<text transform=\"translate({cx:.1} {cy:.1}) rotate({degrees:.1})\" y=\"{place}\" \
         text-anchor=\"middle\">{label}</text>"
    );
}

fn dots(out: &mut String, x: Axis, y: Axis, kernels: &[&Kernel]) {
    let mut models: Vec<&str> = kernels.iter().map(|k| k.model.as_str()).collect();
    models.dedup();
    let lines = kernels.len() + models.len();
    let pitch = ((HEIGHT - PLOT[2]) / lines.max(1) as f64).min(17.0);
    let [list, mut row] = [PLOT[1] + 30.0, PLOT[2]];
    let _ = writeln!(out, "<g font-size=\"{:.1}\">", (0.75 * pitch).min(11.0));
    let mut heading = "";
    for (i, kernel) in kernels.iter().enumerate() {
        let model = models.iter().position(|m| *m == kernel.model).unwrap_or(0);
        let color = COLORS[model % COLORS.len()];
        if heading != kernel.model {
            heading = &kernel.model;
            let title = escaped(&format!("{heading}, batch {}", kernel.batch));
            let _ = writeln!(
                out,
                "<text x=\"{list:.1}\" y=\"{row:.1}\" fill=\"{color}\" font-weight=\"bold\">{title}</text>"
            );
            row += pitch;
        }
        let name = format!("{} {}", kernel.layer, kernel.op);
        let [cx, cy] = [x.at(kernel.intensity()), y.at(kernel.gflops)];
        let hint = escaped(&format!(
            "{name}: {:.0} µs, {:.0}%",
            kernel.us, kernel.percent
        ));
        let number = i + 1;
        let _ = writeln!(
            out,
            "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4\" fill=\"{color}\"><title>{hint}</title></circle>"
        );
        // Models take turns in the side of the label: their layers often share a place.
        let (side, anchor) = [(6.0, "start"), (-6.0, "end")][model % 2];
        text(out, [cx + side, cy + 4.0], anchor, &number.to_string());
        let listed = format!("{number}  {name}, {:.0}%", kernel.percent);
        text(out, [list, row], "start", &listed);
        row += pitch;
    }
    out.push_str("</g>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tests::{ceilings, kernel};

    #[test]
    fn dots_and_roofs_stand_where_their_numbers_are() {
        // Peak 100 GFLOP/s and 20 or 10 GB/s: ridges at 5 and 10 operations a byte. The
        // kernel: 8 operations a byte, 40 GFLOP/s. So x spans 1 to 100 (70 to 690 pixels)
        // and y spans 10 to 1000 (540 to 50).
        let mut other = kernel("fc<1>", "matmul", 1);
        (other.flops, other.gflops) = (0, 0.0);
        let picture = svg(&ceilings(), &[kernel("conv1", "conv2d", 1), other]);
        let [dot_x, dot_y] = [70.0 + 310.0 * 8f64.log10(), 540.0 - 245.0 * 4f64.log10()];
        let dot = format!("<circle cx=\"{dot_x:.1}\" cy=\"{dot_y:.1}\"");
        assert!(picture.contains(&dot), "{dot}: {picture}");
        assert_eq!(picture.matches("<circle").count(), 1);
        for (bandwidth, ridge) in [(20f64, 5f64), (10.0, 10.0)] {
            let start = [70.0, 540.0 - 245.0 * (bandwidth / 10.0).log10()];
            let ridge = 70.0 + 310.0 * ridge.log10();
            let slope = format!(
                "x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{ridge:.1}\" y2=\"295.0\"",
                start[0], start[1]
            );
            let flat = format!("x1=\"{ridge:.1}\" y1=\"295.0\" x2=\"690.0\" y2=\"295.0\"");
            assert!(picture.contains(&slope), "{slope}: {picture}");
            assert!(picture.contains(&flat), "{flat}: {picture}");
        }
        assert!(picture.contains("1  conv1 conv2d, 40%"));
    }

    #[test]
    fn names_are_escaped() {
        let picture = svg(&ceilings(), &[kernel("a<b", "c&d", 1)]);
        assert!(picture.contains("a&lt;b c&amp;d"), "{picture}");
    }
}
