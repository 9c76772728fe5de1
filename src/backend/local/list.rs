//! Listings. A directory that is missing or cannot be read is an error, never an empty list: what
//! is not listed may be deleted by others as unneeded.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::{LocalBackend, open_dir, pack_digits, read};
use crate::backend::{ObjectName, Space};

/// All names in a directory but `.` and `..`.
pub(super) fn names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir.as_fd())? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

impl LocalBackend {
    pub(super) fn list_space(&self, space: Space) -> io::Result<Vec<(ObjectName, u64)>> {
        let dir = open_dir(&self.dir, space.prefix())?;
        let mut found = Vec::new();
        let mut below = Vec::new();
        for name in names(&dir)? {
            let Ok(name) = String::from_utf8(name) else { continue };
            match pack_digits(space, &name) {
                Some(digits) if digits == name => below.push(name),
                Some(_) => {} // beside the directory where it would be found
                None => add(&mut found, &dir, space, &name)?,
            }
        }
        for digits in below {
            let dir = match open_dir(&dir, digits.as_str()) {
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
                other => other?,
            };
            for name in names(&dir)? {
                let Ok(name) = String::from_utf8(name) else { continue };
                if pack_digits(space, &name) == Some(digits.as_str()) {
                    add(&mut found, &dir, space, &name)?;
                }
            }
        }
        found.sort_unstable();
        // A name that was deleted and put again meanwhile may be read twice.
        found.dedup_by(|a, b| a.0 == b.0);
        Ok(found)
    }
}

/// Adds an object with its length; what cannot be one of ours, or is gone meanwhile, is left out.
fn add(
    found: &mut Vec<(ObjectName, u64)>,
    dir: &OwnedFd,
    space: Space,
    name: &str,
) -> io::Result<()> {
    let Some(object) = ObjectName::new(space, name) else { return Ok(()) };
    let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        found.push((object, read::size_of(&stat)));
    }
    Ok(())
}
