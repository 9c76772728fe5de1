//! The last steps before the stop: reading ahead, waiting until nothing is rendered, and what stands
//! against a proof.

use std::time::Duration;

use super::events::Events;
use super::reading::Surfaces;
use super::{Ahead, Run, SnapshotError};
use crate::intake::dirty::PreRead;
use crate::intake::look::{FirstLook, Inodes};
use crate::window::before::obstacles;
use crate::window::observe::{Observer, Trees};

/// What is at hand when the service is about to be stopped.
pub(super) struct Prepared {
    pub(super) events: Events,
    /// What was read ahead, if anything.
    pub(super) pre: Option<PreRead>,
    pub(super) ahead: Ahead,
    pub(super) surfaces: Surfaces,
    /// The inodes that were read ahead.
    pub(super) inodes: Inodes,
}

impl Run<'_> {
    /// Everything that can be done, or can fail, before something is stopped.
    pub(super) fn prepare(&mut self, observer: &dyn Observer) -> Result<Prepared, SnapshotError> {
        let input = self.input;
        let mut events = Events::begin(&input.plan);
        let mut against = input.against.clone();
        let (pre, ahead) = if input.precopy && input.window.mode.stops() {
            let (pre, ahead, unreadable) = self.precopy(&mut events)?;
            against.extend(unreadable);
            (Some(pre), ahead)
        } else {
            (None, Ahead::default())
        };
        let inodes =
            pre.as_ref().map_or_else(|| FirstLook::default().inodes(), |p| p.look().inodes());
        let surfaces = Surfaces::of(&input.plan, &input.sqlite_dirs);
        let trees = surfaces.trees(&inodes);
        self.wait_idle(observer, &trees);
        against.extend(obstacles(&input.window, observer, &trees, events.tell_all()));
        if input.window.mode.stops() && !against.is_empty() && !input.window.allow_capture {
            return Err(SnapshotError::Refused(against));
        }
        Ok(Prepared { events, pre, ahead, surfaces, inodes })
    }

    /// Postpones the stop while the server's children, or anybody else, use the sources: renderings
    /// outlive a stop and would hold the window open.
    fn wait_idle(&self, observer: &dyn Observer, trees: &Trees<'_>) {
        let input = self.input;
        if input.wait_idle.is_zero() || !input.window.mode.stops() {
            return;
        }
        input.progress.phase("waiting for renderings to end", None);
        let servers =
            input.window.services.iter().filter_map(|s| s.service.status().ok()?.main_pid);
        let mut tolerated = trees.exclude.to_vec();
        tolerated.extend(servers);
        let began = input.clock.monotonic();
        loop {
            let uses = observer.scan(&Trees { exclude: &tolerated, ..*trees });
            // What cannot be looked at is the obstacles' to tell.
            let idle = uses.map_or(true, |found| found.is_none_or(|found| found.uses.is_empty()));
            let waited = input.clock.monotonic().saturating_sub(began);
            if idle || waited >= input.wait_idle || input.interrupt.is_set() {
                return;
            }
            input.clock.sleep(Duration::from_secs(1).min(input.wait_idle - waited));
        }
    }
}
