//! Where chunks end: FastCDC (the 2020 paper's rolling two bytes at a time) with a gear table that
//! is derived from the repository's secret, so that chunk lengths tell an outsider nothing about
//! known files; or fixed pages for databases.

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

use crate::base::secret::SecretKey;

/// Chunk sizes of a repository, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkSizes {
    /// No cut is looked for before.
    pub min: u32,
    /// Most chunks are about this long.
    pub avg: u32,
    /// A cut is made here at the latest.
    pub max: u32,
}

impl ChunkSizes {
    /// 16, 64, 256 KiB: with solid blocks a chunk's own cost is small, and unpacked applications
    /// are mostly files below these sizes.
    pub const DEFAULT: Self = Self { min: 16 << 10, avg: 64 << 10, max: 256 << 10 };

    /// Whether FastCDC and the decoders' bounds accept these sizes.
    #[must_use]
    pub fn are_valid(&self) -> bool {
        let even = [self.min, self.avg, self.max].iter().all(|n| n % 2 == 0);
        even && self.avg.is_power_of_two()
            && (64..=1 << 20).contains(&self.min)
            && (256..=4 << 20).contains(&self.avg)
            && self.max as usize <= crate::base::limits::CHUNK_MAX
            && self.min <= self.avg
            && self.avg <= self.max
    }
}

/// Cuts by content.
pub struct Cutter {
    sizes: ChunkSizes,
    gear: Box<[u64; 256]>,
    gear_shifted: Box<[u64; 256]>,
    mask_small: u64,
    mask_large: u64,
}

impl Cutter {
    /// The cutter of a repository with this secret of cuts. The sizes have been checked.
    #[must_use]
    pub fn new(secret: &SecretKey, sizes: ChunkSizes) -> Self {
        let mut bytes = [0; 2048];
        blake3::Hasher::new_derive_key("cabk 2026 v1 gear table")
            .update(secret.expose())
            .finalize_xof()
            .fill(&mut bytes);
        let mut gear = Box::new([0; 256]);
        let mut gear_shifted = Box::new([0; 256]);
        for (i, word) in bytes.as_chunks::<8>().0.iter().enumerate() {
            gear[i] = u64::from_le_bytes(*word);
            gear_shifted[i] = gear[i] << 1;
        }
        zeroize::Zeroize::zeroize(&mut bytes);
        let (mask_small, mask_large) = select_masks(sizes.avg as usize, Normalization::Level1);
        Self { sizes, gear, gear_shifted, mask_small, mask_large }
    }

    /// The longest chunk: with this many bytes at hand the next cut does not depend on more.
    #[must_use]
    pub fn max(&self) -> usize {
        self.sizes.max as usize
    }

    /// Bytes of the first chunk of `source`, which is all that is left or at least [`Self::max`].
    #[must_use]
    pub fn cut(&self, source: &[u8]) -> usize {
        let (_, end) = cut_gear(
            source,
            self.sizes.min as usize,
            self.sizes.avg as usize,
            self.sizes.max as usize,
            self.mask_small,
            self.mask_large,
            self.mask_small << 1,
            self.mask_large << 1,
            self.gear.as_slice(),
            self.gear_shifted.as_slice(),
        );
        end
    }
}

/// How one stream is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cutting {
    /// By content.
    ByContent,
    /// Into chunks of a fixed size, in bytes.
    Fixed(usize),
}

/// The first 16 bytes of every SQLite database.
pub const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Above this size pages are grouped to 16 KiB: a database of 20 GB has a million chunks then, not
/// five. Below, single pages win: of 1 % of rows changed at random they keep a third of what 16 KiB
/// keep, for metadata of some 120 bytes a page.
const LARGE_DATABASE: u64 = 8 << 30;

/// How a file is cut, from its first bytes (at least 18 where it has them) and its size.
#[must_use]
pub fn cutting_for(head: &[u8], size: u64) -> Cutting {
    let Some(page) = head.get(..18).filter(|h| h.starts_with(SQLITE_MAGIC)) else {
        return Cutting::ByContent;
    };
    // Offset 16 of the database header: page size, big-endian, 1 for 65,536 (sqlite.org/fileformat).
    let page = match u16::from_be_bytes([page[16], page[17]]) {
        1 => 65_536,
        n if n.is_power_of_two() && n >= 512 => usize::from(n),
        _ => return Cutting::ByContent,
    };
    let floor = if size > LARGE_DATABASE { 16 << 10 } else { 4 << 10 };
    Cutting::Fixed(page.max(floor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize) -> Vec<u8> {
        let mut out = vec![0; n];
        blake3::Hasher::new().update(b"cut").finalize_xof().fill(&mut out);
        out
    }

    fn cuts(cutter: &Cutter, mut source: &[u8]) -> Vec<usize> {
        let mut out = Vec::new();
        while !source.is_empty() {
            let n = cutter.cut(source);
            assert!(n > 0 && n <= cutter.max());
            out.push(n);
            source = &source[n..];
        }
        out
    }

    #[test]
    fn cuts_depend_on_the_secret_and_survive_an_insertion() {
        let a = Cutter::new(&SecretKey::new([1; 32]), ChunkSizes::DEFAULT);
        let b = Cutter::new(&SecretKey::new([2; 32]), ChunkSizes::DEFAULT);
        let mut data = noise(8 << 20);
        let before = cuts(&a, &data);
        assert_ne!(before, cuts(&b, &data));
        let mean = data.len() / before.len();
        assert!((48 << 10..128 << 10).contains(&mean), "mean chunk {mean}");
        data.insert(1000, 7);
        let after = cuts(&a, &data);
        let same = before.iter().rev().zip(after.iter().rev()).take_while(|(x, y)| x == y).count();
        assert!(same + 3 >= before.len(), "only the first chunks move");
    }

    #[test]
    fn databases_are_cut_into_pages() {
        let mut head = [0; 100];
        head[..16].copy_from_slice(SQLITE_MAGIC);
        head[16..18].copy_from_slice(&4096u16.to_be_bytes());
        assert_eq!(cutting_for(&head, 1 << 20), Cutting::Fixed(4096));
        assert_eq!(cutting_for(&head, 8 << 30), Cutting::Fixed(4096));
        assert_eq!(cutting_for(&head, (8 << 30) + 1), Cutting::Fixed(16_384));
        head[16..18].copy_from_slice(&1u16.to_be_bytes());
        assert_eq!(cutting_for(&head, 1 << 20), Cutting::Fixed(65_536));
        head[16..18].copy_from_slice(&777u16.to_be_bytes());
        assert_eq!(cutting_for(&head, 1 << 20), Cutting::ByContent);
        assert_eq!(cutting_for(b"SQLite", 6), Cutting::ByContent);
    }

    #[test]
    fn sizes_are_checked() {
        assert!(ChunkSizes::DEFAULT.are_valid());
        assert!(!ChunkSizes { min: 0, ..ChunkSizes::DEFAULT }.are_valid());
        assert!(!ChunkSizes { max: u32::MAX, ..ChunkSizes::DEFAULT }.are_valid());
        assert!(!ChunkSizes { avg: 65_537, ..ChunkSizes::DEFAULT }.are_valid());
    }
}
