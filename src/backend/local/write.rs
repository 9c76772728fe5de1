//! Writing and deleting: in `tmp/`, synced, under the final name by a rename that replaces nothing,
//! and the directory synced. Nothing is tried again on a descriptor whose sync has failed: the
//! kernel may have dropped the pages and would report success.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FlockOperation, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{FILE_MODE, LocalBackend, TMP, home_of, list, lock, make_dir, open_dir, sync_dir};
use crate::backend::{BackendError, ObjectName, Space, errors};
use crate::base::id::to_hex;
use crate::host::entropy::{Entropy, SystemEntropy};

const TMP_PREFIX: &str = "put-";
/// Slices in one `writev`: the kernel takes 1,024.
const SLICES_MAX: usize = 1024;
/// New names tried when a sweep takes away fresh ones.
const NAMES_MAX: usize = 100;

/// Which of the packs' directories are durable in `packs/`, as far as this process saw to it.
#[derive(Debug, Default)]
pub(super) struct PackDirs(BTreeSet<Vec<u8>>);

/// How a put ended that met no error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Put {
    Done,
    Exists,
}

/// A file in `tmp/`, removed when dropped unless it has got its final name.
#[derive(Debug)]
pub(super) struct Temp<'a> {
    dir: &'a OwnedFd,
    name: String,
    file: File,
    moved: bool,
}

impl<'a> Temp<'a> {
    /// A new file that is locked as long as it is open: by the lock a sweep knows that its writer
    /// lives.
    pub(super) fn new(dir: &'a OwnedFd) -> io::Result<Self> {
        for _ in 0..NAMES_MAX {
            let mut random = [0; 12];
            SystemEntropy.fill(&mut random)?;
            let name = format!("{TMP_PREFIX}{}-{}", std::process::id(), to_hex(&random));
            let file = match create_file(dir, &name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other?,
            };
            let temp = Self { dir, name, file, moved: false };
            let lock = FlockOperation::NonBlockingLockExclusive;
            let locked = retry_on_intr(|| rustix::fs::flock(&temp.file, lock));
            if locked == Err(Errno::WOULDBLOCK) {
                continue; // a sweep came between its creation and this lock, and will remove it
            }
            // Another error means that there are no locks on this file system: then a sweep gets
            // none either and removes nothing.
            if rustix::fs::fstat(&temp.file)?.st_nlink != 0 {
                return Ok(temp);
            }
        }
        Err(io::Error::other("no new name in tmp lasted"))
    }

    fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> =
            parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            let batch = rest.len().min(SLICES_MAX);
            match self.file.write_vectored(&rest[..batch]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn publish(&mut self, home: &OwnedFd, name: &str) -> io::Result<Put> {
        match rustix::fs::renameat_with(self.dir, &self.name, home, name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.moved = true;
                Ok(Put::Done)
            }
            Err(Errno::EXIST) => Ok(Put::Exists),
            // NFS and some FUSE file systems know only the plain rename, which replaces.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.publish_by_link(home, name),
            Err(error) => Err(error.into()),
        }
    }

    /// A second name that replaces nothing either; dropping the file takes the first one away.
    pub(super) fn publish_by_link(&self, home: &OwnedFd, name: &str) -> io::Result<Put> {
        match rustix::fs::linkat(self.dir, &self.name, home, name, AtFlags::empty()) {
            Ok(()) => Ok(Put::Done),
            // A request that was sent twice over the network finds its own first success.
            Err(Errno::EXIST) if rustix::fs::fstat(&self.file)?.st_nlink >= 2 => Ok(Put::Done),
            Err(Errno::EXIST) => Ok(Put::Exists),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        if !self.moved {
            // The error that led here is the one to report; what stays is swept later.
            let _ = rustix::fs::unlinkat(self.dir, &self.name, AtFlags::empty());
        }
    }
}

impl LocalBackend {
    pub(super) fn write_new(&self, object: &ObjectName, parts: &[&[u8]]) -> io::Result<Put> {
        let tmp = self.side_dir(TMP)?;
        let mut temp = Temp::new(&tmp)?;
        temp.write(parts)?;
        temp.file.sync_all()?;
        if let Some(digits) = super::pack_digits(object.space(), object.name()) {
            self.make_pack_dir(digits)?;
        }
        let home = open_dir(&self.dir, home_of(object).as_str())?;
        let put = temp.publish(&home, object.name())?;
        // Also when it exists: whoever put it may not have come this far, and our caller will
        // build on its being there.
        sync_dir(&home)?;
        Ok(put)
    }

    /// Makes a directory of packs and sees to it that it is durable, once in a process: another
    /// process may have made it without having synced `packs/` yet.
    fn make_pack_dir(&self, digits: &str) -> io::Result<()> {
        let mut known = lock(&self.pack_dirs);
        if known.0.contains(digits.as_bytes()) {
            return Ok(());
        }
        let packs = open_dir(&self.dir, Space::Packs.prefix())?;
        match make_dir(&packs, digits) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let there = list::names(&packs)?;
        sync_dir(&packs)?;
        known.0.extend(there);
        Ok(())
    }

    pub(super) fn remove(&self, object: &ObjectName) -> io::Result<()> {
        let home = open_dir(&self.dir, home_of(object).as_str())?;
        rustix::fs::unlinkat(&home, object.name(), AtFlags::empty())?;
        lock(&self.readers).forget(object);
        sync_dir(&home)
    }

    /// Removes what writers that died have left in `tmp/`: the files that nobody has locked.
    /// Returns how many there were.
    ///
    /// # Errors
    /// What the operating system says; [`BackendError::ReadOnly`] among it.
    pub(super) fn sweep_tmp(&self) -> Result<u64, BackendError> {
        self.sweep_files().map_err(|source| errors::changing("sweep", TMP.to_owned(), source))
    }

    fn sweep_files(&self) -> io::Result<u64> {
        let tmp = self.side_dir(TMP)?;
        let mut removed = 0;
        for name in list::names(&tmp)? {
            if !name.starts_with(TMP_PREFIX.as_bytes()) {
                continue;
            }
            // Opened for writing, because over NFS an exclusive lock asks for it.
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = retry_on_intr(|| {
                rustix::fs::openat(&tmp, name.as_slice(), flags, rustix::fs::Mode::empty())
            });
            let file = match opened {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let free = FlockOperation::NonBlockingLockExclusive;
            if retry_on_intr(|| rustix::fs::flock(&file, free)).is_err() {
                continue; // held by its writer, or there are no locks here to tell
            }
            match rustix::fs::unlinkat(&tmp, name.as_slice(), AtFlags::empty()) {
                Ok(()) => removed += 1,
                Err(Errno::NOENT) => {} // it got its final name meanwhile
                Err(error) => return Err(error.into()),
            }
        }
        Ok(removed)
    }
}

fn create_file(dir: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = retry_on_intr(|| rustix::fs::openat(dir, name, flags, FILE_MODE))?;
    rustix::fs::fchmod(&file, FILE_MODE)?;
    Ok(file.into())
}

/// Writes a small file that is no object, durable once `dir` has been synced.
pub(super) fn write_file(dir: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_file(dir, name)?;
    file.write_all(bytes)?;
    file.sync_all()
}
