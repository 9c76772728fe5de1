//! What every inode has, and its extended attributes.

use crate::base::limits;
use crate::base::time::Timestamp;
use crate::format::content::Content;
use crate::format::wire::{DecodeError, Reader, put_bytes, put_signed, put_varint};

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

/// Names and values, in ascending order of names.
pub type XattrList = Vec<(Vec<u8>, Vec<u8>)>;

/// Extended attributes, ACLs and capabilities among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Xattrs {
    /// Few: here, sorted by name.
    Inline(XattrList),
    /// More than 4 KiB: as content, in the encoding of [`encode_xattrs`].
    Content(Content),
}

impl Xattrs {
    /// None.
    pub const NONE: Self = Self::Inline(Vec::new());
}

const HAS_BTIME: u64 = 1;
const HAS_FLAGS: u64 = 2;
const HAS_PROJECT: u64 = 4;
const HAS_LINK: u64 = 8;
const HAS_XATTRS: u64 = 16;
const XATTRS_ARE_CONTENT: u64 = 32;
const KNOWN_BITS: u64 = 63;

impl Meta {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
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

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
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
pub fn decode_xattrs(bytes: &[u8]) -> Result<XattrList, DecodeError> {
    let mut reader = Reader::new(bytes);
    let count = reader.count(64 << 10, 2, "attributes")?;
    let mut list: XattrList = Vec::with_capacity(count);
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
