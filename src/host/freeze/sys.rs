//! The calls of btrfs and of clones that no library wraps.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::ioctl::{Setter, Updater, ioctl, opcode};

/// The tree that holds the roots of all others.
const ROOT_TREE: u64 = 1;
/// Items that tell where a subvolume hangs.
const ROOT_BACKREF: u32 = 144;
/// Snapshots that nobody can write to.
const READ_ONLY: u64 = 2;
/// Longest name in a directory.
const NAME_MAX: usize = 255;

/// Where a subvolume hangs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SubvolumeRef {
    pub(super) id: u64,
    /// The subvolume that holds its name ...
    pub(super) parent: u64,
    /// ... the directory in that one ...
    pub(super) dir: u64,
    /// ... and the name.
    pub(super) name: Vec<u8>,
}

/// The subvolume of a directory (`tree` 0), and its path in there without slashes at its ends; or the
/// path of a directory of another subvolume.
pub(super) fn path_in(fd: BorrowedFd<'_>, tree: u64, dir: u64) -> io::Result<(u64, Vec<u8>)> {
    #[repr(C)]
    struct InoLookup {
        tree: u64,
        object: u64,
        name: [u8; 4080],
    }
    let mut lookup = InoLookup { tree, object: dir, name: [0; 4080] };
    // SAFETY: BTRFS_IOC_INO_LOOKUP reads and writes a `struct btrfs_ioctl_ino_lookup_args` of 4096
    // bytes, which `InoLookup` is.
    unsafe {
        ioctl(
            fd,
            Updater::<{ opcode::read_write::<InoLookup>(0x94, 18) }, InoLookup>::new(&mut lookup),
        )
    }?;
    let end = lookup.name.iter().position(|&b| b == 0).unwrap_or(lookup.name.len());
    let path = lookup.name[..end].strip_suffix(b"/").unwrap_or(&lookup.name[..end]);
    Ok((lookup.tree, path.to_vec()))
}

/// `struct btrfs_ioctl_search_key` and the results behind it.
#[repr(C)]
struct Search {
    tree: u64,
    min_object: u64,
    max_object: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_kind: u32,
    max_kind: u32,
    items: u32,
    unused: u32,
    unused_too: [u64; 4],
    found: [u8; 3992],
}

/// All subvolumes of a file system and where they hang.
pub(super) fn subvolumes(fd: BorrowedFd<'_>) -> io::Result<Vec<SubvolumeRef>> {
    const SEARCH: u32 = opcode::read_write::<Search>(0x94, 17);
    let mut all = Vec::new();
    let mut from = (256u64, 0u64);
    loop {
        let mut search = Search {
            tree: ROOT_TREE,
            min_object: from.0,
            max_object: u64::MAX,
            min_offset: from.1,
            max_offset: u64::MAX,
            min_transid: 0,
            max_transid: u64::MAX,
            min_kind: ROOT_BACKREF,
            max_kind: ROOT_BACKREF,
            items: u32::MAX,
            unused: 0,
            unused_too: [0; 4],
            found: [0; 3992],
        };
        // SAFETY: BTRFS_IOC_TREE_SEARCH reads and writes a `struct btrfs_ioctl_search_args` of 4096
        // bytes, which `Search` is.
        unsafe { ioctl(fd, Updater::<SEARCH, Search>::new(&mut search)) }?;
        if search.items == 0 {
            return Ok(all);
        }
        let last = parse(&search.found, search.items, &mut all).ok_or(Errno::IO)?;
        from = match last.1.checked_add(1) {
            Some(offset) => (last.0, offset),
            None => (last.0.saturating_add(1), 0),
        };
    }
}

fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// Reads the results of one search; the key of the last. Heads are in the machine's own order, items
/// in the disk's.
fn parse(found: &[u8], items: u32, into: &mut Vec<SubvolumeRef>) -> Option<(u64, u64)> {
    let own64 = |at: usize| found.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
    let own32 = |at: usize| found.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let (mut at, mut last) = (0, None);
    for _ in 0..items {
        let (object, offset) = (own64(at + 8)?, own64(at + 16)?);
        let (kind, len) = (own32(at + 24)?, own32(at + 28)? as usize);
        let item = found.get(at + 32..at + 32 + len)?;
        at += 32 + len;
        last = Some((object, offset));
        if kind != ROOT_BACKREF {
            continue;
        }
        let name_len = usize::from(u16::from_le_bytes(item.get(16..18)?.try_into().ok()?));
        let name = item.get(18..18 + name_len)?.to_vec();
        into.push(SubvolumeRef { id: object, parent: offset, dir: le64(item, 0)?, name });
    }
    last
}

/// Makes a read-only snapshot of the subvolume whose top directory `of` is, as `name` in `dir`.
pub(super) fn snapshot(dir: BorrowedFd<'_>, name: &[u8], of: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Args {
        fd: i64,
        transid: u64,
        flags: u64,
        unused: [u64; 4],
        name: [u8; 4040],
    }
    const CREATE: u32 = opcode::write::<Args>(0x94, 23);
    let fd = i64::from(of.as_raw_fd());
    let mut args = Args { fd, transid: 0, flags: READ_ONLY, unused: [0; 4], name: [0; 4040] };
    args.name[..fitting(name)?].copy_from_slice(name);
    // SAFETY: BTRFS_IOC_SNAP_CREATE_V2 reads a `struct btrfs_ioctl_vol_args_v2` of 4096 bytes, which
    // `Args` is; the descriptor in it stays open until the call returns.
    unsafe { ioctl(dir, Setter::<CREATE, Args>::new(args)) }?;
    Ok(())
}

/// Removes the subvolume `name` in `dir`.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    #[repr(C)]
    struct Args {
        fd: i64,
        name: [u8; 4088],
    }
    const DESTROY: u32 = opcode::write::<Args>(0x94, 15);
    let mut args = Args { fd: 0, name: [0; 4088] };
    args.name[..fitting(name)?].copy_from_slice(name);
    // SAFETY: BTRFS_IOC_SNAP_DESTROY reads a `struct btrfs_ioctl_vol_args` of 4096 bytes, which `Args`
    // is.
    unsafe { ioctl(dir, Setter::<DESTROY, Args>::new(args)) }?;
    Ok(())
}

fn fitting(name: &[u8]) -> io::Result<usize> {
    let fits = name.len() <= NAME_MAX && !name.is_empty() && !name.contains(&b'/');
    if fits { Ok(name.len()) } else { Err(Errno::INVAL.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_a_search_are_read_within_their_bounds() {
        let mut one = Vec::new();
        for word in [9u64, 300, 5] {
            one.extend(word.to_ne_bytes());
        }
        for word in [ROOT_BACKREF, 18 + 3] {
            one.extend(word.to_ne_bytes());
        }
        one.extend(256u64.to_le_bytes());
        one.extend(7u64.to_le_bytes());
        one.extend(3u16.to_le_bytes());
        one.extend(b"sub");
        let mut all = Vec::new();
        assert_eq!(parse(&one, 1, &mut all), Some((300, 5)));
        assert_eq!(all, [SubvolumeRef { id: 300, parent: 5, dir: 256, name: b"sub".to_vec() }]);
        for len in 0..one.len() {
            assert_eq!(parse(&one[..len], 1, &mut Vec::new()), None, "{len}");
        }
        assert_eq!(opcode::read_write::<Search>(0x94, 17), 0xd000_9411);
        assert_eq!(opcode::write::<[u8; 4096]>(0x94, 23), 0x5000_9417);
    }

    #[test]
    fn names_are_one_name() {
        for wrong in [b"".as_slice(), b"a/b", &[b'x'; 256]] {
            assert!(fitting(wrong).is_err());
        }
        assert_eq!(fitting(b"cabk").ok(), Some(4));
    }
}
