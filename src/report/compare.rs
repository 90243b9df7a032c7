//! Several runs on one page.

use super::page::chart::{COLORS, Chart, Series};
use super::page::{Page, table};
use super::run::settings;
use super::svg::escaped;
use super::{duration, run};
use crate::error::Result;
use crate::formats::atomic;
use crate::model::grouped;
use crate::train::{Config, HistoryRow, RunFolder};
use std::collections::BTreeMap;
use std::path::Path;

/// Runs to be compared.
pub struct Comparison {
    runs: Vec<Run>,
}

struct Run {
    name: String,
    model: String,
    parameters: usize,
    device: Option<String>,
    config: Config,
    history: Vec<HistoryRow>,
}

impl Comparison {
    /// The runs in these folders.
    ///
    /// # Errors
    /// If a file of one is missing or damaged.
    pub fn open(folders: &[RunFolder]) -> Result<Self> {
        let open = |folder: &RunFolder| {
            let model = folder.model()?;
            Ok(Run {
                name: folder.name(),
                model: model.name().to_owned(),
                parameters: model.parameter_count(),
                device: run::remembered(&folder.path().join(run::PAGE)).device,
                config: folder.config()?,
                history: folder.saved_history()?,
            })
        };
        let mut runs: Vec<Run> = folders.iter().map(open).collect::<Result<_>>()?;
        // Folders of one name in different places.
        let names: Vec<_> = runs.iter().map(|run| run.name.clone()).collect();
        for (run, folder) in runs.iter_mut().zip(folders) {
            if names.iter().filter(|name| **name == run.name).count() > 1 {
                run.name = folder.path().display().to_string();
            }
        }
        Ok(Self { runs })
    }

    /// Writes the page, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let html = self.html();
        atomic::write(path, |file| file.write_all(html.as_bytes()))
    }

    /// The page.
    pub fn html(&self) -> String {
        let title = format!("{} runs", self.runs.len());
        let mut page = Page::new(&format!("{title} · gpucnn"), None);
        page.add(format_args!("<header><h1>{title}</h1></header>\n"));
        page.add(self.results());
        page.section("Training", self.curves());
        page.section("Settings that differ", self.differences());
        page.html()
    }

    fn results(&self) -> String {
        let percent = |share: Option<f64>| share.map(|s| format!("{:.2}%", 100.0 * s));
        let loss = |loss: Option<f64>| loss.map(|l| format!("{l:.4}"));
        let rows = self.runs.iter().enumerate().map(|(i, run)| {
            let (last, best) = (run.history.last(), best(&run.history));
            let seconds = run.history.iter().map(|row| row.seconds).sum();
            let cells = [
                Some(format!(
                    "<span class=\"swatch\"><i class=\"c{}{}\"></i>{}</span>",
                    i % COLORS,
                    if i >= COLORS { " dashed" } else { "" },
                    escaped(&run.name)
                )),
                Some(escaped(&run.model)),
                Some(grouped(run.parameters as u64)),
                last.map(|row| format!("{} of {}", row.epoch, run.config.epochs)),
                percent(last.map(|row| row.accuracy)),
                percent(last.and_then(|row| row.val_accuracy)),
                loss(last.and_then(|row| row.val_loss)),
                best.map(|(accuracy, epoch)| format!("{:.2}% ({epoch})", 100.0 * accuracy)),
                last.map(|row| format!("{:.0}", row.images_per_s)),
                Some(duration(seconds)),
            ];
            cells.map(Option::unwrap_or_default).to_vec()
        });
        let headings = [
            "Run",
            "Model",
            "#Parameters",
            "#Epochs",
            "#Training accuracy",
            "#Validation accuracy",
            "#Validation loss",
            "#Best accuracy (epoch)",
            "#Images/s",
            "#Time",
        ];
        table(&headings, &rows.collect::<Vec<_>>()) + &self.devices()
    }

    /// Which runs were trained on what, as far as it is known.
    fn devices(&self) -> String {
        let mut devices: Vec<(&str, Vec<&str>)> = Vec::new();
        for run in &self.runs {
            let Some(device) = run.device.as_deref() else {
                continue;
            };
            match devices.iter_mut().find(|(known, _)| *known == device) {
                Some((_, runs)) => runs.push(&run.name),
                None => devices.push((device, vec![&run.name])),
            }
        }
        let line = |(device, runs): (&str, Vec<&str>)| {
            let which = match runs.len() == self.runs.len() {
                true => "All".to_owned(),
                false => escaped(&runs.join(", ")),
            };
            format!("<p>{which} on {}</p>", escaped(device))
        };
        devices.into_iter().map(line).collect()
    }

    fn curves(&self) -> String {
        let chart = |title, value: fn(&HistoryRow) -> Option<f64>, percent, from_zero| {
            let series = self.runs.iter().enumerate().map(|(i, run)| {
                let rows = run.history.iter();
                let points = rows.filter_map(|row| Some([row.epoch as f64, value(row)?]));
                let series = Series::new(&run.name, i, points.collect());
                if i >= COLORS { series.dashed() } else { series }
            });
            let chart = Chart {
                title,
                x: "epoch",
                series: series.collect(),
                percent,
                from_zero,
            };
            chart.html()
        };
        let charts = [
            chart("Validation accuracy", |row| row.val_accuracy, true, false),
            chart("Validation loss", |row| row.val_loss, false, false),
            chart("Training accuracy", |row| Some(row.accuracy), true, false),
            chart("Training loss", |row| Some(row.loss), false, false),
            chart("Learning rate", |row| Some(row.learning_rate), false, true),
            chart("Images a second", |row| Some(row.images_per_s), false, true),
        ]
        .concat();
        match charts.is_empty() {
            true => String::new(),
            false => format!("<div class=\"charts\">{charts}</div>"),
        }
    }

    fn differences(&self) -> String {
        let all: Vec<BTreeMap<_, _>> = self
            .runs
            .iter()
            .map(|run| settings(&run.config).into_iter().collect())
            .collect();
        let mut names: Vec<&String> = all.iter().flat_map(BTreeMap::keys).collect();
        names.sort();
        names.dedup();
        let differs = |name: &&String| all.iter().any(|run| run.get(*name) != all[0].get(*name));
        let rows = names.into_iter().filter(differs).map(|name| {
            let values = all
                .iter()
                .map(|run| escaped(run.get(name).map_or("", String::as_str)));
            let name = format!("<code>{}</code>", escaped(name));
            std::iter::once(name).chain(values).collect()
        });
        let rows: Vec<Vec<String>> = rows.collect();
        if rows.is_empty() {
            return "<p>None: the runs have the same settings.</p>".into();
        }
        let runs = self.runs.iter().map(|run| run.name.as_str());
        let headings: Vec<&str> = std::iter::once("Setting").chain(runs).collect();
        table(&headings, &rows)
    }
}

/// The best validation accuracy and its epoch.
fn best(history: &[HistoryRow]) -> Option<(f64, usize)> {
    let validated = history.iter();
    validated
        .filter_map(|row| Some((row.val_accuracy?, row.epoch)))
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
}
