//! What must be looked at again after a read, given what changed since: in the window nothing else is.

use std::collections::HashSet;

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
        let looked = fates.0.iter().filter(|fate| **fate == Fate::Look).count();
        (looked, self.look.live().count())
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
    /// It is looked at.
    Look,
}

/// What becomes of all directories.
pub(super) struct Fates(pub(super) Vec<Fate>);

impl Fates {
    /// A directory is looked at where it changed, or an inode of which it holds a name did, or it
    /// is odd, or nothing would tell of its changes.
    pub(super) fn of(pre: &PreRead, changes: &Changes<'_>) -> Self {
        let look = &pre.look;
        let mut fates = Self(vec![Fate::Clean; look.dirs.len()]);
        for &(dev, ino) in &changes.dirty.inodes {
            for no in look.selves(dev, ino).chain(look.holders(dev, ino)) {
                fates.look_at(look, no);
            }
        }
        for (no, dir) in look.live() {
            if dir.odd || dir.parent == NOBODY || !changes.covered.contains(&dir.superblock) {
                fates.look_at(look, no);
            }
        }
        for path in changes.always {
            if let Some(no) = find(pre, path) {
                fates.look_at(look, no);
            }
        }
        fates
    }

    fn look_at(&mut self, look: &FirstLook, mut no: DirNo) {
        let Some(fate) = self.0.get_mut(no as usize) else { return };
        *fate = Fate::Look;
        loop {
            no = look.dirs[no as usize].parent;
            match self.0.get_mut(no as usize) {
                Some(fate @ Fate::Clean) => *fate = Fate::Above,
                _ => return,
            }
        }
    }

    pub(super) fn get(&self, no: DirNo) -> Fate {
        self.0.get(no as usize).copied().unwrap_or(Fate::Look)
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
