//! Reading whole objects and ranges.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::{LocalBackend, home_of, lock};
use crate::backend::{BackendError, ObjectName, errors};

/// Files kept open for ranges: a restore reads many blocks of few packs.
const READERS_MAX: usize = 16;

/// Open files, the one used last at the end.
#[derive(Debug, Default)]
pub(super) struct Readers(Vec<(ObjectName, Arc<File>)>);

impl Readers {
    fn take(&mut self, object: &ObjectName) -> Option<Arc<File>> {
        let at = self.0.iter().position(|(name, _)| name == object)?;
        let found = self.0.remove(at);
        let file = Arc::clone(&found.1);
        self.0.push(found);
        Some(file)
    }

    fn keep(&mut self, object: &ObjectName, file: &Arc<File>) {
        self.forget(object);
        if self.0.len() >= READERS_MAX {
            self.0.remove(0);
        }
        self.0.push((object.clone(), Arc::clone(file)));
    }

    pub(super) fn forget(&mut self, object: &ObjectName) {
        self.0.retain(|(name, _)| name != object);
    }
}

impl LocalBackend {
    pub(super) fn read_whole(
        &self,
        object: &ObjectName,
        max: u64,
    ) -> Result<Vec<u8>, BackendError> {
        let failed = |source| errors::reading(object, source);
        let mut file = self.open_object(object).map_err(failed)?;
        let size = size_of(&rustix::fs::fstat(&file).map_err(|e| failed(e.into()))?);
        errors::check_max(object, size, max)?;
        let len = usize::try_from(size)
            .map_err(|_| failed(io::Error::from(io::ErrorKind::OutOfMemory)))?;
        let mut bytes = errors::buffer(len).map_err(failed)?;
        file.read_exact(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    pub(super) fn read_range(
        &self,
        object: &ObjectName,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, BackendError> {
        let kept = lock(&self.readers).take(object);
        if let Some(file) = kept {
            match range_of(object, &file, offset, len) {
                Ok(Some(bytes)) => return Ok(bytes),
                Err(error @ BackendError::Short { .. }) => return Err(error),
                // Deleted meanwhile, or a handle that a server has forgotten: the name decides.
                Ok(None) | Err(_) => lock(&self.readers).forget(object),
            }
        }
        let file = Arc::new(self.open_object(object).map_err(|e| errors::reading(object, e))?);
        lock(&self.readers).keep(object, &file);
        range_of(object, &file, offset, len)?.ok_or_else(|| BackendError::NotFound(object.clone()))
    }

    pub(super) fn length(&self, object: &ObjectName) -> io::Result<u64> {
        let path = format!("{}/{}", home_of(object), object.name());
        let stat = rustix::fs::statat(&self.dir, path.as_str(), AtFlags::SYMLINK_NOFOLLOW)?;
        regular(&stat)?;
        Ok(size_of(&stat))
    }

    fn open_object(&self, object: &ObjectName) -> io::Result<File> {
        let path = format!("{}/{}", home_of(object), object.name());
        // Whatever a stranger put there instead of a file must neither lead away nor block us.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened =
            retry_on_intr(|| rustix::fs::openat(&self.dir, path.as_str(), flags, Mode::empty()));
        let file = File::from(opened?);
        regular(&rustix::fs::fstat(&file)?)?;
        Ok(file)
    }
}

/// Reads a range; `None` where the file has no name any more.
fn range_of(
    object: &ObjectName,
    file: &File,
    offset: u64,
    len: usize,
) -> Result<Option<Vec<u8>>, BackendError> {
    let failed = |source| errors::reading(object, source);
    let stat = rustix::fs::fstat(file).map_err(|e| failed(e.into()))?;
    if stat.st_nlink == 0 {
        return Ok(None);
    }
    errors::check_range(object, size_of(&stat), offset, len)?;
    let mut bytes = errors::buffer(len).map_err(failed)?;
    file.read_exact_at(&mut bytes, offset).map_err(failed)?;
    Ok(Some(bytes))
}

fn regular(stat: &Stat) -> io::Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Errno::ISDIR.into()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file")),
    }
}

pub(super) fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0) // the kernel gives no negative size
}
