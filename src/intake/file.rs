//! Reading one inode: a regular file with its map and attributes, or what is not a regular file.

use std::io;

use super::digest;
use super::stream::{Stored, StreamError, Streamer};
use crate::base::limits;
use crate::format::content::Content;
use crate::format::pack::Class;
use crate::format::tree::{
    Entry, Layout, Meta, Node, Stretch, StretchMap, Xattrs, encode_stretches, encode_xattrs,
};
use crate::host::fs::{Attributes, ExtentKind, ExtentMap, InodeKind, SourceDir, SourceFile, Stat};
use crate::store::writer::{Worker, WriteError};

/// How often a file that changes while it is read is read again.
const RETRIES: u32 = 3;

/// Why an inode could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// The source: a problem of this file, and the run goes on.
    #[error("{action}")]
    Source {
        /// What was tried.
        action: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// It is not what it was when its directory was looked at.
    #[error("turned into something else while it was read")]
    Replaced,
    /// The way to rest: the run ends.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn at(action: &'static str) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Source { action, source }
}

/// What reading gave beside the entry.
#[derive(Default)]
pub(super) struct Remarks {
    /// Problems of attributes and the like, each a sentence.
    pub(super) problems: Vec<String>,
    /// The file still changed in the last attempt: what was kept is of no single moment.
    pub(super) changed: bool,
}

/// What is the same for all files of a directory.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// The file system's name.
    pub(super) volume: &'a str,
    /// The class by path.
    pub(super) class: Class,
}

/// The metadata of an inode.
pub(super) fn meta(
    stat: &Stat,
    attributes: Attributes,
    around: Surroundings<'_>,
    worker: &mut Worker<'_>,
    streamer: &mut Streamer<'_>,
    remarks: &mut Remarks,
) -> Result<Meta, FileError> {
    for (what, kind) in &attributes.unread {
        remarks.problems.push(format!("{what} could not be read: {kind}"));
    }
    streamer.acls(&attributes.xattrs);
    let encoded = encode_xattrs(&attributes.xattrs);
    let xattrs = if encoded.len() <= limits::INLINE_XATTR_MAX {
        Xattrs::Inline(attributes.xattrs)
    } else {
        Xattrs::Content(store_bytes(&encoded, around.class, worker, streamer)?.content)
    };
    let linked = stat.nlink > 1 && stat.kind != InodeKind::Dir;
    let namer = worker.repository().namer();
    Ok(Meta {
        mode: stat.mode & 0o7777,
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
        btime: stat.btime,
        flags: attributes.flags.filter(|f| *f != 0),
        project: attributes.project.filter(|p| *p != 0),
        link: linked.then(|| digest::link_group(namer, around.volume, stat.ino)),
        xattrs,
    })
}

fn store_bytes(
    bytes: &[u8],
    class: Class,
    worker: &mut Worker<'_>,
    streamer: &mut Streamer<'_>,
) -> Result<Stored, FileError> {
    let mut rest = bytes;
    let stored = streamer.store(worker, class, bytes.len() as u64, &mut |out| {
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        rest = &rest[n..];
        Ok(n)
    });
    stored.map_err(stream_error)
}

fn stream_error(error: StreamError) -> FileError {
    match error {
        StreamError::Read(source) => FileError::Source { action: "cannot be read", source },
        StreamError::Write(error) => FileError::Write(error),
    }
}

/// Reads what is neither a regular file nor a directory. Never opens it.
pub(super) fn special(
    dir: &dyn SourceDir,
    name: &[u8],
    stat: &Stat,
    around: Surroundings<'_>,
    worker: &mut Worker<'_>,
    streamer: &mut Streamer<'_>,
    remarks: &mut Remarks,
) -> Result<Entry, FileError> {
    let node = match stat.kind {
        InodeKind::Symlink => {
            Node::Symlink { target: dir.read_link(name).map_err(at("the link cannot be read"))? }
        }
        InodeKind::Fifo => Node::Fifo,
        InodeKind::Socket => Node::Socket,
        InodeKind::CharDevice => Node::CharDevice { rdev: stat.rdev },
        InodeKind::BlockDevice => Node::BlockDevice { rdev: stat.rdev },
        InodeKind::File | InodeKind::Dir => return Err(FileError::Replaced),
    };
    let attributes = dir.attributes(name).map_err(at("its attributes cannot be read"))?;
    let meta = meta(stat, attributes, around, worker, streamer, remarks)?;
    Ok(Entry { name: name.to_vec(), meta, node })
}

/// Reads a regular file. A file that changes while it is read is read again, a bounded number of
/// times; the last attempt is kept and said to have changed.
pub(super) fn regular(
    dir: &dyn SourceDir,
    name: &[u8],
    scanned: &Stat,
    around: Surroundings<'_>,
    worker: &mut Worker<'_>,
    streamer: &mut Streamer<'_>,
    remarks: &mut Remarks,
) -> Result<Entry, FileError> {
    let mut attempt = 0;
    loop {
        let file = dir.open_file(name).map_err(at("cannot be opened"))?;
        let before = file.stat().map_err(at("cannot be looked at"))?;
        if before.kind != InodeKind::File || (before.dev, before.ino) != (scanned.dev, scanned.ino)
        {
            return Err(FileError::Replaced);
        }
        let attributes = file.attributes().map_err(at("its attributes cannot be read"))?;
        let (node, read) = content(&*file, &before, around.class, worker, streamer)?;
        let after = file.stat().map_err(at("cannot be looked at"))?;
        let same = (before.size, before.mtime, before.ctime)
            == (after.size, after.mtime, after.ctime)
            && read == before.size;
        if !same && attempt < RETRIES {
            attempt += 1;
            continue;
        }
        remarks.changed = !same;
        let meta = meta(&after, attributes, around, worker, streamer, remarks)?;
        return Ok(Entry { name: name.to_vec(), meta, node });
    }
}

/// Keeps a file's data and map. The second value is the size that was seen: less than the inode's
/// where the file shrank meanwhile.
fn content(
    file: &dyn SourceFile,
    stat: &Stat,
    class: Class,
    worker: &mut Worker<'_>,
    streamer: &mut Streamer<'_>,
) -> Result<(Node, u64), FileError> {
    let map = file.extents(stat).map_err(at("its map cannot be read"))?;
    if is_dense(&map, stat.size) {
        let mut offset = 0;
        let stored = streamer
            .store(worker, class, stat.size, &mut |out| {
                let left = stat.size - offset;
                let want = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
                let n = if want == 0 { 0 } else { file.read_at(&mut out[..want], offset)? };
                offset += n as u64;
                Ok(n)
            })
            .map_err(stream_error)?;
        let Stored { content, hash } = stored;
        let size = content.len();
        return Ok((Node::File { size, content, hash, layout: Layout::Dense }, size));
    }
    sparse(file, stat, map, class, worker, streamer)
}

fn is_dense(map: &ExtentMap, size: u64) -> bool {
    match map.extents.as_slice() {
        [] => size == 0,
        [only] => only.offset == 0 && only.len == size && only.kind == ExtentKind::Data,
        _ => false,
    }
}

fn sparse(
    file: &dyn SourceFile,
    stat: &Stat,
    map: ExtentMap,
    class: Class,
    worker: &mut Worker<'_>,
    streamer: &mut Streamer<'_>,
) -> Result<(Node, u64), FileError> {
    let mut stretches: Vec<Stretch> = map
        .extents
        .iter()
        .map(|e| Stretch {
            offset: e.offset,
            len: e.len,
            unwritten: e.kind == ExtentKind::Unwritten,
        })
        .collect();
    let total: u64 = stretches.iter().filter(|s| !s.unwritten).map(|s| s.len).sum();
    let data: Vec<Stretch> = stretches.iter().copied().filter(|s| !s.unwritten).collect();
    let mut at_stretch = 0;
    let mut within = 0;
    let mut short = false;
    let stored = streamer
        .store(worker, class, total, &mut |out| {
            let Some(s) = data.get(at_stretch).filter(|_| !short) else { return Ok(0) };
            let want = usize::try_from(s.len - within).unwrap_or(usize::MAX).min(out.len());
            let n = file.read_at(&mut out[..want], s.offset + within)?;
            short = n < want;
            within += n as u64;
            if within == s.len {
                (at_stretch, within) = (at_stretch + 1, 0);
            }
            Ok(n)
        })
        .map_err(stream_error)?;
    let mut seen = stat.size;
    if short {
        // The file shrank: keep what was read, so that map and content fit each other.
        seen = data.get(at_stretch).map_or(0, |s| s.offset + within);
        clip(&mut stretches, seen);
    }
    let map_of = if stretches.len() <= limits::INLINE_EXTENTS_MAX {
        StretchMap::Inline(stretches)
    } else {
        let bytes = encode_stretches(&stretches);
        StretchMap::Content(store_bytes(&bytes, class, worker, streamer)?.content)
    };
    let layout = Layout::Sparse { map: map_of, exact: map.exact };
    let Stored { content, hash } = stored;
    Ok((Node::File { size: seen, content, hash, layout }, seen))
}

fn clip(stretches: &mut Vec<Stretch>, size: u64) {
    stretches.retain_mut(|s| {
        s.len = s.len.min(size.saturating_sub(s.offset));
        s.len > 0
    });
}

/// All chunk references of an entry's own content, map and attributes, one content each.
pub(super) fn contents(entry: &Entry) -> Vec<&Content> {
    let mut all = Vec::new();
    if let Xattrs::Content(content) = &entry.meta.xattrs {
        all.push(content);
    }
    if let Node::File { content, layout, .. } = &entry.node {
        all.push(content);
        if let Layout::Sparse { map: StretchMap::Content(content), .. } = layout {
            all.push(content);
        }
    }
    all
}
