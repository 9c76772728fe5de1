//! The wish to end: `SIGINT`, `SIGTERM`, `SIGQUIT` and `SIGHUP` are noted and never kill by themselves, because
//! a service that cabk stopped must be started first.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};

#[derive(Debug, Default)]
struct Noted {
    first: AtomicI32,
    count: AtomicUsize,
}

impl Noted {
    /// Only atomic operations: this runs in a signal handler.
    fn note(&self, signal: i32) {
        // A later signal does not replace the first one, and that is no failure.
        let _ = self.first.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
        self.count.fetch_add(1, Ordering::SeqCst);
    }
}

/// Whether somebody asked this process to end. Clones share what was noted.
#[derive(Clone, Debug)]
pub struct Interrupt {
    noted: Arc<Noted>,
}

impl Interrupt {
    /// Notes signals from now on. A further call gives the same flag.
    ///
    /// A signal that was ignored when the process began (`nohup`, a job in the background of a
    /// script) stays ignored.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn install() -> io::Result<Self> {
        static INSTALLED: Mutex<Option<Interrupt>> = Mutex::new(None);
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(interrupt) = &*installed {
            return Ok(interrupt.clone());
        }
        let interrupt = Self::manual();
        let ignored = ignored_signals()?;
        for signal in [SIGINT, SIGTERM, SIGQUIT, SIGHUP] {
            if signal != SIGTERM && ignored & (1 << (signal - 1)) != 0 {
                continue;
            }
            let noted = Arc::clone(&interrupt.noted);
            // SAFETY: the action only does atomic operations on memory that the registry keeps
            // alive: no allocation, no lock, no panic.
            unsafe { signal_hook::low_level::register(signal, move || noted.note(signal)) }?;
        }
        *installed = Some(interrupt.clone());
        Ok(interrupt)
    }

    /// From now on this process cannot be put to sleep at its terminal: that would leave a service
    /// stopped for as long as nobody thinks of it.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn stay_awake() -> io::Result<()> {
        // SAFETY: the action does nothing at all.
        unsafe { signal_hook::low_level::register(SIGTSTP, || {}) }.map(drop)
    }

    /// A flag that only [`Interrupt::trigger`] sets.
    #[must_use]
    pub fn manual() -> Self {
        Self { noted: Arc::new(Noted::default()) }
    }

    /// Sets the flag as `SIGINT` would.
    pub fn trigger(&self) {
        self.noted.note(SIGINT);
    }

    /// Whether a signal came.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.count() > 0
    }

    /// The first signal that came.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        Some(self.noted.first.load(Ordering::SeqCst)).filter(|&signal| signal != 0)
    }

    /// How many signals came: a person who presses the keys again wants to know why it takes long.
    #[must_use]
    pub fn count(&self) -> usize {
        self.noted.count.load(Ordering::SeqCst)
    }
}

/// The signals that this process ignores, the lowest bit for signal 1.
fn ignored_signals() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no SigIgn in /proc/self/status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_noted_and_a_second_one_does_not_kill() {
        let interrupt = Interrupt::install().unwrap();
        let before = interrupt.count();
        let again = Interrupt::install().unwrap();
        for _ in 0..2 {
            signal_hook::low_level::raise(SIGTERM).unwrap();
        }
        assert!(again.is_set());
        assert_eq!(again.count(), before + 2);
        assert_eq!(interrupt.signal(), Some(SIGTERM));
    }

    #[test]
    fn by_hand() {
        let interrupt = Interrupt::manual();
        assert!(!interrupt.is_set() && interrupt.signal().is_none());
        interrupt.clone().trigger();
        assert_eq!((interrupt.count(), interrupt.signal()), (1, Some(SIGINT)));
    }

    #[test]
    fn sigpipe_is_ignored_as_rust_programs_do() {
        assert_ne!(ignored_signals().unwrap() & (1 << 12), 0);
    }
}
