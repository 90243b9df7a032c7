//! A live view of a training in the terminal.

mod draw;
mod job;
mod terminal;
#[cfg(test)]
mod tests;
mod view;

use crate::error::{Error, Result};
use crate::train::{Config, Event, Observer, RunFolder, Seen};
use draw::{Theme, draw};
use job::Job;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, Terminal};
use std::io::{self, IsTerminal, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use terminal::Shown;
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
        let fail = |e| Error::Runtime(format!("the terminal shows no dashboard: {e}"));
        let shown = Shown::default();
        shown.give_back_on_panic();
        let job = Job::control(&self.closing).map_err(fail)?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout())).map_err(fail)?;
        shown.take().map_err(fail)?;
        let screen = Screen {
            terminal,
            shown,
            job,
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
    shown: Shown,
    job: Job,
    view: Arc<Mutex<View>>,
    controls: Controls,
    closing: Arc<AtomicBool>,
    begin: Instant,
    theme: Theme,
    /// How often it was asked to stop.
    asked: usize,
}

/// What a key or a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Stop,
    /// Ctrl-Z; as a key it is meant for whatever runs with the program too.
    Sleep {
        all: bool,
    },
    /// The terminal is another one than before.
    Redraw,
}

impl Screen {
    fn run(mut self) {
        while !self.closing.load(Ordering::Relaxed) {
            // A terminal that is gone is no reason to end: the signal for that is.
            let wish = self.draw().and_then(|()| self.listen());
            let followed = wish.and_then(|wish| match wish {
                Some(Wish::Stop) => {
                    self.stop();
                    Ok(())
                }
                Some(Wish::Sleep { all }) => self.sleep(all),
                Some(Wish::Redraw) => self.come_back(),
                None if !self.shown.is_so() => self.come_back(),
                None => Ok(()),
            });
            if followed.is_err() {
                std::thread::sleep(FRAME);
            }
        }
        self.shown.give_back();
    }

    fn draw(&mut self) -> io::Result<()> {
        let (elapsed, theme) = (self.begin.elapsed(), self.theme);
        let view = locked(&self.view);
        let terminal = &mut self.terminal;
        self.shown.draw(|| {
            terminal.draw(|frame| draw(frame, &view, theme, elapsed))?;
            Ok(())
        })
    }

    /// Takes keys and signals until it is time for a frame.
    fn listen(&mut self) -> io::Result<Option<Wish>> {
        let until = Instant::now() + FRAME;
        while Instant::now() < until && !self.closing.load(Ordering::Relaxed) {
            if self.controls.signalled.swap(false, Ordering::Relaxed) {
                return Ok(Some(Wish::Stop));
            }
            if self.job.asked() {
                return Ok(Some(Wish::Sleep { all: false }));
            }
            if self.job.woken() {
                return Ok(Some(Wish::Redraw));
            }
            // Keys are for whoever has the terminal.
            if !self.shown.is_so() {
                std::thread::sleep(TURN);
            } else if event::poll(TURN)? {
                let wish = match event::read()? {
                    Input::Key(key) if key.kind == KeyEventKind::Press => {
                        wish(key.code, key.modifiers)
                    }
                    Input::Resize(..) => return Ok(None),
                    _ => None,
                };
                if wish.is_some() {
                    return Ok(wish);
                }
            }
        }
        Ok(None)
    }

    /// Leaves the terminal to the shell until the program is told to go on.
    fn sleep(&mut self, all: bool) -> io::Result<()> {
        self.shown.give_back();
        self.job.sleep(all);
        self.come_back()
    }

    /// Takes the terminal again, once it listens to this program: until then the training goes
    /// on in the background.
    fn come_back(&mut self) -> io::Result<()> {
        self.job.woken();
        if !Job::is_in_front() {
            self.shown.lose();
            return Ok(());
        }
        self.shown.take()?;
        let terminal = &mut self.terminal;
        self.shown.draw(|| terminal.clear())
    }

    fn stop(&mut self) {
        self.asked += 1;
        self.controls.stop.store(true, Ordering::Relaxed);
        locked(&self.view).stopping = true;
        if self.asked > 1 {
            self.shown.give_back();
            (self.controls.end)();
        }
    }
}

/// What a key asks for. In this mode of the terminal Ctrl-C and Ctrl-Z are keys.
fn wish(code: KeyCode, modifiers: KeyModifiers) -> Option<Wish> {
    let control = modifiers.contains(KeyModifiers::CONTROL);
    match code {
        KeyCode::Char('c') if control => Some(Wish::Stop),
        KeyCode::Char('z') if control => Some(Wish::Sleep { all: true }),
        KeyCode::Char('q' | 'Q') => Some(Wish::Stop),
        _ => None,
    }
}
