//! What was restored against what the snapshot's tree says: every name, every attribute, every
//! byte. It asks the file system and the repository, not the restore that wrote the files.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::base::limits;
use crate::base::path::{bytes, is_within, join, printable};
use crate::format::DecodeError;
use crate::format::content::{ChunkRef, Content};
use crate::format::manifest::ManifestBody;
use crate::format::pack::ChunkKind;
use crate::format::tree::{
    Entry, Layout, Meta, Node, Stretch, StretchMap, Xattrs, decode_stretches, decode_xattrs,
};
use crate::host::fs::{Attributes, InodeKind, LinuxFs, SourceDir, SourceFile, SourceFs, Stat};
use crate::store::reader::{ReadError, Reader};

/// Bytes of a file that is compared; those of the demonstration are far below.
const FILE_MAX: u64 = 256 << 20;

/// Differences that are told.
const TOLD: usize = 20;

/// What the comparison came to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Compared {
    /// Names compared, directories among them.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// The first differences; empty where there is none.
    pub differences: Vec<String>,
    /// Directories above the site whose owner or flags could not be given here. They are the
    /// machine's, and no part of the site.
    pub not_ours: u64,
}

/// What kept the comparison from being made.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The repository.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A tree that does not decode.
    #[error("the snapshot's tree does not decode")]
    Decode(#[from] DecodeError),
    /// The file system.
    #[error("cannot look at {}", printable(path))]
    Io {
        /// Where.
        path: Vec<u8>,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Compares the directory `target`, into which a snapshot was restored, with the snapshot's tree.
/// `site` is the directory that held the sources: what lies above it belongs to others.
///
/// # Errors
/// [`CompareError`]; differences are no error here.
pub(super) fn compare(
    reader: &Reader,
    body: &ManifestBody,
    target: &Path,
    site: &Path,
) -> Result<Compared, CompareError> {
    let root = Entry::decode(&body.root.0, &reader.repository().namer().empty())?;
    let (links, done) = (BTreeMap::new(), Compared::default());
    let mut run = Run { reader, site: bytes(site), links, done };
    let top = bytes(target);
    let wrong = |source| CompareError::Io { path: top.to_vec(), source };
    let dir = LinuxFs.open_root(top).map_err(wrong)?;
    // The snapshot's root stands for the directory that the operator named.
    run.directory(&*dir, &root, b"")?;
    Ok(run.done)
}

struct Run<'a> {
    reader: &'a Reader,
    site: &'a [u8],
    /// Of each group of hard links: the inode.
    links: BTreeMap<u64, u64>,
    done: Compared,
}

impl Run<'_> {
    fn differs(&mut self, path: &[u8], what: &str) {
        if self.done.differences.len() < TOLD {
            self.done.differences.push(format!("{}: {what}", printable(path)));
        }
    }

    /// `path` is the one in the snapshot.
    fn directory(
        &mut self,
        dir: &dyn SourceDir,
        entry: &Entry,
        path: &[u8],
    ) -> Result<(), CompareError> {
        let wrong = |source| CompareError::Io { path: path.to_vec(), source };
        let Node::Dir { tree, .. } = &entry.node else { return Ok(()) };
        let mut entries = Vec::new();
        if let Some(tree) = tree {
            self.reader.entries(tree, &mut |entry| -> Result<(), ReadError> {
                entries.push(entry);
                Ok(())
            })?;
        }
        let there = dir.names().map_err(wrong)?;
        let mut there: BTreeSet<Vec<u8>> = there.into_iter().map(|raw| raw.name).collect();
        for entry in &entries {
            let path = join(if path.is_empty() { b"/" } else { path }, &entry.name);
            if there.remove(&entry.name) {
                self.entry(dir, entry, &path)?;
            } else {
                self.differs(&path, "is not there");
            }
        }
        for name in there {
            self.differs(&join(path, &name), "is there and not in the snapshot");
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: &dyn SourceDir,
        entry: &Entry,
        path: &[u8],
    ) -> Result<(), CompareError> {
        let wrong = |source| CompareError::Io { path: path.to_vec(), source };
        self.done.entries += 1;
        let stat = dir.stat(&entry.name).map_err(wrong)?;
        if kind(&entry.node) != stat.kind {
            self.differs(path, "is something else");
            return Ok(());
        }
        match &entry.node {
            Node::Dir { .. } => {
                let below = dir.open_dir(&entry.name).map_err(wrong)?;
                let attributes = below.attributes_self().map_err(wrong)?;
                self.meta(&entry.meta, &stat, &attributes, path)?;
                self.directory(&*below, entry, path)?;
            }
            Node::File { size, content, layout, .. } => {
                let file = dir.open_file(&entry.name).map_err(wrong)?;
                let attributes = file.attributes().map_err(wrong)?;
                self.meta(&entry.meta, &stat, &attributes, path)?;
                let expected = self.expected(*size, content, layout)?;
                self.content(&*file, &expected, &stat, path)?;
            }
            node => {
                let attributes = dir.attributes(&entry.name).map_err(wrong)?;
                self.meta(&entry.meta, &stat, &attributes, path)?;
                if let Node::Symlink { target } = node
                    && dir.read_link(&entry.name).map_err(wrong)? != *target
                {
                    self.differs(path, "points elsewhere");
                }
            }
        }
        Ok(())
    }

    fn meta(
        &mut self,
        meta: &Meta,
        stat: &Stat,
        attributes: &Attributes,
        path: &[u8],
    ) -> Result<(), CompareError> {
        // Directories above the site are made so that it has a place. Only root can give them
        // their owners, and they may come from file systems with other flags.
        let flags = (attributes.flags.unwrap_or(0), meta.flags.unwrap_or(0));
        let given = (stat.uid, stat.gid) == (meta.uid, meta.gid) && flags.0 == flags.1;
        if !given && !is_within(path, self.site) {
            self.done.not_ours += 1;
            return Ok(());
        }
        // The mode of a symbolic link is nothing that can be set.
        if stat.mode != meta.mode && stat.kind != InodeKind::Symlink {
            self.differs(path, &format!("mode {:o}, not {:o}", stat.mode, meta.mode));
        }
        if (stat.uid, stat.gid) != (meta.uid, meta.gid) {
            self.differs(path, "another owner or group");
        }
        if stat.mtime != meta.mtime {
            self.differs(path, &format!("changed at {}, not {}", stat.mtime, meta.mtime));
        }
        let xattrs = match &meta.xattrs {
            Xattrs::Inline(list) => list.clone(),
            Xattrs::Content(content) => {
                decode_xattrs(&self.reader.content(content, limits::XATTR_TOTAL_MAX)?)?
            }
        };
        if attributes.xattrs != xattrs {
            self.differs(path, "other extended attributes");
        }
        if flags.0 != flags.1 {
            self.differs(path, "other inode flags");
        }
        if let Some(group) = meta.link
            && *self.links.entry(group).or_insert(stat.ino) != stat.ino
        {
            self.differs(path, "is no hard link of its group");
        }
        Ok(())
    }

    /// The bytes that the file is to have.
    fn expected(
        &self,
        size: u64,
        content: &Content,
        layout: &Layout,
    ) -> Result<Vec<u8>, CompareError> {
        let too_long = DecodeError::Bound { what: "file", found: size, bound: FILE_MAX };
        let len = usize::try_from(size.min(FILE_MAX + 1)).unwrap_or(usize::MAX);
        if size > FILE_MAX {
            return Err(too_long.into());
        }
        let stretches = match layout {
            Layout::Dense => vec![Stretch { offset: 0, len: size, unwritten: false }],
            Layout::Sparse { map: StretchMap::Inline(list), .. } => list.clone(),
            Layout::Sparse { map: StretchMap::Content(map), .. } => {
                decode_stretches(&self.reader.content(map, limits::EXTENT_MAP_MAX)?, size)?
            }
        };
        let mut data = Vec::new();
        self.reader.data_chunks(content, &mut |chunk: ChunkRef| -> Result<(), ReadError> {
            data.extend_from_slice(&self.reader.chunk(ChunkKind::Data, &chunk.id)?);
            Ok(())
        })?;
        let mut whole = vec![0; len];
        let mut rest = &data[..];
        let wrong = DecodeError::Invalid { what: "file layout" };
        for stretch in stretches.iter().filter(|stretch| !stretch.unwritten) {
            let (Ok(from), Ok(len)) =
                (usize::try_from(stretch.offset), usize::try_from(stretch.len))
            else {
                return Err(wrong.into());
            };
            let to = from.checked_add(len).and_then(|end| whole.get_mut(from..end));
            let (Some(to), Some((now, later))) = (to, rest.split_at_checked(len)) else {
                return Err(wrong.into());
            };
            to.copy_from_slice(now);
            rest = later;
        }
        if rest.is_empty() { Ok(whole) } else { Err(wrong.into()) }
    }

    fn content(
        &mut self,
        file: &dyn SourceFile,
        expected: &[u8],
        stat: &Stat,
        path: &[u8],
    ) -> Result<(), CompareError> {
        self.done.files += 1;
        self.done.bytes += expected.len() as u64;
        if stat.size != expected.len() as u64 {
            self.differs(path, &format!("{} bytes, not {}", stat.size, expected.len()));
            return Ok(());
        }
        let wrong = |source| CompareError::Io { path: path.to_vec(), source };
        let mut there = vec![0; expected.len()];
        let read = file.read_at(&mut there, 0).map_err(wrong)?;
        if read != expected.len() || there != expected {
            self.differs(path, "other content");
        }
        Ok(())
    }
}

const fn kind(node: &Node) -> InodeKind {
    match node {
        Node::File { .. } => InodeKind::File,
        Node::Dir { .. } => InodeKind::Dir,
        Node::Symlink { .. } => InodeKind::Symlink,
        Node::Fifo => InodeKind::Fifo,
        Node::Socket => InodeKind::Socket,
        Node::CharDevice { .. } => InodeKind::CharDevice,
        Node::BlockDevice { .. } => InodeKind::BlockDevice,
    }
}
