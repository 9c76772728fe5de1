//! Holding sources still by what their file system offers, so that a service may go on before they are
//! read: snapshots of btrfs, or an operator's own commands.
//!
//! What was frozen is read through [`FrozenFs`], which answers with the paths, devices, inodes and
//! identities of the source: the scan cache, the set of what changed, and groups of hard links need not
//! know of it.

use std::io;

use super::fs::volume;
use crate::base::path::{is_within, join};
use btrfs::System;
use root::Root;
use still::Tables;

mod btrfs;
mod command;
mod root;
mod still;
mod sys;

pub use btrfs::HOLDING;
pub use command::MountedFreezer;
pub use still::FrozenFs;

/// A source that will not be frozen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unfrozen {
    /// The source.
    pub path: Vec<u8>,
    /// Why.
    pub why: String,
}

/// Subvolumes of btrfs that hold sources, made ready for their snapshots.
pub struct BtrfsFreezer {
    name: String,
    systems: Vec<System>,
    roots: Vec<Vec<u8>>,
    unfrozen: Vec<Unfrozen>,
}

/// What freezing came to.
pub struct Frozen {
    /// The sources as they were.
    pub fs: FrozenFs,
    /// Snapshots that were made.
    pub count: usize,
}

impl BtrfsFreezer {
    /// Finds out which of these sources can be frozen, by snapshots of this name. Nothing is made yet.
    ///
    /// # Errors
    /// What the operating system says of its table of mounts.
    pub fn plan(roots: &[Vec<u8>], one_file_system: bool, name: &str) -> io::Result<Self> {
        let all = volume::mounts()?;
        let mut planned =
            Self { name: name.to_owned(), systems: vec![], roots: vec![], unfrozen: vec![] };
        let mut fits = Vec::new();
        for path in roots {
            let Some(root) = Root::open(path, &all) else { continue };
            let fs_type = &root.mount.fs_type;
            let why = match root.obstacle(&all, one_file_system) {
                _ if fs_type != "btrfs" => Some(format!("it lies on {fs_type}")),
                why => why,
            };
            match why {
                Some(why) => planned.unfrozen.push(Unfrozen { path: path.clone(), why }),
                None => fits.push(root),
            }
        }
        let mut devices: Vec<_> = fits.iter().map(|root| root.mount.dev).collect();
        devices.sort_unstable();
        devices.dedup();
        for device in devices {
            let these: Vec<&Root<'_>> = fits.iter().filter(|r| r.mount.dev == device).collect();
            let paths = these.iter().map(|root| root.path.clone());
            let made = System::of(&these, &all, one_file_system);
            match made.and_then(|system| system.prepare().map(|()| system)) {
                Ok(system) => {
                    planned.roots.extend(paths);
                    planned.systems.push(system);
                }
                Err(error) => planned.unfrozen.extend(paths.map(|path| {
                    let why = format!("no snapshot can be made of it: {error}");
                    Unfrozen { path, why }
                })),
            }
        }
        Ok(planned)
    }

    /// The sources that will be frozen.
    #[must_use]
    pub fn roots(&self) -> &[Vec<u8>] {
        &self.roots
    }

    /// Directories that will not be, and why.
    #[must_use]
    pub fn unfrozen(&self) -> &[Unfrozen] {
        &self.unfrozen
    }

    /// The identities of the file systems in which snapshots are made, by which [`remove_left`] finds
    /// them.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        self.systems.iter().map(|system| system.identity().to_owned()).collect()
    }

    /// Writes back what is dirty, so that a snapshot has little to write.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn sync(&self) -> io::Result<()> {
        self.systems.iter().try_for_each(System::sync)
    }

    /// Takes the snapshots.
    ///
    /// # Errors
    /// What the operating system says; that subvolumes came or went meanwhile. Some snapshots may have
    /// been made: they are to be removed as if all had been.
    pub fn freeze(&self) -> io::Result<Frozen> {
        let mut tables = Tables::default();
        let mut count = 0;
        for system in &self.systems {
            count += system.freeze(&self.name, &mut tables)?;
        }
        self.roots.iter().for_each(|root| tables.note_above(root));
        Ok(Frozen { fs: tables.finish(), count })
    }

    /// Removes the snapshots, and what held them.
    ///
    /// # Errors
    /// What the operating system says of the first that could not be removed.
    pub fn remove(&self) -> io::Result<()> {
        let mut first = Ok(());
        for system in &self.systems {
            let removed = system.remove(&self.name).map(drop);
            system.tidy();
            first = first.and(removed);
        }
        first
    }
}

/// Removes the snapshots of this name that a dead run left in a file system. Gives how many there were.
///
/// # Errors
/// What the operating system says; [`io::ErrorKind::NotFound`] where the file system is not mounted.
pub fn remove_left(place: &str, name: &str) -> io::Result<usize> {
    btrfs::remove_by_identity(place, name)
}

/// Where the directories that hold snapshots are seen below some roots: they are no part of a source.
///
/// # Errors
/// What the operating system says of its table of mounts.
pub fn holding_places(roots: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
    let all = volume::mounts()?;
    let tops = all.iter().filter(|mount| mount.fs_type == "btrfs" && mount.root == b"/");
    let inside = tops.filter(|mount| roots.iter().any(|root| is_within(&mount.point, root)));
    Ok(inside.map(|mount| join(&mount.point, HOLDING.as_bytes())).collect())
}
