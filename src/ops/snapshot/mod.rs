//! `snapshot`: check, pre-copy, stop, prove, read, start, commit.

mod begin;
mod events;
mod freeze;
mod manifest;
pub mod plan;
mod reading;
mod thawed;
mod window;

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::ManifestId;
use crate::base::path::printable;
use crate::base::progress::Progress;
use crate::base::time::Timestamp;
use crate::format::manifest::{ManifestBody, RecordKind, SourceRecord};
use crate::host::clock::Clock;
use crate::host::fs::BoundedFs;
use crate::host::signal::Interrupt;
use crate::host::users::Owners;
use crate::intake::consistent::Consistent;
use crate::intake::forest::{Forest, IntakeError, ReadInput};
use crate::intake::manners::Manners;
use crate::intake::plan::ReadPlan;
use crate::ops::session::{self, Session, SessionError};
use crate::record::catalogue::Catalogue;
use crate::record::commit::{CommitError, Commitment, Committed, commit};
use crate::record::memory::{Memory, MemoryError};
use crate::store::accelerator::Generation;
use crate::store::lease::{Lease, LeaseError};
use crate::store::reader::Reader;
use crate::store::writer::{WriteError, WriteStats, Writer, check_free};
use crate::window::guard::Guards;
use crate::window::intent::{IntentError, IntentStore};
use crate::window::phases::{Aborted, ArmError, NotRunning, Plan, Restarted};
use crate::window::site_lock::{LockError, SiteLock};
use crate::window::start::fell_over;
use begin::Begun;
use events::Rest;

pub use freeze::{FreezeKind, FreezeWish};

/// What a snapshot is to be of, and how.
pub struct SnapshotInput<'a> {
    /// The services, and how long things may take.
    pub window: Plan,
    /// What is read.
    pub plan: ReadPlan,
    /// The sources as the manifest names them; their bytes are filled in.
    pub sources: Vec<SourceRecord>,
    /// Directories whose SQLite databases are the site's own.
    pub sqlite_dirs: Vec<Vec<u8>>,
    /// Version of Connect.
    pub connect_version: Option<String>,
    /// Why the result could only be a capture, as far as is known from the configuration.
    pub against: Vec<String>,
    /// What a reader of the manifest should see again.
    pub warnings: Vec<String>,
    /// How the sources are held still while they are read.
    pub freeze: FreezeWish,
    /// Tags.
    pub tags: Vec<String>,
    /// Read ahead while the service lives.
    pub precopy: bool,
    /// How long to postpone the stop until nothing but the server itself uses the sources.
    pub wait_idle: Duration,
    /// How long to wait for another window of the site.
    pub lock_wait: Duration,
    /// Bytes that must stay free.
    pub min_free: u64,
    /// How long a single call of a file system may take that another machine serves.
    pub read_timeout: Duration,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Threads that look and read.
    pub threads: usize,
    /// How reading gives way to others while the service lives.
    pub manners: Manners,
    /// Called once, when the sources are about to be read.
    pub before_reading: &'a dyn Fn(),
    /// Names of owners.
    pub owners: &'a dyn Owners,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Signals.
    pub interrupt: Interrupt,
    /// What watches over the window from outside this process.
    pub guards: Arc<dyn Guards>,
    /// Where the run says how far it is.
    pub progress: &'a dyn Progress,
}

/// What a snapshot came to.
pub struct SnapshotReport {
    /// The manifest.
    pub id: ManifestId,
    /// Its body: kind, evidence, window, counts, problems.
    pub body: ManifestBody,
    /// The newest manifest of the site before.
    pub parent: Option<ManifestId>,
    /// What ran before and does not run now (exit 30).
    pub not_running: Vec<NotRunning>,
    /// Why a service that runs is not well, where that was asked.
    pub unwell: Option<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Why there is neither a snapshot nor a capture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Another window of the site is open, or the wait for it was interrupted.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It could not become a snapshot, which was found before anything was stopped.
    #[error("this could not become a snapshot: {}", .0.join("; "))]
    Refused(Vec<String>),
    /// What was to be frozen cannot be, which was found before anything was stopped.
    #[error("the sources cannot be frozen as was asked for: {0}")]
    Freeze(String),
    /// The window was not opened.
    #[error(transparent)]
    Arm(#[from] ArmError),
    /// The window was given up.
    #[error(transparent)]
    Aborted(#[from] Box<Aborted>),
    /// What an earlier run had stopped could not be started.
    #[error("what an earlier run had stopped does not run: {}", .0.iter().map(NotRunning::message).collect::<Vec<_>>().join("; "))]
    LeftStopped(Vec<NotRunning>),
    /// The intent file.
    #[error(transparent)]
    Intent(#[from] IntentError),
    /// The repository, the local index or a lease.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Reading or writing.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// The memory of the repository.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The commit. The service runs again as the window says.
    #[error("{}", source.outcome())]
    Commit {
        /// What went wrong.
        source: Box<CommitFault>,
        /// What does not run now, if anything.
        not_running: Vec<NotRunning>,
    },
}

/// What went wrong after the window was closed.
#[derive(Debug, thiserror::Error)]
pub enum CommitFault {
    /// The last packs and segments.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Reading what had been frozen, or the trees of what was read.
    #[error(transparent)]
    Build(#[from] IntakeError),
    /// The manifest.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl CommitFault {
    /// What the fault means for what was to be committed.
    fn outcome(&self) -> &'static str {
        match self {
            Self::Commit(CommitError::Uncertain { .. }) => "the commit failed at its last step",
            _ => "nothing was committed",
        }
    }
}

macro_rules! through_session {
    ($($error:ty),*) => {$(
        impl From<$error> for SnapshotError {
            fn from(error: $error) -> Self {
                Self::Session(error.into())
            }
        }
    )*};
}
through_session!(
    LeaseError,
    crate::store::repository::RepositoryError,
    crate::store::accelerator::AcceleratorError
);

impl From<WriteError> for SnapshotError {
    fn from(error: WriteError) -> Self {
        Self::Intake(error.into())
    }
}

/// What a run works with once it holds its lease.
struct Run<'a> {
    input: &'a SnapshotInput<'a>,
    fs: BoundedFs,
    /// What could not be done and breaks nothing, for a person.
    warnings: RefCell<Vec<String>>,
    reader: &'a Reader,
    writer: &'a Writer,
    believed: HashSet<Generation>,
    generation: Generation,
    first: bool,
    /// When what the sources' file systems had in memory was last written, before the stop.
    synced: Option<Rest>,
    known: &'a Catalogue,
}

/// Takes a snapshot.
///
/// # Errors
/// [`SnapshotError`]: nothing was committed, and whatever was stopped was started again, as far as
/// that was possible.
pub fn snapshot(
    mut session: Session,
    input: &SnapshotInput<'_>,
) -> Result<SnapshotReport, SnapshotError> {
    let began = input.clock.monotonic();
    let store = IntentStore::open(&input.state_dir);
    let site = input.window.site.clone();
    let (clock, interrupt) = (&*input.clock, &input.interrupt);
    let wait = input.lock_wait.max(begin::recovery_under_way(&store, &site)?);
    let lock = SiteLock::acquire(&store, &site, wait, clock, interrupt)?;
    let mut warnings = begin::recover_first(&store, &lock, input)?;

    warnings.extend(session::clear_dead_leases(&session.repository)?);
    let repository = Arc::clone(&session.repository);
    // Not even a lease is put where there is no room.
    check_free(&repository, input.min_free, 0)?;
    let lease = Lease::take(&repository, session::holder()?, "snapshot", vec![], clock.now())?;
    let begun = match begin::begin(&mut session, input, &lease) {
        Ok(begun) => begun,
        Err(error) => {
            // As below: the first error is the one to tell.
            let _ = lease.release();
            return Err(error);
        }
    };
    let Begun { known, memory, writer, .. } = begun;
    let reader = session.reader();
    let mut run = Run {
        input,
        fs: BoundedFs::new(input.read_timeout, input.interrupt.clone()),
        warnings: RefCell::default(),
        reader: &reader,
        writer: &writer,
        believed: begun.believed,
        generation: begun.generation,
        first: begun.first,
        synced: None,
        known: &known,
    };
    let done = run.window(&store, &lock);
    input.progress.window(None);
    warnings.append(run.warnings.get_mut());
    let read = match done {
        Ok(read) => read,
        Err(error) => {
            drop(run);
            // Waits for packs on their way: nothing is put without a lease.
            drop(writer);
            // The first error is the one to tell; a lease that stays is cleared by the next run.
            let _ = lease.release();
            return Err(error);
        }
    };
    warnings.append(&mut session.warnings);
    let ending = Ending { known: &known, memory, began, warnings, generation: run.generation };
    drop(reader);
    finish(&session, input, lease, writer, read, ending)
}

/// What was read in a window, and how the window ended.
struct ReadInWindow {
    forest: Result<Consistent<Forest>, Forest>,
    restarted: Restarted,
    time: Timestamp,
    ahead: Ahead,
}

/// Files that were read while the service lived.
#[derive(Clone, Copy, Default)]
struct Ahead {
    new: u64,
    changed: u64,
}

impl Run<'_> {
    fn read_input<'b>(&'b self, over: &'b (dyn Fn() -> bool + Sync)) -> ReadInput<'b> {
        ReadInput {
            fs: &self.fs,
            plan: &self.input.plan,
            reader: self.reader,
            writer: self.writer,
            believed: &self.believed,
            generation: self.generation,
            synced: self.input.clock.now(),
            unsynced: &[],
            sort: self.first,
            threads: self.input.threads,
            over,
            manners: None,
            interrupt: &self.input.interrupt,
            progress: self.input.progress,
        }
    }
}

/// What the end of a run needs beside what was read.
struct Ending<'a> {
    known: &'a Catalogue,
    memory: Memory,
    began: Duration,
    warnings: Vec<String>,
    generation: Generation,
}

/// The service runs again: packs, index, end record, manifest.
fn finish(
    session: &Session,
    input: &SnapshotInput<'_>,
    lease: Lease<'_>,
    writer: Writer,
    read: ReadInWindow,
    mut ending: Ending<'_>,
) -> Result<SnapshotReport, SnapshotError> {
    input.progress.phase("committing", None);
    let not_running = read.restarted.not_running.clone();
    let lost = |source: CommitFault| commit_fault(input, &read.restarted, source);
    let stats: WriteStats = writer.finish().map_err(|e| lost(e.into()))?;
    ending.warnings.extend(read.restarted.warnings.iter().cloned());
    let maker = manifest::Maker {
        input,
        restarted: &read.restarted,
        ahead: read.ahead,
        time: read.time,
        stats,
        duration: input.clock.monotonic().saturating_sub(ending.began),
        known: ending.known,
        memory: &ending.memory,
    };
    let (commitment, roots) = match read.forest {
        Ok(proven) => {
            let body = proven.map(|forest| maker.body(&forest, RecordKind::Snapshot));
            let roots = manifest::roots(body.get());
            (Commitment::Snapshot(Box::new(body)), roots)
        }
        Err(forest) => {
            let body = maker.body(&forest, RecordKind::Capture);
            let roots = manifest::roots(&body);
            (Commitment::Capture(Box::new(body)), roots)
        }
    };
    let parent = maker.parent();
    let committed: Committed =
        commit(&session.repository, lease, commitment, roots, &mut ending.memory)
            .map_err(|e| lost(e.into()))?;
    remember(session, input, &committed, &mut ending);
    // The last word about the service is that of the end.
    let mut not_running = not_running;
    not_running.extend(fell_over(&input.window, &read.restarted, &*input.clock));
    Ok(SnapshotReport {
        id: committed.id,
        body: committed.body,
        parent,
        not_running,
        unwell: read.restarted.unwell,
        warnings: ending.warnings,
    })
}

/// The window is closed, and there is no manifest: what went wrong, and what does not run.
fn commit_fault(
    input: &SnapshotInput<'_>,
    restarted: &Restarted,
    source: CommitFault,
) -> SnapshotError {
    let mut not_running = restarted.not_running.clone();
    not_running.extend(fell_over(&input.window, restarted, &*input.clock));
    SnapshotError::Commit { source: Box::new(source), not_running }
}

/// What makes the next run fast and `check` watchful. The snapshot exists whatever happens here.
fn remember(
    session: &Session,
    input: &SnapshotInput<'_>,
    committed: &Committed,
    ending: &mut Ending<'_>,
) {
    if let Some(error) = &committed.left {
        ending.warnings.push(format!("a lease was not cleared away: {error}"));
    }
    if let Err(error) = ending.memory.save(&input.state_dir, session.repository.id()) {
        ending.warnings.push(format!("the newest manifest could not be remembered: {error}"));
    }
    if let Err(error) = session.accelerator.committed(ending.generation, &committed.id) {
        ending.warnings.push(format!("the scan cache could not be kept: {error}"));
    }
}

/// A path for a sentence.
fn said(path: &[u8]) -> String {
    printable(path)
}
