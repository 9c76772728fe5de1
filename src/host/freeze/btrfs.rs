//! Read-only snapshots of the subvolumes that hold sources, of a btrfs whose top is mounted without a
//! place in the tree of directories.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::root::Root;
use super::still::{Stand, Tables};
use super::sys::{self, SubvolumeRef};
use crate::base::path::{components, is_within, join};
use crate::host::fanotify::btrfs_top;
use crate::host::fs::linux::LinuxDir;
use crate::host::fs::volume::{self, Mount};
use crate::host::fs::{LinuxFs, SourceDir, SourceFs, Volume};
use crate::host::process::Device;

/// The directory at the top of a btrfs in which snapshots lie while they are read.
pub const HOLDING: &str = ".cabk-frozen";

/// The subvolume that is the top of every btrfs.
const TOP: u64 = 5;
/// The inode of every subvolume's top directory.
const TOP_DIRECTORY: u64 = 256;

/// A directory by subvolume and by its path in there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    subvolume: u64,
    below: Vec<u8>,
}

/// Where the content of a directory goes on in another subvolume.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Link {
    parent: u64,
    dir: u64,
    name: Vec<u8>,
    to: Place,
    /// The mount, where it is one.
    mount: Option<u64>,
}

/// What has to be frozen for the sources of one file system.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Layout {
    subvolumes: BTreeSet<u64>,
    links: BTreeSet<Link>,
}

/// A source.
#[derive(Clone, Debug)]
struct Entrance {
    path: Vec<u8>,
    place: Place,
    mount: Option<u64>,
}

/// A mount of the same file system below a source.
struct Below {
    holder: Place,
    dir: u64,
    name: Vec<u8>,
    shows: Place,
    mount: u64,
}

/// One btrfs.
pub(super) struct System {
    top: OwnedFd,
    volume: Volume,
    entrances: Vec<Entrance>,
    mounts: Vec<Below>,
    one_file_system: bool,
}

impl System {
    /// Makes ready for the sources of one file system.
    pub(super) fn of(
        roots: &[&Root<'_>],
        all: &[Mount],
        one_file_system: bool,
    ) -> io::Result<Self> {
        let first = roots.first().ok_or(Errno::INVAL)?;
        let top = btrfs_top(&CString::new(first.mount.source.clone())?, true)?;
        let mut entrances = Vec::new();
        let mut mounts = Vec::new();
        for root in roots {
            let mount = root.is_mount.then_some(root.mount.id);
            let (place, _) = place_of(&root.dir)?;
            entrances.push(Entrance { path: root.path.clone(), place, mount });
            for mount in root.below(all).filter(|mount| mount.dev == root.mount.dev) {
                mounts.push(Below::of(mount)?);
            }
        }
        Ok(Self { top, volume: LinuxFs.volume(&first.dir)?, entrances, mounts, one_file_system })
    }

    /// Whether snapshots can be made: the directory that holds them is there afterwards.
    pub(super) fn prepare(&self) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.top, HOLDING, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        self.holding().map(drop)
    }

    fn holding(&self) -> io::Result<OwnedFd> {
        holding(&self.top)
    }

    /// Writes back what is dirty, so that a snapshot has little to write.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| rustix::fs::syncfs(&self.top))?)
    }

    /// Removes the directory that holds snapshots where it is empty and in no source: there its coming
    /// and going would move the times of a source's directory.
    pub(super) fn tidy(&self) {
        if !self.top_is_inside() {
            // Another run's snapshots keep it, as they should.
            let _ = rustix::fs::unlinkat(&self.top, HOLDING, rustix::fs::AtFlags::REMOVEDIR);
        }
    }

    fn top_is_inside(&self) -> bool {
        volume::mounts().map_or(true, |all| {
            all.iter().any(|mount| {
                let shows_top = mount.dev == self.volume.superblock && mount.root == b"/";
                shows_top && self.entrances.iter().any(|one| is_within(&mount.point, &one.path))
            })
        })
    }

    fn layout(&self) -> io::Result<Layout> {
        let refs = sys::subvolumes(self.top.as_fd())?;
        let mut of: HashMap<u64, Vec<&SubvolumeRef>> = HashMap::new();
        for one in &refs {
            of.entry(one.parent).or_default().push(one);
        }
        let mut layout = Layout::default();
        let mut seen = BTreeSet::new();
        let mut waiting: Vec<Place> = self.entrances.iter().map(|one| one.place.clone()).collect();
        for Below { holder, dir, name, shows, mount } in &self.mounts {
            let (parent, dir, name) = (holder.subvolume, *dir, name.clone());
            let mount = Some(*mount);
            layout.links.insert(Link { parent, dir, name, to: shows.clone(), mount });
            waiting.push(shows.clone());
        }
        while let Some(place) = waiting.pop() {
            if !seen.insert(place.clone()) {
                continue;
            }
            layout.subvolumes.insert(place.subvolume);
            for child in of.get(&place.subvolume).into_iter().flatten() {
                let (_, dir) = sys::path_in(self.top.as_fd(), child.parent, child.dir)?;
                let ours = child.parent == TOP && dir == HOLDING.as_bytes();
                if ours || !is_within(&join(&dir, &child.name), &place.below) {
                    continue;
                }
                let to = Place { subvolume: child.id, below: Vec::new() };
                // A mount over it is what is seen.
                let (parent, dir, name) = (child.parent, child.dir, child.name.clone());
                let same = |l: &&Link| (l.parent, l.dir, &l.name) == (parent, dir, &name);
                if layout.links.iter().any(|link| same(&link)) {
                    continue;
                }
                layout.links.insert(Link { parent, dir, name, to: to.clone(), mount: None });
                waiting.push(to);
            }
        }
        Ok(layout)
    }

    /// The path of a subvolume from the top.
    fn path_of(&self, id: u64, refs: &[SubvolumeRef]) -> io::Result<Vec<u8>> {
        let (mut at, mut path) = (id, Vec::new());
        while at != TOP {
            let one = refs.iter().find(|one| one.id == at).ok_or(Errno::NOENT)?;
            let (_, dir) = sys::path_in(self.top.as_fd(), one.parent, one.dir)?;
            let here = join(&dir, &one.name);
            path = if path.is_empty() { here } else { join(&here, &path) };
            at = one.parent;
        }
        Ok(path)
    }

    /// Takes the snapshots, and adds what stands for what.
    pub(super) fn freeze(&self, name: &str, tables: &mut Tables) -> io::Result<usize> {
        let layout = self.layout()?;
        let refs = sys::subvolumes(self.top.as_fd())?;
        let holding = self.holding()?;
        let top = LinuxDir::from_fd(self.top.try_clone()?)?;
        let mut frozen: BTreeMap<u64, (LinuxDir, Device)> = BTreeMap::new();
        for &id in &layout.subvolumes {
            let path = self.path_of(id, &refs)?;
            let live = if path.is_empty() { top.dir(b".")? } else { open_at(&top, &path)? };
            let stat = live.stat_self()?;
            if stat.ino != TOP_DIRECTORY {
                return Err(io::Error::other("a subvolume was moved meanwhile"));
            }
            let taken = snapshot_name(name, id);
            sys::snapshot(holding.as_fd(), taken.as_bytes(), live.descriptor())?;
            let held = LinuxDir::from_fd(holding.try_clone()?)?;
            frozen.insert(id, (held.dir(taken.as_bytes())?, stat.dev));
        }
        if self.layout()? != layout {
            return Err(io::Error::other("subvolumes were made or removed meanwhile"));
        }
        self.stand(&layout, &frozen, tables)?;
        let all = volume::mounts()?;
        for entrance in &self.entrances {
            let root = Root::open(&entrance.path, &all).ok_or(Errno::NOENT)?;
            root.leave(&all, self.one_file_system, tables)?;
        }
        Ok(frozen.len())
    }

    fn stand(
        &self,
        layout: &Layout,
        frozen: &BTreeMap<u64, (LinuxDir, Device)>,
        tables: &mut Tables,
    ) -> io::Result<()> {
        let of = |id: &u64| frozen.get(id).ok_or(Errno::NOENT);
        let stand = |place: &Place, mount| -> io::Result<Stand> {
            let (dir, _) = of(&place.subvolume)?;
            let dir =
                if place.below.is_empty() { dir.dir(b".")? } else { open_at(dir, &place.below)? };
            Ok(Stand { dir, mount })
        };
        let (shared, _) = self.volume.identity.rsplit_once(":subvolume-").ok_or(Errno::INVAL)?;
        for (id, (dir, dev)) in frozen {
            let identity = format!("{shared}:subvolume-{id}");
            let volume = Volume { identity, ..self.volume.clone() };
            tables.devices.insert(dir.stat_self()?.dev, (*dev, volume));
        }
        for entrance in &self.entrances {
            let at = stand(&entrance.place, entrance.mount)?;
            tables.roots.insert(entrance.path.clone(), at);
        }
        for link in &layout.links {
            let (_, dev) = of(&link.parent)?;
            let at = stand(&link.to, link.mount)?;
            tables.crossings.insert((*dev, link.dir, link.name.clone()), at);
        }
        Ok(())
    }
}

fn snapshot_name(name: &str, id: u64) -> String {
    format!("{name}-{id}")
}

fn open_at(dir: &LinuxDir, path: &[u8]) -> io::Result<LinuxDir> {
    dir.open_deep(&components(path).collect::<Vec<_>>())
}

fn holding(top: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = rustix::fs::openat(top, HOLDING, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&found)?;
    // Whoever may write in there could put something else in the place of a snapshot.
    if stat.st_uid != 0 || stat.st_mode & 0o022 != 0 {
        return Err(Errno::PERM.into());
    }
    Ok(found)
}

fn place_of(dir: &LinuxDir) -> io::Result<(Place, u64)> {
    let stat = dir.stat_self()?;
    let (subvolume, below) = sys::path_in(dir.descriptor(), 0, stat.ino)?;
    Ok((Place { subvolume, below }, stat.ino))
}

impl Below {
    fn of(mount: &Mount) -> io::Result<Self> {
        let names: Vec<&[u8]> = components(&mount.point).collect();
        let (name, above) = names.split_last().ok_or(Errno::INVAL)?;
        let (holder, dir) = place_of(&LinuxFs::open(&join(b"/", &above.join(&b'/')))?)?;
        let (shows, _) = place_of(&LinuxFs::open(&mount.point)?)?;
        Ok(Self { holder, dir, name: name.to_vec(), shows, mount: mount.id })
    }
}

/// Removes the snapshots of this name from a file system. Gives how many there were.
fn remove_from(top: &OwnedFd, name: &str) -> io::Result<usize> {
    let holding = match holding(top) {
        Ok(holding) => holding,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    let prefix = format!("{name}-");
    let mut count = 0;
    for raw in LinuxDir::from_fd(holding.try_clone()?)?.names()? {
        let rest = raw.name.strip_prefix(prefix.as_bytes());
        if rest.is_some_and(|id| !id.is_empty() && id.iter().all(u8::is_ascii_digit)) {
            sys::remove(holding.as_fd(), &raw.name)?;
            count += 1;
        }
    }
    Ok(count)
}

impl System {
    /// Removes the snapshots of this name.
    pub(super) fn remove(&self, name: &str) -> io::Result<usize> {
        remove_from(&self.top, name)
    }

    /// The file system's identity without its subvolume.
    pub(super) fn identity(&self) -> &str {
        let identity = &self.volume.identity;
        identity.rsplit_once(":subvolume-").map_or(identity, |(shared, _)| shared)
    }
}

/// Removes the snapshots of this name from the file system of this identity, if it is mounted.
///
/// # Errors
/// What the operating system says; that it is not mounted.
pub(super) fn remove_by_identity(identity: &str, name: &str) -> io::Result<usize> {
    let all = volume::mounts()?;
    let mut asked = BTreeSet::new();
    for mount in all.iter().filter(|m| m.fs_type == "btrfs") {
        if !asked.insert(mount.dev) {
            continue;
        }
        let Ok(dir) = LinuxFs::open(&mount.point) else { continue };
        let Ok(volume) = LinuxFs.volume(&dir) else { continue };
        if volume.superblock == mount.dev && volume.identity.starts_with(&format!("{identity}:")) {
            let top = btrfs_top(&CString::new(mount.source.clone())?, true)?;
            return remove_from(&top, name);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "its file system is not mounted"))
}
