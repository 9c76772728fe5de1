//! Content of any length as references: few stand where the content is named, more become list
//! chunks in levels, cut by content, so that a change of a huge file rewrites only its part.

use crate::base::id::ChunkId;
use crate::base::limits;
use crate::format::content::{
    ChunkRef, Content, LIST_CUT_MASK, LIST_REFS_MAX, LIST_REFS_MIN, List,
};

/// References of one level that wait for their list chunk.
#[derive(Default)]
struct Level {
    waiting: Vec<ChunkRef>,
    /// Whether list chunks of this level were written: until then the references may all stand
    /// where the content is named.
    listing: bool,
}

/// Builds the references of one content. Holds at most a list chunk's worth of each level.
#[derive(Default)]
pub struct ContentBuilder {
    levels: Vec<Level>,
}

impl ContentBuilder {
    /// Appends a data chunk. `put` stores a list chunk and gives its id.
    ///
    /// # Errors
    /// What `put` gives.
    pub fn push<E>(
        &mut self,
        chunk: ChunkRef,
        put: &mut impl FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        self.push_at(0, chunk, put)
    }

    fn push_at<E>(
        &mut self,
        level: usize,
        chunk: ChunkRef,
        put: &mut impl FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        if self.levels.len() <= level {
            self.levels.push(Level::default());
        }
        let this = &mut self.levels[level];
        this.waiting.push(chunk);
        if !this.listing {
            if this.waiting.len() <= limits::INLINE_CHUNKS_MAX {
                return Ok(());
            }
            // Too many to stand in the entry: cut what waits as if it had been cut all along.
            this.listing = true;
            for chunk in std::mem::take(&mut this.waiting) {
                self.push_at(level, chunk, put)?;
            }
            return Ok(());
        }
        let n = this.waiting.len();
        let cut = n >= LIST_REFS_MIN && chunk.id.as_bytes()[31] & LIST_CUT_MASK == 0;
        if cut || n >= LIST_REFS_MAX {
            self.close(level, put)?;
        }
        Ok(())
    }

    fn close<E>(
        &mut self,
        level: usize,
        put: &mut impl FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        let refs = std::mem::take(&mut self.levels[level].waiting);
        if refs.is_empty() {
            return Ok(());
        }
        let len = refs.iter().map(|r| r.len).sum();
        let id = put(&List { level: level as u8 + 1, refs }.encode())?;
        self.push_at(level + 1, ChunkRef { id, len }, put)
    }

    /// Closes all levels.
    ///
    /// # Errors
    /// What `put` gives.
    pub fn finish<E>(
        mut self,
        put: &mut impl FnMut(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<Content, E> {
        let mut level = 0;
        while level < self.levels.len() {
            if !self.levels[level].listing {
                let refs = std::mem::take(&mut self.levels[level].waiting);
                return Ok(Content { level: level as u8, refs });
            }
            self.close(level, put)?;
            level += 1;
        }
        Ok(Content::EMPTY)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use super::*;

    fn chunk(n: u64) -> ChunkRef {
        let id = ChunkId::from_array(*blake3::hash(&n.to_le_bytes()).as_bytes());
        ChunkRef { id, len: 1000 + n % 7 }
    }

    fn build(chunks: impl Iterator<Item = u64>, store: &mut HashMap<ChunkId, Vec<u8>>) -> Content {
        let mut put = |bytes: &[u8]| -> Result<ChunkId, Infallible> {
            let id = ChunkId::from_array(*blake3::hash(bytes).as_bytes());
            store.insert(id, bytes.to_vec());
            Ok(id)
        };
        let mut builder = ContentBuilder::default();
        for n in chunks {
            let Ok(()) = builder.push(chunk(n), &mut put);
        }
        let Ok(content) = builder.finish(&mut put);
        content
    }

    fn flatten(content: &Content, store: &HashMap<ChunkId, Vec<u8>>) -> Vec<ChunkRef> {
        if content.level == 0 {
            return content.refs.clone();
        }
        let mut out = Vec::new();
        for r in &content.refs {
            let list = List::decode(&store[&r.id], content.level).unwrap();
            assert_eq!(list.refs.iter().map(|r| r.len).sum::<u64>(), r.len);
            out.extend(flatten(&Content { level: content.level - 1, refs: list.refs }, store));
        }
        out
    }

    #[test]
    fn contents_of_all_lengths_keep_their_chunks_in_order() {
        for n in [0, 1, 64, 65, 66, 1000, 100_000] {
            let mut store = HashMap::new();
            let content = build(0..n, &mut store);
            assert!(content.refs.len() <= 64);
            assert_eq!(content.level == 0, n <= 64, "{n}");
            let expected: Vec<ChunkRef> = (0..n).map(chunk).collect();
            assert_eq!(flatten(&content, &store), expected);
        }
    }

    #[test]
    fn a_change_rewrites_only_its_part() {
        let mut store = HashMap::new();
        build(0..100_000, &mut store);
        let before: usize = store.values().map(Vec::len).sum();
        let lists = store.len();
        build((0..100_000).map(|n| if n == 50_000 { 1 << 40 } else { n }), &mut store);
        let added: usize = store.values().map(Vec::len).sum::<usize>() - before;
        assert!(store.len() - lists <= 6, "{} new lists", store.len() - lists);
        assert!(added * 50 < before, "{added} of {before} bytes are new");
    }
}
