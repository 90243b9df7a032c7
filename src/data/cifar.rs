//! CIFAR-10's binary files (Krizhevsky 2009, <https://www.cs.toronto.edu/~kriz/cifar.html>):
//! records of a label byte and 3072 bytes of planar RGB.

use super::{Dataset, Split};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

const SHAPE: [usize; 3] = [3, 32, 32];
const IMAGE: usize = 3 * 32 * 32;
const RECORD: usize = 1 + IMAGE;
const CLASSES: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

/// The folder that holds the files: this one, or the one the archive unpacks to.
pub(super) fn folder(dir: &Path) -> Option<PathBuf> {
    [dir.to_owned(), dir.join("cifar-10-batches-bin")]
        .into_iter()
        .find(|d| !training_files(d).is_empty() || d.join("test_batch.bin").is_file())
}

fn training_files(dir: &Path) -> Vec<PathBuf> {
    let name = |i: usize| dir.join(format!("data_batch_{i}.bin"));
    (1..=5).map(name).filter(|p| p.is_file()).collect()
}

pub(super) fn load(dir: &Path) -> Result<Dataset> {
    let files = training_files(dir);
    if files.is_empty() {
        return Err(Error::data(
            dir,
            "there is a test_batch.bin but no data_batch_1.bin to data_batch_5.bin to train on",
        ));
    }
    let mut notes = Vec::new();
    if files.len() < 5 {
        notes.push(format!(
            "{} of CIFAR-10's 5 training files found",
            files.len()
        ));
    }
    let test = dir.join("test_batch.bin");
    Ok(Dataset {
        name: String::new(),
        shape: SHAPE,
        classes: class_names(dir),
        train: read_all(&files)?,
        test: test.is_file().then(|| read_all(&[test])).transpose()?,
        notes,
    })
}

fn class_names(dir: &Path) -> Vec<String> {
    let listed = std::fs::read_to_string(dir.join("batches.meta.txt")).unwrap_or_default();
    let names: Vec<String> = listed
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(str::to_owned)
        .collect();
    if names.len() == CLASSES.len() {
        names
    } else {
        CLASSES.map(str::to_owned).to_vec()
    }
}

fn read_all(files: &[PathBuf]) -> Result<Split> {
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for path in files {
        let data = super::read(path)?;
        if data.is_empty() || data.len() % RECORD != 0 {
            return Err(Error::data(
                path,
                format!(
                    "has {} bytes; a CIFAR-10 file is records of {RECORD} bytes (a label, then \
                     3 planes of 32 by 32), so it is truncated or something else",
                    data.len()
                ),
            ));
        }
        for (i, record) in data.chunks_exact(RECORD).enumerate() {
            if usize::from(record[0]) >= CLASSES.len() {
                let problem = format!("record {i} has label {}, expected 0 to 9", record[0]);
                return Err(Error::data(path, problem));
            }
            labels.push(u32::from(record[0]));
            images.extend_from_slice(&record[1..]);
        }
    }
    Ok(Split {
        images: images.into(),
        labels,
    })
}
