use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;

fn watched(dir: &Path) -> Option<Watch> {
    let watch = Watch::begin(&[dir.as_os_str().as_bytes().to_vec()]).unwrap();
    if let Some(one) = watch.unwatched().first() {
        eprintln!("skipped: {} cannot be watched: {}", one.fs_type, one.why);
        return None;
    }
    Some(watch)
}

fn inode(path: &Path) -> (Device, u64) {
    let stat = fs::symlink_metadata(path).unwrap();
    let dev = stat.dev();
    ((rustix::fs::major(dev), rustix::fs::minor(dev)), stat.ino())
}

#[test]
fn every_kind_of_change_is_told_by_inode() {
    let temp = tempfile::tempdir().unwrap();
    let top = temp.path();
    let at = |name: &str| top.join(name);
    fs::create_dir(at("dir")).unwrap();
    fs::create_dir(at("outside")).unwrap();
    for name in ["a", "b", "c", "dir/d", "gone", "linked"] {
        fs::write(at(name), name).unwrap();
    }
    fs::hard_link(at("linked"), at("outside/other")).unwrap();
    symlink("a", at("link")).unwrap();
    let Some(watch) = watched(top) else { return };
    let told = |what: &str, act: &dyn Fn(), expected: &[&str]| {
        let _ = watch.take();
        act();
        let dirty = watch.take();
        assert!(dirty.is_whole() && dirty.events > 0, "{what}: {dirty:?}");
        for name in expected {
            assert!(dirty.inodes.contains(&inode(&at(name))), "{what}: {name}: {dirty:?}");
        }
        dirty
    };
    told("write", &|| fs::write(at("a"), "new").unwrap(), &["a"]);
    let mode = |name: &str, bits| fs::set_permissions(at(name), fs::Permissions::from_mode(bits));
    told("chmod", &|| mode("b", 0o600).unwrap(), &["b"]);
    told("chmod of a directory", &|| mode("dir", 0o700).unwrap(), &["dir"]);
    told("create", &|| fs::write(at("dir/new"), "").unwrap(), &["dir"]);
    told("make a directory", &|| fs::create_dir(at("dir/sub")).unwrap(), &["dir"]);
    told("remove", &|| fs::remove_file(at("gone")).unwrap(), &["."]);
    told("rename", &|| fs::rename(at("c"), at("dir/c")).unwrap(), &[".", "dir"]);
    told("link", &|| fs::hard_link(at("a"), at("dir/a2")).unwrap(), &["dir", "a"]);
    let other =
        told("through a link", &|| fs::write(at("outside/other"), "x").unwrap(), &["linked"]);
    assert!(!other.inodes.contains(&inode(&at("."))), "no name changed");
    let come_and_go = || {
        fs::write(at("dir/short"), "").unwrap();
        fs::remove_file(at("dir/short")).unwrap();
    };
    told("made and removed", &come_and_go, &["dir"]);
    let nested = || {
        fs::create_dir_all(at("dir/x/y/z")).unwrap();
        fs::write(at("dir/x/y/z/f"), "").unwrap();
        fs::remove_dir_all(at("dir/x")).unwrap();
    };
    told("a whole tree made and removed", &nested, &["dir"]);
    assert!(!watch.mounts_changed());
}

#[test]
fn what_was_taken_is_not_told_again() {
    let temp = tempfile::tempdir().unwrap();
    let Some(watch) = watched(temp.path()) else { return };
    let file = temp.path().join("file");
    fs::write(&file, "x").unwrap();
    let first = watch.take();
    assert!(first.inodes.contains(&inode(&file)));
    let second = watch.take();
    assert!(!second.inodes.contains(&inode(&file)), "others may write here, too");
}

#[test]
fn many_changes_are_all_told() {
    let temp = tempfile::tempdir().unwrap();
    let Some(watch) = watched(temp.path()) else { return };
    for n in 0..5_000 {
        fs::write(temp.path().join(n.to_string()), "x").unwrap();
    }
    let dirty = watch.take();
    assert!(dirty.is_whole(), "{dirty:?}");
    for n in 0..5_000 {
        assert!(dirty.inodes.contains(&inode(&temp.path().join(n.to_string()))));
    }
}

#[test]
fn what_cannot_be_watched_is_told_with_its_reason() {
    let watch = Watch::begin(&[b"/proc".to_vec()]).unwrap();
    assert!(watch.unwatched().is_empty() && watch.superblocks.is_empty(), "it is left out anyhow");
    assert_eq!(watch.take(), DirtySet::default());
    let gone = Watch::begin(&[b"/nonexistent".to_vec()]).unwrap();
    assert!(gone.superblocks.is_empty());
}

#[test]
fn sets_have_an_end() {
    let mut dirty = DirtySet::default();
    dirty.merge(DirtySet { unresolved: 1, ..DirtySet::default() });
    assert!(!dirty.is_whole());
    let mut event = Event { mask: decode::OVERFLOW, ..Event::default() };
    let mut lost = DirtySet::default();
    let temp = std::fs::File::open("/").unwrap();
    take_in(&mut lost, event, temp.as_fd(), &mut Known::new());
    assert!(lost.overflow);
    event.mask = libc::FAN_MODIFY;
    let mut nameless = DirtySet::default();
    take_in(&mut nameless, event, temp.as_fd(), &mut Known::new());
    assert_eq!(nameless.unresolved, 1);
}
