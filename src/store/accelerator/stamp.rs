//! What the file looked like when it was last closed, kept beside it.
//!
//! As long as it still looks like that, nobody has written in it since and redb's full check, which
//! reads all of the file, is left out. A stamp never makes anything believed that redb itself would
//! refuse.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

fn beside(file: &Path) -> PathBuf {
    file.with_extension("stamp")
}

fn looks(file: &Path) -> io::Result<String> {
    let found = std::fs::metadata(file)?;
    let times = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
    Ok(format!("{} {} {times:?}\n", found.ino(), found.len()))
}

/// Whether the file is as it was when it was stamped. Anything unclear is a no.
pub(super) fn holds(file: &Path) -> bool {
    match (std::fs::read_to_string(beside(file)), looks(file)) {
        (Ok(kept), Ok(now)) => kept == now,
        _ => false,
    }
}

/// Stamps a file that has been closed.
pub(super) fn put(file: &Path) -> io::Result<()> {
    std::fs::write(beside(file), looks(file)?)
}

/// Takes the stamp away, for as long as the file is open.
pub(super) fn remove(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(beside(file)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
