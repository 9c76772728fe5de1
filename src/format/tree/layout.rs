//! Which parts of a file are data, which are holes, and which were allocated but never written.

use crate::base::limits;
use crate::format::content::Content;
use crate::format::wire::{DecodeError, Reader, put_bytes, put_varint};

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

pub(super) fn encode_layout(layout: &Layout, out: &mut Vec<u8>) {
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

pub(super) fn decode_layout(
    reader: &mut Reader<'_>,
    size: u64,
    data: u64,
) -> Result<Layout, DecodeError> {
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
