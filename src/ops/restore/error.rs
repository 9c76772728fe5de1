//! What a restore can fail with, and what it reports without failing.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::RestoreReport;
use crate::backend::BackendError;
use crate::base::path::printable;
use crate::store::reader::ReadError;
use crate::store::repository::RepositoryError;
use crate::tree::walk::WalkError;

/// Why a restore ended before its end. The target is left so that the same command resumes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The target is not in a state in which this is safe; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// The path is not in the snapshot.
    #[error("the path cannot be restored")]
    Path(#[source] WalkError),
    /// Objects of the repository are damaged. In a directory of its own everything else was
    /// restored, and the paths named here are not there; in place the restore stopped.
    #[error("{} cannot be restored: its data is damaged ({paths} paths in all)", printable(path))]
    Damaged {
        /// The first path.
        path: Vec<u8>,
        /// How many paths are affected.
        paths: u64,
        /// What is damaged.
        source: Box<ReadError>,
        /// What was restored all the same; problems name the other paths.
        report: Box<RestoreReport>,
    },
    /// The repository or its storage.
    #[error("the repository cannot be read")]
    Read(#[source] Box<ReadError>),
    /// No space is left.
    #[error("no space left for {}", printable(path))]
    NoSpace {
        /// What was being written.
        path: Vec<u8>,
        /// What the operating system says.
        source: io::Error,
    },
    /// The target cannot be written.
    #[error("cannot write {}", printable(path))]
    Io {
        /// What was being written.
        path: Vec<u8>,
        /// What the operating system says.
        source: io::Error,
    },
    /// Somebody asked for the end.
    #[error("interrupted; {}", resume)]
    Interrupted {
        /// How to go on.
        resume: String,
    },
}

/// Whether an error means that the repository is damaged rather than out of reach.
pub(super) fn is_damage(error: &ReadError) -> bool {
    match error {
        ReadError::Missing(_)
        | ReadError::Block { .. }
        | ReadError::Content { .. }
        | ReadError::Decode { .. } => true,
        ReadError::Repository(error) => {
            matches!(
                error,
                RepositoryError::Damaged { .. }
                    | RepositoryError::Forged { .. }
                    | RepositoryError::Backend(
                        BackendError::NotFound(_) | BackendError::Short { .. }
                    )
            ) || is_bad_sector(error)
        }
        ReadError::Accelerator(_) => false,
    }
}

/// Whether the disk does not give an object back: damage of that object, not of all others.
fn is_bad_sector(error: &RepositoryError) -> bool {
    const EIO: i32 = 5;
    matches!(error, RepositoryError::Backend(BackendError::Io { source, .. })
        if source.raw_os_error() == Some(EIO))
}

/// What an error of the operating system means for the rest of the restore.
pub(super) fn fatal(path: Vec<u8>, source: io::Error) -> Result<io::Error, RestoreError> {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match source.kind() {
        StorageFull | QuotaExceeded => Err(RestoreError::NoSpace { path, source }),
        ReadOnlyFilesystem => Err(RestoreError::Io { path, source }),
        // EIO: the disk, not the file.
        _ if source.raw_os_error() == Some(5) => Err(RestoreError::Io { path, source }),
        _ => Ok(source),
    }
}

/// Something that could not be done to one path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where, in the target.
    pub path: Vec<u8>,
    /// What.
    pub error: String,
}

/// Paths named for each sort of problem; the rest are counted.
const NAMED: usize = 200;
/// The same for owners, which fail for every file of somebody who is not root.
const NAMED_OWNERS: usize = 5;

/// Problems by what happened, so that a million of one sort stay readable and small.
#[derive(Default)]
pub(super) struct Problems {
    sorts: Mutex<BTreeMap<String, Sort>>,
}

/// One sort: how many there were, and the first paths.
type Sort = (u64, Vec<Vec<u8>>);

/// What a change of owner that failed is called.
pub(super) const OWNER: &str = "owner";

impl Problems {
    /// Notes that `what` could not be done to `path`.
    pub(super) fn add(&self, path: Vec<u8>, what: &str, error: &io::Error) {
        self.say(
            path,
            format!("{what}: {error}"),
            if what == OWNER { NAMED_OWNERS } else { NAMED },
        );
    }

    /// Notes a problem that is no error of the operating system.
    pub(super) fn note(&self, path: Vec<u8>, what: impl Into<String>) {
        self.say(path, what.into(), NAMED);
    }

    fn say(&self, path: Vec<u8>, what: String, named: usize) {
        let mut sorts = self.sorts.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, paths) = sorts.entry(what).or_default();
        *count += 1;
        if paths.len() < named {
            paths.push(path);
        }
    }

    /// All of them, and how many there were.
    pub(super) fn take(&self) -> (Vec<Problem>, u64) {
        let sorts = std::mem::take(&mut *self.sorts.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut list, mut total) = (Vec::new(), 0);
        for (error, (count, paths)) in sorts {
            total += count;
            let more = count - paths.len() as u64;
            for (at, path) in paths.into_iter().enumerate() {
                let mut error = error.clone();
                if at == 0 && more > 0 {
                    error = format!("{error} (and {more} more paths that are not listed)");
                }
                list.push(Problem { path, error });
            }
        }
        (list, total)
    }
}
