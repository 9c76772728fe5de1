//! What becomes of a damaged index: it is removed, and whoever asked is told.
//!
//! redb believes the pages it reads: only its full check, which [`super::stamp`] asks for after
//! anything but a clean end, looks at their checksums. Damage that comes later, or below the file
//! system, makes it fail or panic on a page that is none. Either ends the index, never the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::PoisonError;

use super::{Accelerator, AcceleratorError};

impl AcceleratorError {
    pub(super) fn damaged(path: &str, why: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), why: why.into() }
    }

    /// Whether the file itself is to blame, so that another attempt would end the same way.
    fn blames_the_file(&self) -> bool {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match self {
            Self::Damaged { .. } => true,
            Self::Redb { source, .. } => match &**source {
                redb::Error::Io(e) => {
                    !matches!(e.kind(), StorageFull | QuotaExceeded | FileTooLarge)
                }
                redb::Error::Corrupted(_)
                | redb::Error::TableTypeMismatch { .. }
                | redb::Error::TableDoesNotExist(_)
                | redb::Error::TableIsMultimap(_) => true,
                _ => false,
            },
            _ => false,
        }
    }
}

/// Runs what asks redb; a panic of it is damage.
pub(super) fn caught<T>(
    path: &str,
    f: impl FnOnce() -> Result<T, AcceleratorError>,
) -> Result<T, AcceleratorError> {
    // Nothing that `f` leaves half done is used again: the caller gives up the whole index.
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        let said = payload.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| payload.downcast_ref::<&str>().copied());
        Err(AcceleratorError::damaged(path, said.unwrap_or("its pages make no sense")))
    })
}

impl Accelerator {
    /// As [`caught`]; damage is the end of this index.
    pub(super) fn guarded<T>(
        &self,
        f: impl FnOnce() -> Result<T, AcceleratorError>,
    ) -> Result<T, AcceleratorError> {
        match caught(&self.path, f) {
            Err(error) if error.blames_the_file() => {
                self.give_up();
                Err(match error {
                    AcceleratorError::Redb { path, source } => {
                        AcceleratorError::damaged(&path, source.to_string())
                    }
                    other => other,
                })
            }
            other => other,
        }
    }

    /// Closes and removes the file. Whoever asks from now on is told that it is damaged; the next
    /// [`Accelerator::sync`] or the next run begins with a new one.
    fn give_up(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = state.db.take() else { return };
        state.forget();
        if let Some(file) = &self.file {
            // It is held until here: no other process can have made a new one under the name. One
            // that cannot be removed has no stamp, so the next open checks it.
            let _ = std::fs::remove_file(file);
        }
        drop(state);
        close_quietly(db);
    }
}

/// Lets go of a database that may be damaged.
pub(super) fn close_quietly(db: std::sync::Arc<redb::Database>) {
    // There is nobody to tell, and nothing to do about it.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
}

/// Closes a database; whether all of it is at rest.
pub(super) fn closed(db: std::sync::Arc<redb::Database>, path: &Path) -> bool {
    let name = path.display().to_string();
    let close = || match std::sync::Arc::try_unwrap(db) {
        Ok(db) => db.close().map_err(|e| super::redb_error(&name, e)),
        Err(_) => Err(AcceleratorError::damaged(&name, "it is still in use")),
    };
    caught(&name, close).is_ok()
}
