//! Folders of images: `train/<class>/*.png`, `test/<class>/*.jpg`; or classes alone.

use super::{Dataset, Split, image};
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

const TEST_NAMES: [&str; 4] = ["test", "val", "valid", "validation"];
const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// The files of a split, by class.
struct Listing {
    classes: Vec<String>,
    files: Vec<(PathBuf, u32)>,
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

pub(super) fn load(
    dir: &Path,
    shape: Option<[usize; 3]>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Dataset> {
    let train = list(&training_root(dir), None)?;
    let test = TEST_NAMES.iter().map(|n| dir.join(n)).find(|d| d.is_dir());
    let test = test.map(|d| list(&d, Some(&train.classes))).transpose()?;
    let shape = match shape {
        Some(shape) => shape,
        None => shape_of(&train.files[0].0)?,
    };
    let test_files = test.as_ref().map_or(&[][..], |t| &t.files);
    let total = train.files.len() + test_files.len();
    let done = AtomicUsize::new(0);
    let read = |files: &[(PathBuf, u32)]| read_all(files, shape, &done, total, progress);
    let mut notes = Vec::new();
    let skipped = train.skipped + test.as_ref().map_or(0, |t| t.skipped);
    if skipped > 0 {
        notes.push(format!(
            "{skipped} files that are no PNG or JPEG were skipped"
        ));
    }
    Ok(Dataset {
        name: String::new(),
        shape,
        train: read(&train.files)?,
        test: test.as_ref().map(|t| read(&t.files)).transpose()?,
        classes: train.classes,
        notes,
    })
}

/// The shape of a set whose model is not known: its first image's.
fn shape_of(path: &Path) -> Result<[usize; 3]> {
    let first = image::decode(path)?;
    let channels = if first.color().has_color() { 3 } else { 1 };
    Ok([channels, first.height() as usize, first.width() as usize])
}

fn read_all(
    files: &[(PathBuf, u32)],
    shape: [usize; 3],
    done: &AtomicUsize,
    total: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Split> {
    let decoded: Vec<Vec<u8>> = files
        .par_iter()
        .map(|(path, _)| {
            let pixels = image::load(path, shape)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            Ok(pixels)
        })
        .collect::<Result<_>>()?;
    Ok(Split {
        images: decoded.concat().into(),
        labels: files.iter().map(|(_, label)| *label).collect(),
    })
}

/// The image files of all class folders: within a class by name, the classes in turn, each
/// as often as its share, so that any part of the list is a fair sample. `expected` are the
/// classes that training has; others cannot be tested.
fn list(root: &Path, expected: Option<&[String]>) -> Result<Listing> {
    let mut listing = Listing {
        classes: expected.unwrap_or_default().to_vec(),
        files: Vec::new(),
        skipped: 0,
    };
    // Each file's place between 0 and 1 in its class, with the class.
    let mut places: Vec<(f64, u32, PathBuf)> = Vec::new();
    for folder in subfolders(root)? {
        let name = file_name(&folder);
        if expected.is_none() {
            listing.classes.push(name.clone());
        }
        let Some(label) = listing.classes.iter().position(|c| *c == name) else {
            let known = listing.classes.join(", ");
            let problem = format!("class {name:?} is not among the training classes ({known})");
            return Err(Error::data(folder, problem));
        };
        let (images, others): (Vec<_>, Vec<_>) = entries(&folder)?
            .into_iter()
            .partition(|path| is_image(path));
        let hidden = |path: &&PathBuf| file_name(path).starts_with('.');
        listing.skipped += others.iter().filter(|path| !hidden(path)).count();
        let count = images.len() as f64;
        let placed = images.into_iter().enumerate();
        places.extend(placed.map(|(i, path)| ((i as f64 + 0.5) / count, label as u32, path)));
    }
    places.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let files = places.into_iter().map(|(_, label, path)| (path, label));
    listing.files = files.collect();
    if listing.files.is_empty() {
        let problem = "holds no PNG or JPEG image in any class folder";
        return Err(Error::data(root, problem));
    }
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
