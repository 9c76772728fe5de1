//! The scan cache: what each directory looked like when its content was last read.
//!
//! A record names the generation of the run that wrote it; a generation names the manifest that
//! was committed by it. Only while that manifest is listed is a record believed without looking its
//! chunks up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::PoisonError;

use super::tables;
use super::{Accelerator, AcceleratorError, redb_error};
use crate::base::id::{ChunkId, ManifestId};
use crate::format::segment::ChunkKey;
use crate::format::wire::{Reader, put_varint};

/// One run's number in this accelerator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Generation(pub u32);

/// What a directory looked like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirRecord {
    /// The run that wrote the record.
    pub generation: Generation,
    /// The directory's top page; `None` where it is empty.
    pub tree: Option<ChunkId>,
    /// Digest of all its names and inodes; zero where one of them was too young to be believed.
    pub listing: [u8; 16],
    /// Digest of its sub-directories' names and trees.
    pub children: [u8; 16],
    /// Digest of each name and inode that may be believed, sorted.
    pub entries: Vec<[u8; 16]>,
}

impl DirRecord {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(100 + self.entries.len() * 16);
        put_varint(&mut out, u64::from(self.generation.0));
        out.push(u8::from(self.tree.is_some()));
        if let Some(tree) = &self.tree {
            out.extend_from_slice(tree.as_bytes());
        }
        out.extend_from_slice(&self.listing);
        out.extend_from_slice(&self.children);
        put_varint(&mut out, self.entries.len() as u64);
        self.entries.iter().for_each(|e| out.extend_from_slice(e));
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let generation = Generation(u32::try_from(reader.varint("").ok()?).ok()?);
        let tree = match reader.u8("").ok()? {
            0 => None,
            _ => Some(ChunkId::from_array(reader.array("").ok()?)),
        };
        let listing = reader.array("").ok()?;
        let children = reader.array("").ok()?;
        let count = reader.count(usize::MAX >> 8, 16, "").ok()?;
        let entries = reader.take(count * 16, "").ok()?.as_chunks::<16>().0.to_vec();
        reader.end("").ok()?;
        Some(Self { generation, tree, listing, children, entries })
    }
}

/// Records that wait to be written in one sorted batch.
#[derive(Default)]
pub(super) struct Waiting {
    records: BTreeMap<ChunkKey, Vec<u8>>,
    bytes: usize,
    /// The run's generation, until it is noted.
    generation: Option<Generation>,
}

/// Bytes of waiting records above which they are written.
const WAITING_MAX: usize = 8 << 20;

impl Accelerator {
    /// The record of a directory, by its key (a keyed digest of file system and path). One that is
    /// damaged counts as none: the directory is read again.
    ///
    /// # Errors
    /// redb's.
    pub fn dir(&self, key: &ChunkKey) -> Result<Option<DirRecord>, AcceleratorError> {
        let waiting = self.dirs_waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = waiting.records.get(key) {
            return Ok(DirRecord::decode(bytes));
        }
        drop(waiting);
        self.guarded(|| {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            let readers = state.readers(&self.path)?;
            let found = readers.dirs.get(key).map_err(|e| redb_error(&self.path, e))?;
            Ok(found.and_then(|v| DirRecord::decode(tables::whole(key, v.value())?)))
        })
    }

    /// Keeps a record; it is written with others in a sorted batch.
    ///
    /// # Errors
    /// redb's, where a batch was full.
    pub fn put_dir(&self, key: ChunkKey, record: &DirRecord) -> Result<(), AcceleratorError> {
        let mut waiting = self.dirs_waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = record.encode();
        waiting.bytes += bytes.len() + 64;
        waiting.records.insert(key, bytes);
        let full = waiting.bytes > WAITING_MAX;
        drop(waiting);
        if full { self.flush_dirs() } else { Ok(()) }
    }

    /// Writes the records that wait.
    ///
    /// # Errors
    /// redb's.
    pub fn flush_dirs(&self) -> Result<(), AcceleratorError> {
        let mut waiting = self.dirs_waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.records.is_empty() {
            return Ok(());
        }
        let taken = std::mem::take(&mut *waiting);
        drop(waiting);
        self.guarded(|| self.write_dirs(taken))
    }

    fn write_dirs(&self, taken: Waiting) -> Result<(), AcceleratorError> {
        let lost = |e: redb::Error| redb_error(&self.path, e);
        let db = self.db()?;
        let write = db.begin_write().map_err(|e| lost(e.into()))?;
        {
            let mut dirs = write.open_table(tables::DIRS).map_err(|e| lost(e.into()))?;
            for (key, bytes) in taken.records {
                let record = tables::summed(&key, bytes);
                dirs.insert(key, &record[..]).map_err(|e| lost(e.into()))?;
            }
        }
        if let Some(generation) = taken.generation {
            tables::put_generation(&write, &self.path, generation.0, &[0; 32])?;
        }
        write.commit().map_err(|e| lost(e.into()))?;
        self.refresh()
    }

    /// The generations whose manifests are among `listed`.
    ///
    /// # Errors
    /// redb's.
    pub fn believed(
        &self,
        listed: &HashSet<ManifestId>,
    ) -> Result<HashSet<Generation>, AcceleratorError> {
        let all = self.generations()?;
        Ok(all.into_iter().filter(|(_, m)| listed.contains(m)).map(|(g, _)| g).collect())
    }

    /// No record is believed any more without looking its chunks up: the index is not what it was
    /// when they were written. Numbers stay, so that none is given twice.
    ///
    /// # Errors
    /// redb's.
    pub fn disbelieve(&self) -> Result<(), AcceleratorError> {
        let numbers: Vec<u32> = self.generations()?.into_keys().map(|g| g.0).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        self.guarded(|| {
            let lost = |e: redb::Error| redb_error(&self.path, e);
            let write = self.db()?.begin_write().map_err(|e| lost(e.into()))?;
            for number in numbers {
                tables::put_generation(&write, &self.path, number, &[0; 32])?;
            }
            write.commit().map_err(|e| lost(e.into()))
        })
    }

    fn generations(&self) -> Result<HashMap<Generation, ManifestId>, AcceleratorError> {
        self.guarded(|| {
            let all = tables::generations(&*self.db()?, &self.path)?;
            Ok(all.into_iter().map(|(n, id)| (Generation(n), ManifestId::from_array(id))).collect())
        })
    }

    /// A generation of its own for this run. It is noted together with the first record, and names
    /// no manifest until [`Self::committed`].
    ///
    /// # Errors
    /// redb's.
    pub fn begin_generation(&self) -> Result<Generation, AcceleratorError> {
        let last = self.generations()?.into_keys().max();
        let next = Generation(last.map_or(0, |n| n.0.wrapping_add(1)));
        let mut waiting = self.dirs_waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.generation = Some(next);
        Ok(next)
    }

    /// The run's manifest is in the repository: its records may be believed from now on. Chunks
    /// that still wait are written too.
    ///
    /// # Errors
    /// redb's.
    pub fn committed(
        &self,
        generation: Generation,
        manifest: &ManifestId,
    ) -> Result<(), AcceleratorError> {
        self.flush_chunks()?;
        self.flush_dirs()?;
        let waiting = self.dirs_waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.generation == Some(generation) {
            // Nothing was noted under it: every record of before still holds.
            return Ok(());
        }
        drop(waiting);
        self.guarded(|| {
            let lost = |e: redb::Error| redb_error(&self.path, e);
            let db = self.db()?;
            let write = db.begin_write().map_err(|e| lost(e.into()))?;
            tables::put_generation(&write, &self.path, generation.0, manifest.as_bytes())?;
            write.commit().map_err(|e| lost(e.into()))
        })
    }
}
