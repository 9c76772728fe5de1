//! The way to rest: chunks into blocks, blocks into packs, packs into the storage, index segments
//! published on the way.
//!
//! Each thread that reads has a [`Worker`] with blocks of its own: a chunk is hashed, looked up,
//! compressed and sealed by the thread that read it. Packs are shared by all workers; one thread
//! puts them. In flight at most: a block of each class for each worker, a pack of each class in the
//! making, one pack being put.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::accelerator::{Accelerator, AcceleratorError};
use super::pack_builder::{FinishedPack, PackBuilder, PackError, PackedBlock, Scratch};
use super::repository::{Repository, RepositoryError};
use super::uploader::{Uploader, UploaderHandle};
use crate::base::id::ChunkId;
use crate::base::limits;
use crate::codec::compress::{CompressError, Compressor, Effort};
use crate::format::pack::{BlockTable, ChunkKind, Class, TableEntry};
use crate::format::segment::{ChunkKey, chunk_key};
use crate::host::clock::Clock;

/// A pack is closed when it has this many bytes.
pub const PACK_TARGET: u64 = 32 << 20;
/// Plain bytes of a block of directories and lists: reading one entry unpacks one of these.
pub const TREE_BLOCK: usize = 256 << 10;
/// Plain bytes of a block of a first snapshot.
pub const FIRST_BLOCK: usize = 4 << 20;
/// Plain bytes of a block later on.
pub const LATER_BLOCK: usize = 1 << 20;

/// What went wrong on the way to rest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The repository or its storage.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A pack.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The local index.
    #[error(transparent)]
    Accelerator(#[from] AcceleratorError),
    /// Free space would fall below what must stay free.
    #[error("{free} bytes are free, {more} are to be written, and {min_free} must stay free")]
    MinFree {
        /// Bytes free.
        free: u64,
        /// Bytes that were to be written.
        more: u64,
        /// `min_free` of the configuration.
        min_free: u64,
    },
    /// A chunk above the bound.
    #[error("a chunk of {0} bytes is above the bound")]
    TooLong(usize),
    /// Another thread of the run failed first; its error is the one to show.
    #[error("the run was given up")]
    GivenUp,
}

/// How a run writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriterOptions {
    /// zstd level.
    pub level: i32,
    /// Larger blocks with long-distance matching, for a first snapshot.
    pub first: bool,
    /// Bytes that must stay free where the storage can tell.
    pub min_free: u64,
}

/// What a run wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteStats {
    /// Chunks that were new.
    pub chunks_new: u64,
    /// Plain bytes of new chunks.
    pub bytes_new: u64,
    /// Bytes put: packs and index segments.
    pub bytes_stored: u64,
    /// Packs put.
    pub packs: u64,
}

/// Chunks that this run has taken in charge and the index does not know yet.
struct Pending {
    shards: Vec<Mutex<HashSet<ChunkKey>>>,
}

impl Pending {
    fn shard(&self, key: &ChunkKey) -> std::sync::MutexGuard<'_, HashSet<ChunkKey>> {
        self.shards[usize::from(key[0]) % self.shards.len()]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all workers of a run share.
pub(super) struct Shared {
    pub(super) repository: Arc<Repository>,
    pub(super) accelerator: Arc<Accelerator>,
    pub(super) options: WriterOptions,
    pending: Pending,
    builders: [Mutex<Option<PackBuilder>>; 4],
    failed: AtomicBool,
    reason: Mutex<Option<WriteError>>,
    chunks_new: AtomicU64,
    bytes_new: AtomicU64,
}

impl Shared {
    /// Chunks of a published segment are in the index now.
    pub(super) fn published(&self, keys: impl Iterator<Item = ChunkKey>) {
        for key in keys {
            self.pending.shard(&key).remove(&key);
        }
    }

    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// The run ends for this reason; the first one is kept for whoever asks first.
    pub(super) fn fail_for(&self, error: WriteError) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.fail();
    }

    /// Why the run is given up.
    pub(super) fn failure(&self) -> WriteError {
        let kept = self.reason.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.unwrap_or(WriteError::GivenUp)
    }
}

/// Writes chunks. One for each run that adds to a repository, made under its lease.
pub struct Writer {
    shared: Arc<Shared>,
    uploader: UploaderHandle,
}

impl Writer {
    /// Begins writing. The accelerator has been made equal to the listed segments and obeys the
    /// lease's condemned packs.
    ///
    /// # Errors
    /// [`WriteError::MinFree`] where there is too little room from the start.
    pub fn new(
        repository: Arc<Repository>,
        accelerator: Arc<Accelerator>,
        options: WriterOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, WriteError> {
        check_free(&repository, options.min_free, 0)?;
        let shared = Arc::new(Shared {
            repository,
            accelerator,
            options,
            pending: Pending { shards: (0..64).map(|_| Mutex::default()).collect() },
            builders: Default::default(),
            failed: AtomicBool::new(false),
            reason: Mutex::new(None),
            chunks_new: AtomicU64::new(0),
            bytes_new: AtomicU64::new(0),
        });
        let uploader = Uploader::start(Arc::clone(&shared), clock);
        Ok(Self { shared, uploader })
    }

    /// A worker for one thread.
    ///
    /// # Errors
    /// Where zstd refuses.
    pub fn worker(&self) -> Result<Worker<'_>, WriteError> {
        let later = Effort { level: self.shared.options.level, long: false };
        let first = Effort { long: self.shared.options.first, ..later };
        let compress = |e| WriteError::Pack(PackError::Compress(e));
        Ok(Worker {
            writer: self,
            first: Compressor::new(first).map_err(compress)?,
            small: Compressor::new(later).map_err(compress)?,
            blocks: Default::default(),
            scratch: Scratch::default(),
        })
    }

    /// Whether the repository has a chunk, or will have it when this run ends.
    ///
    /// # Errors
    /// The local index's.
    pub fn has(&self, id: &ChunkId) -> Result<bool, WriteError> {
        let key = chunk_key(id);
        if self.shared.pending.shard(&key).contains(&key) {
            return Ok(true);
        }
        Ok(self.shared.accelerator.find(&key)?.is_some())
    }

    /// Closes the packs in the making and waits until all is in the storage and the index: what was
    /// written is found again even if this run is killed.
    ///
    /// # Errors
    /// Any error of the run so far.
    pub fn publish(&self) -> Result<(), WriteError> {
        // A block that was lost on the way is named by trees that would be committed.
        if self.shared.failed.load(Ordering::Relaxed) {
            return Err(self.shared.failure());
        }
        for builder in &self.shared.builders {
            let taken = builder.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(pack) = taken.filter(|b| !b.is_empty()) {
                self.uploader.put(pack.finish()?)?;
            }
        }
        self.uploader.publish()
    }

    /// Publishes what is left and ends (invariant 1: packs, then index).
    ///
    /// # Errors
    /// Any error of the run so far: nothing may be committed then.
    pub fn finish(self) -> Result<WriteStats, WriteError> {
        self.publish()?;
        let (packs, bytes_stored) = self.uploader.finish()?;
        Ok(WriteStats {
            chunks_new: self.shared.chunks_new.load(Ordering::Relaxed),
            bytes_new: self.shared.bytes_new.load(Ordering::Relaxed),
            bytes_stored,
            packs,
        })
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Arc<Repository> {
        &self.shared.repository
    }

    fn append(&self, block: PackedBlock<'_>) -> Result<(), WriteError> {
        let slot = &self.shared.builders[usize::from(block.class.code()) - 1];
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let mut builder = match slot.take() {
            Some(builder) => builder,
            None => PackBuilder::new(&self.shared.repository)?,
        };
        // On an error the builder is dropped: after a failed comparison the whole pack is given up.
        builder.add(block)?;
        let full = builder.len() >= PACK_TARGET || builder.blocks() >= usize::from(u16::MAX);
        if !full {
            *slot = Some(builder);
            return Ok(());
        }
        // The slot stays taken until the pack is on its way: no thread begins a third one while one
        // is being put and one waits.
        self.uploader.put(builder.finish()?)
    }
}

/// Free space after `more` bytes must not fall below `min_free`.
///
/// # Errors
/// [`WriteError::MinFree`], or the storage's.
pub fn check_free(repository: &Repository, min_free: u64, more: u64) -> Result<(), WriteError> {
    let Some(local) = repository.backend().local() else { return Ok(()) };
    let free = local.free_bytes().map_err(RepositoryError::from)?;
    if free < min_free.saturating_add(more) {
        return Err(WriteError::MinFree { free, more, min_free });
    }
    Ok(())
}

/// A block in the making.
#[derive(Default)]
struct OpenBlock {
    plain: Vec<u8>,
    chunks: Vec<TableEntry>,
}

/// One thread's hand on the writer.
pub struct Worker<'w> {
    writer: &'w Writer,
    first: Compressor,
    small: Compressor,
    blocks: [OpenBlock; 4],
    scratch: Scratch,
}

impl Worker<'_> {
    /// Names a chunk and keeps it where the repository does not have it. The second value says
    /// whether it was new.
    ///
    /// # Errors
    /// Any error on the way to rest; the run must be given up.
    pub fn put(
        &mut self,
        class: Class,
        kind: ChunkKind,
        bytes: &[u8],
    ) -> Result<(ChunkId, bool), WriteError> {
        let id = self.writer.shared.repository.namer().name(kind, bytes);
        let new = self.put_named(class, kind, id, bytes)?;
        Ok((id, new))
    }

    /// [`Self::put`] for a chunk whose id is known already.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn put_named(
        &mut self,
        class: Class,
        kind: ChunkKind,
        id: ChunkId,
        bytes: &[u8],
    ) -> Result<bool, WriteError> {
        let shared = &self.writer.shared;
        if shared.failed.load(Ordering::Relaxed) {
            return Err(shared.failure());
        }
        if bytes.len() > limits::CHUNK_MAX {
            return Err(WriteError::TooLong(bytes.len()));
        }
        let key = chunk_key(&id);
        if shared.pending.shard(&key).contains(&key)
            || shared.accelerator.find(&key)?.is_some()
            || !shared.pending.shard(&key).insert(key)
        {
            return Ok(false);
        }
        shared.chunks_new.fetch_add(1, Ordering::Relaxed);
        shared.bytes_new.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let target = self.target(class);
        let block = &mut self.blocks[usize::from(class.code()) - 1];
        let full = block.chunks.len() >= limits::BLOCK_CHUNKS_MAX
            || (!block.plain.is_empty() && block.plain.len() + bytes.len() > target);
        if full {
            self.close(class)?;
        }
        let block = &mut self.blocks[usize::from(class.code()) - 1];
        block.plain.extend_from_slice(bytes);
        block.chunks.push(TableEntry { kind, id, len: bytes.len() as u32 });
        Ok(true)
    }

    fn target(&self, class: Class) -> usize {
        match class {
            Class::Tree => TREE_BLOCK,
            _ if self.writer.shared.options.first => FIRST_BLOCK,
            _ => LATER_BLOCK,
        }
    }

    fn close(&mut self, class: Class) -> Result<(), WriteError> {
        let block = &mut self.blocks[usize::from(class.code()) - 1];
        if block.chunks.is_empty() {
            return Ok(());
        }
        let table = BlockTable { chunks: std::mem::take(&mut block.chunks) };
        let long = class != Class::Tree && block.plain.len() > LATER_BLOCK;
        let compressor = if long { &mut self.first } else { &mut self.small };
        let packed = PackedBlock::pack(class, table, &block.plain, compressor, &mut self.scratch);
        block.plain.clear();
        let done = packed.map_err(WriteError::from).and_then(|block| self.writer.append(block));
        if done.is_err() {
            self.writer.shared.fail();
        }
        done
    }

    /// Closes the worker's blocks. A worker that is dropped without this has lost them: the run
    /// must not be committed.
    ///
    /// # Errors
    /// Any error on the way to rest.
    pub fn finish(mut self) -> Result<(), WriteError> {
        for class in Class::ALL {
            self.close(class)?;
        }
        Ok(())
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.writer.shared.repository
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        if self.blocks.iter().any(|b| !b.chunks.is_empty()) {
            self.writer.shared.fail();
        }
    }
}

impl From<CompressError> for WriteError {
    fn from(error: CompressError) -> Self {
        Self::Pack(PackError::Compress(error))
    }
}

/// A pack that was put, for whoever asks what a run made.
pub(super) type PutPack = FinishedPack;

#[cfg(test)]
mod tests;
