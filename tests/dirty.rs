//! A read that looks only at what the kernel told of gives what a whole read gives: after each kind
//! of change, and after seeded mixtures of them, on several file systems.

mod common;
#[path = "dirty/changes.rs"]
mod changes;
#[path = "dirty/reads.rs"]
mod reads;
#[path = "common/site.rs"]
mod site;
#[path = "dirty/windows.rs"]
mod windows;
#[path = "common/world.rs"]
mod world;

use std::path::Path;
use std::process::Command;

use cabk::host::fanotify::Watch;
use cabk::host::fs::LinuxFs;
use cabk::intake::look::touched;
use changes::{Dice, KINDS, Place, change, grow};
use common::skip;
use reads::Reads;
use world::{Mounted, World, bytes, is_root};

/// A directory on a file system of its own; the one of temporary files where `fs` is `None`.
fn place(world: &World, fs: Option<&str>) -> Option<(Option<Mounted>, Place)> {
    if !is_root() {
        skip("events of whole file systems take root");
        return None;
    }
    let Some(fs) = fs else { return Some((None, Place::new(&world.path("tree")))) };
    let image = world.path("image");
    std::fs::File::create(&image).unwrap().set_len(600 << 20).unwrap();
    let made = Command::new(format!("mkfs.{fs}")).arg("-q").arg(&image).output();
    if !made.is_ok_and(|output| output.status.success()) {
        skip(&format!("mkfs.{fs} is not there"));
        return None;
    }
    let mounted = Mounted::new(&["-o", "loop", image.to_str().unwrap()], &world.path("disk"));
    if mounted.is_none() {
        skip(&format!("an image of {fs} cannot be mounted here"));
    }
    let at = mounted.as_ref()?.path().join("tree");
    Some((mounted, Place::new(&at)))
}

fn watched(place: &Path) -> Option<Watch> {
    let watch = Watch::begin(&[bytes(place)]).unwrap();
    for one in watch.unwatched() {
        skip(&format!("{} cannot be watched: {}", one.fs_type, one.why));
    }
    watch.unwatched().is_empty().then_some(watch)
}

fn one_by_one(fs: Option<&str>) {
    let world = World::new();
    let Some((_disk, place)) = place(&world, fs) else { return };
    grow(&place);
    let Some(watch) = watched(&place.top) else { return };
    let mut reads = Reads::new(&world, &place.top);
    let mut dice = Dice(7);
    let mut saved = 0;
    for kind in KINDS {
        if !change(kind, &place, &mut dice) {
            continue;
        }
        let (looked, all) = reads.again(&watch, kind);
        saved += usize::from(looked * 2 < all);
    }
    assert!(saved * 10 > KINDS.len() * 9, "most looks are short: {saved} of {}", KINDS.len());
    let (looked, _) = reads.again(&watch, "nothing");
    assert!(looked <= 12, "{looked} directories were looked at for nothing");
}

fn mixed(fs: Option<&str>, seeds: std::ops::Range<u64>) {
    let world = World::new();
    let Some((_disk, place)) = place(&world, fs) else { return };
    grow(&place);
    let Some(watch) = watched(&place.top) else { return };
    let mut reads = Reads::new(&world, &place.top);
    for seed in seeds {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut done = Vec::new();
        for _ in 0..2 + dice.below(12) {
            let kind = KINDS[dice.below(KINDS.len())];
            if change(kind, &place, &mut dice) {
                done.push(kind);
            }
        }
        reads.again(&watch, &format!("seed {seed}: {done:?}"));
    }
}

#[test]
fn each_kind_of_change_is_seen() {
    one_by_one(None);
}

#[test]
fn each_kind_of_change_is_seen_on_ext4() {
    one_by_one(Some("ext4"));
}

#[test]
fn each_kind_of_change_is_seen_on_xfs() {
    one_by_one(Some("xfs"));
}

#[test]
fn each_kind_of_change_is_seen_on_btrfs() {
    one_by_one(Some("btrfs"));
}

#[test]
fn mixtures_of_changes_are_seen() {
    mixed(None, 0..30);
}

#[test]
fn mixtures_of_changes_are_seen_on_xfs() {
    mixed(Some("xfs"), 100..120);
}

#[test]
fn mixtures_of_changes_are_seen_on_btrfs() {
    mixed(Some("btrfs"), 200..220);
}

#[test]
fn a_mounted_subvolume_is_watched_and_subvolumes_in_it() {
    let world = World::new();
    let Some((disk, place)) = place(&world, Some("btrfs")) else { return };
    let run = |words: &[&str]| {
        Command::new("btrfs").args(words).output().is_ok_and(|output| output.status.success())
    };
    let sub = disk.as_ref().unwrap().path().join("sub");
    if !run(&["-q", "subvolume", "create", sub.to_str().unwrap()]) {
        skip("btrfs is not there");
        return;
    }
    let image = world.path("image");
    let words = ["-o", "loop,subvol=sub", image.to_str().unwrap()];
    drop((disk, place));
    let Some(disk) = Mounted::new(&words, &world.path("again")) else {
        skip("a subvolume cannot be mounted here");
        return;
    };
    let place = Place::new(&disk.path().join("tree"));
    grow(&place);
    assert!(run(&["-q", "subvolume", "create", place.top.join("nested").to_str().unwrap()]));
    std::fs::write(place.top.join("nested/file"), "x").unwrap();
    let Some(watch) = watched(&place.top) else { return };
    let mut reads = Reads::new(&world, &place.top);
    for kind in ["create", "write", "move a directory in", "made and removed"] {
        assert!(change(kind, &place, &mut Dice(9)));
        reads.again(&watch, kind);
    }
    std::fs::write(place.top.join("nested/file"), "new").unwrap();
    reads.again(&watch, "write in a subvolume");
}

#[test]
fn what_events_tell_is_named() {
    let world = World::new();
    let Some((_, place)) = place(&world, None) else { return };
    grow(&place);
    let Some(watch) = watched(&place.top) else { return };
    let reads = Reads::new(&world, &place.top);
    let named = || {
        let found = touched(&LinuxFs, reads.look(), &watch.take());
        assert_eq!(found.changed_total, found.changed.len() as u64);
        found.changed
    };
    assert_eq!(named(), Vec::<Vec<u8>>::new());
    std::fs::write(place.top.join("a/b/deep/four"), "x").unwrap();
    std::fs::write(place.top.with_file_name("outside/linked"), "x").unwrap();
    std::fs::write(place.top.with_file_name("outside/file"), "x").unwrap();
    let paths = ["a/a/two", "a/b/deep/four"].map(|name| bytes(&place.top.join(name)));
    assert_eq!(named(), paths);
    std::fs::write(place.top.join("c/d/short"), "x").unwrap();
    std::fs::remove_file(place.top.join("c/d/short")).unwrap();
    assert_eq!(named(), [bytes(&place.top.join("c/d"))]);
}

#[test]
fn what_is_mounted_meanwhile_is_noticed() {
    let world = World::new();
    let Some((_, place)) = place(&world, None) else { return };
    grow(&place);
    let Some(watch) = watched(&place.top) else { return };
    assert!(!watch.mounts_changed());
    let Some(disk) = Mounted::new(&["-t", "tmpfs", "none"], &place.top.join("a/b")) else {
        skip("a tmpfs cannot be mounted here");
        return;
    };
    assert!(watch.mounts_changed());
    drop(disk);
    assert!(!watch.mounts_changed());
    let beside = Mounted::new(&["-t", "tmpfs", "none"], &world.path("beside"));
    assert!(beside.is_some() && !watch.mounts_changed(), "that is no matter of the tree's");
}
