//! Filling in one transaction, and segments that wait.

use super::*;
use crate::backend::faulty::{Fault, Faulty, On, Op};
use crate::store::accelerator::placing::PLACED_MAX;

fn at(dir: &tempfile::TempDir, repository: &Repository) -> Accelerator {
    let place = Place::Directory(dir.path().into());
    let (index, said) = Accelerator::open(&place, repository.id()).unwrap();
    assert_eq!(said, None);
    index
}

/// The segments that the tables name and the chunks that they hold are the same ones.
fn assert_consistent(index: &Accelerator, ids: &[SegmentId], chunks: u32) -> usize {
    let noted = tables::segments(&index.db().unwrap(), "").unwrap();
    for (pack, id) in ids.iter().enumerate() {
        assert_eq!(holds(index, pack as u8, chunks), noted.contains(id), "segment {pack}");
    }
    noted.len()
}

#[test]
fn many_segments_through_buckets_are_all_there() {
    let (backend, repository, ids) = repository(9, 400);
    let dir = tempfile::tempdir().unwrap();
    for bound in [PLACED_MAX, 300, 50] {
        let index = at(&dir, &repository);
        let report = index.sync_within(&repository, bound).unwrap();
        assert_eq!((report.added, report.damaged.len()), (9, 0));
        assert_eq!(index.chunks().unwrap(), 9 * 400);
        assert_eq!(assert_consistent(&index, &ids, 400), 9);
        assert_eq!(index.sync_within(&repository, bound).unwrap(), SyncReport::default());
        drop(index);
        let again = at(&dir, &repository);
        assert_eq!(assert_consistent(&again, &ids, 400), 9);
        drop(again);
        std::fs::remove_dir_all(dir.path().join(repository.id().to_hex())).unwrap();
    }
    let (memory, _) = Accelerator::open(&Place::Memory, repository.id()).unwrap();
    assert_eq!(memory.sync_within(&repository, 50).unwrap().added, 9, "without a directory");
    assert_eq!(assert_consistent(&memory, &ids, 400), 9);
    // A segment is merged away: what it named is forgotten, all else is filled anew.
    assert!(backend.raw_remove(&ObjectName::segment(&ids[3])));
    let report = memory.sync_within(&repository, 50).unwrap();
    assert_eq!((report.added, report.rebuilt), (8, true));
    assert!(!holds(&memory, 3, 400));
    assert_eq!((assert_consistent(&memory, &ids, 400), memory.packs().len()), (8, 8));
}

#[test]
fn later_segments_go_beside_what_is_there_and_the_filter_grows() {
    let (_, repository, mut ids) = repository(1, 2000);
    let dir = tempfile::tempdir().unwrap();
    let index = at(&dir, &repository);
    for pack in 1..6 {
        assert_eq!(index.sync_within(&repository, 700).unwrap().added, 1);
        ids.push(publish(&repository, &segment(pack..pack + 1, 2000)));
    }
    assert_eq!(index.sync(&repository).unwrap().added, 1);
    drop(index);
    assert_eq!(assert_consistent(&at(&dir, &repository), &ids, 2000), 6);
}

#[test]
fn damaged_segments_are_named_and_hinder_nothing_else() {
    let (backend, repository, ids) = repository(5, 100);
    let name = ObjectName::segment(&ids[2]);
    backend.raw_remove(&name);
    backend.raw_put(&name, b"no segment");
    let dir = tempfile::tempdir().unwrap();
    let index = at(&dir, &repository);
    for added in [4, 0] {
        let report = index.sync_within(&repository, 60).unwrap();
        assert_eq!((report.added, report.rebuilt), (added, false));
        assert_eq!(report.damaged.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&name]);
        assert_eq!(assert_consistent(&index, &ids, 100), 4);
    }
}

#[test]
fn what_the_disk_does_not_give_back_hinders_nothing_else() {
    let (backend, whole, ids) = repository(4, 100);
    let faulty = Faulty::new(backend.clone());
    let faults = faulty.faults();
    let shaky = open(Arc::new(faulty), Arc::new(SystemEntropy), || None).unwrap().repository;
    let dir = tempfile::tempdir().unwrap();
    let index = at(&dir, &whole);
    faults.fail(On::Op(Op::List), 0, Fault::Io);
    assert!(index.sync_within(&shaky, 150).is_err(), "an incomplete list says nothing");
    assert_eq!((index.chunks().unwrap(), index.packs().len()), (0, 0));
    faults.fail(On::Op(Op::Get), 2, Fault::Io);
    let report = index.sync_within(&shaky, 150).unwrap();
    assert_eq!((report.added, report.damaged.len()), (3, 1));
    assert_eq!(assert_consistent(&index, &ids, 100), 3);
    assert_eq!(index.sync(&shaky).unwrap().added, 1);
    assert_eq!(assert_consistent(&index, &ids, 100), 4);
    // So does a rebuild.
    backend.raw_remove(&ObjectName::segment(&ids[0]));
    faults.fail(On::Op(Op::Get), 1, Fault::Io);
    let report = index.sync(&shaky).unwrap();
    assert_eq!((report.added, report.damaged.len(), report.rebuilt), (2, 1, true));
    drop(index);
    assert_eq!(at(&dir, &whole).sync(&whole).unwrap().added, 1);
}

#[test]
fn segments_wait_and_are_noted_together_with_their_chunks() {
    let (_, repository, ids) = repository(7, 100);
    let dir = tempfile::tempdir().unwrap();
    let index = at(&dir, &repository);
    let add = |index: &Accelerator, pack: u8, bound| {
        index.add_within(&ids[usize::from(pack)], &segment(pack..pack + 1, 100), bound).unwrap();
        assert!(holds(index, pack, 100), "found as soon as it is added");
    };
    let noted = |index: &Accelerator| tables::segments(&index.db().unwrap(), "").unwrap().len();
    for pack in 0..4 {
        add(&index, pack, 250);
    }
    assert_eq!(noted(&index), 2, "the third went beyond the bound");
    assert_eq!(index.state.read().unwrap().waiting.rows.len(), 200);
    add(&index, 4, 99);
    assert_eq!(noted(&index), 5, "one that could never wait goes at once, behind the others");
    add(&index, 5, 250);
    drop(index);
    // The run ended without a commit: what waited is read out of the repository.
    let index = at(&dir, &repository);
    assert_eq!(assert_consistent(&index, &ids, 100), 5);
    assert_eq!(index.sync(&repository).unwrap().added, 2);
    add(&index, 6, 250);
    let generation = index.begin_generation().unwrap();
    index.committed(generation, &ManifestId::from_array([1; 32])).unwrap();
    drop(index);
    let index = at(&dir, &repository);
    assert_eq!(assert_consistent(&index, &ids, 100), 7);
    assert_eq!(index.packs().len(), 7);
}

#[test]
fn what_is_condemned_stays_so_when_packs_get_other_numbers() {
    let (backend, repository, ids) = repository(4, 10);
    let (index, _) = Accelerator::open(&Place::Memory, repository.id()).unwrap();
    index.sync(&repository).unwrap();
    index.obey(&HashSet::from([PackId::from_array([2; 32])]));
    assert!(!holds(&index, 2, 10));
    backend.raw_remove(&ObjectName::segment(&ids[0]));
    index.sync(&repository).unwrap();
    let found: Vec<bool> = (0..4).map(|pack| holds(&index, pack, 10)).collect();
    assert_eq!(found, [false, true, false, true]);
}

#[test]
fn a_filling_that_is_dropped_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_, repository, ids) = repository(2, 100);
    let index = at(&dir, &repository);
    let mut filling = Filling::begin(&index, 0, false, 10);
    filling.add(&ids[0], &segment(0..1, 100)).unwrap();
    drop(filling);
    assert_eq!((index.chunks().unwrap(), index.packs().len()), (0, 0));
    let mut filling = index.filling(0).unwrap();
    filling.add(&ids[1], &segment(1..2, 100)).unwrap();
    filling.finish().unwrap();
    assert_eq!(assert_consistent(&index, &ids, 100), 1);
}
