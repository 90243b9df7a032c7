//! How the images of a part reach the device: all at once, or as they are needed.
//!
//! Where they are streamed, the device holds a window of the epoch at a time, in the order
//! the images are taken in. A thread puts the next windows together meanwhile: one waits while
//! one is being made. The steps of a window are queued before the next one is written over
//! it, and the queue keeps that order; so the device waits for no more than the copy.

use super::feed::Part;
use crate::data::Split;
use crate::error::{Error, Result};
use crate::graph::Backend;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

/// Images that follow each other in an epoch, from this place on.
struct Window {
    first: usize,
    images: Split,
}

/// A part of a data set and those of its images that are on the device.
pub(super) struct Feed {
    part: Part,
    split: Arc<Split>,
    windows: Option<Receiver<Result<Window>>>,
    /// The places of the epoch that are on the device.
    held: Range<usize>,
}

impl Feed {
    /// Creates the part's states and uploads its images, where they all fit.
    ///
    /// # Errors
    /// If the device cannot hold them.
    pub fn new(part: Part, split: Split, backend: &mut dyn Backend) -> Result<Self> {
        part.create(backend)?;
        let held = match part.is_streamed() {
            true => 0..0,
            false => {
                part.put(&split, backend)?;
                0..part.len
            }
        };
        Ok(Self {
            part,
            split: Arc::new(split),
            windows: None,
            held,
        })
    }

    /// The part.
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// Begins an epoch, or goes on with it, at the place `first`. Streamed images come in
    /// `order`, or as they are stored.
    pub fn begin(&mut self, order: Option<Vec<u32>>, first: usize) {
        if self.part.is_streamed() {
            self.held = first..first;
            let split = self.split.clone();
            self.windows = Some(prefetch(split, order, first, self.part.held()));
        }
    }

    /// Sees to it that the image at the place `first` of the epoch is on the device. Returns
    /// where it is there, and how many images there are from it on.
    ///
    /// # Errors
    /// If an image file cannot be decoded, or the device fails.
    pub fn bring(&mut self, first: usize, backend: &mut dyn Backend) -> Result<[usize; 2]> {
        if !self.held.contains(&first) {
            let lost = || Error::Runtime(format!("the images from place {first} on were lost"));
            let windows = self.windows.as_ref().ok_or_else(lost)?;
            let Window { first, images } = windows.recv().map_err(|_| lost())??;
            self.part.put(&images, backend)?;
            self.held = first..first + images.len();
        }
        Ok([first - self.held.start, self.held.end - first])
    }
}

/// Starts the thread that puts windows together; it ends when nobody takes them any more.
fn prefetch(
    split: Arc<Split>,
    order: Option<Vec<u32>>,
    first: usize,
    window: usize,
) -> Receiver<Result<Window>> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        for first in (first..split.len()).step_by(window) {
            let places = first..split.len().min(first + window);
            let places: Vec<usize> = match &order {
                Some(order) => order[places].iter().map(|i| *i as usize).collect(),
                None => places.collect(),
            };
            let window = split.gather(&places).map(|images| Window { first, images });
            let failed = window.is_err();
            if sender.send(window).is_err() || failed {
                return;
            }
        }
    });
    receiver
}
