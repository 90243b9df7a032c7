//! What `gpucnn prune` and `gpucnn quantize` share: flags, and a table of size, accuracy and
//! speed before and after.

use super::{output, shared};
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use gpucnn::compress::{self, Measured};
use gpucnn::data::Dataset;
use gpucnn::infer::{Batches, Int8};
use gpucnn::model::Model;
use gpucnn::train::{RunFolder, Weights};
use gpucnn::{Error, Result};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The flags that pruning and quantising share.
#[derive(clap::Args)]
pub struct Common {
    /// The run folder that `gpucnn train` made
    pub run: PathBuf,
    /// Data set: a name (mnist) or a folder [default: the run's]
    #[arg(long, value_name = "NAME|DIR")]
    pub data: Option<String>,
    /// Take the weights of the epoch whose validation was the best, not the last ones
    #[arg(long)]
    pub best: bool,
    /// The new run folder [default: runs/MODEL-NUMBER]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// auto, cpu (the reference path, slow) or part of an adapter's name
    #[arg(long, value_name = "auto|cpu|NAME", default_value = "auto")]
    pub device: String,
    /// One JSON object a line on standard output
    #[arg(long)]
    pub json: bool,
}

impl Common {
    /// The run with its model and weights; one that is quantised is refused with `instead`.
    pub fn open(&self, instead: &str) -> Result<(RunFolder, Model, Weights)> {
        let folder = RunFolder::open(&self.run)?;
        if folder.int8()?.is_some() {
            return Err(Error::data(&self.run, instead));
        }
        let model = folder.model()?;
        let weights = shared::weights(&folder, &model, self.best)?;
        Ok((folder, model, weights))
    }

    /// Measures a model on the test images.
    pub fn measure(
        &self,
        (model, weights, int8): (&Model, &Weights, Option<&Int8>),
        bytes: u64,
        data: &Dataset,
    ) -> Result<Measured> {
        let split = data.test.as_ref().unwrap_or(&data.train);
        let batches = Batches::up_to(compress::BATCH.min(split.len()));
        let mut predictor = shared::predictor(model, weights, int8, batches, &self.device)?;
        compress::measure(model, weights, bytes, &mut predictor, split)
    }

    /// Prints models, each with a name; the last one is in the folder.
    pub fn print<const N: usize>(
        &self,
        event: &str,
        models: [(&str, &Measured); N],
        folder: &Path,
    ) {
        if self.json {
            let rows: Vec<_> = models
                .iter()
                .map(|(name, measured)| json!({"name": name, "measured": measured}))
                .collect();
            output::json(&json!({"event": event, "run": folder.to_string_lossy(), "models": rows}));
            return;
        }
        println!("{}", table(&models));
        println!("the model is in {}", folder.display());
    }
}

fn table(models: &[(&str, &Measured)]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header([
        "",
        "Parameters",
        "Not zero",
        "MFLOPs",
        "File, kB",
        "Loss",
        "Accuracy",
        "Images/s",
    ]);
    for (name, m) in models {
        table.add_row([
            (*name).to_owned(),
            m.parameters.to_string(),
            m.nonzero.to_string(),
            format!("{:.2}", m.flops as f64 / 1e6),
            format!("{:.1}", m.bytes as f64 / 1e3),
            format!("{:.4}", m.loss),
            format!("{:.2}%", 100.0 * m.accuracy),
            format!("{:.0}", m.images_per_s),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
