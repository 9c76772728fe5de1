//! Reading a pack from its front: each block has a clear header and a table of its own, so that what
//! stands before a missing end or a damaged footer is not lost.

use crate::base::id::PackId;
use crate::codec::compress::Decompressor;
use crate::codec::seal::ObjectKey;
use crate::format::DecodeError;
use crate::format::header::{HEADER_LEN, Header, ObjectKind};
use crate::format::pack::{
    BLOCK_HEADER_LEN, BLOCK_MAGIC, BlockHeader, BlockTable, Footer, FooterBlock,
};
use crate::format::segment::SegmentPack;
use crate::store::reader::{BlockFault, open_body};
use crate::store::repository::Repository;

/// What the front of a pack gave.
#[derive(Debug)]
pub struct Salvaged {
    /// The pack's header.
    pub header: [u8; HEADER_LEN],
    /// The blocks found, up to the first whose extent is not known or not all there. A block that
    /// does not open stands with an empty table: its place is known, its chunks are lost.
    pub footer: Footer,
    /// Blocks that do not open, by number, with the reason.
    pub faults: Vec<(usize, BlockFault)>,
    /// Where the last block found ends.
    pub end: u64,
}

impl Salvaged {
    /// What an index segment may say of the pack: offsets follow from lengths, so lost blocks stay
    /// in it without chunks. `len` are the bytes that the pack now has.
    #[must_use]
    pub fn entry(&self, id: PackId, len: u64) -> SegmentPack {
        SegmentPack::from_footer(id, len, self.header, &self.footer)
    }

    /// Blocks that opened, each chunk equal to its id.
    #[must_use]
    pub fn good_blocks(&self) -> usize {
        self.footer.blocks.len() - self.faults.len()
    }
}

/// The header that a pack begins with.
///
/// # Errors
/// [`DecodeError::Truncated`].
pub fn header_of(bytes: &[u8]) -> Result<[u8; HEADER_LEN], DecodeError> {
    bytes
        .first_chunk::<HEADER_LEN>()
        .copied()
        .ok_or(DecodeError::Truncated { what: "the header of a pack" })
}

/// Reads blocks from the front of `bytes`. `header` is the pack's own, or the one that an index
/// segment has kept where the pack's is damaged. `at_most` bounds the blocks where their number is
/// known.
///
/// # Errors
/// Where the header does not decode, or names a secret that this repository does not have.
pub fn scan(
    repository: &Repository,
    header: [u8; HEADER_LEN],
    bytes: &[u8],
    at_most: Option<usize>,
    unpacker: &mut Decompressor,
) -> Result<Salvaged, DecodeError> {
    let decoded = Header::decode(&header, ObjectKind::Pack)?;
    let key = repository.object_key(&decoded, &header)?;
    let mut out =
        Salvaged { header, footer: Footer::default(), faults: Vec::new(), end: HEADER_LEN as u64 };
    // Block numbers are u16 in the index.
    let at_most = at_most.unwrap_or(usize::MAX).min(1 << 16);
    let mut at = HEADER_LEN;
    while out.footer.blocks.len() < at_most {
        let Some(found) = extent(bytes, at) else { break };
        let number = out.footer.blocks.len();
        let opened = open_block(repository, &key, number, &found, unpacker);
        let table = opened.unwrap_or_else(|fault| {
            out.faults.push((number, fault));
            BlockTable { chunks: Vec::new() }
        });
        let block = FooterBlock { offset: at as u64, header: found.header, table };
        out.footer.blocks.push(block);
        at = found.end;
        out.end = at as u64;
    }
    Ok(out)
}

/// A block that is all there.
struct Extent<'b> {
    header: BlockHeader,
    table: &'b [u8],
    body: &'b [u8],
    end: usize,
}

/// The block at a place; `None` where none begins there or its end is missing.
fn extent(bytes: &[u8], at: usize) -> Option<Extent<'_>> {
    let clear = bytes.get(at..at.checked_add(BLOCK_HEADER_LEN)?)?;
    if !clear.starts_with(BLOCK_MAGIC) {
        return None;
    }
    let header = BlockHeader::decode(clear).ok()?;
    let table_at = at + BLOCK_HEADER_LEN;
    let body_at = table_at.checked_add(header.table_len as usize)?;
    let end = body_at.checked_add(header.body_len as usize)?;
    let (table, body) = (bytes.get(table_at..body_at)?, bytes.get(body_at..end)?);
    Some(Extent { header, table, body, end })
}

/// Opens a block's table and body, and holds each chunk against its id (invariant 6).
fn open_block(
    repository: &Repository,
    key: &ObjectKey,
    number: usize,
    block: &Extent<'_>,
    unpacker: &mut Decompressor,
) -> Result<BlockTable, BlockFault> {
    let wrong = |what| BlockFault::Decode(DecodeError::Invalid { what });
    let number = u16::try_from(number).map_err(|_| wrong("block number"))?;
    let mut table = block.table.to_vec();
    key.open(u64::from(number) * 2, &mut table)?;
    let table = BlockTable::decode(&table)?;
    let plain = open_body(key, number, block.body.to_vec(), unpacker)?;
    if table.plain_len() != plain.len() as u64 {
        return Err(wrong("block length"));
    }
    let mut rest = plain.as_slice();
    for chunk in &table.chunks {
        let (bytes, behind) =
            rest.split_at_checked(chunk.len as usize).ok_or(wrong("chunk length"))?;
        if repository.namer().name(chunk.kind, bytes) != chunk.id {
            return Err(wrong("a chunk, whose bytes are not those of its id"));
        }
        rest = behind;
    }
    Ok(table)
}

#[cfg(test)]
mod tests;
