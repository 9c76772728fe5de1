//! Which processes use an inode of given trees: as an open file, current or root directory, program
//! or mapping.
//!
//! Compared are device and inode, never the text of a path: a rendering of Connect runs in a mount
//! namespace of its own and sees other paths. A file that is not in the set (made since the set was
//! gathered, or unlinked) is traced: its directory is opened as the process sees it, and walked
//! upwards until an inode of the set or a root of a tree is met.
//!
//! Not seen are files that are only passed along in a socket or registered with `io_uring`, and
//! processes of other machines or, where [`ScanScope`] says so, of other pid namespaces. A thread
//! that made its file table its own is not looked at apart from its process. A process that begins
//! while the scan runs is seen if its number is higher than those already visited.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::base::time::Timestamp;
use crate::host::clock::{Clock, SystemClock};

mod maps;
#[cfg(test)]
mod tests;
mod text;
mod trace;

/// A device: major and minor number, as `stat` gives it.
pub type Device = (u32, u32);

/// The pid namespace that the machine starts with has this inode on every kernel.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Inodes that are looked for.
pub trait InodeSet: Sync {
    /// The devices of all inodes of the set: asked once, and only inodes on one of them are asked
    /// for. Devices as `stat` gives them, those of btrfs subvolumes and mounts below the roots
    /// among them.
    fn devices(&self) -> Vec<Device>;

    /// Whether the inode is in the set.
    fn contains(&self, dev: Device, ino: u64) -> bool;

    /// When the set was made: an inode that was born later is another file with a number that was
    /// used again, and is judged by where it lies. `None` where that does not matter.
    fn as_of(&self) -> Option<Timestamp>;
}

impl<S: std::hash::BuildHasher + Sync> InodeSet for HashSet<(Device, u64), S> {
    fn devices(&self) -> Vec<Device> {
        let unique: HashSet<Device> = self.iter().map(|&(dev, _)| dev).collect();
        unique.into_iter().collect()
    }

    fn contains(&self, dev: Device, ino: u64) -> bool {
        HashSet::contains(self, &(dev, ino))
    }

    fn as_of(&self) -> Option<Timestamp> {
        None
    }
}

/// The inode behind a path, symbolic links followed.
///
/// # Errors
/// What the operating system says.
pub fn inode_of(path: &Path) -> io::Result<(Device, u64)> {
    Ok(identity(&look(CWD, path, AtFlags::empty())?))
}

/// What a process does with an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UseKind {
    /// It has the inode open.
    Fd {
        /// Number of the descriptor.
        fd: u32,
        /// Whether it may write through it.
        writable: bool,
        /// Flags of `open`, as `fdinfo` gives them.
        flags: u32,
    },
    /// Its current directory.
    Cwd,
    /// Its root directory.
    Root,
    /// Its program.
    Exe,
    /// A mapping.
    Map {
        /// Whether stores through it reach the file.
        writable: bool,
    },
}

impl UseKind {
    /// Whether the file can be written through this use.
    #[must_use]
    pub const fn is_writable(&self) -> bool {
        matches!(self, Self::Fd { writable: true, .. } | Self::Map { writable: true })
    }
}

/// One use of an inode by a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessUse {
    /// The process.
    pub pid: u32,
    /// Its name and arguments, for people: control characters escaped, long ones cut with `...`.
    pub command: String,
    /// Its effective user.
    pub uid: u32,
    /// What it does.
    pub what: UseKind,
    /// Device of the inode.
    pub dev: Device,
    /// The inode.
    pub ino: u64,
    /// The path as the kernel gives it, for people; it may be another namespace's, or end in
    /// ` (deleted)`.
    pub path: Vec<u8>,
}

/// What a scan could see.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScanScope {
    /// Whether all processes of the machine were visible: its first pid namespace, nothing hidden.
    pub pid_namespace_is_host: bool,
    /// Processes that were looked at ...
    pub processes_seen: usize,
    /// ... and how long that took.
    pub took: Duration,
    /// Processes that could not be looked at, or not wholly.
    pub unreadable: Vec<u32>,
    /// Inodes on the devices of the set, not in the set, of which it could not be found out whether
    /// they lie in a tree (their directory is gone or out of sight).
    pub untraced: usize,
}

impl ScanScope {
    /// Whether nothing on this machine could have escaped the scan.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pid_namespace_is_host && self.unreadable.is_empty()
    }
}

/// What a scan found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScanResult {
    /// The uses, by process.
    pub uses: Vec<ProcessUse>,
    /// What could be seen.
    pub scope: ScanScope,
}

/// Looks at all processes but this one and those in `exclude`. `roots` are the inodes of the trees'
/// top directories; without any nothing is traced, and only inodes of the set are found.
///
/// # Errors
/// Where `/proc` itself cannot be read. A process that ends meanwhile is no error, and one that
/// cannot be looked at is listed in the scope.
pub fn scan(
    set: &dyn InodeSet,
    roots: &[(Device, u64)],
    exclude: &[u32],
) -> io::Result<ScanResult> {
    let began = SystemClock.monotonic();
    let proc_dir = open_dir(CWD, "/proc")?;
    let own = rustix::fs::readlinkat(&proc_dir, "self", Vec::new())?;
    let own = own.to_str().ok().and_then(|text| text.parse::<u32>().ok());
    let pids = numbers(proc_dir.as_fd(), "")?;
    let devices: HashSet<Device> =
        set.devices().into_iter().chain(roots.iter().map(|root| root.0)).collect();
    let scanner = Scanner {
        set,
        roots: roots.iter().copied().collect(),
        maps_tell_devices: maps::tell_devices(&devices)?,
        devices,
        known: Mutex::new(HashMap::new()),
    };
    let wanted = pids.into_iter().filter(|pid| Some(*pid) != own && !exclude.contains(pid));
    let wanted: Vec<u32> = wanted.collect();
    let found: Vec<Process> =
        wanted.into_par_iter().filter_map(|pid| scanner.process(proc_dir.as_fd(), pid)).collect();
    let mut result = ScanResult::default();
    result.scope.pid_namespace_is_host = sees_whole_machine();
    result.scope.processes_seen = found.len();
    for mut process in found {
        if process.unreadable {
            result.scope.unreadable.push(process.pid);
        }
        result.uses.append(&mut process.uses);
    }
    result.scope.unreadable.sort_unstable();
    result.uses.sort_by_key(|one| one.pid);
    result.scope.untraced = scanner.untraced();
    result.scope.took = SystemClock.monotonic().saturating_sub(began);
    Ok(result)
}

/// Whether this process is in the machine's first pid namespace and sees everybody in it: the
/// kernel's own threads are hidden where a mount option of `/proc` hides other users' processes.
fn sees_whole_machine() -> bool {
    let own = std::fs::read_link("/proc/self/ns/pid");
    let threads = std::fs::read("/proc/2/comm");
    own.is_ok_and(|name| name.as_os_str() == FIRST_PID_NAMESPACE)
        && threads.is_ok_and(|name| name == b"kthreadd\n")
}

/// What is known of an inode that is not in the set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Traced {
    Inside,
    Outside,
    Unknown,
}

struct Scanner<'a> {
    set: &'a dyn InodeSet,
    roots: HashSet<(Device, u64)>,
    devices: HashSet<Device>,
    maps_tell_devices: bool,
    /// Inodes that were traced, so that a library is traced once and not for each process.
    known: Mutex<HashMap<(Device, u64), Traced>>,
}

/// A process as it is looked at.
struct Process {
    pid: u32,
    uses: Vec<ProcessUse>,
    unreadable: bool,
    /// Name and user, found with the first use.
    who: Option<(String, u32)>,
}

impl Process {
    /// Whether the error only says that something went away. What was denied is noted.
    fn shrug(&mut self, error: Errno) {
        if !matches!(error, Errno::NOENT | Errno::SRCH | Errno::NOTDIR) {
            self.unreadable = true;
        }
    }

    fn add(&mut self, dir: BorrowedFd<'_>, what: UseKind, inode: (Device, u64), path: Vec<u8>) {
        let (command, uid) = self.who.get_or_insert_with(|| text::who(dir)).clone();
        let (dev, ino) = inode;
        self.uses.push(ProcessUse { pid: self.pid, command, uid, what, dev, ino, path });
    }
}

impl Scanner<'_> {
    /// Looks at a process; `None` where it is gone.
    fn process(&self, proc_dir: BorrowedFd<'_>, pid: u32) -> Option<Process> {
        let mut process = Process { pid, uses: Vec::new(), unreadable: false, who: None };
        let dir = match open_dir(proc_dir, pid.to_string()) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::SRCH) => return None,
            Err(_) => {
                process.unreadable = true;
                return Some(process);
            }
        };
        let lives = self.task(dir.as_fd(), &mut process);
        if !lives && !process.unreadable {
            // The first thread has ended; the others hold what the process has open.
            self.other_threads(dir.as_fd(), &mut process);
        }
        if process.unreadable && text::has_nothing(dir.as_fd()) {
            process.unreadable = false;
        }
        Some(process)
    }

    fn other_threads(&self, dir: BorrowedFd<'_>, process: &mut Process) {
        let threads = match numbers(dir, "task") {
            Ok(threads) => threads,
            Err(error) => return process.shrug(error),
        };
        let first = process.pid;
        for thread in threads.into_iter().filter(|&thread| thread != first) {
            match open_dir(dir, format!("task/{thread}")) {
                // All threads share what matters, so one that lives is enough.
                Ok(task) if self.task(task.as_fd(), process) => return,
                Ok(_) => {}
                Err(error) => process.shrug(error),
            }
        }
    }

    /// Looks at a process through one of its threads; whether that thread lives.
    fn task(&self, dir: BorrowedFd<'_>, process: &mut Process) -> bool {
        let mut lives = false;
        let links = [("cwd", UseKind::Cwd), ("root", UseKind::Root), ("exe", UseKind::Exe)];
        for (name, what) in links {
            match look(dir, name, AtFlags::empty()) {
                Ok(stat) => {
                    lives |= what == UseKind::Cwd;
                    let inode = identity(&stat);
                    let handle = trace::Handle { task: dir, dir, name };
                    if self.devices.contains(&inode.0) && self.is_used(inode, &stat, &handle) {
                        process.add(dir, what, inode, link_text(dir, name));
                    }
                }
                Err(error) => process.shrug(error),
            }
        }
        self.descriptors(dir, process);
        self.mappings(dir, process);
        lives
    }

    fn descriptors(&self, task: BorrowedFd<'_>, process: &mut Process) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(task, "fd", flags, Mode::empty());
        let fds = match opened.and_then(rustix::fs::Dir::new) {
            Ok(fds) => fds,
            Err(error) => return process.shrug(error),
        };
        let Ok(listing) = fds.fd().and_then(|fd| fd.try_clone_to_owned().map_err(as_errno)) else {
            process.unreadable = true;
            return;
        };
        for entry in fds {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return process.shrug(error),
            };
            let Some(name) = entry.file_name().to_str().ok() else { continue };
            let Ok(fd) = name.parse::<u32>() else { continue };
            let stat = match look(&listing, name, AtFlags::empty()) {
                Ok(stat) => stat,
                Err(error) => {
                    process.shrug(error);
                    continue;
                }
            };
            let inode = identity(&stat);
            if !self.devices.contains(&inode.0) {
                continue;
            }
            let handle = trace::Handle { task, dir: listing.as_fd(), name };
            if self.is_used(inode, &stat, &handle) {
                let flags = text::open_flags(task, fd);
                let writable = flags.is_none_or(text::allows_writing);
                let what = UseKind::Fd { fd, writable, flags: flags.unwrap_or(0) };
                process.add(task, what, inode, link_text(listing.as_fd(), name));
            }
        }
    }

    /// Whether an inode on one of the devices is one of those looked for.
    fn is_used(&self, inode: (Device, u64), stat: &Statx, handle: &trace::Handle<'_>) -> bool {
        if self.roots.contains(&inode) || (self.is_listed(inode) && !self.is_younger(stat)) {
            return true;
        }
        self.remembered(inode, || {
            if rustix::fs::FileType::from_raw_mode(stat.stx_mode.into()).is_dir() {
                self.trace_dir(handle)
            } else {
                self.trace_path(handle.task, &link_text(handle.dir, handle.name), inode)
            }
        })
    }

    /// Whether an inode was born after the set was made.
    fn is_younger(&self, stat: &Statx) -> bool {
        let known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        let born = Timestamp { secs: stat.stx_btime.tv_sec, nanos: stat.stx_btime.tv_nsec };
        known && self.set.as_of().is_some_and(|made| born > made)
    }

    fn is_listed(&self, inode: (Device, u64)) -> bool {
        self.roots.contains(&inode) || self.set.contains(inode.0, inode.1)
    }
}

fn as_errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// `statx`, as far as needed here: a network file system is not asked again.
fn look<P: rustix::path::Arg>(
    dir: impl AsFd,
    path: P,
    flags: AtFlags,
) -> rustix::io::Result<Statx> {
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::BTIME;
    rustix::fs::statx(dir, path, flags | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT, wanted)
}

fn identity(stat: &Statx) -> (Device, u64) {
    ((stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino)
}

fn open_dir<P: rustix::path::Arg>(dir: impl AsFd, path: P) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, path, flags, Mode::empty())
}

/// What a magic link says; empty where it is gone: this is for people only.
fn link_text(dir: BorrowedFd<'_>, name: &str) -> Vec<u8> {
    rustix::fs::readlinkat(dir, name, Vec::new()).map(|t| t.into_bytes()).unwrap_or_default()
}

/// The names of a directory of `/proc` that are numbers.
fn numbers(dir: BorrowedFd<'_>, below: &str) -> rustix::io::Result<Vec<u32>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let below = if below.is_empty() { "." } else { below };
    let listing = rustix::fs::Dir::new(rustix::fs::openat(dir, below, flags, Mode::empty())?)?;
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry?;
        found.extend(entry.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(found)
}
