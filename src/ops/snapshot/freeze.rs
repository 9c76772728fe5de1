//! Freezing the sources in the window, so that the service starts before they are read.

use std::ffi::OsStr;
use std::time::Duration;

use super::events::Events;
use super::{SnapshotError, SnapshotInput, said};
use crate::base::time::Timestamp;
use crate::format::manifest::FrozenRecord;
use crate::host::clock::Clock;
use crate::host::entropy::{Entropy, SystemEntropy};
use crate::host::freeze::{BtrfsFreezer, Frozen, FrozenFs, MountedFreezer, Unfrozen};
use crate::host::machine;
use crate::host::run::{CommandLine, run_bounded};
use crate::window::frozen::{FrozenNote, FrozenStore, Removal};

/// Longest time for the command that freezes, whatever the service may be down.
const CREATING: Duration = Duration::from_secs(120);

/// How sources are to be held still while they are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FreezeKind {
    /// The best that there is.
    Auto,
    /// By the stop alone.
    None,
    /// Snapshots of btrfs.
    Btrfs,
    /// The operator's own commands.
    Command,
}

/// What an operator wishes.
#[derive(Clone, Debug)]
pub struct FreezeWish {
    /// How.
    pub kind: FreezeKind,
    /// The command that freezes, empty where there is none.
    pub create: Vec<String>,
    /// Where what it froze is seen.
    pub path: Vec<u8>,
    /// The command that removes it.
    pub remove: Vec<String>,
}

impl FreezeWish {
    /// Nothing is frozen.
    #[must_use]
    pub const fn none() -> Self {
        Self { kind: FreezeKind::None, create: vec![], path: vec![], remove: vec![] }
    }
}

enum How {
    Btrfs(BtrfsFreezer),
    Command(MountedFreezer),
}

/// Sources that will be frozen. What was made goes when this is dropped.
pub(super) struct Freezer<'a> {
    input: &'a SnapshotInput<'a>,
    how: How,
    store: FrozenStore,
    note: FrozenNote,
    gone: bool,
}

/// Sources that were frozen.
pub(super) struct FrozenSources {
    pub(super) fs: FrozenFs,
    pub(super) roots: Vec<Vec<u8>>,
    /// A moment before all of it, by which times of inodes are judged.
    pub(super) before: Timestamp,
    pub(super) record: FrozenRecord,
    pub(super) warnings: Vec<String>,
}

impl FrozenSources {
    /// How, for people.
    pub(super) fn said(&self) -> String {
        let FrozenRecord { made, took_ms, .. } = &self.record;
        format!("frozen in {took_ms} ms: {made}")
    }
}

impl<'a> Freezer<'a> {
    /// Finds out what can be frozen, before anything is stopped. `None` where nothing is.
    ///
    /// # Errors
    /// [`SnapshotError::Freeze`] where what was asked for by name cannot work.
    pub(super) fn prepare(input: &'a SnapshotInput<'a>) -> Result<Option<Self>, SnapshotError> {
        let wish = &input.freeze;
        let refuse = |why: String| Err(SnapshotError::Freeze(why));
        let kind = match wish.kind {
            FreezeKind::None => return Ok(None),
            FreezeKind::Auto if !input.window.mode.stops() => return Ok(None),
            FreezeKind::Auto if !wish.create.is_empty() => FreezeKind::Command,
            FreezeKind::Auto if !machine::is_root() => return Ok(None),
            kind => kind,
        };
        let asked = wish.kind != FreezeKind::Auto;
        let made = Self::make(input, kind);
        let (freezer, unfrozen) = match made {
            Ok(made) => made,
            Err(why) if asked => return refuse(why),
            Err(_) => return Ok(None),
        };
        if let Some(freezer) = freezer {
            return Ok(Some(freezer));
        }
        match asked {
            true if unfrozen.is_empty() => refuse("no source is a directory".to_owned()),
            true => refuse(listed(&unfrozen)),
            false => Ok(None),
        }
    }

    fn make(
        input: &'a SnapshotInput<'a>,
        kind: FreezeKind,
    ) -> Result<(Option<Self>, Vec<Unfrozen>), String> {
        let name = name()?;
        let (roots, one) = (&input.plan.roots, input.plan.one_file_system);
        let cannot = |e: std::io::Error| format!("mounts cannot be listed: {e}");
        let mut note = FrozenNote::new(&name, &input.window.site).map_err(|e| e.to_string())?;
        let wish = &input.freeze;
        let (how, frozen, unfrozen) = if kind == FreezeKind::Command {
            let planned = MountedFreezer::plan(roots, one, &wish.path, &name).map_err(cannot)?;
            let directory = std::env::current_dir().ok();
            note.removal = Some(Removal { command: wish.remove.clone(), directory, begun: false });
            let unfrozen = planned.unfrozen().to_vec();
            (How::Command(planned), 0, unfrozen)
        } else {
            let planned = BtrfsFreezer::plan(roots, one, &name).map_err(cannot)?;
            note.places = planned.places();
            let (frozen, unfrozen) = (planned.roots().len(), planned.unfrozen().to_vec());
            (How::Btrfs(planned), frozen, unfrozen)
        };
        let store = FrozenStore::open(&input.state_dir);
        let freezer = Self { input, how, store, note, gone: false };
        let any = match &freezer.how {
            How::Btrfs(_) => frozen > 0,
            How::Command(planned) => !planned.roots().is_empty(),
        };
        Ok((any.then_some(freezer), unfrozen))
    }

    /// What it will do, for the plan.
    pub(super) fn line(&self) -> String {
        let how = match self.how {
            How::Btrfs(_) => "btrfs",
            How::Command(_) => "the configured command",
        };
        let roots: Vec<String> = self.roots().iter().map(|root| super::said(root)).collect();
        format!("freezes by {how}, starts, and reads then: {}", roots.join(", "))
    }

    /// The sources that will be frozen.
    pub(super) fn roots(&self) -> Vec<Vec<u8>> {
        match &self.how {
            How::Btrfs(planned) => planned.roots().to_vec(),
            How::Command(planned) => planned.roots(),
        }
    }

    /// Whether changes of all that will be frozen are told, without which nothing is.
    ///
    /// # Errors
    /// [`SnapshotError::Freeze`] where freezing was asked for by name.
    pub(super) fn check(&self, events: &Events) -> Result<(), SnapshotError> {
        if self.input.freeze.kind == FreezeKind::Auto || events.watches(&self.roots()) {
            return Ok(());
        }
        Err(SnapshotError::Freeze(format!("changes are not told: {}", events.why_not())))
    }

    /// Notes what will be made, and lets little be left to write for it.
    pub(super) fn ready(&self) -> Result<(), String> {
        let noted = self.store.write(&self.note, true);
        noted.map_err(|e| format!("what will be frozen cannot be noted: {e}"))?;
        let synced = match &self.how {
            How::Btrfs(planned) => planned.sync(),
            How::Command(planned) => planned.sync(),
        };
        synced.map_err(|e| format!("the sources cannot be synced: {e}"))
    }

    /// Freezes; why not, for people. The sources that were, and what is left to be read at once.
    pub(super) fn freeze(&mut self, left: Option<Duration>) -> Result<FrozenSources, String> {
        let clock = &*self.input.clock;
        let (before, began) = (clock.now(), clock.monotonic());
        let mut roots = self.roots();
        let mut warnings = Vec::new();
        let (frozen, made) = match &self.how {
            How::Btrfs(planned) => {
                let frozen = planned.freeze().map_err(|e| format!("no snapshot was made: {e}"))?;
                let many = if frozen.count == 1 { "snapshot" } else { "snapshots" };
                let made = format!("{} btrfs {many} named {}", frozen.count, self.note.name);
                (frozen, made)
            }
            How::Command(_) => {
                let (frozen, unfrozen) = self.by_command(left)?;
                roots.retain(|root| !unfrozen.iter().any(|one| one.path == *root));
                if roots.is_empty() {
                    return Err(listed(&unfrozen));
                }
                if !unfrozen.is_empty() {
                    warnings.push(format!("read in the window: {}", listed(&unfrozen)));
                }
                let create = CommandLine::Argv(self.input.freeze.create.clone());
                (frozen, format!("by the command {}", create.display()))
            }
        };
        let took = clock.monotonic().saturating_sub(began);
        let by = match self.how {
            How::Btrfs(_) => "btrfs",
            How::Command(_) => "command",
        };
        let record = FrozenRecord {
            by: by.to_owned(),
            paths: roots.iter().map(|root| said(root)).collect(),
            made,
            at: clock.now(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        };
        Ok(FrozenSources { fs: frozen.fs, roots, before, record, warnings })
    }

    fn by_command(&mut self, left: Option<Duration>) -> Result<(Frozen, Vec<Unfrozen>), String> {
        let How::Command(planned) = &self.how else { return Err(String::new()) };
        if let Some(removal) = &mut self.note.removal {
            removal.begun = true;
        }
        let noted = self.store.write(&self.note, false);
        noted.map_err(|e| format!("what is frozen cannot be noted: {e}"))?;
        let create = CommandLine::Argv(self.input.freeze.create.clone());
        let site = OsStr::new(&self.input.window.site);
        let env = [("CABK_SITE", site), ("CABK_FREEZE", OsStr::new(&self.note.name))];
        let within = left.map_or(CREATING, |left| (left / 2).min(CREATING));
        let done = run_bounded(&create, &env, within, &*self.input.clock);
        let done = done.map_err(|e| e.to_string())?;
        if !done.status.success() {
            let (ending, said) = (done.ending(), done.said());
            return Err(format!("{} failed with {ending}: {said}", create.display()));
        }
        planned.freeze().map_err(|e| format!("mounts cannot be listed: {e}"))
    }

    /// Removes what was made. What could not be removed, for people: the next run tries again.
    pub(super) fn remove(mut self) -> Option<String> {
        self.gone = true;
        self.take_away()
    }

    fn take_away(&self) -> Option<String> {
        let clock: &dyn Clock = &*self.input.clock;
        let removed = match &self.how {
            How::Btrfs(planned) => planned.remove().map_err(|e| e.to_string()),
            How::Command(_) => self.note.remove(clock),
        };
        let forgotten = |()| self.store.forget(&self.note.name).map_err(|e| e.to_string());
        match removed.and_then(forgotten) {
            Ok(()) => None,
            Err(why) => Some(format!(
                "what was frozen as {} could not be removed; `cabk window recover` tries again: {why}",
                self.note.name
            )),
        }
    }
}

impl Drop for Freezer<'_> {
    fn drop(&mut self) {
        if !self.gone {
            // The run has failed in another way, and tells that; the note stays where this fails.
            let _ = self.take_away();
        }
    }
}

fn listed(all: &[Unfrozen]) -> String {
    let one = |u: &Unfrozen| format!("{} cannot be frozen: {}", said(&u.path), u.why);
    all.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// A name that no other run has.
fn name() -> Result<String, String> {
    let mut bytes = [0; 6];
    SystemEntropy.fill(&mut bytes).map_err(|e| e.to_string())?;
    Ok(format!("cabk-{}", crate::base::id::to_hex(&bytes)))
}
