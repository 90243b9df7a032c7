//! The terminal: taken, given back at the end or by a panic, and left to the shell while the
//! training sleeps.

use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, disable_raw_mode, enable_raw_mode};
use std::io::{Result, stdout};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How long a panic waits for a frame to be drawn. One while it is drawn would wait forever.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who has the terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Holder {
    /// The shell.
    #[default]
    Other,
    Dashboard,
    /// The shell, for good: something panicked.
    OtherForGood,
}

/// Whether the terminal shows the dashboard. It is locked while anything is done to it.
#[derive(Clone, Default)]
pub(super) struct Shown(Arc<Mutex<Holder>>);

impl Shown {
    fn lock(&self) -> MutexGuard<'_, Holder> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it does.
    pub fn is_so(&self) -> bool {
        *self.lock() == Holder::Dashboard
    }

    /// Takes the terminal, unless something panicked.
    pub fn take(&self) -> Result<()> {
        let mut holder = self.lock();
        if *holder != Holder::OtherForGood {
            // A shell may have set the terminal's modes while the training slept.
            disable_raw_mode()?;
            enable_raw_mode()?;
            execute!(stdout(), EnterAlternateScreen)?;
            *holder = Holder::Dashboard;
        }
        Ok(())
    }

    /// Draws, if the terminal is there for it.
    pub fn draw(&self, frame: impl FnOnce() -> Result<()>) -> Result<()> {
        let holder = self.lock();
        match *holder {
            Holder::Dashboard => frame(),
            _ => Ok(()),
        }
    }

    /// Gives the terminal back as it was, if it was taken.
    pub fn give_back(&self) {
        restore(&mut self.lock(), Holder::Other);
    }

    /// Leaves the terminal as it is: somebody else has it.
    pub fn lose(&self) {
        let mut holder = self.lock();
        if *holder == Holder::Dashboard {
            *holder = Holder::Other;
        }
    }

    /// Has a panic give the terminal back, for good, before it is told of.
    pub fn give_back_on_panic(&self) {
        let shown = self.clone();
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            shown.give_back_for_good();
            tell(panic);
        }));
    }

    fn give_back_for_good(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut holder = match self.0.try_lock() {
                Ok(holder) => holder,
                Err(TryLockError::Poisoned(holder)) => holder.into_inner(),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(PATIENCE / 100);
                    continue;
                }
                // The thread that draws is the one that panics: it ends.
                Err(TryLockError::WouldBlock) => {
                    return restore(&mut Holder::Dashboard, Holder::Other);
                }
            };
            return restore(&mut holder, Holder::OtherForGood);
        }
    }
}

fn restore(holder: &mut Holder, next: Holder) {
    if std::mem::replace(holder, next) == Holder::Dashboard {
        ratatui::restore();
        // A terminal that is gone needs no cursor.
        let _ = execute!(stdout(), Show);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_panic_the_terminal_is_not_taken_again() {
        let shown = Shown::default();
        *shown.lock() = Holder::Dashboard;
        assert!(shown.is_so());
        shown.lose();
        assert!(!shown.is_so());
        shown
            .draw(|| panic!("somebody else has the terminal"))
            .unwrap();
        shown.give_back_for_good();
        shown.take().unwrap();
        assert!(!shown.is_so());
    }
}
