//! A source that may be frozen, and what is mounted below it.

use std::io;

use super::still::{Stand, Tables};
use crate::base::path::{components, is_within, join, printable};
use crate::host::fs::linux::LinuxDir;
use crate::host::fs::volume::{self, Mount};
use crate::host::fs::{InodeKind, LinuxFs, SourceDir};

/// A source that is a directory.
pub(super) struct Root<'m> {
    pub(super) path: Vec<u8>,
    pub(super) dir: LinuxDir,
    pub(super) mount: &'m Mount,
    pub(super) is_mount: bool,
}

impl<'m> Root<'m> {
    /// Opens a source. `None` for a single file, which is read in the window at once, and for what is
    /// not there, which is a problem of the reading.
    pub(super) fn open(path: &[u8], all: &'m [Mount]) -> Option<Self> {
        let names: Vec<&[u8]> = components(path).collect();
        if let Some((name, above)) = names.split_last() {
            let parent = LinuxFs::open(&join(b"/", &above.join(&b'/'))).ok()?;
            // A link is followed by nobody here.
            (parent.stat(name).ok()?.kind == InodeKind::Dir).then_some(())?;
        }
        let dir = LinuxFs::open(path).ok()?;
        let own = dir.stat_self().ok()?;
        let mount = all.iter().find(|mount| mount.id == own.mount_id)?;
        Some(Self { path: path.to_vec(), dir, mount, is_mount: own.mount_root })
    }

    /// What is mounted below it.
    pub(super) fn below(&self, all: &'m [Mount]) -> impl Iterator<Item = &'m Mount> {
        let path = self.path.clone();
        all.iter().filter(move |mount| mount.point != path && is_within(&mount.point, &path))
    }

    /// Why something below it could not be read from a snapshot of its own file system alone.
    pub(super) fn obstacle(&self, all: &'m [Mount], one_file_system: bool) -> Option<String> {
        self.below(all).find_map(|mount| {
            let at = printable(&mount.point);
            if !LinuxFs::open(&mount.point).is_ok_and(|dir| dir.stat_self().is_ok()) {
                return Some(format!("something is mounted at {at} that is no directory"));
            }
            if volume::is_pseudo(&mount.fs_type) || one_file_system || mount.dev == self.mount.dev {
                return None;
            }
            Some(format!("{} is mounted below it, at {at}", mount.fs_type))
        })
    }

    /// What is mounted below it and is left out when it is read is looked at where it is.
    pub(super) fn leave(
        &self,
        all: &[Mount],
        one_file_system: bool,
        tables: &mut Tables,
    ) -> io::Result<()> {
        let left = |mount: &&Mount| {
            volume::is_pseudo(&mount.fs_type) || (one_file_system && mount.dev != self.mount.dev)
        };
        for mount in all.iter().filter(|m| m.point != self.path && is_within(&m.point, &self.path))
        {
            if !left(&mount) {
                continue;
            }
            let names: Vec<&[u8]> = components(&mount.point).collect();
            let Some((name, above)) = names.split_last() else { continue };
            let holder = LinuxFs::open(&join(b"/", &above.join(&b'/')))?.stat_self()?;
            let dir = LinuxFs::open(&mount.point)?;
            let stand = Stand { dir, mount: Some(mount.id) };
            tables.crossings.insert((holder.dev, holder.ino, name.to_vec()), stand);
        }
        Ok(())
    }
}
