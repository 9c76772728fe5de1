//! Owner, mode, extended attributes, times and flags of one inode, in the order that the kernel
//! needs: owner first (it clears set-id bits and capabilities), flags last (an immutable inode takes
//! nothing more). What could not be set is a problem, each by its name.

use std::borrow::Cow;
use std::io;

use super::error::OWNER;
use super::run::Run;
use crate::base::limits;
use crate::base::time::Timestamp;
use crate::format::acl::{self, Who};
use crate::format::tree::{Meta, Xattrs, decode_xattrs};
use crate::host::fs::{Attributes, Stat, TargetDir, TargetFile};
use crate::store::reader::{ReadError, Reader};

/// Immutable and append-only: no change passes them.
pub(super) const LOCKING_FLAGS: u32 = 0x10 | 0x20;
/// No copy on write: only an empty file takes it.
pub(super) const NO_COW_FLAG: u32 = 0x0080_0000;
/// Names without case: only an empty directory takes it.
pub(super) const CASEFOLD_FLAG: u32 = 0x4000_0000;

/// The inode that gets attributes.
#[derive(Clone, Copy)]
pub(super) enum On<'a> {
    /// An open file.
    File(&'a TargetFile),
    /// An open directory itself.
    Dir(&'a TargetDir),
    /// A name, not followed.
    Named(&'a TargetDir, &'a [u8]),
}

impl On<'_> {
    fn chown(self, uid: u32, gid: u32) -> io::Result<()> {
        match self {
            Self::File(file) => file.chown(uid, gid),
            Self::Dir(dir) => dir.chown_self(uid, gid),
            Self::Named(dir, name) => dir.chown(name, uid, gid),
        }
    }

    fn chmod(self, mode: u32) -> io::Result<()> {
        match self {
            Self::File(file) => file.chmod(mode),
            Self::Dir(dir) => dir.chmod_self(mode),
            Self::Named(dir, name) => dir.chmod(name, mode),
        }
    }

    fn set_xattr(self, attribute: &[u8], value: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.set_xattr(attribute, value),
            Self::Dir(dir) => dir.set_xattr_self(attribute, value),
            Self::Named(dir, name) => dir.set_xattr(name, attribute, value),
        }
    }

    pub(super) fn remove_xattr(self, attribute: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.remove_xattr(attribute),
            Self::Dir(dir) => dir.remove_xattr_self(attribute),
            Self::Named(dir, name) => dir.remove_xattr(name, attribute),
        }
    }

    fn set_times(self, mtime: Timestamp) -> io::Result<()> {
        match self {
            Self::File(file) => file.set_times(mtime),
            Self::Dir(dir) => dir.set_times_self(mtime),
            Self::Named(dir, name) => dir.set_times(name, mtime),
        }
    }

    fn set_flags(self, flags: u32) -> io::Result<()> {
        match self {
            Self::File(file) => file.set_flags(flags),
            Self::Dir(dir) => dir.set_flags_self(flags),
            Self::Named(dir, name) => dir.set_flags(name, flags),
        }
    }

    fn set_project(self, project: u32) -> io::Result<()> {
        match self {
            Self::File(file) => file.set_project(project),
            Self::Dir(dir) => dir.set_project_self(project),
            Self::Named(dir, name) => dir.set_project(name, project),
        }
    }
}

/// What an inode has before it gets its attributes.
pub(super) struct Before<'a> {
    /// Owner, mode and times.
    pub(super) stat: &'a Stat,
    /// The rest; `None` for an inode that was just made and has none.
    pub(super) attributes: Option<&'a Attributes>,
    /// Whether it is a symbolic link, which has no mode.
    pub(super) link: bool,
    /// Whether flags that lock the inode wait until all its names are made.
    pub(super) hold_locks: bool,
}

/// An attribute that belongs to the machine and not to the file: never removed.
fn is_the_machines(name: &[u8]) -> bool {
    [&b"security.selinux"[..], b"security.ima", b"security.evm", b"system.nfs4_acl"].contains(&name)
}

/// A list of extended attributes.
pub(super) type XattrList<'a> = Cow<'a, [(Vec<u8>, Vec<u8>)]>;

/// The extended attributes of an entry, out of the repository where they are many.
pub(super) fn xattrs_of<'m>(reader: &Reader, meta: &'m Meta) -> Result<XattrList<'m>, ReadError> {
    match &meta.xattrs {
        Xattrs::Inline(list) => Ok(Cow::Borrowed(list)),
        Xattrs::Content(content) => {
            let bytes = reader.content(content, limits::XATTR_TOTAL_MAX)?;
            let id = content.refs.first().map(|r| r.id);
            let list = decode_xattrs(&bytes).map_err(|source| match id {
                Some(id) => ReadError::Decode { id, source },
                None => ReadError::Missing(crate::base::id::ChunkId::from_array([0; 32])),
            })?;
            Ok(Cow::Owned(list))
        }
    }
}

impl Run<'_> {
    /// The extended attributes of an entry, ACLs with the owners that they have here.
    fn xattrs<'m>(&self, meta: &'m Meta) -> Result<XattrList<'m>, ReadError> {
        let mut list = xattrs_of(self.input.reader, meta)?;
        for at in 0..list.len() {
            let (name, value) = &list[at];
            let here = |who: Who| match who {
                Who::User(uid) => self.owners.of(uid, 0).0,
                Who::Group(gid) => self.owners.of(0, gid).1,
            };
            if acl::is_acl(name)
                && let Some(mapped) = acl::rewrite(value, &here)
            {
                list.to_mut()[at].1 = mapped;
            }
        }
        Ok(list)
    }

    /// Gives an inode what the snapshot says. True where something was (or, when it is only tried,
    /// would be) changed. `path` is for problems.
    pub(super) fn apply(
        &self,
        on: On<'_>,
        meta: &Meta,
        before: &Before<'_>,
        path: &dyn Fn() -> Vec<u8>,
    ) -> Result<bool, ReadError> {
        let xattrs = self.xattrs(meta)?;
        let plan = self.plan_attributes(meta, before, &xattrs);
        if !plan.any() || self.input.dry_run {
            return Ok(plan.any());
        }
        let unlocked = plan.had_flags & LOCKING_FLAGS != 0;
        let failed = |what: &str, e: &io::Error| self.problems.add(path(), what, e);
        if unlocked && let Err(e) = on.set_flags(plan.had_flags & !LOCKING_FLAGS) {
            failed("inode flags", &e);
        }
        let mut mode = meta.mode;
        if plan.chown
            && let Err(e) = self.change_owner(on, before.stat, &plan)
        {
            failed(OWNER, &e);
            if before.stat.kind == crate::host::fs::InodeKind::File {
                // What would run as its owner must not run as somebody else.
                mode &= 0o1777;
            }
        }
        if !before.link
            && (plan.chown || plan.chmod)
            && let Err(e) = on.chmod(mode)
        {
            failed("mode", &e);
        }
        if plan.xattrs || (plan.chown && !xattrs.is_empty()) {
            self.apply_xattrs(on, &xattrs, before.attributes, path);
        }
        if plan.project && on.set_project(meta.project.unwrap_or(0)).is_err() {
            self.counts.project_lost();
        }
        // Unlocking and the flags of the file system may have moved no time; the rest does not.
        if plan.times
            && let Err(e) = on.set_times(meta.mtime)
        {
            failed("time", &e);
        }
        if let Some(flags) = plan.to_flags.filter(|_| plan.flags || unlocked) {
            let held = if before.hold_locks { LOCKING_FLAGS } else { 0 };
            if let Err(e) = on.set_flags(flags & !held) {
                failed("inode flags", &e);
            }
        }
        Ok(true)
    }

    /// Whether [`Run::apply`] would change anything.
    pub(super) fn would_change(&self, meta: &Meta, before: &Before<'_>) -> Result<bool, ReadError> {
        let xattrs = self.xattrs(meta)?;
        Ok(self.plan_attributes(meta, before, &xattrs).any())
    }

    /// Gives the owner and the group; where only root may, at least a group of one's own.
    fn change_owner(&self, on: On<'_>, stat: &Stat, plan: &Plan) -> io::Result<()> {
        let both = on.chown(plan.uid, plan.gid);
        if both.is_err() && !self.privileged && stat.gid != plan.gid && stat.uid != plan.uid {
            // Whether this works or not, the owner was not given: that is the problem to report.
            let _ = on.chown(stat.uid, plan.gid);
        }
        both
    }

    /// What of an inode differs from what the snapshot says.
    fn plan_attributes(
        &self,
        meta: &Meta,
        before: &Before<'_>,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Plan {
        let (uid, gid, by_number) = self.owners.of(meta.uid, meta.gid);
        if by_number {
            self.counts.owner_by_number();
        }
        let (stat, had) = (before.stat, before.attributes);
        let flags = had.and_then(|a| a.flags);
        let had_flags = flags.unwrap_or(0);
        // No flags in the snapshot are none here, too; but what only an empty inode can be given
        // cannot be taken from it either.
        let to_flags = meta.flags.or(flags.map(|f| f & (NO_COW_FLAG | CASEFOLD_FLAG)));
        Plan {
            uid,
            gid,
            had_flags,
            chown: stat.uid != uid || stat.gid != gid,
            chmod: !before.link && stat.mode != meta.mode,
            xattrs: match had {
                Some(had) => {
                    had.xattrs.iter().any(|x| !is_the_machines(&x.0) && !xattrs.contains(x))
                        || xattrs.iter().any(|x| !had.xattrs.contains(x))
                }
                None => !xattrs.is_empty(),
            },
            times: had.is_none() || stat.mtime != meta.mtime,
            to_flags,
            flags: to_flags.is_some_and(|f| match had {
                Some(_) => f != had_flags,
                None => f != 0,
            }),
            project: match had {
                Some(had) => had.project != meta.project,
                None => meta.project.is_some(),
            },
        }
    }

    fn apply_xattrs(
        &self,
        on: On<'_>,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        had: Option<&Attributes>,
        path: &dyn Fn() -> Vec<u8>,
    ) {
        let failed = |name: &[u8], e: &io::Error| {
            let what = format!("extended attribute {}", crate::base::path::printable(name));
            self.problems.add(path(), &what, e);
        };
        for (name, _) in had.map(|h| h.xattrs.as_slice()).unwrap_or_default() {
            let gone = !is_the_machines(name) && !xattrs.iter().any(|(n, _)| n == name);
            if gone && let Err(e) = on.remove_xattr(name) {
                failed(name, &e);
            }
        }
        for (name, value) in xattrs {
            if let Err(e) = on.set_xattr(name, value) {
                failed(name, &e);
            }
        }
    }
}

/// What differs.
struct Plan {
    /// The owner here.
    uid: u32,
    /// The group here.
    gid: u32,
    /// The flags that it has.
    had_flags: u32,
    /// The flags that it gets; `None` where there are none.
    to_flags: Option<u32>,
    chown: bool,
    chmod: bool,
    xattrs: bool,
    times: bool,
    flags: bool,
    project: bool,
}

impl Plan {
    fn any(&self) -> bool {
        self.chown || self.chmod || self.xattrs || self.times || self.flags || self.project
    }
}
