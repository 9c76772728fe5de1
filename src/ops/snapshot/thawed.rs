//! A window that ends before the sources are read: they were frozen in it.

use super::events::{Events, Late, Proof, Rest, after};
use super::freeze::{Freezer, FrozenSources};
use super::reading::looked;
use super::reading::warnings_of_readers;
use super::window::Opened;
use super::{ReadInWindow, Run, SnapshotError, SnapshotInput, commit_fault};
use crate::intake::consistent::Consistent;
use crate::intake::dirty::PreRead;
use crate::intake::forest::{self, Forest, IntakeError, ReadInput, Unbuilt};
use crate::intake::look::{FirstLook, touched};
use crate::intake::plan::ReadPlan;
use crate::window::evidence::{SecondLook, TreeLook};
use crate::window::phases::{Judged, Quiescent, Stopped, Thawed};

/// What was read in the window beside what was frozen.
struct Beside<'a> {
    read: Option<Unbuilt<'a>>,
    proof: Proof,
    late: Option<Late>,
}

impl Run<'_> {
    /// Freezes, starts, and reads what was frozen. Where nothing can be frozen it is read in the window,
    /// which is said.
    pub(super) fn read_frozen(
        &self,
        stopped: Stopped,
        mut opened: Opened,
        mut freezer: Freezer<'_>,
        ready: Result<(), String>,
    ) -> Result<ReadInWindow, SnapshotError> {
        let nothing = FirstLook::default();
        let before = opened.pre.as_ref().map_or(&nothing, PreRead::look);
        let quiescent = stopped.quiesce(&opened.surfaces.trees(before)).map_err(Box::new)?;
        self.input.progress.phase("freezing", None);
        opened.events.gather();
        let frozen = ready.and_then(|()| self.freeze(&quiescent, &opened.events, &mut freezer));
        let read = match frozen {
            Ok(frozen) => self.thaw(quiescent, opened, frozen),
            Err(why) => {
                let read = self.read_quiescent(quiescent, opened);
                read.map(|mut read| {
                    let said = format!("nothing was frozen, and all was read in the window: {why}");
                    read.restarted.warnings.push(said);
                    read
                })
            }
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
        quiescent: &Quiescent,
        events: &Events,
        freezer: &mut Freezer<'_>,
    ) -> Result<FrozenSources, String> {
        if events.changes(&self.input.sqlite_dirs).is_none() || !events.watches(&freezer.roots()) {
            return Err(format!("changes are not told: {}", events.why_not()));
        }
        freezer.freeze(quiescent.time_left())
    }

    /// Reads in the window what was not frozen, and takes what was told since the stop.
    fn read_beside<'b>(
        &'b self,
        live: &'b ReadPlan,
        pre: Option<&PreRead>,
        events: &'b Events,
        over: &'b (dyn Fn() -> bool + Sync),
        rest: &'b Rest,
        look_last: impl FnOnce(),
    ) -> Result<Beside<'b>, IntakeError> {
        if live.roots.is_empty() {
            look_last();
            return Ok(Beside { read: None, proof: Proof::default(), late: events.late() });
        }
        let read = ReadInput { plan: live, ..after(self.read_input(over), rest) };
        let pre = pre.map(|pre| pre.only(&live.roots));
        let unbuilt = match (pre, events.changes(&self.input.sqlite_dirs)) {
            (Some(pre), Some(changes)) => forest::read_dirty_only(&read, pre, &changes)?,
            _ => forest::read_only(&read)?,
        };
        look_last();
        let late = events.late();
        let proof = self.prove_by(&read, unbuilt.first_look(), events, late.as_ref())?;
        Ok(Beside { read: Some(unbuilt), proof, late })
    }

    /// The rest of the window, the evidence, the start, and then the reading.
    fn thaw(
        &self,
        mut quiescent: Quiescent,
        opened: Opened,
        frozen: FrozenSources,
    ) -> Result<ReadInWindow, SnapshotError> {
        let input = self.input;
        let Opened { surfaces, pre, mut events, time, ahead } = opened;
        let mut roots = input.plan.roots.clone();
        roots.retain(|root| !frozen.roots.contains(root));
        let live = input.plan.only(roots);
        let due = quiescent.due();
        let over = || due.is_over();
        let rest = self.rest(&self.fs, &live);
        let nothing = FirstLook::default();
        let before = pre.as_ref().map_or(&nothing, PreRead::look);
        let last = || quiescent.look_last(&surfaces.trees(before));
        let (read, mut proof, late) =
            match self.read_beside(&live, pre.as_ref(), &events, &over, &rest, last) {
                Ok(Beside { read, proof, late }) => (read, proof, late),
                Err(error) => return Err(Opened::given_up(quiescent, error)),
            };
        if let Some(why) = late.as_ref().map_or(Some("no events".to_owned()), Late::lost) {
            drop(read);
            late.into_iter().for_each(|late| events.dirty.merge(late.set));
            let opened = Opened { surfaces, pre, events, time, ahead };
            let mut read = self.read_quiescent(quiescent, opened)?;
            let said = format!("what was frozen is not used, all was read in the window: {why}");
            read.restarted.warnings.push(said);
            return Ok(read);
        }
        proof.by_events.extend(frozen.roots.iter().cloned());
        let mut problems = Vec::new();
        let sqlite = surfaces.databases(&self.fs, &mut problems);
        let still_open = read.iter().flat_map(|read| read.still_open().to_vec()).collect();
        let second =
            SecondLook { sqlite, still_open, trees: by(input, &proof), ..SecondLook::default() };
        let gathered = quiescent.gather(&second, &surfaces.trees(before)).map_err(Box::new)?;
        input.progress.phase("starting the service", None);
        let thawed = gathered.restart(vec![frozen.record.clone()]);
        input.progress.window(None);
        input.progress.phase("reading what was frozen", None);
        let forest = match self.read_still(&frozen, pre, &events, read) {
            Ok(mut forest) => {
                forest.seen.problems.extend(problems);
                forest
            }
            Err(error) => return Err(commit_fault(input, thawed.restarted(), error.into())),
        };
        let judged = self.judge(&frozen, (proof, late), thawed, &forest);
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

    /// Reads what was frozen, and joins it with what was read in the window.
    fn read_still(
        &self,
        frozen: &FrozenSources,
        pre: Option<PreRead>,
        events: &Events,
        beside: Option<Unbuilt<'_>>,
    ) -> Result<Forest, IntakeError> {
        let beside = beside.map(Unbuilt::build_apart).transpose()?;
        let never = || false;
        let plan = self.input.plan.only(frozen.roots.clone());
        let read = ReadInput {
            fs: &frozen.fs,
            plan: &plan,
            synced: frozen.before,
            // The service runs again.
            manners: Some(&self.input.manners),
            ..self.read_input(&never)
        };
        let mut unbuilt = match (pre, events.changes(&self.input.sqlite_dirs)) {
            (Some(pre), Some(changes)) => forest::read_dirty_only(&read, pre, &changes)?,
            _ => forest::read_only(&read)?,
        };
        beside.into_iter().for_each(|beside| unbuilt.join(beside));
        unbuilt.build()
    }

    /// Judges by what was told before the start, now that it is known which inodes the sources have.
    fn judge(
        &self,
        frozen: &FrozenSources,
        (mut proof, late): (Proof, Option<Late>),
        thawed: Thawed,
        forest: &Forest,
    ) -> Judged {
        if let Some(late) = &late {
            proof.events = late.set.events;
            proof.again.merge(touched(&frozen.fs, &forest.first_look, &late.set));
        }
        (proof.frozen, proof.how) = (frozen.roots.clone(), frozen.said());
        let (plan, problems) = (&self.input.plan, &forest.seen.problems);
        thawed.judge(&looked(plan, problems, &proof, &self.input.against))
    }
}

/// Which trees are judged by events.
fn by(input: &SnapshotInput<'_>, proof: &Proof) -> Vec<TreeLook> {
    let one = |root: &Vec<u8>| TreeLook {
        path: root.clone(),
        by: String::new(),
        by_events: proof.by_events.contains(root),
        changed: 0,
        examples: Vec::new(),
    };
    input.plan.roots.iter().map(one).collect()
}
