//! Data sets: MNIST's IDX files, CIFAR-10's binary files, folders of images.

mod cifar;
mod folder;
mod idx;
pub mod image;
mod moments;

pub use moments::Moments;

use crate::error::{Error, Result};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Images as bytes, with their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Pixels, [N, C, H, W].
    pub images: Arc<[u8]>,
    /// The class of each image.
    pub labels: Vec<u32>,
}

impl Split {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Images `range` only.
    fn part(&self, range: std::ops::Range<usize>) -> Self {
        let bytes = self.images.len() / self.len().max(1);
        Self {
            images: self.images[range.start * bytes..range.end * bytes].into(),
            labels: self.labels[range].to_vec(),
        }
    }

    /// The first `count` images.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        self.part(0..count.min(self.len()))
    }

    /// Cuts off the last `fraction` (rounded down to whole images): what Keras's
    /// `validation_split` sets aside. Returns the first part and the last.
    ///
    /// # Errors
    /// If either part would be empty.
    pub fn cut(&self, fraction: f64) -> Result<[Self; 2]> {
        let kept = (self.len() as f64 * (1.0 - fraction)).floor() as usize;
        if kept == 0 || kept >= self.len() {
            return Err(Error::Usage(format!(
                "--val-split {fraction} of {} images leaves nothing to {}",
                self.len(),
                if kept == 0 { "train on" } else { "validate on" }
            )));
        }
        Ok([self.part(0..kept), self.part(kept..self.len())])
    }
}

/// A data set in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Its name or folder.
    pub name: String,
    /// Channels, rows and columns of every image.
    pub shape: [usize; 3],
    /// Names of the classes, by label.
    pub classes: Vec<String>,
    /// Images to train on.
    pub train: Split,
    /// Images to test on, where the set has them.
    pub test: Option<Split>,
    /// What the user should know of the loading: skipped files and the like.
    pub notes: Vec<String>,
}

/// What is to be loaded.
pub struct Request<'a> {
    /// A known name (`mnist`) or a folder.
    pub name: &'a str,
    /// The shape image folders are brought to; other formats have their own.
    pub shape: Option<[usize; 3]>,
    /// Called with files done and files in all while a folder of images loads.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

impl<'a> Request<'a> {
    /// The data set as it is stored, silently.
    pub fn new(name: &'a str) -> Self {
        Self {
            name,
            shape: None,
            progress: &|_, _| {},
        }
    }

    /// Loads the data set.
    ///
    /// # Errors
    /// Whatever is wrong with the files, by name; where there are none, what to put where.
    pub fn load(&self) -> Result<Dataset> {
        let dir = find(self.name)?;
        let mut dataset = if idx::is_here(&dir) {
            idx::load(&dir)?
        } else if let Some(dir) = cifar::folder(&dir) {
            cifar::load(&dir)?
        } else if folder::is_here(&dir) {
            folder::load(&dir, self.shape, self.progress)?
        } else {
            return Err(nothing_in(&dir));
        };
        dataset.name = self.name.to_owned();
        dataset.check(&dir)?;
        Ok(dataset)
    }
}

impl Dataset {
    /// `len` training images of random bytes with random labels below `classes`, always
    /// the same ones: for measuring without a data set.
    pub fn synthetic(shape: [usize; 3], classes: usize, len: usize) -> Self {
        let mut draw = ChaCha8Rng::seed_from_u64(0);
        let pixels = len * shape.iter().product::<usize>();
        Self {
            name: "synthetic".into(),
            shape,
            classes: (0..classes).map(|i| i.to_string()).collect(),
            train: Split {
                images: (0..pixels).map(|_| draw.random()).collect(),
                labels: (0..len)
                    .map(|_| draw.random_range(0..classes as u32))
                    .collect(),
            },
            test: None,
            notes: Vec::new(),
        }
    }

    fn check(&self, dir: &Path) -> Result<()> {
        if self.train.is_empty() {
            return Err(Error::data(dir, "there is no training image"));
        }
        let classes = self.classes.len() as u32;
        let splits = [Some(&self.train), self.test.as_ref()];
        for split in splits.into_iter().flatten() {
            if let Some(at) = split.labels.iter().position(|l| *l >= classes) {
                return Err(Error::data(
                    dir,
                    format!(
                        "image {at} has label {}, but there are {classes} classes (0 to {})",
                        split.labels[at],
                        classes - 1
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// The folder of a data set: a folder by that path, or by that name in the
/// `datasets` folder beside the working directory, the program or its sources.
fn find(name: &str) -> Result<PathBuf> {
    let direct = PathBuf::from(name);
    if direct.is_dir() {
        return Ok(direct);
    }
    if direct.is_file() {
        return Err(Error::data(
            direct,
            "is a file; --data takes the folder that holds the data set's files",
        ));
    }
    let mut roots = Vec::new();
    if let Some(set) = std::env::var_os("GPUCNN_DATASETS") {
        roots.push(PathBuf::from(set));
    }
    if let Ok(here) = std::env::current_dir() {
        roots.push(here.join("datasets"));
    }
    if let Ok(program) = std::env::current_exe() {
        roots.extend(program.ancestors().skip(1).map(|a| a.join("datasets")));
    }
    let plain = Path::new(name).components().count() == 1;
    let found = roots.iter().map(|r| r.join(name)).find(|p| p.is_dir());
    match found {
        Some(dir) if plain => Ok(dir),
        _ => Err(Error::data(
            name,
            format!(
                "no such folder or data set. {}",
                if name == "mnist" {
                    idx::WHAT_TO_PUT
                } else {
                    WHAT_IS_KNOWN
                }
            ),
        )),
    }
}

const WHAT_IS_KNOWN: &str = "Give --data a folder that holds one of: \
    CIFAR-10's binary files (data_batch_1.bin to data_batch_5.bin and test_batch.bin, from \
    the \"CIFAR-10 binary version\" at https://www.cs.toronto.edu/~kriz/cifar.html, unpacked); \
    MNIST-like IDX files (train-images-idx3-ubyte and so on, plain or .gz); \
    or PNG or JPEG images in train/<class>/ and test/<class>/";

fn nothing_in(dir: &Path) -> Error {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .map(|entries| {
            let entries = entries.filter_map(Result::ok);
            let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
            names.collect()
        })
        .unwrap_or_default();
    names.sort();
    let found = match names.len() {
        0 => "it is empty".to_owned(),
        n if n > 5 => format!("it holds {}, … ({n} in all)", names[..5].join(", ")),
        _ => format!("it holds {}", names.join(", ")),
    };
    Error::data(
        dir,
        format!("no data set recognised: {found}. {WHAT_IS_KNOWN}"),
    )
}

/// Reads a file, naming it in the error.
fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io(path, "read", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthetic_data_is_whole_legal_and_always_the_same() {
        let made = || Dataset::synthetic([3, 5, 4], 7, 33);
        let data = made();
        assert_eq!(data, made());
        assert_eq!((data.train.len(), data.train.images.len()), (33, 33 * 60));
        data.check(Path::new("synthetic")).unwrap();
        assert!(data.train.labels.iter().max() > data.train.labels.iter().min());
    }
}
