//! Where a data set lies, and what to say where there is none.

use super::{cifar, emnist, idx};
use crate::error::{Error, Result};
use std::path::{Component, Path, PathBuf};

/// A folder or file that holds a data set.
pub(super) struct Place {
    pub path: PathBuf,
    /// One of the set's labelings or splits, such as `letters`.
    pub part: Option<String>,
}

/// A file that is a data set by itself.
pub(super) enum FileKind {
    Npz,
    Table,
}

/// The kind of a file, by its extension.
pub(super) fn kind(path: &Path) -> Option<FileKind> {
    let extension = path.extension()?.to_string_lossy().to_lowercase();
    match extension.as_str() {
        "npz" => Some(FileKind::Npz),
        "csv" => Some(FileKind::Table),
        _ => None,
    }
}

/// The place of a data set: a path, or a name in the `datasets` folder beside the working
/// directory, the program or its sources; with one of its parts behind it or not.
pub(super) fn find(name: &str) -> Result<Place> {
    let direct = Path::new(name);
    if let Some(place) = at(direct) {
        return Ok(place);
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
    let mut components = direct.components();
    let plain = components.all(|c| matches!(c, Component::Normal(_)));
    let found = roots.iter().find_map(|root| at(&root.join(direct)));
    match found {
        Some(place) if plain && !name.is_empty() => Ok(place),
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

/// What is at a path: a folder or file, or a part of the folder above it.
fn at(path: &Path) -> Option<Place> {
    if path.is_dir() || path.is_file() {
        let (path, part) = (path.to_owned(), None);
        return Some(Place { path, part });
    }
    let part = path.file_name()?.to_str()?;
    let parent = path.parent().filter(|p| p.is_dir())?;
    let cifar = cifar::PARTS.contains(&part) && cifar::folder_of_100(parent).is_some();
    let emnist = emnist::PARTS.contains(&part) && emnist::find(parent).is_some();
    (cifar || emnist).then(|| Place {
        path: parent.to_owned(),
        part: Some(part.to_owned()),
    })
}

pub(super) const FASHION: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

pub(super) const KMNIST: [&str; 10] = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"];

/// The classes of the sets that have MNIST's file names, known by the name of the folder or
/// file.
pub(super) fn known_classes(path: &Path) -> Option<&'static [&'static str]> {
    let name = path.canonicalize().ok()?;
    let name = name.file_name()?.to_string_lossy().to_lowercase();
    match () {
        () if name.contains("fashion") => Some(&FASHION),
        () if name.contains("kmnist") || name.contains("kuzushiji") => Some(&KMNIST),
        () => None,
    }
}

const WHAT_IS_KNOWN: &str = "`gpucnn data fetch NAME` downloads mnist, fashion-mnist, kmnist, \
    emnist, cifar10 and cifar100. Or give --data a folder that holds one of: \
    CIFAR-10's binary files (data_batch_1.bin to data_batch_5.bin and test_batch.bin, from \
    the \"CIFAR-10 binary version\" at https://www.cs.toronto.edu/~kriz/cifar.html, unpacked), \
    or CIFAR-100's; MNIST-like IDX files (train-images-idx3-ubyte and so on, plain or .gz); \
    PNG or JPEG images in train/<class>/ and test/<class>/; \
    train.csv and test.csv with a path and a label a row; \
    or a .npz with x_train, y_train, x_test and y_test";

/// The error for a file that is no data set.
pub(super) fn not_a_set(path: &Path) -> Error {
    Error::data(
        path,
        "is a file; --data takes the folder that holds the data set's files, or a .npz or .csv",
    )
}

/// The error for a folder in which nothing is recognised.
pub(super) fn nothing_in(dir: &Path) -> Error {
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
