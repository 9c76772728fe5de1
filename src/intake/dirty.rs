//! What must be looked at again after a read, given what changed since: in the window nothing else is.

use std::collections::{HashMap, HashSet};

use super::first::{DirNo, FirstLook, NOBODY};
use crate::base::path::components;
use crate::host::fanotify::DirtySet;
use crate::host::process::Device;

/// What was read while the service lived, made ready for the window.
#[derive(Default)]
pub struct PreRead {
    pub(super) look: FirstLook,
    pub(super) kids: Kids,
}

impl PreRead {
    /// Makes a finished look ready.
    #[must_use]
    pub fn of(look: FirstLook) -> Self {
        let kids = Kids::of(&look);
        Self { look, kids }
    }

    /// What was seen.
    #[must_use]
    pub const fn look(&self) -> &FirstLook {
        &self.look
    }

    /// What was read of some of the roots.
    #[must_use]
    pub fn only(&self, roots: &[Vec<u8>]) -> Self {
        Self::of(self.look.only(roots))
    }

    /// How many directories would be looked at now, and how many there are.
    #[must_use]
    pub fn would_look(&self, changes: &Changes<'_>) -> (usize, usize) {
        let fates = Fates::of(self, changes);
        let opened = |fate: &&Fate| matches!(fate, Fate::Look | Fate::Names);
        (fates.all.iter().filter(opened).count(), self.look.live().count())
    }
}

/// What is known of changes since a read.
pub struct Changes<'a> {
    /// Inodes of which something changed.
    pub dirty: &'a DirtySet,
    /// File systems, by their device in `mountinfo`, whose changes are known at all.
    pub covered: &'a HashSet<Device>,
    /// Directories that are looked at in any case: those of the site's databases.
    pub always: &'a [Vec<u8>],
}

/// Sub-directories of each directory, in order of names.
#[derive(Default)]
pub(super) struct Kids {
    from: Vec<u32>,
    all: Vec<DirNo>,
}

impl Kids {
    fn of(look: &FirstLook) -> Self {
        let mut all: Vec<DirNo> =
            look.live().filter(|(_, d)| d.parent != NOBODY).map(|(no, _)| no).collect();
        let dir = |no: &DirNo| &look.dirs[*no as usize];
        all.sort_unstable_by(|a, b| {
            let (a, b) = (dir(a), dir(b));
            (a.parent, &a.name).cmp(&(b.parent, &b.name))
        });
        let mut from = vec![0; look.dirs.len() + 1];
        for no in &all {
            from[dir(no).parent as usize + 1] += 1;
        }
        for at in 1..from.len() {
            from[at] += from[at - 1];
        }
        Self { from, all }
    }

    pub(super) fn below(&self, no: DirNo) -> &[DirNo] {
        match self.from.get(no as usize..no as usize + 2) {
            Some(&[from, to]) => &self.all[from as usize..to as usize],
            _ => &[],
        }
    }

    pub(super) fn named(&self, look: &FirstLook, no: DirNo, name: &[u8]) -> Option<DirNo> {
        let below = self.below(no);
        let at = below.binary_search_by(|kid| (*look.dirs[*kid as usize].name).cmp(name)).ok()?;
        Some(below[at])
    }
}

/// What becomes of a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It and all below it stay as they are.
    Clean,
    /// It stays, but something below it does not.
    Above,
    /// It stays, but for some of its files, which are looked at.
    Names,
    /// It is looked at.
    Look,
}

/// A file of a directory: its inode, and eight bytes of the digest that it was noted with.
pub(super) type OneName = (u64, u64);

/// What becomes of all directories.
pub(super) struct Fates {
    all: Vec<Fate>,
    /// What is looked at of those of which some files are.
    names: HashMap<DirNo, Vec<OneName>>,
}

impl Fates {
    /// A directory is looked at where it changed, or one in it did, or it is odd, or nothing would
    /// tell of its changes; and of a directory that holds a name of another inode that changed,
    /// that name is.
    pub(super) fn of(pre: &PreRead, changes: &Changes<'_>) -> Self {
        let look = &pre.look;
        let mut fates = Self { all: vec![Fate::Clean; look.dirs.len()], names: HashMap::new() };
        for &(dev, ino) in &changes.dirty.inodes {
            let mut is_dir = false;
            for no in look.selves(dev, ino) {
                is_dir = true;
                fates.settle(look, no, Fate::Look);
            }
            for (no, short) in look.names_of(dev, ino) {
                let whole = is_dir || look.dirs.get(no as usize).is_none_or(|dir| dir.sparse);
                fates.settle(look, no, if whole { Fate::Look } else { Fate::Names });
                if !whole {
                    fates.names.entry(no).or_default().push((ino, short));
                }
            }
        }
        for (no, dir) in look.live() {
            if dir.odd || dir.parent == NOBODY || !changes.covered.contains(&dir.superblock) {
                fates.settle(look, no, Fate::Look);
            }
        }
        for path in changes.always {
            if let Some(no) = find(pre, path) {
                fates.settle(look, no, Fate::Look);
            }
        }
        fates
    }

    /// Lets a directory be opened, and marks the way to it.
    fn settle(&mut self, look: &FirstLook, mut no: DirNo, fate: Fate) {
        let Some(known) = self.all.get_mut(no as usize) else { return };
        let marked = !matches!(known, Fate::Clean);
        if *known != Fate::Look {
            *known = fate;
        }
        if marked {
            return;
        }
        loop {
            no = look.dirs[no as usize].parent;
            match self.all.get_mut(no as usize) {
                Some(fate @ Fate::Clean) => *fate = Fate::Above,
                _ => return,
            }
        }
    }

    pub(super) fn get(&self, no: DirNo) -> Fate {
        self.all.get(no as usize).copied().unwrap_or(Fate::Look)
    }

    /// The files of a directory that are looked at.
    pub(super) fn names(&self, no: DirNo) -> &[OneName] {
        self.names.get(&no).map_or(&[], Vec::as_slice)
    }
}

/// The directory of a path.
fn find(pre: &PreRead, path: &[u8]) -> Option<DirNo> {
    let wanted: Vec<&[u8]> = components(path).collect();
    let mut roots = pre.look.live().filter(|(_, dir)| dir.parent == NOBODY);
    let (mut no, depth) = roots.find_map(|(no, dir)| {
        let root: Vec<&[u8]> = components(&dir.name).collect();
        wanted.starts_with(&root).then_some((no, root.len()))
    })?;
    for name in &wanted[depth..] {
        no = pre.kids.named(&pre.look, no, name)?;
    }
    Some(no)
}
