//! Trees: entries, and the pages that hold a directory's entries.
//!
//! A page of level 0 holds entries in strictly ascending order of their names' bytes; a page of
//! level `n` names pages of level `n - 1` with the first name of each. A directory is named by the
//! chunk id of its top page. Equal directories have equal pages and thus equal ids.
//!
//! inode, device and change time are not part of a tree: they say nothing about what is restored.

use super::content::Content;
use super::wire::{DecodeError, Reader, put_bytes, put_signed, put_varint};
use crate::base::id::{ChunkId, ContentHash};
use crate::base::limits;
use crate::base::path::is_name;
use crate::base::time::Timestamp;

/// Entries in a page: at least, before a cut is looked for.
pub const PAGE_NAMES_MIN: usize = 64;
/// Entries in a page: at most, whatever the names.
pub const PAGE_NAMES_CUT: usize = 4096;
/// A page ends behind an entry whose name's hash, masked with this, is zero: 256 entries on
/// average above the minimum.
pub const PAGE_CUT_MASK: u32 = 0xff;

/// What every inode has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Permission bits, 07777.
    pub mode: u32,
    /// Owner by number; the manifest has the names.
    pub uid: u32,
    /// Group by number; the manifest has the names.
    pub gid: u32,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Birth. Recorded; nothing can set it.
    pub btime: Option<Timestamp>,
    /// Inode flags that can be set.
    pub flags: Option<u32>,
    /// Project id, where not 0.
    pub project: Option<u32>,
    /// Hard-link group within this snapshot: entries with the same number are one inode.
    pub link: Option<u64>,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// Extended attributes, ACLs and capabilities among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Xattrs {
    /// Few: here, sorted by name.
    Inline(Vec<(Vec<u8>, Vec<u8>)>),
    /// More than 4 KiB: as content, in the encoding of [`encode_xattrs`].
    Content(Content),
}

impl Xattrs {
    /// None.
    pub const NONE: Self = Self::Inline(Vec::new());
}

/// One stretch of a file that is not a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Allocated but never written; has no bytes in the content.
    pub unwritten: bool,
}

/// Which parts of a file are data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Layout {
    /// All of it.
    Dense,
    /// These stretches; the content is their data, one behind the other.
    Sparse {
        /// The stretches, or the content that holds their encoding ([`encode_stretches`]).
        map: StretchMap,
        /// Whether the file system could tell unwritten stretches from data.
        exact: bool,
    },
}

/// A map of stretches, here or as content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StretchMap {
    /// Few.
    Inline(Vec<Stretch>),
    /// More than 64.
    Content(Content),
}

/// What an inode is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// A regular file.
    File {
        /// Bytes, holes included.
        size: u64,
        /// Its data.
        content: Content,
        /// Keyed hash of all its data, however it is represented.
        hash: ContentHash,
        /// Which parts are data.
        layout: Layout,
    },
    /// A directory.
    Dir {
        /// Its top page; `None` where it is empty.
        tree: Option<ChunkId>,
        /// Only the way to a source: its other entries are not part of the snapshot.
        partial: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Major and minor number.
        rdev: (u32, u32),
    },
    /// A block device.
    BlockDevice {
        /// Major and minor number.
        rdev: (u32, u32),
    },
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The name; empty only for the root of a snapshot.
    pub name: Vec<u8>,
    /// What every inode has.
    pub meta: Meta,
    /// What it is.
    pub node: Node,
}

/// One page of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Page {
    /// Entries.
    Leaf(Vec<Entry>),
    /// Pages below.
    Inner {
        /// 1 and up.
        level: u8,
        /// In order of names.
        pages: Vec<PageRef>,
    },
}

/// A page as the page above names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageRef {
    /// The first name below.
    pub first: Vec<u8>,
    /// The page.
    pub id: ChunkId,
    /// Entries below.
    pub entries: u64,
}

const HAS_BTIME: u64 = 1;
const HAS_FLAGS: u64 = 2;
const HAS_PROJECT: u64 = 4;
const HAS_LINK: u64 = 8;
const HAS_XATTRS: u64 = 16;
const XATTRS_ARE_CONTENT: u64 = 32;
const KNOWN_BITS: u64 = 63;

/// How a file's content is kept. Raw is all there is yet; an archive's recipe will be another.
const REPRESENTATION_RAW: u64 = 0;

impl Entry {
    /// Whether the hash is not written because it equals the only chunk's id, which is made under
    /// the same key, or because there is no data at all.
    fn hash_is_implied(content: &Content) -> bool {
        content.level == 0 && content.refs.len() <= 1
    }

    /// Appends the entry, without a length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(match &self.node {
            Node::File { .. } => 1,
            Node::Dir { .. } => 2,
            Node::Symlink { .. } => 3,
            Node::Fifo => 4,
            Node::Socket => 5,
            Node::CharDevice { .. } => 6,
            Node::BlockDevice { .. } => 7,
        });
        put_bytes(out, &self.name);
        self.meta.encode(out);
        match &self.node {
            Node::File { size, content, hash, layout } => {
                put_varint(out, *size);
                put_varint(out, REPRESENTATION_RAW);
                content.encode(out);
                if !Self::hash_is_implied(content) {
                    out.extend_from_slice(hash.as_bytes());
                }
                encode_layout(layout, out);
            }
            Node::Dir { tree, partial } => {
                out.push(u8::from(tree.is_some()) | u8::from(*partial) << 1);
                if let Some(tree) = tree {
                    out.extend_from_slice(tree.as_bytes());
                }
            }
            Node::Symlink { target } => put_bytes(out, target),
            Node::CharDevice { rdev } | Node::BlockDevice { rdev } => {
                put_varint(out, u64::from(rdev.0));
                put_varint(out, u64::from(rdev.1));
            }
            Node::Fifo | Node::Socket => {}
        }
    }

    /// Reads an entry out of its own bytes.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8], empty: &ContentHash) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8("entry")?;
        let name = reader.bytes(255, "entry name")?.to_vec();
        let meta = Meta::decode(&mut reader)?;
        let node = decode_node(kind, &mut reader, empty)?;
        reader.end("entry")?;
        Ok(Self { name, meta, node })
    }
}

fn decode_node(
    kind: u8,
    reader: &mut Reader<'_>,
    empty: &ContentHash,
) -> Result<Node, DecodeError> {
    let rdev = |reader: &mut Reader<'_>| -> Result<(u32, u32), DecodeError> {
        let max = u64::from(u32::MAX);
        let major = reader.bounded(max, "device number")? as u32;
        Ok((major, reader.bounded(max, "device number")? as u32))
    };
    Ok(match kind {
        1 => decode_file(reader, empty)?,
        2 => {
            let bits = reader.u8("directory")?;
            let tree = match bits & 1 {
                0 => None,
                _ => Some(ChunkId::from_array(reader.array("tree id")?)),
            };
            if bits > 3 {
                return Err(DecodeError::Invalid { what: "directory" });
            }
            Node::Dir { tree, partial: bits & 2 != 0 }
        }
        3 => Node::Symlink { target: reader.bytes(4096, "link target")?.to_vec() },
        4 => Node::Fifo,
        5 => Node::Socket,
        6 => Node::CharDevice { rdev: rdev(reader)? },
        7 => Node::BlockDevice { rdev: rdev(reader)? },
        _ => return Err(DecodeError::Invalid { what: "entry type" }),
    })
}

fn decode_file(reader: &mut Reader<'_>, empty: &ContentHash) -> Result<Node, DecodeError> {
    let size = reader.bounded(i64::MAX as u64, "file size")?;
    if reader.varint("representation")? != REPRESENTATION_RAW {
        return Err(DecodeError::Invalid { what: "representation of a file" });
    }
    let content = Content::decode(reader)?;
    let hash = match (Entry::hash_is_implied(&content), content.refs.first()) {
        (true, Some(only)) => ContentHash::from_array(*only.id.as_bytes()),
        (true, None) => *empty,
        (false, _) => ContentHash::from_array(reader.array("content hash")?),
    };
    let layout = decode_layout(reader, size, content.len())?;
    Ok(Node::File { size, content, hash, layout })
}

impl Meta {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.mode));
        put_varint(out, u64::from(self.uid));
        put_varint(out, u64::from(self.gid));
        put_time(out, self.mtime);
        let inline_none = matches!(&self.xattrs, Xattrs::Inline(list) if list.is_empty());
        let mut bits = 0;
        for (has, bit) in [
            (self.btime.is_some(), HAS_BTIME),
            (self.flags.is_some(), HAS_FLAGS),
            (self.project.is_some(), HAS_PROJECT),
            (self.link.is_some(), HAS_LINK),
            (!inline_none, HAS_XATTRS),
            (matches!(self.xattrs, Xattrs::Content(_)), XATTRS_ARE_CONTENT),
        ] {
            bits |= if has { bit } else { 0 };
        }
        put_varint(out, bits);
        if let Some(time) = self.btime {
            put_time(out, time);
        }
        for word in [self.flags, self.project].into_iter().flatten() {
            put_varint(out, u64::from(word));
        }
        if let Some(link) = self.link {
            out.extend_from_slice(&link.to_le_bytes());
        }
        match &self.xattrs {
            Xattrs::Inline(list) if list.is_empty() => {}
            Xattrs::Inline(list) => put_bytes(out, &encode_xattrs(list)),
            Xattrs::Content(content) => content.encode(out),
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let word = u64::from(u32::MAX);
        let mode = reader.bounded(0o7777, "mode")? as u32;
        let uid = reader.bounded(word, "uid")? as u32;
        let gid = reader.bounded(word, "gid")? as u32;
        let mtime = read_time(reader)?;
        let bits = reader.bounded(KNOWN_BITS, "entry bits")?;
        let has = |bit| bits & bit != 0;
        let btime = if has(HAS_BTIME) { Some(read_time(reader)?) } else { None };
        let mut maybe = |bit, what| -> Result<Option<u32>, DecodeError> {
            if has(bit) { Ok(Some(reader.bounded(word, what)? as u32)) } else { Ok(None) }
        };
        let flags = maybe(HAS_FLAGS, "flags")?;
        let project = maybe(HAS_PROJECT, "project")?;
        let link = if has(HAS_LINK) { Some(reader.u64("link group")?) } else { None };
        let xattrs = if has(XATTRS_ARE_CONTENT) {
            Xattrs::Content(Content::decode(reader)?)
        } else if has(HAS_XATTRS) {
            Xattrs::Inline(decode_xattrs(reader.bytes(limits::ENTRY_MAX, "attributes")?)?)
        } else {
            Xattrs::NONE
        };
        Ok(Self { mode, uid, gid, mtime, btime, flags, project, link, xattrs })
    }
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    put_signed(out, time.secs);
    put_varint(out, u64::from(time.nanos));
}

fn read_time(reader: &mut Reader<'_>) -> Result<Timestamp, DecodeError> {
    let secs = reader.signed("time")?;
    Ok(Timestamp { secs, nanos: reader.bounded(999_999_999, "time")? as u32 })
}

/// Extended attributes as bytes: a count, then name and value of each.
#[must_use]
pub fn encode_xattrs(list: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, list.len() as u64);
    for (name, value) in list {
        put_bytes(&mut out, name);
        put_bytes(&mut out, value);
    }
    out
}

/// Reads extended attributes; names must ascend.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode_xattrs(bytes: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let count = reader.count(64 << 10, 2, "attributes")?;
    let mut list: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(count);
    for _ in 0..count {
        let name = reader.bytes(255, "attribute name")?.to_vec();
        let value = reader.bytes(limits::XATTR_TOTAL_MAX, "attribute value")?.to_vec();
        if name.is_empty() || name.contains(&0) || list.last().is_some_and(|(n, _)| *n >= name) {
            return Err(DecodeError::Invalid { what: "attribute name" });
        }
        list.push((name, value));
    }
    reader.end("attributes")?;
    Ok(list)
}

fn encode_layout(layout: &Layout, out: &mut Vec<u8>) {
    match layout {
        Layout::Dense => out.push(0),
        Layout::Sparse { map, exact } => {
            let content = matches!(map, StretchMap::Content(_));
            out.push(1 | u8::from(*exact) << 1 | u8::from(content) << 2);
            match map {
                StretchMap::Inline(list) => put_bytes(out, &encode_stretches(list)),
                StretchMap::Content(content) => content.encode(out),
            }
        }
    }
}

fn decode_layout(reader: &mut Reader<'_>, size: u64, data: u64) -> Result<Layout, DecodeError> {
    let bits = reader.u8("file layout")?;
    let exact = bits & 2 != 0;
    match bits {
        0 if data == size => Ok(Layout::Dense),
        1 | 3 => {
            let list = decode_stretches(reader.bytes(limits::ENTRY_MAX, "file layout")?, size)?;
            if list.len() > limits::INLINE_EXTENTS_MAX || data_len(&list) != data {
                return Err(DecodeError::Invalid { what: "file layout" });
            }
            Ok(Layout::Sparse { map: StretchMap::Inline(list), exact })
        }
        5 | 7 => Ok(Layout::Sparse { map: StretchMap::Content(Content::decode(reader)?), exact }),
        _ => Err(DecodeError::Invalid { what: "file layout" }),
    }
}

/// Bytes of data in a map.
#[must_use]
pub fn data_len(list: &[Stretch]) -> u64 {
    list.iter().filter(|s| !s.unwritten).map(|s| s.len).sum()
}

/// A map of stretches as bytes: a count, then of each the gap in front of it and twice its length,
/// plus one where it is unwritten.
#[must_use]
pub fn encode_stretches(list: &[Stretch]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, list.len() as u64);
    let mut end = 0;
    for s in list {
        put_varint(&mut out, s.offset.saturating_sub(end));
        put_varint(&mut out, s.len << 1 | u64::from(s.unwritten));
        end = s.offset.saturating_add(s.len);
    }
    out
}

/// Reads a map; data must end within the file's size.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode_stretches(bytes: &[u8], size: u64) -> Result<Vec<Stretch>, DecodeError> {
    const WRONG: DecodeError = DecodeError::Invalid { what: "map of stretches" };
    let mut reader = Reader::new(bytes);
    let count = reader.count(limits::EXTENT_MAP_MAX / 2, 2, "stretches")?;
    let mut list = Vec::with_capacity(count);
    let mut end = 0u64;
    for _ in 0..count {
        let gap = reader.varint("stretch")?;
        let raw = reader.varint("stretch")?;
        let (len, unwritten) = (raw >> 1, raw & 1 == 1);
        let offset = end.checked_add(gap).ok_or(WRONG)?;
        end = offset.checked_add(len).filter(|e| *e <= i64::MAX as u64).ok_or(WRONG)?;
        if len == 0 || (!unwritten && end > size) {
            return Err(WRONG);
        }
        list.push(Stretch { offset, len, unwritten });
    }
    reader.end("map of stretches")?;
    Ok(list)
}

impl Page {
    /// The page's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Leaf(entries) => {
                out.push(0);
                put_varint(&mut out, entries.len() as u64);
                let mut one = Vec::new();
                for entry in entries {
                    one.clear();
                    entry.encode(&mut one);
                    put_bytes(&mut out, &one);
                }
            }
            Self::Inner { level, pages } => {
                out.push(*level);
                put_varint(&mut out, pages.len() as u64);
                for page in pages {
                    put_bytes(&mut out, &page.first);
                    out.extend_from_slice(page.id.as_bytes());
                    put_varint(&mut out, page.entries);
                }
            }
        }
        out
    }

    /// Reads a page. `level` is that at which the page above named it, `None` for a top page, so
    /// that no cycle is possible. `empty` is the keyed hash of no data.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(
        bytes: &[u8],
        level: Option<u8>,
        empty: &ContentHash,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let found = reader.u8("page level")?;
        if level.is_some_and(|l| l != found) || found > limits::PAGE_LEVELS_MAX {
            return Err(DecodeError::Invalid { what: "page level" });
        }
        let page = if found == 0 {
            Self::Leaf(decode_leaf(&mut reader, empty)?)
        } else {
            Self::Inner { level: found, pages: decode_inner(&mut reader)? }
        };
        reader.end("page")?;
        Ok(page)
    }
}

fn decode_leaf(reader: &mut Reader<'_>, empty: &ContentHash) -> Result<Vec<Entry>, DecodeError> {
    let count = reader.count(limits::PAGE_NAMES_MAX, 8, "page entries")?;
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    for _ in 0..count {
        let entry = Entry::decode(reader.bytes(limits::ENTRY_MAX, "entry")?, empty)?;
        check_name(&entry.name, entries.last().map(|e| &e.name[..]))?;
        entries.push(entry);
    }
    Ok(entries)
}

fn decode_inner(reader: &mut Reader<'_>) -> Result<Vec<PageRef>, DecodeError> {
    let count = reader.count(limits::PAGE_NAMES_MAX, 34, "page references")?;
    let mut pages: Vec<PageRef> = Vec::with_capacity(count);
    for _ in 0..count {
        let first = reader.bytes(255, "name")?.to_vec();
        check_name(&first, pages.last().map(|p| &p.first[..]))?;
        let id = ChunkId::from_array(reader.array("page id")?);
        pages.push(PageRef { first, id, entries: reader.varint("entries")? });
    }
    if pages.is_empty() {
        return Err(DecodeError::Invalid { what: "page references" });
    }
    Ok(pages)
}

fn check_name(name: &[u8], previous: Option<&[u8]>) -> Result<(), DecodeError> {
    if is_name(name) && previous.is_none_or(|p| p < name) {
        Ok(())
    } else {
        Err(DecodeError::Invalid { what: "name" })
    }
}

#[cfg(test)]
mod tests;
