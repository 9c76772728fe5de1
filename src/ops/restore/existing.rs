//! What is there already: compared, left where it is equal, taken out of the way where it is not.

use std::io;
use std::sync::Arc;

use super::attributes::{Before, LOCKING_FLAGS, On};
use super::batch::FileJob;
use super::error::fatal;
use super::place::DirNode;
use super::run::{Run, add};
use super::staging::Staging;
use super::write::Failure;
use super::{Action, RestoreError};
use crate::format::tree::Stretch;
use crate::host::fs::{
    Attributes, ExtentKind, InodeKind, SourceDir, SourceFile, Stat, TargetDir, TargetFile,
};

impl Run<'_> {
    /// Compares what stands in a job's place with it. Where all bytes are equal only attributes are
    /// mended, and the job is done.
    pub(super) fn compare(&self, job: &FileJob) -> Result<(), RestoreError> {
        let Some(there) = &job.there else { return Ok(()) };
        let path = || job.path();
        let found = match self.equal(job, there) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                self.check()?;
                None
            }
            // What cannot be read is replaced.
            Err(e) => {
                fatal(path(), e)?;
                None
            }
        };
        let Some(file) = found else {
            if !self.in_place && !self.input.dry_run {
                self.out_of_the_way(None, &job.node, &job.name)?;
            }
            return Ok(());
        };
        job.set_done();
        add(&self.counts.equal, 1);
        if self.input.verify {
            add(&self.counts.verified, 1);
        }
        self.count_file(job.size, job.size);
        self.mend_file(job, &file)?;
        if job.is_linked() {
            self.lock_later(&job.node, &job.name, &job.meta);
        }
        Ok(())
    }

    /// What stands in a job's place, where it is equal to it: open, because a name may lead to
    /// another inode by the time that attributes are given.
    fn equal(&self, job: &FileJob, there: &Stat) -> io::Result<Option<TargetFile>> {
        let dir = self.dirs.open(&job.node)?;
        let file = dir.open_file(&job.name)?;
        let now = file.stat()?;
        // Where another name leads to the same inode, what is written there must not show here.
        let shared = self.in_place && job.meta.link.is_none() && now.nlink > 1;
        let is = |stat: &Stat| (stat.dev, stat.ino) == (now.dev, now.ino);
        if shared
            || !is(there)
            || now.size != job.size
            || !layout_is(file.source(), &now, job.stretches.as_deref())?
            || self.hash_data(file.source(), job)? != *job.hash.as_bytes()
            || !is(&dir.stat(&job.name)?)
        {
            return Ok(None);
        }
        Ok(Some(file))
    }

    /// Gives a file that stays the attributes of the snapshot.
    fn mend_file(&self, job: &FileJob, file: &TargetFile) -> Result<(), RestoreError> {
        let path = || job.path();
        let attempt = || -> Result<bool, Failure> {
            let (stat, attributes) = (file.stat()?, file.source().attributes()?);
            let before = Before {
                stat: &stat,
                attributes: Some(&attributes),
                link: false,
                hold_locks: job.is_linked(),
            };
            Ok(self.apply(On::File(file), &job.meta, &before, &path)?)
        };
        self.mended(attempt(), path)
    }

    fn mended(
        &self,
        done: Result<bool, Failure>,
        path: impl Fn() -> Vec<u8>,
    ) -> Result<(), RestoreError> {
        match done {
            Ok(true) if self.input.dry_run => self.plan(Action::Attributes, path(), 0),
            Ok(_) => {}
            Err(Failure::Os(e)) => self.trouble(path(), "attributes", e)?,
            Err(Failure::Read(e)) => self.damaged([path()], e)?,
            Err(Failure::Restore(e)) => return Err(e),
        }
        Ok(())
    }

    /// Whether attributes of a name that is neither a file nor a directory differ.
    pub(super) fn differs(
        &self,
        dir: &TargetDir,
        entry: &crate::format::tree::Entry,
        stat: &Stat,
    ) -> Result<bool, Failure> {
        let attributes = attributes_of(dir, &entry.name, stat)?;
        let link = stat.kind == InodeKind::Symlink;
        let before = Before { stat, attributes: Some(&attributes), link, hold_locks: false };
        Ok(self.would_change(&entry.meta, &before)?)
    }

    /// Gives a name that is neither a file nor a directory and stays the attributes of the snapshot.
    /// Not in place: a process that is left could put another inode behind the name.
    pub(super) fn mend(
        &self,
        node: &Arc<DirNode>,
        name: &[u8],
        stat: &Stat,
        meta: &crate::format::tree::Meta,
        path: impl Fn() -> Vec<u8>,
    ) -> Result<(), RestoreError> {
        let done = self.dirs.open(node).map_err(Failure::from).and_then(|dir| {
            let attributes = attributes_of(&dir, name, stat)?;
            let link = stat.kind == InodeKind::Symlink;
            let hold_locks = meta.link.is_some();
            let before = Before { stat, attributes: Some(&attributes), link, hold_locks };
            Ok(self.apply(On::Named(&dir, name), meta, &before, &path)?)
        });
        self.mended(done, path)
    }

    /// Takes a name out of the way: into the staging directory, or, without one, away.
    pub(super) fn out_of_the_way(
        &self,
        staging: Option<&Arc<Staging>>,
        node: &Arc<DirNode>,
        name: &[u8],
    ) -> Result<(), RestoreError> {
        let done = match staging {
            Some(staging) => self.move_aside(staging, node, name),
            None => self.remove(node, name),
        };
        match done {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => self.trouble(node.path_of(name), "cannot be taken out of the way", e),
        }
    }

    fn move_aside(&self, staging: &Staging, node: &Arc<DirNode>, name: &[u8]) -> io::Result<()> {
        staging.ensure(&self.dirs)?;
        let (dir, to) = (self.dirs.open(node)?, self.dirs.open(staging.node())?);
        let aside = staging.free_name();
        unlocked(&dir, name, || dir.rename(name, &to, &aside))
    }

    /// Puts what was made in the staging directory into its place; what stood there goes the other
    /// way.
    pub(super) fn swap(
        &self,
        staging: &Staging,
        temp: &[u8],
        node: &Arc<DirNode>,
        name: &[u8],
    ) -> Result<(), Failure> {
        let (from, dir) = (self.dirs.open(staging.node())?, self.dirs.open(node)?);
        match from.rename_noreplace(temp, &dir, name) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                match unlocked(&dir, name, || from.exchange(temp, &dir, name)) {
                    Err(e) if e.kind() == io::ErrorKind::InvalidInput => {}
                    other => return Ok(other?),
                }
            }
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {}
            Err(e) => return Err(e.into()),
        }
        // A file system without these orders: two steps, and the old content is never lost.
        match self.move_aside(staging, node, name) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
        Ok(from.rename(temp, &dir, name)?)
    }

    /// Removes a name with all below it, locked or not, crossing no mount.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn remove(&self, node: &Arc<DirNode>, name: &[u8]) -> io::Result<()> {
        let dir = self.dirs.open(node)?;
        if dir.stat(name)?.kind != InodeKind::Dir {
            return unlocked(&dir, name, || dir.unlink(name));
        }
        let mut stack = vec![self.removal(node, name)?];
        while let Some((node, names)) = stack.last_mut() {
            let node = Arc::clone(node);
            match names.pop() {
                Some(name) => {
                    let dir = self.dirs.open(&node)?;
                    if dir.stat(&name)?.kind == InodeKind::Dir {
                        stack.push(self.removal(&node, &name)?);
                    } else {
                        unlocked(&dir, &name, || dir.unlink(&name))?;
                    }
                }
                None => {
                    stack.pop();
                    self.dirs.close(&node);
                    let Some(parent) = node.above() else { break };
                    let dir = self.dirs.open(parent)?;
                    unlocked(&dir, node.name(), || dir.rmdir(node.name()))?;
                }
            }
        }
        Ok(())
    }

    fn removal(
        &self,
        parent: &Arc<DirNode>,
        name: &[u8],
    ) -> io::Result<(Arc<DirNode>, Vec<Vec<u8>>)> {
        let dir = self.dirs.open(parent)?;
        let stat = dir.stat(name)?;
        if stat.mount_root {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        if stat.mode & 0o700 != 0o700 && !self.privileged {
            dir.chmod(name, stat.mode | 0o700)?;
        }
        let node = self.dirs.node(parent, name);
        let opened = self.dirs.open(&node)?;
        let names = opened.names()?.into_iter().map(|n| n.name).collect();
        let flags = opened.source().attributes_self()?.flags.unwrap_or(0);
        if flags & LOCKING_FLAGS != 0 {
            opened.set_flags_self(flags & !LOCKING_FLAGS)?;
        }
        Ok((node, names))
    }
}

/// The attributes of a name of any kind.
pub(super) fn attributes_of(dir: &TargetDir, name: &[u8], stat: &Stat) -> io::Result<Attributes> {
    match stat.kind {
        InodeKind::File => dir.source().file(name)?.attributes(),
        InodeKind::Dir => dir.open_dir(name)?.source().attributes_self(),
        _ => dir.source().attributes(name),
    }
}

/// Calls; where that is not permitted, once more after taking locking flags from the name.
pub(super) fn unlocked(
    dir: &TargetDir,
    name: &[u8],
    call: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    match call() {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let stat = dir.stat(name)?;
            let flags = attributes_of(dir, name, &stat)?.flags.unwrap_or(0);
            if flags & LOCKING_FLAGS == 0 {
                return Err(e);
            }
            dir.set_flags(name, flags & !LOCKING_FLAGS)?;
            call()
        }
        other => other,
    }
}

/// Whether a file has the snapshot's data, holes and allocated stretches where it has them.
fn layout_is(file: &dyn SourceFile, now: &Stat, wanted: Option<&[Stretch]>) -> io::Result<bool> {
    let Some(wanted) = wanted else {
        if now.allocated >= now.size {
            return Ok(true);
        }
        let map = file.extents(now)?;
        let data: u64 =
            map.extents.iter().filter(|e| e.kind == ExtentKind::Data).map(|e| e.len).sum();
        return Ok(data == now.size);
    };
    let map = file.extents(now)?;
    let found = map.extents.iter().map(|e| (e.offset, e.len, e.kind == ExtentKind::Unwritten));
    if map.exact {
        return Ok(found.eq(wanted.iter().map(|s| (s.offset, s.len, s.unwritten))));
    }
    let data = wanted.iter().filter(|s| !s.unwritten).map(|s| (s.offset, s.len, false));
    Ok(found.eq(data))
}
