//! What changes on whole file systems, told by the kernel while it happens (fanotify).
//!
//! A [`Watch`] marks every local file system that holds one of some roots, or is mounted below one,
//! and gathers the inodes of all events: of the object itself, never of its path, because a write
//! through a hard link outside the roots names a directory outside. Events are resolved to device
//! and inode while they come, so that little is left for the end.
//!
//! Not told are stores through a mapping (the last writable close of the file is), what a file
//! system's other machines do, and what is mounted meanwhile: [`Watch::mounts_changed`].

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::libc;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};

use super::fs::volume::{self, Mount};
use super::process::Device;
use crate::base::path::is_within;
use decode::{Event, Handle};
pub(super) use sys::btrfs_top;

pub mod decode;
mod sys;
#[cfg(test)]
mod tests;

/// Inodes that are kept; with more than these everything has to be looked at anyhow.
const INODES_MAX: usize = 4 << 20;
/// Bytes of events that one call of the kernel gives.
const BUFFER: usize = 256 << 10;
/// Time in which events of one inode become one in the kernel's queue.
const PAUSE: Duration = Duration::from_millis(20);

/// How often a handle is tried again that could not be resolved for another reason than that it is
/// gone.
const TRIES: u32 = 5;

/// What changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DirtySet {
    /// Inodes of which something changed: content, attributes, or names in a directory.
    pub inodes: HashSet<(Device, u64)>,
    /// Events are lost, or there were too many: anything may have changed.
    pub overflow: bool,
    /// Events of which it could not be found out what they are about.
    pub unresolved: u64,
    /// Events.
    pub events: u64,
    /// The first reason for either, for people.
    pub cause: Option<String>,
}

impl DirtySet {
    /// Whether everything that changed is in the set.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        !self.overflow && self.unresolved == 0
    }

    /// Adds what changed before or after.
    pub fn merge(&mut self, other: Self) {
        self.inodes.extend(other.inodes);
        self.overflow |= other.overflow || self.inodes.len() > INODES_MAX;
        self.unresolved += other.unresolved;
        self.events += other.events;
        self.cause = self.cause.take().or(other.cause);
    }

    fn lose(&mut self, why: impl FnOnce() -> String) {
        self.overflow = true;
        self.cause.get_or_insert_with(why);
    }

    fn miss(&mut self, why: impl FnOnce() -> String) {
        self.unresolved += 1;
        self.cause.get_or_insert_with(why);
    }

    fn add(&mut self, inode: (Device, u64)) {
        if self.inodes.len() < INODES_MAX {
            self.inodes.insert(inode);
        } else if !self.inodes.contains(&inode) {
            self.lose(|| format!("more than {INODES_MAX} inodes changed"));
        }
    }
}

/// A file system that cannot be watched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unwatched {
    /// Its device, as `mountinfo` gives it.
    pub superblock: Device,
    /// Its type.
    pub fs_type: String,
    /// Why.
    pub why: String,
}

/// File systems under watch. The watch ends when it is dropped.
pub struct Watch {
    shared: Arc<Shared>,
    superblocks: HashSet<Device>,
    unwatched: Vec<Unwatched>,
    roots: Vec<Vec<u8>>,
    mounts: Option<Vec<Mount>>,
    end: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    groups: Vec<Group>,
    dirty: Mutex<DirtySet>,
}

/// One file system.
struct Group {
    fd: OwnedFd,
    /// A directory of it, by which handles are opened.
    mount: OwnedFd,
}

impl Watch {
    /// Watches the file systems of the roots, and those mounted below them, from now on. What
    /// cannot be watched is told by [`Watch::unwatched`].
    ///
    /// # Errors
    /// What the operating system says of its table of mounts, or of a new thread.
    pub fn begin(roots: &[Vec<u8>]) -> io::Result<Self> {
        let all = volume::mounts()?;
        let mut watch = Self {
            shared: Arc::new(Shared { groups: Vec::new(), dirty: Mutex::default() }),
            superblocks: HashSet::new(),
            unwatched: Vec::new(),
            roots: roots.to_vec(),
            mounts: None,
            end: None,
            thread: None,
        };
        let mut groups = Vec::new();
        let mut asked = HashSet::new();
        for mount in concerned(&all, roots)? {
            if volume::is_pseudo(&mount.fs_type) || !asked.insert(mount.dev) {
                continue;
            }
            match watch_one(mount, &all) {
                Ok(group) => {
                    watch.superblocks.insert(mount.dev);
                    groups.push(group);
                }
                Err(why) => watch.unwatched.push(Unwatched {
                    superblock: mount.dev,
                    fs_type: mount.fs_type.clone(),
                    why,
                }),
            }
        }
        watch.mounts = Some(below(all, roots));
        watch.shared = Arc::new(Shared { groups, dirty: Mutex::default() });
        if !watch.superblocks.is_empty() {
            let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            let shared = Arc::clone(&watch.shared);
            let name = std::thread::Builder::new().name("events".into());
            watch.thread = Some(name.spawn(move || shared.run(reader.as_fd()))?);
            watch.end = Some(writer);
        }
        Ok(watch)
    }

    /// The file systems that are watched, by their devices in `mountinfo`.
    #[must_use]
    pub const fn covered(&self) -> &HashSet<Device> {
        &self.superblocks
    }

    /// Whether the file systems of these roots are watched, and all below them.
    #[must_use]
    pub fn covers(&self, roots: &[Vec<u8>]) -> bool {
        let Ok(all) = volume::mounts() else { return false };
        concerned(&all, roots).is_ok_and(|mounts| {
            mounts.iter().all(|mount| {
                volume::is_pseudo(&mount.fs_type) || self.superblocks.contains(&mount.dev)
            })
        })
    }

    /// File systems that would have to be watched, and cannot be.
    #[must_use]
    pub fn unwatched(&self) -> &[Unwatched] {
        &self.unwatched
    }

    /// Whether anything was mounted or unmounted below the roots, or above them, since the watch
    /// began: no event tells. True where that cannot be found out.
    #[must_use]
    pub fn mounts_changed(&self) -> bool {
        let now = volume::mounts().map(|all| below(all, &self.roots));
        now.map_or(true, |now| Some(now) != self.mounts)
    }

    /// What changed since the last call, or since the begin. All that was done before this call is
    /// in it.
    #[must_use]
    pub fn take(&self) -> DirtySet {
        let mut dirty = self.shared.lock();
        self.shared.drain(&mut dirty);
        std::mem::take(&mut dirty)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has told so already.
            let _ = thread.join();
        }
    }
}

/// The mounts of the roots, and all below them.
fn concerned<'m>(all: &'m [Mount], roots: &[Vec<u8>]) -> io::Result<Vec<&'m Mount>> {
    let mut found = Vec::new();
    for root in roots {
        let flags = AtFlags::NO_AUTOMOUNT | AtFlags::SYMLINK_NOFOLLOW;
        let mask = StatxFlags::INO | StatxFlags::MNT_ID;
        let stat =
            rustix::io::retry_on_intr(|| rustix::fs::statx(CWD, root.as_slice(), flags, mask));
        // A root that is not there is a problem of the reading.
        let Ok(stat) = stat else { continue };
        found.extend(all.iter().find(|mount| mount.id == stat.stx_mnt_id));
        found.extend(all.iter().filter(|mount| is_within(&mount.point, root)));
    }
    Ok(found)
}

/// The mounts at which a way to a root or below it passes.
fn below(all: Vec<Mount>, roots: &[Vec<u8>]) -> Vec<Mount> {
    let touches =
        |point: &[u8]| roots.iter().any(|root| is_within(point, root) || is_within(root, point));
    all.into_iter().filter(|mount| touches(&mount.point)).collect()
}

fn watch_one(mount: &Mount, all: &[Mount]) -> Result<Group, String> {
    if !volume::is_local(&mount.fs_type) {
        return Err("other machines may change it".to_owned());
    }
    let cannot = |what: &str, e: &io::Error| format!("{what}: {e}");
    let dir = open_dir(&mount.point).map_err(|e| cannot("cannot be opened", &e))?;
    let fd = sys::group().map_err(|e| cannot("no events", &e))?;
    match sys::mark(fd.as_fd(), dir.as_fd()) {
        Ok(()) => Ok(Group { fd, mount: dir }),
        Err(e) if e.raw_os_error() == Some(libc::EXDEV) => {
            let top = top_of(mount, all).map_err(|e| cannot("its top cannot be opened", &e))?;
            sys::mark(fd.as_fd(), top.as_fd()).map_err(|e| cannot("no events", &e))?;
            Ok(Group { fd, mount: top })
        }
        Err(e) => Err(cannot("no events", &e)),
    }
}

/// The top of a file system of which a subvolume is mounted.
fn top_of(mount: &Mount, all: &[Mount]) -> io::Result<OwnedFd> {
    let whole = all.iter().find(|other| other.dev == mount.dev && other.root == b"/");
    if let Some(dir) = whole.and_then(|other| open_dir(&other.point).ok()) {
        return Ok(dir);
    }
    sys::btrfs_top(&CString::new(mount.source.clone())?, false)
}

fn open_dir(path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::io::retry_on_intr(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))?)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, DirtySet> {
        // What a thread that panicked may not have written down counts as lost.
        self.dirty.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            let mut dirty = poisoned.into_inner();
            dirty.lose(|| "a thread ended early".to_owned());
            dirty
        })
    }

    #[allow(clippy::disallowed_methods, reason = "the kernel's queue is real, as its time is")]
    fn run(&self, end: BorrowedFd<'_>) {
        let fds: Vec<BorrowedFd<'_>> = self.groups.iter().map(|group| group.fd.as_fd()).collect();
        // Where waiting fails, the queue fills up; whoever takes drains it himself.
        while matches!(sys::wait(&fds, end), Ok(true)) {
            self.drain(&mut self.lock());
            std::thread::sleep(PAUSE);
        }
    }

    /// Takes all events that are queued now.
    fn drain(&self, dirty: &mut DirtySet) {
        let mut buffer = vec![0; BUFFER];
        for group in &self.groups {
            // Others may write faster than this reads: what comes later is for the next time.
            let queued = rustix::io::ioctl_fionread(&group.fd).unwrap_or(u64::MAX);
            let mut left = queued / 24;
            let mut known = HashMap::new();
            while left > 0 {
                let len = match rustix::io::read(&group.fd, &mut buffer) {
                    Ok(0) | Err(rustix::io::Errno::AGAIN) => break,
                    Ok(len) => len,
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(e) => {
                        dirty.lose(|| format!("events cannot be read: {e}"));
                        break;
                    }
                };
                let mount = group.mount.as_fd();
                let each = &mut |event| take_in(dirty, event, mount, &mut known);
                match decode::events(&buffer[..len], each) {
                    Ok(count) => {
                        dirty.events += count;
                        left = left.saturating_sub(count);
                    }
                    Err(e) => dirty.lose(|| e.to_string()),
                }
            }
        }
    }
}

/// What a handle turned out to name.
#[derive(Clone, Copy)]
enum Found {
    Inode((Device, u64)),
    Gone,
    Unknown(i32),
}

type Known = HashMap<(i32, Vec<u8>), Found>;

fn find(handle: Handle<'_>, mount: BorrowedFd<'_>, known: &mut Known) -> Found {
    let key = (handle.kind, handle.bytes.to_vec());
    *known.entry(key).or_insert_with(|| resolve(handle, mount))
}

/// A directory that is on its way out gives odd errors for a moment (`ENOMEM` on ext4).
#[allow(clippy::disallowed_methods, reason = "the kernel's moments are real")]
fn resolve(handle: Handle<'_>, mount: BorrowedFd<'_>) -> Found {
    let mut tries = 0;
    loop {
        match sys::resolve(mount, handle) {
            Ok(inode) => return Found::Inode(inode),
            Err(e) if e.raw_os_error() == Some(libc::ESTALE) => return Found::Gone,
            Err(e) if tries == TRIES => {
                return Found::Unknown(e.raw_os_error().unwrap_or_default());
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1 << tries)),
        }
        tries += 1;
    }
}

/// What is gone had a name that went with an event of its own, of the directory; and so had that
/// directory, if it is gone as well.
fn take_in(dirty: &mut DirtySet, event: Event<'_>, mount: BorrowedFd<'_>, known: &mut Known) {
    const NAMES: u64 =
        libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO;
    if event.mask & decode::OVERFLOW != 0 {
        dirty.lose(|| "the kernel's queue of events was full".to_owned());
        return;
    }
    // The last name of what deletes itself is gone, and this is cheaper than to try.
    let deleted = event.mask & libc::FAN_DELETE_SELF != 0;
    let find_object = |handle| if deleted { Found::Gone } else { find(handle, mount, known) };
    let object = event.object.map(find_object);
    if let Some(Found::Inode(inode)) = object {
        dirty.add(inode);
    }
    let of_names = event.mask & NAMES != 0;
    let mut told = matches!(object, Some(Found::Inode(_) | Found::Gone)) && !of_names;
    if of_names || !matches!(object, Some(Found::Inode(_))) {
        for handle in [event.dir, event.new_dir].into_iter().flatten() {
            match find(handle, mount, known) {
                Found::Inode(inode) => {
                    dirty.add(inode);
                    told = true;
                }
                Found::Gone => told = true,
                Found::Unknown(errno) => dirty.miss(|| unresolved(event.mask, errno)),
            }
        }
    }
    match object {
        Some(Found::Unknown(errno)) => dirty.miss(|| unresolved(event.mask, errno)),
        _ if !told => dirty.miss(|| unresolved(event.mask, 0)),
        _ => {}
    }
}

fn unresolved(mask: u64, errno: i32) -> String {
    let error = io::Error::from_raw_os_error(errno);
    format!("an event ({mask:#x}) names nothing that can be found: {error}")
}
