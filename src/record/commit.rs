//! The commit: the manifest, last of all writes of a run (invariant 1), and the one place where its
//! kind is decided.

use super::memory::Memory;
use crate::backend::{BackendError, ObjectName};
use crate::base::id::{ChunkId, ManifestId};
use crate::format::header::ObjectKind;
use crate::format::manifest::{ManifestBody, RecordKind};
use crate::intake::consistent::Consistent;
use crate::store::lease::{Lease, LeaseError};
use crate::store::repository::{Repository, RepositoryError};

/// What is to be committed.
pub enum Commitment {
    /// What was proven not to have moved while it was read.
    Snapshot(Box<Consistent<ManifestBody>>),
    /// Anything else.
    Capture(Box<ManifestBody>),
}

/// What went wrong with a commit. Nothing was committed, unless the error says that this is not
/// known.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The manifest was put, and the storage then reported an error: it is there, or was there for a
    /// moment.
    #[error("the manifest {id} may have been committed")]
    Uncertain {
        /// The manifest.
        id: ManifestId,
        /// What the storage said.
        source: BackendError,
    },
}

/// A committed manifest.
pub struct Committed {
    /// Its id.
    pub id: ManifestId,
    /// Its body, with its kind.
    pub body: ManifestBody,
    /// What could not be cleared away afterwards; the next run will.
    pub left: Option<LeaseError>,
}

/// Ends the lease, naming the roots, and writes the manifest. Packs and index are durable already.
///
/// # Errors
/// [`CommitError`]; [`LeaseError::Broken`] where somebody broke the lease meanwhile.
pub fn commit(
    repository: &Repository,
    lease: Lease<'_>,
    commitment: Commitment,
    roots: Vec<ChunkId>,
    memory: &mut Memory,
) -> Result<Committed, CommitError> {
    let (object, body) = match commitment {
        Commitment::Snapshot(proven) => {
            let body = ManifestBody { kind: RecordKind::Snapshot, ..(*proven).into_inner() };
            (ObjectKind::Snapshot, body)
        }
        Commitment::Capture(body) => {
            (ObjectKind::Capture, ManifestBody { kind: RecordKind::Capture, ..*body })
        }
    };
    let bytes = repository.seal_control(object, &body)?;
    let id = ManifestId::from_array(*blake3::hash(&bytes).as_bytes());
    let name = match object {
        ObjectKind::Snapshot => ObjectName::snapshot(&id),
        _ => ObjectName::capture(&id),
    };
    let ended = lease.end(id, roots)?;
    match repository.backend().put_new(&name, &[&bytes]) {
        // The name is the hash of the bytes.
        Ok(()) | Err(BackendError::Exists(_)) => {}
        Err(source) => {
            return Err(match repository.backend().len(&name) {
                // Refused before anything was there under its name.
                Err(BackendError::NotFound(_)) => RepositoryError::from(source).into(),
                _ => CommitError::Uncertain { id, source },
            });
        }
    }
    memory.remember(&body.site, id, body.sequence);
    let left = ended.clear().err();
    Ok(Committed { id, body, left })
}
