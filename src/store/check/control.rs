//! Notes, leases and generations; and what all control objects have in common.

use serde::Deserialize;

use super::ledger::chain;
use super::{CheckError, DamageKind, Ledger};
use crate::backend::{BackendError, ObjectName, Space};
use crate::base::id::{ManifestId, to_hex};
use crate::base::limits;
use crate::format::control::{CondemnedBody, Fact, LeaseBody, LeaseEndBody, NoteBody};
use crate::format::header::ObjectKind;
use crate::store::repository::{Repository, RepositoryError};

/// What became of an object that was to be read.
pub(super) enum Looked<T> {
    /// It is whole.
    Whole(T),
    /// It was deleted since it was listed.
    Gone,
    /// It is not what it should be.
    Wrong(String),
}

/// The bytes of an object; an error of the storage about this one object is its damage.
pub(super) fn bytes(
    repository: &Repository,
    name: &ObjectName,
    max: u64,
) -> Result<Looked<Vec<u8>>, CheckError> {
    match repository.backend().get(name, max) {
        Ok(bytes) => Ok(Looked::Whole(bytes)),
        Err(BackendError::NotFound(_)) => Ok(Looked::Gone),
        Err(error @ (BackendError::Io { .. } | BackendError::Short { .. })) => {
            Ok(Looked::Wrong(chain(&error)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether an object of a newer version is one: its last bytes are the checksum of all before. A
/// flipped bit in the version is damage.
pub(super) fn is_summed(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<32>().is_some_and(|(front, sum)| blake3::hash(front).as_bytes() == sum)
}

/// Reads and opens a control object; `hashed` where its name is the hash of its bytes.
pub(super) fn open<T: for<'de> Deserialize<'de>>(
    repository: &Repository,
    name: &ObjectName,
    kind: ObjectKind,
    hashed: bool,
) -> Result<Looked<T>, CheckError> {
    let max = match kind {
        ObjectKind::Snapshot | ObjectKind::Capture => limits::MANIFEST_MAX,
        _ => limits::CONTROL_MAX,
    };
    let bytes = match bytes(repository, name, max)? {
        Looked::Whole(bytes) => bytes,
        Looked::Gone => return Ok(Looked::Gone),
        Looked::Wrong(why) => return Ok(Looked::Wrong(why)),
    };
    if hashed && to_hex(blake3::hash(&bytes).as_bytes()) != name.name() {
        return Ok(Looked::Wrong("its name is not the hash of its bytes".into()));
    }
    match repository.open_control(name, kind, &bytes) {
        Ok(body) => Ok(Looked::Whole(body)),
        Err(error @ RepositoryError::Newer { .. }) if is_summed(&bytes) => Err(error.into()),
        Err(error) => Ok(Looked::Wrong(chain(&error))),
    }
}

/// Reads all notes; gives the manifests that were forgotten on purpose.
///
/// # Errors
/// [`CheckError`].
pub fn notes(repository: &Repository, ledger: &mut Ledger) -> Result<Vec<ManifestId>, CheckError> {
    let mut forgotten = Vec::new();
    for (name, _) in repository.backend().list(Space::Notes)? {
        match open::<NoteBody>(repository, &name, ObjectKind::Note, true)? {
            Looked::Whole(note) => {
                forgotten.extend(matches!(note.fact, Fact::Forgotten { .. }).then_some(note.about));
            }
            Looked::Gone => {}
            Looked::Wrong(why) => {
                ledger.add(&name, DamageKind::NoteDamaged, why);
            }
        }
    }
    Ok(forgotten)
}

/// Reads all leases and their ends.
///
/// # Errors
/// [`CheckError`].
pub fn leases(repository: &Repository, ledger: &mut Ledger) -> Result<(), CheckError> {
    for (name, _) in repository.backend().list(Space::Leases)? {
        let (id, kind) = match name.name().strip_suffix(".end") {
            Some(id) => (id, ObjectKind::LeaseEnd),
            None => (name.name(), ObjectKind::Lease),
        };
        let found = match kind {
            ObjectKind::Lease => match open::<LeaseBody>(repository, &name, kind, false)? {
                Looked::Whole(body) => Looked::Whole(body.id),
                Looked::Gone => Looked::Gone,
                Looked::Wrong(why) => Looked::Wrong(why),
            },
            _ => match open::<LeaseEndBody>(repository, &name, kind, false)? {
                Looked::Whole(body) => Looked::Whole(body.id),
                Looked::Gone => Looked::Gone,
                Looked::Wrong(why) => Looked::Wrong(why),
            },
        };
        let wrong = match found {
            Looked::Whole(own) if own.to_hex() == id => continue,
            Looked::Gone => continue,
            Looked::Whole(own) => format!("it is about the lease {own}"),
            Looked::Wrong(why) => why,
        };
        ledger.add(&name, DamageKind::LeaseDamaged, wrong);
    }
    Ok(())
}

/// Reads all generations of what is to be deleted.
///
/// # Errors
/// [`CheckError`].
pub fn condemned(repository: &Repository, ledger: &mut Ledger) -> Result<(), CheckError> {
    for (name, _) in repository.backend().list(Space::Condemned)? {
        let found = open::<CondemnedBody>(repository, &name, ObjectKind::Condemned, false)?;
        let wrong = match found {
            Looked::Whole(body) if ObjectName::condemned(body.number) == name => continue,
            Looked::Gone => continue,
            Looked::Whole(body) => format!("it is generation {}", body.number),
            Looked::Wrong(why) => why,
        };
        ledger.add(&name, DamageKind::GenerationDamaged, wrong);
    }
    Ok(())
}
