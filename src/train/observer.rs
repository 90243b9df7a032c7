//! Who sees more of a training than its events tell.

use super::{Event, Examined, HistoryRow, Weights};
use crate::error::Result;

/// What there is to see at the end of an epoch.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// All epochs so far, the one that is over last.
    pub history: &'a [HistoryRow],
    /// The weights that were validated.
    pub weights: &'a Weights,
    /// Its validation image by image, where there are images to validate on.
    pub examined: Option<&'a Examined>,
    /// The epoch with the best validation so far.
    pub best: Option<usize>,
}

/// Watches a training and writes of it. What fails is a warning: the training goes on.
pub trait Observer {
    /// Something happened; it is told before the one who shows events is.
    ///
    /// # Errors
    /// If what is to be written of it cannot be.
    fn event(&mut self, event: &Event) -> Result<()>;

    /// An epoch is over.
    ///
    /// # Errors
    /// If what is to be written of it cannot be.
    fn epoch(&mut self, seen: Seen<'_>) -> Result<()>;

    /// The training ended with this error.
    ///
    /// # Errors
    /// If what is to be written of it cannot be.
    fn failed(&mut self, error: &str) -> Result<()>;
}

impl<T: Observer + ?Sized> Observer for &mut T {
    fn event(&mut self, event: &Event) -> Result<()> {
        (**self).event(event)
    }

    fn epoch(&mut self, seen: Seen<'_>) -> Result<()> {
        (**self).epoch(seen)
    }

    fn failed(&mut self, error: &str) -> Result<()> {
        (**self).failed(error)
    }
}
