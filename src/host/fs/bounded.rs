//! Linux's file systems with calls that are bounded in time, where a server may be gone: what takes
//! too long is an error of that file, and the thread that waits for it is left behind.
//!
//! Local file systems are called directly, as [`LinuxFs`] does. Everything else, and local trees
//! below which something else is mounted, is called by threads of their own.

mod calls;

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, StatxFlags};

use super::linux::{LinuxDir, LinuxFile};
use super::volume;
use super::{
    Attributes, ExtentMap, LinuxFs, RawName, SourceDir, SourceFile, SourceFs, Stat, Volume,
};
use crate::host::signal::Interrupt;
use calls::{Answers, Beat, Calls};

/// Device of a file system, (major, minor).
type Device = (u32, u32);

/// Linux's file systems; calls that may hang end in time. Clones share what is known of silent
/// file systems.
#[derive(Clone)]
pub struct BoundedFs {
    shared: Arc<Shared>,
}

struct Shared {
    calls: Calls,
    /// What is not known yet: the way to a file system.
    ways: Arc<Answers>,
    mounts: Mutex<HashMap<Device, Arc<Mounted>>>,
}

/// A file system whose calls are bounded.
struct Mounted {
    answers: Arc<Answers>,
    /// Its first open directory, for asking whether it still answers.
    first: Arc<LinuxDir>,
}

struct BoundedDir {
    inner: Arc<LinuxDir>,
    shared: Arc<Shared>,
    /// Where it is called by another thread.
    mounted: Option<Arc<Mounted>>,
}

struct BoundedFile {
    /// Taken when it is closed.
    inner: Option<Arc<LinuxFile>>,
    shared: Arc<Shared>,
    mounted: Arc<Mounted>,
    /// Between two reads.
    buffer: Cell<Vec<u8>>,
}

impl BoundedFs {
    /// Each call may take this long; a signal ends all waiting.
    #[must_use]
    pub fn new(limit: Duration, interrupt: Interrupt) -> Self {
        let calls = Calls::new(limit, interrupt);
        let shared = Shared { calls, ways: Arc::default(), mounts: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Does something that may call a file system which does not answer.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when it was given up.
    pub fn within<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        self.shared.calls.call(&Arc::default(), || (), move |_| act())
    }
}

impl Shared {
    /// What is known of the file system of an open directory.
    fn mounted(&self, dir: &Arc<LinuxDir>) -> io::Result<Arc<Mounted>> {
        let dev = device(dir.descriptor())?;
        let mut mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Mounted { answers: Arc::default(), first: Arc::clone(dir) });
        Ok(Arc::clone(mounts.entry(dev).or_insert_with(new)))
    }

    fn call<T: Send + 'static>(
        &self,
        mounted: &Mounted,
        call: impl FnOnce(&Beat) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let first = Arc::clone(&mounted.first);
        // Any answer will do.
        self.calls.call(&mounted.answers, move || drop(first.stat_self()), call)?
    }
}

/// The device of an open file, without asking a server.
fn device(fd: BorrowedFd<'_>) -> io::Result<Device> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let found = rustix::io::retry_on_intr(|| rustix::fs::statx(fd, c"", flags, StatxFlags::INO))?;
    Ok((found.stx_dev_major, found.stx_dev_minor))
}

impl SourceFs for BoundedFs {
    fn open_root(&self, path: &[u8]) -> io::Result<Box<dyn SourceDir>> {
        let owned = path.to_vec();
        let open = move |_: &Beat| {
            let dir = LinuxFs::open(&owned)?;
            // A symbolic link may have led elsewhere.
            let real = std::fs::canonicalize(crate::base::path::from_bytes(&owned))?;
            Ok::<_, io::Error>((Arc::new(dir), crate::base::path::bytes(&real).to_vec()))
        };
        let (dir, real) = self.shared.calls.call(&self.shared.ways, || (), open)??;
        let bounded = !dir.is_local() || volume::touches_network(&volume::mounts()?, &real);
        let mounted = if bounded { Some(self.shared.mounted(&dir)?) } else { None };
        Ok(Box::new(BoundedDir { inner: dir, shared: Arc::clone(&self.shared), mounted }))
    }

    fn volume(&self, dir: &dyn SourceDir) -> io::Result<Volume> {
        LinuxFs.volume(dir)
    }

    fn sync(&self, dir: &dyn SourceDir) -> io::Result<()> {
        // Local disks hang, too.
        let fd = dir.descriptor().try_clone_to_owned()?;
        let sync = move |_: &Beat| Ok(rustix::io::retry_on_intr(|| rustix::fs::syncfs(&fd))?);
        self.shared.calls.call(&Arc::default(), || (), sync)?
    }
}

impl BoundedDir {
    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&LinuxDir, &Beat) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match &self.mounted {
            None => call(&self.inner, &Beat::default()),
            Some(mounted) => {
                let inner = Arc::clone(&self.inner);
                self.shared.call(mounted, move |beat| call(&inner, beat))
            }
        }
    }
}

impl SourceDir for BoundedDir {
    fn stat_self(&self) -> io::Result<Stat> {
        self.call(|dir, _| dir.stat_self())
    }

    fn names(&self) -> io::Result<Vec<RawName>> {
        self.call(|dir, beat| dir.names_with(&|| beat.beat()))
    }

    fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        if self.mounted.is_none() {
            return self.inner.stat(name);
        }
        let name = name.to_vec();
        self.call(move |dir, _| dir.stat(&name))
    }

    fn open_dir(&self, path: &[u8]) -> io::Result<Box<dyn SourceDir>> {
        let path = path.to_vec();
        let inner = Arc::new(self.call(move |dir, _| dir.dir(&path))?);
        let mounted = match &self.mounted {
            None => None,
            Some(_) => Some(self.shared.mounted(&inner)?),
        };
        Ok(Box::new(Self { inner, shared: Arc::clone(&self.shared), mounted }))
    }

    fn open_file(&self, name: &[u8]) -> io::Result<Box<dyn SourceFile>> {
        let Some(mounted) = &self.mounted else { return self.inner.open_file(name) };
        let name = name.to_vec();
        let inner = Some(Arc::new(self.call(move |dir, _| dir.file(&name))?));
        let (shared, mounted) = (Arc::clone(&self.shared), Arc::clone(mounted));
        Ok(Box::new(BoundedFile { inner, shared, mounted, buffer: Cell::default() }))
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        let name = name.to_vec();
        self.call(move |dir, _| dir.read_link(&name))
    }

    fn attributes(&self, name: &[u8]) -> io::Result<Attributes> {
        let name = name.to_vec();
        self.call(move |dir, _| dir.attributes(&name))
    }

    fn attributes_self(&self) -> io::Result<Attributes> {
        self.call(|dir, _| dir.attributes_self())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.inner.descriptor()
    }
}

impl BoundedFile {
    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&LinuxFile, &Beat) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let inner = self.inner.clone().ok_or(io::ErrorKind::NotConnected)?;
        self.shared.call(&self.mounted, move |beat| call(&inner, beat))
    }
}

impl SourceFile for BoundedFile {
    fn stat(&self) -> io::Result<Stat> {
        self.call(|file, _| file.stat())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        // The thread may outlive this call: it reads into memory of its own.
        let mut own = self.buffer.take();
        own.resize(buf.len(), 0);
        let (own, len) = self.call(move |file, beat| {
            let len = file.read_with(&mut own, offset, &|| beat.beat())?;
            Ok((own, len))
        })?;
        buf[..len].copy_from_slice(&own[..len]);
        self.buffer.set(own);
        Ok(len)
    }

    fn extents(&self, stat: &Stat) -> io::Result<ExtentMap> {
        let stat = *stat;
        self.call(move |file, _| file.extents(&stat))
    }

    fn attributes(&self) -> io::Result<Attributes> {
        self.call(|file, _| file.attributes())
    }
}

impl Drop for BoundedFile {
    fn drop(&mut self) {
        // Closing may ask the server, too. What cannot be closed is left to the thread that tries.
        if let Some(inner) = self.inner.take() {
            let closed = move |_: &Beat| {
                drop(inner);
                Ok(())
            };
            let _ = self.shared.call(&self.mounted, closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_directories_are_as_ever() -> io::Result<()> {
        let temp = tempfile::tempdir()?;
        std::fs::create_dir(temp.path().join("sub"))?;
        std::fs::write(temp.path().join("sub/file"), "content")?;
        let fs = BoundedFs::new(Duration::from_secs(10), Interrupt::manual());
        let dir = fs.open_root(crate::base::path::bytes(temp.path()))?.open_dir(b"sub")?;
        fs.sync(&*dir)?;
        assert_eq!(dir.names()?.len(), 1);
        let file = dir.open_file(b"file")?;
        let mut buf = [0; 64];
        assert_eq!(file.read_at(&mut buf, 3)?, 4);
        assert_eq!(&buf[..4], b"tent");
        assert_eq!(file.stat()?.ino, dir.stat(b"file")?.ino);
        assert!(fs.volume(&*dir)?.local);
        Ok(())
    }
}
