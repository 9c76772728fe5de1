//! The mark of a restore that has not ended, in the directory that it fills.

use std::io;

use serde::{Deserialize, Serialize};

use super::RestoreError;
use crate::base::id::{ManifestId, to_hex};
use crate::base::path::printable;
use crate::host::fs::{SourceFile, TargetDir};

/// The mark's name: written first, removed last.
pub(super) const NAME: &[u8] = b".cabk-restore.json";

/// The mark while it is written. Nothing else is made before it has its name.
const NEW: &[u8] = b".cabk-restore.json.new";

/// Bytes of a mark at most.
const MAX: usize = 64 << 10;

/// What is being restored.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    snapshot: ManifestId,
    subtree: Option<String>,
}

/// How a target was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// Nothing there, or an empty directory.
    Empty,
    /// A restore of the same that has not ended.
    Unfinished,
}

fn marker(snapshot: &ManifestId, subtree: Option<&[u8]>) -> Marker {
    Marker { snapshot: *snapshot, subtree: subtree.map(to_hex) }
}

/// Looks at a target.
///
/// # Errors
/// [`RestoreError::Refused`] for whatever holds something that is not our own unfinished restore of
/// the same.
pub(super) fn look(
    dir: &TargetDir,
    shown: &[u8],
    snapshot: &ManifestId,
    subtree: Option<&[u8]>,
) -> Result<Found, RestoreError> {
    let failed = |source| RestoreError::Io { path: shown.to_vec(), source };
    let names = dir.names().map_err(failed)?;
    if names.is_empty() {
        return Ok(Found::Empty);
    }
    let shown = printable(shown);
    // Killed while the mark was written: nothing else was made yet.
    if names.iter().all(|n| n.name == NEW) {
        return Ok(Found::Unfinished);
    }
    if !names.iter().any(|n| n.name == NAME) {
        return Err(RestoreError::Refused(format!("{shown} is not empty")));
    }
    match read(dir).map_err(failed)? {
        Some(found) if found == marker(snapshot, subtree) => Ok(Found::Unfinished),
        Some(found) => Err(RestoreError::Refused(format!(
            "{shown} holds an unfinished restore of {}",
            if found.snapshot == *snapshot {
                "another path of it".into()
            } else {
                found.snapshot.short()
            }
        ))),
        None if names.iter().all(|n| n.name == NAME || n.name == NEW) => Ok(Found::Unfinished),
        None => Err(RestoreError::Refused(format!("{shown} is not empty"))),
    }
}

/// The mark that is there; `None` where it is not one.
fn read(dir: &TargetDir) -> io::Result<Option<Marker>> {
    let file = dir.source().file(NAME)?;
    let mut bytes = vec![0; MAX];
    let len = file.read_at(&mut bytes, 0)?;
    bytes.truncate(len);
    Ok(serde_json::from_slice(&bytes).ok())
}

/// Puts the mark, durably. One that is there and says the same stays: at no moment is a directory
/// that was begun without its mark.
pub(super) fn put(
    dir: &TargetDir,
    snapshot: &ManifestId,
    subtree: Option<&[u8]>,
) -> io::Result<()> {
    let mark = marker(snapshot, subtree);
    match read(dir) {
        Ok(Some(found)) if found == mark => return dir.sync_names(),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    match dir.unlink(NEW) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = dir.create_file(NEW)?;
    file.write_at(&serde_json::to_vec(&mark)?, 0)?;
    file.sync()?;
    dir.rename(NEW, dir, NAME)?;
    dir.sync_names()
}
