//! The write side, for restoring: everything relative to a directory's descriptor, one name at a
//! time, through no symbolic link.
//!
//! Order matters to the kernel: changing the owner clears set-id bits and file capabilities, so
//! owner, then mode, then extended attributes, then times, then inode flags (an immutable file takes
//! none of the others). Two flags must come first: `C` (no copy on write) while a file is empty and
//! `F` (casefold) while a directory is.

mod file;

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::linux::open::{one_name, open_fd};
use super::linux::xattr::{Holder, path_of};
use super::linux::{LinuxDir, LinuxFs, require_regular};
use super::{InodeKind, RawName, SourceDir, Stat, ioctl};
use crate::base::time::Timestamp;

pub use file::TargetFile;

/// An open directory that is written to.
#[derive(Debug)]
pub struct TargetDir {
    dir: LinuxDir,
}

impl TargetDir {
    /// Opens an existing directory by an operator's path, following symbolic links.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open_root(path: &[u8]) -> io::Result<Self> {
        Ok(Self { dir: LinuxFs::open(path)? })
    }

    /// Opens a directory by an operator's path and makes it, and what is missing above it, with the
    /// mode that the umask leaves.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn create_root(path: &[u8]) -> io::Result<Self> {
        std::fs::create_dir_all(OsStr::from_bytes(path))?;
        Self::open_root(path)
    }

    /// The same directory for reading.
    #[must_use]
    pub fn source(&self) -> &LinuxDir {
        &self.dir
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.dir.descriptor()
    }

    /// Opens a directory below this one by a relative path of at most 4,000 bytes, beneath this
    /// directory and through no symbolic link.
    ///
    /// # Errors
    /// What the operating system says; `ELOOP` or `EXDEV` where the path leads out.
    pub fn open_dir(&self, path: &[u8]) -> io::Result<Self> {
        Ok(Self { dir: self.dir.dir(path)? })
    }

    /// Opens a directory below this one by its names, however long they are together. No names
    /// open this directory anew.
    ///
    /// # Errors
    /// What the operating system says; `EINVAL` for what is not a name.
    pub fn open_deep(&self, components: &[&[u8]]) -> io::Result<Self> {
        Ok(Self { dir: self.dir.open_deep(components)? })
    }

    /// All names but `.` and `..`.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn names(&self) -> io::Result<Vec<RawName>> {
        self.dir.names()
    }

    /// The inode of a name, without following.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        self.dir.stat(name)
    }

    /// The directory's own inode.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn stat_self(&self) -> io::Result<Stat> {
        self.dir.stat_self()
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        self.dir.read_link(name)
    }

    /// Makes a directory; the umask takes from `mode`.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn make_dir(&self, name: &[u8], mode: u32) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(self.fd(), one_name(name)?, mode_of(mode))?)
    }

    /// Makes a regular file that was not there, with mode 0600, open for reading and writing.
    ///
    /// # Errors
    /// What the operating system says; `EEXIST` for whatever is there, a dangling link too.
    pub fn create_file(&self, name: &[u8]) -> io::Result<TargetFile> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(TargetFile::new(open_fd(self.fd(), one_name(name)?, flags, mode)?))
    }

    /// Opens a regular file that is there, for reading and writing.
    ///
    /// # Errors
    /// What the operating system says; `ELOOP` for a symbolic link, `EINVAL` for what else is not
    /// a regular file.
    pub fn open_file_rw(&self, name: &[u8]) -> io::Result<TargetFile> {
        // Looked at first: opening a node to write may wake its reader or move a device.
        if !matches!(self.stat(name)?.kind, InodeKind::File | InodeKind::Symlink) {
            return Err(Errno::INVAL.into());
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK;
        let fd = open_fd(self.fd(), one_name(name)?, flags, Mode::empty())?;
        require_regular(fd.as_fd())?;
        Ok(TargetFile::new(fd))
    }

    /// Opens a regular file that is there, for reading and for its attributes: an immutable one too.
    ///
    /// # Errors
    /// As [`TargetDir::open_file_rw`].
    pub fn open_file(&self, name: &[u8]) -> io::Result<TargetFile> {
        Ok(TargetFile::from(self.dir.file(name)?))
    }

    /// Makes a symbolic link called `name` that says `target`.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn symlink(&self, target: &[u8], name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, self.fd(), one_name(name)?)?)
    }

    /// Makes a FIFO, socket or device node; `rdev` (major, minor) counts for devices. The umask
    /// takes from `mode`.
    ///
    /// # Errors
    /// What the operating system says; `EINVAL` for another kind.
    pub fn mknod(
        &self,
        name: &[u8],
        kind: InodeKind,
        mode: u32,
        rdev: (u32, u32),
    ) -> io::Result<()> {
        let (kind, dev) = match kind {
            InodeKind::Fifo => (FileType::Fifo, 0),
            InodeKind::Socket => (FileType::Socket, 0),
            InodeKind::CharDevice => {
                (FileType::CharacterDevice, rustix::fs::makedev(rdev.0, rdev.1))
            }
            InodeKind::BlockDevice => (FileType::BlockDevice, rustix::fs::makedev(rdev.0, rdev.1)),
            InodeKind::File | InodeKind::Dir | InodeKind::Symlink => {
                return Err(Errno::INVAL.into());
            }
        };
        Ok(rustix::fs::mknodat(self.fd(), one_name(name)?, kind, mode_of(mode), dev)?)
    }

    /// Makes a socket that nobody listens on, with mode 0600.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn socket(&self, name: &[u8]) -> io::Result<()> {
        self.mknod(name, InodeKind::Socket, 0o600, (0, 0))
    }

    /// Gives an inode of any kind but a directory a second name; a symbolic link is not followed.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn hard_link(&self, name: &[u8], to: &Self, new_name: &[u8]) -> io::Result<()> {
        let (name, new_name) = (one_name(name)?, one_name(new_name)?);
        Ok(rustix::fs::linkat(self.fd(), name, to.fd(), new_name, AtFlags::empty())?)
    }

    /// Renames, replacing what is there.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn rename(&self, name: &[u8], to: &Self, new_name: &[u8]) -> io::Result<()> {
        self.rename_with(name, to, new_name, RenameFlags::empty())
    }

    /// Renames unless something is there.
    ///
    /// # Errors
    /// What the operating system says: `EEXIST`; `EINVAL` where the file system cannot do it.
    pub fn rename_noreplace(&self, name: &[u8], to: &Self, new_name: &[u8]) -> io::Result<()> {
        self.rename_with(name, to, new_name, RenameFlags::NOREPLACE)
    }

    /// Exchanges two names.
    ///
    /// # Errors
    /// What the operating system says; `EINVAL` where the file system cannot do it.
    pub fn exchange(&self, name: &[u8], with: &Self, other_name: &[u8]) -> io::Result<()> {
        self.rename_with(name, with, other_name, RenameFlags::EXCHANGE)
    }

    fn rename_with(
        &self,
        name: &[u8],
        to: &Self,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> io::Result<()> {
        let (name, new_name) = (one_name(name)?, one_name(new_name)?);
        if flags.is_empty() {
            return Ok(rustix::fs::renameat(self.fd(), name, to.fd(), new_name)?);
        }
        Ok(rustix::fs::renameat_with(self.fd(), name, to.fd(), new_name, flags)?)
    }

    /// Removes a name of anything but a directory.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn unlink(&self, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(self.fd(), one_name(name)?, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn rmdir(&self, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(self.fd(), one_name(name)?, AtFlags::REMOVEDIR)?)
    }

    /// Gives a name, of any kind, to an owner and a group. Clears set-id bits.
    ///
    /// # Errors
    /// What the operating system says; `EINVAL` for the number that means nobody.
    pub fn chown(&self, name: &[u8], uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = owner_of(uid, gid)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::chownat(self.fd(), one_name(name)?, Some(uid), Some(gid), flags)?)
    }

    /// Gives a name permission bits (07777), without following.
    ///
    /// # Errors
    /// What the operating system says; `EOPNOTSUPP` for a symbolic link, which has none.
    pub fn chmod(&self, name: &[u8], mode: u32) -> io::Result<()> {
        let mode = nix::sys::stat::Mode::from_bits_truncate(mode & 0o7777);
        let how = nix::sys::stat::FchmodatFlags::NoFollowSymlink;
        Ok(nix::sys::stat::fchmodat(self.fd(), one_name(name)?, mode, how)?)
    }

    /// Gives a name, of any kind, its time of change; the access time stays.
    ///
    /// # Errors
    /// What the operating system says; `EINVAL` for a second of more than its nanoseconds.
    pub fn set_times(&self, name: &[u8], mtime: Timestamp) -> io::Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::utimensat(self.fd(), one_name(name)?, &times_of(mtime)?, flags)?)
    }

    /// Sets an extended attribute of a name of any kind.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn set_xattr(&self, name: &[u8], attribute: &[u8], value: &[u8]) -> io::Result<()> {
        let path = path_of(self.fd(), one_name(name)?);
        Holder::Named(&path).set(attribute, value)
    }

    /// Removes an extended attribute of a name of any kind.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn remove_xattr(&self, name: &[u8], attribute: &[u8]) -> io::Result<()> {
        let path = path_of(self.fd(), one_name(name)?);
        Holder::Named(&path).remove(attribute)
    }

    /// Gives a regular file or a directory these settable inode flags; the others stay.
    ///
    /// # Errors
    /// What the operating system says; `EOPNOTSUPP` for another kind.
    pub fn set_flags(&self, name: &[u8], flags: u32) -> io::Result<()> {
        self.with_open(name, |fd| ioctl::set_flags(fd, flags))
    }

    /// Gives a regular file or a directory to a project of the quota system.
    ///
    /// # Errors
    /// What the operating system says; `EOPNOTSUPP` for another kind.
    pub fn set_project(&self, name: &[u8], project: u32) -> io::Result<()> {
        self.with_open(name, |fd| ioctl::set_project(fd, project))
    }

    /// Opens for reading, which works on an immutable file too, and calls.
    fn with_open(
        &self,
        name: &[u8],
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        match self.stat(name)?.kind {
            InodeKind::Dir => call(self.dir.dir(name)?.descriptor()),
            InodeKind::File => call(self.dir.file(name)?.as_fd()),
            _ => Err(Errno::OPNOTSUPP.into()),
        }
    }

    /// Gives the directory itself to an owner and a group.
    ///
    /// # Errors
    /// As [`TargetDir::chown`].
    pub fn chown_self(&self, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = owner_of(uid, gid)?;
        Ok(rustix::fs::fchown(self.fd(), Some(uid), Some(gid))?)
    }

    /// Gives the directory itself permission bits.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn chmod_self(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(self.fd(), mode_of(mode))?)
    }

    /// Gives the directory itself its time of change.
    ///
    /// # Errors
    /// As [`TargetDir::set_times`].
    pub fn set_times_self(&self, mtime: Timestamp) -> io::Result<()> {
        Ok(rustix::fs::futimens(self.fd(), &times_of(mtime)?)?)
    }

    /// Sets an extended attribute of the directory itself.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn set_xattr_self(&self, attribute: &[u8], value: &[u8]) -> io::Result<()> {
        Holder::Open(self.fd()).set(attribute, value)
    }

    /// Removes an extended attribute of the directory itself.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn remove_xattr_self(&self, attribute: &[u8]) -> io::Result<()> {
        Holder::Open(self.fd()).remove(attribute)
    }

    /// Gives the directory itself these settable inode flags; the others stay.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn set_flags_self(&self, flags: u32) -> io::Result<()> {
        ioctl::set_flags(self.fd(), flags)
    }

    /// Gives the directory itself to a project of the quota system.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn set_project_self(&self, project: u32) -> io::Result<()> {
        ioctl::set_project(self.fd(), project)
    }

    /// Makes the directory's names durable (`fsync`).
    ///
    /// # Errors
    /// What the operating system says.
    pub fn sync_names(&self) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| rustix::fs::fsync(self.fd()))?)
    }

    /// Makes everything on the directory's file system durable (`syncfs`).
    ///
    /// # Errors
    /// What the operating system says.
    pub fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| rustix::fs::syncfs(self.fd()))?)
    }
}

fn mode_of(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

/// The number of all ones tells the kernel to change nothing: it is nobody's.
fn owner_of(uid: u32, gid: u32) -> io::Result<(Uid, Gid)> {
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Errno::INVAL.into());
    }
    Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
}

/// Above a second's nanoseconds the kernel reads orders (`UTIME_NOW`), not times.
fn times_of(mtime: Timestamp) -> io::Result<Timestamps> {
    if mtime.nanos > 999_999_999 {
        return Err(Errno::INVAL.into());
    }
    Ok(Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() },
    })
}
