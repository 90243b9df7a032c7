//! What stands on the screen.

use super::draw::{Theme, draw};
use super::view::View;
use super::*;
use crate::model::Model;
use crate::train::{HistoryRow, Metrics, Weights};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

const COLORS: Theme = Theme { colors: true };
const PLAIN: Theme = Theme { colors: false };

fn view() -> View {
    let model = Model::load("lenet5").unwrap();
    let config = Config {
        epochs: 4,
        ..Config::new(&model).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let folder = RunFolder::create(Some(&run), &model, &config, &[]).unwrap();
    View::new("lenet5", &config, &folder)
}

fn progress(epoch: usize, done: usize, loss: f64) -> Event {
    let samples = done as f64;
    Event::Progress {
        epoch,
        done,
        total: 1000,
        metrics: Metrics::from_row(&[loss * samples, 0.75 * samples, samples, 0.0, samples]),
        images_per_s: 500.0,
        learning_rate: 0.001,
    }
}

fn row(epoch: usize) -> HistoryRow {
    HistoryRow {
        epoch,
        images: 1000,
        loss: 0.5,
        accuracy: 0.75,
        val_loss: Some(0.25),
        val_accuracy: Some(0.875),
        val_top5: None,
        learning_rate: 0.001,
        seconds: 2.0,
        images_per_s: 500.0,
    }
}

/// A training in the middle of its third epoch of four.
fn under_way() -> View {
    let mut view = view();
    view.observe(&Event::Start {
        device: "a device".into(),
        parameters: 61_706,
        images: [1000, 200],
        streamed: [false; 2],
        memory: [3 << 20, 1 << 20],
    });
    for epoch in 1..=2 {
        for done in [250, 500, 1000] {
            view.observe(&progress(epoch, done, 1.0 / (epoch * done) as f64 + 0.5));
        }
        let history: Vec<_> = (1..=epoch).map(row).collect();
        view.see(Seen {
            history: &history,
            weights: &Weights::new(),
            examined: None,
            best: Some(1),
        });
        view.observe(&Event::Epoch(row(epoch)));
    }
    view.observe(&progress(3, 500, 0.4321));
    view.observe(&Event::Warning(
        "the disk is nearly full; it may not hold the next checkpoint".into(),
    ));
    view
}

/// The screen as lines.
fn screen(
    view: &View,
    theme: Theme,
    [width, height]: [u16; 2],
) -> (Vec<String>, Terminal<TestBackend>) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let elapsed = Duration::from_secs(65);
    terminal
        .draw(|frame| draw(frame, view, theme, elapsed))
        .unwrap();
    let cells = terminal.backend().buffer().content();
    let rows = cells.chunks(width.max(1).into());
    let lines = rows
        .map(|row| row.iter().map(|cell| cell.symbol()).collect())
        .collect();
    (lines, terminal)
}

#[test]
fn the_usual_sizes_show_curves_numbers_and_events() {
    let view = under_way();
    for size in [[80, 24], [120, 40], [60, 19]] {
        let (lines, _) = screen(&view, COLORS, size);
        let text = lines.join("\n");
        for part in [
            "lenet5 in",
            "61,706 parameters",
            "a device",
            "epoch 3/4",
            // Two epochs and a half of four.
            " 62%",
            "loss: training",
            "accuracy: training",
            "0.4321, validation 0.2500",
            "75.00%, validation 87.50%",
            "1.000e-3",
            "4.0 MiB, 1.0 MiB of it",
            // 1500 images at 500 a second.
            "1 min 05 s, 3.0 s left",
            "checkpoint",
            "q stops and saves",
        ] {
            assert!(text.contains(part), "{size:?}: no {part:?} in\n{text}");
        }
        let dots = |c: char| ('\u{2801}'..='\u{28ff}').contains(&c);
        assert!(text.chars().filter(|c| dots(*c)).count() > 10, "{text}");
        // Two points in each chart, besides those of the legends.
        let charts = lines.iter().filter(|line| !line.starts_with('┌'));
        let points: usize = charts.map(|line| line.matches('•').count()).sum();
        assert_eq!(points, 4, "{size:?}:\n{text}");
    }
}

#[test]
fn the_bar_is_as_long_as_what_is_done() {
    let (lines, _) = screen(&under_way(), COLORS, [80, 24]);
    let bar = lines
        .iter()
        .find(|line| line.starts_with("epoch 3/4"))
        .unwrap();
    let [filled, all] =
        [&['█'][..], &['█', '░']].map(|set| bar.chars().filter(|c| set.contains(c)).count());
    assert_eq!(filled, all * 5 / 8);
    assert_eq!(bar.chars().count(), 80);
}

#[test]
fn small_screens_show_what_fits_and_none_panics() {
    let (lines, _) = screen(&under_way(), COLORS, [40, 6]);
    assert!(lines[0].starts_with("epoch 3/4"), "{lines:?}");
    assert!(lines[1].starts_with("loss 0.4321"), "{lines:?}");
    assert!(lines[5].starts_with("q stops"), "{lines:?}");
    for view in [view(), under_way()] {
        for width in [0, 1, 2, 7, 20, 59, 60, 61, 200] {
            for height in [0, 1, 2, 5, 17, 18, 19, 70] {
                screen(&view, PLAIN, [width, height]);
            }
        }
    }
}

#[test]
fn numbers_that_are_none_break_nothing() {
    let mut view = under_way();
    view.observe(&progress(3, 0, f64::NAN));
    view.observe(&progress(3, 750, f64::INFINITY));
    if let Some(now) = &mut view.now {
        now.images_per_s = f64::NAN;
    }
    let (lines, _) = screen(&view, COLORS, [80, 24]);
    assert!(!lines.join("\n").contains("left"), "{lines:?}");
    // Losses from 1000 to 0.001 need a logarithmic axis.
    view.observe(&progress(4, 500, 1000.0));
    view.observe(&progress(4, 1000, 500.0005));
    let (lines, _) = screen(&view, COLORS, [80, 24]);
    assert!(lines.join("\n").contains("e3"), "{lines:?}");
}

#[test]
fn without_colors_there_are_none() {
    for (theme, colored) in [(COLORS, true), (PLAIN, false)] {
        let (_, terminal) = screen(&under_way(), theme, [80, 24]);
        let cells = terminal.backend().buffer().content();
        let any = cells
            .iter()
            .any(|c| c.fg != Color::Reset || c.bg != Color::Reset);
        assert_eq!(any, colored);
    }
}

#[test]
fn stopping_is_told_and_keys_ask_for_it() {
    let mut view = under_way();
    view.stopping = true;
    let (lines, _) = screen(&view, COLORS, [80, 24]);
    assert!(lines[23].starts_with("stopping"), "{lines:?}");
    let none = KeyModifiers::NONE;
    let control = KeyModifiers::CONTROL;
    assert_eq!(wish(KeyCode::Char('q'), none), Some(Wish::Stop));
    assert_eq!(wish(KeyCode::Char('c'), control), Some(Wish::Stop));
    assert_eq!(
        wish(KeyCode::Char('z'), control),
        Some(Wish::Sleep { all: true })
    );
    for key in [KeyCode::Char('c'), KeyCode::Char('z'), KeyCode::Esc] {
        assert_eq!(wish(key, none), None);
    }
}
