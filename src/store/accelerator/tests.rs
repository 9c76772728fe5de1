mod damage;
mod syncing;

use super::*;
use crate::backend::ObjectName;
use crate::backend::memory::MemoryBackend;
use crate::base::id::{ChunkId, ManifestId, SegmentId};
use crate::format::pack::{BlockHeader, Class};
use crate::format::segment::{Segment, SegmentBlock};
use crate::host::entropy::SystemEntropy;
use crate::store::cut::ChunkSizes;
use crate::store::repository::{InitOptions, Repository, init, open};

fn repo(n: u8) -> RepoId {
    RepoId::from_array([n; 16])
}

fn key(n: u32) -> ChunkKey {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(&n.to_le_bytes()).as_bytes()[..16]);
    out
}

fn segment(packs: std::ops::Range<u8>, chunks: u32) -> Segment {
    let pack = |p: u8| SegmentPack {
        id: PackId::from_array([p; 32]),
        len: 1 << 20,
        header: [p; HEADER_LEN],
        blocks: vec![SegmentBlock {
            header: BlockHeader { class: Class::Data, table_len: 10, body_len: 20 },
            chunks: (0..chunks).map(|n| (key(u32::from(p) << 16 | n), 100)).collect(),
        }],
    };
    Segment { merges: vec![], packs: packs.map(pack).collect() }
}

/// A repository with `segments` segments of one pack of `chunks` chunks each.
fn repository(segments: u8, chunks: u32) -> (MemoryBackend, Repository, Vec<SegmentId>) {
    let backend = MemoryBackend::new();
    let options = InitOptions {
        password: None,
        compression: 3,
        parity_percent: 0,
        sizes: ChunkSizes::DEFAULT,
        related_to: None,
        now: crate::base::time::Timestamp::EPOCH,
    };
    let made = init(Arc::new(backend.clone()), Arc::new(SystemEntropy), &options).unwrap();
    let ids = (0..segments).map(|p| publish(&made, &segment(p..p + 1, chunks))).collect();
    (backend, made, ids)
}

fn publish(repository: &Repository, segment: &Segment) -> SegmentId {
    let (id, bytes) = seal_segment(repository, segment).unwrap();
    repository.backend().put_new(&ObjectName::segment(&id), &[&bytes]).unwrap();
    id
}

/// Whether the chunks of a pack of [`segment`] are where it says: all of them, or none.
fn holds(index: &Accelerator, pack: u8, chunks: u32) -> bool {
    let found = (0..chunks).filter(|n| {
        let key = key(u32::from(pack) << 16 | n);
        let at = index.find(&key).unwrap();
        at.inspect(|at| assert!(right(index, at, pack, *n))).is_some()
    });
    let found = found.count() as u32;
    assert!(found == 0 || found == chunks, "{found} of {chunks} chunks of pack {pack}");
    found > 0
}

fn right(index: &Accelerator, at: &Location, pack: u8, n: u32) -> bool {
    index.pack(at.pack).is_some_and(|facts| facts.id == PackId::from_array([pack; 32]))
        && (at.block, at.body_offset, at.body_len) == (0, 64 + 16 + 10, 20)
        && (at.offset, at.len) == (n * 100, 100)
}

#[test]
fn chunks_are_found_again_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Directory(dir.path().into());
    let (first, said) = Accelerator::open(&place, &repo(1)).unwrap();
    assert_eq!(said, None);
    first.add(&SegmentId::from_array([1; 32]), &segment(0..3, 500)).unwrap();
    let expected = first.find(&key(2 << 16 | 7)).unwrap().unwrap();
    assert_eq!((expected.offset, expected.len, expected.body_offset), (700, 100, 64 + 16 + 10));
    first.flush_chunks().unwrap();
    assert_eq!(first.find(&key(2 << 16 | 7)).unwrap(), Some(expected));
    drop(first);
    let (again, _) = Accelerator::open(&place, &repo(1)).unwrap();
    assert_eq!(again.find(&key(2 << 16 | 7)).unwrap(), Some(expected));
    assert_eq!(again.find(&key(9 << 16)).unwrap(), None);
    assert_eq!(again.chunks().unwrap(), 1500);
    assert_eq!(again.pack(expected.pack).unwrap().id, PackId::from_array([2; 32]));
    again.obey(&HashSet::from([PackId::from_array([2; 32])]));
    assert_eq!(again.find(&key(2 << 16 | 7)).unwrap(), None, "condemned counts as absent");
}

#[test]
fn a_file_of_another_repository_or_no_database_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Directory(dir.path().into());
    let (first, _) = Accelerator::open(&place, &repo(1)).unwrap();
    first.add(&SegmentId::from_array([1; 32]), &segment(0..1, 10)).unwrap();
    assert_eq!(first.chunks().unwrap(), 10);
    drop(first);
    let from = dir.path().join(repo(1).to_hex()).join("index.redb");
    let to = dir.path().join(repo(2).to_hex());
    std::fs::create_dir_all(&to).unwrap();
    std::fs::copy(&from, to.join("index.redb")).unwrap();
    let (other, _) = Accelerator::open(&place, &repo(2)).unwrap();
    assert_eq!(other.chunks().unwrap(), 0, "nothing of the other repository is left");
    drop(other);
    std::fs::write(to.join("index.redb"), b"no database at all").unwrap();
    let (anew, said) = Accelerator::open(&place, &repo(2)).unwrap();
    assert!(said.unwrap().contains("built anew"));
    assert_eq!(anew.chunks().unwrap(), 0);
}

#[test]
fn a_second_run_at_the_same_time_makes_do_with_memory() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Directory(dir.path().into());
    let (_first, _) = Accelerator::open(&place, &repo(1)).unwrap();
    let (second, said) = Accelerator::open(&place, &repo(1)).unwrap();
    assert!(said.unwrap().contains("in use"));
    assert_eq!(second.chunks().unwrap(), 0);
}

#[test]
fn records_are_believed_only_while_their_manifest_is_listed() {
    let (this, _) = Accelerator::open(&Place::Memory, &repo(1)).unwrap();
    let generation = this.begin_generation().unwrap();
    let record = DirRecord {
        generation,
        tree: Some(ChunkId::from_array([5; 32])),
        listing: [1; 16],
        children: [2; 16],
        entries: vec![[6; 16], [7; 16]],
    };
    this.put_dir(key(1), &record).unwrap();
    assert_eq!(this.dir(&key(1)).unwrap(), Some(record.clone()));
    this.flush_dirs().unwrap();
    assert_eq!(this.dir(&key(1)).unwrap(), Some(record));
    assert_eq!(this.dir(&key(2)).unwrap(), None);
    let manifest = ManifestId::from_array([9; 32]);
    assert!(this.believed(&HashSet::from([manifest])).unwrap().is_empty());
    this.committed(generation, &manifest).unwrap();
    assert_eq!(this.believed(&HashSet::from([manifest])).unwrap(), HashSet::from([generation]));
    assert!(this.believed(&HashSet::new()).unwrap().is_empty());
    assert_ne!(this.begin_generation().unwrap(), generation);
}

#[test]
fn the_filter_grows_with_the_chunks() {
    let (this, _) = Accelerator::open(&Place::Memory, &repo(1)).unwrap();
    for n in 0..4 {
        this.add(&SegmentId::from_array([n; 32]), &segment(n..n + 1, 3000)).unwrap();
    }
    for p in 0..4u32 {
        assert!((0..3000).all(|n| this.find(&key(p << 16 | n)).unwrap().is_some()));
    }
}
