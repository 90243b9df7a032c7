//! The pixels of a split: bytes in memory, or files that are decoded as they are asked for.

use super::image;
use crate::error::Result;
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Most bytes that [`Images::portions`] gives at a time.
const PORTION: usize = 32 << 20;

/// Images of one shape, as bytes [C, H, W] each. They are in memory, or in files that are
/// decoded each time they are asked for; the bytes are the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    source: Source,
    /// Those of the source that are meant.
    range: Range<usize>,
    /// Bytes of an image.
    size: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Source {
    Memory(Arc<Vec<u8>>),
    /// A file each, brought to a shape.
    Files(Arc<Vec<PathBuf>>, [usize; 3]),
}

impl Images {
    /// `count` images in memory, one after the other.
    ///
    /// # Panics
    /// If the bytes are no `count` images of one size.
    pub fn new(bytes: Vec<u8>, count: usize) -> Self {
        let size = bytes.len() / count.max(1);
        assert_eq!(bytes.len(), count * size, "{count} images of one size");
        Self {
            source: Source::Memory(Arc::new(bytes)),
            range: 0..count,
            size,
        }
    }

    /// Images in files, each to be brought to `shape` [C, H, W].
    pub(super) fn in_files(files: Vec<PathBuf>, shape: [usize; 3]) -> Self {
        Self {
            range: 0..files.len(),
            source: Source::Files(Arc::new(files), shape),
            size: shape.iter().product(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Bytes of an image.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether they are decoded as they are asked for.
    pub fn are_in_files(&self) -> bool {
        matches!(self.source, Source::Files(..))
    }

    /// Some of them.
    #[must_use]
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        let start = self.range.start;
        Self {
            range: start + range.start..start + range.end,
            ..self.clone()
        }
    }

    /// The bytes of all, image after image.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn all(&self) -> Result<Cow<'_, [u8]>> {
        self.get(0..self.len())
    }

    /// The bytes of these images.
    ///
    /// # Errors
    /// If a file cannot be decoded, by its name.
    ///
    /// # Panics
    /// If there are not so many images.
    pub fn get(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>> {
        match &self.source {
            Source::Memory(bytes) => {
                let own = &bytes[self.range.start * self.size..self.range.end * self.size];
                Ok(own[range.start * self.size..range.end * self.size].into())
            }
            Source::Files(..) => {
                let places: Vec<usize> = range.collect();
                Ok(self.gather(&places)?.into())
            }
        }
    }

    /// The bytes of the images at these places, in that order.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Panics
    /// If there are not so many images.
    pub fn gather(&self, places: &[usize]) -> Result<Vec<u8>> {
        let size = self.size;
        match &self.source {
            Source::Memory(bytes) => {
                let own = &bytes[self.range.start * size..self.range.end * size];
                let images = places.iter().map(|place| &own[place * size..][..size]);
                Ok(images.collect::<Vec<_>>().concat())
            }
            Source::Files(files, shape) => {
                let own = &files[self.range.clone()];
                let mut gathered = vec![0; places.len() * size];
                let targets = gathered.par_chunks_mut(size.max(1));
                targets.zip(places).try_for_each(|(target, place)| {
                    target.copy_from_slice(&image::load(&own[*place], *shape)?);
                    Ok(())
                })?;
                Ok(gathered)
            }
        }
    }

    /// The bytes of all, a number of images at a time that takes little memory.
    pub fn portions(&self) -> impl Iterator<Item = Result<Cow<'_, [u8]>>> {
        let images = (PORTION / self.size.max(1)).max(1);
        let starts = (0..self.len()).step_by(images);
        starts.map(move |start| self.get(start..self.len().min(start + images)))
    }
}
