//! What all parts of one restore share.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::batch::Finish;
use super::error::{Problems, fatal, is_damage};
use super::owners::OwnerMap;
use super::place::{DirNode, Dirs};
use super::select::Select;
use super::{Action, PlannedAction, RestoreError, RestoreInput, RestoreReport};
use crate::store::reader::ReadError;

/// What was done so far.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) files: AtomicU64,
    pub(super) dirs: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) equal: AtomicU64,
    pub(super) removed: AtomicU64,
    pub(super) verified: AtomicU64,
    owners: AtomicU64,
    projects: AtomicU64,
}

impl Counts {
    pub(super) fn owner_by_number(&self) {
        self.owners.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn project_lost(&self) {
        self.projects.fetch_add(1, Ordering::Relaxed);
    }
}

/// Adds to a count.
pub(super) fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

/// Damage that was met: the first is told in full, all are counted.
#[derive(Default)]
struct Damage {
    first: Option<(Vec<u8>, ReadError)>,
    paths: u64,
}

/// Flags that lock an inode and wait until the end, because links to it are still to be made.
pub(super) struct Late {
    pub(super) node: Arc<DirNode>,
    pub(super) name: Vec<u8>,
    pub(super) flags: u32,
}

/// One restore.
pub(super) struct Run<'a> {
    pub(super) input: &'a RestoreInput<'a>,
    pub(super) select: Select,
    pub(super) dirs: Dirs,
    pub(super) owners: OwnerMap,
    pub(super) in_place: bool,
    /// Whether this process may do everything.
    pub(super) privileged: bool,
    pub(super) problems: Problems,
    pub(super) counts: Counts,
    pub(super) late: Mutex<Vec<Late>>,
    /// Directories whose mode would lock this process out, for the end.
    pub(super) late_dirs: Mutex<Vec<Finish>>,
    planned: Mutex<Vec<PlannedAction>>,
    damage: Mutex<Damage>,
    stop: AtomicBool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Run<'a> {
    pub(super) fn new(
        input: &'a RestoreInput<'a>,
        select: Select,
        dirs: Dirs,
        owners: OwnerMap,
    ) -> Self {
        Self {
            input,
            select,
            dirs,
            owners,
            in_place: matches!(input.target, super::Target::InPlace),
            privileged: crate::host::machine::is_root(),
            problems: Problems::default(),
            counts: Counts::default(),
            late: Mutex::default(),
            late_dirs: Mutex::default(),
            planned: Mutex::default(),
            damage: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// [`RestoreError::Interrupted`].
    pub(super) fn check(&self) -> Result<(), RestoreError> {
        if !self.input.interrupt.is_set() {
            return Ok(());
        }
        let resume = match (self.input.dry_run, self.in_place) {
            (true, _) => "nothing was changed",
            (false, true) => {
                "the sources are half restored, and what was replaced lies beside them until the \
                 same command has finished"
            }
            (false, false) => "the same command goes on where this one ended",
        };
        Err(RestoreError::Interrupted { resume: resume.into() })
    }

    /// Notes damage of these paths. In place it ends the restore, elsewhere the rest is restored.
    ///
    /// # Errors
    /// What is no damage, and all damage in place, yet without the report ([`Run::ended`]).
    pub(super) fn damaged(
        &self,
        paths: impl IntoIterator<Item = Vec<u8>>,
        error: ReadError,
    ) -> Result<(), RestoreError> {
        self.note_damage(paths, error)?;
        if self.in_place { self.end_of_damage(RestoreReport::default()) } else { Ok(()) }
    }

    /// Notes damage of these paths, and goes on.
    ///
    /// # Errors
    /// What is no damage.
    pub(super) fn note_damage(
        &self,
        paths: impl IntoIterator<Item = Vec<u8>>,
        error: ReadError,
    ) -> Result<(), RestoreError> {
        if !is_damage(&error) {
            return Err(RestoreError::Read(Box::new(error)));
        }
        let text = match &error {
            // One sort, however many are missing.
            ReadError::Missing(_) => "a chunk is missing from the repository".to_owned(),
            error => chain(error),
        };
        let mut damage = lock(&self.damage);
        let mut first = None;
        for path in paths {
            damage.paths += 1;
            self.problems.note(path.clone(), format!("damaged: {text}"));
            first.get_or_insert(path);
        }
        if damage.first.is_none()
            && let Some(path) = first
        {
            damage.first = Some((path, error));
        }
        Ok(())
    }

    /// Whether damage was noted.
    pub(super) fn is_damaged(&self) -> bool {
        lock(&self.damage).first.is_some()
    }

    /// An error that ends the restore in place, with all that was found until then.
    pub(super) fn ended(&self, error: RestoreError) -> RestoreError {
        match error {
            RestoreError::Damaged { path, source, .. } => RestoreError::Damaged {
                path,
                source,
                paths: lock(&self.damage).paths,
                report: Box::new(self.report(None)),
            },
            other => other,
        }
    }

    /// The error of a restore that met damage.
    pub(super) fn end_of_damage(&self, report: RestoreReport) -> Result<(), RestoreError> {
        let mut damage = lock(&self.damage);
        match damage.first.take() {
            None => Ok(()),
            Some((path, source)) => Err(RestoreError::Damaged {
                path,
                paths: damage.paths,
                source: Box::new(source),
                report: Box::new(report),
            }),
        }
    }

    /// Notes what could not be done to a path.
    ///
    /// # Errors
    /// What concerns more than this path: a full or broken disk.
    pub(super) fn trouble(
        &self,
        path: Vec<u8>,
        what: &str,
        error: io::Error,
    ) -> Result<(), RestoreError> {
        let error = fatal(path.clone(), error)?;
        self.problems.add(path, what, &error);
        Ok(())
    }

    /// Notes what would be done.
    pub(super) fn plan(&self, action: Action, path: Vec<u8>, bytes: u64) {
        lock(&self.planned).push(PlannedAction { action, path, bytes });
    }

    /// Calls `each` for 0 to `count` from several threads, in order but for those in flight. The
    /// first error ends all.
    pub(super) fn in_parallel(
        &self,
        count: usize,
        each: &(dyn Fn(usize) -> Result<(), RestoreError> + Sync),
    ) -> Result<(), RestoreError> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), RestoreError> {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= count || self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                if let Err(error) = self.check().and_then(|()| each(at)) {
                    self.stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        };
        let threads = self.input.threads.clamp(1, 64).min(count);
        if threads <= 1 {
            return work();
        }
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut result = work();
            for other in others {
                match other.join() {
                    Ok(ended) => result = result.and(ended),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            result
        })
    }

    /// The report of what was done.
    pub(super) fn report(&self, target: Option<Vec<u8>>) -> RestoreReport {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        let (problems, problems_total) = self.problems.take();
        let mut planned = std::mem::take(&mut *lock(&self.planned));
        planned.sort_by(|a, b| a.path.cmp(&b.path));
        let mut notes = Vec::new();
        let projects = get(&counts.projects);
        if projects > 0 {
            notes.push(format!("the project id of {projects} inodes cannot be kept here"));
        }
        RestoreReport {
            id: Some(self.input.snapshot.id()),
            target,
            files: get(&counts.files),
            dirs: get(&counts.dirs),
            bytes: get(&counts.bytes),
            bytes_written: get(&counts.bytes_written),
            files_left_equal: get(&counts.equal),
            removed: get(&counts.removed),
            verified: self.input.verify.then(|| get(&counts.verified)),
            owners_by_number: get(&counts.owners),
            problems,
            problems_total,
            notes,
            planned,
        }
    }
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
