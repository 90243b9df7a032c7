//! CIFAR-10's and CIFAR-100's binary files (Krizhevsky 2009,
//! <https://www.cs.toronto.edu/~kriz/cifar.html>): records of one label byte, or of a coarse
//! and a fine one, and 3072 bytes of planar RGB.

use super::{Dataset, Split};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

const SHAPE: [usize; 3] = [3, 32, 32];
const IMAGE: usize = 3 * 32 * 32;
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

/// The labelings of CIFAR-100.
pub(super) const PARTS: [&str; 2] = ["coarse", "fine"];

/// The folder that holds CIFAR-10's files: this one, or the one the archive unpacks to.
pub(super) fn folder(dir: &Path) -> Option<PathBuf> {
    [dir.to_owned(), dir.join("cifar-10-batches-bin")]
        .into_iter()
        .find(|d| !training_files(d).is_empty() || d.join("test_batch.bin").is_file())
}

/// The folder that holds CIFAR-100's files.
pub(super) fn folder_of_100(dir: &Path) -> Option<PathBuf> {
    [dir.to_owned(), dir.join("cifar-100-binary")]
        .into_iter()
        .find(|d| d.join("train.bin").is_file())
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
    let labels = Labels::OF_10;
    let names = names(&dir.join("batches.meta.txt"), labels.classes);
    Ok(Dataset {
        name: String::new(),
        shape: SHAPE,
        classes: names.unwrap_or_else(|| CLASSES.map(str::to_owned).to_vec()),
        train: labels.read(&files)?,
        test: test.is_file().then(|| labels.read(&[test])).transpose()?,
        notes,
    })
}

/// CIFAR-100 with its `fine` labels, or the `coarse` ones.
pub(super) fn load_100(dir: &Path, part: Option<&str>) -> Result<Dataset> {
    let (labels, list) = match part {
        Some("coarse") => (Labels::COARSE, "coarse_label_names.txt"),
        _ => (Labels::FINE, "fine_label_names.txt"),
    };
    let numbers = || (0..labels.classes).map(|c| c.to_string()).collect();
    let test = dir.join("test.bin");
    Ok(Dataset {
        name: String::new(),
        shape: SHAPE,
        classes: names(&dir.join(list), labels.classes).unwrap_or_else(numbers),
        train: labels.read(&[dir.join("train.bin")])?,
        test: test.is_file().then(|| labels.read(&[test])).transpose()?,
        notes: Vec::new(),
    })
}

/// The names in a list beside the data, where it has one for each class.
fn names(list: &Path, classes: usize) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(list).ok()?;
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let names: Vec<String> = lines.map(str::to_owned).collect();
    (names.len() == classes).then_some(names)
}

/// Where a record has its label.
#[derive(Clone, Copy)]
struct Labels {
    set: &'static str,
    /// Label bytes before an image.
    bytes: usize,
    /// Which of them.
    at: usize,
    classes: usize,
}

impl Labels {
    const OF_10: Self = Self {
        set: "CIFAR-10",
        bytes: 1,
        at: 0,
        classes: 10,
    };
    const COARSE: Self = Self {
        set: "CIFAR-100",
        bytes: 2,
        at: 0,
        classes: 20,
    };
    const FINE: Self = Self {
        set: "CIFAR-100",
        bytes: 2,
        at: 1,
        classes: 100,
    };

    fn read(self, files: &[PathBuf]) -> Result<Split> {
        let record = self.bytes + IMAGE;
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        for path in files {
            let data = super::read(path)?;
            if data.is_empty() || data.len() % record != 0 {
                return Err(Error::data(
                    path,
                    format!(
                        "has {} bytes; a {} file is records of {record} bytes ({}, then 3 planes \
                         of 32 by 32), so it is truncated or something else",
                        data.len(),
                        self.set,
                        ["a label", "two labels"][self.bytes - 1],
                    ),
                ));
            }
            for (i, record) in data.chunks_exact(record).enumerate() {
                let label = record[self.at];
                if usize::from(label) >= self.classes {
                    let last = self.classes - 1;
                    let problem = format!("record {i} has label {label}, expected 0 to {last}");
                    return Err(Error::data(path, problem));
                }
                labels.push(u32::from(label));
                images.extend_from_slice(&record[self.bytes..]);
            }
        }
        Ok(Split::new(images, labels))
    }
}
