//! All roots of a plan as one tree of absolute paths: what a manifest names as its root.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::digest;
use super::dirty::{Changes, Fates, PreRead};
use super::engine::{Before, Engine};
pub use super::engine::{IntakeError, Seen};
use super::file::{self, Remarks, Surroundings};
use super::look::{FirstLook, SecondLook, again};
use super::mounted::{Mounted, mounted};
use super::plan::ReadPlan;
use super::scan::{Anchor, Looker, Target};
use super::trail::Trail;
use crate::base::path::{components, join};
use crate::base::progress::Progress;
use crate::base::time::Timestamp;
use crate::format::tree::{Entry, Node};
use crate::host::fs::{InodeKind, SourceDir, SourceFs, Stat};
use crate::host::machine;
use crate::host::process::Device;
use crate::host::signal::Interrupt;
use crate::store::accelerator::Generation;
use crate::store::reader::Reader;
use crate::store::writer::Writer;
use crate::tree::builder::DirBuilder;

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

/// A part of the tree of absolute paths.
#[derive(Default)]
struct Branch {
    entry: Option<Entry>,
    below: BTreeMap<Vec<u8>, Branch>,
}

/// Reads all roots of a plan.
///
/// # Errors
/// [`IntakeError`]; what cannot be read of a source is a problem in the result, not an error.
pub fn read(input: &ReadInput<'_>) -> Result<Forest, IntakeError> {
    let looker = looker(input);
    read_with(input, engine(input, &looker)?)
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
    let looker = Looker { touched: Some(&changes.dirty.inodes), ..looker(input) };
    let mut engine = engine(input, &looker)?;
    let fates = Fates::of(&pre, changes);
    engine.before = Some(Before::new(&pre.look, pre.kids, fates));
    engine.first_look = pre.look;
    engine.first_look.begin_again(input.synced);
    read_with(input, engine)
}

fn engine<'a>(input: &ReadInput<'a>, looker: &'a Looker<'a>) -> Result<Engine<'a>, IntakeError> {
    Engine::new(
        looker,
        input.generation,
        input.interrupt,
        input.progress,
        input.sort,
        input.threads.max(1),
    )
}

fn read_with(input: &ReadInput<'_>, mut engine: Engine<'_>) -> Result<Forest, IntakeError> {
    let mut top = Branch::default();
    for path in &input.plan.roots {
        if let Some(entry) = read_root(&mut engine, input, path)? {
            let mut branch = &mut top;
            for name in components(path) {
                branch = branch.below.entry(name.to_vec()).or_default();
            }
            branch.entry = Some(entry);
        }
    }
    let root = grow(&mut engine, input, b"/", b"", top)?;
    let (seen, first_look) = engine.finish()?;
    Ok(Forest { root, seen, first_look })
}

fn looker<'a>(input: &ReadInput<'a>) -> Looker<'a> {
    Looker {
        fs: input.fs,
        plan: input.plan,
        reader: input.reader,
        writer: input.writer,
        believed: input.believed,
        synced: input.synced,
        over: input.over,
        anchors: Arc::default(),
        anchors_max: machine::descriptor_share(),
        syncs: true,
        touched: None,
    }
}

/// A root that is open: the directory, or the directory above it and its name.
struct OpenRoot {
    dir: Box<dyn SourceDir>,
    mounted: Arc<Mounted>,
    leaf: Option<(Vec<u8>, Stat)>,
}

fn open_root(
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

fn target(looker: &Looker<'_>, root: OpenRoot, path: &[u8]) -> Target {
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
) -> Result<Option<Entry>, IntakeError> {
    let root = match open_root(input, path) {
        Ok(root) => root,
        Err((what, error)) => {
            engine.seen.problems.push((path.to_vec(), format!("{what}: {error}")));
            return Ok(None);
        }
    };
    match &root.leaf {
        None => engine.read_root(target(engine.looker, root, path)),
        Some((name, stat)) => read_leaf(engine, input, &root, path, name, stat),
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

/// Makes the entries of the directories that lead to the roots.
fn grow(
    engine: &mut Engine<'_>,
    input: &ReadInput<'_>,
    path: &[u8],
    name: &[u8],
    branch: Branch,
) -> Result<Entry, IntakeError> {
    if let Some(mut entry) = branch.entry {
        entry.name = name.to_vec();
        return Ok(entry);
    }
    let mut entries = Vec::with_capacity(branch.below.len());
    for (name, below) in branch.below {
        entries.push(grow(engine, input, &join(path, &name), &name, below)?);
    }
    let mut remarks = Remarks::default();
    let hand = &mut engine.hands[0];
    let mut builder = DirBuilder::default();
    for entry in entries {
        builder.push(entry, &mut hand.worker)?;
    }
    let tree = builder.finish(&mut hand.worker)?;
    let looked = input
        .fs
        .open_root(path)
        .and_then(|dir| Ok((dir.stat_self()?, dir.attributes_self().unwrap_or_default())));
    let meta = match looked {
        Ok((stat, attributes)) => {
            engine.seen.users.insert(stat.uid);
            engine.seen.groups.insert(stat.gid);
            let around = Surroundings { volume: "", class: input.plan.class(path) };
            let (worker, streamer) = (&mut hand.worker, &mut hand.streamer);
            file::meta(&stat, attributes, around, worker, streamer, &mut remarks)
                .unwrap_or_else(|_| plain_dir())
        }
        Err(error) => {
            let said = format!("cannot be looked at: {error}");
            engine.seen.problems.push((path.to_vec(), said));
            plain_dir()
        }
    };
    for problem in remarks.problems {
        engine.seen.problems.push((path.to_vec(), problem));
    }
    Ok(Entry { name: name.to_vec(), meta, node: Node::Dir { tree, partial: true } })
}

fn plain_dir() -> crate::format::tree::Meta {
    crate::format::tree::Meta {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp::EPOCH,
        btime: None,
        flags: None,
        project: None,
        link: None,
        xattrs: crate::format::tree::Xattrs::NONE,
    }
}

/// Looks at all roots a second time.
///
/// # Errors
/// [`IntakeError`]; what cannot be looked at again has changed.
pub fn look_again(input: &ReadInput<'_>, first: &FirstLook) -> Result<SecondLook, IntakeError> {
    look_again_at(input, first, &input.plan.roots)
}

/// Looks at some of the roots a second time.
///
/// # Errors
/// As [`look_again`].
pub fn look_again_at(
    input: &ReadInput<'_>,
    first: &FirstLook,
    roots: &[Vec<u8>],
) -> Result<SecondLook, IntakeError> {
    let mut result = SecondLook::default();
    if roots.is_empty() {
        return Ok(result);
    }
    let looker = Looker { syncs: false, ..looker(input) };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(input.threads.max(1))
        .build()
        .map_err(IntakeError::Threads)?;
    let namer = input.reader.repository().namer();
    for path in roots {
        match open_root(input, path) {
            Err(_) => result.add(path.clone()),
            Ok(OpenRoot { leaf: Some((name, stat)), .. }) => {
                let now = digest::entry(namer, "", &name, &stat);
                let same = first.leaves().iter().any(|leaf| {
                    leaf.path == *path && digest::entry(namer, "", &name, &leaf.stat) == now
                });
                result.looked += 1;
                if !same {
                    result.add(path.clone());
                }
            }
            Ok(root) => {
                let target = target(&looker, root, path);
                let found = again(&looker, &pool, input.interrupt, first, target)?;
                result.merge(found);
            }
        }
    }
    Ok(result)
}
