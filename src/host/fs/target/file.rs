//! An open regular file that is written to.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{mode_of, owner_of, times_of};
use crate::base::time::Timestamp;
use crate::host::fs::linux::LinuxFile;
use crate::host::fs::linux::xattr::Holder;
use crate::host::fs::{SourceFile, Stat, ioctl};

/// An open regular file of a target.
#[derive(Debug)]
pub struct TargetFile {
    file: LinuxFile,
}

impl From<LinuxFile> for TargetFile {
    fn from(file: LinuxFile) -> Self {
        Self { file }
    }
}

impl TargetFile {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { file: LinuxFile::new(fd) }
    }

    /// The same file for reading: content, map and attributes.
    #[must_use]
    pub fn source(&self) -> &LinuxFile {
        &self.file
    }

    /// The file's inode now.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn stat(&self) -> io::Result<Stat> {
        self.file.stat()
    }

    /// Writes all bytes at an offset.
    ///
    /// # Errors
    /// What the operating system says; some bytes may have been written.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset.checked_add(done as u64).ok_or(Errno::FBIG)?;
            match rustix::io::pwrite(&self.file, &bytes[done..], at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => done += len,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Gives the file a length; what is new is a hole.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| rustix::fs::ftruncate(&self.file, len))?)
    }

    /// Allocates a stretch without writing it; with `keep_size` the length stays even when the
    /// stretch goes beyond it.
    ///
    /// # Errors
    /// What the operating system says; `EOPNOTSUPP` where the file system cannot do it.
    pub fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> io::Result<()> {
        let flags = if keep_size { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        Ok(rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.file, flags, offset, len))?)
    }

    /// Makes a stretch a hole; the length stays.
    ///
    /// # Errors
    /// What the operating system says; `EOPNOTSUPP` where the file system cannot do it.
    pub fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.file, flags, offset, len))?)
    }

    /// Gives the file to an owner and a group. Clears set-id bits and capabilities.
    ///
    /// # Errors
    /// What the operating system says; `EINVAL` for the number that means nobody.
    pub fn chown(&self, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = owner_of(uid, gid)?;
        Ok(rustix::fs::fchown(&self.file, Some(uid), Some(gid))?)
    }

    /// Gives the file permission bits (07777).
    ///
    /// # Errors
    /// What the operating system says.
    pub fn chmod(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.file, mode_of(mode))?)
    }

    /// Gives the file its time of change; the access time stays.
    ///
    /// # Errors
    /// What the operating system says; `EINVAL` for a second of more than its nanoseconds.
    pub fn set_times(&self, mtime: Timestamp) -> io::Result<()> {
        Ok(rustix::fs::futimens(&self.file, &times_of(mtime)?)?)
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn set_xattr(&self, attribute: &[u8], value: &[u8]) -> io::Result<()> {
        Holder::Open(self.file.as_fd()).set(attribute, value)
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn remove_xattr(&self, attribute: &[u8]) -> io::Result<()> {
        Holder::Open(self.file.as_fd()).remove(attribute)
    }

    /// The names of all extended attributes, sorted, those that cannot be read too.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn list_xattr(&self) -> io::Result<Vec<Vec<u8>>> {
        Holder::Open(self.file.as_fd()).names()
    }

    /// Gives the file these settable inode flags; the others stay.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn set_flags(&self, flags: u32) -> io::Result<()> {
        ioctl::set_flags(self.file.as_fd(), flags)
    }

    /// Gives the file to a project of the quota system.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn set_project(&self, project: u32) -> io::Result<()> {
        ioctl::set_project(self.file.as_fd(), project)
    }

    /// Makes content and inode durable (`fsync`).
    ///
    /// # Errors
    /// What the operating system says.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| rustix::fs::fsync(&self.file))?)
    }
}
