//! Who watches a training, and may end it.

use super::{Event, Observer, Seen};
use crate::error::Result;
use std::sync::atomic::{AtomicBool, Ordering};

static NEVER: AtomicBool = AtomicBool::new(false);

/// What a training reports to, and what ends it early.
pub struct Callbacks<'a> {
    on_event: &'a mut dyn FnMut(Event),
    observers: Vec<Box<dyn Observer + 'a>>,
    stop: &'a AtomicBool,
}

impl<'a> Callbacks<'a> {
    /// Reports to `on_event`.
    pub fn new(on_event: &'a mut dyn FnMut(Event)) -> Self {
        Self {
            on_event,
            observers: Vec::new(),
            stop: &NEVER,
        }
    }

    /// Has `observer` watch too.
    #[must_use]
    pub fn observed_by(mut self, observer: impl Observer + 'a) -> Self {
        self.observers.push(Box::new(observer));
        self
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
        let observers = self.observers.iter_mut();
        Callbacks {
            on_event: self.on_event,
            observers: observers
                .map(|o| Box::new(&mut **o) as Box<dyn Observer>)
                .collect(),
            stop: self.stop,
        }
    }

    /// Whether the training shall end.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn event(&mut self, event: Event) {
        self.watch(|observer| observer.event(&event));
        (self.on_event)(event);
    }

    pub(super) fn epoch(&mut self, seen: Seen<'_>) {
        self.watch(|observer| observer.epoch(seen));
    }

    pub(super) fn failed(&mut self, error: &str) {
        self.watch(|observer| observer.failed(error));
    }

    fn watch(&mut self, mut see: impl FnMut(&mut dyn Observer) -> Result<()>) {
        for observer in &mut self.observers {
            if let Err(error) = see(&mut **observer) {
                (self.on_event)(Event::Warning(format!("{error}; the training goes on")));
            }
        }
    }
}
