//! Opening beneath a directory, through no symbolic link.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Tries at once, before the caller sleeps between tries: a rename anywhere on the machine may make
/// the kernel ask for another one.
const TRIES_AT_ONCE: u32 = 64;

/// Tries in all, the later ones a millisecond apart: a lease on the file is being broken.
const TRIES: u32 = 164;

/// What was opened, and whether it lies on another mount than the directory.
pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    pub(super) crossed: bool,
}

/// A name of one entry: not empty, not `.` or `..`, without a slash.
pub(in crate::host::fs) fn one_name(name: &[u8]) -> io::Result<&[u8]> {
    match name {
        b"" | b"." | b".." => Err(Errno::INVAL.into()),
        _ if name.contains(&b'/') => Err(Errno::INVAL.into()),
        _ => Ok(name),
    }
}

/// Opens a relative path beneath `dir` for reading, without touching the access time where that is
/// allowed.
pub(super) fn open_quietly(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<Opened> {
    match open_beneath(dir, path, flags | OFlags::NOATIME, Mode::empty()) {
        // Only an owner or a privileged process may leave the time alone.
        Err(Errno::PERM) => Ok(open_beneath(dir, path, flags, Mode::empty())?),
        other => Ok(other?),
    }
}

/// Opens a relative path beneath `dir`, with the flags that every opening here has.
pub(in crate::host::fs) fn open_fd(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    Ok(open_beneath(dir, path, flags, mode)?.fd)
}

fn open_beneath(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> Result<Opened, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
    let safe = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // Asking to stay on the mount tells for free whether one was crossed.
    match again(|| rustix::fs::openat2(dir, path, flags, mode, safe | ResolveFlags::NO_XDEV)) {
        Ok(fd) => Ok(Opened { fd, crossed: false }),
        Err(Errno::XDEV) => {
            let fd = again(|| rustix::fs::openat2(dir, path, flags, mode, safe))?;
            Ok(Opened { fd, crossed: true })
        }
        Err(Errno::NOSYS) => step_by_step(dir, path, flags, mode),
        Err(other) => Err(other),
    }
}

/// What `openat2` does, for kernels older than 5.6: one name at a time, each without following.
fn step_by_step(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> Result<Opened, Errno> {
    let between = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if path.first() == Some(&b'/') {
        return Err(Errno::XDEV);
    }
    let mut names = path.split(|&b| b == b'/').peekable();
    let mut held: Option<OwnedFd> = None;
    while let Some(name) = names.next() {
        if name == b".." {
            return Err(Errno::XDEV);
        }
        let at = held.as_ref().map_or(dir, AsFd::as_fd);
        if names.peek().is_none() {
            let fd = again(|| rustix::fs::openat(at, name, flags, mode))?;
            return Ok(Opened { fd, crossed: true });
        }
        held = Some(again(|| rustix::fs::openat(at, name, between, Mode::empty()))?);
    }
    Err(Errno::NOENT)
}

fn again(mut call: impl FnMut() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    let mut tries = 0;
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if tries < TRIES => {
                tries += 1;
                if tries > TRIES_AT_ONCE {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_get_the_same_answers() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        std::fs::create_dir_all(root.path().join("a/b"))?;
        std::fs::write(root.path().join("a/b/f"), b"x")?;
        std::os::unix::fs::symlink("a", root.path().join("link"))?;
        let dir = std::fs::File::open(root.path())?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let step = |path: &[u8]| step_by_step(dir.as_fd(), path, flags, Mode::empty());
        assert!(step(b"a/b/f").is_ok());
        assert!(matches!(step(b"link"), Err(Errno::LOOP)));
        assert!(matches!(step(b"link/b/f"), Err(Errno::NOTDIR | Errno::LOOP)));
        assert!(matches!(step(b"a/../../etc"), Err(Errno::XDEV)));
        assert!(matches!(step(b"/etc"), Err(Errno::XDEV)));
        assert!(matches!(step(b""), Err(Errno::NOENT)));
        Ok(())
    }
}
