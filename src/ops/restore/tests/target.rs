//! Into a directory.

use std::os::unix::fs::{MetadataExt, symlink};

use super::*;
use crate::backend::{ObjectName, Space};

#[test]
fn everything_comes_back_as_it_was() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    hard_tree(&source).unwrap();
    let snapshot = site.snapshot(&[&source]);
    let expected = site.listing(&source);
    let target = scratch.join("target");
    let report = restore(&input(&site, &snapshot, Target::Directory(target.clone()))).unwrap();
    assert_eq!(report.problems, []);
    site.assert_same(&expected, &below(&target, &source));
    assert!(report.verified > Some(5) && report.files > 10 && report.bytes > 64 << 20);
    assert!(report.bytes_written < 1 << 20);
    // The mark is gone, and the way to the source looks as it does there.
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1);
    let way = below(&target, scratch.path());
    let (found, real) = (way.metadata().unwrap(), scratch.path().metadata().unwrap());
    assert_eq!((found.mode(), found.uid()), (real.mode(), real.uid()));
    // What is there now is no unfinished restore.
    let again = restore(&input(&site, &snapshot, Target::Directory(target)));
    assert!(matches!(again, Err(RestoreError::Refused(_))));
}

#[test]
fn a_subtree_goes_directly_into_the_directory_and_one_file_too() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    hard_tree(&source).unwrap();
    let snapshot = site.snapshot(&[&source]);
    let target = scratch.join("target");
    std::fs::create_dir(&target).unwrap();
    let mut ask = input(&site, &snapshot, Target::Directory(target.clone()));
    ask.subtree = Some(path_bytes(&source).to_vec());
    assert_eq!(restore(&ask).unwrap().problems, []);
    site.assert_same(&site.listing(&source), &target);
    ask.subtree = Some(path_bytes(&source.join("file-70000")).to_vec());
    ask.target = Target::Directory(scratch.join("one"));
    assert_eq!(restore(&ask).unwrap().files, 1);
    assert_eq!(
        std::fs::read(scratch.join("one/file-70000")).unwrap(),
        std::fs::read(source.join("file-70000")).unwrap()
    );
    ask.subtree = Some(path_bytes(&source.join("no-such")).to_vec());
    ask.target = Target::Directory(scratch.join("none"));
    assert!(matches!(restore(&ask), Err(RestoreError::Path(_))));
    assert!(!scratch.join("none").exists());
}

#[test]
fn trees_deeper_than_a_path_can_be_long() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    std::fs::create_dir(&source).unwrap();
    let name = [b'd'; 200];
    let mut dir = crate::host::fs::TargetDir::open_root(path_bytes(&source)).unwrap();
    for _ in 0..45 {
        dir.make_dir(&name, 0o750).unwrap();
        dir = dir.open_dir(&name).unwrap();
    }
    dir.create_file(b"bottom").unwrap().write_at(b"deep", 0).unwrap();
    dir.set_times_self(crate::base::time::Timestamp { secs: 7, nanos: 8 }).unwrap();
    let snapshot = site.snapshot(&[&source]);
    let target = scratch.join("target");
    let report = restore(&input(&site, &snapshot, Target::Directory(target.clone()))).unwrap();
    assert_eq!(report.problems, []);
    site.assert_same(&site.listing(&source), &below(&target, &source));
}

#[test]
fn an_interrupted_restore_goes_on_and_repairs_what_was_begun() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    hard_tree(&source).unwrap();
    for n in 0..300 {
        std::fs::write(source.join(format!("n{n}")), format!("content {n}").repeat(n)).unwrap();
    }
    let snapshot = site.snapshot(&[&source]);
    let expected = site.listing(&source);
    let target = scratch.join("target");
    let mut rounds = 0;
    for after in [1, 20, 100, 250] {
        let interrupt = Interrupt::manual();
        let stop = StopAfter { interrupt: &interrupt, left: after.into() };
        let mut ask = input(&site, &snapshot, Target::Directory(target.clone()));
        (ask.interrupt, ask.progress) = (&interrupt, &stop);
        match restore(&ask) {
            Err(RestoreError::Interrupted { .. }) => rounds += 1,
            other => panic!("{other:?}"),
        }
        assert!(target.join(".cabk-restore.json").exists());
    }
    assert_eq!(rounds, 4);
    let copy = below(&target, &source);
    // As a run that was killed leaves it: right length, wrong bytes; and a directory too much.
    let _ = std::fs::remove_file(copy.join("n299"));
    std::fs::write(copy.join("n299"), "x".repeat(299 * 11)).unwrap();
    let mut ask = input(&site, &snapshot, Target::Directory(target.clone()));
    ask.delete = true;
    let report = restore(&ask).unwrap();
    assert_eq!(report.problems, []);
    assert!(report.files_left_equal > 100, "{}", report.files_left_equal);
    site.assert_same(&expected, &copy);
}

/// Asks for the end after so many files.
pub(super) struct StopAfter<'a> {
    pub(super) interrupt: &'a Interrupt,
    pub(super) left: std::sync::atomic::AtomicI64,
}

impl Progress for StopAfter<'_> {
    fn phase(&self, _: &str, _: Option<Total>) {}
    fn advance(&self, files: u64, _: u64) {
        let files = files as i64;
        if self.left.fetch_sub(files, std::sync::atomic::Ordering::Relaxed) <= files {
            self.interrupt.trigger();
        }
    }
    fn window(&self, _: Option<crate::base::progress::OpenWindow>) {}
    fn message(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn finish(&self) {}
}

#[test]
fn other_content_and_other_restores_are_refused() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("a"), "1").unwrap();
    let first = site.snapshot(&[&source]);
    std::fs::write(source.join("a"), "2").unwrap();
    let second = site.snapshot(&[&source]);
    let target = scratch.join("target");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("mine"), "mine").unwrap();
    let refused = restore(&input(&site, &first, Target::Directory(target.clone())));
    assert!(matches!(refused, Err(RestoreError::Refused(why)) if why.contains("not empty")));
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1);
    std::fs::remove_file(target.join("mine")).unwrap();
    let interrupt = Interrupt::manual();
    interrupt.trigger();
    let mut ask = input(&site, &first, Target::Directory(target.clone()));
    ask.interrupt = &interrupt;
    assert!(matches!(restore(&ask), Err(RestoreError::Interrupted { .. })));
    let refused = restore(&input(&site, &second, Target::Directory(target.clone())));
    assert!(matches!(refused, Err(RestoreError::Refused(why)) if why.contains("unfinished")));
    assert!(restore(&input(&site, &first, Target::Directory(target))).is_ok());
    let file = restore(&input(&site, &first, Target::Directory(source.join("a"))));
    assert!(matches!(file, Err(RestoreError::Refused(_))));
}

#[test]
fn planted_links_are_not_followed() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    std::fs::create_dir_all(source.join("dir")).unwrap();
    std::fs::write(source.join("dir/file"), "from the snapshot").unwrap();
    std::fs::write(source.join("plain"), "plain").unwrap();
    let snapshot = site.snapshot(&[&source]);
    let (target, outside) = (scratch.join("target"), scratch.join("outside"));
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("file"), "untouched").unwrap();
    let interrupt = Interrupt::manual();
    let stop = StopAfter { interrupt: &interrupt, left: 1.into() };
    let mut ask = input(&site, &snapshot, Target::Directory(target.clone()));
    (ask.interrupt, ask.progress) = (&interrupt, &stop);
    assert!(restore(&ask).is_err());
    let copy = below(&target, &source);
    let _ = std::fs::remove_dir_all(copy.join("dir"));
    let _ = std::fs::remove_file(copy.join("plain"));
    symlink(&outside, copy.join("dir")).unwrap();
    symlink(outside.join("file"), copy.join("plain")).unwrap();
    assert_eq!(restore(&input(&site, &snapshot, Target::Directory(target))).unwrap().problems, []);
    assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "untouched");
    site.assert_same(&site.listing(&source), &copy);
}

#[test]
fn globs_choose_what_comes() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    std::fs::create_dir_all(source.join("a/deep/tmp")).unwrap();
    std::fs::create_dir_all(source.join("b/empty")).unwrap();
    for path in ["a/x.db", "a/deep/y.db", "a/deep/tmp/z.db", "b/other", "top.db"] {
        std::fs::write(source.join(path), path).unwrap();
    }
    let snapshot = site.snapshot(&[&source]);
    let target = scratch.join("target");
    let mut ask = input(&site, &snapshot, Target::Directory(target.clone()));
    (ask.include, ask.exclude) = (vec!["*.db".into()], vec!["tmp".into(), "top.*".into()]);
    let report = restore(&ask).unwrap();
    let copy = below(&target, &source);
    assert_eq!((report.files, report.problems), (2, vec![]));
    assert!(copy.join("a/x.db").exists() && copy.join("a/deep/y.db").exists());
    assert!(!copy.join("b").exists(), "a directory of which nothing is wanted is not made");
    assert!(!copy.join("a/deep/tmp").exists() && !copy.join("top.db").exists());
    (ask.include, ask.exclude) = (vec!["**/deep/".into()], vec![]);
    ask.target = Target::Directory(scratch.join("second"));
    assert_eq!(restore(&ask).unwrap().files, 2);
    ask.include = vec!["#".into()];
    ask.target = Target::Directory(scratch.join("third"));
    assert!(matches!(restore(&ask), Err(RestoreError::Usage(_))));
}

#[test]
fn damage_is_named_and_gives_no_wrong_bytes() {
    let scratch = Scratch::new();
    let source = scratch.join("source");
    std::fs::create_dir(&source).unwrap();
    for n in 0..40u32 {
        let bytes: Vec<u8> = (0..9000u32).map(|i| (i * (n + 3) / 7) as u8).collect();
        std::fs::write(source.join(format!("f{n:02}")), bytes).unwrap();
    }
    let site = Site::new();
    let snapshot = site.snapshot(&[&source]);
    let packs: Vec<ObjectName> =
        site.backend.objects().into_iter().filter(|o| o.space() == Space::Packs).collect();
    assert!(!packs.is_empty());
    let mut damaged = 0;
    for (n, pack) in packs.iter().enumerate() {
        let whole = site.backend.raw_get(pack).unwrap();
        for at in (70..whole.len()).step_by(whole.len() / 23 + 1) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            site.backend.raw_put(pack, &bytes);
            let target = scratch.join(&format!("t{n}-{at}"));
            // A reader of its own: what is cached is not read again.
            let reader = Reader::new(
                std::sync::Arc::clone(site.reader.repository()),
                std::sync::Arc::clone(site.reader.accelerator()),
                1 << 20,
            );
            let mut ask = input(&site, &snapshot, Target::Directory(target.clone()));
            ask.reader = &reader;
            match restore(&ask) {
                Ok(_) => {}
                Err(RestoreError::Damaged { paths, source, report, .. }) => {
                    damaged += 1;
                    assert!(paths > 0 && source.to_string().contains("pack"), "{source}");
                    assert!(!report.problems.is_empty());
                }
                Err(other) => panic!("{other}"),
            }
            for n in 0..40 {
                let name = format!("f{n:02}");
                if let Ok(found) = std::fs::read(below(&target, &source).join(&name)) {
                    assert_eq!(found, std::fs::read(source.join(&name)).unwrap(), "{name}");
                }
            }
        }
        site.backend.raw_put(pack, &whole);
    }
    assert!(damaged > 5, "{damaged}");
    site.backend.raw_remove(&packs[0]);
    let reader = Reader::new(
        std::sync::Arc::clone(site.reader.repository()),
        std::sync::Arc::clone(site.reader.accelerator()),
        1 << 20,
    );
    let mut ask = input(&site, &snapshot, Target::Directory(scratch.join("gone")));
    ask.reader = &reader;
    assert!(matches!(restore(&ask), Err(RestoreError::Damaged { .. })));
}

#[test]
fn owners_go_by_name_then_by_number_and_through_maps() {
    if !crate::host::machine::is_root() {
        skipped("owners need root");
        return;
    }
    let (mut site, scratch) = (Site::new(), Scratch::new());
    site.owners.users = vec![(5001, "connect".into()), (5002, "gone".into())];
    site.owners.groups = vec![(5001, "connect".into())];
    let source = scratch.join("source");
    std::fs::create_dir(&source).unwrap();
    for (name, uid) in [("a", 5001), ("b", 5002), ("c", 5003)] {
        std::fs::write(source.join(name), name).unwrap();
        std::os::unix::fs::chown(source.join(name), Some(uid), Some(uid)).unwrap();
    }
    let snapshot = site.snapshot(&[&source]);
    let here = MapOwners::default().user("connect", 6001).group("connect", 6002).user("web", 7);
    let mut ask = input(&site, &snapshot, Target::Directory(scratch.join("t")));
    (ask.owners, ask.numeric_ids) = (&here, false);
    let of = |target: &str, name: &str| {
        let meta = below(&scratch.join(target), &source).join(name).metadata().unwrap();
        (meta.uid(), meta.gid())
    };
    let report = restore(&ask).unwrap();
    assert_eq!((report.owners_by_number, report.problems), (1, vec![]));
    assert_eq!(
        (of("t", "a"), of("t", "b"), of("t", "c")),
        ((6001, 6002), (5002, 5002), (5003, 5003))
    );
    ask.map_user = vec![("gone".into(), "web".into()), ("5003".into(), "9".into())];
    ask.target = Target::Directory(scratch.join("m"));
    assert_eq!(restore(&ask).unwrap().owners_by_number, 0);
    assert_eq!((of("m", "b").0, of("m", "c").0), (7, 9));
    (ask.numeric_ids, ask.map_user) = (true, vec![]);
    ask.target = Target::Directory(scratch.join("n"));
    restore(&ask).unwrap();
    assert_eq!(of("n", "a"), (5001, 5001));
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_would_be() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    hard_tree(&source).unwrap();
    let snapshot = site.snapshot(&[&source]);
    let target = scratch.join("target");
    let mut ask = input(&site, &snapshot, Target::Directory(target.clone()));
    ask.dry_run = true;
    let report = restore(&ask).unwrap();
    assert!(!target.exists());
    let paths: Vec<&[u8]> = report.planned.iter().map(|p| p.path.as_slice()).collect();
    assert!(paths.contains(&path_bytes(&below(&target, &source).join("sub/empty"))));
    assert!(paths.contains(&path_bytes(&below(&target, &source).join("sub/again"))));
    assert!(report.planned.iter().all(|p| p.action == Action::Create));
    assert_eq!(report.bytes_written, 0);
}

#[test]
fn many_batches_and_long_files() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    std::fs::create_dir(&source).unwrap();
    let bytes: Vec<u8> = (0..3_000_000u64).map(|i| (i * i / 97) as u8).collect();
    std::fs::write(source.join("long"), &bytes).unwrap();
    for n in 0..50 {
        std::fs::write(source.join(format!("s{n}")), &bytes[n * 1000..n * 1000 + 12_000]).unwrap();
    }
    let snapshot = site.snapshot(&[&source]);
    let target = scratch.join("target");
    super::super::batch::tests_limit(7, || {
        let mut ask = input(&site, &snapshot, Target::Directory(target.clone()));
        ask.threads = 1;
        assert_eq!(restore(&ask).unwrap().problems, []);
    });
    site.assert_same(&site.listing(&source), &below(&target, &source));
}
