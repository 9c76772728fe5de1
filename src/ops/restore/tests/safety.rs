//! What a restore must not touch, must not mix up, and must say before it begins.

use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::Arc;

use super::target::StopAfter;
use super::*;
use crate::format::control::HexBytes;
use crate::host::fs::TargetDir;

fn dir_of(path: &Path) -> TargetDir {
    TargetDir::open_root(path_bytes(path)).unwrap()
}

fn write_all(root: &Path, files: &[&str]) {
    for name in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("content of {name}")).unwrap();
    }
}

#[test]
fn what_was_left_out_and_what_cabk_needs_here_stays() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    write_all(&source, &["a", "d/b"]);
    let mut body = site.snapshot(&[&source]).body().clone();
    body.left_out = vec![HexBytes(path_bytes(&source.join("d/old-repo")).to_vec())];
    let snapshot = Snapshot::open(site.repository(), site.commit(&body)).unwrap();
    write_all(&source, &["d/old-repo/pack", "d/extra", "state/windows/x", "cache/y", "deep/in/z"]);
    let mut ask = input(&site, &snapshot, Target::InPlace);
    ask.kept = vec![source.join("state"), source.join("cache"), source.join("deep/in")];
    let report = restore(&ask).unwrap();
    for name in ["d/old-repo/pack", "state/windows/x", "cache/y", "deep/in/z", "a", "d/b"] {
        assert!(source.join(name).exists(), "{name}");
    }
    assert!(!source.join("d/extra").exists());
    let told: Vec<_> = report.problems.iter().map(|p| p.path.as_slice()).collect();
    assert_eq!(told, [path_bytes(&source.join("deep"))]);
}

#[test]
fn manifests_that_say_nothing_of_what_was_left_out_can_be_read() {
    let (site, scratch) = (Site::new(), Scratch::new());
    write_all(&scratch.join("s"), &["a"]);
    let body = site.snapshot(&[&scratch.join("s")]).body().clone();
    let mut json = serde_json::to_value(&body).unwrap();
    assert_eq!(json["left_out"], serde_json::json!([]));
    json.as_object_mut().unwrap().remove("left_out");
    assert_eq!(
        serde_json::from_value::<crate::format::manifest::ManifestBody>(json).unwrap(),
        body
    );
}

struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn what_cabk_needs_stays_where_a_bind_mount_shows_it() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let (source, outer) = (scratch.join("source"), scratch.join("outer"));
    write_all(&source, &["a"]);
    std::fs::create_dir(source.join("b")).unwrap();
    write_all(&outer, &["repo/config", "x/y/repo/config", "more"]);
    let snapshot = site.snapshot(&[&source]);
    let bound = Command::new("mount").arg("--bind").arg(&outer).arg(source.join("b")).output();
    if !bound.is_ok_and(|done| done.status.success()) {
        skipped("no bind mounts here");
        return;
    }
    let _mounted = Mounted(source.join("b"));
    let mut ask = input(&site, &snapshot, Target::InPlace);
    ask.kept = vec![outer.join("repo"), outer.join("x/y/repo")];
    restore(&ask).unwrap();
    assert!(outer.join("repo/config").exists() && outer.join("x/y/repo/config").exists());
    assert!(!outer.join("more").exists());
}

#[test]
fn chunks_without_a_place_do_not_damage_their_neighbours() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    write_all(&source, &["a", "b", "lost-1", "lost-2", "z"]);
    site.keep(b"content of z");
    let snapshot = site.snapshot(&[&source]);
    let target = scratch.join("target");
    match restore(&input(&site, &snapshot, Target::Directory(target.clone()))) {
        Err(RestoreError::Damaged { paths: 2, report, .. }) => assert_eq!(report.files, 3),
        other => panic!("{other:?}"),
    }
    for name in ["a", "b", "z"] {
        assert!(below(&target, &source).join(name).exists(), "{name}");
    }
}

#[test]
fn damage_is_told_whole_before_anything_changes_in_place() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    write_all(&source, &["a", "lost-1", "z/lost-2"]);
    let snapshot = site.snapshot(&[&source]);
    write_all(&source, &["extra"]);
    for name in ["a", "lost-1", "z/lost-2"] {
        std::fs::write(source.join(name), "newer").unwrap();
    }
    let mut ask = input(&site, &snapshot, Target::InPlace);
    let told = |error: Result<RestoreReport, RestoreError>| match error {
        Err(RestoreError::Damaged { paths, report, .. }) => {
            assert!(
                report.notes.contains(&"nothing was changed by this run".to_owned()),
                "{report:?}"
            );
            (paths, report.problems.into_iter().map(|p| p.path).collect::<Vec<_>>())
        }
        other => panic!("{other:?}"),
    };
    let lost: Vec<Vec<u8>> =
        ["lost-1", "z/lost-2"].map(|n| path_bytes(&source.join(n)).to_vec()).into();
    assert_eq!(told(restore(&ask)), (2, lost));
    assert_eq!(std::fs::read_to_string(source.join("a")).unwrap(), "newer");
    assert!(source.join("extra").exists());
    ask.exclude = vec!["lost-*".into()];
    assert_eq!(restore(&ask).unwrap().problems, []);
    assert_eq!(std::fs::read_to_string(source.join("a")).unwrap(), "content of a");
    assert_eq!(std::fs::read_to_string(source.join("lost-1")).unwrap(), "newer");

    // A pack that is gone is known from the listing; a bad block only when it is read.
    use crate::backend::{Backend, ObjectName, Space};
    let is_pack = |name: &ObjectName| name.space() == Space::Packs;
    let packs: Vec<_> = site.backend.objects().into_iter().filter(is_pack).collect();
    let fresh = || {
        let (repository, accelerator) =
            (Arc::clone(site.reader.repository()), Arc::clone(site.reader.accelerator()));
        Reader::new(repository, accelerator, 1 << 20)
    };
    let mut met = 0;
    for pack in &packs {
        let whole = site.backend.raw_get(pack).unwrap();
        for at in (70..whole.len()).step_by(whole.len() / 31 + 1) {
            std::fs::write(source.join("a"), "newer").unwrap();
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            site.backend.raw_put(pack, &bytes);
            let reader = fresh();
            let mut ask = input(&site, &snapshot, Target::InPlace);
            (ask.reader, ask.exclude) = (&reader, vec!["lost-*".into()]);
            if let Err(RestoreError::Damaged { paths, report, .. }) = restore(&ask) {
                assert!(paths > 0 && !report.problems.is_empty(), "{report:?}");
                assert_eq!(report.id, Some(snapshot.id()));
                met += 1;
            }
        }
        site.backend.raw_put(pack, &whole);
    }
    assert!(met > 0);
    assert!(site.backend.list(Space::Packs).unwrap().len() == packs.len());
}

#[test]
fn a_log_never_comes_before_its_database() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let (source, other) = (scratch.join("source"), scratch.join("other"));
    std::fs::create_dir_all(&source).unwrap();
    std::fs::create_dir_all(&other).unwrap();
    let log = vec![3u8; 9_000];
    // The log's bytes lie in front of the database's.
    std::fs::write(other.join("first"), &log).unwrap();
    site.snapshot(&[&other]);
    let mut database = b"SQLite format 3\0".to_vec();
    database.resize(9_000, 1);
    std::fs::write(source.join("app.db"), &database).unwrap();
    std::fs::write(source.join("app.db-wal"), &log).unwrap();
    let snapshot = site.snapshot(&[&source]);
    std::fs::write(source.join("app.db"), "newer").unwrap();
    std::fs::write(source.join("app.db-wal"), "newer log").unwrap();
    let interrupt = Interrupt::manual();
    let stop = StopAfter { interrupt: &interrupt, left: 1.into() };
    let mut ask = input(&site, &snapshot, Target::InPlace);
    (ask.interrupt, ask.progress, ask.threads) = (&interrupt, &stop, 1);
    assert!(matches!(restore(&ask), Err(RestoreError::Interrupted { .. })));
    assert_eq!(std::fs::read(source.join("app.db")).unwrap(), database);
    assert!(!source.join("app.db-wal").exists());
    restore(&input(&site, &snapshot, Target::InPlace)).unwrap();
    assert_eq!(std::fs::read(source.join("app.db-wal")).unwrap(), log);
}

#[test]
fn what_cannot_be_linked_keeps_its_content() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("lost-first"), "kept all the same".repeat(900)).unwrap();
    std::fs::hard_link(source.join("lost-first"), source.join("second")).unwrap();
    let snapshot = site.snapshot(&[&source]);
    let target = scratch.join("target");
    match restore(&input(&site, &snapshot, Target::Directory(target.clone()))) {
        Err(RestoreError::Damaged { paths: 1, report, .. }) => {
            let own = |p: &Problem| p.error.contains("a file of its own");
            assert!(report.problems.iter().any(own), "{report:?}");
        }
        other => panic!("{other:?}"),
    }
    let copy = below(&target, &source);
    assert!(!copy.join("lost-first").exists());
    assert_eq!(
        std::fs::read(copy.join("second")).unwrap(),
        std::fs::read(source.join("second")).unwrap()
    );
}

fn acl(user: u32) -> Vec<u8> {
    let mut acl = vec![2, 0, 0, 0];
    for (tag, perm, id) in [(1u16, 6u16, u32::MAX), (2, 4, user), (4, 4, u32::MAX)] {
        acl.extend([&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    for (tag, perm) in [(16u16, 4u16), (32, 0)] {
        acl.extend([&tag.to_le_bytes()[..], &perm.to_le_bytes(), &[255; 4]].concat());
    }
    acl
}

#[test]
fn acls_go_by_name_too() {
    let (mut site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    write_all(&source, &["a"]);
    const ACL: &[u8] = b"system.posix_acl_access";
    if let Err(e) = dir_of(&source).set_xattr(b"a", ACL, &acl(5001)) {
        skipped(&format!("no ACLs here: {e}"));
        return;
    }
    site.owners.users = vec![(5001, "connect".into())];
    let snapshot = site.snapshot(&[&source]);
    let here = MapOwners::default().user("connect", 6001);
    let target = scratch.join("target");
    let mut ask = input(&site, &snapshot, Target::Directory(target.clone()));
    (ask.owners, ask.numeric_ids) = (&here, false);
    assert_eq!(restore(&ask).unwrap().problems, []);
    let found = |path: &Path| {
        let dir = dir_of(path);
        let file = dir.open_file(b"a").unwrap();
        crate::host::fs::SourceFile::attributes(file.source()).unwrap().xattrs
    };
    assert!(found(&below(&target, &source)).contains(&(ACL.to_vec(), acl(6001))));
    ask.target = Target::InPlace;
    restore(&ask).unwrap();
    assert!(found(&source).contains(&(ACL.to_vec(), acl(6001))));
    let nobody = MapOwners::default();
    ask.owners = &nobody;
    let refused = restore(&ask).unwrap_err().to_string();
    assert!(refused.contains("useradd --system connect"), "{refused}");
}

#[test]
fn what_is_no_file_is_made_anew_and_not_mended_by_its_name() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    write_all(&source, &["a"]);
    let dir = dir_of(&source);
    dir.mknod(b"fifo", crate::host::fs::InodeKind::Fifo, 0o600, (0, 0)).unwrap();
    let snapshot = site.snapshot(&[&source]);
    let expected = site.listing(&source);
    let before = dir.stat(b"fifo").unwrap().ino;
    restore(&input(&site, &snapshot, Target::InPlace)).unwrap();
    assert_eq!(dir.stat(b"fifo").unwrap().ino, before, "equal");
    dir.chmod(b"fifo", 0o666).unwrap();
    assert_eq!(restore(&input(&site, &snapshot, Target::InPlace)).unwrap().problems, []);
    assert_ne!(dir.stat(b"fifo").unwrap().ino, before);
    site.assert_same(&expected, &source);
}

#[test]
fn the_mark_is_there_at_every_moment() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    write_all(&source, &["a", "b"]);
    let snapshot = site.snapshot(&[&source]);
    let target = scratch.join("target");
    let mark = target.join(".cabk-restore.json");
    let mut inodes = Vec::new();
    for _ in 0..2 {
        let interrupt = Interrupt::manual();
        interrupt.trigger();
        let mut ask = input(&site, &snapshot, Target::Directory(target.clone()));
        ask.interrupt = &interrupt;
        assert!(restore(&ask).is_err());
        inodes.push(mark.metadata().unwrap().ino());
    }
    assert_eq!(inodes[0], inodes[1], "a mark that is valid stays");
    // As a run leaves it that was killed while the mark was written.
    std::fs::rename(&mark, target.join(".cabk-restore.json.new")).unwrap();
    restore(&input(&site, &snapshot, Target::Directory(target.clone()))).unwrap();
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1);
}

/// Gives a name inode flags; false, and said, where that cannot be.
fn flagged(dir: &TargetDir, name: &[u8], flags: u32) -> bool {
    let done = dir.set_flags(name, flags);
    if let Err(e) = &done {
        skipped(&format!("no inode flags here: {e}"));
    }
    done.is_ok()
}

#[test]
fn flags_that_came_later_go_and_a_dry_run_sets_none() {
    const NO_DUMP: u32 = 0x40;
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    write_all(&source, &["a"]);
    let dir = dir_of(&source);
    let flags = |name: &[u8]| {
        let file = dir.open_file(name).unwrap();
        crate::host::fs::SourceFile::attributes(file.source()).unwrap().flags.unwrap_or(0)
    };
    let snapshot = site.snapshot(&[&source]);
    if !flagged(&dir, b"a", NO_DUMP) {
        return;
    }
    let report = restore(&input(&site, &snapshot, Target::InPlace)).unwrap();
    assert_eq!((flags(b"a"), report.bytes_written, report.problems), (0, 0, vec![]));

    write_all(&source, &["locked"]);
    std::fs::hard_link(source.join("locked"), source.join("locked-too")).unwrap();
    if !crate::host::machine::is_root() || !flagged(&dir, b"locked", 0x10) {
        skipped("locked inodes need root");
        return;
    }
    let snapshot = site.snapshot(&[&source]);
    dir.set_flags(b"locked", 0).unwrap();
    let mut ask = input(&site, &snapshot, Target::InPlace);
    ask.dry_run = true;
    restore(&ask).unwrap();
    assert_eq!(flags(b"locked"), 0);
    ask.dry_run = false;
    restore(&ask).unwrap();
    assert_eq!(flags(b"locked"), 0x10);
}

#[test]
fn what_is_made_in_a_finished_directory_gets_nothing_from_it() {
    let (site, scratch) = (Site::new(), Scratch::new());
    let source = scratch.join("source");
    write_all(&source, &["d/a", "d/b"]);
    let dir = dir_of(&source.join("d"));
    dir.mknod(b"fifo", crate::host::fs::InodeKind::Fifo, 0o600, (0, 0)).unwrap();
    if let Err(e) = dir.set_xattr_self(b"system.posix_acl_default", &acl(99)) {
        skipped(&format!("no ACLs here: {e}"));
        return;
    }
    let snapshot = site.snapshot(&[&source]);
    let target = scratch.join("target");
    let ask = input(&site, &snapshot, Target::Directory(target.clone()));
    restore(&ask).unwrap();
    let copy = below(&target, &source);
    std::fs::remove_file(copy.join("d/a")).unwrap();
    std::fs::remove_file(copy.join("d/fifo")).unwrap();
    let mark = serde_json::json!({"snapshot": snapshot.id(), "subtree": null});
    std::fs::write(target.join(".cabk-restore.json"), mark.to_string()).unwrap();
    assert_eq!(restore(&ask).unwrap().problems, []);
    site.assert_same(&site.listing(&source), &copy);
}
