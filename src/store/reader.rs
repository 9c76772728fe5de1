//! The way back: chunks out of sealed blocks, each opened, bounded, unpacked and hashed equal to the
//! id that was asked for (invariant 6).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::accelerator::{Accelerator, AcceleratorError, Location, PackFacts};
use super::pack_builder::BODY_PREFIX_LEN;
use super::repository::{Repository, RepositoryError};
use crate::backend::ObjectName;
use crate::base::id::ChunkId;
use crate::base::limits;
use crate::codec::compress::{CompressError, Decompressor};
use crate::codec::seal::ObjectKey;
use crate::format::DecodeError;
use crate::format::content::{ChunkRef, Content, List};
use crate::format::header::{Header, ObjectKind};
use crate::format::pack::{ChunkKind, Packing};
use crate::format::segment::chunk_key;
use crate::format::tree::{Entry, Page};

/// What went wrong on the way back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The index does not know the chunk.
    #[error("chunk {0} is missing from the repository")]
    Missing(ChunkId),
    /// A block is damaged.
    #[error("block {block} of {pack} is damaged")]
    Block {
        /// The pack.
        pack: ObjectName,
        /// The block's number.
        block: u16,
        /// What is wrong.
        source: BlockFault,
    },
    /// A chunk's bytes are not those of its id.
    #[error("chunk {id} of {pack} has other bytes than its id says")]
    Content {
        /// The chunk.
        id: ChunkId,
        /// The pack.
        pack: ObjectName,
    },
    /// A directory or list does not decode although it is what was once written.
    #[error("chunk {id} does not decode")]
    Decode {
        /// The chunk.
        id: ChunkId,
        /// What is wrong.
        source: DecodeError,
    },
    /// The repository or its storage.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The local index.
    #[error(transparent)]
    Accelerator(#[from] AcceleratorError),
}

/// What is wrong with a block.
#[derive(Debug, thiserror::Error)]
pub enum BlockFault {
    /// Its seal.
    #[error(transparent)]
    Seal(#[from] crate::codec::seal::SealError),
    /// Its packing.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// Its structure.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// A block of a pack, for reading many chunks in the order of their places.
pub type BlockPlace = (u32, u16);

impl Location {
    /// The block in which the chunk lies.
    #[must_use]
    pub fn place(&self) -> BlockPlace {
        (self.pack, self.block)
    }
}

/// Decoded blocks, the least recently used given up first.
struct Cache {
    blocks: HashMap<BlockPlace, (Arc<Vec<u8>>, u64)>,
    bytes: usize,
    tick: u64,
    max: usize,
}

/// Reads chunks. Shared by any number of threads.
pub struct Reader {
    repository: Arc<Repository>,
    accelerator: Arc<Accelerator>,
    cache: Mutex<Cache>,
    unpackers: Mutex<Vec<Decompressor>>,
}

impl Reader {
    /// Reads from a repository, keeping up to `cache_bytes` of decoded blocks.
    #[must_use]
    pub fn new(
        repository: Arc<Repository>,
        accelerator: Arc<Accelerator>,
        cache_bytes: usize,
    ) -> Self {
        let cache = Cache { blocks: HashMap::new(), bytes: 0, tick: 0, max: cache_bytes };
        Self {
            repository,
            accelerator,
            cache: Mutex::new(cache),
            unpackers: Mutex::new(Vec::new()),
        }
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// The local index.
    #[must_use]
    pub fn accelerator(&self) -> &Arc<Accelerator> {
        &self.accelerator
    }

    /// Where a chunk lies.
    ///
    /// # Errors
    /// [`ReadError::Missing`], or the local index's.
    pub fn locate(&self, id: &ChunkId) -> Result<Location, ReadError> {
        self.accelerator.find(&chunk_key(id))?.ok_or(ReadError::Missing(*id))
    }

    /// The plain bytes of the block at a place, out of the cache or the storage. Chunks cut out of
    /// it must go through [`Self::verified`].
    ///
    /// # Errors
    /// Damage, or the storage's.
    pub fn block(&self, at: &Location) -> Result<Arc<Vec<u8>>, ReadError> {
        if let Some(block) = self.cached(at.place()) {
            return Ok(block);
        }
        let block = Arc::new(self.read_block(at)?);
        self.keep(at.place(), &block);
        Ok(block)
    }

    /// As [`Self::block`], past the cache: for whoever reads each block once.
    ///
    /// # Errors
    /// As [`Self::block`].
    pub fn read_block(&self, at: &Location) -> Result<Vec<u8>, ReadError> {
        let pack = self.accelerator.pack(at.pack).ok_or_else(|| RepositoryError::Damaged {
            object: "the local index".into(),
            source: DecodeError::Invalid { what: "pack number" },
        })?;
        let name = ObjectName::pack(&pack.id);
        if at.body_len as usize > limits::BLOCK_SEALED_MAX {
            let what = DecodeError::Invalid { what: "block length" };
            return Err(ReadError::Block { pack: name, block: at.block, source: what.into() });
        }
        let sealed = self
            .repository
            .backend()
            .get_range(&name, u64::from(at.body_offset), at.body_len as usize)
            .map_err(RepositoryError::from)?;
        let fault = |source| ReadError::Block { pack: name.clone(), block: at.block, source };
        let key = pack_key(&self.repository, &pack).map_err(|e| fault(e.into()))?;
        let mut unpacker = self.unpacker().map_err(|e| fault(e.into()))?;
        let plain = open_body(&key, at.block, sealed, &mut unpacker);
        self.unpackers.lock().unwrap_or_else(PoisonError::into_inner).push(unpacker);
        plain.map_err(fault)
    }

    fn unpacker(&self) -> Result<Decompressor, CompressError> {
        match self.unpackers.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            Some(unpacker) => Ok(unpacker),
            None => Decompressor::new(),
        }
    }

    fn cached(&self, place: BlockPlace) -> Option<Arc<Vec<u8>>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.tick += 1;
        let tick = cache.tick;
        let (block, used) = cache.blocks.get_mut(&place)?;
        *used = tick;
        Some(Arc::clone(block))
    }

    fn keep(&self, place: BlockPlace, block: &Arc<Vec<u8>>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let tick = cache.tick;
        if cache.blocks.insert(place, (Arc::clone(block), tick)).is_none() {
            cache.bytes += block.len();
        }
        while cache.bytes > cache.max && cache.blocks.len() > 1 {
            let oldest = cache.blocks.iter().min_by_key(|(_, (_, used))| *used).map(|(p, _)| *p);
            let Some((gone, _)) = oldest.and_then(|p| cache.blocks.remove(&p)) else { break };
            cache.bytes -= gone.len();
        }
    }

    /// A chunk's bytes within its block, checked against its id.
    ///
    /// # Errors
    /// [`ReadError::Content`].
    pub fn verified<'b>(
        &self,
        kind: ChunkKind,
        id: &ChunkId,
        at: &Location,
        block: &'b [u8],
    ) -> Result<&'b [u8], ReadError> {
        let end = u64::from(at.offset) + u64::from(at.len);
        let bytes = usize::try_from(end).ok().and_then(|end| block.get(at.offset as usize..end));
        match bytes {
            Some(bytes) if self.repository.namer().name(kind, bytes) == *id => Ok(bytes),
            _ => {
                let pack = self.accelerator.pack(at.pack).map(|p| ObjectName::pack(&p.id));
                Err(pack
                    .map_or(ReadError::Missing(*id), |pack| ReadError::Content { id: *id, pack }))
            }
        }
    }

    /// A chunk.
    ///
    /// # Errors
    /// [`ReadError::Missing`], damage, or the storage's.
    pub fn chunk(&self, kind: ChunkKind, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
        let at = self.locate(id)?;
        let block = self.block(&at)?;
        self.verified(kind, id, &at, &block).map(<[u8]>::to_vec)
    }

    /// A page of a directory; `level` as the page above named it, `None` for a top page.
    ///
    /// # Errors
    /// As [`Self::chunk`], and [`ReadError::Decode`].
    pub fn page(&self, id: &ChunkId, level: Option<u8>) -> Result<Page, ReadError> {
        let bytes = self.chunk(ChunkKind::Tree, id)?;
        Page::decode(&bytes, level, &self.repository.namer().empty())
            .map_err(|source| ReadError::Decode { id: *id, source })
    }

    /// All entries of a directory, page by page, in order of names.
    ///
    /// # Errors
    /// As [`Self::page`], or what `each` gives.
    pub fn entries<E: From<ReadError>>(
        &self,
        top: &ChunkId,
        each: &mut dyn FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        self.entries_of(top, None, each)
    }

    fn entries_of<E: From<ReadError>>(
        &self,
        id: &ChunkId,
        level: Option<u8>,
        each: &mut dyn FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.page(id, level)? {
            Page::Leaf(entries) => entries.into_iter().try_for_each(each),
            Page::Inner { level, pages } => {
                pages.iter().try_for_each(|p| self.entries_of(&p.id, Some(level - 1), each))
            }
        }
    }

    /// The entry of one name in a directory; reads only the pages on the way.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub fn lookup(&self, top: &ChunkId, name: &[u8]) -> Result<Option<Entry>, ReadError> {
        let (mut id, mut level) = (*top, None);
        loop {
            match self.page(&id, level)? {
                Page::Leaf(entries) => {
                    let found = entries.binary_search_by(|e| e.name.as_slice().cmp(name));
                    return Ok(found.ok().and_then(|at| entries.into_iter().nth(at)));
                }
                Page::Inner { level: found, pages } => {
                    let at = pages.partition_point(|p| p.first.as_slice() <= name);
                    let Some(page) = at.checked_sub(1).map(|at| &pages[at]) else {
                        return Ok(None);
                    };
                    (id, level) = (page.id, Some(found - 1));
                }
            }
        }
    }

    /// All data chunks of a content, in order, without holding them all. `lists` is told of each
    /// list chunk on the way.
    ///
    /// # Errors
    /// As [`Self::chunk`], or what `each` gives.
    pub fn data_chunks<E: From<ReadError>>(
        &self,
        content: &Content,
        each: &mut dyn FnMut(ChunkRef) -> Result<(), E>,
    ) -> Result<(), E> {
        self.walk_content(content, &mut |level, chunk| {
            if level == 0 { each(chunk) } else { Ok(()) }
        })
    }

    /// All chunks of a content, lists before what they name; `each` gets the level too.
    ///
    /// # Errors
    /// As [`Self::chunk`], or what `each` gives; a list whose length is not the sum of its own is
    /// [`ReadError::Decode`].
    pub fn walk_content<E: From<ReadError>>(
        &self,
        content: &Content,
        each: &mut dyn FnMut(u8, ChunkRef) -> Result<(), E>,
    ) -> Result<(), E> {
        for chunk in &content.refs {
            each(content.level, *chunk)?;
            if content.level == 0 {
                continue;
            }
            let bytes = self.chunk(ChunkKind::List, &chunk.id)?;
            let wrong = |source| ReadError::Decode { id: chunk.id, source };
            let list = List::decode(&bytes, content.level).map_err(wrong)?;
            let below = Content { level: content.level - 1, refs: list.refs };
            if below.len() != chunk.len {
                return Err(wrong(DecodeError::Invalid { what: "list length" }).into());
            }
            self.walk_content(&below, each)?;
        }
        Ok(())
    }

    /// A whole content of at most `max` bytes: maps of extents, extended attributes.
    ///
    /// # Errors
    /// As [`Self::chunk`]; [`ReadError::Decode`] above `max`.
    pub fn content(&self, content: &Content, max: usize) -> Result<Vec<u8>, ReadError> {
        let mut out = Vec::new();
        self.data_chunks(content, &mut |chunk: ChunkRef| -> Result<(), ReadError> {
            let bytes = self.chunk(ChunkKind::Data, &chunk.id)?;
            if bytes.len() as u64 != chunk.len || out.len() + bytes.len() > max {
                let source = DecodeError::Invalid { what: "content length" };
                return Err(ReadError::Decode { id: chunk.id, source });
            }
            out.extend_from_slice(&bytes);
            Ok(())
        })?;
        Ok(out)
    }
}

/// The key of a pack's records.
///
/// # Errors
/// What is wrong with its header.
pub fn pack_key(repository: &Repository, pack: &PackFacts) -> Result<ObjectKey, DecodeError> {
    let header = Header::decode(&pack.header, ObjectKind::Pack)?;
    repository.object_key(&header, &pack.header)
}

/// Opens the sealed body of a block and unpacks it.
///
/// # Errors
/// What is wrong with it.
pub fn open_body(
    key: &ObjectKey,
    block: u16,
    mut sealed: Vec<u8>,
    unpacker: &mut Decompressor,
) -> Result<Vec<u8>, BlockFault> {
    key.open(u64::from(block) * 2 + 1, &mut sealed)?;
    let Some((prefix, packed)) = sealed.split_first_chunk::<BODY_PREFIX_LEN>() else {
        return Err(DecodeError::Truncated { what: "block body" }.into());
    };
    let packing = Packing::from_code(prefix[0])?;
    let len = u32::from_le_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if len > limits::BLOCK_PLAIN_MAX {
        let (found, bound) = (len as u64, limits::BLOCK_PLAIN_MAX as u64);
        return Err(DecodeError::Bound { what: "block", found, bound }.into());
    }
    let mut plain = Vec::new();
    unpacker.unpack(packing, packed, len, &mut plain)?;
    Ok(plain)
}
