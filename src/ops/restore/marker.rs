//! The mark of a restore that has not ended, in the directory that it fills.

use std::io;

use serde::{Deserialize, Serialize};

use super::RestoreError;
use crate::base::id::{ManifestId, to_hex};
use crate::base::path::printable;
use crate::host::fs::{SourceFile, TargetDir};

/// The mark's name: written first, removed last.
pub(super) const NAME: &[u8] = b".cabk-restore.json";

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
    if !names.iter().any(|n| n.name == NAME) {
        return Err(RestoreError::Refused(format!("{shown} is not empty")));
    }
    let read = || -> io::Result<Vec<u8>> {
        let file = dir.source().file(NAME)?;
        let mut bytes = vec![0; MAX];
        let len = file.read_at(&mut bytes, 0)?;
        bytes.truncate(len);
        Ok(bytes)
    };
    let found: Option<Marker> = serde_json::from_slice(&read().map_err(failed)?).ok();
    match found {
        Some(found) if found == marker(snapshot, subtree) => Ok(Found::Unfinished),
        Some(found) => Err(RestoreError::Refused(format!(
            "{shown} holds an unfinished restore of {}",
            if found.snapshot == *snapshot {
                "another path of it".into()
            } else {
                found.snapshot.short()
            }
        ))),
        // Killed while the mark was written: nothing else was made yet.
        None if names.len() == 1 => Ok(Found::Unfinished),
        None => Err(RestoreError::Refused(format!("{shown} is not empty"))),
    }
}

/// Puts the mark, durably.
pub(super) fn put(
    dir: &TargetDir,
    snapshot: &ManifestId,
    subtree: Option<&[u8]>,
) -> io::Result<()> {
    let text = serde_json::to_vec(&marker(snapshot, subtree))?;
    match dir.unlink(NAME) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = dir.create_file(NAME)?;
    file.write_at(&text, 0)?;
    file.sync()?;
    dir.sync_names()
}
