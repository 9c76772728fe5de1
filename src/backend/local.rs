//! A repository in a directory of this machine (or of a server that it mounts).
//!
//! ```text
//! ROOT/README.txt            says what this is
//! ROOT/<space>/<name>        one file an object
//! ROOT/packs/<xx>/<name>     packs, by the first two digits of their name
//! ROOT/tmp/put-<pid>-<hex>   what is being written, locked while its writer lives
//! ROOT/locks/<lease>         locked while the holder of the lease lives
//! ```
//! Directories have mode 0700 and files 0600, whatever the umask says.

mod list;
mod locks;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{Backend, BackendError, LocalFacts, ObjectName, Space, errors};

const DIR_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const TMP: &str = "tmp";
const LOCKS: &str = "locks";
const README: &str = "README.txt";
const README_TEXT: &str = "\
This directory is a repository of cabk, which backs up Posit Connect sites.
Its files are written once and belong together: do not edit, rename or delete any of them by hand.
Copy the directory only as a whole, and only while no cabk is at work on it.
What it holds is shown by `cabk snapshots --repo` with this directory's path; `cabk check` looks for damage.
";

/// A repository in a directory.
#[derive(Debug)]
pub struct LocalBackend {
    root: PathBuf,
    /// All names are resolved below this descriptor, so that a directory that is moved while we
    /// work stays the same repository.
    dir: OwnedFd,
    pack_dirs: Mutex<write::PackDirs>,
    readers: Mutex<read::Readers>,
}

impl LocalBackend {
    /// Makes the directories of a new repository and opens it. Missing parents are made with mode
    /// 0700; an empty directory that is there keeps its own mode. A `lost+found` does not count, so
    /// that the root of a new file system will do.
    ///
    /// # Errors
    /// [`BackendError::NotEmpty`] where something else is there already, [`BackendError::Full`],
    /// [`BackendError::ReadOnly`], or another.
    pub fn create(path: &Path) -> Result<Self, BackendError> {
        let shown = path.display().to_string();
        Self::create_at(path).map_err(|source| match source.kind() {
            // Another `create` that was quicker shows as AlreadyExists.
            io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists => BackendError::NotEmpty(shown),
            _ => errors::changing("create", shown, source),
        })
    }

    fn create_at(path: &Path) -> io::Result<Self> {
        make_path(path)?;
        let root = std::fs::canonicalize(path)?;
        let dir = open_dir(CWD, &root)?;
        for name in list::names(&dir)? {
            if name != b"lost+found" {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
        }
        // `config` last: without it there is no repository to open.
        for name in [TMP, LOCKS] {
            make_dir(&dir, name)?;
        }
        write::write_file(&dir, README, README_TEXT.as_bytes())?;
        for space in Space::ALL.iter().rev() {
            make_dir(&dir, space.prefix())?;
        }
        sync_dir(&dir)?;
        Ok(Self::at(root, dir))
    }

    /// Opens the repository in a directory. Writes nothing.
    ///
    /// # Errors
    /// [`BackendError::NoRepository`] where there is none, or another.
    pub fn open(path: &Path) -> Result<Self, BackendError> {
        let shown = path.display().to_string();
        let found = || -> io::Result<Self> {
            let root = std::fs::canonicalize(path)?;
            let dir = open_dir(CWD, &root)?;
            open_dir(&dir, Space::Config.prefix())?;
            Ok(Self::at(root, dir))
        };
        found().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                BackendError::NoRepository(shown)
            }
            _ => BackendError::Io { action: "open", object: shown, source },
        })
    }

    fn at(root: PathBuf, dir: OwnedFd) -> Self {
        Self { root, dir, pack_dirs: Mutex::default(), readers: Mutex::default() }
    }

    /// Opens `tmp/` or `locks/`; makes it anew where it went missing, as when a repository was
    /// copied by a program that leaves out empty directories.
    fn side_dir(&self, name: &str) -> io::Result<OwnedFd> {
        match open_dir(&self.dir, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        match make_dir(&self.dir, name) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => open_dir(&self.dir, name),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Backend for LocalBackend {
    fn put_new(&self, object: &ObjectName, parts: &[&[u8]]) -> Result<(), BackendError> {
        match self.write_new(object, parts) {
            Ok(write::Put::Done) => Ok(()),
            Ok(write::Put::Exists) => Err(BackendError::Exists(object.clone())),
            Err(source) => Err(errors::changing("write", object.to_string(), source)),
        }
    }

    fn get(&self, object: &ObjectName, max: u64) -> Result<Vec<u8>, BackendError> {
        self.read_whole(object, max)
    }

    fn get_range(
        &self,
        object: &ObjectName,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, BackendError> {
        self.read_range(object, offset, len)
    }

    fn len(&self, object: &ObjectName) -> Result<u64, BackendError> {
        self.length(object).map_err(|source| errors::reading(object, source))
    }

    fn list(&self, space: Space) -> Result<Vec<(ObjectName, u64)>, BackendError> {
        self.list_space(space).map_err(|source| BackendError::Io {
            action: "list",
            object: space.prefix().to_owned(),
            source,
        })
    }

    fn delete(&self, object: &ObjectName) -> Result<(), BackendError> {
        self.remove(object).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BackendError::NotFound(object.clone()),
            _ => errors::changing("delete", object.to_string(), source),
        })
    }

    fn local(&self) -> Option<&dyn LocalFacts> {
        Some(self)
    }
}

/// The two digits that name a pack's directory. Names that do not begin with two digits, which no
/// pack of ours has, lie beside those directories.
fn pack_digits(space: Space, name: &str) -> Option<&str> {
    let digits = name.get(..2)?;
    let hex = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (space == Space::Packs && hex).then_some(digits)
}

/// The directory of an object, below the root.
fn home_of(object: &ObjectName) -> String {
    let prefix = object.space().prefix();
    match pack_digits(object.space(), object.name()) {
        Some(digits) => format!("{prefix}/{digits}"),
        None => prefix.to_owned(),
    }
}

/// What a mutex guards, also after a thread panicked with it: all states in between are valid.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_dir(at: impl AsFd, path: impl rustix::path::Arg + Copy) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(retry_on_intr(|| rustix::fs::openat(at.as_fd(), path, flags, Mode::empty()))?)
}

/// Makes a directory of mode 0700 below `at`. It is durable once `at` has been synced.
fn make_dir(at: &OwnedFd, name: &str) -> io::Result<()> {
    rustix::fs::mkdirat(at, name, DIR_MODE)?;
    Ok(rustix::fs::chmodat(at, name, DIR_MODE, AtFlags::empty())?)
}

fn sync_dir(dir: &OwnedFd) -> io::Result<()> {
    Ok(retry_on_intr(|| rustix::fs::fsync(dir))?)
}

/// Makes a directory and what is missing above it, each durable in its parent.
fn make_path(path: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut at = path;
    while !at.as_os_str().is_empty() && !at.try_exists()? {
        missing.push(at);
        match at.parent() {
            Some(parent) => at = parent,
            None => break,
        }
    }
    for dir in missing.into_iter().rev() {
        match rustix::fs::mkdir(dir, DIR_MODE) {
            // Somebody else made it meanwhile; whether it will do is seen when it is opened.
            Err(Errno::EXIST) => continue,
            other => other?,
        }
        rustix::fs::chmod(dir, DIR_MODE)?;
        let parent = dir.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}
