//! What this client remembers of a repository: its own writer id, and each site's newest committed
//! manifest, so that a manifest that was taken away, or a repository that was rolled back, is
//! noticed. Lives in the state directory; losing it loses only the memory.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::id::{ManifestId, RepoId, to_hex};
use crate::base::limits;
use crate::host::entropy::Entropy;

/// What kept the memory from being read or written.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The state directory or the file in it.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{0} does not hold what cabk remembers of a repository")]
    Damaged(String),
}

/// The newest manifest of a site that this client knows to have been committed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// The manifest.
    pub manifest: ManifestId,
    /// Its sequence number.
    pub sequence: u64,
}

/// The memory of one repository.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// This client's own id as a writer.
    pub writer: String,
    /// Heads by site label: of snapshots and captures alike, the last one committed or seen.
    pub heads: BTreeMap<String, Head>,
}

/// Where the memory of a repository lies.
#[must_use]
pub fn path(state_dir: &Path, repository: &RepoId) -> PathBuf {
    state_dir.join("repositories").join(format!("{}.json", repository.to_hex()))
}

impl Memory {
    /// Reads the memory of a repository; a new one with a new writer id where there is none.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn load(
        state_dir: &Path,
        repository: &RepoId,
        entropy: &dyn Entropy,
    ) -> Result<Self, MemoryError> {
        let path = path(state_dir, repository);
        let failed =
            |source| MemoryError::Io { action: "read", path: path.display().to_string(), source };
        let mut bytes = Vec::new();
        match std::fs::File::open(&path) {
            Ok(file) => {
                file.take(limits::CONTROL_MAX).read_to_end(&mut bytes).map_err(failed)?;
                serde_json::from_slice(&bytes)
                    .map_err(|_| MemoryError::Damaged(path.display().to_string()))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mut id = [0; 8];
                entropy.fill(&mut id).map_err(failed)?;
                Ok(Self { writer: to_hex(&id), heads: BTreeMap::new() })
            }
            Err(e) => Err(failed(e)),
        }
    }

    /// Writes the memory: whole or not at all.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn save(&self, state_dir: &Path, repository: &RepoId) -> Result<(), MemoryError> {
        let path = path(state_dir, repository);
        let failed =
            |source| MemoryError::Io { action: "write", path: path.display().to_string(), source };
        let directory = path.parent().unwrap_or(state_dir);
        std::fs::create_dir_all(directory).map_err(failed)?;
        let text = serde_json::to_vec_pretty(self).map_err(|e| failed(e.into()))?;
        let mut temporary =
            tempfile::Builder::new().prefix(".memory").tempfile_in(directory).map_err(failed)?;
        temporary.write_all(&text).map_err(failed)?;
        temporary.as_file().sync_all().map_err(failed)?;
        temporary.persist(&path).map_err(|e| failed(e.error))?;
        let open = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::DIRECTORY.bits() as i32)
            .open(directory);
        open.and_then(|dir| dir.sync_all()).map_err(failed)
    }

    /// Remembers a manifest as the newest of its site.
    pub fn remember(&mut self, site: &str, manifest: ManifestId, sequence: u64) {
        self.heads.insert(site.to_owned(), Head { manifest, sequence });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::entropy::SystemEntropy;

    #[test]
    fn the_memory_survives_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let repo = RepoId::from_array([1; 16]);
        let mut memory = Memory::load(dir.path(), &repo, &SystemEntropy).unwrap();
        memory.remember("site", ManifestId::from_array([2; 32]), 7);
        memory.save(dir.path(), &repo).unwrap();
        assert_eq!(Memory::load(dir.path(), &repo, &SystemEntropy).unwrap(), memory);
        std::fs::write(path(dir.path(), &repo), b"{").unwrap();
        assert!(matches!(
            Memory::load(dir.path(), &repo, &SystemEntropy),
            Err(MemoryError::Damaged(_))
        ));
    }
}
