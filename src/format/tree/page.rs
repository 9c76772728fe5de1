//! The pages that hold a directory's entries.

use super::entry::Entry;
use crate::base::id::{ChunkId, ContentHash};
use crate::base::limits;
use crate::base::path::is_name;
use crate::format::wire::{DecodeError, Reader, put_bytes, put_varint};

/// Entries in a page: at least, before a cut is looked for.
pub const PAGE_NAMES_MIN: usize = 64;
/// Entries in a page: at most, whatever the names.
pub const PAGE_NAMES_CUT: usize = 4096;
/// A page ends behind an entry whose name's hash, masked with this, is zero: 256 entries on
/// average above the minimum.
pub const PAGE_CUT_MASK: u32 = 0xff;

/// One page of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Page {
    /// Entries.
    Leaf(Vec<Entry>),
    /// Pages below.
    Inner {
        /// 1 and up.
        level: u8,
        /// In order of names.
        pages: Vec<PageRef>,
    },
}

/// A page as the page above names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageRef {
    /// The first name below.
    pub first: Vec<u8>,
    /// The page.
    pub id: ChunkId,
    /// Entries below.
    pub entries: u64,
}

/// A page of entries in the making: holds their bytes, so that its length is known all the time.
#[derive(Default)]
pub struct LeafBuilder {
    first: Vec<u8>,
    bytes: Vec<u8>,
    scratch: Vec<u8>,
    entries: u64,
}

impl LeafBuilder {
    /// Appends an entry. They come in ascending order of their names.
    pub fn push(&mut self, entry: &Entry) {
        if self.entries == 0 {
            self.first.clone_from(&entry.name);
        }
        self.entries += 1;
        self.scratch.clear();
        entry.encode(&mut self.scratch);
        put_bytes(&mut self.bytes, &self.scratch);
    }

    /// Entries so far.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries as usize
    }

    /// Bytes of the entries so far, each with its length in front.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The first name, the number of entries and the page's bytes; begins the next page.
    pub fn take(&mut self) -> (Vec<u8>, u64, Vec<u8>) {
        let mut page = Vec::with_capacity(self.bytes.len() + 8);
        page.push(0);
        put_varint(&mut page, self.entries);
        page.extend_from_slice(&self.bytes);
        self.bytes.clear();
        (std::mem::take(&mut self.first), std::mem::take(&mut self.entries), page)
    }
}

impl Page {
    /// The page's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Leaf(entries) => {
                let mut leaf = LeafBuilder::default();
                entries.iter().for_each(|entry| leaf.push(entry));
                return leaf.take().2;
            }
            Self::Inner { level, pages } => {
                out.push(*level);
                put_varint(&mut out, pages.len() as u64);
                for page in pages {
                    put_bytes(&mut out, &page.first);
                    out.extend_from_slice(page.id.as_bytes());
                    put_varint(&mut out, page.entries);
                }
            }
        }
        out
    }

    /// Reads a page. `level` is that at which the page above named it, `None` for a top page, so
    /// that no cycle is possible. `empty` is the keyed hash of no data.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(
        bytes: &[u8],
        level: Option<u8>,
        empty: &ContentHash,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let found = reader.u8("page level")?;
        if level.is_some_and(|l| l != found) || found > limits::PAGE_LEVELS_MAX {
            return Err(DecodeError::Invalid { what: "page level" });
        }
        let page = if found == 0 {
            Self::Leaf(decode_leaf(&mut reader, empty)?)
        } else {
            Self::Inner { level: found, pages: decode_inner(&mut reader)? }
        };
        reader.end("page")?;
        Ok(page)
    }
}

fn decode_leaf(reader: &mut Reader<'_>, empty: &ContentHash) -> Result<Vec<Entry>, DecodeError> {
    let count = reader.count(limits::PAGE_NAMES_MAX, 8, "page entries")?;
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    for _ in 0..count {
        let entry = Entry::decode(reader.bytes(limits::ENTRY_MAX, "entry")?, empty)?;
        check_name(&entry.name, entries.last().map(|e| &e.name[..]))?;
        entries.push(entry);
    }
    Ok(entries)
}

fn decode_inner(reader: &mut Reader<'_>) -> Result<Vec<PageRef>, DecodeError> {
    let count = reader.count(limits::PAGE_NAMES_MAX, 34, "page references")?;
    let mut pages: Vec<PageRef> = Vec::with_capacity(count);
    for _ in 0..count {
        let first = reader.bytes(255, "name")?.to_vec();
        check_name(&first, pages.last().map(|p| &p.first[..]))?;
        let id = ChunkId::from_array(reader.array("page id")?);
        pages.push(PageRef { first, id, entries: reader.varint("entries")? });
    }
    if pages.is_empty() {
        return Err(DecodeError::Invalid { what: "page references" });
    }
    Ok(pages)
}

fn check_name(name: &[u8], previous: Option<&[u8]>) -> Result<(), DecodeError> {
    if is_name(name) && previous.is_none_or(|p| p < name) {
        Ok(())
    } else {
        Err(DecodeError::Invalid { what: "name" })
    }
}
