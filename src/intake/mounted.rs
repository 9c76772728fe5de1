//! A mount that a read meets: when its times may be believed, and what a network file system's caches
//! and names give away.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::base::time::Timestamp;
use crate::host::fs::{InodeKind, RawName, SourceDir, SourceFs, Stat, Volume};

/// A mount met in this run.
pub(super) struct Mounted {
    pub(super) volume: Volume,
    pub(super) dev: (u32, u32),
    /// Times must be older than this to be believed.
    settled_before: Timestamp,
    /// The newest time of a change that was seen, where times are those of a server.
    newest: Mutex<Timestamp>,
    /// Whether its listings were seen to give the numbers that inodes have.
    lists_inodes: AtomicBool,
}

impl Mounted {
    /// Nothing that is read here is believed by a later run.
    pub(super) fn believe_nothing(&mut self) {
        self.settled_before = Timestamp { secs: i64::MIN, nanos: 0 };
    }

    /// Whether a name leads to another inode than its directory lists. The kernel keeps names of
    /// network file systems for a while, and nothing makes it ask anew.
    pub(super) fn is_stale(&self, raw: &RawName, stat: &Stat) -> bool {
        if self.volume.local || stat.mount_root || stat.kind == InodeKind::Dir {
            return false;
        }
        if raw.ino == stat.ino {
            self.lists_inodes.store(true, Ordering::Relaxed);
            return false;
        }
        // Some file systems make up the numbers of a listing.
        self.lists_inodes.load(Ordering::Relaxed)
    }

    /// What times must be older than, to be believed, by what was seen until now. The clock of a
    /// file server is its own: it is no earlier there than the newest change that it told of.
    pub(super) fn settled_before(&self, changes: impl Iterator<Item = Timestamp>) -> Timestamp {
        if self.volume.local {
            return self.settled_before;
        }
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = changes.fold(*newest, Timestamp::max);
        newest.minus(self.volume.grain).min(self.settled_before)
    }
}

/// What is known of the mount on which an open directory lies.
pub(super) fn mounted(
    fs: &dyn SourceFs,
    dir: &dyn SourceDir,
    stat: &Stat,
    synced: Timestamp,
) -> io::Result<Mounted> {
    let volume = fs.volume(dir)?;
    let settled_before = synced.minus(volume.grain);
    let newest = Mutex::new(stat.ctime);
    let lists_inodes = AtomicBool::new(false);
    Ok(Mounted { volume, dev: stat.dev, settled_before, newest, lists_inodes })
}

/// Whether NFS gave a file this name because it was removed while a client had it open.
pub(super) fn is_kept_open(name: &[u8]) -> bool {
    const DIGITS: usize = 16;
    let digits = name.strip_prefix(b".nfs").unwrap_or_default();
    digits.len() >= DIGITS && digits.iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_that_are_kept_open_are_told_from_others() {
        for name in ["nfs0000000000000000", ".nfs", ".nfs12", ".nfs000000000000000g", ".nfs-config"]
        {
            assert!(!is_kept_open(name.as_bytes()), "{name}");
        }
        assert!(is_kept_open(b".nfs0000000000000abc"));
        assert!(is_kept_open(b".nfs00000000000a4f1c00000003"));
    }

    #[test]
    fn a_server_is_believed_by_its_own_clock() {
        let at = |secs| Timestamp { secs, nanos: 0 };
        let of = |local| Mounted {
            volume: Volume {
                identity: String::new(),
                fs_type: String::new(),
                local,
                superblock: (0, 1),
                pseudo: false,
                grain: std::time::Duration::from_secs(2),
            },
            dev: (0, 1),
            settled_before: at(1000),
            newest: Mutex::new(at(10)),
            lists_inodes: AtomicBool::new(false),
        };
        assert_eq!(of(true).settled_before([at(50)].into_iter()), at(1000));
        let server = of(false);
        assert_eq!(server.settled_before([at(50), at(7)].into_iter()), at(48));
        assert_eq!(server.settled_before([at(20)].into_iter()), at(48), "the newest of all counts");
        assert_eq!(server.settled_before([at(5000)].into_iter()), at(1000));
    }
}
