//! What lives beside the demonstration, and how it ends.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Child;

use rustix::process::{Pid, Signal, WaitOptions};

use super::DemoError;
use super::site::Places;
use super::steps::{CLEARING, LOOK, PATIENCE, failed, len, toy_failed};
use super::toy::{self, Note};
use crate::base::progress::{OpenWindow, Progress, Total};
use crate::host::clock::Clock;

/// Passes on how far a snapshot is. Between the reading and the second look it waits until the
/// rendering has written once more: however fast the reading was, there is something to notice.
pub(super) struct Watched<'a> {
    pub(super) inner: &'a dyn Progress,
    pub(super) file: &'a Path,
    pub(super) clock: &'a dyn Clock,
}

impl Progress for Watched<'_> {
    fn phase(&self, name: &str, total: Option<Total>) {
        self.inner.phase(name, total);
        if name == "looking again" {
            let (before, began) = (len(self.file), self.clock.monotonic());
            while len(self.file) == before
                && self.clock.monotonic().saturating_sub(began) < PATIENCE
            {
                self.clock.sleep(LOOK);
            }
        }
    }

    fn advance(&self, files: u64, bytes: u64) {
        self.inner.advance(files, bytes);
    }

    fn window(&self, open: Option<OpenWindow>) {
        self.inner.window(open);
    }

    fn message(&self, text: &str) {
        self.inner.message(text);
    }

    fn warn(&self, text: &str) {
        self.inner.warn(text);
    }

    fn finish(&self) {
        self.inner.finish();
    }
}

/// All that lives beside this process. It ends with it, whatever happens.
pub(super) struct Living<'a> {
    pub(super) places: Places,
    pub(super) clock: &'a dyn Clock,
    pub(super) rendering: RefCell<Option<Child>>,
    /// Processes that the service was, to be waited for.
    pub(super) pids: RefCell<BTreeSet<u32>>,
}

impl Living<'_> {
    pub(super) fn end_rendering(&self, step: &'static str) -> Result<(), DemoError> {
        let Some(mut child) = self.rendering.take() else { return Ok(()) };
        let killed = child.kill().and_then(|()| child.wait());
        killed.map(|_| ()).map_err(failed(step))
    }

    /// Ends the service in order, or by force where it does not end.
    fn end_service(&self) -> Result<(), DemoError> {
        let ended = toy::end(&self.places, Signal::TERM, self.clock);
        if ended.is_err() {
            toy::end(&self.places, Signal::KILL, self.clock).map_err(toy_failed(CLEARING))?;
        }
        let last = Note::read(&self.places).map_err(toy_failed(CLEARING))?;
        self.pids.borrow_mut().extend(last.as_ref().map(|note| note.pid));
        for pid in self.pids.take() {
            let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
            // One that is no child of this process is waited for by whoever it belongs to.
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
        }
        ended.map_err(toy_failed(CLEARING))
    }

    pub(super) fn clear(&self) -> Result<(), DemoError> {
        let rendering = self.end_rendering(CLEARING);
        let service = self.end_service();
        rendering.and(service)
    }
}

impl Drop for Living<'_> {
    /// For a panic alone: every other ending clears, and tells what went wrong.
    fn drop(&mut self) {
        let _ = self.clear();
    }
}
