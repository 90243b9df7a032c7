//! Ctrl-C: the first asks, the second ends.

use signal_hook::consts::SIGINT;
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The exit code of a program that Ctrl-C ended: 128 and the number of the signal.
pub const EXIT_CODE: u8 = 130;

/// Has the first Ctrl-C set `stop` and the second end the program at once.
pub fn catch(stop: &Arc<AtomicBool>) {
    // In this order: the first Ctrl-C must find the flag unset.
    let registered = flag::register_conditional_shutdown(SIGINT, EXIT_CODE.into(), stop.clone())
        .and_then(|_| flag::register(SIGINT, stop.clone()));
    if let Err(error) = registered {
        eprintln!("warning: Ctrl-C will not save the model: {error}");
    }
}
