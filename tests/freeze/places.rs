//! Sources in and below subvolumes of btrfs, and beside other file systems.

#![allow(clippy::disallowed_methods, reason = "tests ask the real clock")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use cabk::host::freeze::HOLDING;

use crate::common::skip;
use crate::site::Site;
use crate::world::{Done, Mounted, is_root, past_the_grain, until};
use crate::{frozen, is_of_the_stop, living, living_in};

/// A file system of its own, in an image.
pub(crate) struct Disk {
    dir: tempfile::TempDir,
    at: PathBuf,
}

/// One that btrfs made.
pub(crate) struct Btrfs(Disk);

pub(crate) fn ran(program: &str, words: &[&str]) -> bool {
    Command::new(program).args(words).output().is_ok_and(|output| output.status.success())
}

impl Disk {
    /// An image of this type, made with these words; `None` where it cannot be.
    pub(crate) fn new(fs: &str, words: &[&str]) -> Option<Self> {
        if !is_root() {
            skip("an image can be mounted by root alone");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
        let mut make = words.to_vec();
        make.extend(["-q", image.to_str().unwrap()]);
        if !ran(&format!("mkfs.{fs}"), &make) {
            skip(&format!("mkfs.{fs} is not there"));
            return None;
        }
        let at = dir.path().join("disk");
        std::fs::create_dir(&at).unwrap();
        let disk = Self { dir, at };
        if !disk.mount(&disk.at, "loop") {
            skip(&format!("an image of {fs} cannot be mounted here"));
            return None;
        }
        Some(disk)
    }

    fn mount(&self, at: &Path, options: &str) -> bool {
        std::fs::create_dir_all(at).unwrap();
        let image = self.dir.path().join("image");
        ran("mount", &["-o", options, image.to_str().unwrap(), at.to_str().unwrap()])
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A service that was told to end may need a moment for it.
        let _ = rustix::fs::syncfs(std::fs::File::open(&self.at).unwrap());
        for _ in 0..100 {
            if ran("umount", &["-R", self.at.to_str().unwrap()]) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        eprintln!("{} could not be unmounted", self.at.display());
    }
}

impl Btrfs {
    pub(crate) fn new() -> Option<Self> {
        let disk = Disk::new("btrfs", &[])?;
        if !ran("btrfs", &["--version"]) {
            skip("btrfs is not there");
            return None;
        }
        Some(Self(disk))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    pub(crate) fn subvolume(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(ran("btrfs", &["-q", "subvolume", "create", path.to_str().unwrap()]), "{name}");
        path
    }

    /// Names of all subvolumes.
    pub(crate) fn subvolumes(&self) -> Vec<String> {
        let list = ["subvolume", "list", self.0.at.to_str().unwrap()];
        let output = Command::new("btrfs").args(list).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let last = |line: &str| line.rsplit(' ').next().unwrap().to_owned();
        text.lines().map(last).collect()
    }

    /// Nothing frozen is left, and nothing that tells of it.
    #[track_caller]
    pub(crate) fn is_clean(&self, site: &Site) {
        let all = self.subvolumes();
        assert!(!all.iter().any(|name| name.contains("cabk-")), "{all:?}");
        let notes = std::fs::read_dir(site.path("state/frozen")).unwrap().count();
        assert_eq!(notes, 0);
    }
}

/// What was kept below a path, without what differs from one moment to the next.
fn kept(site: &Site, done: &Done, top: &Path) -> BTreeMap<Vec<u8>, String> {
    let inside = site.world.look();
    let top = crate::world::bytes(top);
    let all = inside.tree(done.id()).into_iter();
    let below = all.filter(|(path, _)| cabk::base::path::is_within(path, &top));
    below.map(|(path, entry)| (path, format!("{entry:?}"))).collect()
}

/// Two snapshots of one state, one of them without freezing, are the same, entry by entry.
#[track_caller]
pub(crate) fn is_as_unfrozen(site: &Site, top: &Path) {
    // Between the two nothing may change, not even by the service.
    site.put("svc/toy", "trap 'rm -f \"$1/svc/pid\"; exit 0' TERM; echo $$ >\"$1/svc/pid\"\nwhile [ -e \"$1/svc\" ]; do sleep 0.05; done\n");
    for name in ["after-stop", "after-start"] {
        let _ = std::fs::remove_file(site.path("svc").join(name));
    }
    site.script("stop");
    site.script("start");
    past_the_grain();
    let one = site.snapshot(&["--freeze", "btrfs"]).expect(0);
    assert_eq!(frozen(&one), "btrfs");
    let other = site.snapshot(&["--freeze", "none", "--no-cache"]).expect(0);
    assert!(other.json["window"]["frozen"].is_null(), "{}", other.stdout);
    let (a, b) = (kept(site, &one, top), kept(site, &other, top));
    for path in a.keys().chain(b.keys()) {
        let name = String::from_utf8_lossy(path);
        assert_eq!(a.get(path), b.get(path), "{name}");
    }
    let mounts = |done: &Done| site.world.look().body(done.id()).mounts.clone();
    assert_eq!(mounts(&one), mounts(&other));
    for count in ["files", "dirs", "bytes"] {
        assert_eq!(one.count(count), other.count(count), "{count}");
    }
    let third = site.snapshot(&["--freeze", "none"]).expect(0);
    let read = ["files_new", "files_changed"].map(|name| third.count(name));
    assert_eq!(read, [0, 0], "what was read of something frozen is known");
}

#[test]
fn nested_subvolumes_and_links_are_what_they_are_without_freezing() {
    let Some(disk) = Btrfs::new() else { return };
    disk.subvolume("data");
    let site = living(&disk);
    let nested = disk.subvolume("data/apps/nested");
    disk.subvolume("data/apps/nested/inner");
    site.put("data/apps/nested/file", "nested");
    site.put("data/apps/nested/inner/file", "inner");
    std::fs::hard_link(nested.join("file"), nested.join("linked")).unwrap();
    std::fs::hard_link(site.path("data/apps/4/1/1"), site.path("data/apps/5/linked")).unwrap();
    let after =
        "\necho more >>\"$1/data/apps/nested/inner/file\"; echo 2 >\"$1/data/apps/nested/two\"\n";
    let script = std::fs::read_to_string(site.path("svc/after-stop")).unwrap();
    let script = script.replacen("\ncp -a", &format!("{after}cp -a"), 1);
    site.put("svc/after-stop", &script);
    past_the_grain();
    let done = site.snapshot(&[]).expect(0);
    assert_eq!(frozen(&done), "btrfs");
    is_of_the_stop(&site, &done);
    assert!(done.json["window"]["frozen"][0]["made"].as_str().unwrap().starts_with("3 btrfs"));
    disk.is_clean(&site);
    assert!(!disk.path(HOLDING).exists(), "the top is in no source");
    is_as_unfrozen(&site, &disk.path("data"));
    disk.is_clean(&site);
    site.is_in_order();
}

#[test]
fn the_top_of_a_file_system_is_a_source_like_any_other() {
    let Some(disk) = Btrfs::new() else { return };
    let site = living_in(&disk.path(""));
    let done = site.snapshot(&[]).expect(0);
    assert_eq!(frozen(&done), "btrfs");
    let inside = site.world.look();
    let place = crate::world::bytes(&disk.path(HOLDING));
    assert!(!inside.tree(done.id()).contains_key(&place), "it is no part of the source");
    assert!(disk.path(HOLDING).exists(), "it stays, for its going would move the top's times");
    drop(inside);
    disk.is_clean(&site);
    is_as_unfrozen(&site, &disk.path(""));
    site.is_in_order();
}

#[test]
fn two_sources_lie_in_one_subvolume_and_one_elsewhere() {
    let Some(disk) = Btrfs::new() else { return };
    let site = living(&disk);
    let second = disk.path("second");
    std::fs::create_dir(&second).unwrap();
    std::fs::write(second.join("file"), "second").unwrap();
    site.put("beside/file", "not on a btrfs");
    let after = format!(
        "{}\necho late >>{}/file; echo late >>{}/file\n",
        std::fs::read_to_string(site.path("svc/after-start")).unwrap(),
        second.display(),
        site.path("beside").display(),
    );
    site.put("svc/after-start", &after);
    past_the_grain();
    let beside = site.path("beside");
    let paths = ["--path", second.to_str().unwrap(), "--path", beside.to_str().unwrap()];
    let done = site.snapshot(&paths).expect(0);
    let frozen = &done.json["window"]["frozen"][0];
    assert_eq!(frozen["made"].as_str().unwrap().split(' ').next(), Some("1"), "{frozen}");
    assert_eq!(frozen["paths"].as_array().unwrap().len(), 2, "{frozen}");
    let inside = site.world.look();
    let tree = inside.tree(done.id());
    let content = |path: &Path| inside.bytes(&tree[&crate::world::bytes(path)]);
    assert_eq!(content(&second.join("file")), b"second");
    assert_eq!(content(&beside.join("file")), b"not on a btrfs");
    drop(inside);
    is_of_the_stop(&site, &done);
    disk.is_clean(&site);
    site.is_in_order();
}

#[test]
fn another_file_system_below_a_source_is_read_in_the_window() {
    let Some(disk) = Btrfs::new() else { return };
    let site = living(&disk);
    let Some(memory) = Mounted::new(&["-t", "tmpfs", "none"], &disk.path("data/apps/8")) else {
        skip("a tmpfs cannot be mounted here");
        return;
    };
    site.put("data/apps/8/file", "in memory");
    past_the_grain();
    let refused = site.snapshot(&["--freeze", "btrfs"]).expect(22);
    let said = refused.error()["error"]["message"].as_str().unwrap().to_owned();
    assert!(said.contains("tmpfs is mounted below it"), "{said}");
    assert!(site.calls().iter().all(|call| call != "stop"), "nothing was stopped");
    let done = site.snapshot(&[]).expect(0);
    assert!(done.json["window"]["frozen"].is_null());
    is_of_the_stop(&site, &done);
    drop(memory);
    until(10, "the service to run", || site.runs());
}

#[test]
fn the_kernels_own_mounts_below_a_source_are_left_out_as_ever() {
    let Some(disk) = Btrfs::new() else { return };
    disk.subvolume("data");
    let site = living(&disk);
    site.remove("svc/after-stop");
    let Some(proc) = Mounted::new(&["-t", "proc", "none"], &disk.path("data/apps/proc")) else {
        skip("proc cannot be mounted here");
        return;
    };
    is_as_unfrozen(&site, &disk.path("data"));
    drop(proc);
    site.is_in_order();
}

#[test]
fn a_subvolume_that_is_mounted_below_a_source_is_frozen_too() {
    let Some(disk) = Btrfs::new() else { return };
    disk.subvolume("data");
    let other = disk.subvolume("other");
    std::fs::create_dir(other.join("below")).unwrap();
    std::fs::write(other.join("below/file"), "elsewhere").unwrap();
    let site = living(&disk);
    let at = disk.path("data/apps/mounted");
    std::fs::create_dir(&at).unwrap();
    let words = ["--bind", other.join("below").to_str().unwrap().to_owned().leak()];
    let Some(mounted) = Mounted::new(&words, &at) else {
        skip("a directory cannot be mounted here");
        return;
    };
    past_the_grain();
    let done = site.snapshot(&[]).expect(0);
    assert_eq!(frozen(&done), "btrfs");
    is_of_the_stop(&site, &done);
    is_as_unfrozen(&site, &disk.path("data"));
    disk.is_clean(&site);
    drop(mounted);
    site.is_in_order();
}
