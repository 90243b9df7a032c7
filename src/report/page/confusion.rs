//! What is taken for what: the matrix, and the pairs taken for each other most.

use crate::infer::Evaluation;
use crate::report::svg::escaped;
use std::fmt::Write as _;

/// More classes than these get no matrix: its cells could not be told apart.
const MOST_CLASSES: usize = 40;
/// Up to these, cells hold their numbers.
const MOST_NUMBERED: usize = 16;
const CELL: f64 = 34.0;
const PAIRS: usize = 10;

/// The section's content.
pub(in crate::report) fn html(evaluation: &Evaluation, classes: &[String]) -> String {
    let matrix = match evaluation.confusion.len() {
        ..=MOST_CLASSES => matrix(evaluation, classes),
        _ => String::new(),
    };
    format!(
        "<div class=\"beside\">{matrix}{}</div>",
        pairs(evaluation, classes)
    )
}

fn matrix(evaluation: &Evaluation, classes: &[String]) -> String {
    let count = evaluation.confusion.len();
    let names = |i: usize| classes.get(i).map_or("", String::as_str);
    let longest = (0..count).map(|i| names(i).chars().count()).max();
    let margin = 26.0 + 7.0 * longest.unwrap_or(1).min(12) as f64;
    let size = margin + CELL * count as f64 + 4.0;
    let mut out = format!(
        "<figure class=\"matrix\"><svg viewBox=\"0 0 {size:.0} {size:.0}\" style=\"max-width:{:.0}px\" \
         role=\"img\" aria-label=\"Confusion matrix\">\
         <text class=\"middle\" x=\"{:.0}\" y=\"12\">predicted</text>\
         <text class=\"middle\" transform=\"translate(12 {:.0}) rotate(-90)\">true class</text>",
        size.max(320.0) * 1.05,
        f64::midpoint(margin, size),
        f64::midpoint(margin, size),
    );
    for class in 0..count {
        let at = margin + CELL * (class as f64 + 0.5);
        let (name, edge) = (escaped(&clipped(names(class))), margin - 5.0);
        let _ = write!(
            out,
            "<text class=\"end\" x=\"{edge:.0}\" y=\"{:.1}\">{name}</text>\
             <text transform=\"translate({:.1} {edge:.0}) rotate(-{})\"{}>{name}</text>",
            at + 4.0,
            at + if longest > Some(2) { 4.0 } else { 0.0 },
            if longest > Some(2) { 90 } else { 0 },
            if longest > Some(2) {
                ""
            } else {
                " class=\"middle\""
            },
        );
        cells(&mut out, evaluation, class, margin, &names);
    }
    out + "</svg></figure>"
}

/// A row of cells. Right ones are blue by their share of the row; wrong ones orange by
/// their share of the largest mistake, so that a good model's mistakes show too.
fn cells<'a>(
    out: &mut String,
    evaluation: &Evaluation,
    class: usize,
    margin: f64,
    names: &dyn Fn(usize) -> &'a str,
) {
    let worst = mistakes(evaluation).map(|(_, _, n)| n).max().unwrap_or(1);
    let row = &evaluation.confusion[class];
    let total: usize = row.iter().sum();
    let y = margin + CELL * class as f64;
    for (predicted, images) in row.iter().enumerate() {
        let right = predicted == class;
        let share = match right {
            true => *images as f64 / total.max(1) as f64,
            false => (*images as f64 / worst as f64).sqrt(),
        };
        let x = margin + CELL * predicted as f64;
        let kind = if right { "right" } else { "wrong" };
        let strong = if share > 0.55 { " strong" } else { "" };
        let _ = write!(
            out,
            "<g class=\"cell {kind}{strong}\"><title>{}: {images} of {total} taken for {}</title>\
             <rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.0}\" height=\"{:.0}\" rx=\"3\" \
             style=\"fill-opacity:{:.3}\"/>",
            escaped(names(class)),
            escaped(names(predicted)),
            x + 1.0,
            y + 1.0,
            CELL - 2.0,
            CELL - 2.0,
            if *images == 0 {
                0.03
            } else {
                0.08 + 0.92 * share
            },
        );
        if *images > 0 && row.len() <= MOST_NUMBERED {
            let _ = write!(
                out,
                "<text class=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{images}</text>",
                x + CELL / 2.0,
                y + CELL / 2.0 + 4.0
            );
        }
        out.push_str("</g>");
    }
}

/// True class, predicted class and number of the images that were mistaken.
fn mistakes(evaluation: &Evaluation) -> impl Iterator<Item = (usize, usize, usize)> {
    let rows = evaluation.confusion.iter().enumerate();
    let all = rows.flat_map(|(t, row)| row.iter().enumerate().map(move |(p, n)| (t, p, *n)));
    all.filter(|(t, p, n)| t != p && *n > 0)
}

fn pairs(evaluation: &Evaluation, classes: &[String]) -> String {
    let mut found: Vec<_> = mistakes(evaluation).collect();
    if found.is_empty() {
        return "<p>No image was mistaken.</p>".into();
    }
    found.sort_by_key(|(t, p, n)| (std::cmp::Reverse(*n), *t, *p));
    let mut out = String::from(
        "<table><caption>Taken for each other most</caption>\
         <tr><th>True</th><th>Predicted</th><th class=\"number\">Images</th>\
         <th class=\"number\">Of the class</th></tr>",
    );
    for (class, predicted, images) in found.into_iter().take(PAIRS) {
        let [name, taken] = [class, predicted].map(|i| classes.get(i).map_or("", String::as_str));
        let total: usize = evaluation.confusion[class].iter().sum();
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"number\">{images}</td>\
             <td class=\"number\">{:.1}%</td></tr>",
            escaped(name),
            escaped(taken),
            100.0 * images as f64 / total as f64
        );
    }
    out + "</table>"
}

fn clipped(name: &str) -> String {
    const MOST: usize = 12;
    match name.chars().count() {
        ..=MOST => name.to_owned(),
        _ => name.chars().take(MOST - 1).chain(['…']).collect(),
    }
}
