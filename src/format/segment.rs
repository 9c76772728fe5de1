//! An index segment: which packs hold which chunks.
//!
//! One sealed record (number 0) behind the header. Chunk ids are cut to 16 bytes here: they are
//! keyed, so nobody without the key can make two meet, and a reader hashes what it gets anyway.

use super::header::HEADER_LEN;
use super::pack::{BLOCK_HEADER_LEN, BlockHeader, Class, Footer, block_len};
use super::wire::{DecodeError, Reader, put_varint};
use crate::base::id::{ChunkId, PackId, SegmentId};
use crate::base::limits;

/// The first 16 bytes of a chunk id, as the index has them.
pub type ChunkKey = [u8; 16];

/// The index key of a chunk.
#[must_use]
pub fn chunk_key(id: &ChunkId) -> ChunkKey {
    let mut key = [0; 16];
    key.copy_from_slice(&id.as_bytes()[..16]);
    key
}

/// A block as the index tells of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentBlock {
    /// The block's clear header. Offsets follow from the lengths.
    pub header: BlockHeader,
    /// Keys and lengths of its chunks, in the order of the plain block.
    pub chunks: Vec<(ChunkKey, u32)>,
}

/// A pack as the index tells of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentPack {
    /// The pack.
    pub id: PackId,
    /// Bytes of the pack at rest.
    pub len: u64,
    /// The pack's own header: its key can be made without asking for it.
    pub header: [u8; HEADER_LEN],
    /// Its blocks, in order.
    pub blocks: Vec<SegmentBlock>,
}

impl SegmentPack {
    /// What the index must know of a pack, from its footer.
    #[must_use]
    pub fn from_footer(id: PackId, len: u64, header: [u8; HEADER_LEN], footer: &Footer) -> Self {
        let block = |b: &super::pack::FooterBlock| SegmentBlock {
            header: b.header,
            chunks: b.table.chunks.iter().map(|c| (chunk_key(&c.id), c.len)).collect(),
        };
        Self { id, len, header, blocks: footer.blocks.iter().map(block).collect() }
    }

    /// Each block with its number and the offset of its clear header.
    pub fn blocks_with_offsets(&self) -> impl Iterator<Item = (usize, u64, &SegmentBlock)> {
        let mut next = HEADER_LEN as u64;
        self.blocks.iter().enumerate().map(move |(i, block)| {
            let offset = next;
            next += block_len(&block.header);
            (i, offset, block)
        })
    }
}

/// A decoded segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// Segments whose content this one repeats, and which may be deleted once it is there.
    pub merges: Vec<SegmentId>,
    /// The packs.
    pub packs: Vec<SegmentPack>,
}

impl Segment {
    /// The segment's bytes, before they are sealed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.merges.len() as u64);
        for id in &self.merges {
            out.extend_from_slice(id.as_bytes());
        }
        put_varint(&mut out, self.packs.len() as u64);
        for pack in &self.packs {
            out.extend_from_slice(pack.id.as_bytes());
            put_varint(&mut out, pack.len);
            out.extend_from_slice(&pack.header);
            put_varint(&mut out, pack.blocks.len() as u64);
            for block in &pack.blocks {
                out.push(block.header.class.code());
                put_varint(&mut out, u64::from(block.header.table_len));
                put_varint(&mut out, u64::from(block.header.body_len));
                put_varint(&mut out, block.chunks.len() as u64);
                for (key, len) in &block.chunks {
                    out.extend_from_slice(key);
                    put_varint(&mut out, u64::from(*len));
                }
            }
        }
        out
    }

    /// Reads a segment.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let count = reader.count(1 << 20, SegmentId::LEN, "merged segments")?;
        let mut merges = Vec::with_capacity(count);
        for _ in 0..count {
            merges.push(SegmentId::from_array(reader.array("segment id")?));
        }
        let count = reader.count(1 << 20, PackId::LEN + HEADER_LEN, "packs")?;
        let mut packs = Vec::with_capacity(count);
        for _ in 0..count {
            packs.push(decode_pack(&mut reader)?);
        }
        reader.end("index segment")?;
        Ok(Self { merges, packs })
    }
}

fn decode_pack(reader: &mut Reader<'_>) -> Result<SegmentPack, DecodeError> {
    let id = PackId::from_array(reader.array("pack id")?);
    let len = reader.bounded(limits::PACK_MAX, "pack length")?;
    let header = reader.array("pack header")?;
    let count = reader.count(1 << 16, 4, "pack blocks")?;
    let mut blocks = Vec::with_capacity(count);
    let mut end = HEADER_LEN as u64;
    for _ in 0..count {
        let block = decode_block(reader)?;
        end += block_len(&block.header);
        if end > len {
            return Err(DecodeError::Invalid { what: "pack length" });
        }
        blocks.push(block);
    }
    Ok(SegmentPack { id, len, header, blocks })
}

fn decode_block(reader: &mut Reader<'_>) -> Result<SegmentBlock, DecodeError> {
    let class = Class::from_code(reader.u8("block class")?)?;
    let table_len = reader.bounded(limits::BLOCK_TABLE_MAX as u64, "block table")? as u32;
    let body_len = reader.bounded(limits::BLOCK_SEALED_MAX as u64, "block body")? as u32;
    let count = reader.count(limits::BLOCK_CHUNKS_MAX, 17, "block chunks")?;
    let mut chunks = Vec::with_capacity(count);
    let mut total = 0;
    for _ in 0..count {
        let key = reader.array("chunk key")?;
        let len = reader.bounded(limits::CHUNK_MAX as u64, "chunk length")?;
        total += len;
        if total > limits::BLOCK_PLAIN_MAX as u64 {
            let bound = limits::BLOCK_PLAIN_MAX as u64;
            return Err(DecodeError::Bound { what: "block", found: total, bound });
        }
        chunks.push((key, len as u32));
    }
    Ok(SegmentBlock { header: BlockHeader { class, table_len, body_len }, chunks })
}

/// Where the body of a block begins, from the offset of its clear header.
#[must_use]
pub fn body_offset(offset: u64, header: &BlockHeader) -> u64 {
    offset + BLOCK_HEADER_LEN as u64 + u64::from(header.table_len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment() -> Segment {
        let block = |n: u8| SegmentBlock {
            header: BlockHeader { class: Class::Data, table_len: 50, body_len: 1000 },
            chunks: (0..n).map(|i| ([i; 16], u32::from(i) * 100)).collect(),
        };
        let pack = |n: u8| SegmentPack {
            id: PackId::from_array([n; 32]),
            len: 1 << 20,
            header: [n; HEADER_LEN],
            blocks: vec![block(n), block(2)],
        };
        Segment { merges: vec![SegmentId::from_array([3; 32])], packs: vec![pack(0), pack(40)] }
    }

    #[test]
    fn segments_round_trip() {
        assert_eq!(Segment::decode(&segment().encode()), Ok(segment()));
        let segment = segment();
        let offsets: Vec<u64> =
            segment.packs[0].blocks_with_offsets().map(|(_, offset, _)| offset).collect();
        assert_eq!(offsets, [64, 64 + 16 + 50 + 1000]);
    }

    #[test]
    fn blocks_must_fit_their_pack() {
        let mut wrong = segment();
        wrong.packs[0].len = 1000;
        assert!(Segment::decode(&wrong.encode()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let _ = Segment::decode(&bytes);
        }
    }
}
