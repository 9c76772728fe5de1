//! What a mount is: its type, an identity that outlives boots, how fine its times are.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::fs::{AtFlags, StatxFlags};

use super::{Volume, ioctl};
use crate::base::path::is_within;

/// Types that are read on this machine, with the magic number that `statfs` gives for each. What is
/// not here may answer from a cache that another machine has made stale.
const LOCAL: &[(&str, u64)] = &[
    ("ext2", 0xef53),
    ("ext3", 0xef53),
    ("ext4", 0xef53),
    ("xfs", 0x5846_5342),
    ("btrfs", 0x9123_683e),
    ("tmpfs", 0x0102_1994),
    ("zfs", 0x2fc1_2fc1),
    ("f2fs", 0xf2f5_2010),
    ("overlay", 0x794c_7630),
    ("ramfs", 0x8584_58f6),
    ("bcachefs", 0xca45_1a4e),
    ("jfs", 0x3153_464a),
    ("reiserfs", 0x5265_4973),
    ("vfat", 0x4d44),
    ("msdos", 0x4d44),
    ("exfat", 0x2011_bab0),
    ("ntfs3", 0x7366_746e),
    ("nilfs2", 0x3434),
    ("udf", 0x1501_3346),
    ("iso9660", 0x9660),
    ("squashfs", 0x7371_7368),
    ("erofs", 0xe0f5_e1e2),
];

/// The kernel's own types, which hold no data of anybody.
const PSEUDO: &[&str] = &[
    "autofs",
    "binder",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "resctrl",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "smackfs",
    "sysfs",
    "tracefs",
];

/// Types whose times are as fine as needed to tell two changes apart, since Linux 6.13.
const MULTIGRAIN: &[&str] = &["ext4", "xfs", "btrfs", "tmpfs"];

/// Grain of the times where the kernel makes them fine when somebody looked in between.
const FINE: Duration = Duration::from_millis(10);

/// Grain of the times anywhere else: that of the coarsest type in use (vfat).
const COARSE: Duration = Duration::from_secs(2);

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Identifier of the mount, as `statx` gives it.
    pub id: u64,
    /// Device number, (major, minor).
    pub dev: (u32, u32),
    /// What of the file system is mounted.
    pub root: Vec<u8>,
    /// Where it is mounted.
    pub point: Vec<u8>,
    /// Type.
    pub fs_type: String,
    /// Device, server's export, or whatever the type takes.
    pub source: Vec<u8>,
    /// Options of the file system.
    pub options: Vec<u8>,
}

/// Whether a type, by its magic number, is one of this machine.
pub(super) fn is_local_magic(magic: u64) -> bool {
    // Some platforms extend the sign of 32 bits.
    LOCAL.iter().any(|&(_, known)| known == magic & 0xffff_ffff)
}

/// Whether a type is one of this machine.
#[must_use]
pub fn is_local(fs_type: &str) -> bool {
    LOCAL.iter().any(|&(known, _)| known == fs_type)
}

/// Whether a file system that other machines may change is mounted below a path, or holds it. The
/// path is free of symbolic links.
#[must_use]
pub fn touches_network(mounts: &[Mount], path: &[u8]) -> bool {
    let network = |mount: &Mount| !is_local(&mount.fs_type) && !is_pseudo(&mount.fs_type);
    // Of mounts at one place the last one counts; a longer one lies within a shorter one.
    let holds = mounts.iter().filter(|mount| is_within(path, &mount.point));
    let holder = holds.max_by_key(|mount| mount.point.len());
    holder.is_some_and(network) || mounts.iter().any(|m| is_within(&m.point, path) && network(m))
}

/// Whether a type is one of the kernel's own.
#[must_use]
pub fn is_pseudo(fs_type: &str) -> bool {
    PSEUDO.contains(&fs_type)
}

/// All mounts that this process sees.
///
/// # Errors
/// What the operating system says (`/proc` not mounted), or a line that cannot be read.
pub fn mounts() -> io::Result<Vec<Mount>> {
    parse(&std::fs::read("/proc/self/mountinfo")?)
}

/// Reads the text of `/proc/self/mountinfo`.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] for a line that is none.
pub fn parse(text: &[u8]) -> io::Result<Vec<Mount>> {
    text.split(|&b| b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            parse_line(line).ok_or_else(|| {
                let line = String::from_utf8_lossy(&line[..line.len().min(200)]);
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("not a line of mountinfo: {line:?}"),
                )
            })
        })
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|&b| b == b' ');
    let id = number(words.next()?)?;
    let _parent = words.next()?;
    let dev = words.next()?;
    let colon = dev.iter().position(|&b| b == b':')?;
    let dev = (
        u32::try_from(number(&dev[..colon])?).ok()?,
        u32::try_from(number(&dev[colon + 1..])?).ok()?,
    );
    let root = unescape(words.next()?);
    let point = unescape(words.next()?);
    // Options of the mount, then optional fields up to a lone dash.
    let _mount_options = words.next()?;
    words.find(|word| *word == b"-")?;
    let fs_type = String::from_utf8(unescape(words.next()?)).ok()?;
    let source = unescape(words.next()?);
    let options = unescape(words.next().unwrap_or_default());
    Some(Mount { id, dev, root, point, fs_type, source, options })
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Undoes the kernel's escapes: a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        match tail.get(..3) {
            Some([a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7']) if first == b'\\' => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = &tail[3..];
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

/// What the mount is that holds an open directory.
pub(super) fn of(dir: BorrowedFd<'_>) -> io::Result<Volume> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let mask = StatxFlags::INO | StatxFlags::MNT_ID;
    let stat = rustix::io::retry_on_intr(|| rustix::fs::statx(dir, c"", flags, mask))?;
    let by_id = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    let dev = (stat.stx_dev_major, stat.stx_dev_minor);
    let mut mounts = mounts()?.into_iter();
    let mount = mounts.find(|m| if by_id { m.id == stat.stx_mnt_id } else { m.dev == dev });
    let mount = mount.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "the directory's mount is not in mountinfo")
    })?;
    let local = is_local(&mount.fs_type);
    let identity = identity(dir, &mount, local)?;
    let grain = grain(&mount.fs_type, kernel_version()?);
    let pseudo = is_pseudo(&mount.fs_type);
    let superblock = mount.dev;
    Ok(Volume { identity, fs_type: mount.fs_type, local, superblock, pseudo, grain })
}

/// A name that stays the same over boots, never built from the device number alone.
fn identity(dir: BorrowedFd<'_>, mount: &Mount, local: bool) -> io::Result<String> {
    let fs_type = &mount.fs_type;
    let source = mount.source.escape_ascii();
    if !local {
        return Ok(format!("{fs_type}:{source}"));
    }
    let mut identity = match uuid(dir, mount)? {
        Some(uuid) => format!("{fs_type}:{uuid}"),
        None => {
            let fsid = fsid(dir)?;
            // XFS makes its fsid from the device number; a type without any gives zero. Both then
            // hold for one boot only.
            if fsid == 0 || fs_type == "xfs" {
                let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
                let (major, minor) = mount.dev;
                format!("{fs_type}:{source}:boot-{}:{major}:{minor}", boot.trim())
            } else {
                format!("{fs_type}:fsid-{fsid:016x}")
            }
        }
    };
    if fs_type == "btrfs" {
        identity.push_str(&format!(":subvolume-{}", ioctl::btrfs_subvolume(dir)?));
    }
    if fs_type == "overlay" {
        // Overlays on one file system share its fsid: the upper layer tells them apart.
        let mut options = mount.options.split(|&b| b == b',');
        if let Some(upper) = options.find_map(|o| o.strip_prefix(b"upperdir=")) {
            identity.push_str(&format!(":{}", upper.escape_ascii()));
        }
    }
    Ok(identity)
}

/// The UUID of the file system, from the kernel or from the names of its device.
fn uuid(dir: BorrowedFd<'_>, mount: &Mount) -> io::Result<Option<String>> {
    // An overlay has its own UUID only in part, and a tmpfs a new one at each mount: its fsid.
    if matches!(mount.fs_type.as_str(), "overlay" | "tmpfs" | "ramfs" | "zfs") {
        return Ok(None);
    }
    let own = match mount.fs_type.as_str() {
        "xfs" => ioctl::xfs_uuid,
        "btrfs" => ioctl::btrfs_uuid,
        _ => ioctl::fs_uuid,
    };
    match own(dir) {
        // An image may be made without one; then it names nothing.
        Ok(uuid) if uuid == [0; 16] => return Ok(None),
        Ok(uuid) => return Ok(Some(hyphenated(uuid))),
        Err(e) if ioctl::unsupported(&e) => {}
        Err(e) => return Err(e),
    }
    Ok(uuid_by_device(mount))
}

/// Looks the device up among the names that udev keeps. Where there is no udev there is none.
fn uuid_by_device(mount: &Mount) -> Option<String> {
    let source = std::path::Path::new(std::ffi::OsStr::from_bytes(&mount.source));
    let device = match rustix::fs::stat(source) {
        Ok(stat) if source.starts_with("/dev") => stat.st_rdev,
        _ => rustix::fs::makedev(mount.dev.0, mount.dev.1),
    };
    std::fs::read_dir("/dev/disk/by-uuid").ok()?.flatten().find_map(|entry| {
        let found = rustix::fs::stat(entry.path()).ok()?;
        (found.st_rdev == device).then(|| entry.file_name().as_bytes().escape_ascii().to_string())
    })
}

fn hyphenated(uuid: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// `f_fsid` of `statfs`, by way of `statvfs`, which shows it as a number.
fn fsid(dir: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(rustix::io::retry_on_intr(|| rustix::fs::fstatvfs(dir))?.f_fsid)
}

fn kernel_version() -> io::Result<(u32, u32)> {
    let names = nix::sys::utsname::uname()?;
    Ok(parse_version(&names.release().to_string_lossy()))
}

/// The first two numbers of a release such as `6.18.44-generic`; 0 for what is none.
fn parse_version(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

fn grain(fs_type: &str, kernel: (u32, u32)) -> Duration {
    if kernel >= (6, 13) && MULTIGRAIN.contains(&fs_type) { FINE } else { COARSE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fs::linux::LinuxFs;
    use crate::host::fs::{SourceDir, SourceFs};

    #[test]
    fn mountinfo_is_read_with_its_escapes() -> io::Result<()> {
        let text = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:7 - ext3 /dev/root rw\n\
            41 36 0:52 / /srv/with\\040space\\012line\\134 rw - nfs4 files:/export/a\\040b rw,vers=4.2\n\
            50 1 0:60 / /x\\04 rw - fuse.sshfs user@host: rw,user_id=0\n\
            51 1 0:61 / /e rw -  none \n";
        assert!(parse(text).is_ok_and(|all| all.len() == 4));
        let all = parse(text)?;
        assert_eq!(all[0].id, 36);
        assert_eq!(all[0].dev, (98, 0));
        assert_eq!(all[0].root, b"/mnt1");
        assert_eq!(all[0].fs_type, "ext3");
        assert_eq!(all[0].source, b"/dev/root");
        assert_eq!(all[1].point, b"/srv/with space\nline\\");
        assert_eq!(all[1].source, b"files:/export/a b");
        assert_eq!(all[1].options, b"rw,vers=4.2");
        assert_eq!(all[2].point, b"/x\\04");
        assert_eq!(all[2].fs_type, "fuse.sshfs");
        for wrong in ["x", "1 2 3 / / rw - ext4 a b", "1 2 3:4 / / rw ext4 a b", "1 2 3:4 / /"] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        Ok(())
    }

    #[test]
    fn mounts_of_other_machines_are_found_above_and_below() -> io::Result<()> {
        let text = b"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / /data/apps rw - nfs4 s:/apps rw\n\
            3 1 0:4 / /data/proc rw - proc proc rw\n4 1 8:2 / /srv/x rw - xfs /dev/b rw\n";
        let mounts = parse(text)?;
        for (path, holds) in [
            (&b"/"[..], true),
            (b"/data", true),
            (b"/data/apps", true),
            (b"/data/apps/x", true),
            (b"/data/app", false),
            (b"/srv", false),
        ] {
            assert_eq!(touches_network(&mounts, path), holds, "{}", path.escape_ascii());
        }
        Ok(())
    }

    #[test]
    fn types_stand_on_one_list() {
        assert!(is_local("ext4") && is_local("tmpfs") && !is_local("nfs4") && !is_local("fuse"));
        assert!(PSEUDO.iter().all(|t| !is_local(t)) && is_pseudo("cgroup2"));
        assert!(MULTIGRAIN.iter().all(|t| is_local(t)));
        assert!(is_local_magic(0xef53) && !is_local_magic(0x6969));
        assert!(is_local_magic(0xffff_ffff_9123_683e));
    }

    #[test]
    fn grain_follows_the_kernel() {
        assert_eq!(parse_version("6.18.44-generic"), (6, 18));
        assert_eq!(parse_version("5.14"), (5, 14));
        assert_eq!(parse_version("odd"), (0, 0));
        assert_eq!(grain("ext4", (6, 13)), FINE);
        assert_eq!(grain("ext4", (6, 12)), COARSE);
        assert_eq!(grain("nfs4", (7, 0)), COARSE);
    }

    #[test]
    fn uuids_have_their_usual_form() {
        assert_eq!(hyphenated([0xab; 16]), "abababab-abab-abab-abab-abababababab");
    }

    #[test]
    fn this_machine_has_volumes() -> io::Result<()> {
        let temp = tempfile::tempdir()?;
        let dir = LinuxFs::open(temp.path().as_os_str().as_bytes())?;
        let volume = LinuxFs.volume(&dir)?;
        assert!(!volume.pseudo && volume.identity.starts_with(&volume.fs_type));
        std::fs::create_dir(temp.path().join("sub"))?;
        let below = LinuxFs.volume(dir.open_dir(b"sub")?.as_ref())?;
        assert_eq!(below, volume);
        let proc = LinuxFs.open_root(b"/proc")?;
        let kernel = LinuxFs.volume(proc.as_ref())?;
        assert!(kernel.pseudo && !kernel.local && kernel.fs_type == "proc");
        Ok(())
    }
}
