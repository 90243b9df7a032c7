//! A frame of the dashboard.

use super::view::View;
use crate::report::svg::{Scale, short};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Sparkline};
use std::time::Duration;

/// Columns and rows below which there are numbers only.
const FULL: [u16; 2] = [60, 19];
/// The largest loss may be this many times the smallest before its axis is logarithmic.
const LINEAR_RANGE: f64 = 40.0;
/// Rows of the panel below the charts.
const PANEL: u16 = 9;

/// The colours, or none.
#[derive(Clone, Copy)]
pub(super) struct Theme {
    pub colors: bool,
}

impl Theme {
    fn color(self, color: Color) -> Style {
        match self.colors {
            true => Style::new().fg(color),
            false => Style::new(),
        }
    }

    fn training(self) -> Style {
        self.color(Color::Cyan)
    }

    fn validation(self) -> Style {
        self.color(Color::Yellow)
    }

    fn pale(self) -> Style {
        match self.colors {
            true => Style::new().fg(Color::DarkGray),
            false => Style::new().add_modifier(Modifier::DIM),
        }
    }
}

/// Draws a training that has gone on for so long.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, theme: Theme, elapsed: Duration) {
    let area = frame.area();
    if area.width < FULL[0] || area.height < FULL[1] {
        return draw_small(frame, view, theme, elapsed);
    }
    let [head, bar, charts, panel, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(6),
        Constraint::Length(PANEL),
        Constraint::Length(1),
    ])
    .areas(area);
    let heading = Line::from(vec![
        Span::styled(
            view.model.clone(),
            Style::new().add_modifier(Modifier::BOLD),
        ),
        Span::raw(format!(" in {}: {}", view.run, view.size)),
    ]);
    let device = Line::styled(view.device.clone(), theme.pale());
    frame.render_widget(Paragraph::new(vec![heading, device]), head);
    frame.render_widget(Paragraph::new(progress(view, theme, bar.width)), bar);
    let [losses, accuracies] = Layout::horizontal([Constraint::Fill(1); 2]).areas(charts);
    let pairs = |points: Vec<[f64; 2]>| points.into_iter().map(|[x, y]| (x, y)).collect();
    let loss = Curves {
        title: "loss",
        percent: false,
        training: pairs(view.curve.losses()),
        validation: view.validation(|row| row.val_loss),
        epochs: view.epochs,
    };
    loss.draw(frame, theme, losses);
    let accuracy = Curves {
        title: "accuracy",
        percent: true,
        training: pairs(view.curve.accuracies()),
        validation: view.validation(|row| row.val_accuracy),
        epochs: view.epochs,
    };
    accuracy.draw(frame, theme, accuracies);
    let [numbers, events] =
        Layout::horizontal([Constraint::Max(52), Constraint::Min(18)]).areas(panel);
    draw_numbers(frame, view, theme, elapsed, numbers);
    draw_events(frame, view, theme, events);
    frame.render_widget(Paragraph::new(keys(view)).style(theme.pale()), foot);
}

/// Where there is little room: the bar and as many numbers as fit.
fn draw_small(frame: &mut Frame<'_>, view: &View, theme: Theme, elapsed: Duration) {
    let area = frame.area();
    let mut lines = vec![progress(view, theme, area.width)];
    let numbers = view.numbers(elapsed);
    lines.extend(
        numbers
            .iter()
            .map(|(name, value)| Line::from(format!("{name} {value}"))),
    );
    let last = area.height.saturating_sub(1) as usize;
    if lines.len() > last && last > 0 {
        lines.truncate(last);
    }
    lines.push(Line::styled(keys(view), theme.pale()));
    frame.render_widget(Paragraph::new(lines), area);
}

fn keys(view: &View) -> &'static str {
    match view.stopping {
        false => "q stops and saves",
        true => "stopping: the work under way is finished and saved; q again ends at once",
    }
}

/// A bar over the whole training.
fn progress(view: &View, theme: Theme, width: u16) -> Line<'static> {
    let share = view.share();
    let epoch = view.now.map_or(1, |now| now.epoch);
    let label = format!("epoch {epoch}/{} ", view.epochs);
    let percent = format!(" {:>3.0}%", (100.0 * share).floor());
    let room = (width as usize).saturating_sub(label.len() + percent.len());
    let filled = (share * room as f64) as usize;
    Line::from(vec![
        Span::raw(label),
        Span::styled("█".repeat(filled), theme.training()),
        Span::styled("░".repeat(room - filled), theme.pale()),
        Span::raw(percent),
    ])
}

fn draw_numbers(frame: &mut Frame<'_>, view: &View, theme: Theme, elapsed: Duration, area: Rect) {
    let block = Block::bordered().border_style(theme.pale());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let numbers = view.numbers(elapsed);
    let lines = numbers.iter().map(|(name, value)| {
        Line::from(vec![
            Span::styled(format!("{name:<14}"), theme.pale()),
            Span::raw(value.clone()),
        ])
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), inner);
    // The speed's history stands behind its number.
    let row = numbers.iter().position(|(name, _)| *name == "images/s");
    let Some(row) = row.filter(|row| (*row as u16) < inner.height) else {
        return;
    };
    let taken = 14 + numbers[row].1.len() as u16 + 2;
    if inner.width > taken + 4 {
        let place = Rect {
            x: inner.x + taken,
            y: inner.y + row as u16,
            width: inner.width - taken,
            height: 1,
        };
        let skipped = view.speeds.len().saturating_sub(place.width as usize);
        let speeds: Vec<u64> = view.speeds.iter().skip(skipped).copied().collect();
        frame.render_widget(
            Sparkline::default().data(speeds).style(theme.training()),
            place,
        );
    }
}

fn draw_events(frame: &mut Frame<'_>, view: &View, theme: Theme, area: Rect) {
    let block = Block::bordered().title("events").border_style(theme.pale());
    let inner = block.inner(area);
    let lines = view.lines.iter();
    let lines: Vec<Line<'_>> = lines
        .flat_map(|line| wrapped(line, inner.width as usize))
        .map(Line::from)
        .collect();
    // The last ones are what to see.
    let skipped = lines.len().saturating_sub(inner.height as usize);
    let lines: Vec<_> = lines.into_iter().skip(skipped).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// A text in lines of at most `width` characters, broken between words where that can be.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 0 && last + 1 + word.len() > width {
            lines.push(String::new());
        }
        while word.len() > width.max(1) {
            lines.push(word.drain(..width.max(1)).collect());
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            let gap = if line.is_empty() { "" } else { " " };
            *line += gap;
            line.extend(word);
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

/// Means of the points that fall into one column of the screen, of this width: readbacks are
/// too noisy to be looked at one by one.
fn by_column(points: &[(f64, f64)], width: f64) -> Vec<(f64, f64)> {
    let column = |p: &(f64, f64)| (p.0 / width).floor();
    let columns = points.chunk_by(|a, b| column(a) == column(b));
    let mean = |of: &[(f64, f64)]| {
        let sum = of.iter().fold([0.0; 2], |[x, y], p| [x + p.0, y + p.1]);
        let [x, y] = sum.map(|sum| sum / of.len() as f64);
        (x, y)
    };
    columns.map(mean).collect()
}

/// A measure of training and validation over epochs.
struct Curves {
    title: &'static str,
    percent: bool,
    training: Vec<(f64, f64)>,
    validation: Vec<(f64, f64)>,
    epochs: usize,
}

impl Curves {
    fn draw(mut self, frame: &mut Frame<'_>, theme: Theme, area: Rect) {
        for points in [&mut self.training, &mut self.validation] {
            points.retain(|(x, y)| x.is_finite() && y.is_finite());
        }
        self.training = by_column(&self.training, self.epochs as f64 / f64::from(area.width));
        let (axis, labels, logarithmic) = self.axis();
        if logarithmic {
            for points in [&mut self.training, &mut self.validation] {
                points.retain(|p| p.1 > 0.0);
                points.iter_mut().for_each(|p| p.1 = p.1.log10());
            }
        }
        let title = Line::from(vec![
            Span::raw(format!("{}: ", self.title)),
            Span::styled("training ⠤ ", theme.training()),
            Span::styled("validation • ", theme.validation()),
        ]);
        let datasets = vec![
            Dataset::default()
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(theme.training())
                .data(&self.training),
            Dataset::default()
                .marker(Marker::Dot)
                .graph_type(GraphType::Scatter)
                .style(theme.validation())
                .data(&self.validation),
        ];
        let epochs = self.epochs.max(1) as f64;
        let chart = Chart::new(datasets)
            .block(Block::bordered().title(title).border_style(theme.pale()))
            .x_axis(
                Axis::default()
                    .bounds([0.0, epochs])
                    .labels(["0".to_owned(), format!("epoch {}", self.epochs)])
                    .style(theme.pale()),
            )
            .y_axis(
                Axis::default()
                    .bounds(axis)
                    .labels(labels)
                    .style(theme.pale()),
            );
        frame.render_widget(chart, area);
    }

    /// The ends of the vertical axis, the labels from bottom to top, and whether it is
    /// logarithmic.
    fn axis(&self) -> ([f64; 2], Vec<String>, bool) {
        let values = || self.training.iter().chain(&self.validation).map(|p| p.1);
        let low = values().fold(f64::INFINITY, f64::min);
        let high = values().fold(0.0, f64::max);
        let logarithmic = !self.percent && low > 0.0 && high > LINEAR_RANGE * low;
        let scale = match logarithmic {
            true => Scale::logarithmic(values(), [0.0, 1.0]),
            false => Scale::linear(values(), [0.0, 1.0]),
        };
        let [low, high] = match logarithmic {
            true => scale.values.map(f64::log10),
            false => scale.values,
        };
        let label = |value: f64| match (self.percent, logarithmic) {
            (true, _) => format!("{}%", short(100.0 * value)),
            (_, true) => format!("{:.2e}", 10f64.powf(value)),
            _ => short(value),
        };
        let labels = [low, f64::midpoint(low, high), high].map(label);
        ([low, high], labels.to_vec(), logarithmic)
    }
}
