//! A model as a picture: a box for each layer from top to bottom, and what reads what.

use crate::error::Result;
use crate::model::{INPUT, LayerSummary, Model, grouped};
use crate::report::svg::{escaped, lanes};
use std::fmt::Write as _;

const ROW: f64 = 42.0;
const BOX: [f64; 2] = [330.0, 30.0];
const LANE: f64 = 13.0;
const LEFT: f64 = 6.0;

/// The picture.
///
/// # Errors
/// As [`Model::summary`].
pub(in crate::report) fn svg(model: &Model) -> Result<String> {
    let summary = model.summary()?;
    let row = |name: &str| {
        let position = summary.layers.iter().position(|l| l.name == name);
        position.map_or(0, |i| i + 1)
    };
    let mut edges = Vec::new();
    for (i, layer) in summary.layers.iter().enumerate() {
        edges.extend(layer.inputs.iter().map(|name| [row(name), i + 1]));
    }
    let (next, far): (Vec<_>, Vec<_>) = edges.iter().partition(|e| e[1] == e[0] + 1);
    let (lanes, count) = lanes(&far);
    let rows = summary.layers.len() + 1;
    let width = LEFT + BOX[0] + 14.0 + LANE * count as f64;
    let height = ROW * rows as f64 - ROW + BOX[1] + 8.0;
    let mut out = format!(
        "<svg class=\"layers\" viewBox=\"0 0 {width:.0} {height:.0}\" style=\"max-width:{:.0}px\" \
         role=\"img\" aria-label=\"The layers of the model\">",
        1.15 * width
    );
    for &[from, _] in &next {
        let (x, y) = (LEFT + BOX[0] / 2.0, top(from) + BOX[1]);
        let tip = y + ROW - BOX[1];
        let _ = write!(
            out,
            "<path class=\"edge\" d=\"M{x} {y}V{:.1}\"/>{}",
            tip - 3.0,
            arrow([x, tip], [0.0, 1.0])
        );
    }
    for ([from, to], lane) in far.iter().zip(lanes) {
        draw_far(&mut out, [*from, *to], lane);
    }
    let [c, h, w] = summary.input;
    draw_box(
        &mut out,
        0,
        INPUT,
        "image",
        &format!("{c} × {h} × {w}"),
        "input",
    );
    for (i, layer) in summary.layers.iter().enumerate() {
        draw_layer(&mut out, i + 1, layer);
    }
    Ok(out + "</svg>")
}

fn top(row: usize) -> f64 {
    4.0 + ROW * row as f64
}

/// An edge past other boxes, in its lane on the right.
fn draw_far(out: &mut String, [from, to]: [usize; 2], lane: usize) {
    let right = LEFT + BOX[0];
    let lane = right + 12.0 + LANE * lane as f64;
    let [begin, end] = [top(from) + 0.7 * BOX[1], top(to) + 0.3 * BOX[1]];
    let _ = write!(
        out,
        "<path class=\"edge\" d=\"M{right} {begin:.1}H{:.1}q6 0 6 6V{:.1}q0 6 -6 6H{:.1}\"/>{}",
        lane - 6.0,
        end - 6.0,
        right + 4.0,
        arrow([right, end], [-1.0, 0.0])
    );
}

/// The head of an arrow with this tip, of this direction.
fn arrow([x, y]: [f64; 2], [dx, dy]: [f64; 2]) -> String {
    let [bx, by] = [x - 6.0 * dx, y - 6.0 * dy];
    let [nx, ny] = [-3.5 * dy, 3.5 * dx];
    format!(
        "<path class=\"tip\" d=\"M{x:.1} {y:.1}L{:.1} {:.1}L{:.1} {:.1}Z\"/>",
        bx + nx,
        by + ny,
        bx - nx,
        by - ny
    )
}

fn draw_layer(out: &mut String, row: usize, layer: &LayerSummary) {
    let extents: Vec<_> = layer.output.iter().map(usize::to_string).collect();
    let kind = match layer.type_name {
        "conv2d" | "depthwise_conv2d" | "dense" => "heavy",
        t if t.contains("pool") => "pool",
        _ => "plain",
    };
    let type_name = match layer.parameters {
        0 => layer.type_name.to_owned(),
        n => format!("{}, {}", layer.type_name, grouped(n as u64)),
    };
    draw_box(
        out,
        row,
        &layer.name,
        &type_name,
        &extents.join(" × "),
        kind,
    );
}

fn draw_box(out: &mut String, row: usize, name: &str, middle: &str, shape: &str, kind: &str) {
    let y = top(row);
    let base = y + BOX[1] / 2.0 + 4.0;
    let _ = write!(
        out,
        "<rect class=\"box {kind}\" x=\"{LEFT}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"6\"/>\
         <text class=\"name\" x=\"{}\" y=\"{base}\">{}</text>\
         <text class=\"pale\" x=\"{}\" y=\"{base}\">{}</text>\
         <text class=\"end\" x=\"{}\" y=\"{base}\">{}</text>",
        BOX[0],
        BOX[1],
        LEFT + 10.0,
        escaped(name),
        LEFT + 100.0,
        escaped(middle),
        LEFT + BOX[0] - 10.0,
        escaped(shape),
    );
}
