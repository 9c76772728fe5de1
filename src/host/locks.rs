//! The locks that processes hold on files, as `/proc/locks` lists them.
//!
//! A line names the device of the superblock. That is `stat`'s, except on btrfs (where each
//! subvolume has one of its own) and on overlays: compare with [`superblock_device`].

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What took a lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LockKind {
    /// `fcntl` locks of a process: what SQLite uses.
    Posix,
    /// `fcntl` locks of an open file description.
    Ofd,
    /// `flock`.
    Flock,
    /// A lease or a delegation (an NFS server's, say).
    Lease,
    /// A kind that is not known here.
    Other(String),
}

/// One lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileLock {
    /// What took it.
    pub kind: LockKind,
    /// Whether it keeps readers away as well.
    pub write: bool,
    /// The process; `None` where the lock belongs to an open file description or to another pid
    /// namespace.
    pub pid: Option<u32>,
    /// Device of the file's superblock.
    pub dev: (u32, u32),
    /// Inode of the file.
    pub ino: u64,
    /// First and last byte; `None` for the end of the file.
    pub range: (u64, Option<u64>),
}

/// All locks that this pid namespace shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Locks {
    /// Locks that are held.
    pub held: Vec<FileLock>,
    /// Locks that somebody waits for.
    pub waiting: Vec<FileLock>,
}

/// What kept the locks from being known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocksError {
    /// `/proc/locks` could not be read.
    #[error("cannot read /proc/locks")]
    Read(#[source] io::Error),
    /// A line could not be understood.
    #[error("a line of /proc/locks is not understood: {0:?}")]
    Line(String),
}

/// The locks now.
///
/// # Errors
/// [`LocksError`].
pub fn read_locks() -> Result<Locks, LocksError> {
    let text = std::fs::read("/proc/locks").map_err(LocksError::Read)?;
    parse_locks(&String::from_utf8_lossy(&text))
}

/// Reads the text of `/proc/locks`. A lock without an inode is left out.
///
/// # Errors
/// [`LocksError::Line`].
pub fn parse_locks(text: &str) -> Result<Locks, LocksError> {
    let mut locks = Locks::default();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let parsed = parse_line(line);
        let (waits, lock) =
            parsed.ok_or_else(|| LocksError::Line(line.chars().take(200).collect()))?;
        let list = if waits { &mut locks.waiting } else { &mut locks.held };
        list.extend(lock);
    }
    Ok(locks)
}

/// Whether it is one that waits, and the lock itself; `None` where the line is wrong.
fn parse_line(line: &str) -> Option<(bool, Option<FileLock>)> {
    let mut fields = line.split_ascii_whitespace();
    let _number: u64 = fields.next()?.strip_suffix(':')?.parse().ok()?;
    // Those who wait are indented by a blank for each one before them.
    let mut fields = fields.peekable();
    let waits = fields.next_if_eq(&"->").is_some();
    let kind = match fields.next()? {
        "POSIX" | "ACCESS" => LockKind::Posix,
        "OFDLCK" => LockKind::Ofd,
        "FLOCK" => LockKind::Flock,
        "LEASE" | "DELEG" => LockKind::Lease,
        other => LockKind::Other(other.to_owned()),
    };
    let _enforced = fields.next()?;
    let write = match fields.next()? {
        "WRITE" | "RW" => true,
        "READ" | "NONE" | "UNLCK" => false,
        _ => return None,
    };
    let pid: i64 = fields.next()?.parse().ok()?;
    let file = fields.next()?;
    let start = fields.next()?.parse().ok()?;
    let end = match fields.next()? {
        "EOF" => None,
        digits => Some(digits.parse().ok()?),
    };
    if fields.next().is_some() {
        return None;
    }
    if file.starts_with("<none>") {
        return Some((waits, None));
    }
    let mut parts = file.split(':');
    let major = u32::from_str_radix(parts.next()?, 16).ok()?;
    let minor = u32::from_str_radix(parts.next()?, 16).ok()?;
    let ino = parts.next()?.parse().ok()?;
    let pid = u32::try_from(pid).ok().filter(|&pid| pid != 0);
    let range = (start, end);
    Some((waits, Some(FileLock { kind, write, pid, dev: (major, minor), ino, range })))
}

/// The device of an open file's superblock, which `/proc/locks` and `/proc/PID/maps` name.
///
/// # Errors
/// What the operating system says; `NotFound` where the file's mount is not in sight.
pub fn superblock_device(file: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim);
    let mount = mount.ok_or_else(|| io::Error::other("no mnt_id in fdinfo"))?;
    let mounts = std::fs::read("/proc/self/mountinfo")?;
    let mounts = String::from_utf8_lossy(&mounts);
    let device = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        if fields.next()? != mount {
            return None;
        }
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    device.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the file's mount is not listed"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::FlockOperation;

    use super::*;

    #[test]
    fn lines_of_all_kinds() {
        let text = "\
1: POSIX  ADVISORY  WRITE 3568 fd:1f:2531452 1073741826 1073742335
1: -> POSIX  ADVISORY  READ 3570 fd:1f:2531452 0 EOF
1:   -> POSIX  ADVISORY  READ 3571 fd:1f:2531452 0 EOF
2: FLOCK  ADVISORY  READ 1234 00:2f:123 0 EOF
3: OFDLCK ADVISORY  WRITE -1 00:05:16384 0 EOF
4: LEASE  ACTIVE    READ 77 08:01:9 0 EOF
5: POSIX  ADVISORY  WRITE 0 08:01:10 0 0
6: POSIX  ADVISORY  WRITE 8 <none>:0 0 EOF
7: THING  ADVISORY  WRITE 9 08:01:10 0 EOF
";
        let locks = parse_locks(text).unwrap();
        assert_eq!(
            locks.waiting.iter().map(|l| l.pid).collect::<Vec<_>>(),
            [Some(3570), Some(3571)]
        );
        assert_eq!(
            locks.held[0],
            FileLock {
                kind: LockKind::Posix,
                write: true,
                pid: Some(3568),
                dev: (0xfd, 0x1f),
                ino: 2_531_452,
                range: (1_073_741_826, Some(1_073_742_335)),
            }
        );
        let kinds: Vec<LockKind> = locks.held[1..].iter().map(|lock| lock.kind.clone()).collect();
        let other = LockKind::Other("THING".into());
        use LockKind::{Flock, Lease, Ofd, Posix};
        assert_eq!(kinds, [Flock, Ofd, Lease, Posix, other]);
        assert_eq!((locks.held[2].pid, locks.held[4].pid), (None, None));
        assert!(!locks.held[1].write);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for line in [
            "nonsense",
            "1: POSIX ADVISORY MAYBE 1 08:01:1 0 EOF",
            "1: POSIX ADVISORY WRITE 1 08:01 0 EOF",
            "1: POSIX ADVISORY WRITE 1 08:01:1 0",
            "1: POSIX ADVISORY WRITE 1 08:01:1 0 EOF more",
        ] {
            assert!(matches!(parse_locks(line), Err(LocksError::Line(_))), "{line}");
        }
        assert_eq!(parse_locks("\n").unwrap(), Locks::default());
    }

    /// The locks held on a file.
    fn on(file: &File) -> Vec<FileLock> {
        let dev = superblock_device(file.as_fd()).unwrap();
        let ino = file.metadata().unwrap().ino();
        let held = read_locks().unwrap().held;
        held.into_iter().filter(|lock| lock.dev == dev && lock.ino == ino).collect()
    }

    #[test]
    fn real_locks_are_listed() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let file = path.as_file();
        assert_eq!(on(file), []);
        rustix::fs::flock(file, FlockOperation::LockExclusive).unwrap();
        let found = on(file);
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].kind, found[0].write), (&LockKind::Flock, true));
        assert_eq!(found[0].pid, Some(std::process::id()));
        rustix::fs::flock(file, FlockOperation::Unlock).unwrap();
        rustix::fs::fcntl_lock(file, FlockOperation::LockExclusive).unwrap();
        let found = on(file);
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].kind, found[0].range), (&LockKind::Posix, (0, None)));
    }
}
