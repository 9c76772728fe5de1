//! Digests of names and inodes: what "unchanged" is decided by.
//!
//! Unchanged means equal name, kind, inode, size, modification and change time, mode, owner, group,
//! number of links, and an equal file system; and both times older, by more than the clock's grain,
//! than the `syncfs` before the run that read the content. The change time is always part of it,
//! because a modification time can be set back.

use crate::base::time::Timestamp;
use crate::format::segment::ChunkKey;
use crate::host::fs::{InodeKind, Stat};
use crate::store::naming::Namer;

/// A digest of a name with its inode, or of many.
pub(super) type Digest = [u8; 16];

/// No digest: never equal to a kept one.
pub(super) const NONE: Digest = [0; 16];

fn take16(hash: &blake3::Hash) -> Digest {
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    out
}

/// The key under which a directory's record is kept: its file system and inode, so that a renamed
/// directory is known again.
pub(super) fn dir_key(namer: &Namer, volume: &str, ino: u64) -> ChunkKey {
    let mut hasher = namer.digest_hasher();
    hasher.update(b"dir").update(&ino.to_le_bytes()).update(volume.as_bytes());
    take16(&hasher.finalize())
}

/// A hard-link group's number within a snapshot.
pub(super) fn link_group(namer: &Namer, volume: &str, ino: u64) -> u64 {
    let mut hasher = namer.digest_hasher();
    hasher.update(b"link").update(&ino.to_le_bytes()).update(volume.as_bytes());
    let mut out = [0; 8];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(out)
}

/// The digest of one name and its inode.
pub(super) fn entry(namer: &Namer, volume: &str, name: &[u8], stat: &Stat) -> Digest {
    let mut bytes = Vec::with_capacity(128 + name.len());
    bytes.extend_from_slice(b"entry");
    bytes.push(match stat.kind {
        InodeKind::File => 1,
        InodeKind::Dir => 2,
        InodeKind::Symlink => 3,
        InodeKind::Fifo => 4,
        InodeKind::Socket => 5,
        InodeKind::CharDevice => 6,
        InodeKind::BlockDevice => 7,
    });
    for word in [stat.mode, stat.uid, stat.gid, stat.rdev.0, stat.rdev.1] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    // A directory's links and size follow from its entries, and differ between file systems.
    let (size, nlink) = if stat.kind == InodeKind::Dir { (0, 0) } else { (stat.size, stat.nlink) };
    bytes.extend_from_slice(&stat.ino.to_le_bytes());
    bytes.extend_from_slice(&size.to_le_bytes());
    bytes.extend_from_slice(&nlink.to_le_bytes());
    for time in [stat.mtime, stat.ctime] {
        bytes.extend_from_slice(&time.secs.to_le_bytes());
        bytes.extend_from_slice(&time.nanos.to_le_bytes());
    }
    bytes.extend_from_slice(&(volume.len() as u32).to_le_bytes());
    bytes.extend_from_slice(volume.as_bytes());
    bytes.extend_from_slice(name);
    let mut hasher = namer.digest_hasher();
    hasher.update(&bytes);
    take16(&hasher.finalize())
}

/// The digest of a whole listing, from its entries' digests, sorted: names are in them, and one that
/// changes is replaced without the others being seen.
pub(super) fn listing(namer: &Namer, entries: &[Digest]) -> Digest {
    let mut hasher = namer.digest_hasher();
    hasher.update(b"listing").update(entries.as_flattened());
    take16(&hasher.finalize())
}

/// The digest of sub-directories' trees, in order of names.
pub(super) fn children<'a>(
    namer: &Namer,
    trees: impl Iterator<Item = Option<&'a [u8; 32]>>,
) -> Digest {
    let mut hasher = namer.digest_hasher();
    hasher.update(b"children");
    for tree in trees {
        match tree {
            Some(id) => hasher.update(&[1]).update(id),
            None => hasher.update(&[0]),
        };
    }
    take16(&hasher.finalize())
}

/// Whether an inode's times are old enough to be believed, given the moment before which content is
/// known to have been on disk.
pub(super) fn is_settled(stat: &Stat, settled_before: Timestamp) -> bool {
    stat.mtime < settled_before && stat.ctime < settled_before
}
