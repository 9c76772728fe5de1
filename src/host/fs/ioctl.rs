//! The `ioctl` calls on files that no library wraps: inode flags, project id, FIEMAP, the identity
//! of a file system, the state of an encryption key.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::IFlags;
use rustix::io::Errno;
use rustix::ioctl::{Getter, Setter, Updater, ioctl, opcode};

/// The inode flags that a program may set, as `chattr` writes them: `s u c S i a d A`, no-compress,
/// `j t D T C x P F`. All others (extents, index, encrypted, verity ...) are the file system's own.
pub const SETTABLE_FLAGS: u32 = 0x0000_00ff // s u c S i a d A
    | 0x0000_0400 // not compressed
    | 0x0000_4000 // j
    | 0x0000_8000 // t
    | 0x0001_0000 // D
    | 0x0002_0000 // T
    | 0x0080_0000 // C
    | 0x0200_0000 // x
    | 0x2000_0000 // P
    | 0x4000_0000; // F

/// `FS_XFLAG_PREALLOC`: on XFS, somebody asked for the space behind the end of the file.
pub(super) const XFLAG_PREALLOC: u32 = 0x2;

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct FsXattr {
    pub(super) xflags: u32,
    extsize: u32,
    nextents: u32,
    pub(super) project: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// Extents that one FIEMAP call returns at most.
const FIEMAP_BATCH: usize = 64;

/// `struct fiemap` of `linux/fiemap.h`, without the array behind it.
#[repr(C)]
#[derive(Clone, Copy)]
struct FiemapHead {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
}

/// `struct fiemap_extent` of `linux/fiemap.h`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct FiemapExtent {
    pub(super) logical: u64,
    physical: u64,
    pub(super) length: u64,
    reserved64: [u64; 2],
    pub(super) flags: u32,
    reserved: [u32; 3],
}

#[repr(C)]
struct Fiemap {
    head: FiemapHead,
    extents: [FiemapExtent; FIEMAP_BATCH],
}

const FIEMAP: u32 = opcode::read_write::<FiemapHead>(b'f', 11);

/// Whether an error says that the file system does not know the call.
pub(super) fn unsupported(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| {
        [Errno::NOTTY, Errno::OPNOTSUPP, Errno::NOSYS, Errno::BADR]
            .contains(&Errno::from_raw_os_error(code))
    })
}

/// All inode flags, the file system's own among them.
pub(super) fn flags(fd: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(rustix::fs::ioctl_getflags(fd)?.bits())
}

/// Gives the settable flags these values and leaves the file system's own as they are.
pub(super) fn set_flags(fd: BorrowedFd<'_>, wanted: u32) -> io::Result<()> {
    let now = flags(fd)?;
    let next = (now & !SETTABLE_FLAGS) | (wanted & SETTABLE_FLAGS);
    if next != now {
        rustix::fs::ioctl_setflags(fd, IFlags::from_bits_retain(next))?;
    }
    Ok(())
}

/// Extended flags and the project id.
pub(super) fn fsxattr(fd: BorrowedFd<'_>) -> io::Result<FsXattr> {
    // SAFETY: FS_IOC_FSGETXATTR writes one `struct fsxattr`, whose layout `FsXattr` has.
    let found =
        unsafe { ioctl(fd, Getter::<{ opcode::read::<FsXattr>(b'X', 31) }, FsXattr>::new()) }?;
    Ok(found)
}

/// Gives a file or directory to a project.
pub(super) fn set_project(fd: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let mut attributes = fsxattr(fd)?;
    if attributes.project == project {
        return Ok(());
    }
    attributes.project = project;
    // SAFETY: FS_IOC_FSSETXATTR reads one `struct fsxattr`, whose layout `FsXattr` has.
    unsafe {
        ioctl(fd, Setter::<{ opcode::write::<FsXattr>(b'X', 32) }, FsXattr>::new(attributes))
    }?;
    Ok(())
}

/// One batch of a file's extents from `start` on, written back first if `sync`. Empty at the end.
pub(super) fn fiemap(
    fd: BorrowedFd<'_>,
    start: u64,
    sync: bool,
    into: &mut Vec<FiemapExtent>,
) -> io::Result<()> {
    let mut map = Fiemap {
        head: FiemapHead {
            start,
            length: u64::MAX - start,
            flags: u32::from(sync),
            mapped: 0,
            count: FIEMAP_BATCH as u32,
            reserved: 0,
        },
        extents: [FiemapExtent::default(); FIEMAP_BATCH],
    };
    // SAFETY: FS_IOC_FIEMAP reads and writes a `struct fiemap` followed by `count` extents;
    // `Fiemap` is that, with an array of exactly `count`.
    rustix::io::retry_on_intr(|| unsafe { ioctl(fd, Updater::<FIEMAP, Fiemap>::new(&mut map)) })?;
    let mapped = usize::try_from(map.head.mapped).unwrap_or(FIEMAP_BATCH).min(FIEMAP_BATCH);
    into.clear();
    into.extend_from_slice(&map.extents[..mapped]);
    Ok(())
}

/// The UUID of the file system that holds an inode (Linux 6.9 and later).
pub(super) fn fs_uuid(fd: BorrowedFd<'_>) -> io::Result<[u8; 16]> {
    #[repr(C)]
    struct FsUuid {
        len: u8,
        uuid: [u8; 16],
    }
    // SAFETY: FS_IOC_GETFSUUID writes one `struct fsuuid2`: a length byte and 16 bytes.
    let found = unsafe { ioctl(fd, Getter::<{ opcode::read::<FsUuid>(0x15, 0) }, FsUuid>::new()) }?;
    match found.len {
        16 => Ok(found.uuid),
        _ => Err(Errno::OPNOTSUPP.into()),
    }
}

/// The UUID of an XFS, on any kernel.
pub(super) fn xfs_uuid(fd: BorrowedFd<'_>) -> io::Result<[u8; 16]> {
    #[repr(C, align(8))]
    struct Geometry {
        before: [u8; 64],
        uuid: [u8; 16],
        after: [u8; 32],
    }
    // SAFETY: XFS_IOC_FSGEOMETRY_V1 writes a `struct xfs_fsop_geom_v1` of 112 bytes; `Geometry` is
    // as long (the number of the call holds the length, another one would be refused).
    let found =
        unsafe { ioctl(fd, Getter::<{ opcode::read::<Geometry>(b'X', 100) }, Geometry>::new()) }?;
    let _ = (found.before, found.after);
    Ok(found.uuid)
}

/// The UUID of a btrfs, whatever its subvolume.
pub(super) fn btrfs_uuid(fd: BorrowedFd<'_>) -> io::Result<[u8; 16]> {
    #[repr(C, align(8))]
    struct FsInfo {
        before: [u8; 16],
        uuid: [u8; 16],
        after: [u8; 992],
    }
    // Zeros ask for nothing beyond the plain fields.
    let mut found = FsInfo { before: [0; 16], uuid: [0; 16], after: [0; 992] };
    // SAFETY: BTRFS_IOC_FS_INFO reads and writes a `struct btrfs_ioctl_fs_info_args` of 1024 bytes,
    // which `FsInfo` is as long as.
    unsafe { ioctl(fd, Updater::<{ opcode::read::<FsInfo>(0x94, 31) }, FsInfo>::new(&mut found)) }?;
    let _ = (found.before, found.after);
    Ok(found.uuid)
}

/// The id of the btrfs subvolume that holds a directory.
pub(super) fn btrfs_subvolume(fd: BorrowedFd<'_>) -> io::Result<u64> {
    /// What every subvolume's root directory is numbered.
    const FIRST_FREE_OBJECTID: u64 = 256;
    #[repr(C)]
    struct InoLookup {
        tree: u64,
        object: u64,
        name: [u8; 4080],
    }
    let mut lookup = InoLookup { tree: 0, object: FIRST_FREE_OBJECTID, name: [0; 4080] };
    // SAFETY: BTRFS_IOC_INO_LOOKUP reads and writes a `struct btrfs_ioctl_ino_lookup_args` of 4096
    // bytes, which `InoLookup` is.
    unsafe {
        ioctl(
            fd,
            Updater::<{ opcode::read_write::<InoLookup>(0x94, 18) }, InoLookup>::new(&mut lookup),
        )
    }?;
    let _ = lookup.name;
    Ok(lookup.tree)
}

/// Whether the key of an encrypted directory is there. Without it the kernel lists made-up names.
pub(super) fn encryption_key_present(fd: BorrowedFd<'_>) -> io::Result<bool> {
    #[repr(C)]
    struct Policy {
        size: u64,
        /// Version first; 12 bytes of version 0, 24 of version 2.
        policy: [u8; 24],
    }
    #[repr(C)]
    struct KeyStatus {
        kind: u32,
        reserved: u32,
        name: [u8; 32],
        reserved_in: [u32; 6],
        status: u32,
        rest: [u32; 15],
    }
    const POLICY: u32 = opcode::read_write::<[u8; 9]>(b'f', 22);
    const STATUS: u32 = opcode::read_write::<KeyStatus>(b'f', 26);
    const PRESENT: u32 = 2;
    let mut policy = Policy { size: 24, policy: [0; 24] };
    // SAFETY: FS_IOC_GET_ENCRYPTION_POLICY_EX writes at most `size` bytes behind the size.
    unsafe { ioctl(fd, Updater::<POLICY, Policy>::new(&mut policy)) }?;
    let mut name = [0; 32];
    let kind = if policy.policy[0] == 2 {
        name[..16].copy_from_slice(&policy.policy[8..24]);
        2
    } else {
        name[..8].copy_from_slice(&policy.policy[4..12]);
        1
    };
    let mut status =
        KeyStatus { kind, reserved: 0, name, reserved_in: [0; 6], status: 0, rest: [0; 15] };
    // SAFETY: FS_IOC_GET_ENCRYPTION_KEY_STATUS reads and writes a `struct
    // fscrypt_get_key_status_arg` of 128 bytes, which `KeyStatus` is.
    unsafe { ioctl(fd, Updater::<STATUS, KeyStatus>::new(&mut status)) }?;
    let _ = (status.reserved, status.reserved_in, status.rest);
    Ok(status.status == PRESENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_calls_are_the_kernels() {
        assert_eq!(FIEMAP, 0xc020_660b);
        assert_eq!(opcode::read::<FsXattr>(b'X', 31), 0x801c_581f);
        assert_eq!(opcode::write::<FsXattr>(b'X', 32), 0x401c_5820);
        assert_eq!(opcode::read::<[u8; 17]>(0x15, 0), 0x8011_1500);
        assert_eq!(opcode::read::<[u8; 112]>(b'X', 100), 0x8070_5864);
        assert_eq!(opcode::read_write::<[u8; 128]>(b'f', 26), 0xc080_661a);
        assert_eq!(size_of::<FiemapExtent>(), 56);
        assert_eq!(size_of::<Fiemap>(), 32 + 56 * FIEMAP_BATCH);
    }
}
