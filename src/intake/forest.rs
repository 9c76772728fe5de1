//! All roots of a plan as one tree of absolute paths: what a manifest names as its root.

use std::collections::HashSet;
use std::sync::Arc;

pub use super::again::{look_again, look_again_at};
use super::dirty::{Changes, Fates, PreRead};
pub use super::engine::IntakeError;
use super::engine::{Before, Engine};
use super::file::{self, Remarks, Surroundings};
use super::look::FirstLook;
use super::manners::Manners;
use super::mounted::{Mounted, mounted};
use super::plan::ReadPlan;
use super::scan::{Anchor, Looker, Target};
pub use super::seen::Seen;
use super::threads::Threads;
use super::trail::Trail;
use crate::base::path::{components, join};
use crate::base::progress::Progress;
use crate::base::time::Timestamp;
use crate::format::tree::Entry;
use crate::host::fs::{InodeKind, SourceDir, SourceFs, Stat};
use crate::host::machine;
use crate::host::process::Device;
use crate::host::signal::Interrupt;
use crate::store::accelerator::Generation;
use crate::store::reader::Reader;
use crate::store::writer::Writer;

mod branch;

pub use branch::Apart;
use branch::{Branch, Root, grow, root_entry};

/// What reading needs.
#[derive(Clone, Copy)]
pub struct ReadInput<'a> {
    /// The sources' file system.
    pub fs: &'a dyn SourceFs,
    /// What is to be read.
    pub plan: &'a ReadPlan,
    /// The way back: trees of the last run.
    pub reader: &'a Reader,
    /// The way to rest.
    pub writer: &'a Writer,
    /// Generations whose records are believed.
    pub believed: &'a HashSet<Generation>,
    /// This run's own.
    pub generation: Generation,
    /// A moment before which all content was on disk: taken before a `syncfs` of the sources.
    pub synced: Timestamp,
    /// File systems where that `syncfs` failed: no time of theirs is believed.
    pub unsynced: &'a [Device],
    /// Order files for solid blocks (first snapshots).
    pub sort: bool,
    /// Threads that look and read.
    pub threads: usize,
    /// Whether the time for reading is over: what is not read then is a problem.
    pub over: &'a (dyn Fn() -> bool + Sync),
    /// How the reading gives way to others; `None` in a window, where nothing is quick enough.
    pub manners: Option<&'a Manners>,
    /// Signals.
    pub interrupt: &'a Interrupt,
    /// Where the run says how far it is.
    pub progress: &'a dyn Progress,
}

/// What reading gave.
pub struct Forest {
    /// The entry of `/`.
    pub root: Entry,
    /// What was seen.
    pub seen: Seen,
    /// What a second look compares with.
    pub first_look: FirstLook,
}

/// A file system that could not be written back.
pub struct Unsynced {
    /// The first root on it.
    pub root: Vec<u8>,
    /// Its device.
    pub dev: Device,
    /// Why not.
    pub error: std::io::Error,
}

/// Writes back what is dirty on the file systems of all roots. Gives those where that failed: a
/// store through a mapping that was dirty before moves no time there, so that nothing read after it
/// may be believed ([`ReadInput::unsynced`]). A root that cannot be opened is a problem of the
/// reading that follows.
pub fn sync(fs: &dyn SourceFs, plan: &ReadPlan) -> Vec<Unsynced> {
    let mut done = HashSet::new();
    let mut failed = Vec::new();
    for root in &plan.roots {
        let Ok(dir) = fs.open_root(root) else { continue };
        let Ok(stat) = dir.stat_self() else { continue };
        if done.insert(stat.dev)
            && let Err(error) = fs.sync(&*dir)
        {
            failed.push(Unsynced { root: root.clone(), dev: stat.dev, error });
        }
    }
    failed
}

/// All roots of a plan, read but not built: what is left to do needs the sources no more.
pub struct Unbuilt<'a> {
    engine: Engine<'a>,
    top: Branch,
}

impl Unbuilt<'_> {
    /// What a second look compares with.
    #[must_use]
    pub const fn first_look(&self) -> &FirstLook {
        &self.engine.first_look
    }

    /// Files on network file systems that were removed and are still open on some client.
    #[must_use]
    pub fn still_open(&self) -> &[Vec<u8>] {
        &self.engine.seen.still_open
    }

    /// Path and what was wrong with it; building adds none.
    #[must_use]
    pub fn problems(&self) -> &[(Vec<u8>, String)] {
        &self.engine.seen.problems
    }

    /// Adds roots that were read apart.
    pub fn join(&mut self, apart: Apart) {
        self.engine.seen.add(apart.seen);
        self.top.add(apart.top);
    }

    /// Builds the trees of the roots, to be joined with those of another read.
    ///
    /// # Errors
    /// As [`Unbuilt::build`].
    pub fn build_apart(mut self) -> Result<Apart, IntakeError> {
        self.engine.build_waiting()?;
        let mut top = self.top;
        top.build(&mut self.engine);
        let (seen, _) = self.engine.finish()?;
        Ok(Apart { top, seen })
    }

    /// Builds the trees.
    ///
    /// # Errors
    /// [`IntakeError`], of writing and of old trees.
    pub fn build(mut self) -> Result<Forest, IntakeError> {
        self.engine.build_waiting()?;
        let top = self.top.root.take();
        let root = match top.and_then(|root| root_entry(&mut self.engine, b"", root)) {
            Some(root) => root,
            None => grow(&mut self.engine, b"", self.top)?,
        };
        let (seen, first_look) = self.engine.finish()?;
        Ok(Forest { root, seen, first_look })
    }
}

/// Reads all roots of a plan.
///
/// # Errors
/// [`IntakeError`]; what cannot be read of a source is a problem in the result, not an error.
pub fn read(input: &ReadInput<'_>) -> Result<Forest, IntakeError> {
    read_with(input, engine(input, None)?)?.build()
}

/// As [`read`], but what needs no source is left for [`Unbuilt::build`].
///
/// # Errors
/// As [`read`].
pub fn read_only<'a>(input: &ReadInput<'a>) -> Result<Unbuilt<'a>, IntakeError> {
    let mut engine = engine(input, None)?;
    engine.build_later();
    read_with(input, engine)
}

/// Reads again what an earlier read of the same run saw, but only where it may have changed since:
/// what comes out is what [`read`] would give.
///
/// # Errors
/// As [`read`].
pub fn read_dirty(
    input: &ReadInput<'_>,
    pre: PreRead,
    changes: &Changes<'_>,
) -> Result<Forest, IntakeError> {
    read_with(input, engine_for(input, pre, changes)?)?.build()
}

/// As [`read_dirty`], but what needs no source is left for [`Unbuilt::build`].
///
/// # Errors
/// As [`read`].
pub fn read_dirty_only<'a>(
    input: &ReadInput<'a>,
    pre: PreRead,
    changes: &Changes<'a>,
) -> Result<Unbuilt<'a>, IntakeError> {
    let mut engine = engine_for(input, pre, changes)?;
    engine.build_later();
    read_with(input, engine)
}

fn engine_for<'a>(
    input: &ReadInput<'a>,
    pre: PreRead,
    changes: &Changes<'a>,
) -> Result<Engine<'a>, IntakeError> {
    let mut engine = engine(input, Some(&changes.dirty.inodes))?;
    let fates = Fates::of(&pre, changes);
    engine.before = Some(Before::new(&pre.look, pre.kids, fates));
    engine.first_look = pre.look;
    engine.first_look.begin_again(input.synced);
    Ok(engine)
}

fn engine<'a>(
    input: &ReadInput<'a>,
    touched: Option<&'a HashSet<(Device, u64)>>,
) -> Result<Engine<'a>, IntakeError> {
    let threads = Threads::of(input);
    Engine::new(
        Looker { touched, far: threads.far, ..looker(input) },
        input.generation,
        input.interrupt,
        input.progress,
        input.sort,
        threads,
    )
}

fn read_with<'a>(
    input: &ReadInput<'_>,
    mut engine: Engine<'a>,
) -> Result<Unbuilt<'a>, IntakeError> {
    let mut top = Branch::default();
    for path in &input.plan.roots {
        if let Some(root) = read_root(&mut engine, input, path)? {
            let mut branch = &mut top;
            for name in components(path) {
                branch = branch.below.entry(name.to_vec()).or_default();
            }
            branch.root = Some(root);
        }
    }
    look_above(&mut engine, input, b"/", &mut top);
    engine.finish_first_look();
    Ok(Unbuilt { engine, top })
}

pub(super) fn looker<'a>(input: &ReadInput<'a>) -> Looker<'a> {
    Looker {
        fs: input.fs,
        plan: input.plan,
        reader: input.reader,
        writer: input.writer,
        believed: input.believed,
        synced: input.synced,
        over: input.over,
        manners: input.manners,
        anchors: Arc::default(),
        anchors_max: machine::descriptor_share(),
        syncs: true,
        far: false,
        touched: None,
    }
}

/// A root that is open: the directory, or the directory above it and its name.
pub(super) struct OpenRoot {
    dir: Box<dyn SourceDir>,
    mounted: Arc<Mounted>,
    pub(super) leaf: Option<(Vec<u8>, Stat)>,
}

pub(super) fn open_root(
    input: &ReadInput<'_>,
    path: &[u8],
) -> Result<OpenRoot, (&'static str, std::io::Error)> {
    let parts: Vec<&[u8]> = components(path).collect();
    let (above, name) = match parts.split_last() {
        Some((name, above)) => (join(b"/", &above.join(&b'/')), Some(name.to_vec())),
        None => (b"/".to_vec(), None),
    };
    let cannot = |what| move |e| (what, e);
    let parent = input.fs.open_root(&above).map_err(cannot("its directory cannot be opened"))?;
    let leaf = match name {
        Some(name) => {
            let stat = parent.stat(&name).map_err(cannot("cannot be looked at"))?;
            (stat.kind != InodeKind::Dir).then_some((name, stat))
        }
        None => None,
    };
    let dir = match leaf {
        Some(_) => parent,
        None => input.fs.open_root(path).map_err(cannot("cannot be opened"))?,
    };
    let stat = dir.stat_self().map_err(cannot("cannot be looked at"))?;
    let mut mounted = mounted(input.fs, &*dir, &stat, input.synced)
        .map_err(cannot("its file system cannot be found out"))?;
    if input.unsynced.contains(&stat.dev) {
        mounted.believe_nothing();
    }
    Ok(OpenRoot { dir, mounted: Arc::new(mounted), leaf })
}

pub(super) fn target(looker: &Looker<'_>, root: OpenRoot, path: &[u8]) -> Target {
    Target {
        anchor: Arc::new(Anchor::new(root.dir, &looker.anchors)),
        anchor_depth: components(path).count(),
        trail: Trail::root(path),
        volume: root.mounted,
        stat: None,
        inode: None,
        meta_known: false,
    }
}

fn read_root(
    engine: &mut Engine<'_>,
    input: &ReadInput<'_>,
    path: &[u8],
) -> Result<Option<Root>, IntakeError> {
    let root = match open_root(input, path) {
        Ok(root) => root,
        Err((what, error)) => {
            engine.seen.problems.push((path.to_vec(), format!("{what}: {error}")));
            return Ok(None);
        }
    };
    match &root.leaf {
        None => {
            let target = target(&engine.looker, root, path);
            Ok(Some(Root::Directory(engine.read_root(target)?)))
        }
        Some((name, stat)) => Ok(read_leaf(engine, input, &root, path, name, stat)?
            .map(|entry| Root::Leaf(Box::new(entry)))),
    }
}

/// A source that is a single file or a symbolic link.
fn read_leaf(
    engine: &mut Engine<'_>,
    input: &ReadInput<'_>,
    root: &OpenRoot,
    path: &[u8],
    name: &[u8],
    stat: &Stat,
) -> Result<Option<Entry>, IntakeError> {
    let superblock = root.mounted.volume.superblock;
    engine.first_look.add_leaf(path.to_vec(), *stat, superblock);
    engine.seen.files += 1;
    engine.seen.users.insert(stat.uid);
    engine.seen.groups.insert(stat.gid);
    let around =
        Surroundings { volume: &root.mounted.volume.identity, class: input.plan.class(path) };
    let mut remarks = Remarks::default();
    let hand = &mut engine.hands[0];
    let (worker, streamer) = (&mut hand.worker, &mut hand.streamer);
    let read = match stat.kind {
        InodeKind::File => {
            file::regular(&*root.dir, name, stat, around, worker, streamer, &mut remarks)
        }
        _ => file::special(&*root.dir, name, stat, around, worker, streamer, &mut remarks),
    };
    engine.seen.bytes += if stat.kind == InodeKind::File { stat.size } else { 0 };
    if remarks.changed {
        remarks.problems.push("changed while it was read, each time that was tried".into());
    }
    for problem in remarks.problems {
        engine.seen.problems.push((path.to_vec(), problem));
    }
    match read {
        Ok(entry) => Ok(Some(entry)),
        Err(file::FileError::Write(error)) => Err(error.into()),
        Err(error) => {
            let said = super::engine::with_source(&error);
            engine.seen.problems.push((path.to_vec(), said));
            Ok(None)
        }
    }
}

/// Looks at the directories that lead to the roots.
fn look_above(engine: &mut Engine<'_>, input: &ReadInput<'_>, path: &[u8], branch: &mut Branch) {
    if branch.root.is_some() {
        return;
    }
    for (name, below) in &mut branch.below {
        look_above(engine, input, &join(path, name), below);
    }
    let mut remarks = Remarks::default();
    let looked = input
        .fs
        .open_root(path)
        .and_then(|dir| Ok((dir.stat_self()?, dir.attributes_self().unwrap_or_default())));
    match looked {
        Ok((stat, attributes)) => {
            engine.seen.users.insert(stat.uid);
            engine.seen.groups.insert(stat.gid);
            let around = Surroundings { volume: "", class: input.plan.class(path) };
            let hand = &mut engine.hands[0];
            let (worker, streamer) = (&mut hand.worker, &mut hand.streamer);
            branch.meta =
                file::meta(&stat, attributes, around, worker, streamer, &mut remarks).ok();
        }
        Err(error) => {
            let said = format!("cannot be looked at: {error}");
            engine.seen.problems.push((path.to_vec(), said));
        }
    }
    for problem in remarks.problems {
        engine.seen.problems.push((path.to_vec(), problem));
    }
}
