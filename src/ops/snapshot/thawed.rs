//! A window that ends before the sources are read: they were frozen in it.

use super::events::{Events, Late, Proof};
use super::freeze::{Freezer, FrozenSources};
use super::reading::{Surfaces, looked};
use super::{Ahead, CommitFault, ReadInWindow, Run, SnapshotError, warnings_of_readers};
use crate::base::time::Timestamp;
use crate::intake::consistent::Consistent;
use crate::intake::dirty::PreRead;
use crate::intake::forest::{self, Forest, IntakeError, ReadInput, Seen, Top, Tops};
use crate::intake::look::{FirstLook, touched};
use crate::window::evidence::{SecondLook, TreeLook};
use crate::window::phases::{AbortReason, Judged, Quiescent, Thawed};
use crate::window::start::fell_over;

/// A window in which everything is still, and nothing was read yet.
pub(super) struct Opened<'o> {
    pub(super) quiescent: Quiescent,
    pub(super) surfaces: &'o Surfaces,
    pub(super) pre: Option<PreRead>,
    pub(super) events: &'o mut Events,
    pub(super) time: Timestamp,
    pub(super) ahead: Ahead,
}

/// What was read in the window beside what was frozen.
#[derive(Default)]
struct Beside {
    tops: Vec<Top>,
    seen: Seen,
    proof: Proof,
    late: Option<Late>,
}

impl Run<'_> {
    /// Freezes, starts, and reads what was frozen. Where nothing can be frozen it is read in the window,
    /// which is said.
    pub(super) fn read_frozen(
        &self,
        opened: Opened<'_>,
        mut freezer: Freezer<'_>,
        ready: Result<(), String>,
    ) -> Result<ReadInWindow, SnapshotError> {
        self.input.progress.phase("freezing", None);
        opened.events.gather();
        let frozen = ready.and_then(|()| self.freeze(&opened, &mut freezer));
        let read = match frozen {
            Ok(frozen) => {
                let beside = self.read_beside(&opened, &frozen);
                match beside {
                    Ok(beside) => {
                        match beside.late.as_ref().map_or(Some(String::new()), Late::lost) {
                            None => self.thaw(opened, frozen, beside),
                            Some(why) => self.not_frozen(opened, beside, &why),
                        }
                    }
                    Err(error) => Err(given_up(opened.quiescent, error)),
                }
            }
            Err(why) => self.not_frozen(opened, Beside::default(), &why),
        };
        let left = freezer.remove();
        read.map(|mut read| {
            read.restarted.warnings.extend(left);
            read
        })
    }

    /// Freezes where what changes is told by events: they are the proof that all that was frozen, and
    /// what is read beside it, is of one moment.
    fn freeze(
        &self,
        opened: &Opened<'_>,
        freezer: &mut Freezer<'_>,
    ) -> Result<FrozenSources, String> {
        let events = &*opened.events;
        let roots = freezer.roots();
        if events.changes(&self.input.sqlite_dirs).is_none() || !events.cover(&roots) {
            return Err(format!("changes are not told: {}", events.why_not()));
        }
        freezer.freeze(opened.quiescent.time_left())
    }

    /// Reads in the window after all.
    fn not_frozen(
        &self,
        opened: Opened<'_>,
        beside: Beside,
        why: &str,
    ) -> Result<ReadInWindow, SnapshotError> {
        if let Some(late) = beside.late {
            opened.events.dirty.merge(late.set);
        }
        let mut read = self.read_in_window(opened)?;
        let said = format!("nothing was frozen, and all was read in the window: {why}");
        read.restarted.warnings.push(said);
        Ok(read)
    }

    /// Reads in the window what was not frozen, and takes what was told since the stop.
    fn read_beside(
        &self,
        opened: &Opened<'_>,
        frozen: &FrozenSources,
    ) -> Result<Beside, IntakeError> {
        let plan = &self.input.plan;
        let mut roots = plan.roots.clone();
        roots.retain(|root| !frozen.roots.contains(root));
        if roots.is_empty() {
            return Ok(Beside { late: opened.events.late(), ..Beside::default() });
        }
        let live = plan.only(roots);
        let over = || opened.quiescent.is_over();
        let read = ReadInput { plan: &live, tops: Tops::Apart, ..self.read_input(&over) };
        forest::sync(self.fs, &live);
        let pre = opened.pre.as_ref().map(|pre| pre.only(&live.roots));
        let forest = match (pre, opened.events.changes(&self.input.sqlite_dirs)) {
            (Some(pre), Some(changes)) => forest::read_dirty(&read, pre, &changes)?,
            _ => forest::read(&read)?,
        };
        let late = opened.events.late();
        let proof = self.prove_by(&read, &forest, opened.events, late.as_ref())?;
        Ok(Beside { tops: forest.tops, seen: forest.seen, proof, late })
    }

    /// The evidence, the start, and then the reading.
    fn thaw(
        &self,
        opened: Opened<'_>,
        frozen: FrozenSources,
        mut beside: Beside,
    ) -> Result<ReadInWindow, SnapshotError> {
        let Opened { quiescent, surfaces, pre, events, time, ahead } = opened;
        let input = self.input;
        beside.proof.by_events.extend(frozen.roots.iter().cloned());
        let sqlite = surfaces.databases(&mut beside.seen.problems);
        let second =
            SecondLook { sqlite, trees: by(input, &beside.proof), ..SecondLook::default() };
        let nothing = FirstLook::default();
        let before = pre.as_ref().map_or(&nothing, PreRead::look);
        let gathered = quiescent.gather(&second, &surfaces.trees(before)).map_err(Box::new)?;
        input.progress.phase("starting the service", None);
        let thawed = gathered.restart(vec![frozen.record.clone()]);
        input.progress.phase("reading what was frozen", None);
        let forest = match self.read_still(&frozen, pre, events, &beside.tops) {
            Ok(forest) => forest,
            Err(error) => return Err(self.not_read(&thawed, error)),
        };
        let (forest, judged) = self.judge(&frozen, beside, thawed, forest);
        let (forest, mut restarted) = match judged {
            Judged::Held(proof) => {
                (Ok(Consistent::of_frozen(forest, &proof)), proof.into_restarted())
            }
            Judged::Broken(restarted) => (Err(forest), restarted),
        };
        restarted.warnings.extend(frozen.warnings);
        warnings_of_readers(&mut restarted);
        Ok(ReadInWindow { forest, restarted, time, ahead })
    }

    fn read_still(
        &self,
        frozen: &FrozenSources,
        pre: Option<PreRead>,
        events: &Events,
        beside: &[Top],
    ) -> Result<Forest, IntakeError> {
        let never = || false;
        let plan = self.input.plan.only(frozen.roots.clone());
        let read = ReadInput {
            fs: &frozen.fs,
            plan: &plan,
            synced: frozen.before,
            tops: Tops::Joined(beside),
            ..self.read_input(&never)
        };
        match (pre, events.changes(&self.input.sqlite_dirs)) {
            (Some(pre), Some(changes)) => forest::read_dirty(&read, pre, &changes),
            _ => forest::read(&read),
        }
    }

    /// Judges by what was told before the start, now that it is known which inodes the sources have.
    fn judge(
        &self,
        frozen: &FrozenSources,
        beside: Beside,
        thawed: Thawed,
        mut forest: Forest,
    ) -> (Forest, Judged) {
        let Beside { seen, mut proof, late, .. } = beside;
        if let Some(late) = &late {
            proof.events = late.set.events;
            proof.again.merge(touched(&frozen.fs, &forest.first_look, &late.set));
        }
        (proof.frozen, proof.how) = (frozen.roots.clone(), frozen.said());
        forest.seen.add(seen);
        let problems = &forest.seen.problems;
        let look = looked(&self.input.plan, problems, &proof, &self.input.against);
        let judged = thawed.judge(&look);
        (forest, judged)
    }

    fn not_read(&self, thawed: &Thawed, error: IntakeError) -> SnapshotError {
        let restarted = thawed.restarted();
        let mut not_running = restarted.not_running.clone();
        not_running.extend(fell_over(&self.input.window, restarted, &*self.input.clock));
        SnapshotError::Commit { source: Box::new(CommitFault::Read(error)), not_running }
    }
}

/// Which trees are judged by events.
fn by(input: &super::SnapshotInput<'_>, proof: &Proof) -> Vec<TreeLook> {
    let one = |root: &Vec<u8>| TreeLook {
        path: root.clone(),
        by: String::new(),
        by_events: proof.by_events.contains(root),
        changed: 0,
        examples: Vec::new(),
    };
    input.plan.roots.iter().map(one).collect()
}

/// The window is given up, because the sources could not be read.
pub(super) fn given_up(quiescent: Quiescent, error: IntakeError) -> SnapshotError {
    let reason = match error {
        IntakeError::Interrupted => AbortReason::Interrupted,
        error => AbortReason::Reading(Box::new(error)),
    };
    Box::new(quiescent.abort(reason)).into()
}
