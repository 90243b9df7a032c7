//! Images listed by path and class, and how they become a split.

use super::{Images, Request, Split, image};
use crate::error::{Error, Result};
use crate::gpu::host_memory;
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

/// Of the host's free memory, the part that decoded images may take; the rest is for their copy
/// on a device that shares it, for the model, and for others.
const SHARE_OF_HOST: u64 = 2;

/// Makes splits of a set's lists of files. Its images are decoded now, or where they would take
/// too much of the host's memory, each time they are needed.
pub(super) struct Decoder<'a> {
    shape: [usize; 3],
    done: AtomicUsize,
    total: usize,
    progress: &'a (dyn Fn(usize, usize) + Sync),
    /// Why they stay in their files, where they do.
    note: Option<String>,
}

impl<'a> Decoder<'a> {
    /// For `total` images, each brought to `shape`.
    pub(super) fn new(shape: [usize; 3], total: usize, request: &Request<'a>) -> Self {
        Self {
            shape,
            done: AtomicUsize::new(0),
            total,
            progress: request.progress,
            note: too_many(total, shape, request.host_budget),
        }
    }

    /// What the user should know of where the images are.
    pub(super) fn note(&self) -> Option<String> {
        self.note.clone()
    }

    pub(super) fn split(&self, entries: &[Entry]) -> Result<Split> {
        let images = match self.note {
            Some(_) => self.checked(entries)?,
            None => self.decoded(entries)?,
        };
        Ok(Split {
            images,
            labels: entries.iter().map(|(_, label)| *label).collect(),
        })
    }

    /// The images in their files, of which the heads are checked.
    fn checked(&self, entries: &[Entry]) -> Result<Images> {
        entries.par_iter().try_for_each(|(path, _)| {
            image::check(path, self.shape)?;
            self.count();
            Ok(())
        })?;
        let files = entries.iter().map(|(path, _)| path.clone()).collect();
        Ok(Images::in_files(files, self.shape))
    }

    fn decoded(&self, entries: &[Entry]) -> Result<Images> {
        let bytes: usize = self.shape.iter().product();
        let mut images = Vec::new();
        // In parts, so that the decoded images are not held twice.
        for part in entries.chunks(4096) {
            let decoded: Vec<Vec<u8>> = part
                .par_iter()
                .map(|(path, _)| {
                    let pixels = image::load(path, self.shape)?;
                    self.count();
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
        Ok(Images::new(images, entries.len()))
    }

    fn count(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        (self.progress)(done, self.total);
    }
}

/// Why so many images are not to be kept in memory, if they are not.
fn too_many(total: usize, shape: [usize; 3], budget: Option<u64>) -> Option<String> {
    let pixels = shape.iter().product::<usize>().saturating_mul(total) as u64;
    let free = host_memory::available();
    let limit = budget.or(free.map(|free| free / SHARE_OF_HOST))?;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let [c, h, w] = shape;
    let why = match (budget, free) {
        (None, Some(free)) => {
            format!(
                "more than half of the {} MiB that the host has free",
                mib(free)
            )
        }
        _ => format!("more than the --host-budget of {} MiB", mib(limit)),
    };
    (pixels > limit).then(|| {
        format!(
            "{total} images are decoded from their files each time they are needed: as {c} x {h} x \
             {w} they are {} MiB, {why}",
            mib(pixels)
        )
    })
}

fn too_large(entries: &[Entry], shape: [usize; 3]) -> Error {
    let at = entries.first().map_or_else(PathBuf::new, |e| e.0.clone());
    let problem = format!(
        "and {} more images of {shape:?} do not fit into this machine's memory; a smaller \
         --host-budget leaves them in their files",
        entries.len().saturating_sub(1)
    );
    Error::data(at, problem)
}

#[cfg(test)]
mod tests {
    use super::too_many;

    #[test]
    fn what_exceeds_the_budget_stays_in_its_files() {
        let shape = [3, 10, 10];
        assert_eq!(too_many(10, shape, Some(3000)), None);
        let why = too_many(11, shape, Some(3000)).unwrap();
        assert!(
            why.contains("more than the --host-budget of 1 MiB"),
            "{why}"
        );
        assert_eq!(too_many(10, shape, None), None, "half of the host is more");
        let why = too_many(usize::MAX, shape, None);
        #[cfg(target_os = "linux")]
        assert!(why.unwrap().contains("more than half of the"));
        #[cfg(not(target_os = "linux"))]
        assert_eq!(why, None);
    }
}
