//! Job control: Ctrl-Z, `fg` and `bg`.

/// What the shell, or `kill`, asks of the program while the dashboard is there.
#[cfg(unix)]
pub(super) use unix::Job;

#[cfg(unix)]
mod unix {
    use libc::{SIGCONT, SIGTSTP};
    use signal_hook::flag;
    use std::io::Result;
    use std::mem::MaybeUninit;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    pub(in super::super) struct Job {
        asked: Arc<AtomicBool>,
        woken: Arc<AtomicBool>,
    }

    impl Job {
        /// Takes the signals, until `over` is set: then the program stops by itself again.
        pub fn control(over: &Arc<AtomicBool>) -> Result<Self> {
            let job = Self {
                asked: Arc::default(),
                woken: Arc::default(),
            };
            flag::register_conditional_default(SIGTSTP, over.clone())?;
            flag::register(SIGTSTP, job.asked.clone())?;
            flag::register(SIGCONT, job.woken.clone())?;
            Ok(job)
        }

        /// Whether a signal asked the program to sleep since this was last asked.
        pub fn asked(&self) -> bool {
            self.asked.swap(false, Ordering::Relaxed)
        }

        /// Whether the program was woken since this was last asked.
        pub fn woken(&self) -> bool {
            self.woken.swap(false, Ordering::Relaxed)
        }

        /// Sleeps until the program is told to go on; with `all`, so do the programs it runs
        /// with, such as the script that a shell waits for. Where no shell could wake it, it
        /// does not sleep.
        pub fn sleep(&self, all: bool) {
            if all {
                with_action(libc::SIG_IGN, || {
                    // SAFETY: it takes no memory; this process ignores the signal.
                    unsafe { libc::kill(0, SIGTSTP) };
                });
            }
            with_action(libc::SIG_DFL, || {
                // SAFETY: it takes no memory. The signal is this thread's, so it has come
                // before the call returns.
                unsafe { libc::raise(SIGTSTP) };
            });
            self.asked.store(false, Ordering::Relaxed);
        }

        /// Whether the terminal listens to this program, not to a shell. One without a shell
        /// always does.
        pub fn is_in_front() -> bool {
            // SAFETY: neither takes memory.
            let [front, own] = unsafe { [libc::tcgetpgrp(libc::STDOUT_FILENO), libc::getpgrp()] };
            front == own || front == -1
        }
    }

    /// Runs something while SIGTSTP does this.
    fn with_action(action: libc::sighandler_t, run: impl FnOnce()) {
        let mut before = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: a sigaction of zeros is one without flags that blocks no signal; `before` is
        // read only where the first call says that it wrote it.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            now.sa_sigaction = action;
            if libc::sigaction(SIGTSTP, &raw const now, before.as_mut_ptr()) == 0 {
                run();
                libc::sigaction(SIGTSTP, before.as_ptr(), std::ptr::null_mut());
            }
        }
    }
}

/// There is none on this system.
#[cfg(not(unix))]
pub(super) struct Job;

#[cfg(not(unix))]
impl Job {
    pub fn control(_: &std::sync::Arc<std::sync::atomic::AtomicBool>) -> std::io::Result<Self> {
        Ok(Self)
    }

    pub fn asked(&self) -> bool {
        false
    }

    pub fn woken(&self) -> bool {
        false
    }

    pub fn sleep(&self, _: bool) {}

    pub fn is_in_front() -> bool {
        true
    }
}
