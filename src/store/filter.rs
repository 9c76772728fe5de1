//! A filter in front of the chunk index: says "certainly not there" without asking redb, which is
//! what a first snapshot asks a million times.
//!
//! A blocked Bloom filter: each key sets eight bits within one line of 64 bytes. Chunk keys are
//! keyed hashes already, so their own bits choose line and bits. Kept in pages of 4 KiB, so that
//! only changed pages are written.

use crate::format::segment::ChunkKey;

/// Bytes of a page as it is kept.
pub const PAGE_LEN: usize = 4096;
const LINE_WORDS: usize = 8;
const PAGE_WORDS: usize = PAGE_LEN / 8;
/// Keys for which a line of 512 bits is meant: ten bits a key and a little more.
const KEYS_PER_LINE: u64 = 48;

/// The filter.
pub struct Filter {
    words: Vec<u64>,
    dirty: Vec<bool>,
    keys: u64,
}

impl Filter {
    /// An empty filter with room for `keys`.
    #[must_use]
    pub fn with_room_for(keys: u64) -> Self {
        let lines = keys.div_ceil(KEYS_PER_LINE).next_power_of_two().max(64);
        let words = usize::try_from(lines).unwrap_or(usize::MAX / 64) * LINE_WORDS;
        Self { words: vec![0; words], dirty: vec![true; words / PAGE_WORDS], keys: 0 }
    }

    /// The filter out of kept pages; `None` where their number is not that of a filter.
    #[must_use]
    pub fn from_pages(pages: &[Vec<u8>], keys: u64) -> Option<Self> {
        let whole = pages.iter().all(|p| p.len() == PAGE_LEN);
        if !whole || !pages.len().is_power_of_two() {
            return None;
        }
        let words: Vec<u64> = pages
            .iter()
            .flat_map(|p| p.as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w)))
            .collect();
        Some(Self { dirty: vec![false; pages.len()], words, keys })
    }

    /// Keys added.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Pages in which it is kept.
    #[must_use]
    pub fn pages(&self) -> u32 {
        self.dirty.len() as u32
    }

    /// Whether more keys than it was made for would make it say "maybe" too often.
    #[must_use]
    pub fn is_full(&self, more: u64) -> bool {
        self.keys + more > (self.words.len() / LINE_WORDS) as u64 * KEYS_PER_LINE
    }

    fn place(&self, key: &ChunkKey) -> (usize, u64) {
        let (low, high) = key.split_at(8);
        let word = |b: &[u8]| b.iter().rev().fold(0u64, |n, &x| n << 8 | u64::from(x));
        let lines = self.words.len() / LINE_WORDS;
        ((word(low) as usize & (lines - 1)) * LINE_WORDS, word(high))
    }

    /// Adds a key.
    pub fn add(&mut self, key: &ChunkKey) {
        let (line, mut bits) = self.place(key);
        for word in 0..LINE_WORDS {
            self.words[line + word] |= 1 << (bits & 63);
            bits >>= 6;
        }
        self.dirty[line / PAGE_WORDS] = true;
        self.keys += 1;
    }

    /// Whether a key may have been added; `false` is certain.
    #[must_use]
    pub fn may_hold(&self, key: &ChunkKey) -> bool {
        let (line, mut bits) = self.place(key);
        (0..LINE_WORDS).all(|word| {
            let set = self.words[line + word] & 1 << (bits & 63) != 0;
            bits >>= 6;
            set
        })
    }

    /// Takes the numbers and bytes of pages that changed since the last call.
    pub fn take_dirty(&mut self) -> Vec<(u32, Vec<u8>)> {
        let mut out = Vec::new();
        for (number, dirty) in self.dirty.iter_mut().enumerate() {
            if std::mem::take(dirty) {
                let words = &self.words[number * PAGE_WORDS..(number + 1) * PAGE_WORDS];
                out.push((number as u32, words.iter().flat_map(|w| w.to_le_bytes()).collect()));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> ChunkKey {
        let mut out = [0; 16];
        out.copy_from_slice(&blake3::hash(&n.to_le_bytes()).as_bytes()[..16]);
        out
    }

    #[test]
    fn a_filter_never_denies_what_it_holds_and_seldom_errs() {
        let mut filter = Filter::with_room_for(100_000);
        for n in 0..100_000 {
            filter.add(&key(n));
        }
        assert!((0..100_000).all(|n| filter.may_hold(&key(n))));
        let wrong = (100_000..200_000).filter(|n| filter.may_hold(&key(*n))).count();
        assert!(wrong < 3_000, "{wrong} of 100,000 false answers");
        assert!(filter.is_full(1 << 20));
    }

    #[test]
    fn pages_bring_the_filter_back() {
        let mut filter = Filter::with_room_for(10_000);
        for n in 0..1000 {
            filter.add(&key(n));
        }
        let pages: Vec<Vec<u8>> = filter.take_dirty().into_iter().map(|(_, p)| p).collect();
        assert!(filter.take_dirty().is_empty());
        let back = Filter::from_pages(&pages, filter.keys()).unwrap();
        assert!((0..1000).all(|n| back.may_hold(&key(n))));
        filter.add(&key(5000));
        assert_eq!(filter.take_dirty().len(), 1);
        assert!(Filter::from_pages(&pages[..3], 1).is_none());
    }
}
