//! Data sets: IDX files as MNIST has them, CIFAR's binary files, NumPy's archives, lists and
//! folders of images.

mod cifar;
mod emnist;
#[cfg(feature = "fetch")]
pub mod fetch;
mod folder;
mod idx;
pub mod image;
mod images;
mod info;
mod listing;
mod locate;
mod moments;
mod npz;
mod sheet;
mod table;

pub use images::Images;
pub use info::{ClassCount, Info, contact_sheet};
pub use moments::Moments;
pub use sheet::Sheet;

use crate::error::{Error, Result};
use locate::{FileKind, Place};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// Images with their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// The images.
    pub images: Images,
    /// The class of each image.
    pub labels: Vec<u32>,
}

impl Split {
    /// Images in memory, bytes [N, C, H, W], with a label each.
    ///
    /// # Panics
    /// If the bytes are no images of one size, as many as labels.
    pub fn new(images: Vec<u8>, labels: Vec<u32>) -> Self {
        Self {
            images: Images::new(images, labels.len()),
            labels,
        }
    }

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
        Self {
            images: self.images.part(range.clone()),
            labels: self.labels[range].to_vec(),
        }
    }

    /// The images at these places, in memory.
    ///
    /// # Errors
    /// If an image file cannot be decoded.
    ///
    /// # Panics
    /// If there are not so many images.
    pub fn gather(&self, places: &[usize]) -> Result<Self> {
        let labels = places.iter().map(|place| self.labels[*place]).collect();
        Ok(Self::new(self.images.gather(places)?, labels))
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

/// A data set.
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
    /// A known name (`mnist`), a folder, or a `.npz` or `.csv` file. `/coarse` behind CIFAR-100
    /// or `/letters` behind EMNIST chooses one of its labelings.
    pub name: &'a str,
    /// The shape image files are brought to; other formats have their own.
    pub shape: Option<[usize; 3]>,
    /// Bytes of pixels of image files that are kept in memory: where there are more, files are
    /// decoded each time their images are needed. `None` for half of what the host has free.
    pub host_budget: Option<u64>,
    /// Called with files done and files in all while a folder of images loads.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

impl<'a> Request<'a> {
    /// The data set as it is stored, silently.
    pub fn new(name: &'a str) -> Self {
        Self {
            name,
            shape: None,
            host_budget: None,
            progress: &|_, _| {},
        }
    }

    /// Loads the data set.
    ///
    /// # Errors
    /// Whatever is wrong with the files, by name; where there are none, what to put where.
    pub fn load(&self) -> Result<Dataset> {
        let place = locate::find(self.name)?;
        let dir = place.path.as_path();
        let mut dataset = self.read(&place)?;
        dataset.name = self.name.to_owned();
        dataset.check(dir)?;
        dataset.name_classes(dir)?;
        Ok(dataset)
    }

    /// Reads whichever format there is.
    fn read(&self, place: &Place) -> Result<Dataset> {
        let dir = place.path.as_path();
        let part = place.part.as_deref();
        if dir.is_file() {
            return match locate::kind(dir) {
                Some(FileKind::Npz) => npz::load(dir, self.shape),
                Some(FileKind::Table) => table::load(&[dir], self),
                None => Err(locate::not_a_set(dir)),
            };
        }
        if idx::is_here(dir, &idx::MNIST) {
            return idx::load(dir, &idx::MNIST);
        }
        if let Some(files) = emnist::find(dir) {
            return files.load(part);
        }
        if let Some(dir) = cifar::folder(dir) {
            return cifar::load(&dir);
        }
        if let Some(dir) = cifar::folder_of_100(dir) {
            return cifar::load_100(&dir, part);
        }
        if let Some(file) = npz::find(dir)? {
            return npz::load(&file, self.shape);
        }
        let tables = table::find(dir);
        if !tables.is_empty() {
            let tables: Vec<&Path> = tables.iter().map(AsRef::as_ref).collect();
            return table::load(&tables, self);
        }
        if folder::is_here(dir) {
            return folder::load(dir, self);
        }
        Err(locate::nothing_in(dir))
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
            train: Split::new(
                (0..pixels).map(|_| draw.random()).collect(),
                (0..len)
                    .map(|_| draw.random_range(0..classes as u32))
                    .collect(),
            ),
            test: None,
            notes: Vec::new(),
        }
    }

    /// Takes the names of the classes from `classes.txt` beside the files, a line each, or
    /// from what the folder's name says the set is.
    fn name_classes(&mut self, path: &Path) -> Result<()> {
        let numbered = |(i, name): (usize, &String)| *name == i.to_string();
        if !self.classes.iter().enumerate().all(numbered) {
            return Ok(());
        }
        let folder = if path.is_dir() {
            Some(path)
        } else {
            path.parent()
        };
        let list = folder.unwrap_or(Path::new("")).join("classes.txt");
        if list.is_file() {
            let text = std::fs::read_to_string(&list).map_err(|e| Error::io(&list, "read", e))?;
            let names: Vec<String> = text.lines().map(|l| l.trim().to_owned()).collect();
            if names.len() < self.classes.len() || names.iter().any(String::is_empty) {
                let problem = format!(
                    "has {} lines; expected a name a line for each of the {} classes",
                    names.len(),
                    self.classes.len()
                );
                return Err(Error::data(list, problem));
            }
            self.classes = names;
        } else if let Some(names) = locate::known_classes(path)
            && names.len() == self.classes.len()
        {
            self.classes = names.iter().map(|n| (*n).to_owned()).collect();
        }
        Ok(())
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

/// The first few names of a list, for an error.
fn some_of(names: &[String]) -> String {
    match names.len() {
        n if n > 8 => format!("{}, … ({n} in all)", names[..8].join(", ")),
        _ => names.join(", "),
    }
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
        assert_eq!((data.train.len(), data.train.images.size()), (33, 60));
        data.check(Path::new("synthetic")).unwrap();
        assert!(data.train.labels.iter().max() > data.train.labels.iter().min());
    }
}
