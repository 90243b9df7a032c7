//! What pictures share: escaping, axes and the lanes of edges.

use std::fmt::Write as _;

/// The colours of pictures that stand alone: those of the pages, on light and on dark ground.
const STYLE: &str = "
svg { color-scheme: light dark;
  --ground: #ffffff; --raised: #f3f5f7; --line: #d5dbe1; --text: #1c2128; --pale: #57606a;
  --s0: #0067b1; --s1: #c2500a; --s2: #00805b; --s3: #8a4fb3; --s4: #9a6b00; --s5: #b8336a; --s6: #2f7f99; --s7: #8b949e }
@media (prefers-color-scheme: dark) { svg {
  --ground: #0d1117; --raised: #161b22; --line: #323a44; --text: #e6edf3; --pale: #9aa6b2;
  --s0: #58a9f5; --s1: #f29a5c; --s2: #4cc38a; --s3: #c297f0; --s4: #e0b341; --s5: #f286ae; --s6: #6fc7de; --s7: #6e7681 } }
text { fill: var(--text); font: 12px system-ui, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif }
.title { font-size: 16px; font-weight: 600 } .pale { fill: var(--pale) }
.end { text-anchor: end } .middle { text-anchor: middle }
.reader { fill: var(--ground); stroke: var(--text); stroke-width: 0.7 } .ground { fill: var(--ground) } .raised { fill: var(--raised) }
";
/// Of the style sheet, `--s0` and on.
const COLORS: usize = 8;

/// Begins a picture that stands alone; `fc0` and on fill with a colour, `lc0` and on draw
/// lines of it.
pub(super) fn begin([width, height]: [f64; 2], title: &str) -> String {
    let title = escaped(title);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{title}\">\n\
         <title>{title}</title>\n<style>{STYLE}"
    );
    for i in 0..COLORS {
        let _ = writeln!(
            out,
            ".fc{i} {{ fill: var(--s{i}) }} .lc{i} {{ fill: none; stroke: var(--s{i}) }}"
        );
    }
    out + "</style>\n<rect width=\"100%\" height=\"100%\" class=\"ground\"/>\n"
}

/// Text as XML and HTML hold it, in elements and in attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not allowed in XML, however it is written.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// An axis from values to pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    /// Values at its ends.
    pub values: [f64; 2],
    /// Pixels at its ends.
    pub pixels: [f64; 2],
    /// Whether equal factors are equal lengths.
    pub logarithmic: bool,
}

impl Scale {
    /// A linear axis of round ends that holds `values`.
    pub fn linear(values: impl Iterator<Item = f64>, pixels: [f64; 2]) -> Self {
        let [low, high] = range(values);
        // Round ends are further apart, which may ask for a larger step.
        let ends = |span: f64| {
            let step = round_step(span);
            [(low / step).floor() * step, (high / step).ceil() * step]
        };
        let [first, last] = ends(high - low);
        Self {
            values: ends(last - first),
            pixels,
            logarithmic: false,
        }
    }

    /// A logarithmic axis that holds the positive of `values`.
    pub fn logarithmic(values: impl Iterator<Item = f64>, pixels: [f64; 2]) -> Self {
        let logs = values.filter(|v| *v > 0.0).map(f64::log10);
        let [low, high] = range(logs);
        let padding = 0.03 * (high - low);
        Self {
            values: [low - padding, high + padding].map(|l| 10f64.powf(l)),
            pixels,
            logarithmic: true,
        }
    }

    fn along(self, value: f64) -> f64 {
        let map = |v: f64| if self.logarithmic { v.log10() } else { v };
        let [low, high] = self.values.map(map);
        (map(value) - low) / (high - low)
    }

    /// The pixel of a value; ends of the axis for values beyond them.
    pub fn at(self, value: f64) -> f64 {
        let share = self.along(value).clamp(0.0, 1.0);
        self.pixels[0] + share * (self.pixels[1] - self.pixels[0])
    }

    /// Values worth a line, about five.
    pub fn ticks(self) -> Vec<f64> {
        let [low, high] = self.values;
        if self.logarithmic {
            let decades = high.log10().floor() as i32 - low.log10().ceil() as i32;
            let factors: &[f64] = match decades {
                ..1 => &[1.0, 2.0, 3.0, 5.0, 7.0],
                1..3 => &[1.0, 2.0, 5.0],
                _ => &[1.0],
            };
            let from = low.log10().floor() as i32;
            let decades = from..=high.log10().ceil() as i32;
            let all = decades.flat_map(|d| factors.iter().map(move |f| f * 10f64.powi(d)));
            return all.filter(|v| *v >= low && *v <= high).collect();
        }
        let step = round_step(high - low);
        // A hair beyond the ends: they may be rounded.
        let [first, last] = [(low / step - 1e-6).ceil(), (high / step + 1e-6).floor()];
        (first as i64..=last as i64)
            .map(|i| i as f64 * step)
            .collect()
    }
}

/// The smallest and the largest finite value, apart from each other.
fn range(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let finite = values.filter(|v| v.is_finite());
    let [low, high] = finite.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| {
        [low.min(v), high.max(v)]
    });
    match low.total_cmp(&high) {
        std::cmp::Ordering::Less => [low, high],
        std::cmp::Ordering::Equal => {
            let margin = if low == 0.0 { 1.0 } else { 0.1 * low.abs() };
            [low - margin, high + margin]
        }
        std::cmp::Ordering::Greater => [0.0, 1.0],
    }
}

/// 1, 2 or 5 times a power of ten, about a fifth of `span`.
fn round_step(span: f64) -> f64 {
    let rough = span / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= rough);
    factor.unwrap_or(10.0) * power
}

/// A value as a tick says it: few digits, no more zeros than needed.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    if !(1e-4..1e6).contains(&size) {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    let decimals = (2 - size.log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A lane for each edge of a list of rows, so that edges in a lane touch at ends at most.
/// Short edges get the lanes nearest to the list. Returns the number of lanes too.
pub(super) fn lanes(edges: &[[usize; 2]]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..edges.len()).collect();
    order.sort_by_key(|i| edges[*i][1] - edges[*i][0]);
    let mut lanes = vec![0; edges.len()];
    let mut taken: Vec<Vec<[usize; 2]>> = Vec::new();
    for index in order {
        let [from, to] = edges[index];
        // Edges from one row may share a lane: they are one line that forks.
        let free = |others: &Vec<[usize; 2]>| {
            let apart = |o: &[usize; 2]| o[1] <= from || to <= o[0] || o[0] == from;
            others.iter().all(apart)
        };
        let lane = taken.iter().position(free).unwrap_or(taken.len());
        if lane == taken.len() {
            taken.push(Vec::new());
        }
        taken[lane].push(edges[index]);
        lanes[index] = lane;
    }
    (lanes, taken.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_ends_and_ticks() {
        let axis = Scale::linear([0.13, 0.92, f64::NAN].into_iter(), [0.0, 100.0]);
        assert_eq!(axis.values, [0.0, 1.0]);
        let ticks: Vec<_> = axis.ticks().into_iter().map(short).collect();
        assert_eq!(ticks, ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(axis.at(0.25), 25.0);
        assert_eq!(axis.at(7.0), 100.0);
        // Ticks lie on the axis, also where its round ends make it longer.
        for [low, high] in [[1.78, 2.69], [0.4, 0.56], [0.0, 0.47], [-3.1, 8.0]] {
            let axis = Scale::linear([low, high].into_iter(), [0.0, 100.0]);
            let ticks = axis.ticks();
            let [first, last] = axis.values;
            assert!(
                ticks.iter().all(|t| *t > first - 1e-9 && *t < last + 1e-9),
                "{axis:?}"
            );
            assert!(ticks.len() >= 3 && first <= low && last >= high, "{axis:?}");
        }
        let axis = Scale::logarithmic([0.01, 0.0, 10.0].into_iter(), [0.0, 1.0]);
        let ticks: Vec<_> = axis.ticks().into_iter().map(short).collect();
        assert_eq!(ticks, ["0.01", "0.1", "1", "10"]);
        for values in [vec![], vec![3.0], vec![0.0], vec![f64::NAN]] {
            let axis = Scale::linear(values.into_iter(), [0.0, 1.0]);
            assert!(axis.values[0] < axis.values[1], "{axis:?}");
            assert!(axis.ticks().len() >= 2, "{axis:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 1e-7, 0.001, 0.1 + 0.2, 12.0, 1234.0, 2e6].map(short);
        assert_eq!(texts, ["0", "1e-7", "0.001", "0.3", "12", "1234", "2e6"]);
    }

    #[test]
    fn edges_that_overlap_get_lanes_of_their_own() {
        let (lanes, count) = lanes(&[[0, 9], [1, 3], [3, 5], [2, 4], [1, 2]]);
        assert_eq!(count, 3);
        assert_eq!(lanes[1], 0, "short and first");
        assert_eq!(lanes[2], 0, "begins where the other ends");
        assert_eq!(lanes[4], 0, "forks from the same row");
        assert_eq!((lanes[3], lanes[0]), (1, 2));
    }

    #[test]
    fn no_markup_survives() {
        assert_eq!(
            escaped("a<b>&\"'\u{1}"),
            "a&lt;b&gt;&amp;&quot;&#39;\u{fffd}"
        );
    }
}
