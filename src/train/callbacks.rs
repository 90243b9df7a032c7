//! Who watches a training, and may end it.

use super::Event;
use std::sync::atomic::{AtomicBool, Ordering};

static NEVER: AtomicBool = AtomicBool::new(false);

/// What a training reports to, and what ends it early.
pub struct Callbacks<'a> {
    on_event: &'a mut dyn FnMut(Event),
    stop: &'a AtomicBool,
}

impl<'a> Callbacks<'a> {
    /// Reports to `on_event`.
    pub fn new(on_event: &'a mut dyn FnMut(Event)) -> Self {
        Self {
            on_event,
            stop: &NEVER,
        }
    }

    /// Ends the training after the work under way once `flag` is true; a signal handler
    /// or another thread may set it.
    #[must_use]
    pub fn stop_on(mut self, flag: &'a AtomicBool) -> Self {
        self.stop = flag;
        self
    }

    /// The same for a part of the work.
    pub(super) fn again(&mut self) -> Callbacks<'_> {
        Callbacks {
            on_event: self.on_event,
            stop: self.stop,
        }
    }

    /// Whether the training shall end.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn event(&mut self, event: Event) {
        (self.on_event)(event);
    }
}
