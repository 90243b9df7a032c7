//! A run as one page.

use super::curve::Curve;
use super::duration;
use super::findings::{Findings, Mistake};
use super::page::chart::{Chart, Series};
use super::page::pictures::{Picture, first_filters, interleaved};
use super::page::{self, Page, confusion, layers, table, tiles};
use super::svg::escaped;
use crate::error::Result;
use crate::formats::atomic;
use crate::graph::Profile;
use crate::model::{Model, bytes, grouped};
use crate::train::{Config, Examined, HistoryRow, RunFolder, Weights};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::Path;

/// The page's name in a run folder.
pub(crate) const PAGE: &str = "report.html";

/// First-layer filters shown.
const FILTERS: usize = 96;

/// What is known of a run. What is not is left out of its page.
pub struct RunReport {
    name: String,
    model: Model,
    config: Config,
    classes: Vec<String>,
    pub(super) seen: Memory,
    pub(super) history: Vec<HistoryRow>,
    pub(super) best: Option<usize>,
    findings: Option<(Findings, String)>,
    filters: Option<(String, Vec<Picture>)>,
}

/// What no other file of the run folder holds. The page keeps it, for pages made anew.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    pub state: State,
    pub device: Option<String>,
    /// Training and validation images.
    pub images: Option<[usize; 2]>,
    /// Bytes of states and of activations.
    pub memory: Option<[u64; 2]>,
    pub curve: Curve,
    times: Option<Times>,
}

/// How long the parts of a training step take.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Times {
    /// What measured them.
    clock: String,
    /// Layer, op and seconds.
    nodes: Vec<(String, String, f64)>,
}

/// How a run stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// It is being trained.
    Training,
    /// All its epochs are over.
    Done,
    /// It was stopped.
    Stopped,
    /// It got no better.
    OutOfPatience,
    /// It failed with this error.
    Failed(String),
    /// Nobody knows.
    #[default]
    Unknown,
}

impl RunReport {
    /// A run that is about to be trained.
    pub fn new(name: String, model: &Model, config: &Config, classes: Vec<String>) -> Self {
        Self {
            name,
            model: model.clone(),
            config: config.clone(),
            classes,
            seen: Memory::default(),
            history: Vec::new(),
            best: None,
            findings: None,
            filters: None,
        }
    }

    /// The run in a folder, with what its page remembers of it.
    ///
    /// # Errors
    /// If one of its files is missing or damaged.
    pub fn open(folder: &RunFolder) -> Result<Self> {
        let (model, config) = (folder.model()?, folder.config()?);
        let mut report = Self::new(folder.name(), &model, &config, folder.classes(&model));
        report.history = folder.saved_history()?;
        report.seen = remembered(&folder.path().join(PAGE));
        let monitor = config.monitor()?;
        let validated = report.history.iter().filter(|row| row.val_loss.is_some());
        // Of equal ones the first, as training has it.
        report.best = validated
            .map(|row| (monitor.score(row), row.epoch))
            .reduce(|best, next| if next.0 > best.0 { next } else { best })
            .map(|(_, epoch)| epoch);
        Ok(report)
    }

    /// Takes the filters to show from the weights.
    pub fn set_weights(&mut self, weights: &Weights) {
        let found = first_filters(&self.model, weights, FILTERS);
        self.filters = found.map(|(layer, shape, filters)| {
            let pictures = filters.iter().map(|bytes| interleaved(bytes, shape));
            (layer, pictures.collect())
        });
    }

    /// Takes a validation by the weights after the best epoch, or after the last.
    ///
    /// # Errors
    /// If an image file cannot be decoded.
    pub fn examine(&mut self, examined: &Examined, best: bool) -> Result<()> {
        let epoch = match best {
            true => self.best,
            false => self.history.last().map(|row| row.epoch),
        };
        let whose = epoch.map_or(String::new(), |n| {
            format!(", by the weights after epoch {n}")
        });
        self.findings = Some((Findings::new(examined)?, whose));
        Ok(())
    }

    /// Takes how long the parts of a step take.
    pub fn set_profile(&mut self, profile: &Profile) {
        let nodes = profile.timings.iter();
        self.seen.times = Some(Times {
            clock: profile.clock.to_string(),
            nodes: nodes
                .map(|t| (t.layer.clone(), t.op.to_owned(), t.seconds()))
                .collect(),
        });
    }

    /// Writes the page, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let html = self.html()?;
        atomic::write(path, |file| file.write_all(html.as_bytes()))
    }

    /// The page.
    ///
    /// # Errors
    /// If a picture cannot be encoded.
    pub fn html(&self) -> Result<String> {
        let mut page = Page::new(&format!("{} · gpucnn", self.name), self.reload());
        page.add(self.header());
        page.add(tiles(&self.numbers()));
        page.section("Training", self.curves());
        page.section("What is taken for what", self.confusion());
        page.section("Worst mistakes", self.mistakes()?);
        page.section("First-layer filters", self.filters()?);
        page.section("Time per layer", self.times());
        let picture = layers::svg(&self.model)?;
        let words = "Each box is a layer: its name, its type, its trainable parameters and its \
                     output for one image (channels × rows × columns).";
        page.section(
            "The model",
            format!("<p>{words}</p><div class=\"graph\">{picture}</div>"),
        );
        page.section("Configuration", self.settings());
        page.section("Device", self.machine());
        page.remember(&self.seen);
        Ok(page.html())
    }

    /// While it is trained, the page reloads about twice an epoch.
    fn reload(&self) -> Option<u64> {
        let seconds = self.history.last().map_or(10.0, |row| 0.5 * row.seconds);
        (self.seen.state == State::Training).then_some(seconds.clamp(3.0, 60.0) as u64)
    }

    fn header(&self) -> String {
        let done = self.history.last().map_or(0, |row| row.epoch);
        let all = self.config.epochs;
        let (kind, state) = match &self.seen.state {
            State::Training if done == 0 => ("training", "training, in its first epoch".into()),
            State::Training => (
                "training",
                format!("training, {done} of {all} epochs are over"),
            ),
            State::Done => ("done", format!("trained {done} epochs")),
            State::Stopped => ("done", format!("stopped in epoch {done} of {all}")),
            State::OutOfPatience => (
                "done",
                format!("ended after epoch {done}: no longer better"),
            ),
            State::Failed(error) => ("failed", format!("failed: {error}")),
            State::Unknown => ("done", format!("{done} of {all} epochs")),
        };
        format!(
            "<header><h1>{}</h1><p>Model <b>{}</b> on data set <b>{}</b></p>\
             <span class=\"state {kind}\">{}</span></header>\n",
            escaped(&self.name),
            escaped(self.model.name()),
            escaped(&self.config.data),
            escaped(&state)
        )
    }

    fn numbers(&self) -> Vec<(String, String)> {
        let percent = |share: f64| format!("{:.2}%", 100.0 * share);
        let mut tiles = Vec::new();
        let mut add = |value: String, what: String| tiles.push((value, what));
        if let Some(last) = self.history.last() {
            if let Some(accuracy) = last.val_accuracy {
                add(percent(accuracy), "validation accuracy".into());
            }
            if let Some(share) = last.val_top5 {
                add(percent(share), "validation top-5 accuracy".into());
            }
            if let Some(loss) = last.val_loss {
                add(format!("{loss:.4}"), "validation loss".into());
            }
            let best = |row: &&HistoryRow| Some(row.epoch) == self.best;
            if let Some(best) = self.history.iter().find(best)
                && let Some(accuracy) = best.val_accuracy
            {
                let what = format!("at the best validation, epoch {}", best.epoch);
                add(percent(accuracy), what);
            }
            add(percent(last.accuracy), "training accuracy".into());
            add(
                format!("{:.0}", last.images_per_s),
                "images a second".into(),
            );
            let seconds = self.history.iter().map(|row| row.seconds).sum();
            add(duration(seconds), format!("for {} epochs", last.epoch));
        }
        let parameters = self.model.parameter_count() as u64;
        add(grouped(parameters), "parameters".into());
        if let Some([states, activations]) = self.seen.memory {
            add(bytes(states + activations), "on the device".into());
        }
        tiles
    }

    fn curves(&self) -> String {
        let over = |value: fn(&HistoryRow) -> Option<f64>| {
            let rows = self.history.iter();
            let points = rows.filter_map(|row| Some([row.epoch as f64, value(row)?]));
            points.collect::<Vec<_>>()
        };
        let chart = |title, series, percent, from_zero| {
            let chart = Chart {
                title,
                x: "epoch",
                series,
                percent,
                from_zero,
            };
            chart.html()
        };
        let loss = vec![
            Series::new("between readbacks", 0, self.seen.curve.losses()).faint(),
            Series::new("training", 0, over(|row| Some(row.loss))),
            Series::new("validation", 1, over(|row| row.val_loss)),
        ];
        let accuracy = vec![
            Series::new("between readbacks", 0, self.seen.curve.accuracies()).faint(),
            Series::new("training", 0, over(|row| Some(row.accuracy))),
            Series::new("validation", 1, over(|row| row.val_accuracy)),
            Series::new("validation, top 5", 2, over(|row| row.val_top5)).faint(),
        ];
        let rate = Series::new("at the epoch's end", 2, over(|row| Some(row.learning_rate)));
        let speed = Series::new("training", 3, over(|row| Some(row.images_per_s)));
        let charts = [
            chart("Loss", loss, false, false),
            chart("Accuracy", accuracy, true, false),
            chart("Learning rate", vec![rate], false, true),
            chart("Images a second", vec![speed], false, true),
        ]
        .concat();
        match charts.is_empty() {
            true => "<p>The curves begin with the first epoch's end.</p>".into(),
            false => format!("<div class=\"charts\">{charts}</div>"),
        }
    }

    /// What the validation images are.
    fn validation_images(&self) -> String {
        match self.config.val_split {
            Some(share) => {
                let percent = 100.0 * share;
                format!("validation images (the last {percent:.0}% of the training images)")
            }
            None => "test images".into(),
        }
    }

    fn confusion(&self) -> String {
        let Some((findings, whose)) = &self.findings else {
            return match self.history.is_empty() {
                true => String::new(),
                false => "<p>There are no images to validate on.</p>".into(),
            };
        };
        let (seen, total) = (findings.evaluation.samples(), findings.total);
        let which = match seen == total {
            true => format!("All {}", grouped(total as u64)),
            false => format!(
                "The first {} of {}",
                grouped(seen as u64),
                grouped(total as u64)
            ),
        };
        format!(
            "<p>{which} {}{}: rows are true classes, columns what was predicted. Blue is right, \
             by its share of the row; orange is wrong, by its share of the most frequent \
             mistake.</p>{}",
            escaped(&self.validation_images()),
            escaped(whose),
            confusion::html(&findings.evaluation, &self.classes)
        )
    }

    fn mistakes(&self) -> Result<String> {
        let Some((findings, _)) = &self.findings else {
            return Ok(String::new());
        };
        let evaluation = &findings.evaluation;
        let wrong = evaluation.samples() as f64 * (1.0 - evaluation.accuracy());
        let mut out = format!(
            "<p>Of {:.0} images told wrong, those whose true class got the least \
             probability.</p><div class=\"pictures\">",
            wrong.round()
        );
        if findings.mistakes.is_empty() {
            return Ok("<p>No image was told wrong.</p>".into());
        }
        for mistake in &findings.mistakes {
            out += &self.mistake(mistake)?;
        }
        Ok(out + "</div>")
    }

    fn mistake(&self, mistake: &Mistake) -> Result<String> {
        let name = |class: usize| escaped(self.classes.get(class).map_or("", String::as_str));
        let (class, predicted) = (name(mistake.class), name(mistake.predicted));
        let [given, of_true] = mistake.probabilities.map(|p| 100.0 * p);
        let picture = interleaved(&mistake.image, self.model.input());
        let [width, height] = picture.size();
        Ok(format!(
            "<figure><img src=\"{}\" width=\"{width}\" height=\"{height}\" alt=\"Image {index}, \
             of class {class}\"><figcaption>{class}, taken for <span class=\"taken\">{predicted}\
             </span> ({given:.1}%)<br><small>image {index}; {class} got {of_true:.2}%</small>\
             </figcaption></figure>",
            picture.address()?,
            index = mistake.index,
        ))
    }

    fn filters(&self) -> Result<String> {
        let Some((layer, pictures)) = &self.filters else {
            return Ok(match self.history.is_empty() {
                true => String::new(),
                false => "<p>The model has no convolution.</p>".into(),
            });
        };
        let mut out = format!(
            "<p>{} of layer {}, each scaled by its own largest weight. Grey is zero.</p>\
             <div class=\"filters\">",
            pictures.len(),
            escaped(layer)
        );
        for (i, picture) in pictures.iter().enumerate() {
            let address = picture.address()?;
            let _ = write!(
                out,
                "<img src=\"{address}\" alt=\"Filter {i}\" title=\"Filter {i}\">"
            );
        }
        Ok(out + "</div>")
    }

    fn times(&self) -> String {
        let Some(times) = &self.seen.times else {
            return "<p>Measured at the end of a training on a GPU or a software adapter.</p>"
                .into();
        };
        let seconds = || times.nodes.iter().map(|node| node.2);
        let (total, longest) = (seconds().sum::<f64>(), seconds().fold(0.0, f64::max));
        let rows = times.nodes.iter().map(|(layer, op, seconds)| {
            let share = 100.0 * seconds / longest;
            vec![
                escaped(layer),
                escaped(op),
                format!("{:.0} µs", 1e6 * seconds),
                format!("{:.1}%", 100.0 * seconds / total),
                format!("<span class=\"wide\"><span class=\"bar\" style=\"width:{share:.1}%\"></span></span>"),
            ]
        });
        let rows: Vec<_> = rows.collect();
        format!(
            "<p>A training step of {} images takes {:.2} ms, its parts one by one, timed by {}.</p>{}",
            self.config.batch_size,
            1e3 * total,
            escaped(&times.clock),
            table(&["Layer", "Op", "#Time", "#Share", ""], &rows)
        )
    }

    fn settings(&self) -> String {
        let rows: Vec<_> = settings(&self.config)
            .into_iter()
            .map(|(name, value)| vec![format!("<code>{}</code>", escaped(&name)), escaped(&value)])
            .collect();
        table(&["Setting", "Value"], &rows)
    }

    fn machine(&self) -> String {
        let mut rows = Vec::new();
        let mut add = |what: &str, value: String| rows.push(vec![what.to_owned(), value]);
        if let Some(device) = &self.seen.device {
            add("Device", escaped(device));
        }
        if let Some([states, activations]) = self.seen.memory {
            add("Data, weights and other states", bytes(states));
            add("Activations and scratch", bytes(activations));
        }
        if let Some([train, validation]) = self.seen.images {
            add("Training images", grouped(train as u64));
            add("Validation images", grouped(validation as u64));
        }
        match rows.is_empty() {
            true => String::new(),
            false => table(&["", ""], &rows),
        }
    }
}

/// What an earlier page of the run remembers; nothing, if there is none.
pub(super) fn remembered(page: &Path) -> Memory {
    let text = std::fs::read_to_string(page).unwrap_or_default();
    page::remembered(&text).unwrap_or_default()
}

/// The settings as `config.toml` has them.
pub(super) fn settings(config: &Config) -> Vec<(String, String)> {
    let table = toml::Table::try_from(config).unwrap_or_default();
    let text = |value: &toml::Value| match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    table.iter().map(|(k, v)| (k.clone(), text(v))).collect()
}
