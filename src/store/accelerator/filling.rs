//! Any number of segments into the tables in one transaction, their chunks in the order of keys.

use std::sync::{MutexGuard, PoisonError};

use redb::ReadableTable;

use super::placing::{PLACED_MAX, Placing, Row};
use super::tables::{self, FilterPages, LocationBytes};
use super::{Accelerator, AcceleratorError, Location, Packs, redb_error};
use crate::base::id::SegmentId;
use crate::format::segment::{ChunkKey, Segment, SegmentPack, body_offset};
use crate::store::filter::Filter;

/// Segments on their way into an accelerator. Nothing of them is in it until [`Filling::finish`];
/// whoever drops this instead leaves the accelerator as it was.
pub struct Filling<'a> {
    accelerator: &'a Accelerator,
    packs: Packs,
    placing: Placing,
    segments: Vec<SegmentId>,
    /// What is in the accelerator goes.
    anew: bool,
    _writing: MutexGuard<'a, ()>,
}

/// Each chunk of a pack with its place, in the order of the pack.
pub(super) fn places(pack: &SegmentPack, number: u32) -> impl Iterator<Item = Row> {
    pack.blocks_with_offsets().flat_map(move |(block, at, entry)| {
        let mut offset = 0;
        entry.chunks.iter().map(move |(key, len)| {
            let location = Location {
                pack: number,
                block: block as u16,
                body_offset: body_offset(at, &entry.header) as u32,
                body_len: entry.header.body_len,
                offset,
                len: *len,
            };
            offset += len;
            (*key, location.encode(key))
        })
    })
}

impl Accelerator {
    /// Begins to take over many segments at once; `listed` is about how many bytes they have.
    ///
    /// # Errors
    /// redb's.
    pub fn filling(&self, listed: u64) -> Result<Filling<'_>, AcceleratorError> {
        self.flush_chunks()?;
        Ok(Filling::begin(self, listed, false, PLACED_MAX))
    }
}

impl<'a> Filling<'a> {
    /// Nothing may be waiting in the accelerator.
    pub(super) fn begin(
        accelerator: &'a Accelerator,
        listed: u64,
        anew: bool,
        bound: usize,
    ) -> Self {
        let writing = accelerator.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let state = accelerator.state.read().unwrap_or_else(PoisonError::into_inner);
        let packs = if anew { Packs::default() } else { state.packs.clone() };
        let dir = accelerator.file.as_ref().and_then(|file| file.parent());
        let placing = Placing::new(dir, listed, bound);
        drop(state);
        Self { accelerator, packs, placing, segments: Vec::new(), anew, _writing: writing }
    }

    /// Takes a segment that is in the repository.
    ///
    /// # Errors
    /// The cache directory's, where chunks do not fit into memory.
    pub fn add(&mut self, id: &SegmentId, segment: &Segment) -> Result<(), AcceleratorError> {
        for pack in &segment.packs {
            let number = self.packs.number(pack);
            for row in places(pack, number) {
                self.placing.push(row).map_err(|source| AcceleratorError::Directory {
                    path: self.accelerator.path.clone(),
                    source,
                })?;
            }
        }
        self.segments.push(*id);
        Ok(())
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// redb's, or the cache directory's.
    pub fn finish(self) -> Result<(), AcceleratorError> {
        let accelerator = self.accelerator;
        accelerator.guarded(|| {
            let done = self.write();
            if done.is_err() {
                // What has been written of it, if anything, is another one.
                let state = accelerator.state.write();
                state.unwrap_or_else(PoisonError::into_inner).filter = None;
            }
            done
        })
    }

    fn write(mut self) -> Result<(), AcceleratorError> {
        let path = &self.accelerator.path;
        let lost = |e: redb::Error| redb_error(path, e);
        let db = self.accelerator.db()?;
        if self.anew {
            // In a transaction of its own: the next one uses its pages again. Between the two the
            // tables hold nothing, and say so.
            tables::forget_chunks(&db, path)?;
            let mut state = self.accelerator.state.write().unwrap_or_else(PoisonError::into_inner);
            state.filter = None;
            state.set_packs(Packs::default());
            state.refresh(path)?;
            drop(state);
            tables::release(&db, path)?;
        }
        let write = db.begin_write().map_err(|e| lost(e.into()))?;
        let (first, packs) = self.packs.unkept();
        tables::note(&write, path, &self.segments, first, packs)?;
        let mut filter = {
            let mut chunks = write.open_table(tables::CHUNKS).map_err(|e| lost(e.into()))?;
            let mut filter = self.filter(&chunks)?;
            let spill = |source| AcceleratorError::Directory { path: path.clone(), source };
            self.placing.sorted(spill, |(key, location)| {
                filter.add(key);
                chunks.insert(key, location).map_err(|e| lost(e.into()))?;
                Ok(())
            })?;
            filter
        };
        FilterPages::of(&mut filter).put(&write, path)?;
        write.commit().map_err(|e| lost(e.into()))?;
        self.packs.kept = self.packs.facts.len();
        let mut state = self.accelerator.state.write().unwrap_or_else(PoisonError::into_inner);
        state.filter = Some(filter);
        state.set_packs(self.packs);
        state.refresh(path)?;
        drop(state);
        tables::release(&db, path)
    }

    /// The filter of what is in the table, with room for what comes.
    fn filter(
        &self,
        chunks: &impl ReadableTable<ChunkKey, LocationBytes>,
    ) -> Result<Filter, AcceleratorError> {
        let lost = |e: redb::Error| redb_error(&self.accelerator.path, e);
        let count = chunks.len().map_err(|e| lost(e.into()))?;
        let total = self.placing.total();
        if count > 0 {
            self.accelerator.load_filter()?;
            let mut state = self.accelerator.state.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(filter) = state.filter.take().filter(|f| !f.is_full(total)) {
                return Ok(filter);
            }
        }
        let all = count.saturating_add(total);
        // A run adds a few per cent; twice as much, which is what `add` makes room for, would be
        // twice the memory.
        let mut filter = Filter::with_room_for(all.saturating_add(all / 4));
        for item in chunks.iter().map_err(|e| lost(e.into()))? {
            filter.add(&item.map_err(|e| lost(e.into()))?.0.value());
        }
        Ok(filter)
    }
}
