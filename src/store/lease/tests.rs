use std::sync::Arc;

use super::*;
use crate::backend::Backend;
use crate::backend::local::LocalBackend;
use crate::backend::memory::MemoryBackend;
use crate::format::pack::{ChunkKind, Class};
use crate::format::segment::chunk_key;
use crate::host::clock::SimClock;
use crate::host::entropy::SystemEntropy;
use crate::store::accelerator::{Accelerator, Place};
use crate::store::cut::ChunkSizes;
use crate::store::repository::{InitOptions, init};
use crate::store::writer::{Writer, WriterOptions};

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

fn holder(host: &str) -> Holder {
    Holder { host: host.into(), boot_id: "boot".into(), pid: 1, start_ticks: 1 }
}

fn take<'r>(repository: &'r Repository, host: &str) -> Lease<'r> {
    Lease::take(repository, holder(host), "snapshot", vec![], Timestamp::EPOCH).unwrap()
}

fn manifest() -> ManifestId {
    ManifestId::from_array([9; 32])
}

fn leases(repository: &Repository) -> Vec<String> {
    let listed = repository.backend().list(Space::Leases).unwrap();
    listed.iter().map(|(name, _)| name.name().to_owned()).collect()
}

fn condemn(repository: &Repository, number: u64, packs: Vec<PackId>) {
    let body = CondemnedBody { number, packs };
    let bytes = repository.seal_control(ObjectKind::Condemned, &body).unwrap();
    repository.backend().put_new(&ObjectName::condemned(number), &[&bytes]).unwrap();
}

#[test]
fn a_lease_ends_with_its_roots_and_is_cleared_behind_the_manifest() {
    let repository = made(Arc::new(MemoryBackend::new()));
    let lease = take(&repository, "here");
    let id = *lease.id();
    assert_eq!(leases(&repository), [id.to_hex()]);
    let root = ChunkId::from_array([4; 32]);
    let ended = lease.end(manifest(), vec![root]).unwrap();
    assert_eq!(ended.manifest(), &manifest());
    let name = ObjectName::lease_end(&id);
    let end: LeaseEndBody = repository.get_control(&name, ObjectKind::LeaseEnd).unwrap();
    assert_eq!((end.by, end.manifest, end.roots), (EndedBy::Holder, Some(manifest()), vec![root]));
    ended.clear().unwrap();
    assert!(leases(&repository).is_empty());
}

#[test]
fn a_released_lease_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let local = LocalBackend::create(&dir.path().join("r")).unwrap();
    let repository = made(Arc::new(local));
    take(&repository, "here").release().unwrap();
    assert!(leases(&repository).is_empty());
}

#[test]
fn whose_lease_was_broken_commits_nothing() {
    let repository = made(Arc::new(MemoryBackend::new()));
    let lease = take(&repository, "here");
    let id = *lease.id();
    let by = EndedBy::Breaker;
    let body = LeaseEndBody { id, by, manifest: None, roots: vec![] };
    let bytes = repository.seal_control(ObjectKind::LeaseEnd, &body).unwrap();
    repository.backend().put_new(&ObjectName::lease_end(&id), &[&bytes]).unwrap();
    assert!(
        matches!(lease.end(manifest(), vec![]), Err(LeaseError::Broken(broken)) if broken == id)
    );
}

#[test]
fn the_dead_are_known_on_their_own_machine_only() {
    let dir = tempfile::tempdir().unwrap();
    let local = LocalBackend::create(&dir.path().join("r")).unwrap();
    let repository = made(Arc::new(local));
    let alive = take(&repository, "here");
    let gone = *take(&repository, "here").id();
    let elsewhere = *take(&repository, "elsewhere").id();
    let found = list(&repository, "here").unwrap().found;
    assert_eq!(found.len(), 3);
    let dead: Vec<LeaseId> = found.iter().filter(|f| f.dead).map(|f| f.body.id).collect();
    assert_eq!(dead, [gone]);
    break_dead(&repository, &gone).unwrap();
    let mut left = [alive.id().to_hex(), elsewhere.to_hex()];
    left.sort();
    assert_eq!(leases(&repository), left);
    drop(alive.end(manifest(), vec![]).unwrap());
}

#[test]
fn breaking_what_its_holder_ended_clears_both() {
    let repository = made(Arc::new(MemoryBackend::new()));
    let lease = take(&repository, "here");
    let id = *lease.id();
    drop(lease.end(manifest(), vec![]).unwrap());
    assert_eq!(leases(&repository).len(), 2);
    break_dead(&repository, &id).unwrap();
    assert!(leases(&repository).is_empty());
}

#[test]
fn an_end_without_its_lease_is_cleared_and_no_other() {
    let repository = made(Arc::new(MemoryBackend::new()));
    let alone = take(&repository, "here");
    let id = *alone.id();
    drop(alone.end(manifest(), vec![]).unwrap());
    // Killed between the two deletions.
    repository.backend().delete(&ObjectName::lease(&id)).unwrap();
    let ended = take(&repository, "here").end(manifest(), vec![]).unwrap();
    let open = take(&repository, "elsewhere");
    assert_eq!(leases(&repository).len(), 4);
    assert_eq!(sweep_ends(&repository).unwrap(), 1);
    assert_eq!(leases(&repository).len(), 3);
    ended.clear().unwrap();
    open.release().unwrap();
    assert!(leases(&repository).is_empty());
}

#[test]
fn a_lease_names_the_newest_generation_and_knows_all_condemned_packs() {
    let repository = made(Arc::new(MemoryBackend::new()));
    let pack = |n| PackId::from_array([n; 32]);
    condemn(&repository, 1, vec![pack(1)]);
    condemn(&repository, 3, vec![pack(2), pack(3)]);
    let lease = take(&repository, "here");
    assert_eq!(lease.condemned(), &HashSet::from([pack(1), pack(2), pack(3)]));
    let name = ObjectName::lease(lease.id());
    let body: LeaseBody = repository.get_control(&name, ObjectKind::Lease).unwrap();
    assert_eq!((body.obeys, body.operation.as_str()), (3, "snapshot"));
    lease.release().unwrap();
}

#[test]
fn what_cannot_be_read_cannot_be_obeyed() {
    let memory = MemoryBackend::new();
    let repository = made(Arc::new(memory.clone()));
    condemn(&repository, 1, vec![]);
    let mut bytes = memory.raw_get(&ObjectName::condemned(1)).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    memory.raw_put(&ObjectName::condemned(1), &bytes);
    let taken = Lease::take(&repository, holder("here"), "x", vec![], Timestamp::EPOCH);
    assert!(matches!(taken, Err(LeaseError::Repository(RepositoryError::Damaged { .. }))));
}

#[test]
fn chunks_of_a_condemned_pack_are_written_again() {
    let repository = made(Arc::new(MemoryBackend::new()));
    let (accelerator, _) = Accelerator::open(&Place::Memory, repository.id()).unwrap();
    let accelerator = Arc::new(accelerator);
    let run = || {
        let lease = take(&repository, "here");
        accelerator.sync(&repository).unwrap();
        accelerator.obey(lease.condemned());
        let options = WriterOptions { level: 3, first: false, min_free: 0 };
        let (shared, index) = (Arc::clone(&repository), Arc::clone(&accelerator));
        let writer = Writer::new(shared, index, options, Arc::new(SimClock::new())).unwrap();
        let mut worker = writer.worker().unwrap();
        let (id, new) = worker.put(Class::Data, ChunkKind::Data, b"kept").unwrap();
        worker.finish().unwrap();
        writer.finish().unwrap();
        lease.release().unwrap();
        let at = accelerator.find(&chunk_key(&id)).unwrap().unwrap();
        (new, accelerator.pack(at.pack).unwrap().id)
    };
    let (new, first) = run();
    assert!(new);
    assert_eq!(run(), (false, first));
    condemn(&repository, 1, vec![first]);
    let (new, second) = run();
    assert!(new && second != first, "the chunk lies in a pack that stays");
    assert_eq!(run(), (false, second));
}

#[test]
fn a_holder_that_was_broken_and_cleared_away_while_it_slept_commits_nothing() {
    let repository = made(Arc::new(MemoryBackend::new()));
    let lease = take(&repository, "asleep");
    break_dead(&repository, lease.id()).unwrap();
    assert_eq!(leases(&repository), [""; 0]);
    assert!(matches!(lease.end(manifest(), vec![]), Err(LeaseError::Broken(_))));
    assert_eq!(leases(&repository), [""; 0], "no end record of it counts");
}

#[test]
fn an_end_record_without_its_lease_is_swept() {
    let repository = made(Arc::new(MemoryBackend::new()));
    let (left, lives) = (take(&repository, "here"), take(&repository, "here"));
    let (left_id, lives_id) = (*left.id(), *lives.id());
    let _left = left.end(manifest(), vec![]).unwrap();
    let _lives = lives.end(manifest(), vec![]).unwrap();
    repository.backend().delete(&ObjectName::lease(&left_id)).unwrap();
    assert_eq!(sweep_ends(&repository).unwrap(), 1);
    let name = lives_id.to_hex();
    assert_eq!(leases(&repository), [name.clone(), format!("{name}.end")]);
}

#[test]
fn a_lease_whose_generations_cannot_be_read_is_given_up() {
    let repository = made(Arc::new(MemoryBackend::new()));
    repository.backend().put_new(&ObjectName::condemned(1), &[b"nothing of ours"]).unwrap();
    let taken = Lease::take(&repository, holder("h"), "snapshot", vec![], Timestamp::EPOCH);
    assert!(taken.is_err());
    assert_eq!(leases(&repository), [""; 0]);
}

#[test]
fn a_lease_that_cannot_be_read_hides_no_other_and_can_be_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let repository = made(Arc::new(LocalBackend::create(&dir.path().join("r")).unwrap()));
    let alive = take(&repository, "here");
    let torn = LeaseId::from_array([3; 16]);
    repository.backend().put_new(&ObjectName::lease(&torn), &[b"torn"]).unwrap();
    let leases_found = list(&repository, "here").unwrap();
    assert_eq!(leases_found.found.len(), 1);
    assert!(matches!(&leases_found.unreadable[..], [(id, false, _)] if *id == torn));
    break_dead(&repository, &torn).unwrap();
    assert_eq!(leases(&repository), [alive.id().to_hex()]);
    alive.release().unwrap();
}
