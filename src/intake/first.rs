//! What one look saw of every directory and inode: what a second look and events are compared with,
//! and what a later look need not see again.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::digest::Digest;
use crate::base::id::ChunkId;
use crate::base::path::join;
use crate::base::time::Timestamp;
use crate::host::fs::Stat;
use crate::host::process::{Device, InodeSet};

/// The number of a directory within one look.
pub(super) type DirNo = u32;

/// No directory: above a root.
pub(super) const NOBODY: DirNo = DirNo::MAX;

/// A directory.
#[derive(Clone, Debug)]
pub(super) struct DirSeen {
    pub(super) dev: Device,
    pub(super) ino: u64,
    pub(super) parent: DirNo,
    /// Its name; of a root its path.
    pub(super) name: Box<[u8]>,
    /// What its content became.
    pub(super) tree: Option<ChunkId>,
    /// Digest of all names and inodes.
    pub(super) exact: Digest,
    /// How many names it has.
    pub(super) names: u32,
    /// Device of the file system as a whole.
    pub(super) superblock: Device,
    /// Which owners it has, and which sources it counts for.
    pub(super) group: u32,
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Something of it must be seen each time: it is too young to be believed, has a problem, a
    /// mount, or a name of an inode with several.
    pub(super) odd: bool,
    /// It has a file whose bytes are not its size: they can only be counted by looking at all.
    pub(super) sparse: bool,
    /// It is not there any more.
    pub(super) gone: bool,
}

/// A root that is no directory.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) path: Vec<u8>,
    pub(super) stat: Stat,
    pub(super) superblock: Device,
}

/// One name of an inode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Name {
    /// Place in the list of devices.
    dev: u32,
    dir: DirNo,
    ino: u64,
    /// Eight bytes of the digest of name and inode.
    short: u64,
}

/// What is noted of a name: device and number of its inode, and eight bytes of the digest of both.
pub(super) type Noted = (Device, u64, u64);

impl Name {
    fn key(&self) -> (u32, u64, DirNo) {
        (self.dev, self.ino, self.dir)
    }
}

/// Owners that directories have in common, and places of the sources that they count for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Group {
    pub(super) owners: Vec<(u32, u32)>,
    pub(super) counted: Vec<usize>,
}

/// What one look saw.
#[derive(Default)]
pub struct FirstLook {
    pub(super) dirs: Vec<DirSeen>,
    pub(super) groups: Vec<Group>,
    group_of: HashMap<Group, u32>,
    devices: Vec<Device>,
    /// Directories by their own inode, sorted once the look is finished.
    selves: Vec<Name>,
    /// All names by inode, sorted once the look is finished; those of roots that are no directories
    /// have no directory.
    names: Vec<Name>,
    /// So many of the names are sorted: those of the look before, while one is under way.
    sorted: usize,
    leaves: Vec<Leaf>,
    began: Option<Timestamp>,
}

impl FirstLook {
    /// A look that begins now.
    pub(super) fn begun(began: Timestamp) -> Self {
        Self { began: Some(began), ..Self::default() }
    }

    /// The look goes on from here: leaves are seen anew.
    pub(super) fn begin_again(&mut self, began: Timestamp) {
        self.began = Some(began);
        self.leaves.clear();
    }

    /// Adds a directory, or what is to stand in the place of one that was seen before.
    pub(super) fn put(&mut self, known: Option<DirNo>, seen: DirSeen, names: &[Noted]) -> DirNo {
        let no = match known {
            Some(no) => {
                self.dirs[no as usize] = seen;
                no
            }
            None => {
                self.dirs.push(seen);
                (self.dirs.len() - 1) as DirNo
            }
        };
        let mut last = None;
        for &(device, ino, short) in names {
            let dev = match last {
                Some((known, dev)) if known == device => dev,
                _ => self.device(device),
            };
            last = Some((device, dev));
            self.names.push(Name { dev, ino, dir: no, short });
        }
        no
    }

    pub(super) fn add_leaf(&mut self, path: Vec<u8>, stat: Stat, superblock: Device) {
        let dev = self.device(stat.dev);
        self.names.push(Name { dev, ino: stat.ino, dir: NOBODY, short: 0 });
        self.leaves.push(Leaf { path, stat, superblock });
    }

    fn device(&mut self, device: Device) -> u32 {
        let at = self.devices.iter().position(|known| *known == device).unwrap_or_else(|| {
            self.devices.push(device);
            self.devices.len() - 1
        });
        at as u32
    }

    /// The number of a group.
    pub(super) fn group(&mut self, mut group: Group) -> u32 {
        group.owners.sort_unstable();
        group.owners.dedup();
        if let Some(number) = self.group_of.get(&group) {
            return *number;
        }
        let number = self.groups.len() as u32;
        self.groups.push(group.clone());
        self.group_of.insert(group, number);
        number
    }

    /// Names of a look before this one that are still true; to be called before any is added.
    /// Gives how many there are.
    pub(super) fn names_before(&self) -> usize {
        self.names.len()
    }

    /// The look is done. Of the first `before` names only those of directories that stay are kept.
    pub(super) fn finish(&mut self, before: usize, stays: &dyn Fn(DirNo) -> bool) {
        let mut at = 0;
        self.names.retain(|name| {
            at += 1;
            at > before || (name.dir != NOBODY && stays(name.dir))
        });
        // Two sorted runs of which the second is short, where most of it is as before.
        self.names.sort_by_key(Name::key);
        let mut selves = Vec::with_capacity(self.dirs.len());
        for no in 0..self.dirs.len() {
            let DirSeen { dev, ino, gone, .. } = self.dirs[no];
            if !gone {
                selves.push(Name { dev: self.device(dev), ino, dir: no as DirNo, short: 0 });
            }
        }
        selves.sort_unstable_by_key(Name::key);
        self.selves = selves;
        self.names.shrink_to_fit();
        self.sorted = self.names.len();
        self.dirs.shrink_to_fit();
    }

    /// What a name was noted with is not true any more.
    pub(super) fn note_again(&mut self, no: DirNo, device: Device, ino: u64, was: u64, short: u64) {
        let Some(dev) = self.place(device) else { return };
        let found = Self::range(&self.names[..self.sorted], dev, ino);
        let names = self.names[found].iter_mut();
        for name in names.filter(|name| name.dir == no && name.short == was) {
            name.short = short;
        }
    }

    fn range(all: &[Name], dev: u32, ino: u64) -> Range<usize> {
        let from = all.partition_point(|name| (name.dev, name.ino) < (dev, ino));
        let len = all[from..].partition_point(|name| (name.dev, name.ino) == (dev, ino));
        from..from + len
    }

    fn place(&self, device: Device) -> Option<u32> {
        self.devices.iter().position(|known| *known == device).map(|at| at as u32)
    }

    /// The directories that are this inode.
    pub(super) fn selves(&self, device: Device, ino: u64) -> impl Iterator<Item = DirNo> + '_ {
        let found = self.place(device).map(|dev| Self::range(&self.selves, dev, ino));
        self.selves[found.unwrap_or_default()].iter().map(|name| name.dir)
    }

    /// The directories that hold a name of this inode; [`NOBODY`] for a root that is no directory.
    pub(super) fn holders(&self, device: Device, ino: u64) -> impl Iterator<Item = DirNo> + '_ {
        self.names_of(device, ino).map(|(dir, _)| dir)
    }

    /// The names of this inode: the directory of each, and eight bytes of its digest. While a look
    /// is under way, as the look before it saw them.
    pub(super) fn names_of(
        &self,
        device: Device,
        ino: u64,
    ) -> impl Iterator<Item = (DirNo, u64)> + '_ {
        let known = &self.names[..self.sorted];
        let found = self.place(device).map(|dev| Self::range(known, dev, ino));
        known[found.unwrap_or_default()].iter().map(|name| (name.dir, name.short))
    }

    /// A directory's path.
    pub(super) fn path(&self, mut no: DirNo) -> Vec<u8> {
        let mut names = Vec::new();
        while let Some(dir) = self.dirs.get(no as usize) {
            names.push(&dir.name);
            no = dir.parent;
        }
        let mut path = names.pop().map(|root| root.to_vec()).unwrap_or_default();
        while let Some(name) = names.pop() {
            path = join(&path, name);
        }
        path
    }

    /// The root above a directory.
    pub(super) fn root_of(&self, mut no: DirNo) -> DirNo {
        while let Some(dir) = self.dirs.get(no as usize).filter(|dir| dir.parent != NOBODY) {
            no = dir.parent;
        }
        no
    }

    /// The directories that are there, by number.
    pub(super) fn live(&self) -> impl Iterator<Item = (DirNo, &DirSeen)> {
        self.dirs
            .iter()
            .enumerate()
            .filter(|(_, dir)| !dir.gone)
            .map(|(no, dir)| (no as DirNo, dir))
    }

    pub(super) fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// The roots of which every directory lies on one of these file systems.
    #[must_use]
    pub fn covered_roots(&self, covered: &HashSet<Device>) -> Vec<Vec<u8>> {
        let mut roots: HashSet<DirNo> = HashSet::new();
        let mut dark: HashSet<DirNo> = HashSet::new();
        for (no, dir) in self.live() {
            if dir.parent == NOBODY {
                roots.insert(no);
            }
            if !covered.contains(&dir.superblock) {
                dark.insert(self.root_of(no));
            }
        }
        let dirs = roots.difference(&dark).map(|no| self.path(*no));
        let leaves = self.leaves.iter().filter(|leaf| covered.contains(&leaf.superblock));
        dirs.chain(leaves.map(|leaf| leaf.path.clone())).collect()
    }

    /// Whether a root is a directory that was seen.
    #[must_use]
    pub fn is_directory(&self, root: &[u8]) -> bool {
        self.live().any(|(_, dir)| dir.parent == NOBODY && *dir.name == *root)
    }

    /// Names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.selves.is_empty()
    }

    /// Whether two looks saw the same directories and inodes, by path and by number.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let dirs = |look: &Self| {
            let mut all: Vec<_> = look
                .live()
                .map(|(no, d)| {
                    let group = look.groups[d.group as usize].clone();
                    let what = (d.exact, d.names, d.tree, d.superblock);
                    (look.path(no), (d.dev, d.ino), what, (d.files, d.bytes, group.owners))
                })
                .collect();
            all.sort();
            all
        };
        let names = |look: &Self| {
            let mut all: Vec<_> = look
                .names
                .iter()
                .map(|n| (look.devices[n.dev as usize], n.ino, n.short, look.path(n.dir)))
                .collect();
            all.sort_unstable();
            all
        };
        dirs(self) == dirs(other) && names(self) == names(other)
    }

    /// What was seen of some of the roots; those that are no directories are seen anew each time.
    #[must_use]
    pub(super) fn only(&self, roots: &[Vec<u8>]) -> Self {
        let mut some = Self {
            groups: self.groups.clone(),
            group_of: self.group_of.clone(),
            devices: self.devices.clone(),
            began: self.began,
            ..Self::default()
        };
        let mut number = HashMap::new();
        for (no, dir) in self.live() {
            if roots.iter().any(|root| *self.dirs[self.root_of(no) as usize].name == **root) {
                number.insert(no, some.dirs.len() as DirNo);
                some.dirs.push(dir.clone());
            }
        }
        for dir in &mut some.dirs {
            dir.parent = number.get(&dir.parent).copied().unwrap_or(NOBODY);
        }
        let taken = |all: &[Name]| -> Vec<Name> {
            let one = |name: &Name| Some(Name { dir: *number.get(&name.dir)?, ..*name });
            all.iter().filter_map(one).collect()
        };
        // Numbers keep their order, and so do names.
        some.names = taken(&self.names);
        some.selves = taken(&self.selves);
        some.sorted = some.names.len();
        some
    }

    /// The inodes alone, for whoever asks while the look is gone on with.
    #[must_use]
    pub fn inodes(&self) -> Inodes {
        let key = |name: &Name| (name.dev, name.ino);
        let mut all: Vec<(u32, u64)> = self.names.iter().chain(&self.selves).map(key).collect();
        all.sort();
        all.dedup();
        Inodes { devices: self.devices.clone(), all, began: self.began }
    }

    /// Bytes of memory that the look takes, about.
    #[must_use]
    pub fn footprint(&self) -> usize {
        let of = |dir: &DirSeen| size_of::<DirSeen>() + dir.name.len();
        let names = (self.names.capacity() + self.selves.capacity()) * size_of::<Name>();
        self.dirs.iter().map(of).sum::<usize>() + names
    }
}

impl InodeSet for FirstLook {
    fn devices(&self) -> Vec<Device> {
        self.devices.clone()
    }

    fn contains(&self, device: Device, ino: u64) -> bool {
        self.holders(device, ino).next().is_some() || self.selves(device, ino).next().is_some()
    }

    fn as_of(&self) -> Option<Timestamp> {
        self.began
    }
}

/// The inodes of a look.
pub struct Inodes {
    devices: Vec<Device>,
    /// Place of the device and number, sorted.
    all: Vec<(u32, u64)>,
    began: Option<Timestamp>,
}

impl InodeSet for Inodes {
    fn devices(&self) -> Vec<Device> {
        self.devices.clone()
    }

    fn contains(&self, device: Device, ino: u64) -> bool {
        let dev = self.devices.iter().position(|known| *known == device);
        dev.is_some_and(|dev| self.all.binary_search(&(dev as u32, ino)).is_ok())
    }

    fn as_of(&self) -> Option<Timestamp> {
        self.began
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_files_take_less_than_a_hundred_mebibytes() {
        const SCALE: usize = 10;
        let mut look = FirstLook::default();
        let mut ino = 0;
        // Ten files in each directory is much below what sites have.
        for no in 0..(100_000 / SCALE) {
            let inodes: Vec<_> = (0..11).map(|n| ((8, 1), ino + n, n)).collect();
            ino += 11;
            let seen = DirSeen {
                dev: (8, 1),
                ino,
                parent: if no == 0 { NOBODY } else { no as DirNo / 10 },
                name: format!("directory-{no}").into_bytes().into(),
                tree: None,
                exact: [1; 16],
                names: inodes.len() as u32,
                superblock: (8, 1),
                group: 0,
                files: 10,
                bytes: 10_000,
                odd: false,
                sparse: false,
                gone: false,
            };
            look.put(None, seen, &inodes);
        }
        look.finish(0, &|_| false);
        assert!(look.footprint() * SCALE < 100 << 20, "{}", look.footprint() * SCALE);
        assert_eq!(look.holders((8, 1), 25).collect::<Vec<_>>(), [2]);
        assert_eq!(look.path(15), b"directory-0/directory-1/directory-15");
        assert!(look.contains((8, 1), 3) && !look.contains((8, 2), 3));
        let inodes = look.inodes();
        assert!(inodes.contains((8, 1), 3) && !inodes.contains((8, 2), 3));
        assert!(!inodes.contains((8, 1), ino + 1) && inodes.devices() == [(8, 1)]);
    }
}
