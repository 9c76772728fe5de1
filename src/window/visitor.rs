//! Reading a living site beside its windows. A visitor has files of the site open only while no
//! window is open; a window that is about to open asks visitors to leave, and waits for them.
//!
//! Both are locks of files in the state directory, so that they end with their holders. A window
//! holds the gate; a visitor holds a share of the presence while it has files open, and asks between
//! files whether the gate is closed. A visitor takes its share first and then asks, a window closes
//! the gate first and then waits for the shares: so one of the two sees the other.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::intent::IntentStore;
use super::site_lock::{LockError, open};
use crate::host::clock::Clock;
use crate::host::signal::Interrupt;

/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a window waits before its stop for visitors to leave.
const LEAVE: Duration = Duration::from_secs(10);

/// How long it waits for the gate itself, which visitors hold for a moment when they ask.
const GATE: Duration = Duration::from_secs(5);

/// Whoever reads a site while its service lives.
pub struct Visitor {
    gate: PathBuf,
    presence: PathBuf,
}

/// A visitor with files open. Dropped when they are closed.
#[derive(Debug)]
pub struct Presence {
    _share: Option<File>,
}

/// A gate that is closed: visitors stay away until it is dropped.
#[derive(Debug)]
pub(super) struct Gate {
    _file: File,
}

impl Visitor {
    /// A visitor of a site. Where nothing was ever kept of it there is no window to heed; where the
    /// state directory cannot be used by this process none can be seen.
    #[must_use]
    pub fn of(store: &IntentStore, site: &str) -> Self {
        Self { gate: store.path(site, "gate"), presence: store.path(site, "visitors") }
    }

    /// Whether a window of the site is open, or about to open: to be asked between two files, which
    /// are then to be closed.
    #[must_use]
    pub fn window_open(&self) -> bool {
        // Where there is no gate no window was ever opened.
        let Ok(gate) = File::open(&self.gate) else { return false };
        flock(&gate, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    }

    /// Comes in as soon as no window is open; `None` where a signal came first.
    pub fn enter(&self, clock: &dyn Clock, interrupt: &Interrupt) -> Option<Presence> {
        while !interrupt.is_set() {
            if let Some(presence) = self.try_enter() {
                return Some(presence);
            }
            clock.sleep(PAUSE);
        }
        None
    }

    fn try_enter(&self) -> Option<Presence> {
        let known = self.presence.parent().is_some_and(std::path::Path::is_dir);
        let share = known.then(|| open(&self.presence).ok()).flatten();
        if let Some(share) = &share
            && flock(share, FlockOperation::NonBlockingLockShared).is_err()
        {
            return None;
        }
        (!self.window_open()).then_some(Presence { _share: share })
    }
}

impl Gate {
    /// Closes the gate and waits, within bounds, for visitors to leave; whether all left.
    pub(super) fn close(
        store: &IntentStore,
        site: &str,
        clock: &dyn Clock,
        interrupt: &Interrupt,
    ) -> Result<(Self, bool), LockError> {
        store.prepare()?;
        let locked = |ending: &str, within: Duration| {
            let path = store.path(site, ending);
            let failed = |source| LockError::Io { path: path.clone(), source };
            let file = open(&path).map_err(failed)?;
            let began = clock.monotonic();
            while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                if clock.monotonic().saturating_sub(began) >= within || interrupt.is_set() {
                    return Ok::<_, LockError>(None);
                }
                clock.sleep(PAUSE);
            }
            Ok(Some(file))
        };
        let Some(gate) = locked("gate", GATE)? else {
            return Err(match interrupt.is_set() {
                true => LockError::Interrupted,
                false => LockError::Busy { holder: None },
            });
        };
        // Nobody enters any more, so the share itself need not be kept.
        let all_left = locked("visitors", LEAVE)?.is_some();
        Ok((Self { _file: gate }, all_left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::{SimClock, SystemClock};

    fn place() -> (tempfile::TempDir, IntentStore, Interrupt) {
        let dir = tempfile::tempdir().unwrap();
        let store = IntentStore::open(dir.path());
        (dir, store, Interrupt::manual())
    }

    #[test]
    fn without_a_state_directory_nothing_is_made_and_nobody_waits() {
        let (dir, store, interrupt) = place();
        let visitor = Visitor::of(&store, "a");
        assert!(!visitor.window_open());
        visitor.enter(&SimClock::new(), &interrupt).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[allow(clippy::disallowed_methods, reason = "the processes are real")]
    #[test]
    fn a_window_keeps_visitors_out_and_waits_for_those_inside() {
        let (_dir, store, interrupt) = place();
        store.prepare().unwrap();
        let visitor = Visitor::of(&store, "a");
        let (first, second) = std::thread::scope(|scope| {
            let inside = visitor.enter(&SystemClock, &interrupt).unwrap();
            let window =
                scope.spawn(|| Gate::close(&store, "a", &SystemClock, &interrupt).unwrap());
            while !visitor.window_open() {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(!window.is_finished(), "it waits");
            drop(inside);
            let (gate, all_left) = window.join().unwrap();
            assert!(all_left && visitor.try_enter().is_none());
            let other = Visitor::of(&store, "b");
            assert!(!other.window_open(), "another site is no matter");
            let again = scope.spawn(|| visitor.enter(&SystemClock, &interrupt).is_some());
            std::thread::sleep(Duration::from_millis(150));
            let waited = !again.is_finished();
            drop(gate);
            (waited, again.join().unwrap())
        });
        assert!(first && second, "it comes in when the window is closed");
    }

    #[test]
    fn a_visitor_that_stays_holds_no_window_up_for_long() {
        let (_dir, store, interrupt) = place();
        store.prepare().unwrap();
        let clock = SimClock::new();
        let visitor = Visitor::of(&store, "a");
        let _inside = visitor.enter(&clock, &interrupt).unwrap();
        let (_gate, all_left) = Gate::close(&store, "a", &clock, &interrupt).unwrap();
        assert!(!all_left && clock.monotonic() >= LEAVE && clock.monotonic() < 2 * LEAVE);
        interrupt.trigger();
        assert!(visitor.enter(&clock, &interrupt).is_none());
    }
}
