//! A pack: a header, blocks one behind the other, a footer that repeats the blocks' tables.
//!
//! ```text
//! header                          64 bytes (format::header)
//! block   header                  16 bytes: "cbLK", class, 0, 0, 0, sealed table length u32, sealed body length u32
//!         sealed table            record 2i
//!         sealed body             record 2i + 1
//! ...
//! footer  sealed footer           record 2^63
//!         trailer                 16 bytes: "cbFT", 0 x 4, sealed footer length u32, number of blocks u32
//! ```
//! A block's clear header lets a pack be read from the front when its end is gone; the footer lets
//! an index be made again from the ends of packs. Chunk lengths stand only in sealed parts.

use super::header::HEADER_LEN;
use super::wire::{DecodeError, Reader, put_varint};
use crate::base::id::ChunkId;
use crate::base::limits;

/// First bytes of a block.
pub const BLOCK_MAGIC: &[u8; 4] = b"cbLK";
/// First bytes of a pack's trailer.
pub const TRAILER_MAGIC: &[u8; 4] = b"cbFT";
/// Bytes of a block's clear header.
pub const BLOCK_HEADER_LEN: usize = 16;
/// Bytes of a pack's trailer.
pub const TRAILER_LEN: usize = 16;
/// The record number of the footer.
pub const FOOTER_RECORD: u64 = 1 << 63;

/// What kind of bytes share a block. A block never mixes classes: nothing that users of the site
/// control is compressed together with secrets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Files of applications and everything else in the data directory.
    Data,
    /// Configuration, keys, certificates, licences.
    Secret,
    /// Pages of databases and database dumps.
    Database,
    /// Directories and lists.
    Tree,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 4] = [Self::Data, Self::Secret, Self::Database, Self::Tree];

    /// The number at rest.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Secret => 2,
            Self::Database => 3,
            Self::Tree => 4,
        }
    }

    /// The class with a number.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`].
    pub fn from_code(code: u8) -> Result<Self, DecodeError> {
        Self::ALL
            .into_iter()
            .find(|c| c.code() == code)
            .ok_or(DecodeError::Invalid { what: "block class" })
    }
}

/// What a chunk is: part of its id's derivation, so that a tree never passes for a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ChunkKind {
    /// Bytes of a file, of extended attributes, of a map of extents.
    Data,
    /// References of long content.
    List,
    /// A page of a directory.
    Tree,
}

impl ChunkKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Data, Self::List, Self::Tree];

    /// The number at rest.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::List => 2,
            Self::Tree => 3,
        }
    }

    fn from_code(code: u8) -> Result<Self, DecodeError> {
        Self::ALL
            .into_iter()
            .find(|k| k.code() == code)
            .ok_or(DecodeError::Invalid { what: "chunk kind" })
    }

    /// The context string of the key under which ids of this kind are made.
    #[must_use]
    pub const fn id_context(self) -> &'static str {
        match self {
            Self::Data => "cabk 2026 v1 chunk id: data",
            Self::List => "cabk 2026 v1 chunk id: list",
            Self::Tree => "cabk 2026 v1 chunk id: tree",
        }
    }
}

/// A block's clear header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockHeader {
    /// What kind of bytes it holds.
    pub class: Class,
    /// Bytes of the sealed table behind the header.
    pub table_len: u32,
    /// Bytes of the sealed body behind the table.
    pub body_len: u32,
}

impl BlockHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; BLOCK_HEADER_LEN] {
        let mut out = [0; BLOCK_HEADER_LEN];
        out[..4].copy_from_slice(BLOCK_MAGIC);
        out[4] = self.class.code();
        out[8..12].copy_from_slice(&self.table_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.body_len.to_le_bytes());
        out
    }

    /// Reads a header.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.array::<4>("block header")? != *BLOCK_MAGIC {
            return Err(DecodeError::Magic { expected: "a block" });
        }
        let class = Class::from_code(reader.u8("block header")?)?;
        if reader.array::<3>("block header")? != [0; 3] {
            return Err(DecodeError::Invalid { what: "block header" });
        }
        let table_len = reader.u32("block header")?;
        let body_len = reader.u32("block header")?;
        check("block table", u64::from(table_len), limits::BLOCK_TABLE_MAX as u64)?;
        check("block body", u64::from(body_len), limits::BLOCK_SEALED_MAX as u64)?;
        Ok(Self { class, table_len, body_len })
    }
}

fn check(what: &'static str, found: u64, bound: u64) -> Result<(), DecodeError> {
    if found > bound { Err(DecodeError::Bound { what, found, bound }) } else { Ok(()) }
}

/// How a block's plain bytes became its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packing {
    /// As they are.
    Plain,
    /// One zstd frame.
    Zstd,
}

impl Packing {
    /// The number at rest.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Zstd => 1,
        }
    }

    /// The packing with a number.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`].
    pub fn from_code(code: u8) -> Result<Self, DecodeError> {
        match code {
            0 => Ok(Self::Plain),
            1 => Ok(Self::Zstd),
            _ => Err(DecodeError::Invalid { what: "block packing" }),
        }
    }
}

/// One chunk of a block. The chunks' bytes stand one behind the other in the plain block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableEntry {
    /// What it is.
    pub kind: ChunkKind,
    /// Its id.
    pub id: ChunkId,
    /// Its bytes.
    pub len: u32,
}

/// A block's table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockTable {
    /// The chunks, in order.
    pub chunks: Vec<TableEntry>,
}

impl BlockTable {
    /// Plain bytes of the block.
    #[must_use]
    pub fn plain_len(&self) -> u64 {
        self.chunks.iter().map(|c| u64::from(c.len)).sum()
    }

    /// The table's bytes, before they are sealed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.chunks.len() * 37);
        put_varint(&mut out, self.chunks.len() as u64);
        for chunk in &self.chunks {
            out.push(chunk.kind.code());
            out.extend_from_slice(chunk.id.as_bytes());
            put_varint(&mut out, u64::from(chunk.len));
        }
        out
    }

    /// Reads a table.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let table = Self::read(&mut reader)?;
        reader.end("block table")?;
        Ok(table)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = reader.count(limits::BLOCK_CHUNKS_MAX, ChunkId::LEN + 2, "block chunks")?;
        let mut chunks = Vec::with_capacity(count);
        let mut total = 0;
        for _ in 0..count {
            let kind = ChunkKind::from_code(reader.u8("chunk kind")?)?;
            let id = ChunkId::from_array(reader.array("chunk id")?);
            let len = reader.bounded(limits::CHUNK_MAX as u64, "chunk length")?;
            total += len;
            check("block", total, limits::BLOCK_PLAIN_MAX as u64)?;
            chunks.push(TableEntry { kind, id, len: len as u32 });
        }
        Ok(Self { chunks })
    }
}

/// One block as the footer tells of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FooterBlock {
    /// Where the block's clear header begins, from the start of the pack.
    pub offset: u64,
    /// The block's clear header.
    pub header: BlockHeader,
    /// The block's table.
    pub table: BlockTable,
}

/// The footer: all blocks of a pack.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Footer {
    /// In order of offset.
    pub blocks: Vec<FooterBlock>,
}

impl Footer {
    /// The footer's bytes, before they are sealed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.blocks.len() as u64);
        for block in &self.blocks {
            put_varint(&mut out, block.offset);
            out.extend_from_slice(&block.header.encode());
            out.extend_from_slice(&block.table.encode());
        }
        out
    }

    /// Reads a footer; offsets must follow from the lengths.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let count = reader.count(1 << 16, BLOCK_HEADER_LEN + 2, "pack blocks")?;
        let mut blocks = Vec::with_capacity(count);
        let mut next = HEADER_LEN as u64;
        for _ in 0..count {
            let offset = reader.bounded(limits::PACK_MAX, "block offset")?;
            let header = BlockHeader::decode(reader.take(BLOCK_HEADER_LEN, "block header")?)?;
            if offset != next {
                return Err(DecodeError::Invalid { what: "block offset" });
            }
            next = offset + block_len(&header);
            let table = BlockTable::read(&mut reader)?;
            blocks.push(FooterBlock { offset, header, table });
        }
        reader.end("pack footer")?;
        Ok(Self { blocks })
    }
}

/// Bytes of a whole block at rest.
#[must_use]
pub fn block_len(header: &BlockHeader) -> u64 {
    BLOCK_HEADER_LEN as u64 + u64::from(header.table_len) + u64::from(header.body_len)
}

/// A pack's last bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// Bytes of the sealed footer in front of the trailer.
    pub footer_len: u32,
    /// Blocks in the pack.
    pub blocks: u32,
}

impl Trailer {
    /// The trailer's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; TRAILER_LEN] {
        let mut out = [0; TRAILER_LEN];
        out[..4].copy_from_slice(TRAILER_MAGIC);
        out[8..12].copy_from_slice(&self.footer_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.blocks.to_le_bytes());
        out
    }

    /// Reads a trailer.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.array::<4>("pack trailer")? != *TRAILER_MAGIC {
            return Err(DecodeError::Magic { expected: "a pack's trailer" });
        }
        if reader.u32("pack trailer")? != 0 {
            return Err(DecodeError::Invalid { what: "pack trailer" });
        }
        let footer_len = reader.u32("pack trailer")?;
        check("pack footer", u64::from(footer_len), limits::BLOCK_TABLE_MAX as u64 * 2)?;
        Ok(Self { footer_len, blocks: reader.u32("pack trailer")? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(n: usize) -> BlockTable {
        let entry = |i: usize| TableEntry {
            kind: ChunkKind::ALL[i % 3],
            id: ChunkId::from_array([i as u8; 32]),
            len: i as u32 * 7,
        };
        BlockTable { chunks: (0..n).map(entry).collect() }
    }

    fn footer() -> Footer {
        let mut offset = HEADER_LEN as u64;
        let mut blocks = Vec::new();
        for (class, n) in [(Class::Data, 3), (Class::Tree, 0), (Class::Secret, 200)] {
            let header = BlockHeader { class, table_len: 10, body_len: 4000 };
            blocks.push(FooterBlock { offset, header, table: table(n) });
            offset += block_len(&header);
        }
        Footer { blocks }
    }

    #[test]
    fn tables_footers_and_trailers_round_trip() {
        assert_eq!(BlockTable::decode(&table(9).encode()), Ok(table(9)));
        assert_eq!(Footer::decode(&footer().encode()), Ok(footer()));
        let trailer = Trailer { footer_len: 12, blocks: 3 };
        assert_eq!(Trailer::decode(&trailer.encode()), Ok(trailer));
    }

    #[test]
    fn hostile_lengths_are_refused() {
        let mut wrong = footer();
        wrong.blocks[1].offset += 1;
        assert!(Footer::decode(&wrong.encode()).is_err());
        let big = BlockHeader { class: Class::Data, table_len: 0, body_len: u32::MAX };
        assert!(matches!(BlockHeader::decode(&big.encode()), Err(DecodeError::Bound { .. })));
        let mut many = Vec::new();
        put_varint(&mut many, 1 << 19);
        assert!(matches!(BlockTable::decode(&many), Err(DecodeError::Truncated { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let _ = BlockTable::decode(&bytes);
            let _ = Footer::decode(&bytes);
            let _ = Trailer::decode(&bytes);
            let _ = BlockHeader::decode(&bytes);
        }
    }
}
