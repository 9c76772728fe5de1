//! Reading ahead and reading in the window, with what the kernel told of changes in between.

use std::time::Duration;

use super::reading::Surfaces;
use super::{Ahead, Run, SnapshotError};
use crate::base::time::Timestamp;
use crate::host::fanotify::{DirtySet, Watch};
use crate::host::fs::BoundedFs;
use crate::host::process::Device;
use crate::intake::dirty::{Changes, PreRead};
use crate::intake::forest::{self, IntakeError, ReadInput, Unbuilt};
use crate::intake::look::{FirstLook, SecondLook as Again, touched};
use crate::intake::plan::ReadPlan;
use crate::window::evidence::SecondLook;

/// Time that writing back has at least while the service lives.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is known of changes since the run began.
pub(super) struct Events {
    pub(super) watch: Option<Watch>,
    /// Why there is no watch at all.
    why: String,
    pub(super) dirty: DirtySet,
}

/// When what was dirty was written back, and the file systems where that failed.
pub(super) struct Rest {
    pub(super) at: Timestamp,
    pub(super) failed: Vec<Device>,
}

/// A read that comes after a write-back.
pub(super) fn after<'r>(read: ReadInput<'r>, rest: &'r Rest) -> ReadInput<'r> {
    ReadInput { synced: rest.at, unsynced: &rest.failed, ..read }
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
    /// Roots that were frozen ...
    pub(super) frozen: Vec<Vec<u8>>,
    /// ... and how.
    pub(super) how: String,
}

/// What the kernel told since the stop.
pub(super) struct Late {
    pub(super) set: DirtySet,
    moved: bool,
}

impl Late {
    /// Why not all that happened is known.
    pub(super) fn lost(&self) -> Option<String> {
        if !self.set.is_whole() {
            return Some(self.set.cause.clone().unwrap_or_else(|| "events were lost".to_owned()));
        }
        self.moved.then(|| "a mount changed".to_owned())
    }
}

impl Events {
    /// What was told since it was gathered last.
    pub(super) fn late(&self) -> Option<Late> {
        let watch = self.watch.as_ref()?;
        Some(Late { set: watch.take(), moved: watch.mounts_changed() })
    }

    /// Whether changes of these roots are told.
    pub(super) fn watches(&self, roots: &[Vec<u8>]) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.covers(roots))
    }

    /// Watches the file systems of all roots from now on.
    pub(super) fn begin(plan: &ReadPlan) -> Self {
        let (watch, why) = match Watch::begin(&plan.roots) {
            Ok(watch) => (Some(watch), String::new()),
            Err(error) => (None, format!("no events: {error}")),
        };
        Self { watch, why, dirty: DirtySet::default() }
    }

    /// Takes what the kernel told until now.
    pub(super) fn gather(&mut self) {
        if let Some(watch) = &self.watch {
            self.dirty.merge(watch.take());
        }
    }

    pub(super) fn changes<'c>(&'c self, always: &'c [Vec<u8>]) -> Option<Changes<'c>> {
        let watch = self.watch.as_ref().filter(|_| self.is_whole())?;
        Some(Changes { dirty: &self.dirty, covered: watch.covered(), always })
    }

    /// Whether all that changed until the last gathering is known.
    fn is_whole(&self) -> bool {
        self.dirty.is_whole() && self.watch.as_ref().is_some_and(|watch| !watch.mounts_changed())
    }

    /// Whether whatever changes in the sources is told, as far as that is known now.
    pub(super) fn cover(&self, look: &FirstLook, plan: &ReadPlan) -> bool {
        let Some(watch) = self.watch.as_ref().filter(|_| self.is_whole()) else { return false };
        let covered = look.covered_roots(watch.covered());
        plan.roots.iter().all(|root| covered.contains(root))
    }

    /// Whether changes of all file systems of the sources are told.
    pub(super) fn tell_all(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.unwatched().is_empty())
    }

    /// Whether changes of any file system of the sources are told.
    pub(super) fn tell_some(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| !watch.covered().is_empty())
    }

    pub(super) fn why_not(&self) -> String {
        let Some(watch) = &self.watch else { return self.why.clone() };
        let one = |u: &crate::host::fanotify::Unwatched| format!("{}: {}", u.fs_type, u.why);
        watch.unwatched().iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

impl Run<'_> {
    /// Reads as long as it takes, while the service lives.
    fn read_gently(&self) -> ReadInput<'_> {
        ReadInput { manners: Some(&self.input.manners), ..self.read_input(&|| false) }
    }

    /// Reads while the service lives: fills store and scan cache, commits nothing. Where much
    /// changed meanwhile, that is read once more, so that the window is short.
    pub(super) fn precopy(
        &mut self,
        events: &mut Events,
    ) -> Result<(PreRead, Ahead, Vec<String>), SnapshotError> {
        self.input.progress.phase("reading ahead", None);
        let patient =
            BoundedFs::new(PATIENCE.max(self.input.read_timeout), self.input.interrupt.clone());
        let plan = &self.input.plan;
        let rest = self.rest(&patient, plan);
        let forest = forest::read(&after(self.read_gently(), &rest))?;
        self.writer.publish()?;
        self.believed.insert(self.generation);
        let (mut new, mut changed) = (forest.seen.files_new, forest.seen.files_changed);
        let mut problems = forest.seen.problems;
        let mut pre = PreRead::of(forest.first_look);
        events.gather();
        if let Some(changes) = events.changes(&self.input.sqlite_dirs).filter(|changes| {
            let (looked, all) = pre.would_look(changes);
            looked * 5 > all
        }) {
            let rest = self.rest(&patient, plan);
            let read = after(self.read_gently(), &rest);
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
        let rest = self.rest(&patient, plan);
        self.synced = Some(rest);
        Ok((pre, Ahead { new, changed }, super::reading::lasting(&self.fs, problems)))
    }

    /// Writes back what is dirty on the file systems of a plan. Where that failed is told.
    pub(super) fn rest(&self, fs: &BoundedFs, plan: &ReadPlan) -> Rest {
        let at = self.input.clock.now();
        let failed = forest::sync(fs, plan);
        let told = failed.iter().map(|one| {
            let root = super::said(&one.root);
            let error = &one.error;
            format!(
                "what is written on the file system of {root} could not be put to rest, and is \
                 read again next time: {error}"
            )
        });
        self.warnings.borrow_mut().extend(told);
        Rest { at, failed: failed.into_iter().map(|one| one.dev).collect() }
    }

    /// Reads in the window what may have changed, or all. Trees are built later.
    ///
    /// Where `rest` is an earlier write-back, what changed since is young, and the next run reads it
    /// once more while the service lives.
    pub(super) fn read_stopped<'r>(
        &'r self,
        over: &'r (dyn Fn() -> bool + Sync),
        pre: Option<PreRead>,
        events: &'r Events,
        rest: &'r Rest,
    ) -> Result<Unbuilt<'r>, IntakeError> {
        let read = after(self.read_input(over), rest);
        match (pre, events.changes(&self.input.sqlite_dirs)) {
            (Some(pre), Some(changes)) => forest::read_dirty_only(&read, pre, &changes),
            _ => forest::read_only(&read),
        }
    }

    /// Looks whether anything moved since the reading began.
    pub(super) fn look_again(
        &self,
        over: &(dyn Fn() -> bool + Sync),
        surfaces: &Surfaces,
        forest: &Unbuilt<'_>,
        events: &Events,
    ) -> Result<SecondLook, IntakeError> {
        self.input.progress.phase("looking again", None);
        let proof = self.prove(&self.read_input(over), forest.first_look(), events)?;
        Ok(surfaces.second_look(self, forest, &proof))
    }

    /// Whether anything moved since the stop: by events where they are told and none was lost, by a
    /// second look elsewhere.
    fn prove(
        &self,
        read: &ReadInput<'_>,
        first: &FirstLook,
        events: &Events,
    ) -> Result<Proof, IntakeError> {
        self.prove_by(read, first, events, events.late().as_ref())
    }

    /// As [`Run::prove`], for the roots of one read, by events that were taken.
    pub(super) fn prove_by(
        &self,
        read: &ReadInput<'_>,
        first: &FirstLook,
        events: &Events,
        late: Option<&Late>,
    ) -> Result<Proof, IntakeError> {
        let mut proof = Proof { why: events.why_not(), ..Proof::default() };
        if let (Some(late), Some(watch)) = (late, &events.watch) {
            proof.events = late.set.events;
            match late.lost() {
                None => {
                    proof.by_events = first.covered_roots(watch.covered());
                    proof.again = touched(&self.fs, first, &late.set);
                }
                Some(why) => proof.why = why,
            }
        }
        // A single file can be replaced without an event of its own.
        let by_events = |root: &Vec<u8>| proof.by_events.contains(root) && first.is_directory(root);
        let roots = read.plan.roots.iter();
        let others: Vec<Vec<u8>> = roots.filter(|root| !by_events(root)).cloned().collect();
        proof.again.merge(forest::look_again_at(read, first, &others)?);
        Ok(proof)
    }
}
