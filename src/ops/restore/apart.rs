//! What is made one by one: special files, and links that cannot be made.

use std::io;
use std::sync::Arc;

use super::RestoreError;
use super::attributes::{Before, On};
use super::batch::{Batch, FileJob, LinkJob};
use super::existing::attributes_of;
use super::place::DirNode;
use super::run::Run;
use super::staging::Staging;
use super::write::Failure;
use crate::format::tree::{Entry, Node};
use crate::host::fs::{InodeKind, TargetDir};

impl Run<'_> {
    /// Makes what is neither a file nor a directory in its place, where nothing may be unless it is
    /// staged. A `guest` may get attributes from the directory, which was there before.
    pub(super) fn put_special(
        &self,
        entry: &Entry,
        node: &Arc<DirNode>,
        staging: Option<&Arc<Staging>>,
        guest: bool,
    ) -> Result<(), Failure> {
        let path = || node.path_of(&entry.name);
        let Some(staging) = staging else {
            let dir = self.dirs.open(node)?;
            return self.make_special(&dir, &entry.name, entry, guest, &path);
        };
        let temp = staging.free_name();
        staging.ensure(&self.dirs)?;
        let dir = self.dirs.open(staging.node())?;
        self.make_special(&dir, &temp, entry, false, &path)?;
        self.swap(staging, &temp, node, &entry.name)
    }

    fn make_special(
        &self,
        dir: &TargetDir,
        name: &[u8],
        entry: &Entry,
        guest: bool,
        path: &dyn Fn() -> Vec<u8>,
    ) -> Result<(), Failure> {
        let mode = 0o600;
        match &entry.node {
            Node::Symlink { target } => dir.symlink(target, name)?,
            Node::Fifo => dir.mknod(name, InodeKind::Fifo, mode, (0, 0))?,
            Node::Socket => dir.socket(name)?,
            Node::CharDevice { rdev } => dir.mknod(name, InodeKind::CharDevice, mode, *rdev)?,
            Node::BlockDevice { rdev } => dir.mknod(name, InodeKind::BlockDevice, mode, *rdev)?,
            Node::File { .. } | Node::Dir { .. } => return Ok(()),
        }
        let stat = dir.stat(name)?;
        let link = matches!(entry.node, Node::Symlink { .. });
        let inherited = if guest { Some(attributes_of(dir, name, &stat)?) } else { None };
        let before =
            Before { stat: &stat, attributes: inherited.as_ref(), link, hold_locks: false };
        self.apply(On::Named(dir, name), &entry.meta, &before, path)?;
        Ok(())
    }

    /// Restores as an inode of its own what cannot be made a further name of another: every name's
    /// entry says all of it.
    pub(super) fn unlinked(&self, link: &LinkJob, why: io::Error) -> Result<(), RestoreError> {
        let path = || link.node.path_of(&link.entry.name);
        self.trouble(path(), "is restored as a file of its own: hard link", why)?;
        let mut entry = (*link.entry).clone();
        entry.meta.link = None;
        if link.replaces && link.staging.is_none() {
            self.out_of_the_way(None, &link.node, &entry.name)?;
        }
        let (size, content, hash, layout) = match &entry.node {
            Node::File { size, content, hash, layout } => (*size, content, *hash, layout),
            _ => {
                let made = self.put_special(&entry, &link.node, link.staging.as_ref(), link.guest);
                return match made {
                    Ok(()) => {
                        self.count_file(0, 0);
                        Ok(())
                    }
                    Err(Failure::Os(e)) => self.trouble(path(), "cannot be restored", e),
                    Err(Failure::Read(e)) => self.damaged([path()], e),
                    Err(Failure::Restore(e)) => Err(e),
                };
            }
        };
        let mut job =
            FileJob::new(Arc::clone(&link.node), entry.name.clone(), entry.meta, size, hash);
        match self.stretches(layout, size, content) {
            Ok(stretches) => job.stretches = stretches,
            Err(error) => return self.damaged([path()], error),
        }
        job.replaces = link.replaces;
        job.guest = link.guest;
        job.staged = link.staging.as_ref().map(|s| (Arc::clone(s), s.free_name()));
        let mut batch = Batch::default();
        batch.jobs.push(job);
        self.chunks(&mut batch, content)?;
        self.do_batch(&mut batch)
    }
}
