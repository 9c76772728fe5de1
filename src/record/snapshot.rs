//! The noun that can be restored.

use super::open::RecordError;
use crate::backend::{BackendError, ObjectName};
use crate::base::id::ManifestId;
use crate::format::header::ObjectKind;
use crate::format::manifest::{ManifestBody, RecordKind};
use crate::store::repository::{Repository, RepositoryError};

/// The only check whose failure does not make a window's result a capture: whether the service ran
/// again says nothing about what was read.
const NEVER_DECIDES: &str = "service-started";

/// A committed snapshot: read out of its own kind of object, with evidence that all held.
///
/// Nothing else makes one, so whatever takes a `Snapshot` cannot be given a capture (invariant 3):
///
/// ```compile_fail
/// fn restorable(capture: cabk::record::capture::Capture) -> cabk::record::snapshot::Snapshot {
///     capture.into()
/// }
/// ```
///
/// ```compile_fail
/// use cabk::format::manifest::ManifestBody;
/// use cabk::record::snapshot::Snapshot;
/// fn made_up(id: cabk::base::id::ManifestId, body: ManifestBody) -> Snapshot {
///     Snapshot { id, body }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Snapshot {
    id: ManifestId,
    body: ManifestBody,
}

impl Snapshot {
    /// Reads a snapshot's manifest.
    ///
    /// # Errors
    /// [`RecordError::NotRestorable`] for a capture, whatever its bytes say; the repository's.
    pub fn open(repository: &Repository, id: ManifestId) -> Result<Self, RecordError> {
        let name = ObjectName::snapshot(&id);
        let body = match super::open::read_body(repository, &name, ObjectKind::Snapshot, &id) {
            Err(RecordError::Repository(RepositoryError::Backend(BackendError::NotFound(_))))
                if repository.backend().len(&ObjectName::capture(&id)).is_ok() =>
            {
                return Err(RecordError::NotRestorable { id, why: "it is a capture".into() });
            }
            other => other?,
        };
        if body.kind != RecordKind::Snapshot {
            return Err(RecordError::NotRestorable { id, why: "it calls itself a capture".into() });
        }
        if let Some(broken) = body.evidence.iter().find(|e| !e.held && e.check != NEVER_DECIDES) {
            let why = format!("its evidence {} did not hold", broken.check);
            return Err(RecordError::NotRestorable { id, why });
        }
        Ok(Self { id, body })
    }

    /// The snapshot's id.
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
