//! The chunk index: filling it segment by segment as runs publish them, opening it cold, hits and
//! misses from one thread and from two; beside it a plain sorted array of the same keys.

mod common;

use std::path::Path;

use cabk::base::id::{PackId, RepoId, SegmentId};
use cabk::format::header::HEADER_LEN;
use cabk::format::pack::{BlockHeader, Class};
use cabk::format::segment::{ChunkKey, Segment, SegmentBlock, SegmentPack};
use cabk::store::accelerator::{Accelerator, Place};
use common::{Table, Work, memory_kib, scratch, sized, time};

/// As a run publishes them: 64 packs, each of about a thousand chunks of 64 KiB.
const PACKS: u64 = 64;
const BLOCKS: u64 = 16;
const CHUNKS: u64 = 64;
const PER_SEGMENT: u64 = PACKS * BLOCKS * CHUNKS;
const LOOKUPS: u64 = 200_000;

/// The key of chunk `n`: as evenly spread as a hash, and made again at will.
fn key(n: u64) -> ChunkKey {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let mut out = [0; 16];
    out[..8].copy_from_slice(&mix(n.wrapping_add(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
    out[8..].copy_from_slice(&mix(!n).to_le_bytes());
    out
}

fn segment(number: u64) -> (SegmentId, Segment) {
    let block = |from: u64| SegmentBlock {
        header: BlockHeader { class: Class::Data, table_len: 2_600, body_len: 2 << 20 },
        chunks: (from..from + CHUNKS).map(|n| (key(n), 64 << 10)).collect(),
    };
    let pack = |p: u64| {
        let from = (number * PACKS + p) * BLOCKS * CHUNKS;
        let mut id = [0; 32];
        id[..16].copy_from_slice(&key(from));
        SegmentPack {
            id: PackId::from_array(id),
            len: 33 << 20,
            header: [0; HEADER_LEN],
            blocks: (0..BLOCKS).map(|b| block(from + b * CHUNKS)).collect(),
        }
    };
    let mut id = [1; 32];
    id[..8].copy_from_slice(&number.to_le_bytes());
    (SegmentId::from_array(id), Segment { merges: vec![], packs: (0..PACKS).map(pack).collect() })
}

fn open(dir: &Path) -> Accelerator {
    let place = Place::Directory(dir.to_path_buf());
    let (index, said) = Accelerator::open(&place, &RepoId::from_array([5; 16])).unwrap();
    assert!(said.is_none(), "{said:?}");
    index
}

fn fill(dir: &Path, segments: u64) {
    let index = open(dir);
    let mut total = std::time::Duration::ZERO;
    for number in 0..segments {
        let (id, segment) = segment(number);
        let (took, added) = time(|| index.add(&id, &segment));
        added.unwrap();
        total += took.wall;
        if (number + 1) % 32 == 0 || number + 1 == segments {
            println!(
                "  {:>10} chunks: {:>7.1} s, the last segment {:>6.0} ms, {} MiB in memory",
                (number + 1) * PER_SEGMENT,
                total.as_secs_f64(),
                took.wall.as_secs_f64() * 1e3,
                memory_kib("VmRSS") >> 10,
            );
        }
    }
}

fn count(index: &Accelerator, keys: impl Iterator<Item = u64>) -> u64 {
    keys.filter(|n| index.find(&key(*n)).unwrap().is_some()).count() as u64
}

fn main() {
    let segments = sized(16, 153);
    let chunks = segments * PER_SEGMENT;
    let dir = scratch();
    println!("\nlookup, {chunks} chunks in {segments} segments");
    fill(dir.path(), segments);
    let file = walkdir::WalkDir::new(dir.path())
        .into_iter()
        .flatten()
        .filter(|e| e.file_type().is_file() && e.file_name().to_string_lossy().ends_with(".redb"));
    let size: u64 = file.map(|e| e.metadata().unwrap().len()).sum();
    println!("  the file: {} MiB, {} bytes a chunk", size >> 20, size / chunks);
    let (opened, index) = time(|| open(dir.path()));
    let (first, missing) = time(|| index.find(&key(u64::MAX - 1)).unwrap());
    assert!(missing.is_none());
    println!(
        "  open {:.1} ms, first lookup (reads the filter) {:.1} ms, {} MiB in memory",
        opened.wall.as_secs_f64() * 1e3,
        first.wall.as_secs_f64() * 1e3,
        memory_kib("VmRSS") >> 10
    );

    // Strides that are coprime to the number of chunks visit keys in no order of theirs.
    let at = |i: u64| i.wrapping_mul(2_654_435_761) % chunks;
    let work = Work::Items(LOOKUPS);
    let mut keys: Vec<ChunkKey> = (0..chunks).map(key).collect();
    keys.sort_unstable();
    let mut table = Table::new(&format!("{LOOKUPS} lookups among {chunks}"));
    table.floor("binary search of a sorted array, hits", work, || {
        (0..LOOKUPS).filter(|i| keys.binary_search(&key(at(*i))).is_ok()).count()
    });
    drop(keys);
    table.line("hits, one thread", work, || {
        assert_eq!(count(&index, (0..LOOKUPS).map(at)), LOOKUPS);
    });
    table.line("hits, two threads", work, || {
        let half = |from: u64| count(&index, (from..from + LOOKUPS / 2).map(at));
        let (a, b) = rayon::join(|| half(0), || half(LOOKUPS / 2));
        assert_eq!(a + b, LOOKUPS);
    });
    table.line("neighbours as they were written", work, || {
        let from = chunks / 3;
        assert_eq!(count(&index, from..from + LOOKUPS), LOOKUPS);
    });
    table.line("misses", work, || {
        assert_eq!(count(&index, (0..LOOKUPS).map(|i| chunks + i)), 0);
    });
    println!(
        "  {} MiB in memory, at most {}",
        memory_kib("VmRSS") >> 10,
        memory_kib("VmHWM") >> 10
    );
}
