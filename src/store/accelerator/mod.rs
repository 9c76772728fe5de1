//! This machine's accelerator: chunk lookup and scan cache in one redb file. Never the only copy of
//! anything; losing, rolling back or swapping the file, or the repository under it, changes speed,
//! never results (invariant 7).
//!
//! It records the repository's id and the set of index segments that it was built from; each run
//! makes that set equal to the listed one before the first lookup.

mod adding;
mod damage;
mod filling;
mod placing;
mod scan;
mod stamp;
mod sync;
mod tables;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::{Database, ReadOnlyTable, ReadableDatabase};

pub use filling::Filling;
pub use scan::{DirRecord, Generation};
pub use sync::{SyncReport, read_segment, seal_segment};
pub use tables::Location;

use super::filter::Filter;
use crate::base::id::{PackId, RepoId};
use crate::format::header::HEADER_LEN;
use crate::format::segment::{ChunkKey, SegmentPack};

/// Bytes of redb's own cache.
const CACHE_BYTES: usize = 32 << 20;
/// The layout of the tables; another number means: build anew.
const SCHEMA: u64 = 2;

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
    /// The file is damaged. It has been removed: the next run, or the next [`Accelerator::sync`],
    /// makes it anew.
    #[error("the local index {path} is damaged and was removed, the next run makes it anew: {why}")]
    Damaged {
        /// The file.
        path: String,
        /// What was found.
        why: String,
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
    /// The file; `None` in memory.
    file: Option<PathBuf>,
    path: String,
    repository: RepoId,
    /// Held by whoever changes the tables of chunks, and taken before `state`.
    writing: Mutex<()>,
    state: RwLock<State>,
    dirs_waiting: Mutex<scan::Waiting>,
}

/// All that a lookup needs, behind one lock.
#[derive(Default)]
struct State {
    /// `None` once the file turned out to be damaged.
    db: Option<Arc<Database>>,
    readers: Option<Readers>,
    filter: Option<Filter>,
    packs: Packs,
    condemned: HashSet<PackId>,
    condemned_numbers: HashSet<u32>,
    waiting: adding::Waiting,
}

/// Read tables of one moment.
struct Readers {
    chunks: ReadOnlyTable<ChunkKey, tables::LocationBytes>,
    dirs: ReadOnlyTable<ChunkKey, &'static [u8]>,
}

/// Packs by number.
#[derive(Clone, Default)]
struct Packs {
    facts: Vec<PackFacts>,
    numbers: HashMap<PackId, u32>,
    /// How many of them are in the table.
    kept: usize,
}

impl Packs {
    fn of_table(facts: Vec<PackFacts>) -> Self {
        let numbers = facts.iter().enumerate().map(|(n, pack)| (pack.id, n as u32)).collect();
        Self { kept: facts.len(), facts, numbers }
    }

    fn number(&mut self, pack: &SegmentPack) -> u32 {
        *self.numbers.entry(pack.id).or_insert_with(|| {
            self.facts.push(PackFacts { id: pack.id, len: pack.len, header: pack.header });
            self.facts.len() as u32 - 1
        })
    }

    /// Those that are not in the table, and the number of the first.
    fn unkept(&self) -> (usize, &[PackFacts]) {
        (self.kept, &self.facts[self.kept..])
    }
}

impl State {
    fn readers(&self, path: &str) -> Result<&Readers, AcceleratorError> {
        self.readers.as_ref().ok_or_else(|| AcceleratorError::damaged(path, GIVEN_UP))
    }

    /// Makes what has been written visible to lookups.
    fn refresh(&mut self, path: &str) -> Result<(), AcceleratorError> {
        let lost = |e: redb::Error| redb_error(path, e);
        let Some(db) = &self.db else { return Err(AcceleratorError::damaged(path, GIVEN_UP)) };
        let read = db.begin_read().map_err(|e| lost(e.into()))?;
        let chunks = read.open_table(tables::CHUNKS).map_err(|e| lost(e.into()))?;
        let dirs = read.open_table(tables::DIRS).map_err(|e| lost(e.into()))?;
        self.readers = Some(Readers { chunks, dirs });
        Ok(())
    }

    /// Lets go of all that came out of the database.
    fn forget(&mut self) {
        self.readers = None;
        self.filter = None;
        self.waiting = adding::Waiting::default();
        self.set_packs(Packs::default());
    }

    fn set_packs(&mut self, packs: Packs) {
        let known = self.condemned.iter().filter_map(|id| packs.numbers.get(id).copied());
        self.condemned_numbers = known.collect();
        self.packs = packs;
    }

    fn find(&self, key: &ChunkKey, path: &str) -> Result<Option<Location>, AcceleratorError> {
        if self.filter.as_ref().is_some_and(|filter| !filter.may_hold(key)) {
            return Ok(None);
        }
        let location = match self.waiting.rows.get(key) {
            Some(bytes) => Location::decode(key, bytes),
            None => {
                let found = self.readers(path)?.chunks.get(key);
                let Some(found) = found.map_err(|e| redb_error(path, e))? else { return Ok(None) };
                Location::decode(key, &found.value())
            }
        };
        let whole = location.filter(|l| (l.pack as usize) < self.packs.facts.len());
        let damaged = || AcceleratorError::damaged(path, "a chunk's place is lost");
        let location = whole.ok_or_else(damaged)?;
        Ok(Some(location).filter(|l| !self.condemned_numbers.contains(&l.pack)))
    }
}

/// Why nothing is found in an index after damage.
const GIVEN_UP: &str = "it was given up earlier in this run";

impl Accelerator {
    /// Opens or makes the accelerator of a repository. A file of another repository, of another
    /// layout or one that is damaged is made anew; one that another process uses is left alone
    /// and memory serves instead. The second value says so, for a warning.
    ///
    /// A file that was not closed cleanly, or that somebody wrote in since, is read through and held
    /// against its checksums before it is believed.
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
        damage::caught(&name, || {
            let db = database(Some(path), &name)?;
            stamp::remove(path)
                .map_err(|source| AcceleratorError::Directory { path: name.clone(), source })?;
            Self::over(db, Some(path.to_path_buf()), name.clone(), repository)
        })
    }

    fn in_memory(repository: &RepoId) -> Result<Self, AcceleratorError> {
        let name = "(memory)".to_owned();
        Self::over(database(None, &name)?, None, name, repository)
    }

    fn over(
        db: Database,
        file: Option<PathBuf>,
        path: String,
        repository: &RepoId,
    ) -> Result<Self, AcceleratorError> {
        let state = begun(db, &path, repository)?;
        let (repository, state) = (*repository, RwLock::new(state));
        let dirs_waiting = Mutex::default();
        Ok(Self { file, path, repository, writing: Mutex::new(()), state, dirs_waiting })
    }

    /// Begins again with an empty database, after damage.
    fn start_anew(&self) -> Result<(), AcceleratorError> {
        damage::caught(&self.path, || {
            let db = database(self.file.as_deref(), &self.path)?;
            let begun = begun(db, &self.path, &self.repository)?;
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let condemned = std::mem::take(&mut state.condemned);
            *state = State { condemned, ..begun };
            Ok(())
        })
    }

    fn db(&self) -> Result<Arc<Database>, AcceleratorError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.db.clone().ok_or_else(|| AcceleratorError::damaged(&self.path, GIVEN_UP))
    }

    fn refresh(&self) -> Result<(), AcceleratorError> {
        self.state.write().unwrap_or_else(PoisonError::into_inner).refresh(&self.path)
    }

    /// Where a chunk lies; `None` where the repository does not have it, or only in a pack that is
    /// about to be deleted.
    ///
    /// # Errors
    /// redb's; [`AcceleratorError::Damaged`].
    pub fn find(&self, key: &ChunkKey) -> Result<Option<Location>, AcceleratorError> {
        self.guarded(|| {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if state.filter.is_some() {
                return state.find(key, &self.path);
            }
            drop(state);
            self.load_filter()?;
            self.state.read().unwrap_or_else(PoisonError::into_inner).find(key, &self.path)
        })
    }

    /// What is known of a pack.
    #[must_use]
    pub fn pack(&self, number: u32) -> Option<PackFacts> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.packs.facts.get(number as usize).cloned()
    }

    /// All packs that the index knows.
    #[must_use]
    pub fn packs(&self) -> Vec<PackFacts> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).packs.facts.clone()
    }

    /// Chunks of these packs count as absent from now on.
    pub fn obey(&self, condemned: &HashSet<PackId>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.condemned = condemned.clone();
        let packs = std::mem::take(&mut state.packs);
        state.set_packs(packs);
    }

    /// Chunks in the index.
    ///
    /// # Errors
    /// redb's.
    pub fn chunks(&self) -> Result<u64, AcceleratorError> {
        self.flush_chunks()?;
        self.guarded(|| tables::count_chunks(&*self.db()?, &self.path))
    }

    /// Chunks in the index, and the bytes of all of them before compression.
    ///
    /// # Errors
    /// redb's.
    pub fn totals(&self) -> Result<(u64, u64), AcceleratorError> {
        self.flush_chunks()?;
        self.guarded(|| tables::sum_chunks(&*self.db()?, &self.path))
    }

    fn load_filter(&self) -> Result<(), AcceleratorError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.filter.is_some() {
            return Ok(());
        }
        let Some(db) = &state.db else {
            return Err(AcceleratorError::damaged(&self.path, GIVEN_UP));
        };
        let mut filter = tables::read_filter(db, &self.path)?;
        state.waiting.rows.keys().for_each(|key| filter.add(key));
        state.filter = Some(filter);
        Ok(())
    }
}

impl Drop for Accelerator {
    /// Chunks that still wait are given up: their segments are not noted either, so the next
    /// [`Accelerator::sync`] reads them again.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.readers = None;
        let (Some(db), Some(file)) = (state.db.take(), &self.file) else { return };
        if damage::closed(db, file) {
            // Without a stamp the next open only takes longer.
            let _ = stamp::put(file);
        }
    }
}

fn database(file: Option<&Path>, name: &str) -> Result<Database, AcceleratorError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let made = match file {
        Some(path) => builder.set_check_integrity_on_open(!stamp::holds(path)).create(path),
        None => builder.create_with_backend(redb::backends::InMemoryBackend::new()),
    };
    made.map_err(|e| redb_error(name, e))
}

/// The state of a database that has just been opened.
fn begun(db: Database, path: &str, repository: &RepoId) -> Result<State, AcceleratorError> {
    tables::prepare(&db, path, repository)?;
    let packs = Packs::of_table(tables::read_packs(&db, path)?);
    let mut state = State { db: Some(Arc::new(db)), packs, ..State::default() };
    state.refresh(path)?;
    Ok(state)
}

pub(crate) fn redb_error(path: &str, source: impl Into<redb::Error>) -> AcceleratorError {
    AcceleratorError::Redb { path: path.to_owned(), source: Box::new(source.into()) }
}

#[cfg(test)]
mod tests;
