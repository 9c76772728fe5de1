//! Linux: the source's file system by descriptors (`openat2`, `statx`, `getdents64`, FIEMAP).

mod extents;
pub(super) mod open;
pub(super) mod xattr;

#[cfg(test)]
mod tests;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::{
    Advice, AtFlags, CWD, FileType, Mode, OFlags, RawDir, StatxAttributes, StatxFlags,
    StatxTimestamp,
};
use rustix::io::Errno;

use super::{
    Attributes, ExtentMap, InodeKind, RawName, SourceDir, SourceFile, SourceFs, Stat, Volume,
    ioctl, volume,
};
use crate::base::time::Timestamp;
use open::{one_name, open_quietly};

/// Bytes of a directory that one call of the kernel returns.
const DIR_BUFFER: usize = 64 << 10;

/// Bytes of a relative path that one `openat2` is given; the kernel takes 4095.
const PATH_STEP: usize = 4000;

/// Longest target of a symbolic link that is read; Linux keeps none above 4095 bytes.
const LINK_MAX: usize = 64 << 10;

const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NONBLOCK);

/// Linux's own file systems.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinuxFs;

/// An open directory.
#[derive(Debug)]
pub struct LinuxDir {
    fd: OwnedFd,
    /// Whether caches of a network file system must be asked to refresh on every look.
    refresh: bool,
    /// Whether it has been listed. Held meanwhile: the position belongs to the descriptor.
    listed: Mutex<bool>,
    /// Whether its names are encrypted, once it has been looked at.
    encrypted: OnceLock<bool>,
}

/// An open regular file.
#[derive(Debug)]
pub struct LinuxFile {
    fd: OwnedFd,
    refresh: bool,
}

impl LinuxFs {
    /// Opens a directory by an operator's path, following symbolic links.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(path: &[u8]) -> io::Result<LinuxDir> {
        let open = |flags| {
            let flags = DIR_FLAGS | OFlags::CLOEXEC | flags;
            rustix::io::retry_on_intr(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))
        };
        let fd = match open(OFlags::NOATIME) {
            Err(Errno::PERM) => open(OFlags::empty())?,
            other => other?,
        };
        let refresh = must_refresh(fd.as_fd())?;
        Ok(LinuxDir::new(fd, refresh))
    }
}

impl SourceFs for LinuxFs {
    fn open_root(&self, path: &[u8]) -> io::Result<Box<dyn SourceDir>> {
        Ok(Box::new(Self::open(path)?))
    }

    fn volume(&self, dir: &dyn SourceDir) -> io::Result<Volume> {
        volume::of(dir.descriptor())
    }

    fn sync(&self, dir: &dyn SourceDir) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| rustix::fs::syncfs(dir.descriptor()))?)
    }
}

impl LinuxDir {
    fn new(fd: OwnedFd, refresh: bool) -> Self {
        Self { fd, refresh, listed: Mutex::new(false), encrypted: OnceLock::new() }
    }

    /// A directory that is open already.
    pub(in crate::host) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let refresh = must_refresh(fd.as_fd())?;
        Ok(Self::new(fd, refresh))
    }

    /// Opens a directory below this one: [`SourceDir::open_dir`] with the type kept.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn dir(&self, path: &[u8]) -> io::Result<Self> {
        let opened = open_quietly(self.fd.as_fd(), path, DIR_FLAGS)?;
        let refresh = if opened.crossed { must_refresh(opened.fd.as_fd())? } else { self.refresh };
        Ok(Self::new(opened.fd, refresh))
    }

    /// Opens a directory below this one by its names, however long they are together. No names
    /// open this directory anew.
    ///
    /// # Errors
    /// What the operating system says; `EINVAL` for what is not a name.
    pub fn open_deep(&self, components: &[&[u8]]) -> io::Result<Self> {
        let mut at: Option<Self> = None;
        let mut path = Vec::new();
        for &component in components {
            let name = one_name(component)?;
            if !path.is_empty() && path.len() + 1 + name.len() > PATH_STEP {
                at = Some(at.as_ref().unwrap_or(self).dir(&path)?);
                path.clear();
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'.');
        }
        at.as_ref().unwrap_or(self).dir(&path)
    }

    /// Opens a regular file for reading: [`SourceDir::open_file`] with the type kept.
    ///
    /// # Errors
    /// What the operating system says; `ELOOP` for a symbolic link, `EINVAL` for what else is not
    /// a regular file.
    pub fn file(&self, name: &[u8]) -> io::Result<LinuxFile> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = open_quietly(self.fd.as_fd(), one_name(name)?, flags)?;
        require_regular(opened.fd.as_fd())?;
        let refresh = if opened.crossed { must_refresh(opened.fd.as_fd())? } else { self.refresh };
        if refresh {
            // What the kernel keeps of its content may be as old as what it keeps of its times: a
            // change that puts the time of the last one back is not noticed by all file systems.
            rustix::fs::fadvise(&opened.fd, 0, None, Advice::DontNeed)?;
        }
        Ok(LinuxFile { fd: opened.fd, refresh })
    }

    /// Whether its file system is one of this machine alone, whose caches are never stale.
    #[must_use]
    pub fn is_local(&self) -> bool {
        !self.refresh
    }

    /// [`SourceDir::names`]; `gets_on` is called for each part of a long listing.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn names_with(&self, gets_on: &dyn Fn()) -> io::Result<Vec<RawName>> {
        self.require_readable_names()?;
        // A poisoned lock only means that another listing panicked; each begins with a seek.
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *listed, true) {
            rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::Start(0))?;
        }
        let mut buf: Vec<u8> = Vec::with_capacity(DIR_BUFFER);
        let spare: &mut [MaybeUninit<u8>] = buf.spare_capacity_mut();
        let mut entries = RawDir::new(&self.fd, spare);
        let mut names = Vec::new();
        loop {
            if entries.is_buffer_empty() {
                gets_on();
            }
            let entry = match entries.next() {
                None => return Ok(names),
                Some(Ok(entry)) => entry,
                Some(Err(Errno::INTR)) => continue,
                Some(Err(e)) => return Err(e.into()),
            };
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => names.push(RawName { name: name.to_vec(), ino: entry.ino() }),
            }
        }
    }

    /// An encrypted directory whose key is not there lists made-up names: that is no listing.
    fn require_readable_names(&self) -> io::Result<()> {
        let encrypted = match self.encrypted.get() {
            Some(encrypted) => *encrypted,
            None => {
                let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
                let found = rustix::fs::statx(&self.fd, c"", flags, StatxFlags::TYPE)?;
                found.stx_attributes.contains(StatxAttributes::ENCRYPTED)
            }
        };
        if encrypted && !ioctl::encryption_key_present(self.fd.as_fd())? {
            return Err(Errno::NOKEY.into());
        }
        Ok(())
    }
}

impl SourceDir for LinuxDir {
    fn stat_self(&self) -> io::Result<Stat> {
        let found = statx_at(self.fd.as_fd(), b"", AtFlags::EMPTY_PATH, self.refresh)?;
        let encrypted = found.stx_attributes.contains(StatxAttributes::ENCRYPTED);
        // Set once: a directory that is not empty keeps its policy.
        let _ = self.encrypted.set(encrypted);
        stat_of(&found)
    }

    fn names(&self) -> io::Result<Vec<RawName>> {
        self.names_with(&|| ())
    }

    fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        stat_at(self.fd.as_fd(), one_name(name)?, AtFlags::empty(), self.refresh)
    }

    fn open_dir(&self, path: &[u8]) -> io::Result<Box<dyn SourceDir>> {
        Ok(Box::new(self.dir(path)?))
    }

    fn open_file(&self, name: &[u8]) -> io::Result<Box<dyn SourceFile>> {
        Ok(Box::new(self.file(name)?))
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        let name = one_name(name)?;
        let mut buf = vec![0; 256];
        loop {
            let len = rustix::fs::readlinkat_raw(&self.fd, name, buf.as_mut_slice())?;
            if len < buf.len() {
                buf.truncate(len);
                return Ok(buf);
            }
            if buf.len() >= LINK_MAX {
                return Err(Errno::NAMETOOLONG.into());
            }
            buf.resize(buf.len() * 4, 0);
        }
    }

    fn attributes(&self, name: &[u8]) -> io::Result<Attributes> {
        xattr::of_name(self.fd.as_fd(), one_name(name)?)
    }

    fn attributes_self(&self) -> io::Result<Attributes> {
        xattr::of_open(self.fd.as_fd())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl LinuxFile {
    /// A file that this process itself writes: no cache of it can be stale.
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, refresh: false }
    }

    /// [`SourceFile::read_at`]; `gets_on` is called for each part.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn read_with(
        &self,
        buf: &mut [u8],
        offset: u64,
        gets_on: &dyn Fn(),
    ) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match rustix::io::pread(&self.fd, &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            gets_on();
        }
        Ok(done)
    }
}

impl AsFd for LinuxFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl SourceFile for LinuxFile {
    fn stat(&self) -> io::Result<Stat> {
        stat_fd(self.fd.as_fd(), self.refresh)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_with(buf, offset, &|| ())
    }

    fn extents(&self, stat: &Stat) -> io::Result<ExtentMap> {
        extents::map(self.fd.as_fd(), stat)
    }

    fn attributes(&self) -> io::Result<Attributes> {
        xattr::of_open(self.fd.as_fd())
    }
}

/// Refuses what is not a regular file.
pub(super) fn require_regular(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(fd, c"", flags, StatxFlags::TYPE)?;
    match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::RegularFile => Ok(()),
        _ => Err(Errno::INVAL.into()),
    }
}

/// Whether a descriptor lies on a file system whose attributes may be answered from a stale cache.
fn must_refresh(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let magic = rustix::io::retry_on_intr(|| rustix::fs::fstatfs(fd))?.f_type;
    Ok(!u64::try_from(magic).is_ok_and(volume::is_local_magic))
}

/// The inode of a descriptor.
pub(super) fn stat_fd(fd: BorrowedFd<'_>, refresh: bool) -> io::Result<Stat> {
    stat_at(fd, b"", AtFlags::EMPTY_PATH, refresh)
}

fn stat_at(dir: BorrowedFd<'_>, name: &[u8], how: AtFlags, refresh: bool) -> io::Result<Stat> {
    stat_of(&statx_at(dir, name, how, refresh)?)
}

fn statx_at(
    dir: BorrowedFd<'_>,
    name: &[u8],
    how: AtFlags,
    refresh: bool,
) -> io::Result<rustix::fs::Statx> {
    let mut flags = how | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    if refresh {
        flags |= AtFlags::STATX_FORCE_SYNC;
    }
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
    Ok(rustix::io::retry_on_intr(|| rustix::fs::statx(dir, name, flags, mask))?)
}

fn stat_of(found: &rustix::fs::Statx) -> io::Result<Stat> {
    let has = |bit: StatxFlags| found.stx_mask & bit.bits() != 0;
    Ok(Stat {
        kind: kind_of(found.stx_mode.into()).ok_or(Errno::INVAL)?,
        mode: u32::from(found.stx_mode) & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
        size: found.stx_size,
        allocated: found.stx_blocks.saturating_mul(512),
        mtime: timestamp(found.stx_mtime),
        ctime: timestamp(found.stx_ctime),
        btime: has(StatxFlags::BTIME).then(|| timestamp(found.stx_btime)),
        ino: found.stx_ino,
        nlink: found.stx_nlink,
        rdev: (found.stx_rdev_major, found.stx_rdev_minor),
        dev: (found.stx_dev_major, found.stx_dev_minor),
        mount_id: if has(StatxFlags::MNT_ID) { found.stx_mnt_id } else { 0 },
        mount_root: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    })
}

fn timestamp(time: StatxTimestamp) -> Timestamp {
    Timestamp { secs: time.tv_sec, nanos: time.tv_nsec.min(999_999_999) }
}

fn kind_of(mode: u32) -> Option<InodeKind> {
    Some(match FileType::from_raw_mode(mode) {
        FileType::RegularFile => InodeKind::File,
        FileType::Directory => InodeKind::Dir,
        FileType::Symlink => InodeKind::Symlink,
        FileType::Fifo => InodeKind::Fifo,
        FileType::Socket => InodeKind::Socket,
        FileType::CharacterDevice => InodeKind::CharDevice,
        FileType::BlockDevice => InodeKind::BlockDevice,
        FileType::Unknown => return None,
    })
}
