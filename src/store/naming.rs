//! Chunk ids: BLAKE3 keyed from the repository's secret of ids, with a key for each kind of chunk.

use crate::base::id::{ChunkId, ContentHash};
use crate::base::secret::SecretKey;
use crate::format::pack::ChunkKind;

/// Names chunks.
pub struct Namer {
    data: SecretKey,
    list: SecretKey,
    tree: SecretKey,
    link: SecretKey,
    empty: ContentHash,
}

impl Namer {
    /// The namer of a repository with this secret of ids.
    #[must_use]
    pub fn new(secret: &SecretKey) -> Self {
        let key = |kind: ChunkKind| {
            SecretKey::new(blake3::derive_key(kind.id_context(), secret.expose()))
        };
        let data = key(ChunkKind::Data);
        let empty = ContentHash::from_array(*blake3::keyed_hash(data.expose(), b"").as_bytes());
        let link = SecretKey::new(blake3::derive_key(
            "cabk 2026 v1 machine-local digests",
            secret.expose(),
        ));
        Self { data, list: key(ChunkKind::List), tree: key(ChunkKind::Tree), link, empty }
    }

    /// The id of a chunk.
    #[must_use]
    pub fn name(&self, kind: ChunkKind, bytes: &[u8]) -> ChunkId {
        let key = match kind {
            ChunkKind::Data => &self.data,
            ChunkKind::List => &self.list,
            ChunkKind::Tree => &self.tree,
        };
        ChunkId::from_array(*blake3::keyed_hash(key.expose(), bytes).as_bytes())
    }

    /// A hasher for the data of a whole file. Its key is that of data chunks: a file of one chunk
    /// has the chunk's id as its hash, and needs no second pass.
    #[must_use]
    pub fn content_hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(self.data.expose())
    }

    /// The hash of no data.
    #[must_use]
    pub fn empty(&self) -> ContentHash {
        self.empty
    }

    /// A hasher for digests that never leave this repository's own clients: of inodes, of what a
    /// directory looked like. Keyed, so that nobody can make two of them meet.
    #[must_use]
    pub fn digest_hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(self.link.expose())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_ids_of_their_own_and_one_chunk_is_its_content() {
        let namer = Namer::new(&SecretKey::new([3; 32]));
        let data = namer.name(ChunkKind::Data, b"x");
        assert_ne!(data, namer.name(ChunkKind::Tree, b"x"));
        assert_ne!(data, namer.name(ChunkKind::List, b"x"));
        assert_eq!(data.as_bytes(), namer.content_hasher().update(b"x").finalize().as_bytes());
        assert_eq!(namer.empty().as_bytes(), namer.content_hasher().finalize().as_bytes());
        assert_ne!(data, Namer::new(&SecretKey::new([4; 32])).name(ChunkKind::Data, b"x"));
    }
}
