use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::backend::faulty::{Fault, Faults, Faulty, On, Op};
use crate::backend::memory::MemoryBackend;
use crate::backend::{Backend, BackendError, Hold, LocalFacts, ObjectName, Space};
use crate::base::id::LeaseId;
use crate::base::time::Timestamp;
use crate::host::clock::SimClock;
use crate::host::entropy::SystemEntropy;
use crate::store::accelerator::Place;
use crate::store::cut::ChunkSizes;
use crate::store::reader::Reader;
use crate::store::repository::{InitOptions, init, open};

const OPTIONS: WriterOptions = WriterOptions { level: 3, first: false, min_free: 0 };

fn made(backend: Arc<dyn Backend>) -> Arc<Repository> {
    let options = InitOptions {
        password: None,
        compression: 3,
        parity_percent: 0,
        sizes: ChunkSizes::DEFAULT,
        related_to: None,
        now: Timestamp::EPOCH,
    };
    Arc::new(init(backend, Arc::new(SystemEntropy), &options).unwrap())
}

/// An accelerator that has never seen the repository, made equal to its segments.
fn synced(repository: &Repository) -> Arc<Accelerator> {
    let (accelerator, _) = Accelerator::open(&Place::Memory, repository.id()).unwrap();
    assert_eq!(accelerator.sync(repository).unwrap().damaged, []);
    Arc::new(accelerator)
}

fn writer(repository: &Arc<Repository>, accelerator: &Arc<Accelerator>) -> Writer {
    let (repository, accelerator) = (Arc::clone(repository), Arc::clone(accelerator));
    Writer::new(repository, accelerator, OPTIONS, Arc::new(SimClock::new())).unwrap()
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Chunk `n` of a run: class, kind, bytes; every third compresses.
fn chunk(n: u64) -> (Class, ChunkKind, Vec<u8>) {
    let class = Class::ALL[n as usize % 4];
    let kind = if class == Class::Tree { ChunkKind::Tree } else { ChunkKind::Data };
    let len = 1 + (n as usize * 7919) % 40_000;
    let bytes = if n.is_multiple_of(3) { noise(n, 16).repeat(len / 16 + 1) } else { noise(n, len) };
    (class, kind, bytes)
}

/// Writes chunks by several workers; the ids, and how many were new.
fn write(
    writer: &Writer,
    chunks: std::ops::Range<u64>,
    workers: u64,
) -> Result<(HashMap<u64, ChunkId>, u64), WriteError> {
    let shares = std::thread::scope(|scope| {
        let run = |share: u64| {
            let chunks = chunks.clone();
            move || -> Result<(HashMap<u64, ChunkId>, u64), WriteError> {
                let mut worker = writer.worker()?;
                let (mut ids, mut fresh) = (HashMap::new(), 0);
                for n in chunks.filter(|n| n % workers == share) {
                    let (class, kind, bytes) = chunk(n);
                    let (id, new) = worker.put(class, kind, &bytes)?;
                    fresh += u64::from(new);
                    ids.insert(n, id);
                }
                worker.finish()?;
                Ok((ids, fresh))
            }
        };
        let threads: Vec<_> = (0..workers).map(|share| scope.spawn(run(share))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>()
    });
    let mut all = (HashMap::new(), 0);
    for share in shares {
        let (ids, fresh) = share?;
        all.0.extend(ids);
        all.1 += fresh;
    }
    Ok(all)
}

fn assert_readable(repository: &Arc<Repository>, ids: &HashMap<u64, ChunkId>) {
    let reader = Reader::new(Arc::clone(repository), synced(repository), 1 << 20);
    for (n, id) in ids {
        let (_, kind, bytes) = chunk(*n);
        assert!(reader.chunk(kind, id).unwrap() == bytes, "chunk {n}");
    }
}

#[test]
fn chunks_of_all_classes_come_back_from_several_workers() {
    let backend = MemoryBackend::new();
    let repository = made(Arc::new(backend.clone()));
    let accelerator = synced(&repository);
    let writer = writer(&repository, &accelerator);
    let (ids, fresh) = write(&writer, 0..400, 3).unwrap();
    let stats = writer.finish().unwrap();
    assert_eq!((ids.len(), fresh, stats.chunks_new), (400, 400, 400));
    assert_eq!(stats.packs, 4, "one pack for each class");
    let lens = |space| backend.list(space).unwrap().iter().map(|(_, len)| len).sum::<u64>();
    assert_eq!(stats.bytes_stored, lens(Space::Packs) + lens(Space::Index));
    assert_readable(&repository, &ids);
    let missing = repository.namer().name(ChunkKind::Data, b"never written");
    let reader = Reader::new(Arc::clone(&repository), accelerator, 0);
    assert!(reader.chunk(ChunkKind::Data, &missing).is_err());
}

#[test]
fn a_block_never_mixes_classes() {
    let backend = MemoryBackend::new();
    let repository = made(Arc::new(backend.clone()));
    let accelerator = synced(&repository);
    let writer = writer(&repository, &accelerator);
    let (ids, _) = write(&writer, 0..40, 1).unwrap();
    writer.finish().unwrap();
    let mut class_of_pack = HashMap::new();
    for (n, id) in &ids {
        let pack = accelerator.find(&chunk_key(id)).unwrap().unwrap().pack;
        let class = chunk(*n).0;
        assert_eq!(*class_of_pack.entry(pack).or_insert(class), class);
    }
    assert_eq!(class_of_pack.len(), 4);
}

#[test]
fn what_is_there_is_not_written_again() {
    let backend = Arc::new(Faulty::new(MemoryBackend::new()));
    let faults = backend.faults();
    let repository = made(Arc::clone(&backend) as Arc<dyn Backend>);
    let accelerator = synced(&repository);
    let first = writer(&repository, &accelerator);
    let (ids, _) = write(&first, 0..60, 2).unwrap();
    let (same, fresh) = write(&first, 0..60, 3).unwrap();
    assert_eq!((same, fresh), (ids.clone(), 0), "within a run");
    assert!(ids.values().all(|id| first.has(id).unwrap()));
    first.finish().unwrap();
    // The budget of an unchanged run: nothing is put, and one listing brings the index up to date.
    for accelerator in [Arc::clone(&accelerator), synced(&repository)] {
        faults.clear();
        accelerator.sync(&repository).unwrap();
        let second = writer(&repository, &accelerator);
        let (same, fresh) = write(&second, 0..60, 2).unwrap();
        let stats = second.finish().unwrap();
        assert_eq!((same, fresh), (ids.clone(), 0), "across runs");
        assert_eq!(stats, WriteStats::default());
        assert_eq!((faults.count(On::Change), faults.count(On::Op(Op::Get))), (0, 0));
        assert_eq!(faults.count(On::Op(Op::List)), 1);
    }
}

#[test]
fn what_was_published_on_the_way_survives_a_killed_run() {
    let backend = MemoryBackend::new();
    let repository = made(Arc::new(backend.clone()));
    let accelerator = synced(&repository);
    let killed = writer(&repository, &accelerator);
    let (ids, _) = write(&killed, 0..50, 2).unwrap();
    assert!(backend.list(Space::Index).unwrap().is_empty());
    killed.publish().unwrap();
    let (_, fresh) = write(&killed, 50..80, 2).unwrap();
    assert_eq!(fresh, 30);
    drop(killed);
    assert_readable(&repository, &ids);
    let next = writer(&repository, &synced(&repository));
    let (_, fresh) = write(&next, 0..80, 2).unwrap();
    assert_eq!(fresh, 30, "only what was not published is written again");
    next.finish().unwrap();
}

#[test]
fn full_packs_are_put_on_the_way_and_segments_by_time() {
    let backend = MemoryBackend::new();
    let repository = made(Arc::new(backend.clone()));
    let accelerator = synced(&repository);
    let clock = Arc::new(SimClock::new());
    let (shared, index) = (Arc::clone(&repository), Arc::clone(&accelerator));
    let writer = Writer::new(shared, index, OPTIONS, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let mut worker = writer.worker().unwrap();
    let mut fill = |blocks: std::ops::Range<u64>| {
        for n in blocks {
            worker.put(Class::Data, ChunkKind::Data, &noise(n, 1 << 20)).unwrap();
        }
    };
    // A block is closed by the chunk behind it, a pack by its 32nd block; one thread puts it.
    let wait_for = |space, count| {
        while backend.list(space).unwrap().len() < count {
            std::thread::yield_now();
        }
    };
    fill(0..33);
    wait_for(Space::Packs, 1);
    clock.advance(std::time::Duration::from_secs(61));
    fill(33..65);
    // The clock may have moved before or after the first pack was seen to be due.
    wait_for(Space::Packs, 2);
    wait_for(Space::Index, 1);
    worker.finish().unwrap();
    assert_eq!(writer.finish().unwrap().packs, 3);
    let packs = backend.list(Space::Packs).unwrap();
    assert_eq!(backend.list(Space::Index).unwrap().len(), 2, "by time, and the rest");
    let target = PACK_TARGET..PACK_TARGET + (2 << 20);
    assert_eq!(packs.iter().filter(|(_, len)| target.contains(len)).count(), 2);
}

#[test]
fn a_failure_at_any_effect_is_an_error_and_loses_nothing_that_was_published() {
    let mut nth = 1;
    let mut done = 0;
    while done < 3 {
        for fault in [Fault::Io, Fault::Full, Fault::DoneButReported, Fault::Abort] {
            done += usize::from(failing_at(nth, fault));
        }
        nth += 1;
        assert!(nth < 40);
    }
    assert!(nth > 6, "packs and segments of two rounds");
}

/// Writes two rounds with the `nth` change of the storage failing; whether it came to that no more.
fn failing_at(nth: u64, fault: Fault) -> bool {
    let memory = MemoryBackend::new();
    let repository = made(Arc::new(memory.clone()));
    let faulty = Faulty::new(memory.clone());
    let faults: Faults = faulty.faults();
    let shaky = open(Arc::new(faulty), Arc::new(SystemEntropy), || None).unwrap().repository;
    let shaky = Arc::new(shaky);
    let accelerator = synced(&shaky);
    faults.fail(On::Change, nth, fault);
    let writer = writer(&shaky, &accelerator);
    let mut published = HashMap::new();
    let mut run = || -> Result<(), WriteError> {
        for round in [0..30, 30..60] {
            let (ids, _) = write(&writer, round, 2)?;
            writer.publish()?;
            published.extend(ids);
        }
        Ok(())
    };
    let first = run();
    let last = writer.finish();
    assert_eq!(first.is_ok(), last.is_ok(), "an error stays one until the end: {fault:?} {nth}");
    assert_readable(&repository, &published);
    let index = synced(&repository);
    let next = self::writer(&repository, &index);
    let (ids, _) = write(&next, 0..60, 2).unwrap();
    next.finish().unwrap();
    assert_readable(&repository, &ids);
    first.is_ok()
}

#[test]
fn a_worker_that_is_dropped_with_chunks_fails_the_run() {
    let repository = made(Arc::new(MemoryBackend::new()));
    let writer = writer(&repository, &synced(&repository));
    let mut worker = writer.worker().unwrap();
    worker.put(Class::Data, ChunkKind::Data, b"lost").unwrap();
    drop(worker);
    let mut other = writer.worker().unwrap();
    let put = other.put(Class::Data, ChunkKind::Data, b"more");
    assert!(matches!(put, Err(WriteError::GivenUp)));
}

#[test]
fn a_chunk_above_the_bound_is_refused() {
    let repository = made(Arc::new(MemoryBackend::new()));
    let writer = writer(&repository, &synced(&repository));
    let mut worker = writer.worker().unwrap();
    let long = vec![0; limits::CHUNK_MAX + 1];
    let put = worker.put(Class::Data, ChunkKind::Data, &long);
    assert!(matches!(put, Err(WriteError::TooLong(_))));
}

/// A storage on this machine with a given amount of room, which packs use up.
struct Small {
    inner: MemoryBackend,
    room: Room,
}

struct Room {
    free: AtomicU64,
}

#[deny(clippy::missing_trait_methods)]
impl Backend for Small {
    fn put_new(&self, object: &ObjectName, parts: &[&[u8]]) -> Result<(), BackendError> {
        let len = parts.iter().map(|p| p.len() as u64).sum();
        self.room.free.fetch_sub(len, Ordering::Relaxed);
        self.inner.put_new(object, parts)
    }
    fn get(&self, object: &ObjectName, max: u64) -> Result<Vec<u8>, BackendError> {
        self.inner.get(object, max)
    }
    fn get_range(
        &self,
        object: &ObjectName,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, BackendError> {
        self.inner.get_range(object, offset, len)
    }
    fn len(&self, object: &ObjectName) -> Result<u64, BackendError> {
        self.inner.len(object)
    }
    fn list(&self, space: Space) -> Result<Vec<(ObjectName, u64)>, BackendError> {
        self.inner.list(space)
    }
    fn delete(&self, object: &ObjectName) -> Result<(), BackendError> {
        self.inner.delete(object)
    }
    fn local(&self) -> Option<&dyn LocalFacts> {
        Some(&self.room)
    }
}

struct Nobody;
impl Hold for Nobody {}

impl LocalFacts for Room {
    fn free_bytes(&self) -> Result<u64, BackendError> {
        Ok(self.free.load(Ordering::Relaxed))
    }
    fn hold(&self, _: &LeaseId) -> Result<Box<dyn Hold>, BackendError> {
        Ok(Box::new(Nobody))
    }
    fn is_held(&self, _: &LeaseId) -> Result<bool, BackendError> {
        Ok(false)
    }
    fn forget_hold(&self, _: &LeaseId) -> Result<(), BackendError> {
        Ok(())
    }
    fn sweep(&self) -> Result<u64, BackendError> {
        Ok(0)
    }
    fn root(&self) -> &Path {
        Path::new("/nowhere")
    }
}

#[test]
fn min_free_is_held_at_the_start_and_on_the_way() {
    let memory = MemoryBackend::new();
    let room = Room { free: AtomicU64::new(1 << 20) };
    let repository = made(Arc::new(Small { inner: memory.clone(), room }));
    let accelerator = synced(&repository);
    let start = |min_free| {
        let options = WriterOptions { min_free, ..OPTIONS };
        let (shared, index) = (Arc::clone(&repository), Arc::clone(&accelerator));
        Writer::new(shared, index, options, Arc::new(SimClock::new()))
    };
    assert!(matches!(start(2 << 20), Err(WriteError::MinFree { .. })));
    let writer = start(512 << 10).unwrap();
    let mut worker = writer.worker().unwrap();
    let (fits, _) = worker.put(Class::Data, ChunkKind::Data, &noise(1, 100 << 10)).unwrap();
    worker.finish().unwrap();
    writer.publish().unwrap();
    let mut worker = writer.worker().unwrap();
    worker.put(Class::Data, ChunkKind::Data, &noise(2, 600 << 10)).unwrap();
    worker.finish().unwrap();
    assert!(matches!(writer.finish(), Err(WriteError::MinFree { .. })));
    let free = repository.backend().local().unwrap().free_bytes().unwrap();
    assert!(free >= 512 << 10, "{free}");
    assert_eq!(memory.list(Space::Packs).unwrap().len(), 1, "what was published is kept");
    assert!(synced(&repository).find(&chunk_key(&fits)).unwrap().is_some());
}
