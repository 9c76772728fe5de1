//! This machine's accelerator: chunk lookup and scan cache in one redb file. Never the only copy of
//! anything; losing, rolling back or swapping the file, or the repository under it, changes speed,
//! never results (invariant 7).
//!
//! It records the repository's id and the set of index segments that it was built from; each run
//! makes that set equal to the listed one before the first lookup.

mod scan;
mod sync;
mod tables;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use redb::{Database, ReadOnlyTable, ReadableDatabase};

pub use scan::{DirRecord, Generation};
pub use sync::{SyncReport, read_segment, seal_segment};
pub use tables::Location;

use super::filter::Filter;
use crate::base::id::{PackId, RepoId};
use crate::format::header::HEADER_LEN;
use crate::format::segment::ChunkKey;

/// Bytes of redb's own cache.
const CACHE_BYTES: usize = 32 << 20;
/// The layout of the tables; another number means: build anew.
const SCHEMA: u64 = 1;

/// What went wrong with the accelerator.
#[derive(Debug, thiserror::Error)]
pub enum AcceleratorError {
    /// redb.
    #[error("the local index {path} cannot be used")]
    Redb {
        /// The file.
        path: String,
        /// What redb says.
        source: Box<redb::Error>,
    },
    /// The cache directory.
    #[error("the cache directory {path} cannot be used")]
    Directory {
        /// The directory.
        path: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The repository, while segments were read.
    #[error(transparent)]
    Repository(#[from] Box<super::repository::RepositoryError>),
    /// A record of ours that does not decode: the file is another's or damaged.
    #[error("the local index {path} holds a record that is not ours")]
    Record {
        /// The file.
        path: String,
    },
}

/// Where the accelerator lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// In a file below this directory, which is made where it is not there.
    Directory(PathBuf),
    /// In memory, for this run only (`--no-cache`).
    Memory,
}

/// A pack as lookups know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackFacts {
    /// The pack.
    pub id: PackId,
    /// Bytes at rest.
    pub len: u64,
    /// Its header.
    pub header: [u8; HEADER_LEN],
}

/// The open accelerator. Lookups run from any number of threads.
pub struct Accelerator {
    db: Database,
    path: String,
    readers: RwLock<Option<Readers>>,
    filter: RwLock<Option<Filter>>,
    packs: RwLock<Packs>,
    condemned: RwLock<HashSet<u32>>,
    dirs_waiting: Mutex<scan::Waiting>,
}

/// Read tables of one moment.
struct Readers {
    chunks: ReadOnlyTable<ChunkKey, tables::LocationBytes>,
    dirs: ReadOnlyTable<ChunkKey, &'static [u8]>,
}

/// Packs by number.
#[derive(Default)]
struct Packs {
    facts: Vec<PackFacts>,
    numbers: HashMap<PackId, u32>,
}

impl Accelerator {
    /// Opens or makes the accelerator of a repository. A file of another repository, of another
    /// layout or one that redb refuses is made anew; one that another process uses is left alone
    /// and memory serves instead. The second value says so, for a warning.
    ///
    /// # Errors
    /// Where not even a new file can be made.
    pub fn open(
        place: &Place,
        repository: &RepoId,
    ) -> Result<(Self, Option<String>), AcceleratorError> {
        let Place::Directory(root) = place else {
            return Ok((Self::in_memory(repository)?, None));
        };
        let directory = root.join(repository.to_hex());
        let failed =
            |source| AcceleratorError::Directory { path: directory.display().to_string(), source };
        std::fs::create_dir_all(&directory).map_err(failed)?;
        let path = directory.join("index.redb");
        match Self::open_file(&path, repository) {
            Ok(this) => Ok((this, None)),
            Err(AcceleratorError::Redb { source, .. })
                if matches!(*source, redb::Error::DatabaseAlreadyOpen) =>
            {
                let said = "the local index is in use by another run: this run makes one in memory";
                Ok((Self::in_memory(repository)?, Some(said.into())))
            }
            Err(_) => {
                match std::fs::remove_file(&path) {
                    Ok(()) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(e) => return Err(failed(e)),
                }
                let said = "the local index was damaged or of another repository: built anew";
                Ok((Self::open_file(&path, repository)?, Some(said.into())))
            }
        }
    }

    fn open_file(path: &Path, repository: &RepoId) -> Result<Self, AcceleratorError> {
        let name = path.display().to_string();
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|e| redb_error(&name, e))?;
        Self::over(db, name, repository)
    }

    fn in_memory(repository: &RepoId) -> Result<Self, AcceleratorError> {
        let name = "(memory)".to_owned();
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(redb::backends::InMemoryBackend::new())
            .map_err(|e| redb_error(&name, e))?;
        Self::over(db, name, repository)
    }

    fn over(db: Database, path: String, repository: &RepoId) -> Result<Self, AcceleratorError> {
        tables::prepare(&db, &path, repository)?;
        let this = Self {
            db,
            path,
            readers: RwLock::new(None),
            filter: RwLock::new(None),
            packs: RwLock::new(Packs::default()),
            condemned: RwLock::new(HashSet::new()),
            dirs_waiting: Mutex::new(scan::Waiting::default()),
        };
        this.load_packs()?;
        this.refresh()?;
        Ok(this)
    }

    /// Makes what has been written visible to lookups.
    fn refresh(&self) -> Result<(), AcceleratorError> {
        let lost = |e: redb::Error| redb_error(&self.path, e);
        let read = self.db.begin_read().map_err(|e| lost(e.into()))?;
        let chunks = read.open_table(tables::CHUNKS).map_err(|e| lost(e.into()))?;
        let dirs = read.open_table(tables::DIRS).map_err(|e| lost(e.into()))?;
        *self.readers.write().unwrap_or_else(PoisonError::into_inner) =
            Some(Readers { chunks, dirs });
        Ok(())
    }

    fn load_packs(&self) -> Result<(), AcceleratorError> {
        let facts = tables::read_packs(&self.db, &self.path)?;
        let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        packs.numbers = facts.iter().enumerate().map(|(n, pack)| (pack.id, n as u32)).collect();
        packs.facts = facts;
        Ok(())
    }

    /// Where a chunk lies; `None` where the repository does not have it, or only in a pack that is
    /// about to be deleted.
    ///
    /// # Errors
    /// redb's.
    pub fn find(&self, key: &ChunkKey) -> Result<Option<Location>, AcceleratorError> {
        self.load_filter()?;
        if let Some(filter) = &*self.filter.read().unwrap_or_else(PoisonError::into_inner)
            && !filter.may_hold(key)
        {
            return Ok(None);
        }
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        let Some(readers) = &*readers else { return Ok(None) };
        let found = readers.chunks.get(key).map_err(|e| redb_error(&self.path, e))?;
        let Some(found) = found else { return Ok(None) };
        let location = Location::decode(&found.value());
        let condemned = self.condemned.read().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(location).filter(|l| !condemned.contains(&l.pack)))
    }

    /// What is known of a pack.
    #[must_use]
    pub fn pack(&self, number: u32) -> Option<PackFacts> {
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        packs.facts.get(number as usize).cloned()
    }

    /// All packs that the index knows.
    #[must_use]
    pub fn packs(&self) -> Vec<PackFacts> {
        self.packs.read().unwrap_or_else(PoisonError::into_inner).facts.clone()
    }

    /// Chunks of these packs count as absent from now on.
    pub fn obey(&self, condemned: &HashSet<PackId>) {
        let packs = self.packs.read().unwrap_or_else(PoisonError::into_inner);
        let numbers = condemned.iter().filter_map(|id| packs.numbers.get(id).copied()).collect();
        *self.condemned.write().unwrap_or_else(PoisonError::into_inner) = numbers;
    }

    /// Chunks in the index.
    ///
    /// # Errors
    /// redb's.
    pub fn chunks(&self) -> Result<u64, AcceleratorError> {
        tables::count_chunks(&self.db, &self.path)
    }

    /// Chunks in the index, and the bytes of all of them before compression.
    ///
    /// # Errors
    /// redb's.
    pub fn totals(&self) -> Result<(u64, u64), AcceleratorError> {
        tables::sum_chunks(&self.db, &self.path)
    }

    fn load_filter(&self) -> Result<(), AcceleratorError> {
        if self.filter.read().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let mut slot = self.filter.write().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = Some(tables::read_filter(&self.db, &self.path)?);
        }
        Ok(())
    }
}

pub(crate) fn redb_error(path: &str, source: impl Into<redb::Error>) -> AcceleratorError {
    AcceleratorError::Redb { path: path.to_owned(), source: Box::new(source.into()) }
}

#[cfg(test)]
mod tests;
