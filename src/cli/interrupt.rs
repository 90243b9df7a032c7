//! The signals that ask a program to end: the first asks, the second ends.

#[cfg(feature = "dashboard")]
use gpucnn::report::Controls;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What the signals leave behind.
#[derive(Clone, Default)]
pub struct Interrupt {
    stop: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Whether to stop: true from the first signal on.
    pub fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// The exit code of a program that a signal ended, 128 and the signal's number.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(128 + self.last() as u8)
    }

    /// The last signal; a key that stops is as good as Ctrl-C.
    fn last(&self) -> i32 {
        match self.signal.load(Ordering::Relaxed) {
            0 => SIGINT,
            signal => signal as i32,
        }
    }

    /// Has the first of the signals ask to stop and the second end the program at once.
    pub fn catch(&self) {
        for signal in signals() {
            if let Err(error) = self.catch_one(signal) {
                eprintln!("warning: signal {signal} will not save the model: {error}");
            }
        }
    }

    /// Has each signal ask to stop, and none end the program: `controls` tell of it to one who
    /// does that and has to clean up before.
    #[cfg(feature = "dashboard")]
    pub fn catch_for(&self, controls: &Controls) {
        for signal in signals() {
            let caught = flag::register_usize(signal, self.signal.clone(), signal as usize)
                .and_then(|_| flag::register(signal, self.stop.clone()))
                .and_then(|_| flag::register(signal, controls.signalled.clone()));
            if let Err(error) = caught {
                eprintln!("warning: signal {signal} will not save the model: {error}");
            }
        }
    }

    /// What a dashboard needs to stop the training, or to end the program at once.
    #[cfg(feature = "dashboard")]
    pub fn controls(&self) -> Controls {
        Controls {
            stop: self.stop.clone(),
            signalled: Arc::default(),
            end: {
                let interrupt = self.clone();
                Arc::new(move || signal_hook::low_level::exit(128 + interrupt.last()))
            },
        }
    }

    fn catch_one(&self, signal: i32) -> std::io::Result<()> {
        // In this order: the first signal must find the flag unset.
        flag::register_conditional_shutdown(signal, 128 + signal, self.stop.clone())?;
        flag::register_usize(signal, self.signal.clone(), signal as usize)?;
        flag::register(signal, self.stop.clone()).map(drop)
    }
}

/// Ctrl-C, `kill`, and the end of the terminal or the connection.
#[cfg(unix)]
fn signals() -> Vec<i32> {
    let mut signals = vec![SIGINT, SIGTERM];
    // `nohup` has it ignored; so it shall stay.
    if !ignored(signal_hook::consts::SIGHUP) {
        signals.push(signal_hook::consts::SIGHUP);
    }
    signals
}

/// Ctrl-C, and what stands for SIGTERM.
#[cfg(not(unix))]
fn signals() -> Vec<i32> {
    vec![SIGINT, SIGTERM]
}

/// Whether the process was started with this signal ignored.
#[cfg(unix)]
fn ignored(signal: i32) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action, sigaction only writes the present one to `now`; it is
    // read only where the call says that it did.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) == 0
            && now.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
