//! Reading a site's small files: bounded, and never hanging on what is no regular file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, open, stat};

use crate::base::path::{bytes, components, from_bytes, printable};

/// Why a small file was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system refused.
    #[error("cannot read {path}")]
    Io {
        /// The file, printable.
        path: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// It is a directory, pipe, device or socket.
    #[error("{path} is {kind}, not a regular file")]
    NotRegular {
        /// The file, printable.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// It has more bytes than such a file can have.
    #[error("{path} has {found} bytes, more than the {max} that are accepted")]
    TooLong {
        /// The file, printable.
        path: String,
        /// Its bytes, at least.
        found: u64,
        /// The bound.
        max: u64,
    },
}

impl ReadError {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
    }
}

/// Where an absolute path lies below another root: `/etc/x` below `/tmp/r` is `/tmp/r/etc/x`.
/// Below `/` it is the path itself.
#[must_use]
pub fn below(root: &Path, path: &[u8]) -> PathBuf {
    if bytes(root) == b"/" {
        return from_bytes(path).to_path_buf();
    }
    let mut whole = root.to_path_buf();
    for part in components(path) {
        whole.push(from_bytes(part));
    }
    whole
}

/// Reads a regular file of at most `max` bytes. Looks before it opens, because opening alone
/// already blocks on a pipe and moves some devices; looks again at what it opened, because the name
/// may mean another file by then.
///
/// # Errors
/// [`ReadError`], with the path.
pub fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, ReadError> {
    let shown = || printable(bytes(path));
    let io = |source: io::Error| ReadError::Io { path: shown(), source };
    let regular = |mode: u32| match kind_of(mode) {
        None => Ok(()),
        Some(kind) => Err(ReadError::NotRegular { path: shown(), kind }),
    };
    regular(stat(path).map_err(|e| io(e.into()))?.st_mode)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = open(path, flags, Mode::empty()).map_err(|e| io(e.into()))?;
    let found = fstat(&fd).map_err(|e| io(e.into()))?;
    regular(found.st_mode)?;
    let long = |found: u64| ReadError::TooLong { path: shown(), found, max };
    let length = u64::try_from(found.st_size).unwrap_or(0);
    if length > max {
        return Err(long(length));
    }
    let mut content = Vec::new();
    // One byte beyond the bound shows a file that grew or whose length the kernel does not tell.
    File::from(fd).take(max.saturating_add(1)).read_to_end(&mut content).map_err(io)?;
    if content.len() as u64 > max {
        return Err(long(content.len() as u64));
    }
    Ok(content)
}

/// The names in a directory, looked up below `root`; none where there is no such directory.
///
/// # Errors
/// [`ReadError::Io`] where it is there and cannot be listed.
pub fn names(root: &Path, dir: &[u8]) -> Result<Vec<Vec<u8>>, ReadError> {
    let io = |source: io::Error| ReadError::Io { path: printable(dir), source };
    let entries = match below(root, dir).read_dir() {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(io(e)),
    };
    entries.map(|entry| Ok(entry.map_err(io)?.file_name().into_vec())).collect()
}

/// What a mode says, where it says something other than a regular file.
fn kind_of(mode: u32) -> Option<&'static str> {
    Some(match FileType::from_raw_mode(mode) {
        FileType::RegularFile => return None,
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something else",
    })
}

#[cfg(test)]
mod tests;
