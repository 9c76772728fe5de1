//! `restore`: a snapshot back onto disk, beside the living site or in place.
//!
//! The way back: `walk` goes through the snapshot's tree, makes directories and plans files in
//! batches; `batch` finds where their chunks lie and `write` reads each block once, verified,
//! and writes what it holds; `finish` makes further names of inodes and gives directories their
//! attributes. Everything is done by directory descriptors, beneath the target and through no
//! symbolic link.
//!
//! Invariant 3: only a [`Snapshot`] can be given. Invariant 6: bytes come out of verified chunks.
//! Invariant 8: lists are walked in batches, whatever lengths they claim. Invariant 10: a target
//! holds a mark, and a source a staging directory with what was replaced, until all is done; the
//! same command goes on from wherever a run ended.

mod apart;
mod attributes;
mod batch;
mod chunks;
mod error;
mod existing;
mod finish;
mod frame;
mod leaf;
mod left;
mod marker;
mod owners;
mod place;
mod preflight;
mod run;
mod select;
mod staging;
mod walk;
mod write;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use super::progress::{Progress, Total};
use crate::base::id::ManifestId;
use crate::base::path::{bytes, components, printable};
use crate::format::tree::{Entry, Node};
use crate::host::fs::TargetDir;
use crate::host::signal::Interrupt;
use crate::host::users::Owners;
use crate::record::snapshot::Snapshot;
use crate::store::reader::Reader;
use crate::tree::cursor::DirCursor;
use crate::tree::walk::find;

pub use error::{Problem, RestoreError};
use frame::State;
use marker::Found;
use owners::{OwnerMap, OwnerRules};
use place::Dirs;
use run::Run;
use select::Select;
use walk::Walker;

/// Where a snapshot goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// Below a directory that is absent, empty, or holds our unfinished restore of the same.
    Directory(PathBuf),
    /// Where it came from.
    InPlace,
}

/// What to restore, where, and how.
pub struct RestoreInput<'a> {
    /// The repository.
    pub reader: &'a Reader,
    /// What is restored.
    pub snapshot: &'a Snapshot,
    /// Only this absolute path and what is below it.
    pub subtree: Option<Vec<u8>>,
    /// Where it goes.
    pub target: Target,
    /// Gitignore-like globs of absolute paths in the snapshot: only what matches, with all below.
    pub include: Vec<String>,
    /// The same: not what matches, nor what is below; in place it is left alone.
    pub exclude: Vec<String>,
    /// Paths of this machine that are left alone in place with all below them: cabk's own cache and
    /// state, and what the operator keeps.
    pub kept: Vec<PathBuf>,
    /// Remove what the snapshot does not hold, with a target or globs or a subtree.
    pub delete: bool,
    /// In place, leave what the snapshot does not hold.
    pub keep_extra: bool,
    /// Owners by number.
    pub numeric_ids: bool,
    /// Users, OLD and NEW, each a name or a number.
    pub map_user: Vec<(String, String)>,
    /// Groups, OLD and NEW, each a name or a number.
    pub map_group: Vec<(String, String)>,
    /// Who is who here.
    pub owners: &'a dyn Owners,
    /// This machine's name: licence state goes back in place only where the snapshot names it.
    pub host: &'a str,
    /// Put licence state back on another machine too.
    pub with_license: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Read every file back and compare it with its hash.
    pub verify: bool,
    /// The wish to end.
    pub interrupt: &'a Interrupt,
    /// Told of each file.
    pub progress: &'a dyn Progress,
    /// Threads that write.
    pub threads: usize,
}

/// What a dry run would do to a path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// Make it.
    Create,
    /// Put other content in its place.
    Replace,
    /// Mend its owner, mode, times or other attributes.
    Attributes,
    /// Take it away: the snapshot does not hold it.
    Remove,
}

/// One thing that a dry run would do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedAction {
    /// What.
    pub action: Action,
    /// Where.
    pub path: Vec<u8>,
    /// Bytes of a file.
    pub bytes: u64,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RestoreReport {
    /// The snapshot.
    pub id: Option<ManifestId>,
    /// The directory, as given; `None` in place.
    pub target: Option<Vec<u8>>,
    /// Files, special ones and links included, that are as the snapshot says.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Bytes of all files, holes included.
    pub bytes: u64,
    /// Data bytes written.
    pub bytes_written: u64,
    /// Files that were there and equal.
    pub files_left_equal: u64,
    /// Names removed that the snapshot does not hold.
    pub removed: u64,
    /// Files read back and found equal, where that was asked for.
    pub verified: Option<u64>,
    /// Inodes that got their owner or group by number because nobody here has the name.
    pub owners_by_number: u64,
    /// What could not be done, a bounded number of each sort.
    pub problems: Vec<Problem>,
    /// How many problems there were.
    pub problems_total: u64,
    /// Remarks.
    pub notes: Vec<String>,
    /// What a dry run would do, by path.
    pub planned: Vec<PlannedAction>,
}

/// Restores a snapshot.
///
/// # Errors
/// [`RestoreError`]; the target is then such that the same command goes on.
pub fn restore(input: &RestoreInput<'_>) -> Result<RestoreReport, RestoreError> {
    if input.delete && input.keep_extra {
        return Err(RestoreError::Usage("delete and keep-extra contradict each other".into()));
    }
    let (kept, notes) = left::alone(input);
    let within = input.subtree.clone().unwrap_or_default();
    let body = input.snapshot.body();
    let select = Select::new(&input.include, &input.exclude, within, kept.paths)?;
    let select = select.with_recorded(&body.excludes).with_inodes(kept.inodes, kept.above);
    let rules = OwnerRules {
        here: input.owners,
        numeric: input.numeric_ids,
        map_user: &input.map_user,
        map_group: &input.map_group,
    };
    let owners = OwnerMap::new(&body.owners, &rules)?;
    let empty = input.reader.repository().namer().empty();
    let root = Entry::decode(&body.root.0, &empty).map_err(|source| {
        let name = crate::backend::ObjectName::snapshot(&input.snapshot.id());
        let damaged = crate::store::repository::RepositoryError::decoding(&name, source);
        RestoreError::Read(Box::new(damaged.into()))
    })?;
    let total = select.is_whole() && input.exclude.is_empty();
    let total =
        total.then_some(Total { files: Some(body.summary.files), bytes: Some(body.summary.bytes) });
    input.progress.phase("restoring", total);
    let report = match &input.target {
        Target::InPlace => in_place(input, select, owners, root),
        Target::Directory(path) => to_directory(input, select, owners, root, bytes(path)),
    };
    input.progress.finish();
    let mut report = report?;
    report.notes.splice(0..0, notes);
    Ok(report)
}

fn prefix(input: &RestoreInput<'_>) -> Result<u64, RestoreError> {
    let mut drawn = [0; 8];
    input
        .reader
        .repository()
        .entropy()
        .fill(&mut drawn)
        .map_err(|source| RestoreError::Io { path: b"a random name".to_vec(), source })?;
    Ok(u64::from_le_bytes(drawn))
}

fn in_place(
    input: &RestoreInput<'_>,
    select: Select,
    owners: OwnerMap,
    root: Entry,
) -> Result<RestoreReport, RestoreError> {
    if let Some(path) = &input.subtree {
        find(input.reader, &root, path).map_err(path_error)?;
    }
    let dir = TargetDir::open_root(b"/")
        .map_err(|source| RestoreError::Io { path: b"/".to_vec(), source })?;
    let run = Run::new(input, select, Dirs::new(dir), owners);
    preflight::ways(&run, &root)?;
    preflight::whole(&run, &root)?;
    change(&run, root).map_err(|error| run.ended(error))?;
    Ok(run.report(None))
}

/// Changes what is in place.
fn change(run: &Run<'_>, root: Entry) -> Result<(), RestoreError> {
    let mut walker = Walker::new(run, prefix(run.input)?);
    let own_meta = !matches!(root.node, Node::Dir { partial: true, .. });
    walker.start(place::top(b"/"), root, None, State::Existing, own_meta)?;
    walker.walk()?;
    if let Some(finish) = walker.root_finish.take() {
        run.finish_dir(&finish)?;
    }
    Ok(())
}

fn path_error(error: crate::tree::walk::WalkError) -> RestoreError {
    match error {
        crate::tree::walk::WalkError::Read(error) => RestoreError::Read(Box::new(error)),
        other => RestoreError::Path(other),
    }
}

fn to_directory(
    input: &RestoreInput<'_>,
    select: Select,
    owners: OwnerMap,
    root: Entry,
    path: &[u8],
) -> Result<RestoreReport, RestoreError> {
    let failed = |source: io::Error| RestoreError::Io { path: path.to_vec(), source };
    let subtree = input.subtree.as_deref().filter(|p| components(p).next().is_some());
    let entry = match subtree {
        Some(inner) => find(input.reader, &root, inner).map_err(path_error)?,
        None => root,
    };
    let id = input.snapshot.id();
    let (dir, found) = open_target(input, path, subtree)?;
    let own_meta = subtree.is_some() && matches!(entry.node, Node::Dir { .. });
    if !input.dry_run {
        if own_meta {
            staging::strip(&dir).map_err(failed)?;
        }
        marker::put(&dir, &id, subtree).map_err(failed)?;
    }
    let run = Run::new(input, select, Dirs::new(dir), owners);
    let mut walker = Walker::new(&run, 0);
    let state = if found == Found::Empty { State::Fresh } else { State::Existing };
    walker.path = walked_path(subtree, own_meta);
    let node = place::top(path);
    if subtree.is_some() && !own_meta {
        // One file: it goes into the directory under its own name.
        let meta = entry.meta.clone();
        let holder =
            Entry { name: Vec::new(), meta, node: Node::Dir { tree: None, partial: true } };
        walker.start(node, holder, Some(DirCursor::over(vec![entry])), state, false)?;
    } else {
        walker.start(node, entry, None, state, own_meta)?;
    }
    walker.walk()?;
    let root_finish = walker.root_finish.take();
    let report = run.report(Some(path.to_vec()));
    run.end_of_damage(report.clone())?;
    if !input.dry_run {
        let top = run.dirs.open(&place::top(b"")).map_err(failed)?;
        // A power cut must not leave a half-written tree without its mark.
        top.sync_all().map_err(failed)?;
        top.unlink(marker::NAME).map_err(failed)?;
    }
    if let Some(finish) = root_finish {
        run.finish_dir(&finish)?;
    }
    let late = run.report(None);
    Ok(RestoreReport {
        problems: [report.problems, late.problems].concat(),
        problems_total: report.problems_total + late.problems_total,
        ..report
    })
}

/// Opens the target, or makes it.
fn open_target(
    input: &RestoreInput<'_>,
    path: &[u8],
    subtree: Option<&[u8]>,
) -> Result<(TargetDir, Found), RestoreError> {
    let failed = |source: io::Error| RestoreError::Io { path: path.to_vec(), source };
    match TargetDir::open_root(path) {
        Ok(dir) => {
            let found = marker::look(&dir, path, &input.snapshot.id(), subtree)?;
            Ok((dir, found))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // A dry run opens nothing below it.
            let place = match input.dry_run {
                true => TargetDir::open_root(b"/"),
                false => TargetDir::create_root(path),
            };
            Ok((place.map_err(failed)?, Found::Empty))
        }
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            Err(RestoreError::Refused(format!("{} is not a directory", printable(path))))
        }
        Err(e) => Err(failed(e)),
    }
}

/// Where the walker begins in the snapshot: at the subtree, or, for one file, at the directory
/// above it.
fn walked_path(subtree: Option<&[u8]>, is_dir: bool) -> Vec<u8> {
    let mut names: Vec<&[u8]> = subtree.map(|p| components(p).collect()).unwrap_or_default();
    if !is_dir {
        names.pop();
    }
    names.iter().flat_map(|name| [b"/", *name].concat()).collect()
}
