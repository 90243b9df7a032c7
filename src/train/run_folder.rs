//! The folder a run leaves: model, weights, history, settings.

use super::{Checkpoint, Config, Weights};
use crate::error::{Error, Result};
use crate::formats::safetensors::Int8Scales;
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
    /// Share of the validation images whose class is among the five likeliest, where there are
    /// more than five.
    #[serde(default)]
    pub val_top5: Option<f64>,
    /// Learning rate of its last update.
    pub learning_rate: f64,
    /// Wall seconds of training and validation.
    pub seconds: f64,
    /// Training images a second, validation left out.
    pub images_per_s: f64,
}

/// The rows as the text of `history.csv`; every number reads back as the same bits.
pub(super) fn to_csv(rows: &[HistoryRow], path: &Path) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let fail = |problem: String| Error::data(path, problem);
    for row in rows {
        writer.serialize(row).map_err(|e| fail(e.to_string()))?;
    }
    let bytes = writer.into_inner().map_err(|e| fail(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| fail(e.to_string()))
}

/// The rows of a text by [`to_csv`].
pub(super) fn from_csv(text: &str, path: &Path) -> Result<Vec<HistoryRow>> {
    let rows = csv::Reader::from_reader(text.as_bytes()).into_deserialize();
    rows.collect::<Result<_, _>>()
        .map_err(|e| Error::data(path, format!("history: {e}")))
}

/// A run on disk: `model.toml`, `weights.safetensors`, `best.safetensors` (the weights of the
/// epoch whose validation was the best, where there is one), `history.csv`, `config.toml`,
/// `classes.txt` and the folder `checkpoints`; a training also keeps `report.html` there.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Files that a run begins with: name and text.
    first: Vec<(&'static str, String)>,
    history: Vec<HistoryRow>,
}

const MODEL: &str = "model.toml";
const WEIGHTS: &str = "weights.safetensors";
const BEST: &str = "best.safetensors";
const HISTORY: &str = "history.csv";
const CONFIG: &str = "config.toml";
const CLASSES: &str = "classes.txt";
const CHECKPOINTS: &str = "checkpoints";

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
            Some(path) if path.join(WEIGHTS).exists() || !checkpoints(path).is_empty() => {
                return Err(Error::data(
                    path,
                    "holds a run already; go on with it by --resume, give --out another folder \
                     or remove this one",
                ));
            }
            Some(path) => path.to_owned(),
            None => free_folder(model.name()),
        };
        let config = config_toml(config, &path)?;
        Ok(Self {
            path,
            first: vec![
                (MODEL, model.to_toml()?),
                (CONFIG, config),
                (CLASSES, classes.join("\n") + "\n"),
            ],
            history: Vec::new(),
        })
    }

    /// Makes the folder and its first files, and clears away what a process that was
    /// killed left unfinished.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn begin(&mut self) -> Result<()> {
        std::fs::create_dir_all(&self.path).map_err(|e| Error::io(&self.path, "create", e))?;
        atomic::sweep(&self.path);
        atomic::sweep(&self.path.join(CHECKPOINTS));
        for (name, text) in &self.first {
            atomic::write(&self.path.join(name), |w| w.write_all(text.as_bytes()))?;
        }
        Ok(())
    }

    /// Makes the folder and its first files again where they are gone; whether they were.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(super) fn restore(&self) -> Result<bool> {
        std::fs::create_dir_all(&self.path).map_err(|e| Error::io(&self.path, "create", e))?;
        let mut restored = false;
        for (name, text) in &self.first {
            let path = self.path.join(name);
            if !path.exists() {
                atomic::write(&path, |w| w.write_all(text.as_bytes()))?;
                restored = true;
            }
        }
        Ok(restored)
    }

    /// An existing run.
    ///
    /// # Errors
    /// If the folder does not exist or lacks one of its files.
    pub fn open(path: &Path) -> Result<Self> {
        Self::with_files(path, [MODEL, WEIGHTS])
    }

    /// A run to go on with. It may have been killed before it left any weights.
    ///
    /// # Errors
    /// If the folder does not exist or lacks model or settings.
    pub fn reopen(path: &Path) -> Result<Self> {
        Self::with_files(path, [MODEL, CONFIG])
    }

    fn with_files(path: &Path, files: [&str; 2]) -> Result<Self> {
        if let Some(file) = files.iter().find(|f| !path.join(f).is_file()) {
            return Err(Error::data(
                path,
                format!("is no run folder: there is no {file}; `gpucnn train` makes one"),
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            first: Vec::new(),
            history: Vec::new(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name: that of the folder.
    pub fn name(&self) -> String {
        let name = self.path.file_name();
        name.map_or_else(
            || self.path.display().to_string(),
            |n| n.to_string_lossy().into_owned(),
        )
    }

    /// The epochs as `history.csv` has them; none where there is no such file yet.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn saved_history(&self) -> Result<Vec<HistoryRow>> {
        let path = self.path.join(HISTORY);
        if !path.is_file() {
            return Ok(Vec::new());
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, "read", e))?;
        from_csv(&text, &path)
    }

    /// The epochs so far.
    pub fn history(&self) -> &[HistoryRow] {
        &self.history
    }

    /// Forgets the epochs so far: the training begins anew.
    pub(super) fn restart(&mut self) {
        self.history.clear();
    }

    /// Goes on with these settings after these epochs.
    ///
    /// # Errors
    /// Never, unless the settings cannot be written as TOML.
    pub(super) fn go_on(&mut self, config: &Config, history: &[HistoryRow]) -> Result<()> {
        self.first = vec![(CONFIG, config_toml(config, &self.path)?)];
        for name in [MODEL, CLASSES] {
            if let Ok(text) = std::fs::read_to_string(self.path.join(name)) {
                self.first.push((name, text));
            }
        }
        self.history = history.to_vec();
        Ok(())
    }

    /// Rewrites weights and history with one more epoch, and the best weights where it is the
    /// `best` so far.
    ///
    /// # Errors
    /// If a file cannot be written; the old one stays as it was, and the next epoch's
    /// history has this one too.
    pub fn save_epoch(&mut self, row: &HistoryRow, weights: &Weights, best: bool) -> Result<()> {
        self.history.push(row.clone());
        let metadata = BTreeMap::from([("epoch".to_owned(), row.epoch.to_string())]);
        safetensors::save(&self.path.join(WEIGHTS), weights, &metadata)?;
        if best {
            safetensors::save(&self.path.join(BEST), weights, &metadata)?;
        }
        let path = self.path.join(HISTORY);
        let text = to_csv(&self.history, &path)?;
        atomic::write(&path, |w| w.write_all(text.as_bytes()))
    }

    /// Writes weights that no epoch of this run made.
    ///
    /// # Errors
    /// If the file cannot be written; the old one stays as it was.
    pub fn save_weights(&self, weights: &Weights) -> Result<()> {
        safetensors::save(&self.path.join(WEIGHTS), weights, &BTreeMap::new())
    }

    /// Writes weights with those of some layers in eight bits.
    ///
    /// # Errors
    /// If the file cannot be written; the old one stays as it was.
    pub fn save_int8(&self, weights: &Weights, int8: &BTreeMap<String, Int8Scales>) -> Result<()> {
        safetensors::save_int8(&self.path.join(WEIGHTS), weights, int8)
    }

    /// Writes weights as f16.
    ///
    /// # Errors
    /// If the file cannot be written; the old one stays as it was.
    pub fn save_f16(&self, weights: &Weights) -> Result<()> {
        safetensors::save_f16(&self.path.join(WEIGHTS), weights)
    }

    /// The layers that run in eight bits, where `gpucnn quantize` made the run.
    ///
    /// # Errors
    /// Whatever is wrong with the weights' file.
    pub fn int8(&self) -> Result<Option<BTreeMap<String, Int8Scales>>> {
        let found = safetensors::load_int8(&self.path.join(WEIGHTS))?;
        Ok((!found.is_empty()).then_some(found))
    }

    /// Bytes of the weights' file.
    ///
    /// # Errors
    /// If there is none.
    pub fn weight_bytes(&self, best: bool) -> Result<u64> {
        let path = self.path.join(if best { BEST } else { WEIGHTS });
        let found = std::fs::metadata(&path).map_err(|e| Error::io(&path, "read", e))?;
        Ok(found.len())
    }

    /// Writes a checkpoint, then removes all but the last `keep` up to it.
    ///
    /// # Errors
    /// If it cannot be written; the others stay as they were.
    pub fn save_checkpoint(&self, checkpoint: &Checkpoint, keep: usize) -> Result<()> {
        let folder = self.path.join(CHECKPOINTS);
        atomic::create_folder(&folder)?;
        let steps = checkpoint.position.steps;
        checkpoint.save(&folder.join(format!("step-{steps:08}.safetensors")))?;
        let found = checkpoints(&self.path).into_iter();
        // Later steps are of a checkpoint that was damaged: this training went on from
        // one before it.
        let (later, kept): (Vec<_>, Vec<_>) = found.partition(|(step, _)| *step > steps);
        for (_, path) in later.into_iter().chain(kept.into_iter().skip(keep)) {
            if let Err(error) = std::fs::remove_file(&path) {
                log::warn!("{}: cannot remove: {error}", path.display());
            }
        }
        Ok(())
    }

    /// The checkpoints' files, the newest first.
    pub fn checkpoints(&self) -> Vec<PathBuf> {
        checkpoint_files(&self.path)
    }

    /// The newest checkpoint that is whole, and what is wrong with newer ones.
    ///
    /// # Errors
    /// If none is; it says what is wrong with each.
    pub fn checkpoint(&self) -> Result<(Checkpoint, Vec<Error>)> {
        let mut problems = Vec::new();
        for path in self.checkpoints() {
            match Checkpoint::load(&path) {
                Ok(checkpoint) => return Ok((checkpoint, problems)),
                Err(error) => problems.push(error),
            }
        }
        let found: String = problems.iter().map(|p| format!("\n  {p}")).collect();
        let problem = match problems.is_empty() {
            true => "has no checkpoint to go on from; remove it and train anew".to_owned(),
            false => format!("has no checkpoint that is whole:{found}"),
        };
        Err(Error::data(&self.path, problem))
    }

    /// The model.
    ///
    /// # Errors
    /// Whatever is wrong with its file.
    pub fn model(&self) -> Result<Model> {
        let path = self.path.join(MODEL);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, "read", e))?;
        Model::from_toml(&text, &path.to_string_lossy())
    }

    /// The weights, checked against the model.
    ///
    /// # Errors
    /// Whatever is wrong with their file.
    pub fn weights(&self, model: &Model) -> Result<Weights> {
        self.load(WEIGHTS, model)
    }

    /// The weights of the epoch whose validation was the best, checked against the model.
    ///
    /// # Errors
    /// If no epoch was validated, or whatever is wrong with their file.
    pub fn best_weights(&self, model: &Model) -> Result<Weights> {
        if !self.path.join(BEST).is_file() {
            let problem = format!("has no {BEST}: no epoch of it was validated");
            return Err(Error::data(&self.path, problem));
        }
        self.load(BEST, model)
    }

    fn load(&self, file: &str, model: &Model) -> Result<Weights> {
        let path = self.path.join(file);
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

fn config_toml(config: &Config, path: &Path) -> Result<String> {
    toml::to_string(config).map_err(|e| Error::data(path, e.to_string()))
}

/// The checkpoints' files in a run folder, the newest first.
pub(super) fn checkpoint_files(run: &Path) -> Vec<PathBuf> {
    let found = checkpoints(run).into_iter();
    found.map(|(_, path)| path).collect()
}

/// The checkpoints in a run folder: steps and file, the newest first.
fn checkpoints(run: &Path) -> Vec<(u32, PathBuf)> {
    let step = |name: &str| {
        let digits = name.strip_prefix("step-")?.strip_suffix(".safetensors")?;
        digits.parse().ok()
    };
    let entries = std::fs::read_dir(run.join(CHECKPOINTS)).into_iter();
    let mut found: Vec<_> = entries
        .flatten()
        .flatten()
        .filter_map(|entry| Some((step(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found
}

fn free_folder(model: &str) -> PathBuf {
    let numbered = |n: usize| Path::new("runs").join(format!("{model}-{n}"));
    (1..)
        .map(numbered)
        .find(|p| !p.exists())
        .unwrap_or_else(|| numbered(0))
}
