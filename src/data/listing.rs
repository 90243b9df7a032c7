//! Images listed by path and class, and how they become a split.

use super::{Split, image};
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// An image file and its class.
pub(super) type Entry = (PathBuf, u32);

/// The entries with the classes in turn, each as often as its share, so that any part of
/// the list is a fair sample. Within a class the order stays.
pub(super) fn in_turn(entries: Vec<Entry>, classes: usize) -> Vec<Entry> {
    let mut counts = vec![0_usize; classes];
    for (_, label) in &entries {
        counts[*label as usize] += 1;
    }
    let mut seen = vec![0_usize; classes];
    // Each file's place between 0 and 1 in its class.
    let place = |(path, label): Entry| {
        let class = label as usize;
        seen[class] += 1;
        let place = (seen[class] as f64 - 0.5) / counts[class] as f64;
        (place, label, path)
    };
    let mut places: Vec<(f64, u32, PathBuf)> = entries.into_iter().map(place).collect();
    places.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let entries = places.into_iter().map(|(_, label, path)| (path, label));
    entries.collect()
}

/// The shape of a set whose model is not known: its first image's.
pub(super) fn shape_of(path: &Path) -> Result<[usize; 3]> {
    let first = image::decode(path)?;
    let channels = if first.color().has_color() { 3 } else { 1 };
    Ok([channels, first.height() as usize, first.width() as usize])
}

/// Called with files done and files in all.
pub(super) type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// Decodes the images of a set's splits.
pub(super) struct Decoder<'a> {
    shape: [usize; 3],
    done: AtomicUsize,
    total: usize,
    progress: Progress<'a>,
}

impl<'a> Decoder<'a> {
    /// For `total` images, each brought to `shape`.
    pub(super) fn new(shape: [usize; 3], total: usize, progress: Progress<'a>) -> Self {
        Self {
            shape,
            done: AtomicUsize::new(0),
            total,
            progress,
        }
    }

    pub(super) fn split(&self, entries: &[Entry]) -> Result<Split> {
        let bytes: usize = self.shape.iter().product();
        let mut images = Vec::new();
        // In parts, so that the decoded images are not held twice.
        for part in entries.chunks(4096) {
            let decoded: Vec<Vec<u8>> = part
                .par_iter()
                .map(|(path, _)| {
                    let pixels = image::load(path, self.shape)?;
                    let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
                    (self.progress)(done, self.total);
                    Ok(pixels)
                })
                .collect::<Result<_>>()?;
            if images.is_empty() {
                let length = bytes.checked_mul(entries.len());
                let length = length.ok_or_else(|| too_large(entries, self.shape))?;
                let reserved = images.try_reserve_exact(length);
                reserved.map_err(|_| too_large(entries, self.shape))?;
            }
            decoded.iter().for_each(|pixels| images.extend(pixels));
        }
        Ok(Split {
            images: images.into(),
            labels: entries.iter().map(|(_, label)| *label).collect(),
        })
    }
}

fn too_large(entries: &[Entry], shape: [usize; 3]) -> Error {
    let at = entries.first().map_or_else(PathBuf::new, |e| e.0.clone());
    let problem = format!(
        "and {} more images of {shape:?} do not fit into this machine's memory",
        entries.len().saturating_sub(1)
    );
    Error::data(at, problem)
}
