//! How long each part of a window took.

use std::sync::OnceLock;
use std::time::Duration;

use crate::base::time::Timestamp;
use crate::format::manifest::WindowPhases;

/// When each part of a window ended, by the monotonic clock; a part that was not reached has none.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) stopped: OnceLock<Duration>,
    pub(super) quiet: OnceLock<Duration>,
    /// The same moment by the wall clock, for people.
    pub(super) quiet_at: OnceLock<Timestamp>,
    pub(super) read: OnceLock<Duration>,
    pub(super) proven: OnceLock<Duration>,
}

impl Marks {
    /// The parts of a window that began and ended at these times; `None` where one is missing.
    pub(super) fn phases(&self, began: Duration, started: Duration) -> Option<WindowPhases> {
        let (stopped, quiet) = (*self.stopped.get()?, *self.quiet.get()?);
        let (read, proven) = (*self.read.get()?, *self.proven.get()?);
        let between = |from: Duration, to: Duration| {
            u64::try_from(to.saturating_sub(from).as_millis()).unwrap_or(u64::MAX)
        };
        Some(WindowPhases {
            stop_ms: between(began, stopped),
            quiet_ms: between(stopped, quiet),
            read_ms: between(quiet, read),
            proof_ms: between(read, proven),
            start_ms: between(proven, started),
        })
    }
}
