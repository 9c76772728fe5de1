//! The redb tables and their records.

use std::collections::HashSet;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use super::{AcceleratorError, PackFacts, SCHEMA, redb_error};
use crate::base::id::{PackId, RepoId, SegmentId};
use crate::format::header::HEADER_LEN;
use crate::format::segment::ChunkKey;
use crate::store::filter::Filter;

/// Bytes of a location record.
pub(super) type LocationBytes = [u8; LOCATION_LEN];
pub(super) const LOCATION_LEN: usize = 26;
const PACK_LEN: usize = PackId::LEN + 8 + HEADER_LEN;

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const SEGMENTS: TableDefinition<'_, [u8; 32], ()> = TableDefinition::new("segments");
pub(super) const PACKS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("packs");
pub(super) const CHUNKS: TableDefinition<'_, ChunkKey, LocationBytes> =
    TableDefinition::new("chunks");
pub(super) const FILTER: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("filter");
pub(super) const DIRS: TableDefinition<'_, ChunkKey, &[u8]> = TableDefinition::new("dirs");
pub(super) const GENERATIONS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("generations");

/// Where a chunk lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Location {
    /// The pack's number in this accelerator.
    pub pack: u32,
    /// The block's number in the pack.
    pub block: u16,
    /// Where the block's sealed body begins in the pack.
    pub body_offset: u32,
    /// Bytes of the sealed body.
    pub body_len: u32,
    /// Where the chunk begins in the plain block.
    pub offset: u32,
    /// Bytes of the chunk.
    pub len: u32,
}

impl Location {
    /// The record under a key. Numbers stand in the order of bytes, so that records of one key sort
    /// as their packs do.
    pub(super) fn encode(&self, key: &ChunkKey) -> LocationBytes {
        let mut out = [0; LOCATION_LEN];
        out[..4].copy_from_slice(&self.pack.to_be_bytes());
        out[4..6].copy_from_slice(&self.block.to_be_bytes());
        out[6..10].copy_from_slice(&self.body_offset.to_be_bytes());
        out[10..14].copy_from_slice(&self.body_len.to_be_bytes());
        out[14..18].copy_from_slice(&self.offset.to_be_bytes());
        out[18..22].copy_from_slice(&self.len.to_be_bytes());
        let check = location_check(key, &out);
        out[22..].copy_from_slice(&check.to_be_bytes());
        out
    }

    /// The place out of a key's record; `None` where it is not what was written under that key.
    pub(super) fn decode(key: &ChunkKey, bytes: &LocationBytes) -> Option<Self> {
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        (word(22) == location_check(key, bytes)).then(|| Self {
            pack: word(0),
            block: u16::from_be_bytes([bytes[4], bytes[5]]),
            body_offset: word(6),
            body_len: word(10),
            offset: word(14),
            len: word(18),
        })
    }
}

/// Four bytes against damage, made in a few cycles: one of these is made for each lookup.
fn location_check(key: &ChunkKey, bytes: &LocationBytes) -> u32 {
    let word = |b: &[u8]| b.iter().fold(0u64, |n, &x| n << 8 | u64::from(x));
    let parts = [&key[..8], &key[8..], &bytes[..8], &bytes[8..16], &bytes[16..22]].map(word);
    let mixed = parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state: u64, part| {
        let wide = u128::from(state ^ part) * 0xa076_1d64_78bd_642f;
        (wide >> 64) as u64 ^ wide as u64 ^ part.rotate_left(29)
    });
    (mixed >> 32) as u32
}

/// Bytes of the sum behind a record.
const SUM_LEN: usize = 8;

fn sum(key: &[u8], record: &[u8]) -> [u8; SUM_LEN] {
    let mut out = [0; SUM_LEN];
    let digest = blake3::Hasher::new().update(key).update(record).finalize();
    out.copy_from_slice(&digest.as_bytes()[..SUM_LEN]);
    out
}

/// A record with a sum over it and its key.
pub(super) fn summed(key: &[u8], mut record: Vec<u8>) -> Vec<u8> {
    let sum = sum(key, &record);
    record.extend_from_slice(&sum);
    record
}

/// The record out of a summed one; `None` where it is not what was written under that key.
pub(super) fn whole<'r>(key: &[u8], bytes: &'r [u8]) -> Option<&'r [u8]> {
    let (record, kept) = bytes.split_last_chunk::<SUM_LEN>()?;
    (sum(key, record) == *kept).then_some(record)
}

/// Makes all tables; clears them where the file is of another repository or layout.
pub(super) fn prepare(
    db: &Database,
    path: &str,
    repository: &RepoId,
) -> Result<(), AcceleratorError> {
    if is_ours(db, path, repository)? {
        return Ok(());
    }
    let lost = |e: redb::Error| redb_error(path, e);
    let write = db.begin_write().map_err(|e| lost(e.into()))?;
    let names: Vec<String> = {
        let list = write.list_tables().map_err(|e| lost(e.into()))?;
        list.map(|t| redb::TableHandle::name(&t).to_owned()).collect()
    };
    for name in names {
        let table: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(&name);
        let handle = redb::TableHandle::name(&table).to_owned();
        delete_any(&write, &handle).map_err(&lost)?;
    }
    {
        let mut meta = write.open_table(META).map_err(|e| lost(e.into()))?;
        meta.insert("repository", &repository.as_bytes()[..]).map_err(|e| lost(e.into()))?;
        meta.insert("schema", &SCHEMA.to_le_bytes()[..]).map_err(|e| lost(e.into()))?;
        write.open_table(SEGMENTS).map_err(|e| lost(e.into()))?;
        write.open_table(PACKS).map_err(|e| lost(e.into()))?;
        write.open_table(CHUNKS).map_err(|e| lost(e.into()))?;
        write.open_table(FILTER).map_err(|e| lost(e.into()))?;
        write.open_table(DIRS).map_err(|e| lost(e.into()))?;
        write.open_table(GENERATIONS).map_err(|e| lost(e.into()))?;
    }
    write.commit().map_err(|e| lost(e.into()))
}

fn delete_any(write: &redb::WriteTransaction, name: &str) -> Result<(), redb::Error> {
    let list = write.list_tables()?;
    for table in list {
        if redb::TableHandle::name(&table) == name {
            write.delete_table(table)?;
        }
    }
    Ok(())
}

fn is_ours(db: &Database, path: &str, repository: &RepoId) -> Result<bool, AcceleratorError> {
    let lost = |e: redb::Error| redb_error(path, e);
    let read = db.begin_read().map_err(|e| lost(e.into()))?;
    let meta = match read.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(false),
        Err(e) => return Err(lost(e.into())),
    };
    let holds = |key: &str, expected: &[u8]| -> Result<bool, AcceleratorError> {
        let found = meta.get(key).map_err(|e| lost(e.into()))?;
        Ok(found.is_some_and(|v| v.value() == expected))
    };
    Ok(holds("repository", repository.as_bytes())? && holds("schema", &SCHEMA.to_le_bytes())?)
}

pub(super) fn read_packs(db: &Database, path: &str) -> Result<Vec<PackFacts>, AcceleratorError> {
    let lost = |e: redb::Error| redb_error(path, e);
    let read = db.begin_read().map_err(|e| lost(e.into()))?;
    let table = read.open_table(PACKS).map_err(|e| lost(e.into()))?;
    let mut packs = Vec::new();
    for item in table.iter().map_err(|e| lost(e.into()))? {
        let (number, value) = item.map_err(|e| lost(e.into()))?;
        let number = number.value();
        let record = whole(&number.to_le_bytes(), value.value());
        let facts = record.and_then(decode_pack).filter(|_| number as usize == packs.len());
        let damaged = || AcceleratorError::damaged(path, format!("pack {} is lost", packs.len()));
        let facts = facts.ok_or_else(damaged)?;
        packs.push(facts);
    }
    Ok(packs)
}

pub(super) fn encode_pack(number: u32, facts: &PackFacts) -> Vec<u8> {
    let mut out = Vec::with_capacity(PACK_LEN + SUM_LEN);
    out.extend_from_slice(facts.id.as_bytes());
    out.extend_from_slice(&facts.len.to_le_bytes());
    out.extend_from_slice(&facts.header);
    summed(&number.to_le_bytes(), out)
}

fn decode_pack(bytes: &[u8]) -> Option<PackFacts> {
    let (id, rest) = bytes.split_first_chunk::<32>()?;
    let (len, header) = rest.split_first_chunk::<8>()?;
    Some(PackFacts {
        id: PackId::from_array(*id),
        len: u64::from_le_bytes(*len),
        header: header.try_into().ok()?,
    })
}

pub(super) fn count_chunks(db: &Database, path: &str) -> Result<u64, AcceleratorError> {
    let lost = |e: redb::Error| redb_error(path, e);
    let read = db.begin_read().map_err(|e| lost(e.into()))?;
    let table = read.open_table(CHUNKS).map_err(|e| lost(e.into()))?;
    table.len().map_err(|e| lost(e.into()))
}

pub(super) fn sum_chunks(db: &Database, path: &str) -> Result<(u64, u64), AcceleratorError> {
    let lost = |e: redb::Error| redb_error(path, e);
    let read = db.begin_read().map_err(|e| lost(e.into()))?;
    let table = read.open_table(CHUNKS).map_err(|e| lost(e.into()))?;
    let (mut count, mut bytes) = (0u64, 0u64);
    for item in table.iter().map_err(|e| lost(e.into()))? {
        let (key, value) = item.map_err(|e| lost(e.into()))?;
        let at = Location::decode(&key.value(), &value.value());
        let at = at.ok_or_else(|| AcceleratorError::damaged(path, "a chunk's place is lost"))?;
        count += 1;
        bytes = bytes.saturating_add(u64::from(at.len));
    }
    Ok((count, bytes))
}

/// Notes segments and packs; `packs` are those from number `first` on.
pub(super) fn note(
    write: &redb::WriteTransaction,
    path: &str,
    ids: &[SegmentId],
    first: usize,
    packs: &[PackFacts],
) -> Result<(), AcceleratorError> {
    let lost = |e: redb::Error| redb_error(path, e);
    let mut segments = write.open_table(SEGMENTS).map_err(|e| lost(e.into()))?;
    for id in ids {
        segments.insert(*id.as_bytes(), ()).map_err(|e| lost(e.into()))?;
    }
    let mut table = write.open_table(PACKS).map_err(|e| lost(e.into()))?;
    for (number, facts) in (first as u32..).zip(packs) {
        table.insert(number, &encode_pack(number, facts)[..]).map_err(|e| lost(e.into()))?;
    }
    Ok(())
}

/// Pages of the filter that are to be written.
pub(super) struct FilterPages {
    changed: Vec<(u32, Vec<u8>)>,
    all: u32,
}

impl FilterPages {
    /// Those that changed since the last call.
    pub(super) fn of(filter: &mut Filter) -> Self {
        Self { all: filter.pages(), changed: filter.take_dirty() }
    }

    pub(super) fn put(
        self,
        write: &redb::WriteTransaction,
        path: &str,
    ) -> Result<(), AcceleratorError> {
        let lost = |e: redb::Error| redb_error(path, e);
        let mut table = write.open_table(FILTER).map_err(|e| lost(e.into()))?;
        // A filter that took the place of a larger one must not be read with the rest of that.
        table.retain_in(self.all.., |_, _| false).map_err(|e| lost(e.into()))?;
        for (number, page) in self.changed {
            let page = summed(&number.to_le_bytes(), page);
            table.insert(number, &page[..]).map_err(|e| lost(e.into()))?;
        }
        Ok(())
    }
}

/// Frees the pages of the version before the newest. Lookups hold one until they are shown the next;
/// only a commit after that gives its pages back, and a large change is one of almost all pages.
pub(super) fn release(db: &Database, path: &str) -> Result<(), AcceleratorError> {
    let lost = |e: redb::Error| redb_error(path, e);
    let write = db.begin_write().map_err(|e| lost(e.into()))?;
    write.commit().map_err(|e| lost(e.into()))
}

/// Empties the tables of chunks.
pub(super) fn forget_chunks(db: &Database, path: &str) -> Result<(), AcceleratorError> {
    let lost = |e: redb::Error| redb_error(path, e);
    let write = db.begin_write().map_err(|e| lost(e.into()))?;
    write.delete_table(SEGMENTS).map_err(|e| lost(e.into()))?;
    write.delete_table(PACKS).map_err(|e| lost(e.into()))?;
    write.delete_table(CHUNKS).map_err(|e| lost(e.into()))?;
    write.delete_table(FILTER).map_err(|e| lost(e.into()))?;
    write.open_table(SEGMENTS).map_err(|e| lost(e.into()))?;
    write.open_table(PACKS).map_err(|e| lost(e.into()))?;
    write.open_table(CHUNKS).map_err(|e| lost(e.into()))?;
    write.open_table(FILTER).map_err(|e| lost(e.into()))?;
    write.commit().map_err(|e| lost(e.into()))
}

/// The kept filter, or a new one over all chunks where there is none that fits.
pub(super) fn read_filter(db: &Database, path: &str) -> Result<Filter, AcceleratorError> {
    let lost = |e: redb::Error| redb_error(path, e);
    let read = db.begin_read().map_err(|e| lost(e.into()))?;
    let chunks = read.open_table(CHUNKS).map_err(|e| lost(e.into()))?;
    let count = chunks.len().map_err(|e| lost(e.into()))?;
    let kept = read.open_table(FILTER).map_err(|e| lost(e.into()))?;
    let mut pages = Vec::new();
    for item in kept.iter().map_err(|e| lost(e.into()))? {
        let (number, page) = item.map_err(|e| lost(e.into()))?;
        // A page that is not ours is empty: the filter is made again, and written with the next
        // chunks.
        let number = number.value();
        let page = whole(&number.to_le_bytes(), page.value());
        pages.push(page.filter(|_| number as usize == pages.len()).unwrap_or_default().to_vec());
    }
    if let Some(filter) = Filter::from_pages(&pages, count) {
        return Ok(filter);
    }
    let mut filter = Filter::with_room_for(count.saturating_mul(2));
    for item in chunks.iter().map_err(|e| lost(e.into()))? {
        filter.add(&item.map_err(|e| lost(e.into()))?.0.value());
    }
    Ok(filter)
}

/// Notes the manifest of a generation.
pub(super) fn put_generation(
    write: &redb::WriteTransaction,
    path: &str,
    number: u32,
    manifest: &[u8; 32],
) -> Result<(), AcceleratorError> {
    let lost = |e: redb::Error| redb_error(path, e);
    let mut table = write.open_table(GENERATIONS).map_err(|e| lost(e.into()))?;
    let record = summed(&number.to_le_bytes(), manifest.to_vec());
    table.insert(number, &record[..]).map_err(|e| lost(e.into()))?;
    Ok(())
}

/// All generations with their manifests.
pub(super) fn generations(
    db: &Database,
    path: &str,
) -> Result<Vec<(u32, [u8; 32])>, AcceleratorError> {
    let lost = |e: redb::Error| redb_error(path, e);
    let read = db.begin_read().map_err(|e| lost(e.into()))?;
    let table = read.open_table(GENERATIONS).map_err(|e| lost(e.into()))?;
    let mut all = Vec::new();
    for item in table.iter().map_err(|e| lost(e.into()))? {
        let (number, value) = item.map_err(|e| lost(e.into()))?;
        let number = number.value();
        let manifest = whole(&number.to_le_bytes(), value.value());
        let manifest = manifest.and_then(|m| m.try_into().ok());
        let damaged = || AcceleratorError::damaged(path, format!("generation {number} is lost"));
        all.push((number, manifest.ok_or_else(damaged)?));
    }
    Ok(all)
}

/// The segments whose chunks are in the table.
pub(super) fn segments(db: &Database, path: &str) -> Result<HashSet<SegmentId>, AcceleratorError> {
    let lost = |e: redb::Error| redb_error(path, e);
    let read = db.begin_read().map_err(|e| lost(e.into()))?;
    let table = read.open_table(SEGMENTS).map_err(|e| lost(e.into()))?;
    let mut known = HashSet::new();
    for item in table.iter().map_err(|e| lost(e.into()))? {
        known.insert(SegmentId::from_array(item.map_err(|e| lost(e.into()))?.0.value()));
    }
    Ok(known)
}
