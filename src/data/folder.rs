//! Folders of images: `train/<class>/*.png`, `test/<class>/*.jpg`; or classes alone.

use super::listing::{self, Decoder, Entry};
use super::{Dataset, Request};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const TEST_NAMES: [&str; 4] = ["test", "val", "valid", "validation"];
const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// The files of a split, by class.
struct Listing {
    classes: Vec<String>,
    files: Vec<Entry>,
    skipped: usize,
}

pub(super) fn is_here(dir: &Path) -> bool {
    let root = training_root(dir);
    subfolders(&root).is_ok_and(|classes| {
        classes.iter().any(|class| {
            let files = entries(class).unwrap_or_default();
            files.iter().any(|f| is_image(f))
        })
    })
}

fn training_root(dir: &Path) -> PathBuf {
    let train = dir.join("train");
    if train.is_dir() {
        train
    } else {
        dir.to_owned()
    }
}

pub(super) fn load(dir: &Path, request: &Request<'_>) -> Result<Dataset> {
    let train = list(&training_root(dir), None)?;
    let test = TEST_NAMES.iter().map(|n| dir.join(n)).find(|d| d.is_dir());
    let test = test.map(|d| list(&d, Some(&train.classes))).transpose()?;
    let shape = match request.shape {
        Some(shape) => shape,
        None => listing::shape_of(&train.files[0].0)?,
    };
    let total = train.files.len() + test.as_ref().map_or(0, |t| t.files.len());
    let decoder = Decoder::new(shape, total, request);
    let mut notes: Vec<String> = decoder.note().into_iter().collect();
    let skipped = train.skipped + test.as_ref().map_or(0, |t| t.skipped);
    if skipped > 0 {
        notes.push(format!(
            "{skipped} files that are no PNG or JPEG were skipped"
        ));
    }
    Ok(Dataset {
        name: String::new(),
        shape,
        train: decoder.split(&train.files)?,
        test: test.map(|t| decoder.split(&t.files)).transpose()?,
        classes: train.classes,
        notes,
    })
}

/// The image files of all class folders, by name, the classes in turn. `expected` are the
/// classes that training has; others cannot be tested.
fn list(root: &Path, expected: Option<&[String]>) -> Result<Listing> {
    let mut listing = Listing {
        classes: expected.unwrap_or_default().to_vec(),
        files: Vec::new(),
        skipped: 0,
    };
    let known = listing.classes.iter().enumerate();
    let labels: HashMap<String, usize> = known.map(|(i, name)| (name.clone(), i)).collect();
    for folder in subfolders(root)? {
        let name = file_name(&folder);
        let label = match (expected, labels.get(&name)) {
            (None, _) => {
                listing.classes.push(name);
                listing.classes.len() - 1
            }
            (Some(_), Some(label)) => *label,
            (Some(classes), None) => {
                let problem = format!(
                    "class {name:?} is not among the training classes ({})",
                    super::some_of(classes)
                );
                return Err(Error::data(folder, problem));
            }
        };
        let (images, others): (Vec<_>, Vec<_>) = entries(&folder)?
            .into_iter()
            .partition(|path| is_image(path));
        let hidden = |path: &&PathBuf| file_name(path).starts_with('.');
        listing.skipped += others.iter().filter(|path| !hidden(path)).count();
        let labelled = images.into_iter().map(|path| (path, label as u32));
        listing.files.extend(labelled);
    }
    if listing.files.is_empty() {
        let problem = "holds no PNG or JPEG image in any class folder";
        return Err(Error::data(root, problem));
    }
    listing.files = listing::in_turn(listing.files, listing.classes.len());
    Ok(listing)
}

/// What a folder holds, sorted by name.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let fail = |e| Error::io(dir, "list", e);
    let mut paths = std::fs::read_dir(dir)
        .map_err(fail)?
        .map(|entry| entry.map(|e| e.path()).map_err(fail))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Folders (or links to folders) in a folder that are not hidden, sorted by name.
fn subfolders(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = entries(dir)?;
    folders.retain(|p| p.is_dir() && !file_name(p).starts_with('.'));
    Ok(folders)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
        && !file_name(path).starts_with('.')
        && path.is_file()
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_take_turns_by_their_share_and_files_keep_their_order() {
        let dir = tempfile::tempdir().unwrap();
        for (class, count) in [("cat", 4), ("dog", 2)] {
            let folder = dir.path().join(class);
            std::fs::create_dir(&folder).unwrap();
            for i in 0..count {
                std::fs::write(folder.join(format!("{i}.png")), []).unwrap();
            }
        }
        let listing = list(dir.path(), None).unwrap();
        let names = listing.files.iter().map(|(path, _)| file_name(path));
        let labels: Vec<_> = listing.files.iter().map(|f| f.1).collect();
        assert_eq!(labels, [0, 1, 0, 0, 1, 0]);
        let expected = ["0.png", "0.png", "1.png", "2.png", "1.png", "3.png"];
        assert_eq!(names.collect::<Vec<_>>(), expected);
    }
}
