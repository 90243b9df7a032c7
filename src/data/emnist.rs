//! EMNIST (Cohen et al. 2017, <https://www.nist.gov/itl/products-and-services/emnist-dataset>):
//! IDX files of six splits, whose images are stored with rows and columns exchanged.

use super::{Dataset, Images, Split, idx};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The splits of EMNIST.
pub(super) const PARTS: [&str; 6] = [
    "byclass", "bymerge", "balanced", "letters", "digits", "mnist",
];

/// The letters whose lower case is a class of its own in `bymerge` and `balanced`.
const OWN_LOWER_CASE: &str = "abdefghnqrt";

/// The splits that a folder holds.
pub(super) struct Files {
    dir: PathBuf,
    parts: Vec<&'static str>,
}

/// The files in a folder, in the one the archive unpacks to, or in torchvision's.
pub(super) fn find(dir: &Path) -> Option<Files> {
    ["", "gzip", "raw"].iter().find_map(|below| {
        let dir = if below.is_empty() {
            dir.to_owned()
        } else {
            dir.join(below)
        };
        let here = |part: &&str| idx::is_here(&dir, &names(part, &prefixes(part)));
        let parts: Vec<_> = PARTS.into_iter().filter(here).collect();
        (!parts.is_empty()).then_some(Files { dir, parts })
    })
}

fn prefixes(part: &str) -> [String; 2] {
    ["train", "test"].map(|half| format!("emnist-{part}-{half}"))
}

fn names<'a>(part: &str, [train, test]: &'a [String; 2]) -> idx::Names<'a> {
    // The letters' labels count from 1.
    let first_label = u8::from(part == "letters");
    idx::Names {
        train,
        test,
        first_label,
    }
}

impl Files {
    /// The split of a name, or the only one.
    pub(super) fn load(&self, part: Option<&str>) -> Result<Dataset> {
        let part = match part.or((self.parts.len() == 1).then(|| self.parts[0])) {
            Some(part) if self.parts.contains(&part) => part,
            Some(part) => {
                let problem = format!("has no split {part:?}; there is {}", self.parts.join(", "));
                return Err(Error::data(&self.dir, problem));
            }
            None => {
                let example = self.dir.join(self.parts[0]);
                let problem = format!(
                    "holds the EMNIST splits {}; name one, as in --data {}",
                    self.parts.join(", "),
                    example.display()
                );
                return Err(Error::data(&self.dir, problem));
            }
        };
        let prefixes = prefixes(part);
        let mut set = idx::load(&self.dir, &names(part, &prefixes))?;
        upright(&mut set.train, set.shape)?;
        if let Some(test) = &mut set.test {
            upright(test, set.shape)?;
        }
        let [_, rows, columns] = set.shape;
        set.shape = [1, columns, rows];
        let classes = classes(part);
        if set.classes.len() > classes.len() {
            let problem = format!(
                "split {part} has {} classes, but there is a label {}",
                classes.len(),
                set.classes.len() - 1
            );
            return Err(Error::data(&self.dir, problem));
        }
        set.classes = classes;
        Ok(set)
    }
}

/// The characters of a split's classes, by label.
fn classes(part: &str) -> Vec<String> {
    let (upper, lower) = ('A'..='Z', 'a'..='z');
    let merged = |c: &char| OWN_LOWER_CASE.contains(*c);
    let characters: Vec<char> = match part {
        "letters" => lower.collect(),
        "byclass" => ('0'..='9').chain(upper).chain(lower).collect(),
        "bymerge" | "balanced" => ('0'..='9')
            .chain(upper)
            .chain(lower.filter(merged))
            .collect(),
        _ => ('0'..='9').collect(),
    };
    characters.into_iter().map(String::from).collect()
}

/// Exchanges the rows and columns of every image.
fn upright(split: &mut Split, [_, rows, columns]: [usize; 3]) -> Result<()> {
    let stored = split.images.all()?;
    let mut turned = vec![0; stored.len()];
    let size = rows * columns;
    for (from, to) in stored.chunks_exact(size).zip(turned.chunks_exact_mut(size)) {
        for (i, pixel) in to.iter_mut().enumerate() {
            *pixel = from[i % rows * columns + i / rows];
        }
    }
    split.images = Images::new(turned, split.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_splits_have_as_many_classes_as_the_paper_says() {
        let counts = PARTS.map(|part| classes(part).len());
        assert_eq!(counts, [62, 47, 47, 26, 10, 10]);
    }

    #[test]
    fn images_that_are_not_square_are_turned_too() {
        let mut split = Split::new((0..6).collect(), vec![0]);
        // Stored as two rows of three, which are the columns of the image.
        upright(&mut split, [1, 2, 3]).unwrap();
        assert_eq!(*split.images.all().unwrap(), [0, 3, 1, 4, 2, 5]);
    }
}
