//! `demo`: the main job on a throw-away site with a living toy service.
//!
//! Every step is checked, and one that did not show what it should ends the demonstration with an
//! error that names it. The verbs that it shows are given from outside ([`Verbs`]), because a verb
//! never imports a verb.

mod archive;
mod compare;
mod living;
mod site;
mod steps;
mod toy;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::progress::Progress;
use crate::base::id::ManifestId;
use crate::base::secret::Password;
use crate::format::manifest::{Evidence, ManifestBody, RecordKind};
use crate::host::clock::Clock;
use crate::host::run::CommandLine;
use crate::host::signal::Interrupt;
use crate::store::reader::Reader;

pub use compare::{CompareError, Compared};
pub use site::Places;
pub use toy::{ToyAnswer, ToyError, command as toy_command};

/// What the demonstration needs.
pub struct DemoInput<'a> {
    /// This program, which the toy service is a part of.
    pub program: PathBuf,
    /// The directory in which the temporary directory is made.
    pub temporary: PathBuf,
    /// The verbs that are shown.
    pub verbs: &'a dyn Verbs,
    /// Told of each step when it is done.
    pub told: &'a dyn Fn(&DemoEvent),
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Signals.
    pub interrupt: Interrupt,
    /// Where the verbs say how far they are.
    pub progress: &'a dyn Progress,
}

/// What the verbs work on.
pub struct Stage {
    /// Where everything is.
    pub places: Places,
    /// The repository's password: drawn for this run, and nowhere but in memory.
    pub password: Password,
    /// Stops the toy service.
    pub stop: CommandLine,
    /// Starts it.
    pub start: CommandLine,
    /// Exit 0: it runs; 3: it does not.
    pub status: CommandLine,
    /// Checks of the evidence that count as held where this process cannot see enough.
    pub asserts: Vec<String>,
}

/// A verb that failed, as its own command would.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    /// The exit code of the command.
    pub exit: u8,
    /// What it says.
    pub message: String,
}

/// What `snapshot` came to.
pub struct Taken {
    /// The manifest.
    pub id: ManifestId,
    /// Its body.
    pub body: ManifestBody,
    /// What ran before and does not run now.
    pub not_running: Vec<String>,
}

/// What `restore` came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// Files restored.
    pub files: u64,
    /// Directories restored.
    pub dirs: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// What could not be done: where and what.
    pub problems: Vec<(Vec<u8>, String)>,
}

/// The verbs that are shown.
pub trait Verbs {
    /// Makes the repository, encrypted.
    ///
    /// # Errors
    /// As `init`.
    fn init(&self, stage: &Stage) -> Result<(), Failed>;

    /// Takes a snapshot of the site through a stop and a start of its service.
    ///
    /// # Errors
    /// As `snapshot`.
    fn snapshot(&self, stage: &Stage, progress: &dyn Progress) -> Result<Taken, Failed>;

    /// Restores what has this id into a directory that is not there yet.
    ///
    /// # Errors
    /// As `restore`: a capture is refused.
    fn restore(
        &self,
        stage: &Stage,
        id: &ManifestId,
        target: &Path,
        progress: &dyn Progress,
    ) -> Result<Put, Failed>;

    /// A reader over the repository.
    ///
    /// # Errors
    /// As commands that read.
    fn reader(&self, stage: &Stage) -> Result<Reader, Failed>;
}

/// What was shown.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum DemoEvent {
    /// The site was made.
    Site {
        /// The temporary directory.
        directory: String,
        /// The site's label.
        site: String,
        /// Files.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// Bundles among them.
        bundles: u64,
        /// Bytes of the bundles.
        bundle_bytes: u64,
    },
    /// The toy service serves.
    Service {
        /// Its process.
        pid: u32,
        /// Rows in its database.
        rows: u32,
    },
    /// The repository was made.
    Repository {
        /// Whether it is encrypted.
        encrypted: bool,
        /// Time that it took.
        duration_ms: u64,
    },
    /// A snapshot was taken.
    Snapshot(Box<Shown>),
    /// The service wrote on, and a bundle was published.
    Writing {
        /// Rows at the stop for the first snapshot.
        rows_before: u32,
        /// Rows now.
        rows: u32,
        /// Bytes of the new bundle and of its unpacked files.
        published_bytes: u64,
    },
    /// A snapshot was disturbed and became a capture.
    Capture(Box<Shown>),
    /// `restore` refused the capture.
    Refused {
        /// The capture.
        id: ManifestId,
        /// The exit code of the command.
        exit: u8,
        /// What it says.
        message: String,
    },
    /// The second snapshot was restored.
    Restored {
        /// The snapshot.
        id: ManifestId,
        /// Files.
        files: u64,
        /// Directories.
        dirs: u64,
        /// Bytes.
        bytes: u64,
        /// Time that it took.
        duration_ms: u64,
    },
    /// What was restored is what the snapshot says.
    Compared(Compared),
    /// The restored database is whole.
    Database {
        /// What SQLite's own check says.
        integrity: String,
        /// Rows in it.
        rows: u32,
        /// Rows that the service counted when it was stopped for the snapshot.
        rows_at_stop: u32,
    },
    /// The service is stopped and nothing is left.
    Cleared {
        /// Bytes that the repository had.
        repository_bytes: u64,
    },
}

/// A snapshot or capture for a reader.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Shown {
    /// Its number in the demonstration.
    pub number: u8,
    /// Snapshot or capture.
    pub kind: RecordKind,
    /// Its id.
    pub id: ManifestId,
    /// Whether it can be restored.
    pub restorable: bool,
    /// Files.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Files that were not read again.
    pub files_unmodified: u64,
    /// Bytes that the repository grew by.
    pub bytes_added: u64,
    /// Time that the command took.
    pub duration_ms: u64,
    /// Time without the service.
    pub downtime_ms: u64,
    /// The service's process before and after.
    pub pids: (u32, u32),
    /// Rows that the service counted when it was stopped.
    pub rows_at_stop: u32,
    /// What was observed.
    pub evidence: Vec<Evidence>,
}

/// What the demonstration came to.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DemoReport {
    /// Always true: what is not ends as an error.
    pub ok: bool,
    /// Time from beginning to end.
    pub duration_ms: u64,
    /// The steps in their order.
    pub steps: Vec<DemoEvent>,
}

/// Why the demonstration ended before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// A signal came. Everything was cleared away.
    #[error("interrupted; nothing is left behind")]
    Interrupted,
    /// A verb failed.
    #[error("{step} failed")]
    Verb {
        /// The step.
        step: &'static str,
        /// What it says.
        source: Failed,
    },
    /// The toy service failed.
    #[error("{step} failed")]
    Toy {
        /// The step.
        step: &'static str,
        /// What happened.
        source: ToyError,
    },
    /// A file or process of the demonstration.
    #[error("{step} failed")]
    Io {
        /// The step.
        step: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// The comparison could not be made.
    #[error("{step} failed")]
    Compare {
        /// The step.
        step: &'static str,
        /// What happened.
        source: CompareError,
    },
    /// The restored database cannot be read.
    #[error("{step} failed")]
    Database {
        /// The step.
        step: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A step did not show what it should.
    #[error("{step} did not show what it should: {seen}")]
    NotShown {
        /// The step.
        step: &'static str,
        /// What was seen.
        seen: String,
    },
}

/// Shows the main job. Nothing is left behind, whatever happens.
///
/// # Errors
/// [`DemoError`].
pub fn demo(input: &DemoInput<'_>) -> Result<DemoReport, DemoError> {
    let began = input.clock.monotonic();
    let steps = steps::run(input)?;
    let duration_ms = millis(input.clock.monotonic().saturating_sub(began));
    Ok(DemoReport { ok: true, duration_ms, steps })
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
