//! Making the accelerator's set of segments equal to the listed one, and adding new ones.

use std::collections::HashSet;
use std::sync::PoisonError;

use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::tables::{self, Location, encode_pack};
use super::{Accelerator, AcceleratorError, PackFacts, redb_error};
use crate::backend::{BackendError, ObjectName, Space};
use crate::base::id::SegmentId;
use crate::base::limits;
use crate::format::DecodeError;
use crate::format::control::Control;
use crate::format::header::ObjectKind;
use crate::format::segment::{ChunkKey, Segment, body_offset};
use crate::store::filter::Filter;
use crate::store::repository::{Repository, RepositoryError, unpack_body};

/// A chunk and its place.
type Placed = (ChunkKey, Location);

/// What making the sets equal came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SyncReport {
    /// Segments added.
    pub added: usize,
    /// Whether all was built anew, because a segment that it knew is gone.
    pub rebuilt: bool,
    /// Segments that cannot be read: their packs are not known to this run.
    pub damaged: Vec<(ObjectName, String)>,
}

impl Accelerator {
    /// Makes the accelerator's segments equal to those listed.
    ///
    /// # Errors
    /// redb's, or the storage's where it cannot list.
    pub fn sync(&self, repository: &Repository) -> Result<SyncReport, AcceleratorError> {
        let listed = repository
            .backend()
            .list(Space::Index)
            .map_err(|e| Box::new(RepositoryError::from(e)))?;
        let known = self.known_segments()?;
        let listed: Vec<SegmentId> =
            listed.iter().filter_map(|(name, _)| SegmentId::parse(name.name()).ok()).collect();
        let listed_set: HashSet<SegmentId> = listed.iter().copied().collect();
        let mut report = SyncReport::default();
        let mut have = known.clone();
        if !known.is_subset(&listed_set) {
            // First, so that no end in between leaves records believed whose chunks are not known.
            self.disbelieve()?;
            self.forget_chunks()?;
            have.clear();
            report.rebuilt = !known.is_empty();
        }
        for id in listed.into_iter().filter(|id| !have.contains(id)) {
            match read_segment(repository, &id) {
                Ok(segment) => {
                    self.add(&id, &segment)?;
                    report.added += 1;
                }
                // Somebody else merged or cleared it away since the listing.
                Err(RepositoryError::Backend(BackendError::NotFound(_))) => {}
                // What it names may be whole: that is no damage, and nothing is to be done about it.
                Err(error @ RepositoryError::Newer { .. }) => return Err(Box::new(error).into()),
                Err(error) => report.damaged.push((ObjectName::segment(&id), error.to_string())),
            }
        }
        if !report.damaged.is_empty() {
            self.disbelieve()?;
        }
        Ok(report)
    }

    fn known_segments(&self) -> Result<HashSet<SegmentId>, AcceleratorError> {
        let lost = |e: redb::Error| redb_error(&self.path, e);
        let read = self.db.begin_read().map_err(|e| lost(e.into()))?;
        let table = read.open_table(tables::SEGMENTS).map_err(|e| lost(e.into()))?;
        let mut known = HashSet::new();
        for item in table.iter().map_err(|e| lost(e.into()))? {
            known.insert(SegmentId::from_array(item.map_err(|e| lost(e.into()))?.0.value()));
        }
        Ok(known)
    }

    fn forget_chunks(&self) -> Result<(), AcceleratorError> {
        let lost = |e: redb::Error| redb_error(&self.path, e);
        let write = self.db.begin_write().map_err(|e| lost(e.into()))?;
        write.delete_table(tables::SEGMENTS).map_err(|e| lost(e.into()))?;
        write.delete_table(tables::PACKS).map_err(|e| lost(e.into()))?;
        write.delete_table(tables::CHUNKS).map_err(|e| lost(e.into()))?;
        write.delete_table(tables::FILTER).map_err(|e| lost(e.into()))?;
        write.open_table(tables::SEGMENTS).map_err(|e| lost(e.into()))?;
        write.open_table(tables::PACKS).map_err(|e| lost(e.into()))?;
        write.open_table(tables::CHUNKS).map_err(|e| lost(e.into()))?;
        write.open_table(tables::FILTER).map_err(|e| lost(e.into()))?;
        write.commit().map_err(|e| lost(e.into()))?;
        *self.filter.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.load_packs()?;
        self.refresh()
    }

    /// Adds a segment that is in the repository, in one sorted batch.
    ///
    /// # Errors
    /// redb's.
    pub fn add(&self, id: &SegmentId, segment: &Segment) -> Result<(), AcceleratorError> {
        self.load_filter()?;
        let lost = |e: redb::Error| redb_error(&self.path, e);
        let (batch, new_packs) = self.number(segment);
        let write = self.db.begin_write().map_err(|e| lost(e.into()))?;
        {
            let mut segments = write.open_table(tables::SEGMENTS).map_err(|e| lost(e.into()))?;
            segments.insert(*id.as_bytes(), ()).map_err(|e| lost(e.into()))?;
            let mut packs = write.open_table(tables::PACKS).map_err(|e| lost(e.into()))?;
            for (number, facts) in &new_packs {
                packs.insert(*number, &encode_pack(facts)[..]).map_err(|e| lost(e.into()))?;
            }
            let mut chunks = write.open_table(tables::CHUNKS).map_err(|e| lost(e.into()))?;
            for (key, location) in &batch {
                chunks.insert(key, location.encode()).map_err(|e| lost(e.into()))?;
            }
            let mut slot = self.filter.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(filter) = slot.as_mut() {
                if filter.is_full(batch.len() as u64) {
                    let count = chunks.len().map_err(|e| lost(e.into()))?;
                    *filter = Filter::with_room_for((count + batch.len() as u64) * 2);
                    for item in chunks.iter().map_err(|e| lost(e.into()))? {
                        filter.add(&item.map_err(|e| lost(e.into()))?.0.value());
                    }
                } else {
                    batch.iter().for_each(|(key, _)| filter.add(key));
                }
                let mut pages = write.open_table(tables::FILTER).map_err(|e| lost(e.into()))?;
                for (number, page) in filter.take_dirty() {
                    pages.insert(number, &page[..]).map_err(|e| lost(e.into()))?;
                }
            }
        }
        write.commit().map_err(|e| lost(e.into()))?;
        self.refresh()
    }

    /// Gives the segment's packs their numbers and its chunks their places, sorted by key.
    fn number(&self, segment: &Segment) -> (Vec<Placed>, Vec<(u32, PackFacts)>) {
        let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Vec::new();
        let mut new_packs = Vec::new();
        for pack in &segment.packs {
            let number = match packs.numbers.get(&pack.id) {
                Some(number) => *number,
                None => {
                    let number = packs.facts.len() as u32;
                    let facts = PackFacts { id: pack.id, len: pack.len, header: pack.header };
                    packs.numbers.insert(pack.id, number);
                    packs.facts.push(facts.clone());
                    new_packs.push((number, facts));
                    number
                }
            };
            for (block, at, entry) in pack.blocks_with_offsets() {
                let mut offset = 0;
                for (key, len) in &entry.chunks {
                    let location = Location {
                        pack: number,
                        block: block as u16,
                        body_offset: body_offset(at, &entry.header) as u32,
                        body_len: entry.header.body_len,
                        offset,
                        len: *len,
                    };
                    offset += len;
                    batch.push((*key, location));
                }
            }
        }
        batch.sort_unstable_by_key(|(key, _)| *key);
        (batch, new_packs)
    }
}

/// Reads and opens an index segment.
///
/// # Errors
/// The storage's, damage, forgery, or a newer version.
pub fn read_segment(repository: &Repository, id: &SegmentId) -> Result<Segment, RepositoryError> {
    let name = ObjectName::segment(id);
    let bytes = repository.backend().get(&name, limits::SEGMENT_MAX)?;
    let wrong = |source| RepositoryError::decoding(&name, source);
    if blake3::hash(&bytes).as_bytes() != id.as_bytes() {
        return Err(wrong(DecodeError::Checksum { what: ObjectKind::Segment.words() }));
    }
    let control = Control::decode(&bytes, ObjectKind::Segment).map_err(wrong)?;
    let key = repository.object_key(&control.header, &control.clear()).map_err(wrong)?;
    let mut body = control.sealed;
    key.open(0, &mut body)
        .map_err(|source| RepositoryError::Forged { object: name.to_string(), source })?;
    Segment::decode(&unpack_body(&body).map_err(wrong)?).map_err(wrong)
}

/// The bytes of a new index segment, and its id.
///
/// # Errors
/// [`RepositoryError::Key`] without random bytes.
pub fn seal_segment(
    repository: &Repository,
    segment: &Segment,
) -> Result<(SegmentId, Vec<u8>), RepositoryError> {
    let header = repository.new_header(ObjectKind::Segment)?;
    let lost = |source| RepositoryError::Damaged { object: "a new segment".into(), source };
    let mut control = Control { header, repo: *repository.id(), slot: None, sealed: Vec::new() };
    // Keys and lengths do not compress: the body goes as it is.
    let mut sealed = vec![0];
    sealed.extend_from_slice(&segment.encode());
    repository
        .object_key(&control.header, &control.clear())
        .map_err(lost)?
        .seal(0, &mut sealed)
        .map_err(|source| RepositoryError::Forged { object: "a new segment".into(), source })?;
    control.sealed = sealed;
    let bytes = control.encode();
    Ok((SegmentId::from_array(*blake3::hash(&bytes).as_bytes()), bytes))
}
