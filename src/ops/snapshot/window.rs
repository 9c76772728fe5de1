//! The window of a snapshot: what is tried before it, the stop, and what is read while it is open.

use std::sync::Arc;

use super::events::Events;
use super::freeze::Freezer;
use super::reading::{Surfaces, warnings_of_readers};
use super::{Ahead, ReadInWindow, Run, SnapshotError, commit_fault, plan};
use crate::base::time::Timestamp;
use crate::intake::consistent::Consistent;
use crate::intake::dirty::PreRead;
use crate::intake::forest::{IntakeError, Unbuilt};
use crate::intake::look::{FirstLook, Inodes};
use crate::window::intent::IntentStore;
use crate::window::observe::ThisMachine;
use crate::window::phases::{AbortReason, Context, Proven, Quiescent, Stopped, arm};
use crate::window::site_lock::SiteLock;

/// A window whose services are stopped, and in which nothing was read yet.
pub(super) struct Opened {
    pub(super) surfaces: Surfaces,
    pub(super) pre: Option<PreRead>,
    pub(super) events: Events,
    pub(super) time: Timestamp,
    pub(super) ahead: Ahead,
}

impl Opened {
    /// Gives a window up whose sources could not be read.
    pub(super) fn given_up(quiescent: Quiescent, error: IntakeError) -> SnapshotError {
        let reason = match error {
            IntakeError::Interrupted => AbortReason::Interrupted,
            error => AbortReason::Reading(Box::new(error)),
        };
        Box::new(quiescent.abort(reason)).into()
    }
}

impl Run<'_> {
    /// Everything between the lease and the commit.
    pub(super) fn window(
        &mut self,
        store: &IntentStore,
        lock: &SiteLock,
    ) -> Result<ReadInWindow, SnapshotError> {
        let input = self.input;
        let freezer = Freezer::prepare(input)?;
        (input.before_reading)();
        let mut events = Events::begin(&input.plan);
        let mut against = input.against.clone();
        let began = input.clock.monotonic();
        let (pre, ahead) = if input.precopy && input.window.mode.stops() {
            let (pre, ahead, unreadable) = self.precopy(&mut events)?;
            against.extend(unreadable);
            (Some(pre), ahead)
        } else {
            (None, Ahead::default())
        };
        let took = input.clock.monotonic().saturating_sub(began);
        if let Some(freezer) = &freezer {
            freezer.check(&events)?;
        }
        let nothing = FirstLook::default();
        let before = pre.as_ref().map_or(&nothing, PreRead::look);
        let surfaces = Surfaces::of(&self.fs, &input.plan, &input.sqlite_dirs);
        let observer = Arc::new(ThisMachine);
        let seen = plan::Ahead { pre: pre.as_ref(), took, precopy: pre.is_some() };
        let trees = surfaces.trees(before);
        if let Some(freezer) = &freezer {
            input.progress.message(&freezer.line());
        }
        let estimate = self.before_the_stop(&mut events, &seen, &*observer, &trees, against)?;
        let context = Context {
            store: store.clone(),
            clock: Arc::clone(&input.clock),
            interrupt: input.interrupt.clone(),
            observer,
            guards: Arc::clone(&input.guards),
        };
        let inodes = before.inodes();
        // The longest downtime counts from the arming on.
        let freezer = freezer.map(|freezer| (freezer.ready(), freezer));
        let armed = arm(input.window.clone(), context, lock)?;
        input.progress.phase("stopping the service", None);
        self.open_countdown(estimate);
        let stopped = armed.stop().map_err(Box::new)?;
        let time = input.clock.now();
        let opened = Opened { surfaces, pre, events, time, ahead };
        match freezer {
            None => self.read_in_window(stopped, opened, &inodes),
            Some((ready, freezer)) => self.read_frozen(stopped, opened, freezer, ready),
        }
    }

    /// Reads in the window what may have changed, or all.
    fn read_in_window(
        &self,
        stopped: Stopped,
        opened: Opened,
        inodes: &Inodes,
    ) -> Result<ReadInWindow, SnapshotError> {
        let Opened { surfaces, pre, mut events, time, ahead } = opened;
        let nothing = FirstLook::default();
        let before = pre.as_ref().map_or(&nothing, PreRead::look);
        self.input.progress.phase("reading", None);
        events.gather();
        let due = stopped.due();
        let over = || due.is_over();
        let rest_now;
        let earlier = self.synced.as_ref().filter(|_| events.cover(before, &self.input.plan));
        // What another node still keeps is written back once it is quiet, and read after that.
        let alone = self.input.window.others.is_empty();
        let (quiescent, read) = if let Some(rest) = earlier.filter(|_| alone) {
            // Whoever changes something meanwhile is told of, so that nobody need be waited for.
            let trees = surfaces.trees(inodes);
            let read = || self.read_stopped(&over, pre, &events, rest);
            let (quiescent, read, once) = stopped.quiesce_beside(&trees, read).map_err(Box::new)?;
            if once {
                (quiescent, read)
            } else {
                let pre = read.and_then(Unbuilt::build).and_then(|forest| {
                    // What is read now builds on pages that were written just now.
                    self.writer.publish()?;
                    Ok(PreRead::of(forest.first_look))
                });
                events.gather();
                let again = |pre| self.read_stopped(&over, Some(pre), &events, rest);
                (quiescent, pre.and_then(again))
            }
        } else {
            let quiescent = stopped.quiesce(&surfaces.trees(before)).map_err(Box::new)?;
            events.gather();
            let rest = match earlier {
                Some(rest) => rest,
                None => {
                    rest_now = self.rest(&self.fs, &self.input.plan);
                    &rest_now
                }
            };
            (quiescent, self.read_stopped(&over, pre, &events, rest))
        };
        let (proven, forest) = self.proven(quiescent, read, (&surfaces, &events), &over)?;
        self.close(proven, forest, time, ahead)
    }

    /// Reads in the window after nothing could be frozen.
    pub(super) fn read_quiescent(
        &self,
        quiescent: Quiescent,
        opened: Opened,
    ) -> Result<ReadInWindow, SnapshotError> {
        let Opened { surfaces, pre, mut events, time, ahead } = opened;
        self.input.progress.phase("reading", None);
        events.gather();
        let due = quiescent.due();
        let over = || due.is_over();
        let rest = self.rest(&self.fs, &self.input.plan);
        let read = self.read_stopped(&over, pre, &events, &rest);
        let (proven, forest) = self.proven(quiescent, read, (&surfaces, &events), &over)?;
        self.close(proven, forest, time, ahead)
    }

    /// The last looks, and what they prove of what was read.
    fn proven<'r>(
        &self,
        mut quiescent: Quiescent,
        read: Result<Unbuilt<'r>, IntakeError>,
        (surfaces, events): (&Surfaces, &Events),
        over: &(dyn Fn() -> bool + Sync),
    ) -> Result<(Proven, Unbuilt<'r>), SnapshotError> {
        let looked = read.and_then(|read| {
            quiescent.look_last(&surfaces.trees(read.first_look()));
            let second = self.look_again(over, surfaces, &read, events)?;
            Ok((read, second))
        });
        let (forest, second) = match looked {
            Ok(looked) => looked,
            Err(error) => return Err(Opened::given_up(quiescent, error)),
        };
        let trees = surfaces.trees(forest.first_look());
        let proven = quiescent.prove_unmoved(&second, &trees).map_err(Box::new)?;
        Ok((proven, forest))
    }

    /// The start, and what needs the sources no more.
    fn close(
        &self,
        proven: Proven,
        forest: Unbuilt<'_>,
        time: Timestamp,
        ahead: Ahead,
    ) -> Result<ReadInWindow, SnapshotError> {
        self.input.progress.phase("starting the service", None);
        let (forest, mut restarted) = match proven {
            Proven::Undisturbed(proof) => (Ok(Consistent::mint(forest, &proof)), proof.restart()),
            Proven::Disturbed(window) => (Err(forest), window.restart()),
        };
        self.input.progress.window(None);
        warnings_of_readers(&mut restarted);
        let built = match forest {
            Ok(proven) => proven.try_map(Unbuilt::build).map(Ok),
            Err(forest) => forest.build().map(Err),
        };
        match built {
            Ok(forest) => Ok(ReadInWindow { forest, restarted, time, ahead }),
            Err(error) => Err(commit_fault(self.input, &restarted, error.into())),
        }
    }
}
