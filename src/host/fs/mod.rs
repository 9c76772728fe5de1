//! A source's file system, behind traits: what the walker asks and nothing more.
//!
//! Everything is done relative to a directory's descriptor, beneath it and without following
//! symbolic links: the content of a Connect site is code of its users, who may race a root process.

mod bounded;
mod ioctl;
pub mod linux;
pub mod target;
pub mod volume;

pub use bounded::BoundedFs;
pub use ioctl::SETTABLE_FLAGS;
pub use linux::LinuxFs;
pub use target::{TargetDir, TargetFile};

use std::io;

use crate::base::time::Timestamp;

/// What an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum InodeKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe. Never opened.
    Fifo,
    /// A socket. Never opened.
    Socket,
    /// A character device. Never opened.
    CharDevice,
    /// A block device. Never opened.
    BlockDevice,
}

/// What `statx` says of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// What it is.
    pub kind: InodeKind,
    /// Permission bits, 07777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes; of a symbolic link those of its target.
    pub size: u64,
    /// Bytes allocated.
    pub allocated: u64,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Birth, where the file system keeps it.
    pub btime: Option<Timestamp>,
    /// Inode number.
    pub ino: u64,
    /// Names of the inode.
    pub nlink: u32,
    /// Device number of a device node, (major, minor).
    pub rdev: (u32, u32),
    /// Device that holds the inode, (major, minor): tells mounts apart within one run, never kept.
    pub dev: (u32, u32),
    /// Identifier of the mount, where the kernel gives it (0 where not).
    pub mount_id: u64,
    /// Whether the inode is the root of a mount.
    pub mount_root: bool,
}

/// One stretch of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// What lies there.
    pub kind: ExtentKind,
}

/// What a stretch of a file is. What no extent covers is a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExtentKind {
    /// Written bytes.
    Data,
    /// Allocated but never written: reads as zeros and is kept as allocated (fallocate).
    Unwritten,
}

/// A file's map, in order of offset, without overlap, ends clipped to the file's size except for
/// unwritten extents beyond it (fallocate with keep-size).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtentMap {
    /// The stretches that are not holes.
    pub extents: Vec<Extent>,
    /// Whether unwritten extents could be told from data (FIEMAP); if not, only holes are known.
    pub exact: bool,
}

/// The attributes that `stat` does not give.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attributes {
    /// Extended attributes in all namespaces, by name, sorted; ACLs and capabilities among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Inode flags (`FS_IOC_GETFLAGS`), where the file system has them; only those that can be set.
    pub flags: Option<u32>,
    /// Project id of the quota system, where it is not 0.
    pub project: Option<u32>,
    /// What could not be read, each with its reason.
    pub unread: Vec<(String, io::ErrorKind)>,
}

/// One name in a directory, as the directory itself gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawName {
    /// The name's bytes.
    pub name: Vec<u8>,
    /// Inode number that the directory gives (that of a mount point's covered directory).
    pub ino: u64,
}

/// What a mount is, found once per mount of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    /// A name that stays the same over boots and btrfs snapshots: type with UUID or fsid and
    /// subvolume, or the source of a network mount. Never `st_dev`.
    pub identity: String,
    /// File system type, as in `/proc/self/mountinfo`: `ext4`, `nfs4`, `fuse.sshfs`.
    pub fs_type: String,
    /// Whether the type is on the list of local ones. Everything else, FUSE included, is treated as
    /// a network file system, whose caches must be asked to refresh.
    pub local: bool,
    /// Device of the file system as a whole, as `mountinfo` gives it: one for all subvolumes of a
    /// btrfs. Tells file systems apart within one run, never kept.
    pub superblock: (u32, u32),
    /// Whether it is one of the kernel's own (proc, sysfs, cgroup ...): left out and listed.
    pub pseudo: bool,
    /// How far apart two changes must be to get different times.
    pub grain: std::time::Duration,
}

/// A source's file system.
pub trait SourceFs: Send + Sync {
    /// Opens a directory by the path that an operator or the configuration gave: symbolic links in
    /// it are followed, this once.
    ///
    /// # Errors
    /// What the operating system says.
    fn open_root(&self, path: &[u8]) -> io::Result<Box<dyn SourceDir>>;

    /// What the mount is on which an open directory lies.
    ///
    /// # Errors
    /// What the operating system says.
    fn volume(&self, dir: &dyn SourceDir) -> io::Result<Volume>;

    /// Writes back all dirty pages of the file system of `dir` (`syncfs`), so that a later store
    /// through a mapping moves the times again.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync(&self, dir: &dyn SourceDir) -> io::Result<()>;
}

/// An open directory of a source.
pub trait SourceDir: Send + Sync {
    /// The directory's own inode.
    ///
    /// # Errors
    /// What the operating system says.
    fn stat_self(&self) -> io::Result<Stat>;

    /// All names but `.` and `..`, in the order of the file system.
    ///
    /// # Errors
    /// What the operating system says.
    fn names(&self) -> io::Result<Vec<RawName>>;

    /// The inode of a name, without following a symbolic link or triggering an automount.
    ///
    /// # Errors
    /// What the operating system says.
    fn stat(&self, name: &[u8]) -> io::Result<Stat>;

    /// Opens a directory below this one by a relative path of one or more names, at most 4,000
    /// bytes, beneath this directory and through no symbolic link (`openat2`).
    ///
    /// # Errors
    /// What the operating system says; `ELOOP` or `EXDEV` where the path leads out.
    fn open_dir(&self, path: &[u8]) -> io::Result<Box<dyn SourceDir>>;

    /// Opens a regular file for reading: never blocks, leaves the access time alone where allowed,
    /// and refuses whatever turned out to be no regular file.
    ///
    /// # Errors
    /// What the operating system says.
    fn open_file(&self, name: &[u8]) -> io::Result<Box<dyn SourceFile>>;

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>>;

    /// The attributes of a name that is neither a regular file nor a directory.
    ///
    /// # Errors
    /// What the operating system says.
    fn attributes(&self, name: &[u8]) -> io::Result<Attributes>;

    /// The attributes of the directory itself.
    ///
    /// # Errors
    /// What the operating system says.
    fn attributes_self(&self) -> io::Result<Attributes>;

    /// The descriptor, for [`SourceFs::volume`] and [`SourceFs::sync`] of the same implementation.
    fn descriptor(&self) -> std::os::fd::BorrowedFd<'_>;
}

/// An open regular file of a source.
pub trait SourceFile: Send {
    /// The file's inode now.
    ///
    /// # Errors
    /// What the operating system says.
    fn stat(&self) -> io::Result<Stat>;

    /// Reads at an offset; fewer bytes than asked for only at the end.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The map of data, unwritten extents and holes. Costs one call for a file that is all data.
    ///
    /// # Errors
    /// What the operating system says.
    fn extents(&self, stat: &Stat) -> io::Result<ExtentMap>;

    /// The attributes that `stat` does not give.
    ///
    /// # Errors
    /// What the operating system says.
    fn attributes(&self) -> io::Result<Attributes>;
}
