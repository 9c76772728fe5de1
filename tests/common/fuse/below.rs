//! The directory that is passed on: where each inode lies, and what it has.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};
use rustix::fs::{Mode, OFlags};

use super::Options;

/// Names under which an inode was seen, the newest last: parent and name.
type Names = Vec<(u64, OsString)>;

/// One name of a listing.
#[derive(Clone)]
pub(super) struct Listed {
    pub(super) ino: INodeNo,
    pub(super) kind: FileType,
    pub(super) name: OsString,
}

/// What is known of the directory below. Inode numbers are its own, but for the top's.
pub(super) struct Below {
    top: PathBuf,
    clock: Option<SystemTime>,
    /// Inodes that were seen, kept so that none of their numbers is given to another one: who asks
    /// for one that is gone is told so, as by a server that counts generations.
    kept: Option<RwLock<HashMap<u64, OwnedFd>>>,
    names: RwLock<HashMap<u64, Names>>,
    files: RwLock<HashMap<u64, Arc<File>>>,
    listings: RwLock<HashMap<u64, Arc<Vec<Listed>>>>,
}

fn stale() -> io::Error {
    io::Error::from(rustix::io::Errno::STALE)
}

impl Below {
    pub(super) fn new(top: &Path, options: &Options) -> io::Result<Self> {
        Ok(Self {
            top: top.canonicalize()?,
            clock: options.clock,
            kept: options.numbers_are_unique.then(RwLock::default),
            names: RwLock::default(),
            files: RwLock::default(),
            listings: RwLock::default(),
        })
    }

    fn path_by(&self, parent: u64, name: &OsStr) -> io::Result<PathBuf> {
        let mut path = self.path(INodeNo(parent))?;
        path.push(name);
        Ok(path)
    }

    /// Where a name of a directory lies.
    pub(super) fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        self.path_by(parent.0, name)
    }

    /// Where an inode lies, if it still does.
    pub(super) fn path(&self, ino: INodeNo) -> io::Result<PathBuf> {
        if ino == INodeNo::ROOT {
            return Ok(self.top.clone());
        }
        let names = self.names.read().unwrap().get(&ino.0).cloned().unwrap_or_default();
        for (parent, name) in names.iter().rev() {
            let path = self.path_by(*parent, name)?;
            if std::fs::symlink_metadata(&path).is_ok_and(|m| m.ino() == ino.0) {
                return Ok(path);
            }
        }
        Err(stale())
    }

    /// The last name under which an inode was seen; empty for the top.
    pub(super) fn name(&self, ino: INodeNo) -> OsString {
        let names = self.names.read().unwrap();
        names.get(&ino.0).and_then(|names| names.last()).map_or_else(OsString::new, |n| n.1.clone())
    }

    /// Notes a name of an inode.
    pub(super) fn learn(&self, ino: INodeNo, parent: INodeNo, name: &OsStr) {
        let mut names = self.names.write().unwrap();
        let of_inode = names.entry(ino.0).or_default();
        of_inode.retain(|(p, n)| (*p, n.as_os_str()) != (parent.0, name));
        of_inode.push((parent.0, name.to_owned()));
        drop(names);
        if let Some(kept) = self.kept.as_ref().filter(|k| !k.read().unwrap().contains_key(&ino.0)) {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = self.child(parent, name).and_then(|path| {
                let fd = rustix::fs::open(path, flags, Mode::empty())?;
                Ok((rustix::fs::fstat(&fd)?.st_ino, fd))
            });
            if let Ok((number, fd)) = opened {
                kept.write().unwrap().insert(number, fd);
            }
        }
    }

    /// What is under a name, which is noted.
    pub(super) fn look(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let meta = std::fs::symlink_metadata(self.child(parent, name)?)?;
        let attr = self.attributes(&meta);
        self.learn(attr.ino, parent, name);
        Ok(attr)
    }

    /// What an inode has now.
    pub(super) fn stat(&self, ino: INodeNo) -> io::Result<FileAttr> {
        Ok(self.attributes(&std::fs::symlink_metadata(self.path(ino)?)?))
    }

    /// What the kernel is told of an inode.
    pub(super) fn attributes(&self, meta: &Metadata) -> FileAttr {
        let attr = attributes(meta);
        match self.clock {
            Some(clock) => FileAttr { mtime: clock, ctime: clock, ..attr },
            None => attr,
        }
    }

    pub(super) fn keep_file(&self, file: File) -> u64 {
        let mut files = self.files.write().unwrap();
        let handle = (1..).find(|handle| !files.contains_key(handle)).unwrap();
        files.insert(handle, Arc::new(file));
        handle
    }

    pub(super) fn file(&self, handle: u64) -> io::Result<Arc<File>> {
        self.files.read().unwrap().get(&handle).cloned().ok_or_else(stale)
    }

    pub(super) fn close(&self, handle: u64) {
        self.files.write().unwrap().remove(&handle);
    }

    /// Reads a directory as a whole, and keeps that until it is closed.
    pub(super) fn list(&self, ino: INodeNo) -> io::Result<u64> {
        let mut listed = Vec::new();
        for (name, ino) in [(".", ino), ("..", ino)] {
            listed.push(Listed { ino, kind: FileType::Directory, name: name.into() });
        }
        for entry in std::fs::read_dir(self.path(ino)?)? {
            let entry = entry?;
            let kind = kind(entry.file_type()?);
            let ino = INodeNo(std::os::unix::fs::DirEntryExt::ino(&entry));
            listed.push(Listed { ino, kind, name: entry.file_name() });
        }
        let mut listings = self.listings.write().unwrap();
        let handle = (1..).find(|handle| !listings.contains_key(handle)).unwrap();
        listings.insert(handle, Arc::new(listed));
        Ok(handle)
    }

    pub(super) fn listing(&self, handle: u64) -> io::Result<Arc<Vec<Listed>>> {
        self.listings.read().unwrap().get(&handle).cloned().ok_or_else(stale)
    }

    pub(super) fn close_listing(&self, handle: u64) {
        self.listings.write().unwrap().remove(&handle);
    }
}

fn kind(of: std::fs::FileType) -> FileType {
    if of.is_dir() {
        FileType::Directory
    } else if of.is_symlink() {
        FileType::Symlink
    } else if of.is_fifo() {
        FileType::NamedPipe
    } else if of.is_socket() {
        FileType::Socket
    } else if of.is_char_device() {
        FileType::CharDevice
    } else if of.is_block_device() {
        FileType::BlockDevice
    } else {
        FileType::RegularFile
    }
}

fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let fine = Duration::from_nanos(u64::try_from(nanoseconds).unwrap());
    match u64::try_from(seconds) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds) + fine,
        Err(_) => UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()) + fine,
    }
}

fn attributes(meta: &Metadata) -> FileAttr {
    FileAttr {
        ino: INodeNo(meta.ino()),
        size: meta.size(),
        blocks: meta.blocks(),
        atime: time(meta.atime(), meta.atime_nsec()),
        mtime: time(meta.mtime(), meta.mtime_nsec()),
        ctime: time(meta.ctime(), meta.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: kind(meta.file_type()),
        perm: u16::try_from(meta.mode() & 0o7777).unwrap(),
        nlink: u32::try_from(meta.nlink()).unwrap(),
        uid: meta.uid(),
        gid: meta.gid(),
        rdev: u32::try_from(meta.rdev()).unwrap_or(0),
        blksize: 4096,
        flags: 0,
    }
}
