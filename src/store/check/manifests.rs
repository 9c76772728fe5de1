//! Manifests: named by the hash of their bytes, of the kind of the space they lie in.

use super::control::{Looked, open};
use super::{CheckError, DamageKind, Ledger};
use crate::backend::Space;
use crate::base::id::{ChunkId, ManifestId};
use crate::format::header::ObjectKind;
use crate::format::manifest::{ManifestBody, RecordKind};
use crate::store::repository::Repository;

/// What a check needs of a manifest; the rest is not held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundManifest {
    /// The manifest.
    pub id: ManifestId,
    /// Snapshot or capture.
    pub kind: RecordKind,
    /// The encoded entry of its root; `None` where the manifest cannot be read.
    pub root: Option<Vec<u8>>,
    /// Further roots.
    pub extra_roots: Vec<ChunkId>,
    /// The site's newest manifests when this one was made.
    pub predecessors: Vec<ManifestId>,
}

/// Reads all manifests of both kinds. Damaged ones are in the list too, without their content.
///
/// # Errors
/// [`CheckError`].
pub fn manifests(
    repository: &Repository,
    ledger: &mut Ledger,
) -> Result<Vec<FoundManifest>, CheckError> {
    let mut list = Vec::new();
    for (space, object, kind) in [
        (Space::Snapshots, ObjectKind::Snapshot, RecordKind::Snapshot),
        (Space::Captures, ObjectKind::Capture, RecordKind::Capture),
    ] {
        for (name, _) in repository.backend().list(space)? {
            let id = ManifestId::parse(name.name());
            let wrong = match open::<ManifestBody>(repository, &name, object, true)? {
                Looked::Gone => continue,
                Looked::Wrong(why) => why,
                Looked::Whole(body) if body.kind != kind => "it is of the other kind".into(),
                Looked::Whole(body) => {
                    if let Ok(id) = id {
                        list.push(FoundManifest {
                            id,
                            kind,
                            root: Some(body.root.0),
                            extra_roots: body.extra_roots,
                            predecessors: body.predecessors,
                        });
                    }
                    continue;
                }
            };
            let number = ledger.add(&name, DamageKind::ManifestDamaged, wrong);
            if let Ok(id) = id {
                ledger.affects(number, id);
                let (extra_roots, predecessors) = (Vec::new(), Vec::new());
                list.push(FoundManifest { id, kind, root: None, extra_roots, predecessors });
            }
        }
    }
    Ok(list)
}
