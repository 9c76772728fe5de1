//! Reading what was frozen as if it were the source itself: the same paths, devices, inodes and
//! identities.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::base::path::{components, join};
use crate::host::fs::linux::LinuxDir;
use crate::host::fs::{
    Attributes, ExtentMap, InodeKind, LinuxFs, RawName, SourceDir, SourceFile, SourceFs, Stat,
    Volume,
};
use crate::host::process::Device;

/// What stands in a snapshot of a btrfs where another subvolume hung.
const EMPTY_SUBVOLUME: u64 = 2;

/// Where a directory's content goes on elsewhere: the directory above by device and inode, as the
/// source has them, and the name.
pub(super) type Crossing = (Device, u64, Vec<u8>);

/// A directory that stands for one of the source.
pub(super) struct Stand {
    pub(super) dir: LinuxDir,
    /// Whether that is the root of a mount, and of which.
    pub(super) mount: Option<u64>,
}

/// Sources that were frozen, as a file system of sources. What is not part of them is looked at
/// where it is.
#[derive(Clone)]
pub struct FrozenFs(Arc<Tables>);

#[derive(Default)]
pub(super) struct Tables {
    /// By the path of a source, or of the directory that holds a source that is a file.
    pub(super) roots: HashMap<Vec<u8>, Stand>,
    /// Directories above the sources, as they were.
    pub(super) above: HashMap<Vec<u8>, Above>,
    /// What frozen devices stand for.
    pub(super) devices: HashMap<Device, (Device, Volume)>,
    pub(super) crossings: HashMap<Crossing, Stand>,
}

/// A directory above a source.
pub(super) struct Above {
    dir: LinuxDir,
    stat: Stat,
    attributes: Attributes,
}

impl Tables {
    /// Notes the directories above a source as they are now. One that cannot be looked at is a problem
    /// of the reading.
    pub(super) fn note_above(&mut self, root: &[u8]) {
        let mut path = b"/".to_vec();
        let names: Vec<&[u8]> = components(root).collect();
        for name in names.iter().map(Some).chain([None]) {
            if !self.above.contains_key(&path)
                && let Ok(dir) = LinuxFs::open(&path)
                && let (Ok(stat), Ok(attributes)) = (dir.stat_self(), dir.attributes_self())
                && path != root
            {
                self.above.insert(path.clone(), Above { dir, stat, attributes });
            }
            if let Some(name) = name {
                path = join(&path, name);
            }
        }
    }

    pub(super) fn finish(self) -> FrozenFs {
        FrozenFs(Arc::new(self))
    }

    /// Whether a name may lead elsewhere: most names do not, and need no walk.
    fn may_cross(&self, name: &[u8]) -> bool {
        self.crossings.keys().any(|(_, _, known)| known == name)
    }

    fn real(&self, mut stat: Stat) -> Stat {
        if let Some((dev, _)) = self.devices.get(&stat.dev) {
            stat.dev = *dev;
        }
        stat
    }
}

impl FrozenFs {
    /// The devices that stand for others.
    #[must_use]
    pub fn devices(&self) -> HashSet<Device> {
        self.0.devices.keys().copied().collect()
    }

    fn stand(&self, stand: &Stand) -> io::Result<Box<dyn SourceDir>> {
        let dir = stand.dir.dir(b".")?;
        Ok(Box::new(FrozenDir { dir, mount: stand.mount, tables: Arc::clone(&self.0) }))
    }
}

impl SourceFs for FrozenFs {
    fn open_root(&self, path: &[u8]) -> io::Result<Box<dyn SourceDir>> {
        if let Some(stand) = self.0.roots.get(path) {
            return self.stand(stand);
        }
        match self.0.above.get(path) {
            Some(above) => {
                let dir = above.dir.dir(b".")?;
                Ok(Box::new(AboveDir { path: path.to_vec(), dir, frozen: self.clone() }))
            }
            None => LinuxFs.open_root(path),
        }
    }

    fn volume(&self, dir: &dyn SourceDir) -> io::Result<Volume> {
        let stat = rustix::fs::fstat(dir.descriptor())?;
        let dev = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
        match self.0.devices.get(&dev) {
            Some((_, volume)) => Ok(volume.clone()),
            None => LinuxFs.volume(dir),
        }
    }

    /// What is frozen has nothing to write back.
    fn sync(&self, dir: &dyn SourceDir) -> io::Result<()> {
        let stat = rustix::fs::fstat(dir.descriptor())?;
        let dev = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
        if self.0.devices.contains_key(&dev) { Ok(()) } else { LinuxFs.sync(dir) }
    }
}

/// A frozen directory.
struct FrozenDir {
    dir: LinuxDir,
    mount: Option<u64>,
    tables: Arc<Tables>,
}

impl FrozenDir {
    fn of(&self, dir: LinuxDir) -> Self {
        Self { dir, mount: None, tables: Arc::clone(&self.tables) }
    }

    /// What a name of this directory stands for, where that lies elsewhere.
    fn crossing(&self, name: &[u8]) -> io::Result<Option<&Stand>> {
        if !self.tables.may_cross(name) {
            return Ok(None);
        }
        let stat = self.stat_self()?;
        Ok(self.tables.crossings.get(&(stat.dev, stat.ino, name.to_vec())))
    }

    fn below(&self, path: &[u8]) -> io::Result<Self> {
        let names = path.split(|&b| b == b'/');
        if !names.clone().any(|name| self.tables.may_cross(name)) {
            return Ok(self.of(self.dir.dir(path)?));
        }
        let mut at = self.of(self.dir.dir(b".")?);
        for name in names.filter(|name| *name != b".") {
            at = match at.crossing(name)? {
                Some(stand) => {
                    let dir = stand.dir.dir(b".")?;
                    Self { dir, mount: stand.mount, tables: Arc::clone(&self.tables) }
                }
                None => at.of(at.dir.dir(name)?),
            };
        }
        Ok(at)
    }
}

impl SourceDir for FrozenDir {
    fn stat_self(&self) -> io::Result<Stat> {
        let mut stat = self.tables.real(self.dir.stat_self()?);
        if let Some(mount) = self.mount {
            (stat.mount_root, stat.mount_id) = (true, mount);
        }
        Ok(stat)
    }

    fn names(&self) -> io::Result<Vec<RawName>> {
        self.dir.names()
    }

    fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        if self.tables.may_cross(name)
            && let Some(stand) = self.crossing(name)?
        {
            let at = Self {
                dir: stand.dir.dir(b".")?,
                mount: stand.mount,
                tables: Arc::clone(&self.tables),
            };
            return at.stat_self();
        }
        let stat = self.dir.stat(name)?;
        if stat.kind == InodeKind::Dir
            && stat.ino == EMPTY_SUBVOLUME
            && self.tables.devices.get(&stat.dev).is_some_and(|(_, v)| v.fs_type == "btrfs")
        {
            let what = "a subvolume hangs here that was not frozen";
            return Err(io::Error::other(what));
        }
        Ok(self.tables.real(stat))
    }

    fn open_dir(&self, path: &[u8]) -> io::Result<Box<dyn SourceDir>> {
        Ok(Box::new(self.below(path)?))
    }

    fn open_file(&self, name: &[u8]) -> io::Result<Box<dyn SourceFile>> {
        let file = self.dir.open_file(name)?;
        Ok(Box::new(FrozenFile { file, tables: Arc::clone(&self.tables) }))
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        self.dir.read_link(name)
    }

    fn attributes(&self, name: &[u8]) -> io::Result<Attributes> {
        self.dir.attributes(name)
    }

    fn attributes_self(&self) -> io::Result<Attributes> {
        self.dir.attributes_self()
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.dir.descriptor()
    }
}

/// A frozen regular file.
struct FrozenFile {
    file: Box<dyn SourceFile>,
    tables: Arc<Tables>,
}

impl SourceFile for FrozenFile {
    fn stat(&self) -> io::Result<Stat> {
        Ok(self.tables.real(self.file.stat()?))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn extents(&self, stat: &Stat) -> io::Result<ExtentMap> {
        self.file.extents(stat)
    }

    fn attributes(&self) -> io::Result<Attributes> {
        self.file.attributes()
    }
}

/// A directory above the sources. Only its own metadata is kept of it, as it was, and what it says of a
/// source.
struct AboveDir {
    path: Vec<u8>,
    dir: LinuxDir,
    frozen: FrozenFs,
}

impl AboveDir {
    fn noted(&self) -> io::Result<&Above> {
        self.frozen.0.above.get(&self.path).ok_or_else(|| Errno::NOENT.into())
    }
}

impl SourceDir for AboveDir {
    fn stat_self(&self) -> io::Result<Stat> {
        Ok(self.noted()?.stat)
    }

    fn names(&self) -> io::Result<Vec<RawName>> {
        self.dir.names()
    }

    fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        match self.frozen.0.roots.get(&join(&self.path, name)) {
            Some(stand) => self.frozen.stand(stand)?.stat_self(),
            None => self.dir.stat(name),
        }
    }

    fn open_dir(&self, path: &[u8]) -> io::Result<Box<dyn SourceDir>> {
        self.dir.open_dir(path)
    }

    fn open_file(&self, name: &[u8]) -> io::Result<Box<dyn SourceFile>> {
        self.dir.open_file(name)
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        self.dir.read_link(name)
    }

    fn attributes(&self, name: &[u8]) -> io::Result<Attributes> {
        self.dir.attributes(name)
    }

    fn attributes_self(&self) -> io::Result<Attributes> {
        Ok(self.noted()?.attributes.clone())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.dir.descriptor()
    }
}
