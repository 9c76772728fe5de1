//! Reading a manifest of either kind.

use crate::backend::ObjectName;
use crate::base::id::ManifestId;
use crate::base::limits;
use crate::format::DecodeError;
use crate::format::header::ObjectKind;
use crate::format::manifest::ManifestBody;
use crate::store::repository::{Repository, RepositoryError};

/// What kept a manifest from being what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Not a snapshot with evidence that held.
    #[error("{id} cannot be restored: {why}")]
    NotRestorable {
        /// What was asked for.
        id: ManifestId,
        /// Why.
        why: String,
    },
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// The body of the manifest with this id; bytes that are not those of the id are damage.
pub(super) fn read_body(
    repository: &Repository,
    name: &ObjectName,
    kind: ObjectKind,
    id: &ManifestId,
) -> Result<ManifestBody, RecordError> {
    let bytes =
        repository.backend().get(name, limits::MANIFEST_MAX).map_err(RepositoryError::from)?;
    if blake3::hash(&bytes).as_bytes() != id.as_bytes() {
        let source = DecodeError::Checksum { what: kind.words() };
        return Err(RepositoryError::decoding(name, source).into());
    }
    Ok(repository.open_control(name, kind, &bytes)?)
}
