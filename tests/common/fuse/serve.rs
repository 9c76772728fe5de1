//! The calls of the kernel, each passed to the directory below.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, XattrFlags};

use super::below::Below;
use super::{Op, Options, Shared};

const FIRST: Generation = Generation(0);

/// A directory that is passed on.
pub(super) struct Passed {
    below: Arc<Below>,
    shared: Arc<Shared>,
    options: Options,
}

impl Passed {
    pub(super) fn new(below: &Path, options: &Options, shared: Arc<Shared>) -> io::Result<Self> {
        Ok(Self { below: Arc::new(Below::new(below, options)?), shared, options: options.clone() })
    }

    /// Answers a call for a name with an inode's attributes.
    fn entry(&self, op: Op, parent: INodeNo, name: &OsStr, made: io::Result<()>, to: ReplyEntry) {
        let found = made.and_then(|()| self.below.look(parent, name));
        // For its own inode number the kernel knows the top under another.
        let ttl = self.options.ttl;
        self.shared.serve(op, name, move |fine| match fine.and(found) {
            Ok(attr) => to.entry(&ttl, &attr, FIRST),
            Err(e) => to.error(Errno::from(e)),
        });
    }

    fn attr(&self, op: Op, ino: INodeNo, found: io::Result<FileAttr>, to: ReplyAttr) {
        let ttl = self.options.ttl;
        self.shared.serve(op, &self.below.name(ino), move |fine| match fine.and(found) {
            Ok(attr) => to.attr(&ttl, &attr),
            Err(e) => to.error(Errno::from(e)),
        });
    }

    fn done(&self, op: Op, name: &OsStr, done: io::Result<()>, to: ReplyEmpty) {
        self.shared.serve(op, name, move |fine| match fine.and(done) {
            Ok(()) => to.ok(),
            Err(e) => to.error(Errno::from(e)),
        });
    }

    fn xattr(&self, ino: INodeNo, size: u32, found: io::Result<Vec<u8>>, to: ReplyXattr) {
        self.shared.serve(Op::Xattr, &self.below.name(ino), move |fine| match fine.and(found) {
            Ok(value) if size == 0 => to.size(u32::try_from(value.len()).unwrap()),
            Ok(value) if value.len() > size as usize => to.error(Errno::ERANGE),
            Ok(value) => to.data(&value),
            Err(e) => to.error(Errno::from(e)),
        });
    }

    fn opened(&self) -> FopenFlags {
        let mut flags = FopenFlags::FOPEN_NOFLUSH;
        flags.set(FopenFlags::FOPEN_KEEP_CACHE, self.options.keep_content);
        flags
    }

    fn set(
        &self,
        ino: INodeNo,
        mode: Option<u32>,
        owner: (Option<u32>, Option<u32>),
        size: Option<u64>,
        times: (Option<TimeOrNow>, Option<TimeOrNow>),
    ) -> io::Result<FileAttr> {
        let path = self.below.path(ino)?;
        if let Some(mode) = mode {
            rustix::fs::chmod(&path, Mode::from_raw_mode(mode & 0o7777))?;
        }
        if owner != (None, None) {
            std::os::unix::fs::lchown(&path, owner.0, owner.1)?;
        }
        if let Some(size) = size {
            File::options().write(true).open(&path)?.set_len(size)?;
        }
        if times.0.is_some() || times.1.is_some() {
            let stamps =
                Timestamps { last_access: stamp(times.0), last_modification: stamp(times.1) };
            rustix::fs::utimensat(CWD, &path, &stamps, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        self.below.stat(ino)
    }
}

fn stamp(time: Option<TimeOrNow>) -> Timespec {
    let whole = |time: SystemTime| match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => {
            (i64::try_from(after.as_secs()).unwrap(), rustix::fs::Nsecs::from(after.subsec_nanos()))
        }
        Err(before) => (-i64::try_from(before.duration().as_secs()).unwrap(), 0),
    };
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => {
            let (tv_sec, tv_nsec) = whole(time);
            Timespec { tv_sec, tv_nsec }
        }
    }
}

/// A buffer that is as large as the call says that it has to be.
fn sized(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Vec<u8>> {
    let mut value = vec![0; 65536];
    let len = call(&mut value)?;
    value.truncate(len);
    Ok(value)
}

impl Filesystem for Passed {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_AUTO_INVAL_DATA
            | InitFlags::FUSE_ATOMIC_O_TRUNC;
        if self.options.listings_with_attributes {
            wanted |= InitFlags::FUSE_DO_READDIRPLUS;
        }
        let _ = config.add_capabilities(wanted);
        let _ = config.set_max_background(256);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(Op::Lookup, parent, name, Ok(()), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.attr(Op::Getattr, ino, self.below.stat(ino), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = self.set(ino, mode, (uid, gid), size, (atime, mtime));
        self.attr(Op::Change, ino, set, reply);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let target = self.below.path(ino).and_then(std::fs::read_link);
        self.shared.serve(Op::Readlink, &self.below.name(ino), move |fine| {
            match fine.and(target) {
                Ok(target) => reply.data(target.as_os_str().as_bytes()),
                Err(e) => reply.error(Errno::from(e)),
            }
        });
    }

    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let made = self.below.child(parent, name).and_then(|path| {
            let kind = rustix::fs::FileType::from_raw_mode(mode);
            let mode = Mode::from_raw_mode(mode & 0o7777);
            Ok(rustix::fs::mknodat(CWD, path, kind, mode, u64::from(rdev))?)
        });
        self.entry(Op::Change, parent, name, made, reply);
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let made = self
            .below
            .child(parent, name)
            .and_then(|path| Ok(rustix::fs::mkdir(path, Mode::from_raw_mode(mode & 0o7777))?));
        self.entry(Op::Change, parent, name, made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.below.child(parent, name).and_then(std::fs::remove_file);
        self.done(Op::Change, name, done, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.below.child(parent, name).and_then(std::fs::remove_dir);
        self.done(Op::Change, name, done, reply);
    }

    fn symlink(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let made = self.below.child(parent, name);
        let made = made.and_then(|path| std::os::unix::fs::symlink(target, path));
        self.entry(Op::Change, parent, name, made, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let done = self.below.child(parent, name).and_then(|from| {
            std::fs::rename(from, self.below.child(newparent, newname)?)?;
            self.below.look(newparent, newname).map(drop)
        });
        self.done(Op::Change, name, done, reply);
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let made = self
            .below
            .path(ino)
            .and_then(|path| std::fs::hard_link(path, self.below.child(newparent, newname)?));
        self.entry(Op::Change, newparent, newname, made, reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let below = self.below.clone();
        let flags = OFlags::from_bits_retain(flags.0.cast_unsigned());
        // Every write has its place, and the kernel keeps the end.
        let flags = flags.difference(OFlags::APPEND) | OFlags::CLOEXEC;
        let file = self
            .below
            .path(ino)
            .and_then(|path| Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?)));
        let how = self.opened();
        self.shared.serve(Op::Open, &self.below.name(ino), move |fine| match fine.and(file) {
            Ok(file) => reply.opened(FileHandle(below.keep_file(file)), how),
            Err(e) => reply.error(Errno::from(e)),
        });
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let file = self.below.file(fh.0);
        self.shared.serve(Op::Read, &self.below.name(ino), move |fine| {
            let read = fine.and(file).and_then(|file| {
                let mut data = vec![0; size as usize];
                let mut len = 0;
                while len < data.len() {
                    match file.read_at(&mut data[len..], offset + len as u64)? {
                        0 => break,
                        n => len += n,
                    }
                }
                data.truncate(len);
                Ok(data)
            });
            match read {
                Ok(data) => reply.data(&data),
                Err(e) => reply.error(Errno::from(e)),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.below.file(fh.0).and_then(|file| file.write_all_at(data, offset)) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap()),
            Err(e) => reply.error(Errno::from(e)),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.below.close(fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.below.file(fh.0).and_then(|file| file.sync_all()) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(Errno::from(e)),
        }
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let listed = self.below.list(ino);
        let mut flags = FopenFlags::empty();
        if self.options.keep_listings {
            flags |= FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
        }
        self.shared.serve(Op::Opendir, &self.below.name(ino), move |fine| match fine.and(listed) {
            Ok(handle) => reply.opened(FileHandle(handle), flags),
            Err(e) => reply.error(Errno::from(e)),
        });
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listing = self.below.listing(fh.0);
        self.shared.serve(Op::Readdir, &self.below.name(ino), move |fine| {
            match fine.and(listing) {
                Ok(listing) => {
                    for (listed, next) in listing.iter().zip(1..).skip(offset as usize) {
                        if reply.add(listed.ino, next, listed.kind, &listed.name) {
                            break;
                        }
                    }
                    reply.ok();
                }
                Err(e) => reply.error(Errno::from(e)),
            }
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let (below, ttl) = (self.below.clone(), self.options.ttl);
        let listing = below.listing(fh.0);
        self.shared.serve(Op::Readdir, &self.below.name(ino), move |fine| {
            match fine.and(listing) {
                Ok(listing) => {
                    for (listed, next) in listing.iter().zip(1..).skip(offset as usize) {
                        let dots = listed.name == "." || listed.name == "..";
                        let found =
                            if dots { below.stat(ino) } else { below.look(ino, &listed.name) };
                        let Ok(attr) = found else { continue };
                        if reply.add(attr.ino, next, &listed.name, &ttl, &attr, FIRST) {
                            break;
                        }
                    }
                    reply.ok();
                }
                Err(e) => reply.error(Errno::from(e)),
            }
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.below.close_listing(fh.0);
        reply.ok();
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        let done = self
            .below
            .path(ino)
            .and_then(|path| Ok(rustix::fs::lsetxattr(path, name, value, flags)?));
        self.done(Op::Change, &self.below.name(ino), done, reply);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let path = self.below.path(ino);
        let found = path.and_then(|p| sized(|to| rustix::fs::lgetxattr(&p, name, to)));
        self.xattr(ino, size, found, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let path = self.below.path(ino);
        let found = path.and_then(|p| sized(|to| rustix::fs::llistxattr(&p, to)));
        self.xattr(ino, size, found, reply);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.below.path(ino).and_then(|p| Ok(rustix::fs::lremovexattr(p, name)?));
        self.done(Op::Change, &self.below.name(ino), done, reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let flags = OFlags::from_bits_retain(flags.cast_unsigned()).difference(OFlags::APPEND);
        let made = self.below.child(parent, name).and_then(|path| {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            let flags = flags | OFlags::CREATE | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::open(path, flags, mode)?);
            let attr = self.below.attributes(&file.metadata()?);
            self.below.learn(attr.ino, parent, name);
            Ok((attr, self.below.keep_file(file)))
        });
        let (how, ttl): (_, Duration) = (self.opened(), self.options.ttl);
        self.shared.serve(Op::Change, name, move |fine| match fine.and(made) {
            Ok((attr, handle)) => reply.created(&ttl, &attr, FIRST, FileHandle(handle), how),
            Err(e) => reply.error(Errno::from(e)),
        });
    }
}
