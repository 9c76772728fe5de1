//! The noun that can be looked at, and never restored.

use super::open::RecordError;
use crate::backend::ObjectName;
use crate::base::id::ManifestId;
use crate::format::header::ObjectKind;
use crate::format::manifest::{ManifestBody, RecordKind};
use crate::store::repository::{Repository, RepositoryError};

/// A committed capture. There is no way from here to a `Snapshot` (invariant 3).
#[derive(Clone, Debug)]
pub struct Capture {
    id: ManifestId,
    body: ManifestBody,
}

impl Capture {
    /// Reads a capture's manifest.
    ///
    /// # Errors
    /// The repository's, and damage where the manifest calls itself a snapshot.
    pub fn open(repository: &Repository, id: ManifestId) -> Result<Self, RecordError> {
        let name = ObjectName::capture(&id);
        let body = super::open::read_body(repository, &name, ObjectKind::Capture, &id)?;
        if body.kind != RecordKind::Capture {
            let source = crate::format::DecodeError::Invalid { what: "kind of a record" };
            return Err(RepositoryError::decoding(&name, source).into());
        }
        Ok(Self { id, body })
    }

    /// The capture's id.
    #[must_use]
    pub fn id(&self) -> ManifestId {
        self.id
    }

    /// What its manifest says.
    #[must_use]
    pub fn body(&self) -> &ManifestBody {
        &self.body
    }
}
