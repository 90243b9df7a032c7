//! The folder a run leaves: model, weights, history, settings.

use super::{Config, Weights};
use crate::error::{Error, Result};
use crate::formats::{atomic, safetensors};
use crate::model::Model;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An epoch in numbers: a line of `history.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Training images seen in it: all, unless it was stopped.
    pub images: usize,
    /// Mean training loss over the epoch.
    pub loss: f64,
    /// Training accuracy over the epoch.
    pub accuracy: f64,
    /// Validation loss after it, where there was a validation.
    pub val_loss: Option<f64>,
    /// Validation accuracy after it.
    pub val_accuracy: Option<f64>,
    /// Wall seconds, validation included.
    pub seconds: f64,
    /// Training images a second, validation left out.
    pub images_per_s: f64,
}

/// A run on disk: `model.toml`, `weights.safetensors`, `history.csv`, `config.toml` and
/// `classes.txt`.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Files of a run that has not begun: name and text.
    pending: Vec<(&'static str, String)>,
    history: Vec<HistoryRow>,
}

const MODEL: &str = "model.toml";
const WEIGHTS: &str = "weights.safetensors";
const HISTORY: &str = "history.csv";
const CONFIG: &str = "config.toml";
const CLASSES: &str = "classes.txt";

impl RunFolder {
    /// A new folder with model, settings and class names, made when the training
    /// [begins](Self::begin). Without a path it is `runs/<model>-<number>`, the first
    /// number that is free.
    ///
    /// # Errors
    /// If the path holds a run already.
    pub fn create(
        path: Option<&Path>,
        model: &Model,
        config: &Config,
        classes: &[String],
    ) -> Result<Self> {
        let path = match path {
            Some(path) if path.join(WEIGHTS).exists() => {
                return Err(Error::data(
                    path,
                    "holds a run already; give --out another folder or remove this one",
                ));
            }
            Some(path) => path.to_owned(),
            None => free_folder(model.name()),
        };
        let config = toml::to_string(config).map_err(|e| Error::data(&path, e.to_string()))?;
        Ok(Self {
            path,
            pending: vec![
                (MODEL, model.to_toml()?),
                (CONFIG, config),
                (CLASSES, classes.join("\n") + "\n"),
            ],
            history: Vec::new(),
        })
    }

    /// Makes the folder and its first files.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn begin(&mut self) -> Result<()> {
        std::fs::create_dir_all(&self.path).map_err(|e| Error::io(&self.path, "create", e))?;
        for (name, text) in self.pending.drain(..) {
            atomic::write(&self.path.join(name), |w| w.write_all(text.as_bytes()))?;
        }
        Ok(())
    }

    /// An existing run.
    ///
    /// # Errors
    /// If the folder does not exist or lacks one of its files.
    pub fn open(path: &Path) -> Result<Self> {
        for file in [MODEL, WEIGHTS] {
            if !path.join(file).is_file() {
                return Err(Error::data(
                    path,
                    format!("is no run folder: there is no {file}; `gpucnn train` makes one"),
                ));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            pending: Vec::new(),
            history: Vec::new(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Rewrites weights and history with one more epoch.
    ///
    /// # Errors
    /// If a file cannot be written; the old ones stay as they were.
    pub fn save_epoch(&mut self, row: &HistoryRow, weights: &Weights) -> Result<()> {
        let metadata = BTreeMap::from([("epoch".to_owned(), row.epoch.to_string())]);
        safetensors::save(&self.path.join(WEIGHTS), weights, &metadata)?;
        self.history.push(row.clone());
        let path = self.path.join(HISTORY);
        atomic::write(&path, |file| {
            let mut writer = csv::Writer::from_writer(file);
            for row in &self.history {
                writer.serialize(row)?;
            }
            writer.flush()
        })
    }

    /// The model.
    ///
    /// # Errors
    /// Whatever is wrong with its file.
    pub fn model(&self) -> Result<Model> {
        Model::load(&self.path.join(MODEL).to_string_lossy())
    }

    /// The weights, checked against the model.
    ///
    /// # Errors
    /// Whatever is wrong with their file.
    pub fn weights(&self, model: &Model) -> Result<Weights> {
        let path = self.path.join(WEIGHTS);
        let weights = safetensors::load(&path)?;
        model.check_weights(&weights, &path.to_string_lossy())?;
        Ok(weights)
    }

    /// The names of the classes; numbers where the file is missing.
    pub fn classes(&self, model: &Model) -> Vec<String> {
        let text = std::fs::read_to_string(self.path.join(CLASSES)).unwrap_or_default();
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        for missing in names.len()..model.classes() {
            names.push(missing.to_string());
        }
        names
    }

    /// The settings it was trained with.
    ///
    /// # Errors
    /// If the file is missing or damaged.
    pub fn config(&self) -> Result<Config> {
        let path = self.path.join(CONFIG);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, "read", e))?;
        toml::from_str(&text).map_err(|e| Error::data(path, e.to_string()))
    }
}

fn free_folder(model: &str) -> PathBuf {
    let numbered = |n: usize| Path::new("runs").join(format!("{model}-{n}"));
    (1..)
        .map(numbered)
        .find(|p| !p.exists())
        .unwrap_or_else(|| numbered(0))
}
