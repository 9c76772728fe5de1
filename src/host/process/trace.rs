//! Finding out whether an inode that is not in the set lies in one of the trees.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::PoisonError;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};

use super::{Device, Scanner, Traced, identity, look, open_dir};

/// Directories that are walked upwards; deeper ones count as unknown.
const MAX_DEPTH: u32 = 20_000;
/// Leading components of a path that may lie above the root of a process or of this one.
const MAX_ABOVE_ROOT: usize = 32;

/// Where an inode was met: a magic link `name` in `dir`, of the thread `task`.
pub(super) struct Handle<'a> {
    pub(super) task: BorrowedFd<'a>,
    pub(super) dir: BorrowedFd<'a>,
    pub(super) name: &'a str,
}

impl Scanner<'_> {
    /// The verdict on an inode that is not in the set, found out once.
    pub(super) fn remembered(&self, inode: (Device, u64), find: impl FnOnce() -> Traced) -> bool {
        if self.roots.is_empty() {
            return false;
        }
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&verdict) = known().get(&inode)
            // What one process's path could not tell, another's may.
            && verdict != Traced::Unknown
        {
            return verdict == Traced::Inside;
        }
        let verdict = find();
        known().insert(inode, verdict);
        verdict == Traced::Inside
    }

    /// Inodes that could not be traced.
    pub(super) fn untraced(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().filter(|&&verdict| verdict == Traced::Unknown).count()
    }

    /// Follows a magic link to a directory and walks upwards from there.
    pub(super) fn trace_dir(&self, handle: &Handle<'_>) -> Traced {
        match open_dir(handle.dir, handle.name) {
            Ok(dir) => self.walk_up(dir),
            Err(_) => Traced::Unknown,
        }
    }

    /// Opens the directory that the kernel names for a file, as the process sees it or else as this
    /// one does, and walks upwards from there. The text only leads to a place; whether it is the
    /// right one is told by the inode found there.
    ///
    /// In another mount namespace the kernel's text begins at that namespace's own root, which lies
    /// above the root directory of a process in a changed root: then the path is looked for without
    /// its first components, too.
    pub(super) fn trace_path(
        &self,
        task: BorrowedFd<'_>,
        path: &[u8],
        inode: (Device, u64),
    ) -> Traced {
        let deleted = path.strip_suffix(b" (deleted)");
        let path = deleted.unwrap_or(path);
        let Some(slash) = path.iter().rposition(|&b| b == b'/') else { return Traced::Unknown };
        let (parent, name) = (&path[..slash], &path[slash + 1..]);
        let places = [open_dir(task, "root"), open_dir(CWD, "/")];
        for place in places.into_iter().flatten() {
            if deleted.is_some() {
                // Only the device can be compared, so the whole path has to be right.
                let Ok(dir) = open_beneath(&place, parent) else { continue };
                let stat = look(&dir, "", AtFlags::EMPTY_PATH);
                if stat.map(|stat| identity(&stat).0) == Ok(inode.0) {
                    return self.walk_up(dir);
                }
                continue;
            }
            for below in shorter(parent) {
                let Ok(dir) = open_beneath(&place, below) else { continue };
                let found = look(&dir, name, AtFlags::SYMLINK_NOFOLLOW);
                if found.map(|stat| identity(&stat)) == Ok(inode) {
                    return self.walk_up(dir);
                }
            }
        }
        Traced::Unknown
    }

    /// Walks upwards until an inode of the set or a root of a tree is met.
    fn walk_up(&self, mut dir: OwnedFd) -> Traced {
        let mut last = None;
        for _ in 0..MAX_DEPTH {
            let Ok(stat) = look(&dir, "", AtFlags::EMPTY_PATH) else { return Traced::Unknown };
            let inode = identity(&stat);
            if self.devices.contains(&inode.0) && self.is_listed(inode) {
                return Traced::Inside;
            }
            if last == Some(inode) {
                return Traced::Outside;
            }
            last = Some(inode);
            match open_dir(&dir, "..") {
                Ok(up) => dir = up,
                Err(_) => return Traced::Unknown,
            }
        }
        Traced::Unknown
    }
}

/// An absolute path, and what is left of it without its first components, one after the other.
fn shorter(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let inner = (1..path.len()).filter(|&at| path[at] == b'/').map(|at| &path[at..]);
    std::iter::once(path).chain(inner).chain([&b"/"[..]]).take(MAX_ABOVE_ROOT)
}

/// Opens a directory by an absolute path whose `/` is `place`.
fn open_beneath(place: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = if path.is_empty() { b"/" } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(place.as_fd(), path, flags, Mode::empty(), resolve)
}
