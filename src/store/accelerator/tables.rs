//! The redb tables and their records.

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use super::{AcceleratorError, PackFacts, SCHEMA, redb_error};
use crate::base::id::{PackId, RepoId};
use crate::format::header::HEADER_LEN;
use crate::format::segment::ChunkKey;
use crate::store::filter::Filter;

/// Bytes of a location record.
pub(super) type LocationBytes = [u8; LOCATION_LEN];
const LOCATION_LEN: usize = 22;
const PACK_LEN: usize = PackId::LEN + 8 + HEADER_LEN;

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const SEGMENTS: TableDefinition<'_, [u8; 32], ()> = TableDefinition::new("segments");
pub(super) const PACKS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("packs");
pub(super) const CHUNKS: TableDefinition<'_, ChunkKey, LocationBytes> =
    TableDefinition::new("chunks");
pub(super) const FILTER: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("filter");
pub(super) const DIRS: TableDefinition<'_, ChunkKey, &[u8]> = TableDefinition::new("dirs");
pub(super) const GENERATIONS: TableDefinition<'_, u32, [u8; 32]> =
    TableDefinition::new("generations");

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
    pub(super) fn encode(&self) -> LocationBytes {
        let mut out = [0; LOCATION_LEN];
        out[..4].copy_from_slice(&self.pack.to_le_bytes());
        out[4..6].copy_from_slice(&self.block.to_le_bytes());
        out[6..10].copy_from_slice(&self.body_offset.to_le_bytes());
        out[10..14].copy_from_slice(&self.body_len.to_le_bytes());
        out[14..18].copy_from_slice(&self.offset.to_le_bytes());
        out[18..22].copy_from_slice(&self.len.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &LocationBytes) -> Self {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            pack: word(0),
            block: u16::from_le_bytes([bytes[4], bytes[5]]),
            body_offset: word(6),
            body_len: word(10),
            offset: word(14),
            len: word(18),
        }
    }
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
        let facts = decode_pack(value.value()).filter(|_| number.value() as usize == packs.len());
        packs.push(facts.ok_or_else(|| AcceleratorError::Record { path: path.to_owned() })?);
    }
    Ok(packs)
}

pub(super) fn encode_pack(facts: &PackFacts) -> Vec<u8> {
    let mut out = Vec::with_capacity(PACK_LEN);
    out.extend_from_slice(facts.id.as_bytes());
    out.extend_from_slice(&facts.len.to_le_bytes());
    out.extend_from_slice(&facts.header);
    out
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
        let (_, value) = item.map_err(|e| lost(e.into()))?;
        count += 1;
        bytes = bytes.saturating_add(u64::from(Location::decode(&value.value()).len));
    }
    Ok((count, bytes))
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
        pages.push(item.map_err(|e| lost(e.into()))?.1.value().to_vec());
    }
    if let Some(filter) = Filter::from_pages(&pages, count) {
        return Ok(filter);
    }
    let mut filter = Filter::with_room_for(count * 2);
    for item in chunks.iter().map_err(|e| lost(e.into()))? {
        filter.add(&item.map_err(|e| lost(e.into()))?.0.value());
    }
    Ok(filter)
}
