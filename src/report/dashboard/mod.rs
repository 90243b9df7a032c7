//! A live view of a training in the terminal.

mod draw;
#[cfg(test)]
mod tests;
mod view;

use crate::error::{Error, Result};
use crate::train::{Config, Event, Observer, RunFolder, Seen};
use draw::{Theme, draw};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEventKind, KeyModifiers};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use view::View;

/// How long a key may wait to be noticed.
const TURN: Duration = Duration::from_millis(100);
/// How old a frame may get.
const FRAME: Duration = Duration::from_millis(500);

/// How the one who looks at the dashboard ends the training.
#[derive(Clone)]
pub struct Controls {
    /// Set to stop it once the work under way is done and saved.
    pub stop: Arc<AtomicBool>,
    /// Raised by each signal that asks for it.
    pub signalled: Arc<AtomicBool>,
    /// Ends the program at once, asked for a second time. The terminal is as it was by then.
    pub end: Arc<dyn Fn() + Send + Sync>,
}

/// Shows a training as it goes on: it owns the terminal from the first event until the last.
pub struct Dashboard {
    view: Arc<Mutex<View>>,
    controls: Controls,
    closing: Arc<AtomicBool>,
    screen: Option<JoinHandle<()>>,
}

impl Dashboard {
    /// For the run in `folder`. The terminal is left alone until the training starts.
    pub fn new(model: &str, config: &Config, folder: &RunFolder, controls: Controls) -> Self {
        Self {
            view: Arc::new(Mutex::new(View::new(model, config, folder))),
            controls,
            closing: Arc::new(AtomicBool::new(false)),
            screen: None,
        }
    }

    /// Why it cannot be shown here, if it cannot: standard output is no terminal, or one that
    /// cannot move its cursor.
    pub fn obstacle() -> Option<&'static str> {
        if !std::io::stdout().is_terminal() {
            return Some("standard output is no terminal");
        }
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        dumb.then_some("TERM=dumb says that the terminal can show lines only")
    }

    fn open(&mut self) -> Result<()> {
        let terminal = ratatui::try_init()
            .map_err(|e| Error::Runtime(format!("the terminal shows no dashboard: {e}")))?;
        // The hook that ratatui set gives the terminal back. Nothing is drawn after that.
        let closing = self.closing.clone();
        let restore = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            closing.store(true, Ordering::Relaxed);
            restore(panic);
        }));
        let screen = Screen {
            terminal,
            view: self.view.clone(),
            controls: self.controls.clone(),
            closing: self.closing.clone(),
            begin: Instant::now(),
            theme: Theme {
                colors: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            },
            asked: 0,
        };
        self.screen = Some(std::thread::spawn(move || screen.run()));
        Ok(())
    }

    /// Gives the terminal back.
    fn close(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(screen) = self.screen.take() {
            // Had it panicked, its hook has restored the terminal and told why.
            let _ = screen.join();
        }
    }
}

impl Observer for Dashboard {
    fn event(&mut self, event: &Event) -> Result<()> {
        locked(&self.view).observe(event);
        match event {
            Event::Start { .. } if self.screen.is_none() => self.open(),
            Event::End(_) => {
                self.close();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn epoch(&mut self, seen: Seen<'_>) -> Result<()> {
        locked(&self.view).see(seen);
        Ok(())
    }

    fn failed(&mut self, _: &str) -> Result<()> {
        Ok(())
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.close();
    }
}

/// A view that somebody panicked over is still worth a look.
fn locked(view: &Mutex<View>) -> MutexGuard<'_, View> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The terminal and who sits before it, in a thread of its own.
struct Screen {
    terminal: DefaultTerminal,
    view: Arc<Mutex<View>>,
    controls: Controls,
    closing: Arc<AtomicBool>,
    begin: Instant,
    theme: Theme,
    /// How often it was asked to stop.
    asked: usize,
}

impl Screen {
    fn run(mut self) {
        while !self.closing.load(Ordering::Relaxed) {
            // A terminal that is gone is no reason to end: the signal for that is.
            if self.draw().is_err() || self.listen().is_err() {
                std::thread::sleep(FRAME);
            }
        }
        ratatui::restore();
    }

    fn draw(&mut self) -> std::io::Result<()> {
        let (elapsed, theme) = (self.begin.elapsed(), self.theme);
        let view = locked(&self.view);
        self.terminal
            .draw(|frame| draw(frame, &view, theme, elapsed))?;
        Ok(())
    }

    /// Takes keys and signals until it is time for a frame.
    fn listen(&mut self) -> std::io::Result<()> {
        let until = Instant::now() + FRAME;
        while Instant::now() < until && !self.closing.load(Ordering::Relaxed) {
            let mut asks = self.controls.signalled.swap(false, Ordering::Relaxed);
            if event::poll(TURN)? {
                match event::read()? {
                    Input::Key(key) if key.kind == KeyEventKind::Press => {
                        asks |= asks_to_stop(key.code, key.modifiers);
                    }
                    Input::Resize(..) => return Ok(()),
                    _ => {}
                }
            }
            if asks {
                self.stop();
                return Ok(());
            }
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.asked += 1;
        self.controls.stop.store(true, Ordering::Relaxed);
        locked(&self.view).stopping = true;
        if self.asked > 1 {
            ratatui::restore();
            (self.controls.end)();
        }
    }
}

/// Whether a key stops the training. In this mode of the terminal Ctrl-C is a key.
fn asks_to_stop(code: KeyCode, modifiers: KeyModifiers) -> bool {
    match code {
        KeyCode::Char('c') => modifiers.contains(KeyModifiers::CONTROL),
        KeyCode::Char('q' | 'Q') => true,
        _ => false,
    }
}
