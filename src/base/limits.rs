//! The bounds of all decoders, in one table that code and `docs/format.md` share.
//!
//! Whatever is read from a repository, an archive or a site is compared with these before memory is
//! set aside for it (invariant 8).

/// Plain bytes of one block.
pub const BLOCK_PLAIN_MAX: usize = 16 << 20;
/// Sealed bytes of one block's body: an incompressible block grows a little.
pub const BLOCK_SEALED_MAX: usize = BLOCK_PLAIN_MAX + (1 << 20);
/// Chunks in one block: 16 MiB of the smallest cuts, and many small files.
pub const BLOCK_CHUNKS_MAX: usize = 1 << 20;
/// Sealed bytes of one block's chunk table.
pub const BLOCK_TABLE_MAX: usize = 48 << 20;
/// Bytes of one pack at rest.
pub const PACK_MAX: u64 = 256 << 20;
/// Bytes of one data chunk.
pub const CHUNK_MAX: usize = 8 << 20;
/// Bytes of one list chunk.
pub const LIST_MAX: usize = 1 << 20;
/// Levels of lists above a file's chunks: each level holds at least 8 references.
pub const LIST_LEVELS_MAX: u8 = 12;
/// Bytes of one name: what Linux's own file systems take.
pub const NAME_MAX: usize = 255;
/// Bytes of one encoded tree entry.
pub const ENTRY_MAX: usize = 64 << 10;
/// Names in one page of a directory.
pub const PAGE_NAMES_MAX: usize = 64 << 10;
/// Bytes of one encoded page of a directory.
pub const PAGE_BYTES_MAX: usize = 8 << 20;
/// Levels of pages above a directory's entries.
pub const PAGE_LEVELS_MAX: u8 = 8;
/// Directories below each other: the walkers keep one descriptor each of only a few of them.
pub const DEPTH_MAX: usize = 1 << 16;
/// Chunk references that stand in the entry itself; longer content goes to list objects.
pub const INLINE_CHUNKS_MAX: usize = 64;
/// Bytes of extended attributes that stand in the entry itself.
pub const INLINE_XATTR_MAX: usize = 4 << 10;
/// Bytes of all extended attributes of one inode, read back from content.
pub const XATTR_TOTAL_MAX: usize = 64 << 20;
/// Bytes of the encoded map of data and holes of one file.
pub const EXTENT_MAP_MAX: usize = 256 << 20;
/// Data extents that stand in the entry itself; longer maps are content.
pub const INLINE_EXTENTS_MAX: usize = 64;
/// Bytes of one index segment at rest.
pub const SEGMENT_MAX: u64 = 1 << 30;
/// Bytes of a manifest at rest.
pub const MANIFEST_MAX: u64 = 64 << 20;
/// Bytes of a configuration, key slot, lease, end record, generation or note at rest.
pub const CONTROL_MAX: u64 = 1 << 20;
/// Sealed bytes of what the master key tells of one key slot.
pub const SLOT_FACTS_MAX: u32 = 4 << 10;
/// Characters of a key slot's label.
pub const SLOT_LABEL_MAX: usize = 200;
/// Problems kept in a manifest; the count of all is kept beside them.
pub const MANIFEST_PROBLEMS_MAX: usize = 10_000;
/// Bytes of paths and texts of the problems that a manifest names; the rest is counted.
pub const MANIFEST_PROBLEM_BYTES_MAX: usize = 8 << 20;
/// Argon2id: memory in KiB accepted from a key slot.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 1 << 20;
/// Argon2id: passes accepted from a key slot.
pub const ARGON2_PASSES_MAX: u32 = 16;
/// Argon2id: lanes accepted from a key slot.
pub const ARGON2_LANES_MAX: u32 = 16;
/// zstd: window accepted when decoding, as a power of two.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 24;
/// Bytes of a site's gcfg file or environment file.
pub const SITE_FILE_MAX: u64 = 16 << 20;
