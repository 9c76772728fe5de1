//! Reading ahead and reading in the window, with what the kernel told of changes in between.

use std::time::Duration;

use super::reading::Surfaces;
use super::{Ahead, Run, SnapshotError};
use crate::host::fanotify::{DirtySet, Watch};
use crate::host::fs::BoundedFs;
use crate::host::process::Device;
use crate::intake::dirty::{Changes, PreRead};
use crate::intake::forest::{self, Forest, IntakeError, ReadInput, Seen};
use crate::intake::look::{SecondLook as Again, touched};
use crate::intake::plan::ReadPlan;
use crate::window::evidence::SecondLook;
use crate::window::phases::Quiescent;

/// Time that writing back has at least while the service lives.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is known of changes since the run began.
pub(super) struct Events {
    watch: Option<Watch>,
    /// Why there is no watch at all.
    why: String,
    dirty: DirtySet,
}

/// How the trees were looked at a second time.
#[derive(Default)]
pub(super) struct Proof {
    pub(super) again: Again,
    /// Roots that were judged by events; all others were looked at again.
    pub(super) by_events: Vec<Vec<u8>>,
    /// Events since the stop.
    pub(super) events: u64,
    /// Why not all roots were judged by events.
    pub(super) why: String,
}

impl Events {
    /// Watches the file systems of all roots from now on.
    pub(super) fn begin(plan: &ReadPlan) -> Self {
        let (watch, why) = match Watch::begin(&plan.roots) {
            Ok(watch) => (Some(watch), String::new()),
            Err(error) => (None, format!("no events: {error}")),
        };
        Self { watch, why, dirty: DirtySet::default() }
    }

    fn gather(&mut self) {
        if let Some(watch) = &self.watch {
            self.dirty.merge(watch.take());
        }
    }

    fn changes<'c>(&'c self, always: &'c [Vec<u8>]) -> Option<Changes<'c>> {
        let watch = self.watch.as_ref().filter(|_| self.is_whole())?;
        Some(Changes { dirty: &self.dirty, covered: watch.covered(), always })
    }

    /// Whether all that changed until the last gathering is known.
    fn is_whole(&self) -> bool {
        self.dirty.is_whole() && self.watch.as_ref().is_some_and(|watch| !watch.mounts_changed())
    }

    /// Whether changes of all file systems of the sources are told.
    pub(super) fn tell_all(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.unwatched().is_empty())
    }

    fn why_not(&self) -> String {
        let Some(watch) = &self.watch else { return self.why.clone() };
        let one = |u: &crate::host::fanotify::Unwatched| format!("{}: {}", u.fs_type, u.why);
        watch.unwatched().iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

impl Run<'_> {
    /// Reads while the service lives: fills store and scan cache, commits nothing. Where much
    /// changed meanwhile, that is read once more, so that the window is short.
    pub(super) fn precopy(
        &mut self,
        events: &mut Events,
    ) -> Result<(PreRead, Ahead, Vec<String>), SnapshotError> {
        self.input.progress.phase("reading ahead", None);
        let never = || false;
        let read = self.read_input(&never);
        let patient =
            BoundedFs::new(PATIENCE.max(self.input.read_timeout), self.input.interrupt.clone());
        let unsynced = self.sync(&patient);
        let forest = forest::read(&ReadInput { unsynced: &unsynced, ..read })?;
        self.writer.publish()?;
        self.believed.insert(self.generation);
        let Seen { files_new: mut new, files_changed: mut changed, .. } = forest.seen;
        let mut problems = forest.seen.problems;
        let mut pre = PreRead::of(forest.first_look);
        events.gather();
        if let Some(changes) = events.changes(&self.input.sqlite_dirs).filter(|changes| {
            let (looked, all) = pre.would_look(changes);
            looked * 5 > all
        }) {
            let read = self.read_input(&never);
            let unsynced = self.sync(&patient);
            let read = ReadInput { unsynced: &unsynced, ..read };
            let forest = forest::read_dirty(&read, pre, &changes)?;
            // What changed while it was read comes with the next gathering.
            events.dirty = DirtySet::default();
            self.writer.publish()?;
            new += forest.seen.files_new;
            changed += forest.seen.files_changed;
            problems = forest.seen.problems;
            pre = PreRead::of(forest.first_look);
        }
        // What was kept on the same file system need not be written in the window.
        self.sync(&patient);
        Ok((pre, Ahead { new, changed }, super::reading::lasting(&self.fs, problems)))
    }

    /// Writes back what is dirty; gives the file systems where that failed, which is told.
    fn sync(&self, fs: &BoundedFs) -> Vec<Device> {
        let failed = forest::sync(fs, &self.input.plan);
        let told = failed.iter().map(|one| {
            let root = super::said(&one.root);
            format!("what is written on the file system of {root} could not be put to rest, and is read again next time: {}", one.error)
        });
        self.warnings.borrow_mut().extend(told);
        failed.into_iter().map(|one| one.dev).collect()
    }

    /// Reads in the window what may have changed, or all, and looks whether anything moved
    /// meanwhile.
    pub(super) fn read_and_look(
        &self,
        quiescent: &Quiescent,
        surfaces: &Surfaces,
        pre: Option<PreRead>,
        events: &mut Events,
    ) -> Result<(Forest, SecondLook), IntakeError> {
        events.gather();
        let over = || quiescent.is_over();
        let read = self.read_input(&over);
        let unsynced = self.sync(&self.fs);
        let read = ReadInput { unsynced: &unsynced, ..read };
        let forest = match (pre, events.changes(&self.input.sqlite_dirs)) {
            (Some(pre), Some(changes)) => forest::read_dirty(&read, pre, &changes)?,
            _ => forest::read(&read)?,
        };
        self.input.progress.phase("looking again", None);
        let proof = self.prove(&read, &forest, events)?;
        let second =
            surfaces.second_look(&self.fs, &self.input.plan, &forest, &proof, &self.input.against);
        Ok((forest, second))
    }

    /// Whether anything moved since the stop: by events where they are told and none was lost, by a
    /// second look elsewhere.
    fn prove(
        &self,
        read: &ReadInput<'_>,
        forest: &Forest,
        events: &Events,
    ) -> Result<Proof, IntakeError> {
        let roots = &self.input.plan.roots;
        let first = &forest.first_look;
        let mut proof = Proof { why: events.why_not(), ..Proof::default() };
        if let Some(watch) = &events.watch {
            let late = watch.take();
            proof.events = late.events;
            if late.is_whole() && !watch.mounts_changed() {
                proof.by_events = first.covered_roots(watch.covered());
                proof.again = touched(&self.fs, first, &late);
            } else {
                proof.why = late.cause.unwrap_or_else(|| "a mount changed".to_owned());
            }
        }
        // A single file can be replaced without an event of its own.
        let by_events = |root: &Vec<u8>| proof.by_events.contains(root) && first.is_directory(root);
        let others: Vec<Vec<u8>> = roots.iter().filter(|r| !by_events(r)).cloned().collect();
        proof.again.merge(forest::look_again_at(read, first, &others)?);
        Ok(proof)
    }
}
