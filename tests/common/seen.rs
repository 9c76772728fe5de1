//! What an inode has, seen by plain system calls on a disk or as the repository keeps it, and the
//! comparison of the two.

#![allow(dead_code, reason = "each file of tests uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use cabk::format::tree::{Entry, Layout, Node, StretchMap, Xattrs, decode_xattrs};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat};

use crate::world::Inside;

/// Flags that are compared: immutable, append only, no dump, no access times, synchronous.
const FLAGS: u32 = 0x10 | 0x20 | 0x40 | 0x80 | 0x8;
const BLOCK: usize = 4096;

/// One inode under one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) kind: &'static str,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, u32),
    pub(crate) size: u64,
    /// Of devices.
    pub(crate) rdev: (u32, u32),
    /// Of symbolic links.
    pub(crate) target: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) flags: u32,
    /// Of all blocks that are not zero, with their places.
    pub(crate) hash: String,
    /// Equal for names of one inode.
    pub(crate) link: Option<(u64, u64)>,
    /// Bytes between holes, where that is compared.
    pub(crate) data: Vec<(u64, u64)>,
    /// Bytes allocated, of a disk.
    pub(crate) allocated: u64,
}

/// A hash of content that does not depend on what is a hole.
struct Hash {
    hasher: blake3::Hasher,
    block: Vec<u8>,
    at: u64,
}

impl Hash {
    fn new() -> Self {
        Self { hasher: blake3::Hasher::new(), block: Vec::new(), at: 0 }
    }

    fn add(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = usize::try_from(offset % BLOCK as u64).unwrap();
            if offset - within as u64 != self.at {
                self.flush();
                self.at = offset - within as u64;
            }
            self.block.resize(within, 0);
            let n = bytes.len().min(BLOCK - within);
            self.block.extend_from_slice(&bytes[..n]);
            (offset, bytes) = (offset + n as u64, &bytes[n..]);
        }
    }

    fn flush(&mut self) {
        if self.block.iter().any(|b| *b != 0) {
            self.block.resize(BLOCK, 0);
            self.hasher.update(&self.at.to_le_bytes());
            self.hasher.update(&self.block);
        }
        self.block.clear();
    }

    fn finish(mut self) -> String {
        self.flush();
        self.hasher.finalize().to_hex().to_string()
    }
}

/// All that is below a directory of a disk, and itself as the empty path; walked by descriptors, so
/// that a tree may be deeper than a path is long.
pub(crate) fn disk(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut all = BTreeMap::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(root, flags, Mode::empty()).unwrap();
    all.insert(Vec::new(), directory(&top));
    below(&top, &mut Vec::new(), &mut all);
    all
}

fn directory(dir: &OwnedFd) -> Seen {
    let stat = rustix::fs::fstat(dir).unwrap();
    let mut seen = inode(&stat);
    seen.xattrs = xattrs(&own(dir), true).unwrap();
    seen.flags = inode_flags(dir);
    seen
}

fn below(dir: &OwnedFd, path: &mut Vec<u8>, all: &mut BTreeMap<Vec<u8>, Seen>) {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for one in Dir::read_from(dir).unwrap() {
        let name = one.unwrap().file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let len = path.len();
        path.push(b'/');
        path.extend_from_slice(&name);
        let stat = rustix::fs::statat(dir, &name[..], AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let seen = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = flags | OFlags::DIRECTORY;
                let inner = rustix::fs::openat(dir, &name[..], flags, Mode::empty()).unwrap();
                below(&inner, path, all);
                directory(&inner)
            }
            FileType::RegularFile => {
                let file = rustix::fs::openat(dir, &name[..], flags, Mode::empty()).unwrap();
                regular(&file, &stat)
            }
            _ => special(dir, &name, &stat),
        };
        all.insert(path.clone(), seen);
        path.truncate(len);
    }
}

fn inode(stat: &Stat) -> Seen {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "file",
        FileType::Directory => "dir",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "chr",
        FileType::BlockDevice => "blk",
        other => panic!("{other:?}"),
    };
    let dev = stat.st_rdev;
    let is_device = matches!(kind, "chr" | "blk");
    Seen {
        kind,
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap()),
        size: if kind == "file" { u64::try_from(stat.st_size).unwrap() } else { 0 },
        rdev: if is_device { (rustix::fs::major(dev), rustix::fs::minor(dev)) } else { (0, 0) },
        target: Vec::new(),
        xattrs: BTreeMap::new(),
        flags: 0,
        hash: String::new(),
        link: (kind != "dir" && stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino)),
        data: Vec::new(),
        allocated: u64::try_from(stat.st_blocks).unwrap() * 512,
    }
}

fn regular(file: &OwnedFd, stat: &Stat) -> Seen {
    let mut seen = inode(stat);
    seen.xattrs = xattrs(&own(file), true).unwrap();
    seen.flags = inode_flags(file);
    let mut hash = Hash::new();
    let mut buffer = vec![0; 1 << 20];
    let mut end = 0;
    while let Ok(from) = rustix::fs::seek(file, SeekFrom::Data(end)) {
        end = rustix::fs::seek(file, SeekFrom::Hole(from)).unwrap();
        seen.data.push((from, end - from));
        let mut at = from;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let n = rustix::io::pread(file, &mut buffer[..want], at).unwrap();
            assert!(n > 0);
            hash.add(at, &buffer[..n]);
            at += n as u64;
        }
    }
    seen.hash = hash.finish();
    seen
}

fn special(dir: &OwnedFd, name: &[u8], stat: &Stat) -> Seen {
    let mut seen = inode(stat);
    seen.xattrs = xattrs(&[&own(dir), &b"/"[..], name].concat(), false).unwrap();
    if seen.kind == "symlink" {
        seen.target = rustix::fs::readlinkat(dir, name, Vec::new()).unwrap().into_bytes();
    }
    seen
}

fn inode_flags(fd: impl AsFd) -> u32 {
    rustix::fs::ioctl_getflags(fd).map_or(0, |flags| flags.bits() & FLAGS)
}

fn own(fd: &OwnedFd) -> Vec<u8> {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes()
}

fn xattrs(path: &[u8], follows: bool) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut list = vec![0; 64 << 10];
    let listed = if follows {
        rustix::fs::listxattr(path, &mut list[..])
    } else {
        rustix::fs::llistxattr(path, &mut list[..])
    };
    let len = match listed {
        Ok(len) => len,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut all = BTreeMap::new();
    for name in list[..len].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let len = if follows {
            rustix::fs::getxattr(path, name, &mut value[..])?
        } else {
            rustix::fs::lgetxattr(path, name, &mut value[..])?
        };
        value.truncate(len);
        all.insert(name.to_vec(), value);
    }
    Ok(all)
}

/// What the repository keeps below an absolute path, by the rest of the path.
pub(crate) fn kept(inside: &Inside, id: &str, root: &[u8]) -> BTreeMap<Vec<u8>, Seen> {
    let mut all = BTreeMap::new();
    for (path, entry) in inside.tree(id) {
        if let Some(rest) = path.strip_prefix(root)
            && (rest.is_empty() || rest[0] == b'/')
        {
            all.insert(rest.to_vec(), entry_seen(inside, &entry));
        }
    }
    all
}

fn entry_seen(inside: &Inside, entry: &Entry) -> Seen {
    let meta = &entry.meta;
    let mut seen = Seen {
        kind: "dir",
        mode: meta.mode,
        owner: (meta.uid, meta.gid),
        mtime: (meta.mtime.secs, meta.mtime.nanos),
        size: 0,
        rdev: (0, 0),
        target: Vec::new(),
        xattrs: match &meta.xattrs {
            Xattrs::Inline(list) => list.iter().cloned().collect(),
            Xattrs::Content(content) => {
                let bytes = inside.reader.content(content, 16 << 20).unwrap();
                decode_xattrs(&bytes).unwrap().into_iter().collect()
            }
        },
        flags: meta.flags.unwrap_or(0) & FLAGS,
        hash: String::new(),
        link: meta.link.map(|group| (0, group)),
        data: Vec::new(),
        allocated: 0,
    };
    match &entry.node {
        Node::File { size, layout, .. } => {
            (seen.kind, seen.size) = ("file", *size);
            let mut hash = Hash::new();
            inside.each_stretch(entry, &mut |offset, bytes| hash.add(offset, bytes));
            seen.hash = hash.finish();
            seen.data = match layout {
                Layout::Dense => [(0, *size)].into_iter().filter(|(_, len)| *len > 0).collect(),
                Layout::Sparse { map: StretchMap::Inline(list), .. } => {
                    list.iter().filter(|s| !s.unwritten).map(|s| (s.offset, s.len)).collect()
                }
                Layout::Sparse { .. } => Vec::new(),
            };
        }
        Node::Dir { .. } => {}
        Node::Symlink { target } => (seen.kind, seen.target) = ("symlink", target.clone()),
        Node::Fifo => seen.kind = "fifo",
        Node::Socket => seen.kind = "socket",
        Node::CharDevice { rdev } => (seen.kind, seen.rdev) = ("chr", *rdev),
        Node::BlockDevice { rdev } => (seen.kind, seen.rdev) = ("blk", *rdev),
    }
    seen
}

/// What is compared beside what always is.
#[derive(Clone, Copy, Default)]
pub(crate) struct Also {
    /// Where data lies between holes.
    pub(crate) layout: bool,
}

/// Every difference of two trees, a line each.
pub(crate) fn differences(
    left: &BTreeMap<Vec<u8>, Seen>,
    right: &BTreeMap<Vec<u8>, Seen>,
    also: Also,
) -> Vec<String> {
    let mut found = Vec::new();
    let paths: BTreeSet<&Vec<u8>> = left.keys().chain(right.keys()).collect();
    for path in paths {
        let name = short(path);
        let (a, b) = match (left.get(path), right.get(path)) {
            (Some(a), Some(b)) => (a, b),
            (Some(_), None) => {
                found.push(format!("{name}: only left"));
                continue;
            }
            _ => {
                found.push(format!("{name}: only right"));
                continue;
            }
        };
        let plain = |s: &Seen| Seen {
            link: None,
            allocated: 0,
            data: if also.layout { s.data.clone() } else { Vec::new() },
            ..s.clone()
        };
        let (x, y) = (plain(a), plain(b));
        if x != y {
            found.push(format!("{name}:\n  left  {x:?}\n  right {y:?}"));
        }
    }
    let (a, b) = (groups(left), groups(right));
    if a != b {
        let only = a.symmetric_difference(&b);
        let names =
            only.map(|group| group.iter().map(|p| short(p)).collect::<Vec<_>>().join(" = "));
        found.push(format!("hard links differ: {}", names.collect::<Vec<_>>().join("; ")));
    }
    found
}

fn short(path: &[u8]) -> String {
    let text = path.escape_ascii().to_string();
    if text.len() > 300 { format!("{}...{}", &text[..60], &text[text.len() - 40..]) } else { text }
}

/// Names of one inode, more than one of them below the root.
fn groups(all: &BTreeMap<Vec<u8>, Seen>) -> BTreeSet<Vec<Vec<u8>>> {
    let mut by_link: BTreeMap<(u64, u64), Vec<Vec<u8>>> = BTreeMap::new();
    for (path, seen) in all {
        if let Some(link) = seen.link {
            by_link.entry(link).or_default().push(path.clone());
        }
    }
    by_link.into_values().filter(|paths| paths.len() > 1).collect()
}
