//! Trees are read into a repository in memory by a small reader of their own, restored, read again
//! and compared entry by entry: content, attributes and holes.

mod in_place;
mod safety;
mod site;
mod target;

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::*;
use crate::base::path::join;
use crate::host::users::MapOwners;
use crate::ops::progress::Silent;
use site::Site;

/// Says why a test, or a part of one, is not run.
fn skipped(reason: &str) {
    eprintln!("skipped: {reason}");
    if let Some(log) = std::env::var_os("CABK_SKIP_LOG") {
        use std::io::Write;
        let mut log = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
        log.write_all(format!("skipped: {reason}\n").as_bytes()).unwrap();
    }
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

static NOBODY: std::sync::LazyLock<MapOwners> = std::sync::LazyLock::new(MapOwners::default);
static CALM: std::sync::LazyLock<Interrupt> = std::sync::LazyLock::new(Interrupt::manual);

fn input<'a>(site: &'a Site, snapshot: &'a Snapshot, target: Target) -> RestoreInput<'a> {
    RestoreInput {
        reader: &site.reader,
        snapshot,
        subtree: None,
        target,
        include: vec![],
        exclude: vec![],
        kept: vec![],
        delete: false,
        keep_extra: false,
        numeric_ids: true,
        map_user: vec![],
        map_group: vec![],
        owners: &*NOBODY,
        host: "here",
        with_license: false,
        dry_run: false,
        verify: true,
        interrupt: &CALM,
        progress: &Silent,
        threads: 2,
    }
}

/// Where a source ends below a target.
fn below(target: &Path, source: &Path) -> std::path::PathBuf {
    target.join(source.strip_prefix("/").unwrap())
}

/// A tree with everything that this process may make.
fn hard_tree(root: &Path) -> io::Result<()> {
    use crate::base::time::Timestamp;
    use crate::host::fs::{InodeKind, TargetDir};
    std::fs::create_dir_all(root)?;
    let dir = TargetDir::open_root(path_bytes(root))?;
    let time = |n: i64| Timestamp { secs: 1_000_000_000 + n, nanos: 123_456_789 };
    for (n, len) in [0usize, 1, 100, 70_000, 300_000].into_iter().enumerate() {
        let name = format!("file-{len}").into_bytes();
        let file = dir.create_file(&name)?;
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251 + n) as u8).collect();
        file.write_at(&bytes, 0)?;
        file.chmod(0o640)?;
        file.set_times(Timestamp { secs: -5, ..time(0) })?;
    }
    std::fs::write(root.join("odd\n\u{1b}[name"), b"odd")?;
    dir.create_file(b"not-utf8-\xff\xfe")?.write_at(b"x", 0)?;
    let sparse = dir.create_file(b"sparse")?;
    sparse.write_at(&[7; 8192], 1 << 20)?;
    sparse.write_at(&[0; 4096], 2 << 20)?;
    sparse.set_len(64 << 20)?;
    let allocated = dir.create_file(b"allocated")?;
    allocated.write_at(&[9; 4096], 0)?;
    for (offset, len) in [(1 << 16, 1 << 16), (1 << 20, 1 << 16)] {
        if let Err(e) = allocated.allocate(offset, len, true) {
            skipped(&format!("no fallocate here: {e}"));
        }
    }
    dir.symlink(b"nowhere/\xff", b"dangling")?;
    dir.set_times(b"dangling", time(2))?;
    dir.mknod(b"fifo", InodeKind::Fifo, 0o620, (0, 0))?;
    dir.socket(b"socket")?;
    std::fs::create_dir(root.join("sub"))?;
    let sub = dir.open_dir(b"sub")?;
    dir.hard_link(b"file-100", &sub, b"again")?;
    dir.hard_link(b"fifo", &sub, b"fifo-again")?;
    dir.hard_link(b"dangling", &sub, b"dangling-again")?;
    sub.make_dir(b"empty", 0o711)?;
    let plain = dir.open_file_rw(b"file-70000")?;
    plain.set_xattr(b"user.note", b"\0binary")?;
    plain.set_xattr(b"user.long", &[5; 3000])?;
    if crate::host::machine::is_root() {
        only_root(&dir, &sub)?;
    } else {
        skipped("owners, devices, capabilities and locked inodes need root");
    }
    sub.chmod_self(0o2550)?;
    sub.set_times_self(time(3))?;
    dir.set_times_self(time(4))?;
    Ok(())
}

fn only_root(dir: &crate::host::fs::TargetDir, sub: &crate::host::fs::TargetDir) -> io::Result<()> {
    use crate::host::fs::InodeKind;
    dir.mknod(b"null", InodeKind::CharDevice, 0o666, (1, 3))?;
    dir.mknod(b"block", InodeKind::BlockDevice, 0o600, (7, 200))?;
    let owned = dir.create_file(b"owned")?;
    owned.write_at(b"#!/bin/sh\n", 0)?;
    owned.chown(12_345, 54_321)?;
    owned.chmod(0o6755)?;
    dir.chown(b"dangling", 12, 13)?;
    let capable = dir.create_file(b"capable")?;
    capable.write_at(b"x", 0)?;
    capable.chown(77, 78)?;
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    capable.set_xattr(b"security.capability", &capability)?;
    capable.set_xattr(b"trusted.mark", b"t")?;
    // An ACL: user::rw-, user:99:r--, group::r--, mask::r--, other::---.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, perm, id) in
        [(1u16, 6u16, u32::MAX), (2, 4, 99), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&perm.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    for done in [
        capable.set_xattr(b"system.posix_acl_access", &acl),
        sub.set_xattr_self(b"system.posix_acl_default", &acl),
    ] {
        if let Err(e) = done {
            skipped(&format!("no ACLs here: {e}"));
        }
    }
    let locked = dir.create_file(b"locked")?;
    locked.write_at(b"locked", 0)?;
    dir.hard_link(b"locked", sub, b"locked-again")?;
    dir.make_dir(b"frozen", 0o755)?;
    dir.open_dir(b"frozen")?.create_file(b"inside")?;
    for name in [&b"locked"[..], b"frozen"] {
        if let Err(e) = dir.set_flags(name, 0x10) {
            skipped(&format!("no inode flags here: {e}"));
        }
    }
    Ok(())
}

/// A temporary directory in which nothing stays locked.
struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn join(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        unlock(self.dir.path());
    }
}

fn unlock(path: &Path) {
    let Ok(dir) = crate::host::fs::TargetDir::open_root(path_bytes(path)) else { return };
    let mut stack = vec![dir];
    while let Some(dir) = stack.pop() {
        for name in dir.names().unwrap_or_default() {
            let Ok(stat) = dir.stat(&name.name) else { continue };
            use crate::host::fs::InodeKind::{Dir, File};
            if matches!(stat.kind, File | Dir) {
                // What has no flags needs no unlocking.
                let _ = dir.set_flags(&name.name, 0);
            }
            if stat.kind == Dir {
                stack.extend(dir.open_dir(&name.name));
            }
        }
    }
}

fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    join(parent, name)
}
