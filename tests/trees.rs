//! A tree of all that backups tend to lose, on real file systems: snapshot, restore, and every
//! attribute of every name compared by plain system calls.

mod common;
#[path = "common/seen.rs"]
mod seen;
#[path = "common/world.rs"]
mod world;

#[path = "trees/broad.rs"]
mod broad;

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, IFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags,
    linkat, lsetxattr, makedev, mkdirat, mknodat, openat, setxattr, utimensat,
};

use common::skip;
use seen::{Also, differences, disk, kept};
use world::{Mounted, World, bytes, is_root, past_the_grain};

/// A file system of an image in a world's directory.
fn mounted(world: &World, fs: &str) -> Option<Mounted> {
    if !is_root() {
        skip("loop mounts take root");
        return None;
    }
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
    mounted
}

fn times(path: &Path, atime: (i64, i64), mtime: (i64, i64)) {
    let spec = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// An ACL as the kernel takes it: (tag, permissions, id).
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut all = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        all.extend(tag.to_le_bytes());
        all.extend(permissions.to_le_bytes());
        all.extend(id.to_le_bytes());
    }
    all
}

fn attributes(at: &Path) {
    let none = XattrFlags::empty();
    let file = at.join("attributes");
    std::fs::write(&file, "x").unwrap();
    let all: Vec<u8> = (0..=255).collect();
    let long = vec![b'z'; 2_000];
    let list: [(&str, &[u8]); 5] = [
        ("user.a", b"v"),
        ("user.empty", b""),
        ("user.binary", &all),
        ("trusted.t", b"root"),
        ("user.long", &long),
    ];
    for (name, value) in list {
        setxattr(&file, name, value, none).unwrap();
    }
    let acls = at.join("acl");
    std::fs::write(&acls, "x").unwrap();
    const NOBODY: u32 = u32::MAX;
    let access = [
        (1, 6, NOBODY),
        (2, 6, 33),
        (4, 4, NOBODY),
        (8, 4, 44),
        (0x10, 6, NOBODY),
        (0x20, 4, NOBODY),
    ];
    setxattr(&acls, "system.posix_acl_access", &acl(&access), none).unwrap();
    let dir = at.join("default-acl");
    std::fs::create_dir(&dir).unwrap();
    let default =
        [(1, 7, NOBODY), (2, 7, 33), (4, 5, NOBODY), (0x10, 7, NOBODY), (0x20, 0, NOBODY)];
    setxattr(&dir, "system.posix_acl_default", &acl(&default), none).unwrap();
    let capable = at.join("capable");
    std::fs::write(&capable, "x").unwrap();
    chown(&capable, Some(1000), Some(1000)).unwrap();
    // Version 2, effective; CAP_NET_RAW permitted.
    let mut caps = 0x0200_0001u32.to_le_bytes().to_vec();
    caps.extend((1u32 << 13).to_le_bytes());
    caps.resize(20, 0);
    setxattr(&capable, "security.capability", &caps, none).unwrap();
}

fn links(at: &Path) {
    std::fs::write(at.join("hard1"), "hard").unwrap();
    std::fs::create_dir(at.join("sub")).unwrap();
    std::fs::hard_link(at.join("hard1"), at.join("hard2")).unwrap();
    std::fs::hard_link(at.join("hard1"), at.join("sub/hard3")).unwrap();
    symlink("plain", at.join("link")).unwrap();
    lchown(at.join("link"), Some(7), Some(8)).unwrap();
    lsetxattr(at.join("link"), "trusted.on-a-link", b"1", XattrFlags::empty()).unwrap();
    times(&at.join("link"), (0, 1), (1_333_333_333, 111_222_333));
    linkat(CWD, at.join("link"), CWD, at.join("link-again"), AtFlags::empty()).unwrap();
    symlink(format!("/nonexistent/{}", "y".repeat(1_000)), at.join("long-link")).unwrap();
    let rw = Mode::from_raw_mode(0o640);
    mknodat(CWD, at.join("fifo"), FileType::Fifo, rw, 0).unwrap();
    linkat(CWD, at.join("fifo"), CWD, at.join("fifo-again"), AtFlags::empty()).unwrap();
    mknodat(CWD, at.join("socket"), FileType::Socket, rw, 0).unwrap();
    mknodat(CWD, at.join("chr"), FileType::CharacterDevice, rw, makedev(10, 200)).unwrap();
    mknodat(CWD, at.join("blk"), FileType::BlockDevice, rw, makedev(253, 70_000)).unwrap();
}

fn holes(at: &Path) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(at.join("hole-first")).unwrap();
    file.write_all_at(b"end", 1 << 30).unwrap();
    let file = std::fs::File::create(at.join("hole-last")).unwrap();
    file.write_all_at(&[b'a'; 4096], 0).unwrap();
    file.set_len(1 << 28).unwrap();
    let file = std::fs::File::create(at.join("many-holes")).unwrap();
    for n in 0..200 {
        file.write_all_at(&[b'm'; 4096], n * 65_536).unwrap();
    }
    std::fs::write(at.join("zeros"), vec![0; 8 << 20]).unwrap();
    let file = std::fs::File::create(at.join("preallocated")).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 4 << 20).unwrap();
    file.write_all_at(b"data", 1 << 20).unwrap();
}

fn flags(at: &Path) {
    let all = [
        ("immutable", IFlags::IMMUTABLE),
        ("append", IFlags::APPEND),
        ("no-dump", IFlags::NODUMP),
        ("no-times", IFlags::NOATIME),
    ];
    for (name, flag) in all {
        std::fs::write(at.join(name), name).unwrap();
        let file = std::fs::File::open(at.join(name)).unwrap();
        let now = rustix::fs::ioctl_getflags(&file).unwrap();
        rustix::fs::ioctl_setflags(&file, now | flag).unwrap();
    }
    std::fs::create_dir(at.join("immutable-dir")).unwrap();
    std::fs::write(at.join("immutable-dir/within"), "x").unwrap();
    let dir = std::fs::File::open(at.join("immutable-dir")).unwrap();
    let now = rustix::fs::ioctl_getflags(&dir).unwrap();
    rustix::fs::ioctl_setflags(&dir, now | IFlags::IMMUTABLE).unwrap();
}

/// Deeper than a path may be long.
fn deep(at: &Path) {
    let name = "d".repeat(120);
    std::fs::create_dir(at.join("deep")).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir: OwnedFd = openat(CWD, at.join("deep"), flags, Mode::empty()).unwrap();
    for _ in 0..45 {
        mkdirat(&dir, &name, Mode::from_raw_mode(0o751)).unwrap();
        dir = openat(&dir, &name, flags, Mode::empty()).unwrap();
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = openat(dir.as_fd(), "leaf", flags, Mode::from_raw_mode(0o600)).unwrap();
    rustix::io::write(&file, b"at the bottom").unwrap();
}

fn names_modes_and_times(at: &Path) {
    let write = |name: &str| {
        std::fs::write(at.join(name), name).unwrap();
        at.join(name)
    };
    times(&write("plain"), (1_111_111_111, 123_456_789), (1_222_222_222, 987_654_321));
    times(&write("before-1970"), (-1_500_000_001, 876_543_211), (-86_401, 999_999_999));
    times(&write("in-2100"), (4_102_444_800, 1), (4_102_444_800, 1));
    let suid = write("suid");
    chown(&suid, Some(12_345), Some(54_321)).unwrap();
    mode(&suid, 0o6755);
    mode(&write("sticky"), 0o1644);
    mode(&write("mode-000"), 0);
    chown(write("large-ids"), Some(4_294_967_290), Some(4_294_967_291)).unwrap();
    let long = "n".repeat(255);
    let names: [&[u8]; 12] = [
        b"\xff\xfe bad utf8 \x80",
        b"new\nline",
        b" lead",
        b"-dash",
        b"tab\t",
        b"quote\"'\\",
        b"*glob[?]",
        long.as_bytes(),
        "\u{e9}".as_bytes(),
        "e\u{301}".as_bytes(),
        b"CON",
        b"trail.",
    ];
    for name in names {
        std::fs::write(at.join(OsStr::from_bytes(name)), name).unwrap();
    }
    for (name, bits) in [("setgid", 0o2775), ("read-only", 0o555), ("closed", 0)] {
        std::fs::create_dir(at.join(name)).unwrap();
        std::fs::write(at.join(name).join("within"), "x").unwrap();
        mode(&at.join(name), bits);
    }
    std::fs::create_dir(at.join("old")).unwrap();
    std::fs::write(at.join("old/file"), "x").unwrap();
    times(&at.join("old"), (1_000_000_000, 7), (1_000_000_000, 7));
    std::fs::create_dir(at.join("empty")).unwrap();
}

fn hard_tree(at: &Path) {
    std::fs::create_dir(at).unwrap();
    names_modes_and_times(at);
    attributes(at);
    links(at);
    holes(at);
    deep(at);
    flags(at);
    times(at, (1_500_000_000, 5), (1_600_000_000, 6));
}

fn comes_back(fs: &str) {
    let world = World::new();
    let Some(disk_of) = mounted(&world, fs) else { return };
    let tree = disk_of.path().join("tree");
    hard_tree(&tree);
    rustix::fs::sync();
    past_the_grain();
    let path = tree.to_str().unwrap();
    let done = world.snapshot(&["--path", path]).expect(0);
    assert_eq!(done.json["problems"], serde_json::json!([]));
    let source = disk(&tree);
    let inside = world.look();
    let found = differences(&source, &kept(&inside, done.id(), &bytes(&tree)), Also::default());
    assert!(found.is_empty(), "{fs}, kept: {}", found.join("\n"));

    let target = disk_of.path().join("target");
    let words = ["restore", done.id(), "--target", target.to_str().unwrap(), "--numeric-ids"];
    let restored = world.run(&[&words[..], &["--verify", "--json"]].concat()).expect(0);
    assert_eq!(restored.json["problems"], serde_json::json!([]));
    rustix::fs::sync();
    let copy = disk(&target.join(tree.strip_prefix("/").unwrap()));
    let found = differences(&source, &copy, Also { layout: true });
    assert!(found.is_empty(), "{fs}, restored: {}", found.join("\n"));
    for name in [&b"/preallocated"[..], b"/zeros"] {
        let (was, is) = (source[name].allocated, copy[name].allocated);
        assert!(is >= was, "{fs}: {is} of {was} bytes allocated");
    }
    // What was restored is a source like any other, and all its content is known.
    let before = world.pack_bytes();
    let again = world.snapshot(&["--path", target.to_str().unwrap()]).expect(0);
    assert_eq!(again.count("files"), done.count("files"));
    assert!(world.pack_bytes() - before < 30_000, "{}", world.pack_bytes() - before);
    // A time in the future is never old enough to be believed: that one file is read again.
    let unchanged = world.snapshot(&["--path", path]).expect(0);
    assert_eq!(unchanged.count("files_unmodified"), done.count("files") - 1);
    assert_eq!(unchanged.count("files_changed"), 1);
}

#[test]
fn everything_comes_back_on_ext4() {
    comes_back("ext4");
}

#[test]
fn everything_comes_back_on_xfs() {
    comes_back("xfs");
}

#[test]
fn everything_comes_back_on_btrfs() {
    comes_back("btrfs");
}
