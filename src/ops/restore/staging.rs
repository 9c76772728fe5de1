//! Beside what is restored in place: new files in the making, and what they replace, until the end.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::attributes::On;
use super::place::{DirNode, Dirs};
use super::run::lock;
use crate::base::id::ManifestId;
use crate::host::fs::{InodeKind, SourceDir, TargetDir};

/// How the directories are called that hold what is replaced.
pub(super) const PREFIX: &[u8] = b".cabk-restore-";

/// The name of the staging directories of one snapshot.
pub(super) fn name_for(id: &ManifestId) -> Vec<u8> {
    [PREFIX, id.short().as_bytes()].concat()
}

/// A directory of ours on the file system of what is restored; made when it is first needed.
#[derive(Debug)]
pub(super) struct Staging {
    holder: Arc<DirNode>,
    node: Arc<DirNode>,
    made: Mutex<bool>,
    /// Drawn by this run: what an earlier one left has other names.
    prefix: u64,
    next: AtomicU64,
}

impl Staging {
    pub(super) fn new(dirs: &Dirs, holder: &Arc<DirNode>, name: &[u8], prefix: u64) -> Arc<Self> {
        Arc::new(Self {
            holder: Arc::clone(holder),
            node: dirs.node(holder, name),
            made: Mutex::new(false),
            prefix,
            next: AtomicU64::new(1),
        })
    }

    /// The staging directory.
    pub(super) fn node(&self) -> &DirNode {
        &self.node
    }

    /// The directory in which it lies.
    pub(super) fn holder(&self) -> &Arc<DirNode> {
        &self.holder
    }

    /// Whether it was made, by this run or one before.
    pub(super) fn is_made(&self) -> bool {
        *lock(&self.made)
    }

    /// A name that is free in it. Whoever uses it makes the directory first.
    pub(super) fn free_name(&self) -> Vec<u8> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{number:x}", self.prefix).into_bytes()
    }

    /// Makes the directory, or takes over what an earlier run of the same restore made.
    ///
    /// # Errors
    /// What the operating system says, `EEXIST` where somebody else has put something there.
    pub(super) fn ensure(&self, dirs: &Dirs) -> io::Result<()> {
        let mut made = lock(&self.made);
        if *made {
            return Ok(());
        }
        let holder = dirs.open(&self.holder)?;
        match holder.make_dir(self.node.name(), 0o700) {
            Ok(()) => strip(&*dirs.open(&self.node)?)?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let stat = holder.stat(self.node.name())?;
                let ours = stat.kind == InodeKind::Dir
                    && stat.uid == rustix::process::geteuid().as_raw()
                    && stat.mode & 0o077 == 0;
                if !ours {
                    return Err(e);
                }
            }
            Err(e) => return Err(e),
        }
        *made = true;
        Ok(())
    }
}

/// Takes from a directory that was just made what the one above gave it: default ACLs and flags
/// would go on to all that is made in it.
pub(super) fn strip(dir: &TargetDir) -> io::Result<()> {
    let found = dir.source().attributes_self()?;
    if found.flags.is_some_and(|flags| flags != 0) {
        dir.set_flags_self(0)?;
    }
    if found.project.is_some() {
        dir.set_project_self(0)?;
    }
    for (name, _) in found.xattrs.iter().filter(|(name, _)| name.starts_with(b"system.posix_acl")) {
        On::Dir(dir).remove_xattr(name)?;
    }
    // What an ACL leaves in the mode, and the group's bit of the directory above.
    dir.chmod_self(0o700)
}
