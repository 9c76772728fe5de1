//! The chunk index: filling it in one go out of a repository and segment by segment as runs publish
//! them, opening it cold, hits and misses from one thread and from two; beside it a plain sorted
//! array of the same keys.

mod common;

use std::path::Path;
use std::sync::Arc;

use cabk::backend::ObjectName;
use cabk::backend::local::LocalBackend;
use cabk::base::id::{PackId, RepoId, SegmentId};
use cabk::format::header::HEADER_LEN;
use cabk::format::pack::{BlockHeader, Class};
use cabk::format::segment::{ChunkKey, Segment, SegmentBlock, SegmentPack};
use cabk::host::clock::{Clock, SystemClock};
use cabk::host::entropy::SystemEntropy;
use cabk::store::accelerator::{Accelerator, Place, seal_segment};
use cabk::store::cut::ChunkSizes;
use cabk::store::repository::{InitOptions, init};
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
    let (mut total, mut longest) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
    for number in 0..segments {
        let (id, segment) = segment(number);
        let last = number + 1 == segments;
        let (took, added) = time(|| {
            index.add(&id, &segment)?;
            if last { index.flush_chunks() } else { Ok(()) }
        });
        added.unwrap();
        total += took.wall;
        longest = longest.max(took.wall);
        if (number + 1) % 32 == 0 || last {
            println!(
                "  {:>10} chunks: {:>7.1} s, at most {:>6.0} ms for a segment, {} MiB in memory",
                (number + 1) * PER_SEGMENT,
                total.as_secs_f64(),
                longest.as_secs_f64() * 1e3,
                memory_kib("VmRSS") >> 10,
            );
        }
    }
}

/// Fills an index out of a repository on disk, as the first run on another machine does.
fn fill_by_sync(dir: &Path, segments: u64) {
    let options = InitOptions {
        password: None,
        compression: 3,
        parity_percent: 0,
        sizes: ChunkSizes::DEFAULT,
        related_to: None,
        now: SystemClock.now(),
    };
    let backend = Arc::new(LocalBackend::create(&dir.join("repository")).unwrap());
    let repository = init(backend, Arc::new(SystemEntropy), &options).unwrap();
    for number in 0..segments {
        let (id, bytes) = seal_segment(&repository, &segment(number).1).unwrap();
        repository.backend().put_new(&ObjectName::segment(&id), &[&bytes]).unwrap();
    }
    let place = Place::Directory(dir.join("cache"));
    let (index, _) = Accelerator::open(&place, repository.id()).unwrap();
    let (took, report) = time(|| index.sync(&repository).unwrap());
    assert_eq!(report.added as u64, segments);
    drop(index);
    println!(
        "  all {segments} by one sync: {:.1} s ({:.1} s of a processor), {} MiB in memory, at most {}, \
         the file {} MiB",
        took.wall.as_secs_f64(),
        took.cpu.as_secs_f64(),
        memory_kib("VmRSS") >> 10,
        memory_kib("VmHWM") >> 10,
        file_len(&dir.join("cache")) >> 20,
    );
    let file = redb_files(&dir.join("cache")).next().unwrap();
    std::fs::remove_file(file.path().with_extension("stamp")).unwrap();
    let (took, opened) = time(|| Accelerator::open(&place, repository.id()).unwrap());
    assert_eq!(opened.1, None);
    println!("  opened after a run that was killed: {:.2} s", took.wall.as_secs_f64());
}

fn redb_files(dir: &Path) -> impl Iterator<Item = walkdir::DirEntry> {
    let all = walkdir::WalkDir::new(dir).into_iter().flatten();
    all.filter(|e| e.file_type().is_file() && e.file_name().to_string_lossy().ends_with(".redb"))
}

fn file_len(dir: &Path) -> u64 {
    redb_files(dir).map(|e| e.metadata().unwrap().len()).sum()
}

fn count(index: &Accelerator, keys: impl Iterator<Item = u64>) -> u64 {
    keys.filter(|n| index.find(&key(*n)).unwrap().is_some()).count() as u64
}

fn main() {
    let segments = sized(16, 153);
    let chunks = segments * PER_SEGMENT;
    println!("\nlookup, {chunks} chunks in {segments} segments");
    fill_by_sync(scratch().path(), segments);
    let dir = scratch();
    fill(dir.path(), segments);
    let size = file_len(dir.path());
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
