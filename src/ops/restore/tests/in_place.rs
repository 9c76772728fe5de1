//! In place.

use super::*;
use crate::format::manifest::ManifestBody;

fn plain_tree(root: &Path) {
    std::fs::create_dir_all(root.join("apps/one")).unwrap();
    for (name, text) in [("apps/one/app.py", "print(1)"), ("apps/two", "2"), ("config", "a=1")] {
        std::fs::write(root.join(name), text).unwrap();
    }
}

#[test]
fn sources_become_what_the_snapshot_holds() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    hard_tree(&source).unwrap();
    plain_tree(&source);
    let snapshot = site.snapshot(&[&source]);
    let expected = site.listing(&source);
    let equal = restore(&input(&site, &snapshot, Target::InPlace)).unwrap();
    assert_eq!((equal.bytes_written, equal.removed, equal.problems), (0, 0, vec![]));
    site.assert_same(&expected, &source);

    std::fs::write(scratch.join("beside"), "not of the source").unwrap();
    std::fs::write(source.join("config"), "a=2").unwrap();
    std::fs::remove_file(source.join("file-1")).unwrap();
    std::fs::create_dir(source.join("file-1")).unwrap();
    std::fs::write(source.join("file-1/in"), "x").unwrap();
    std::fs::remove_dir_all(source.join("apps")).unwrap();
    std::fs::write(source.join("apps"), "a file now").unwrap();
    std::fs::create_dir_all(source.join("extra/deep")).unwrap();
    std::fs::write(source.join("extra/deep/er"), "x").unwrap();
    std::fs::hard_link(source.join("file-70000"), source.join("sub/copy")).unwrap();
    std::fs::remove_file(source.join("dangling")).unwrap();
    std::fs::remove_file(source.join("sub/again")).unwrap();
    std::fs::write(source.join("sub/again"), "no link any more").unwrap();
    let mut ask = input(&site, &snapshot, Target::InPlace);
    ask.dry_run = true;
    let planned = restore(&ask).unwrap().planned;
    let of = |action, name: &str| {
        let path = path_bytes(&source.join(name)).to_vec();
        assert!(
            planned.iter().any(|p| p.action == action && p.path == path),
            "{name}: {planned:?}"
        );
    };
    of(Action::Replace, "config");
    of(Action::Replace, "file-1");
    of(Action::Remove, "extra");
    of(Action::Remove, "sub/copy");
    of(Action::Create, "dangling");
    assert_eq!(std::fs::read_to_string(source.join("config")).unwrap(), "a=2");

    ask.dry_run = false;
    let report = restore(&ask).unwrap();
    assert_eq!((report.removed, report.problems), (2, vec![]));
    site.assert_same(&expected, &source);
    assert_eq!(std::fs::read_to_string(scratch.join("beside")).unwrap(), "not of the source");
    assert!(report.bytes_written < 90_000, "{}", report.bytes_written);
}

#[test]
fn attributes_alone_are_mended_without_writing() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    plain_tree(&source);
    let snapshot = site.snapshot(&[&source]);
    let expected = site.listing(&source);
    let dir = crate::host::fs::TargetDir::open_root(path_bytes(&source)).unwrap();
    dir.chmod(b"config", 0o4777).unwrap();
    dir.set_xattr(b"config", b"user.new", b"x").unwrap();
    dir.set_times(b"config", crate::base::time::Timestamp { secs: 1, nanos: 2 }).unwrap();
    dir.open_dir(b"apps").unwrap().chmod_self(0o700).unwrap();
    let report = restore(&input(&site, &snapshot, Target::InPlace)).unwrap();
    assert_eq!((report.bytes_written, report.problems), (0, vec![]));
    site.assert_same(&expected, &source);
}

#[test]
fn an_empty_machine_gets_the_sources_and_the_way_to_them() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("var/lib/source");
    hard_tree(&source).unwrap();
    std::fs::write(scratch.join("var/site.gcfg"), "[Server]").unwrap();
    let snapshot = site.snapshot(&[&source, &scratch.join("var/site.gcfg")]);
    let (expected, config) = (site.listing(&source), site.listing(&scratch.join("var")));
    unlock(scratch.path());
    std::fs::remove_dir_all(scratch.join("var")).unwrap();
    let report = restore(&input(&site, &snapshot, Target::InPlace)).unwrap();
    assert_eq!(report.problems, []);
    site.assert_same(&expected, &source);
    let found = site.listing(&scratch.join("var"));
    assert_eq!(found[&b"site.gcfg"[..]], config[&b"site.gcfg"[..]]);
    assert_eq!(std::fs::read_dir(scratch.join("var")).unwrap().count(), 2);
}

#[test]
fn extras_stay_where_that_was_asked_for_but_stale_logs_never_do() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    plain_tree(&source);
    let mut database = b"SQLite format 3\0".to_vec();
    database.resize(4096, 1);
    std::fs::write(source.join("app.db"), &database).unwrap();
    std::fs::write(source.join("held.db"), &database).unwrap();
    std::fs::write(source.join("held.db-wal"), "the log of the snapshot").unwrap();
    let snapshot = site.snapshot(&[&source]);
    for name in ["app.db-wal", "app.db-shm", "app.db-journal", "config-wal", "mine"] {
        std::fs::write(source.join(name), "newer").unwrap();
    }
    std::fs::write(source.join("held.db-wal"), "another log").unwrap();
    let mut ask = input(&site, &snapshot, Target::InPlace);
    ask.keep_extra = true;
    let report = restore(&ask).unwrap();
    assert_eq!((report.problems, report.removed), (vec![], 3));
    assert!(source.join("mine").exists() && source.join("config-wal").exists());
    for name in ["app.db-wal", "app.db-shm", "app.db-journal"] {
        assert!(!source.join(name).exists(), "{name}");
    }
    assert_eq!(
        std::fs::read_to_string(source.join("held.db-wal")).unwrap(),
        "the log of the snapshot"
    );
    std::fs::write(source.join("app.db-wal"), "newer").unwrap();
    (ask.keep_extra, ask.include) = (false, vec!["app.db".into()]);
    restore(&ask).unwrap();
    assert!(!source.join("app.db-wal").exists() && source.join("mine").exists());
    ask.include.clear();
    restore(&ask).unwrap();
    assert!(!source.join("mine").exists() && !source.join("config-wal").exists());
}

#[test]
fn an_interrupted_restore_ends_with_the_same_command() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    std::fs::create_dir_all(source.join("d")).unwrap();
    for n in 0..200 {
        std::fs::write(source.join(format!("d/n{n}")), format!("old {n}")).unwrap();
    }
    let snapshot = site.snapshot(&[&source]);
    let expected = site.listing(&source);
    for n in 0..200 {
        std::fs::write(source.join(format!("d/n{n}")), format!("newer {n}")).unwrap();
    }
    std::fs::write(source.join("extra"), "x").unwrap();
    let interrupt = Interrupt::manual();
    let stop = Stop(&interrupt);
    let mut ask = input(&site, &snapshot, Target::InPlace);
    (ask.interrupt, ask.progress) = (&interrupt, &stop);
    assert!(matches!(restore(&ask), Err(RestoreError::Interrupted { .. })));
    let aside = std::fs::read_dir(&source).unwrap().filter_map(Result::ok);
    let aside: Vec<_> =
        aside.filter(|e| e.file_name().as_bytes().starts_with(b".cabk-restore-")).collect();
    assert_eq!(aside.len(), 1, "what was replaced is still there");
    assert!(std::fs::read_dir(aside[0].path()).unwrap().count() > 0);
    let report = restore(&input(&site, &snapshot, Target::InPlace)).unwrap();
    assert_eq!(report.problems, []);
    assert!(report.files_left_equal > 0 && report.files_left_equal < 200);
    site.assert_same(&expected, &source);
}

struct Stop<'a>(&'a Interrupt);

impl Progress for Stop<'_> {
    fn phase(&self, _: &str, _: Option<Total>) {}
    fn advance(&self, _: u64, _: u64) {
        self.0.trigger();
    }
    fn window(&self, _: Option<crate::base::progress::OpenWindow>) {}
    fn message(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn finish(&self) {}
}

#[test]
fn names_that_are_missing_here_are_refused_before_anything_changes() {
    let (mut site, scratch) = (Site::new(), Scratch::new());
    let own = rustix::process::geteuid().as_raw();
    site.owners.users = vec![(own, "connect-user".into()), (own + 1, "never-used".into())];
    let source = scratch.join("source");
    plain_tree(&source);
    let snapshot = site.snapshot(&[&source]);
    std::fs::write(source.join("config"), "changed").unwrap();
    let mut ask = input(&site, &snapshot, Target::InPlace);
    ask.numeric_ids = false;
    let error = restore(&ask).unwrap_err();
    assert!(matches!(&error, RestoreError::Refused(_)));
    let text = error.to_string();
    assert!(
        text.contains("useradd --system connect-user") && !text.contains("never-used"),
        "{text}"
    );
    assert_eq!(std::fs::read_to_string(source.join("config")).unwrap(), "changed");
    ask.map_user = vec![("connect-user".into(), own.to_string())];
    restore(&ask).unwrap();
    assert_eq!(std::fs::read_to_string(source.join("config")).unwrap(), "a=1");
}

#[test]
fn licences_stay_on_their_machine() {
    let (mut site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("licence");
    plain_tree(&source);
    site.roles = vec!["license".into()];
    let snapshot = site.snapshot(&[&source]);
    std::fs::write(source.join("config"), "this machine's").unwrap();
    let mut ask = input(&site, &snapshot, Target::InPlace);
    let report = restore(&ask).unwrap();
    assert_eq!((report.files, report.notes.len()), (0, 1));
    assert_eq!(std::fs::read_to_string(source.join("config")).unwrap(), "this machine's");
    ask.with_license = true;
    restore(&ask).unwrap();
    assert_eq!(std::fs::read_to_string(source.join("config")).unwrap(), "a=1");
}

#[test]
fn only_snapshots_whose_evidence_held_open() {
    use crate::format::manifest::{Evidence, How, RecordKind};
    use crate::record::open::RecordError;
    let (site, scratch) = (Site::new(), Scratch::new());
    plain_tree(&scratch.join("s"));
    let good = site.snapshot(&[&scratch.join("s")]);
    let with = |change: &dyn Fn(&mut ManifestBody)| {
        let mut body = good.body().clone();
        change(&mut body);
        Snapshot::open(site.repository(), site.commit(&body))
    };
    let evidence = |check: &str, held| Evidence {
        check: check.into(),
        subject: "s".into(),
        node: "local".into(),
        scope: "host".into(),
        held,
        how: How::Observed,
        detail: String::new(),
        looked_at: Vec::new(),
    };
    let refused = |r: Result<Snapshot, RecordError>| {
        assert!(matches!(r, Err(RecordError::NotRestorable { .. })), "{r:?}");
    };
    refused(with(&|body| body.kind = RecordKind::Capture));
    refused(with(&|body| body.evidence = vec![evidence("tree-unchanged", false)]));
    assert!(with(&|body| body.evidence = vec![evidence("service-started", false)]).is_ok());
    assert!(with(&|body| body.evidence = vec![evidence("tree-unchanged", true)]).is_ok());
    // A capture's object copied among the snapshots has another magic and another key.
    use crate::backend::ObjectName;
    use crate::format::header::ObjectKind;
    let bytes = site.repository().seal_control(ObjectKind::Capture, good.body()).unwrap();
    let id = ManifestId::from_array(*blake3::hash(&bytes).as_bytes());
    site.backend.raw_put(&ObjectName::capture(&id), &bytes);
    refused(Snapshot::open(site.repository(), id));
    site.backend.raw_put(&ObjectName::snapshot(&id), &bytes);
    assert!(matches!(Snapshot::open(site.repository(), id), Err(RecordError::Repository(_))));
}

#[test]
fn what_was_left_out_of_the_snapshot_stays_and_links_on_the_way_are_refused() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("var/source");
    plain_tree(&source);
    let snapshot = site.snapshot(&[&source]);
    let mut body = snapshot.body().clone();
    body.excludes = vec!["*.log".into()];
    let snapshot = Snapshot::open(site.repository(), site.commit(&body)).unwrap();
    std::fs::write(source.join("a.log"), "never kept").unwrap();
    std::fs::write(source.join("a.txt"), "too much").unwrap();
    let report = restore(&input(&site, &snapshot, Target::InPlace)).unwrap();
    assert_eq!((report.removed, report.problems), (1, vec![]));
    assert!(source.join("a.log").exists() && !source.join("a.txt").exists());

    std::fs::rename(scratch.join("var"), scratch.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", scratch.join("var")).unwrap();
    std::fs::write(scratch.join("elsewhere/source/config"), "changed").unwrap();
    let refused = restore(&input(&site, &snapshot, Target::InPlace));
    assert!(matches!(refused, Err(RestoreError::Refused(_))));
    let text = std::fs::read_to_string(scratch.join("elsewhere/source/config")).unwrap();
    assert_eq!(text, "changed");
}
