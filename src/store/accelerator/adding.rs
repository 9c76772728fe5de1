//! Segments that a run publishes: kept in memory, and written many at a time.
//!
//! Keys are hashes, so each segment touches almost every leaf of a large table. Waiting for others
//! makes one pass over the table out of many. A segment is noted together with its chunks, so what
//! a killed run had waiting is read again out of the repository.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use redb::{ReadableTable, ReadableTableMetadata};

use super::filling::{Filling, places};
use super::placing::PLACED_MAX;
use super::tables::{self, FilterPages, LocationBytes};
use super::{Accelerator, AcceleratorError, State, redb_error};
use crate::base::id::SegmentId;
use crate::format::segment::{ChunkKey, Segment};
use crate::store::filter::Filter;

/// Chunks that wait at most: about 15 MB.
const WAITING_MAX: usize = 256 << 10;

/// Segments that are not in the tables yet.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) rows: BTreeMap<ChunkKey, LocationBytes>,
    segments: Vec<SegmentId>,
}

impl Accelerator {
    /// Adds a segment that is in the repository: lookups find its chunks from now on. It is written
    /// with others, at the latest by [`Self::committed`] or [`Self::flush_chunks`].
    ///
    /// # Errors
    /// redb's.
    pub fn add(&self, id: &SegmentId, segment: &Segment) -> Result<(), AcceleratorError> {
        self.add_within(id, segment, WAITING_MAX)
    }

    /// As [`Self::add`], with at most `bound` chunks waiting.
    pub(super) fn add_within(
        &self,
        id: &SegmentId,
        segment: &Segment,
        bound: usize,
    ) -> Result<(), AcceleratorError> {
        let chunks: usize =
            segment.packs.iter().flat_map(|p| &p.blocks).map(|b| b.chunks.len()).sum();
        if chunks > bound {
            self.flush_chunks()?;
            let mut filling = Filling::begin(self, 0, false, PLACED_MAX);
            filling.add(id, segment)?;
            return filling.finish();
        }
        self.guarded(|| {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let waiting = self.state.read().unwrap_or_else(PoisonError::into_inner);
            let full = waiting.waiting.rows.len() + chunks > bound;
            drop(waiting);
            if full {
                self.write_waiting()?;
            }
            self.load_filter()?;
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.make_room(chunks as u64, &self.path)?;
            state.wait_for(id, segment);
            Ok(())
        })
    }

    /// Writes the segments that wait.
    ///
    /// # Errors
    /// redb's; they wait on.
    pub fn flush_chunks(&self) -> Result<(), AcceleratorError> {
        self.guarded(|| {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            self.write_waiting()
        })
    }

    /// One transaction for all that waits. Whoever calls holds `writing`.
    fn write_waiting(&self) -> Result<(), AcceleratorError> {
        let pages = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if state.waiting.segments.is_empty() {
                return Ok(());
            }
            state.filter.as_mut().map(FilterPages::of)
        };
        // Lookups go on meanwhile.
        let written = self.write_rows(pages);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match written {
            Ok(()) => {
                state.waiting = Waiting::default();
                state.packs.kept = state.packs.facts.len();
                state.refresh(&self.path)?;
                drop(state);
                tables::release(&*self.db()?, &self.path)
            }
            Err(error) => {
                // Its changed pages were not written: it is made again out of what was.
                state.filter = None;
                Err(error)
            }
        }
    }

    fn write_rows(&self, pages: Option<FilterPages>) -> Result<(), AcceleratorError> {
        let path = &self.path;
        let lost = |e: redb::Error| redb_error(path, e);
        let db = self.db()?;
        let write = db.begin_write().map_err(|e| lost(e.into()))?;
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let (first, packs) = state.packs.unkept();
        tables::note(&write, path, &state.waiting.segments, first, packs)?;
        {
            let mut chunks = write.open_table(tables::CHUNKS).map_err(|e| lost(e.into()))?;
            for (key, location) in &state.waiting.rows {
                chunks.insert(key, location).map_err(|e| lost(e.into()))?;
            }
        }
        drop(state);
        pages.map_or(Ok(()), |pages| pages.put(&write, path))?;
        write.commit().map_err(|e| lost(e.into()))
    }
}

impl State {
    /// Makes the filter anew where it would be too full.
    fn make_room(&mut self, more: u64, path: &str) -> Result<(), AcceleratorError> {
        let lost = |e: redb::Error| redb_error(path, e);
        if self.filter.as_ref().is_none_or(|filter| !filter.is_full(more)) {
            return Ok(());
        }
        let chunks = &self.readers(path)?.chunks;
        let count = chunks.len().map_err(|e| lost(e.into()))?;
        let all = count.saturating_add(self.waiting.rows.len() as u64).saturating_add(more);
        let mut filter = Filter::with_room_for(all.saturating_mul(2));
        for item in chunks.iter().map_err(|e| lost(e.into()))? {
            filter.add(&item.map_err(|e| lost(e.into()))?.0.value());
        }
        self.waiting.rows.keys().for_each(|key| filter.add(key));
        self.filter = Some(filter);
        Ok(())
    }

    fn wait_for(&mut self, id: &SegmentId, segment: &Segment) {
        for pack in &segment.packs {
            let number = self.packs.number(pack);
            for (key, location) in places(pack, number) {
                if let Some(filter) = &mut self.filter {
                    filter.add(&key);
                }
                self.waiting.rows.insert(key, location);
            }
        }
        self.waiting.segments.push(*id);
    }
}
