//! A file in which somebody, or a disk, wrote.

use std::os::unix::fs::FileExt;

use super::*;

const SEGMENTS: u8 = 12;
const CHUNKS: u32 = 300;

struct Kept {
    _dir: tempfile::TempDir,
    place: Place,
    file: PathBuf,
    repository: Repository,
    bytes: Vec<u8>,
    record: DirRecord,
    manifest: ManifestId,
}

/// An index with chunks and directories, closed.
fn kept() -> Kept {
    let (_, repository, _) = repository(SEGMENTS, CHUNKS);
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Directory(dir.path().into());
    let (index, _) = Accelerator::open(&place, repository.id()).unwrap();
    index.sync(&repository).unwrap();
    let generation = index.begin_generation().unwrap();
    let (tree, entries) = (Some(ChunkId::from_array([5; 32])), vec![[7; 16]; 9]);
    let record = DirRecord { generation, tree, listing: [1; 16], children: [2; 16], entries };
    (0..300).for_each(|n| index.put_dir(key(n), &record).unwrap());
    let manifest = ManifestId::from_array([9; 32]);
    index.committed(generation, &manifest).unwrap();
    drop(index);
    let file = dir.path().join(repository.id().to_hex()).join("index.redb");
    let bytes = std::fs::read(&file).unwrap();
    Kept { _dir: dir, place, file, repository, bytes, record, manifest }
}

impl Kept {
    /// Puts the file back and overwrites some of it.
    fn spoil(&self, seed: u64) {
        std::fs::write(&self.file, &self.bytes).unwrap();
        let mut random = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        let mut number = || {
            let mut bytes = [0; 8];
            random.fill(&mut bytes);
            u64::from_le_bytes(bytes) as usize
        };
        let file = std::fs::OpenOptions::new().write(true).open(&self.file).unwrap();
        for _ in 0..1 + number() % 4 {
            let len = [1, 8, 200, 4096][number() % 4];
            let at = number() % (self.bytes.len() - len);
            let noise: Vec<u8> = (0..len).map(|_| number() as u8).collect();
            file.write_all_at(&noise, at as u64).unwrap();
        }
    }

    fn open(&self) -> (Accelerator, Option<String>) {
        Accelerator::open(&self.place, self.repository.id()).unwrap()
    }

    fn assert_whole(&self, index: &Accelerator, seed: u64) {
        for pack in 0..SEGMENTS {
            assert!(holds(index, pack, CHUNKS), "seed {seed}, pack {pack}");
        }
        assert_eq!(index.chunks().unwrap(), u64::from(SEGMENTS) * u64::from(CHUNKS));
    }

    /// Asks for everything; whether damage was met. What is answered is right.
    fn ask(&self, index: &Accelerator, seed: u64) -> bool {
        let mut damaged = false;
        let mut count = |error: AcceleratorError| match error {
            AcceleratorError::Damaged { .. } => damaged = true,
            other => panic!("seed {seed}: {other}"),
        };
        for pack in 0..SEGMENTS {
            for n in 0..CHUNKS {
                match index.find(&key(u32::from(pack) << 16 | n)) {
                    // A chunk that is not found is stored again, or missed aloud.
                    Ok(None) => {}
                    Ok(Some(at)) => assert!(right(index, &at, pack, n), "seed {seed}: {at:?}"),
                    Err(error) => count(error),
                }
            }
        }
        for n in 0..300 {
            match index.dir(&key(n)) {
                Ok(found) => assert!(found.is_none_or(|r| r == self.record), "seed {seed}"),
                Err(error) => count(error),
            }
        }
        match index.believed(&HashSet::from([self.manifest])) {
            Ok(all) => assert!(all.iter().all(|g| *g == self.record.generation), "seed {seed}"),
            Err(error) => count(error),
        }
        match index.add(&SegmentId::from_array([77; 32]), &segment(77..78, 500)) {
            Ok(()) => {}
            Err(error) => count(error),
        }
        match index.flush_chunks().and_then(|()| index.totals()) {
            Ok(_) => {}
            Err(error) => count(error),
        }
        damaged
    }
}

#[test]
fn a_file_somebody_wrote_in_is_noticed_when_it_is_opened() {
    let kept = kept();
    let mut noticed = 0;
    for seed in 0..60 {
        kept.spoil(seed);
        let (index, said) = kept.open();
        noticed += u32::from(said.is_some());
        let report = index.sync(&kept.repository).unwrap();
        assert!(report.damaged.is_empty() && !report.rebuilt, "seed {seed}: {report:?}");
        kept.assert_whole(&index, seed);
        assert!(!kept.ask(&index, seed), "seed {seed}");
    }
    assert!(noticed > 20, "only {noticed} of 60 were noticed");
}

#[test]
fn damage_below_the_file_system_is_an_error_or_a_rebuild_but_never_wrong() {
    let kept = kept();
    let (mut met, mut early) = (0, 0);
    for seed in 0..120 {
        kept.spoil(seed);
        // As though nobody had touched the file.
        stamp::put(&kept.file).unwrap();
        let (index, said) = kept.open();
        early += u32::from(said.is_some());
        if seed % 2 == 0 {
            early += u32::from(index.sync(&kept.repository).unwrap().rebuilt);
        }
        if kept.ask(&index, seed) {
            met += 1;
            // It says so again at once, and the next run has a new one.
            assert!(matches!(index.find(&key(1)), Err(AcceleratorError::Damaged { .. })));
            assert!(!kept.file.exists(), "seed {seed}");
            let report = index.sync(&kept.repository).unwrap();
            assert!(report.rebuilt && report.added == usize::from(SEGMENTS), "seed {seed}");
            kept.assert_whole(&index, seed);
        }
    }
    assert!(met > 10 && early > 10, "met {met} times by lookups, {early} times before");
}

#[test]
fn a_killed_run_has_no_stamp_and_a_clean_one_has() {
    let kept = kept();
    let stamp = kept.file.with_extension("stamp");
    assert!(stamp.exists() && stamp::holds(&kept.file));
    let (index, said) = kept.open();
    assert_eq!(said, None);
    assert!(!stamp.exists(), "for as long as it is open");
    std::mem::forget(index);
    assert!(!stamp::holds(&kept.file));
}

#[test]
fn an_index_that_was_given_up_says_so_until_it_is_synced() {
    let kept = kept();
    let (index, _) = kept.open();
    let given: Result<(), _> = index.guarded(|| panic!("a page that is none"));
    let said = given.unwrap_err().to_string();
    assert!(said.contains("a page that is none") && said.contains("removed"), "{said}");
    assert!(!kept.file.exists());
    assert!(index.find(&key(1)).is_err() && index.chunks().is_err() && index.dir(&key(1)).is_err());
    assert!(index.begin_generation().is_err() && index.totals().is_err());
    assert_eq!(index.sync(&kept.repository).unwrap().added, usize::from(SEGMENTS));
    kept.assert_whole(&index, 0);
}
