//! What comes last: further names of inodes, attributes of directories, and what was aside.

use std::io;
use std::sync::Arc;

use super::Action;
use super::RestoreError;
use super::attributes::{Before, On};
use super::batch::{Finish, LinkJob};
use super::existing::unlocked;
use super::run::{Run, lock};
use super::staging::Staging;
use super::write::Failure;
use crate::host::fs::SourceDir;

impl Run<'_> {
    /// Gives inodes their further names; the first ones are there.
    pub(super) fn make_links(&self, links: &[LinkJob]) -> Result<(), RestoreError> {
        for link in links {
            self.check()?;
            let path = || link.node.path_of(&link.entry.name);
            match self.make_link(link) {
                Ok(()) => self.count_file(0, 0),
                Err(Failure::Os(e)) => self.unlinked(link, e)?,
                Err(Failure::Read(e)) => self.damaged([path()], e)?,
                Err(Failure::Restore(e)) => return Err(e),
            }
        }
        Ok(())
    }

    fn make_link(&self, link: &LinkJob) -> Result<(), Failure> {
        let (first_node, first_name) = (&link.first.0, &link.first.1);
        let from = self.dirs.open(first_node)?;
        let first = from.stat(first_name)?;
        let dir = self.dirs.open(&link.node)?;
        if link.replaces
            && let Ok(there) = dir.stat(&link.entry.name)
        {
            if (there.dev, there.ino) == (first.dev, first.ino) {
                return Ok(());
            }
            if link.staging.is_none() {
                self.out_of_the_way(None, &link.node, &link.entry.name)?;
            }
        }
        let Some(staging) = &link.staging else {
            return Ok(unlocked(&from, first_name, || {
                from.hard_link(first_name, &dir, &link.entry.name)
            })?);
        };
        staging.ensure(&self.dirs)?;
        let (aside, temp) = (self.dirs.open(staging.node())?, staging.free_name());
        unlocked(&from, first_name, || from.hard_link(first_name, &aside, &temp))?;
        self.swap(staging, &temp, &link.node, &link.entry.name)
    }

    /// Ends a directory now, or at the very end where its mode would lock this process out.
    pub(super) fn finish_or_postpone(&self, finish: Finish) -> Result<(), RestoreError> {
        if !self.privileged && finish.meta.mode & 0o700 != 0o700 {
            lock(&self.late_dirs).push(finish);
            return Ok(());
        }
        self.finish_dir(&finish)
    }

    /// Gives a directory its attributes; nothing in it changes any more.
    pub(super) fn finish_dir(&self, finish: &Finish) -> Result<(), RestoreError> {
        let path = || finish.node.path();
        let done = self.dirs.open(&finish.node).map_err(Failure::from).and_then(|dir| {
            let stat = dir.stat_self()?;
            let attributes = match finish.fresh {
                true => None,
                false => Some(dir.source().attributes_self()?),
            };
            let attributes = attributes.as_ref();
            let before = Before { stat: &stat, attributes, link: false, hold_locks: false };
            Ok(self.apply(On::Dir(&dir), &finish.meta, &before, &path)?)
        });
        self.dirs.close(&finish.node);
        match done {
            Ok(true) if self.input.dry_run => self.plan(Action::Attributes, path(), 0),
            Ok(_) => {}
            Err(Failure::Os(e)) => self.trouble(path(), "attributes", e)?,
            Err(Failure::Read(e)) => self.damaged([path()], e)?,
            Err(Failure::Restore(e)) => return Err(e),
        }
        Ok(())
    }

    /// Lets go of what was replaced, once what replaces it is durable.
    pub(super) fn clear_staging(&self, staging: &Arc<Staging>) -> Result<(), RestoreError> {
        if !staging.is_made() {
            return Ok(());
        }
        let failed = |source: io::Error| RestoreError::Io { path: staging.node().path(), source };
        self.dirs.open(staging.node()).and_then(|dir| dir.sync_all()).map_err(failed)?;
        self.dirs.close(staging.node());
        match self.remove(staging.holder(), staging.node().name()) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => self.trouble(staging.node().path(), "cannot be removed", e),
        }
    }

    /// Locks what is locked in the snapshot, and ends the directories that waited.
    pub(super) fn finish_late(&self) -> Result<(), RestoreError> {
        for late in std::mem::take(&mut *lock(&self.late)) {
            let done = self.dirs.open(&late.node).and_then(|d| d.set_flags(&late.name, late.flags));
            if let Err(e) = done {
                self.trouble(late.node.path_of(&late.name), "inode flags", e)?;
            }
        }
        for finish in std::mem::take(&mut *lock(&self.late_dirs)) {
            self.finish_dir(&finish)?;
        }
        Ok(())
    }
}
