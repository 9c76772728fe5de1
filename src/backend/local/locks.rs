//! What only a directory of this machine can tell: free space, and who is alive (`flock`).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{FILE_MODE, LOCKS, LocalBackend, open_dir};
use crate::backend::{BackendError, Hold, LocalFacts, errors};
use crate::base::id::LeaseId;

/// Times that a lock is tried before its holder is believed in: a passing `is_held` or
/// `forget_hold` of another process looks the same for a moment.
const TRIES: usize = 100;

/// A locked file; the lock goes with the descriptor.
#[derive(Debug)]
struct FileHold {
    _file: File,
}

impl Hold for FileHold {}

#[deny(clippy::missing_trait_methods)]
impl LocalFacts for LocalBackend {
    fn free_bytes(&self) -> Result<u64, BackendError> {
        let facts = rustix::fs::fstatvfs(&self.dir).map_err(|e| BackendError::Io {
            action: "ask for the free space of",
            object: self.root.display().to_string(),
            source: e.into(),
        })?;
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }

    fn hold(&self, lease: &LeaseId) -> Result<Box<dyn Hold>, BackendError> {
        let held = self
            .lock_new(&lease.to_hex())
            .map_err(|source| errors::changing("hold", shown(lease), source))?;
        Ok(Box::new(held))
    }

    fn is_held(&self, lease: &LeaseId) -> Result<bool, BackendError> {
        self.probe(&lease.to_hex()).map_err(|source| BackendError::Io {
            action: "look at",
            object: shown(lease),
            source,
        })
    }

    fn forget_hold(&self, lease: &LeaseId) -> Result<(), BackendError> {
        self.unlink_free(&lease.to_hex())
            .map_err(|source| errors::changing("remove", shown(lease), source))
    }

    fn sweep(&self) -> Result<u64, BackendError> {
        self.sweep_tmp()
    }

    fn root(&self) -> &Path {
        &self.root
    }
}

impl LocalBackend {
    fn lock_new(&self, name: &str) -> io::Result<FileHold> {
        let locks = self.side_dir(LOCKS)?;
        for _ in 0..TRIES {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = retry_on_intr(|| rustix::fs::openat(&locks, name, flags, FILE_MODE))?;
            rustix::fs::fchmod(&file, FILE_MODE)?;
            if !try_lock(&file, FlockOperation::NonBlockingLockExclusive)? {
                std::thread::yield_now();
                continue;
            }
            // Somebody may have removed the name before we had the lock: ours must be the one that
            // others find.
            if rustix::fs::fstat(&file)?.st_nlink != 0 {
                return Ok(FileHold { _file: file.into() });
            }
        }
        Err(Errno::WOULDBLOCK.into())
    }

    fn probe(&self, name: &str) -> io::Result<bool> {
        let Some(file) = self.open_lock(name, OFlags::RDONLY)? else { return Ok(false) };
        // A shared lock, so that two who look do not take each other for the holder.
        Ok(!try_lock(&file, FlockOperation::NonBlockingLockShared)?)
    }

    fn unlink_free(&self, name: &str) -> io::Result<()> {
        let Some(file) = self.open_lock(name, OFlags::RDWR)? else { return Ok(()) };
        for _ in 0..TRIES {
            if try_lock(&file, FlockOperation::NonBlockingLockExclusive)? {
                let locks = open_dir(&self.dir, LOCKS)?;
                return match rustix::fs::unlinkat(&locks, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(error) => Err(error.into()),
                };
            }
            std::thread::yield_now();
        }
        Err(Errno::WOULDBLOCK.into())
    }

    fn open_lock(&self, name: &str, access: OFlags) -> io::Result<Option<OwnedFd>> {
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = format!("{LOCKS}/{name}");
        match retry_on_intr(|| rustix::fs::openat(&self.dir, path.as_str(), flags, Mode::empty())) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the lock was got; `false` where somebody else has one in its way.
fn try_lock(file: &OwnedFd, how: FlockOperation) -> io::Result<bool> {
    match retry_on_intr(|| rustix::fs::flock(file, how)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn shown(lease: &LeaseId) -> String {
    format!("{LOCKS}/{lease}")
}
