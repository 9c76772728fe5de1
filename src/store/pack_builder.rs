//! Packs in the making: blocks are sealed one behind the other, the footer closes.

use super::repository::{Repository, RepositoryError};
use crate::base::id::PackId;
use crate::codec::compress::{CompressError, Compressor};
use crate::codec::seal::{RecordSealer, SealError, TAG_LEN};
use crate::format::DecodeError;
use crate::format::header::{HEADER_LEN, ObjectKind};
use crate::format::pack::{
    BlockHeader, BlockTable, Class, FOOTER_RECORD, Footer, FooterBlock, Trailer,
};
use crate::format::segment::SegmentPack;

/// Bytes in front of a block's packed bytes, inside the seal: packing u8, plain length u32.
pub const BODY_PREFIX_LEN: usize = 5;

/// What went wrong while a pack was made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// What was sealed does not open to what it was: memory or processor are at fault.
    #[error("a sealed record does not open again")]
    Seal(#[from] SealError),
    /// Compression.
    #[error("a block could not be compressed")]
    Compress(#[from] CompressError),
    /// A header or key could not be made.
    #[error("a pack could not be begun")]
    Begin(#[source] Box<RepositoryError>),
}

/// Buffers that packing and sealing use from block to block: no more than a block of each.
#[derive(Default)]
pub struct Scratch {
    body: Vec<u8>,
    opened: Vec<u8>,
}

/// A block that is compressed but not yet sealed: sealing needs its place in a pack.
pub struct PackedBlock<'s> {
    /// Its class.
    pub class: Class,
    /// Its table.
    pub table: BlockTable,
    /// Prefix and packed bytes, and room to open what is sealed.
    scratch: &'s mut Scratch,
}

impl<'s> PackedBlock<'s> {
    /// Compresses a block's plain bytes.
    ///
    /// # Errors
    /// [`PackError::Compress`].
    pub fn pack(
        class: Class,
        table: BlockTable,
        plain: &[u8],
        compressor: &mut Compressor,
        scratch: &'s mut Scratch,
    ) -> Result<Self, PackError> {
        let Scratch { body, opened } = &mut *scratch;
        body.clear();
        body.push(0);
        body.extend_from_slice(&(plain.len() as u32).to_le_bytes());
        let packing = compressor.pack(plain, body, opened)?;
        body[0] = packing.code();
        Ok(Self { class, table, scratch })
    }
}

/// Bytes set aside for a pack: a whole one with its last block and its footer. One piece above 32 MiB,
/// because an allocator gives such a piece back to the system at once; the blocks of a pack one by
/// one leave holes between what other threads hold, and a long run grows by half.
const ROOM: usize = 40 << 20;

/// A pack in the making.
pub struct PackBuilder {
    header: [u8; HEADER_LEN],
    sealer: RecordSealer,
    bytes: Vec<u8>,
    footer: Footer,
    hasher: blake3::Hasher,
}

/// A finished pack, ready to be put.
pub struct FinishedPack {
    /// What the index must know.
    pub entry: SegmentPack,
    /// The pack's bytes.
    pub bytes: Vec<u8>,
}

impl PackBuilder {
    /// Begins a pack with a salt of its own.
    ///
    /// # Errors
    /// [`PackError::Begin`].
    pub fn new(repository: &Repository) -> Result<Self, PackError> {
        let begin = |e: RepositoryError| PackError::Begin(Box::new(e));
        let header = repository.new_header(ObjectKind::Pack).map_err(|e| begin(e.into()))?;
        let bytes = header.encode();
        let key = repository.object_key(&header, &bytes).map_err(|source: DecodeError| {
            begin(RepositoryError::Damaged { object: "a new pack".into(), source })
        })?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        let mut room = Vec::with_capacity(ROOM);
        room.extend_from_slice(&bytes);
        Ok(Self {
            header: bytes,
            sealer: RecordSealer::new(key),
            bytes: room,
            footer: Footer::default(),
            hasher,
        })
    }

    /// Bytes so far, without the footer.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether no block was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.footer.blocks.is_empty()
    }

    /// Blocks so far.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.footer.blocks.len()
    }

    /// Seals a block at the end of the pack.
    ///
    /// # Errors
    /// [`PackError::Seal`]: the pack must be given up.
    pub fn add(&mut self, block: PackedBlock<'_>) -> Result<(), PackError> {
        let Scratch { body, opened } = block.scratch;
        let table = block.table.encode();
        let sealed = |plain: &[u8]| plain.len() + TAG_LEN;
        let header = BlockHeader {
            class: block.class,
            table_len: sealed(&table) as u32,
            body_len: sealed(body) as u32,
        };
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(&header.encode());
        self.sealer.seal(&table, &mut self.bytes, opened)?;
        self.sealer.seal(body, &mut self.bytes, opened)?;
        self.hasher.update(&self.bytes[offset..]);
        let offset = offset as u64;
        self.footer.blocks.push(FooterBlock { offset, header, table: block.table });
        Ok(())
    }

    /// Closes the pack: footer, trailer, name.
    ///
    /// # Errors
    /// [`PackError::Seal`].
    pub fn finish(mut self) -> Result<FinishedPack, PackError> {
        let blocks = self.footer.blocks.len() as u32;
        let from = self.bytes.len();
        let plain = self.footer.encode();
        self.sealer.seal_last(FOOTER_RECORD, &plain, &mut self.bytes, &mut Vec::new())?;
        let footer_len = (self.bytes.len() - from) as u32;
        self.bytes.extend_from_slice(&Trailer { footer_len, blocks }.encode());
        self.hasher.update(&self.bytes[from..]);
        let id = PackId::from_array(*self.hasher.finalize().as_bytes());
        let len = self.bytes.len() as u64;
        let entry = SegmentPack::from_footer(id, len, self.header, &self.footer);
        Ok(FinishedPack { entry, bytes: self.bytes })
    }
}
