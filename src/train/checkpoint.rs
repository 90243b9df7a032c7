//! Checkpoints: a training on disk, to the last bit.
//!
//! A safetensors file. Its tensors are the states a training changes (parameters, running
//! statistics, what the optimizer keeps), each flat, and `progress`, f64 `[4]`: the sum of
//! the losses, the correct and the counted images, and the seconds of the epoch under way.
//! Its metadata:
//!
//! | key | |
//! |---|---|
//! | `format` | [`FORMAT`] |
//! | `checksum` | CRC-32 of all else: of each metadata entry but this, then of each tensor, by name |
//! | `epoch`, `images`, `steps` | the [`Position`] |
//! | `epoch_images` | training images in an epoch |
//! | `skipped` | steps that were left out; none, where it is missing |
//! | `device` | what it was written on |
//! | `history` | the epochs that are over, as in `history.csv` |
//!
//! Nothing else decides how a training goes on: the order of an epoch follows from the
//! seed and the epoch's number, dropout from the seed and the step's.

use super::run_folder::{from_csv, to_csv};
use super::{HistoryRow, Metrics};
use crate::error::{Error, Result};
use crate::formats::atomic;
use crate::ops::Array;
use crate::tensor::TensorType;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

/// The version of the format this program writes and reads.
pub const FORMAT: &str = "gpucnn-checkpoint-1";

const CHECKSUM: &str = "checksum";
const PROGRESS: &str = "progress";

/// How far a training is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// The epoch under way, from 1; past the last when all are over.
    pub epoch: usize,
    /// Training images done in it.
    pub images: usize,
    /// Steps taken since training began.
    pub steps: u32,
    /// Totals over the images done.
    pub metrics: Metrics,
    /// Seconds they took.
    pub seconds: f64,
    /// Steps left out since training began, see [`OnNan::Skip`](super::OnNan).
    pub skipped: u32,
}

impl Position {
    /// Before the first image of an epoch, after `steps` steps.
    pub fn before_epoch(epoch: usize, steps: u32) -> Self {
        Self {
            epoch,
            images: 0,
            steps,
            metrics: Metrics::default(),
            seconds: 0.0,
            skipped: 0,
        }
    }
}

/// The numbers of a state, as the file holds them: f32, or f64 where that would not be
/// exact, as on the reference path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl State {
    pub(super) fn new(values: &[f64]) -> Self {
        let exact = |x: &f64| f64::from(*x as f32).to_bits() == x.to_bits();
        if values.iter().all(exact) {
            let narrow = values.iter().flat_map(|x| (*x as f32).to_le_bytes());
            return Self {
                dtype: Dtype::F32,
                bytes: narrow.collect(),
            };
        }
        Self::wide(values)
    }

    fn wide(values: &[f64]) -> Self {
        Self {
            dtype: Dtype::F64,
            bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// The numbers; `None` if they are of another type.
    fn values(&self) -> Option<Vec<f64>> {
        Some(match self.dtype {
            Dtype::F32 => {
                let (chunks, _) = self.bytes.as_chunks();
                chunks
                    .iter()
                    .map(|b| f32::from_le_bytes(*b).into())
                    .collect()
            }
            Dtype::F64 => {
                let (chunks, _) = self.bytes.as_chunks();
                chunks.iter().map(|b| f64::from_le_bytes(*b)).collect()
            }
            _ => return None,
        })
    }
}

/// Everything a training needs to go on as if it had never stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// How far it is.
    pub position: Position,
    /// Training images in an epoch.
    pub epoch_images: usize,
    /// The device in one line; another one computes other bits.
    pub device: String,
    /// The epochs that are over.
    pub history: Vec<HistoryRow>,
    pub(super) states: BTreeMap<String, State>,
}

impl Checkpoint {
    /// The content of a state, which must be of type `ty`.
    pub(super) fn state(&self, name: &str, ty: &TensorType) -> Result<Array> {
        let problem = match self.states.get(name).and_then(State::values) {
            Some(values) if values.len() == ty.shape.len() => {
                return Ok(Array::float(ty.clone(), values));
            }
            Some(values) => format!("expected {ty}, found {} numbers", values.len()),
            None => format!("expected {ty}, found none"),
        };
        Err(Error::shape(format!("checkpoint, state {name}"), problem))
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let fail = |e: safetensors::SafeTensorError| Error::data(path, e.to_string());
        let m = &self.position.metrics;
        let seconds = self.position.seconds;
        let progress = [m.loss_sum, m.correct, m.samples, seconds, m.top5];
        let progress = State::wide(&progress);
        let mut views = BTreeMap::new();
        let named = self
            .states
            .iter()
            .map(|(name, state)| (name.as_str(), state));
        for (name, state) in named.chain([(PROGRESS, &progress)]) {
            let length = state.bytes.len() * 8 / state.dtype.bitsize();
            let view = TensorView::new(state.dtype, vec![length], &state.bytes).map_err(fail)?;
            views.insert(name.to_owned(), view);
        }
        let entries = [
            ("format", FORMAT.to_owned()),
            ("epoch", self.position.epoch.to_string()),
            ("images", self.position.images.to_string()),
            ("steps", self.position.steps.to_string()),
            ("epoch_images", self.epoch_images.to_string()),
            ("skipped", self.position.skipped.to_string()),
            ("device", self.device.clone()),
            ("history", to_csv(&self.history, path)?),
        ];
        let mut metadata = BTreeMap::from(entries.map(|(key, value)| (key.to_owned(), value)));
        metadata.insert(CHECKSUM.into(), checksum(&metadata, &views));
        let bytes = serialize(&views, Some(metadata.into_iter().collect())).map_err(fail)?;
        atomic::write(path, |writer| writer.write_all(&bytes))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is cut short, of another version, or does not match its
    /// checksum.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
        let damaged = |problem: String| Error::data(path, format!("is damaged: {problem}"));
        let file = SafeTensors::deserialize(&bytes)
            .and_then(|file| Ok((file, SafeTensors::read_metadata(&bytes)?.1)));
        let (file, header) = file.map_err(|e| damaged(e.to_string()))?;
        let metadata: BTreeMap<_, _> = header.metadata().clone().into_iter().flatten().collect();
        let entry = |key: &str| {
            let missing = || damaged(format!("there is no {key}"));
            metadata.get(key).ok_or_else(missing)
        };
        let format = entry("format")?;
        if format != FORMAT {
            let problem = format!("has format {format:?}, this program reads {FORMAT:?}");
            return Err(Error::data(path, problem));
        }
        let views: BTreeMap<_, _> = file.tensors().into_iter().collect();
        let (stated, found) = (entry(CHECKSUM)?, checksum(&metadata, &views));
        if *stated != found {
            let problem = format!("its checksum is {stated}, its content's {found}");
            return Err(damaged(problem));
        }
        let mut states: BTreeMap<_, _> = views.into_iter().map(owned).collect();
        let progress = states.remove(PROGRESS).and_then(|p| p.values());
        let Some([loss_sum, correct, samples, seconds, top5 @ ..]) = progress.as_deref() else {
            return Err(damaged(format!("{PROGRESS} is less than four numbers")));
        };
        let number = |key| {
            let text = entry(key)?;
            let wrong = || damaged(format!("{key} is {text:?}"));
            text.parse::<usize>().map_err(|_| wrong())
        };
        let steps = entry("steps")?;
        let skipped = metadata.get("skipped").map_or("0", String::as_str);
        let skipped = skipped.parse();
        let skipped = skipped.map_err(|_| damaged("skipped is no number".into()))?;
        Ok(Self {
            position: Position {
                epoch: number("epoch")?,
                images: number("images")?,
                steps: u32::from_str(steps).map_err(|_| damaged(format!("steps is {steps:?}")))?,
                metrics: Metrics {
                    loss_sum: *loss_sum,
                    correct: *correct,
                    // Earlier versions did not count it.
                    top5: top5.first().copied().unwrap_or(0.0),
                    samples: *samples,
                    not_finite: false,
                },
                seconds: *seconds,
                skipped,
            },
            epoch_images: number("epoch_images")?,
            device: entry("device")?.clone(),
            history: from_csv(entry("history")?, path)?,
            states,
        })
    }
}

fn owned((name, view): (String, TensorView<'_>)) -> (String, State) {
    let state = State {
        dtype: view.dtype(),
        bytes: view.data().to_vec(),
    };
    (name, state)
}

/// CRC-32 of the metadata but its checksum, and of the tensors. Lengths go before what
/// varies in length, so that no byte can move from one to the next unseen.
fn checksum(
    metadata: &BTreeMap<String, String>,
    tensors: &BTreeMap<String, TensorView<'_>>,
) -> String {
    let mut crc = crc32fast::Hasher::new();
    let mut add = |bytes: &[u8]| {
        crc.update(&(bytes.len() as u64).to_le_bytes());
        crc.update(bytes);
    };
    for (key, value) in metadata.iter().filter(|(key, _)| *key != CHECKSUM) {
        add(key.as_bytes());
        add(value.as_bytes());
    }
    for (name, tensor) in tensors {
        add(name.as_bytes());
        add(tensor.dtype().to_string().as_bytes());
        add(tensor.data());
    }
    format!("{:08x}", crc.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            position: Position {
                epoch: 3,
                images: 320,
                steps: 1234,
                metrics: Metrics {
                    // No short decimal number, and no f32.
                    loss_sum: 0.1 + 0.2,
                    correct: 7.0,
                    top5: 130.0,
                    samples: 320.0,
                    not_finite: false,
                },
                seconds: 1.0 / 3.0,
                skipped: 5,
            },
            epoch_images: 1000,
            device: "\"some\" device,\nof two lines".into(),
            history: vec![HistoryRow {
                epoch: 2,
                images: 1000,
                loss: 1.0 / 3.0,
                accuracy: 0.1,
                val_loss: None,
                val_accuracy: Some(2.0 / 3.0),
                val_top5: Some(0.9),
                learning_rate: 0.1 / 3.0,
                seconds: 0.7,
                images_per_s: 1e5 / 7.0,
            }],
            states: BTreeMap::from([
                (
                    "parameters".into(),
                    State::new(&[1.5, -0.0, f64::from(f32::MIN_POSITIVE)]),
                ),
                ("optimizer.m".into(), State::new(&[0.1, 0.2])),
            ]),
        }
    }

    fn refused(path: &Path) -> String {
        Checkpoint::load(path).unwrap_err().to_string()
    }

    #[test]
    fn everything_survives_a_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let written = checkpoint();
        written.save(&path).unwrap();
        let read = Checkpoint::load(&path).unwrap();
        assert_eq!(read, written);
        assert_eq!(read.states["parameters"].dtype, Dtype::F32);
        assert_eq!(read.states["optimizer.m"].dtype, Dtype::F64);
        let m = read.state("optimizer.m", &TensorType::f32([2])).unwrap();
        assert_eq!(m.f(), [0.1, 0.2]);
        let wrong = read.state("optimizer.m", &TensorType::f32([3]));
        assert!(wrong.unwrap_err().to_string().contains("optimizer.m"));
        assert!(read.state("optimizer.v", &TensorType::f32([2])).is_err());
    }

    #[test]
    fn a_file_cut_short_anywhere_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        checkpoint().save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = refused(&path);
            assert!(error.contains("is damaged"), "{length}: {error}");
        }
    }

    #[test]
    fn no_flipped_bit_passes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let written = checkpoint();
        written.save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&path, &flipped).unwrap();
            // JSON has more than one spelling of the same; any other content is refused.
            if let Ok(read) = Checkpoint::load(&path) {
                assert_eq!(read, written, "byte {at}");
            }
        }
    }

    #[test]
    fn another_version_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        checkpoint().save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes
            .windows(FORMAT.len())
            .position(|w| w == FORMAT.as_bytes());
        let mut newer = bytes.clone();
        newer[at.unwrap() + FORMAT.len() - 1] = b'9';
        std::fs::write(&path, &newer).unwrap();
        let error = refused(&path);
        assert!(
            error.contains("gpucnn-checkpoint-9") && error.contains(FORMAT),
            "{error}"
        );
    }
}
