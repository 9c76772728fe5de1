use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::backend::memory::MemoryBackend;
use crate::backend::{Backend, ObjectName, Space};
use crate::base::id::{ChunkId, ManifestId, PackId};
use crate::base::progress::Silent;
use crate::base::time::Timestamp;
use crate::format::content::Content;
use crate::format::manifest::RecordKind;
use crate::format::pack::{ChunkKind, Class};
use crate::format::tree::{Entry, Layout, Meta, Node, Page, Xattrs};
use crate::host::clock::SimClock;
use crate::host::entropy::SystemEntropy;
use crate::store::accelerator::{Accelerator, Place};
use crate::store::cut::ChunkSizes;
use crate::store::lists::ContentBuilder;
use crate::store::reader::Reader;
use crate::store::repository::{InitOptions, Repository, init};
use crate::store::writer::{Worker, WriteError, Writer, WriterOptions};

struct Site {
    backend: MemoryBackend,
    repository: Arc<Repository>,
    manifests: Vec<FoundManifest>,
}

fn meta() -> Meta {
    Meta {
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Timestamp::EPOCH,
        btime: None,
        flags: None,
        project: None,
        link: None,
        xattrs: Xattrs::NONE,
    }
}

fn dir(name: &str, tree: ChunkId) -> Entry {
    let node = Node::Dir { tree: Some(tree), partial: false };
    Entry { name: name.into(), meta: meta(), node }
}

/// A file of `chunks` chunks.
fn file(name: &str, seed: u64, chunks: u64, worker: &mut Worker<'_>) -> Entry {
    let mut builder = ContentBuilder::default();
    let mut hasher = worker.repository().namer().content_hasher();
    let mut size = 0;
    for n in 0..chunks {
        let bytes = format!("{seed} {n} ").repeat(40).into_bytes();
        hasher.update(&bytes);
        size += bytes.len() as u64;
        let (id, _) = worker.put(Class::Data, ChunkKind::Data, &bytes).unwrap();
        let chunk = crate::format::content::ChunkRef { id, len: bytes.len() as u64 };
        let mut put = |bytes: &[u8]| -> Result<ChunkId, WriteError> {
            Ok(worker.put(Class::Tree, ChunkKind::List, bytes)?.0)
        };
        builder.push(chunk, &mut put).unwrap();
    }
    let mut put = |bytes: &[u8]| -> Result<ChunkId, WriteError> {
        Ok(worker.put(Class::Tree, ChunkKind::List, bytes)?.0)
    };
    let content: Content = builder.finish(&mut put).unwrap();
    let hash = crate::base::id::ContentHash::from_array(*hasher.finalize().as_bytes());
    let node = Node::File { size, content, hash, layout: Layout::Dense };
    Entry { name: name.into(), meta: meta(), node }
}

fn page(entries: Vec<Entry>, worker: &mut Worker<'_>) -> ChunkId {
    let bytes = Page::Leaf(entries).encode();
    worker.put(Class::Tree, ChunkKind::Tree, &bytes).unwrap().0
}

/// Two snapshots, each with a file of its own, a shared one with lists, and a deep shared chain.
fn site() -> Site {
    let backend = MemoryBackend::new();
    let options = InitOptions {
        password: None,
        compression: 3,
        parity_percent: 0,
        sizes: ChunkSizes::DEFAULT,
        related_to: None,
        now: Timestamp::EPOCH,
    };
    let entropy = Arc::new(SystemEntropy);
    let repository = Arc::new(init(Arc::new(backend.clone()), entropy, &options).unwrap());
    let mut manifests = Vec::new();
    for day in 1..=2u8 {
        let (accelerator, _) = Accelerator::open(&Place::Memory, repository.id()).unwrap();
        accelerator.sync(&repository).unwrap();
        let options = WriterOptions { level: 3, first: false, min_free: 0 };
        let clock = Arc::new(SimClock::new());
        let shared = Arc::clone(&repository);
        let writer = Writer::new(shared, Arc::new(accelerator), options, clock).unwrap();
        let mut worker = writer.worker().unwrap();
        let mut deep = page(vec![file("end", 0, 1, &mut worker)], &mut worker);
        for _ in 0..2000 {
            deep = page(vec![dir("d", deep)], &mut worker);
        }
        let entries = vec![
            dir("deep", deep),
            file("long", 7, 3000, &mut worker),
            file("own", u64::from(day) * 1000, 3, &mut worker),
        ];
        let top = page(entries, &mut worker);
        worker.finish().unwrap();
        writer.finish().unwrap();
        let mut root = Vec::new();
        dir("", top).encode(&mut root);
        manifests.push(FoundManifest {
            id: ManifestId::from_array([day; 32]),
            kind: RecordKind::Snapshot,
            root: Some(root),
            extra_roots: vec![top],
            predecessors: vec![],
        });
    }
    Site { backend, repository, manifests }
}

impl Site {
    fn objects(&self, space: Space) -> Vec<ObjectName> {
        self.backend.list(space).unwrap().into_iter().map(|(name, _)| name).collect()
    }

    /// All that is found, with the packs of which data was read.
    fn checked(&self, share: u16) -> (Vec<Damage>, DataRead) {
        let clock = SimClock::new();
        let interrupted = || false;
        let around = Around { progress: &Silent, interrupted: &interrupted, clock: &clock };
        let mut ledger = Ledger::default();
        copies(&self.repository, &mut ledger).unwrap();
        let view = index(&self.repository, None, &mut ledger, &around).unwrap();
        let data = read_data(&self.repository, &view, share, None, &mut ledger, &around).unwrap();
        let accelerator = Arc::clone(&view.accelerator);
        let reader = Reader::new(Arc::clone(&self.repository), accelerator, 1 << 20);
        reach(&reader, &self.manifests, &mut ledger, &around).unwrap();
        (ledger.into_list(), data)
    }

    fn affects(&self, days: &[u8]) -> BTreeSet<ManifestId> {
        days.iter().map(|day| ManifestId::from_array([*day; 32])).collect()
    }

    fn packs_of_day(&self, day: usize) -> Vec<PackId> {
        // Packs of the first day are those that remain named when the second segment is gone.
        let (accelerator, _) = Accelerator::open(&Place::Memory, self.repository.id()).unwrap();
        accelerator.sync(&self.repository).unwrap();
        let packs: Vec<PackId> = accelerator.packs().iter().map(|p| p.id).collect();
        let reader = Reader::new(Arc::clone(&self.repository), Arc::new(accelerator), 1 << 20);
        let top = self.manifests[day].extra_roots[0];
        let own = reader.lookup(&top, b"own").unwrap().unwrap();
        let Node::File { content, .. } = own.node else { panic!() };
        let at = reader.locate(&content.refs[0].id).unwrap();
        let tree = reader.locate(&top).unwrap();
        vec![packs[at.pack as usize], packs[tree.pack as usize]]
    }
}

#[test]
fn a_whole_repository_has_no_damage_and_all_of_it_is_read() {
    let site = site();
    let (damage, data) = site.checked(10_000);
    assert_eq!(damage, []);
    let packs = site.backend.list(Space::Packs).unwrap();
    let bytes: u64 = packs.iter().map(|(_, len)| len).sum();
    assert_eq!((data.packs, data.bytes), (packs.len() as u64, bytes));
    assert_eq!((data.packs_wanted, data.bytes_wanted), (data.packs, data.bytes));
    let (_, one) = site.checked(1);
    assert_eq!(one.packs, 1, "a small share is one pack at least");
}

#[test]
fn a_missing_pack_affects_who_reaches_it() {
    let site = site();
    for (pack, affects) in [
        (site.packs_of_day(0)[0], site.affects(&[1, 2])),
        (site.packs_of_day(1)[0], site.affects(&[2])),
        (site.packs_of_day(1)[1], site.affects(&[2])),
    ] {
        let name = ObjectName::pack(&pack);
        let bytes = site.backend.raw_get(&name).unwrap();
        site.backend.raw_remove(&name);
        let (damage, _) = site.checked(1);
        assert_eq!(damage.len(), 1, "{damage:?}");
        assert_eq!(
            (damage[0].object.as_str(), damage[0].kind),
            (&*name.to_string(), DamageKind::PackMissing)
        );
        assert_eq!(damage[0].affects, affects);
        site.backend.raw_put(&name, &bytes);
    }
}

#[test]
fn damage_that_is_found_on_the_way_is_held_against_all() {
    let site = site();
    let name = ObjectName::pack(&site.packs_of_day(0)[1]);
    let mut bytes = site.backend.raw_get(&name).unwrap();
    let table = u32::from_le_bytes([bytes[72], bytes[73], bytes[74], bytes[75]]) as usize;
    bytes[64 + 16 + table + 5] ^= 1; // in the body of the first block
    site.backend.raw_put(&name, &bytes);
    let (damage, _) = site.checked(0);
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!(damage[0].kind, DamageKind::PackDamaged);
    assert_eq!(damage[0].affects, site.affects(&[1, 2]));
}

#[test]
fn a_lost_segment_is_told_as_missing_chunks_and_then_as_packs() {
    let site = site();
    let segments = site.objects(Space::Index);
    assert_eq!(segments.len(), 2);
    for segment in &segments {
        let bytes = site.backend.raw_get(segment).unwrap();
        site.backend.raw_remove(segment);
        let (damage, _) = site.checked(0);
        assert!(!damage.is_empty());
        assert!(damage.iter().all(|d| d.kind == DamageKind::ChunkMissing), "{damage:?}");
        let clock = SimClock::new();
        let interrupted = || false;
        let around = Around { progress: &Silent, interrupted: &interrupted, clock: &clock };
        let mut ledger = Ledger::default();
        let view = index(&site.repository, None, &mut ledger, &around).unwrap();
        assert!(view.add_unindexed(&site.repository, &mut ledger, &around).unwrap() > 0);
        let accelerator = Arc::clone(&view.accelerator);
        let reader = Reader::new(Arc::clone(&site.repository), accelerator, 1 << 20);
        reach(&reader, &site.manifests, &mut ledger, &around).unwrap();
        let list = ledger.into_list();
        assert!(list.iter().all(|d| d.kind == DamageKind::PackUnindexed), "{list:?}");
        assert!(list.iter().all(|d| !d.affects.is_empty()), "{list:?}");
        site.backend.raw_put(segment, &bytes);
    }
}

#[test]
fn many_missing_chunks_are_named_up_to_a_bound_and_counted_above() {
    let mut ledger = Ledger::default();
    for n in 0..1500u64 {
        let id = ChunkId::from_array(*blake3::hash(&n.to_le_bytes()).as_bytes());
        let number = ledger.blame(ReadError::Missing(id)).unwrap();
        ledger.affects(number, ManifestId::from_array([1; 32]));
    }
    let list = ledger.into_list();
    assert_eq!(list.len(), 1001);
    let rest = list.iter().find(|d| d.object == "further chunks").unwrap();
    assert!(rest.detail.starts_with("500 further"), "{}", rest.detail);
    assert_eq!(rest.affects.len(), 1);
}

#[test]
fn a_check_ends_when_asked_and_reads_nothing_past_its_time() {
    let site = site();
    let clock = SimClock::new();
    let (calm, asked) = (|| false, || true);
    let mut ledger = Ledger::default();
    let around = Around { progress: &Silent, interrupted: &calm, clock: &clock };
    let view = index(&site.repository, None, &mut ledger, &around).unwrap();
    let until = Some(std::time::Duration::ZERO);
    let read = read_data(&site.repository, &view, 10_000, until, &mut ledger, &around).unwrap();
    assert_eq!((read.packs, read.bytes), (0, 0));
    assert!(read.packs_wanted > 0);
    let around = Around { interrupted: &asked, ..around };
    let stopped = read_data(&site.repository, &view, 10_000, None, &mut ledger, &around);
    assert!(matches!(stopped, Err(CheckError::Interrupted)));
    assert!(matches!(
        index(&site.repository, None, &mut ledger, &around),
        Err(CheckError::Interrupted)
    ));
}

#[test]
fn a_newer_object_is_no_damage_but_a_flipped_version_is() {
    let site = site();
    let name = site.objects(Space::Index)[0].clone();
    let mut bytes = site.backend.raw_get(&name).unwrap();
    bytes[8] = 9;
    site.backend.raw_put(&name, &bytes);
    let (damage, _) = site.checked(0);
    assert!(damage.iter().any(|d| d.object == name.to_string()));
    let split = bytes.len() - 32;
    let sum = blake3::hash(&bytes[..split]);
    bytes[split..].copy_from_slice(sum.as_bytes());
    site.backend.raw_remove(&name);
    let newer = crate::base::id::SegmentId::from_array(*blake3::hash(&bytes).as_bytes());
    site.backend.raw_put(&ObjectName::segment(&newer), &bytes);
    let clock = SimClock::new();
    let calm = || false;
    let around = Around { progress: &Silent, interrupted: &calm, clock: &clock };
    let found = index(&site.repository, None, &mut Ledger::default(), &around);
    assert!(matches!(found.err(), Some(CheckError::Repository(RepositoryError::Newer { .. }))));
}
