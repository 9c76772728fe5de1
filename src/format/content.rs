//! Content: a list of chunk references, and the list objects that hold the references of long ones.
//!
//! A reference is a chunk id and the bytes below it. Level 0 names data chunks; level `n` names list
//! chunks of level `n - 1`. Up to 64 references stand where the content is named (an entry); more
//! go to list chunks, cut by content so that a change rewrites only its part.

use super::wire::{DecodeError, Reader, put_varint};
use crate::base::id::ChunkId;
use crate::base::limits;

/// References in a list chunk: at least.
pub const LIST_REFS_MIN: usize = 8;
/// References in a list chunk: at most.
pub const LIST_REFS_MAX: usize = 1024;
/// A list chunk ends behind a reference whose id's last byte, masked with this, is zero: 8
/// references on average above the minimum. Short lists, because each changed place of a file
/// rewrites a list of each level.
pub const LIST_CUT_MASK: u8 = 0x07;

/// One chunk and the number of content bytes that it (or what is below it) holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkRef {
    /// The chunk.
    pub id: ChunkId,
    /// Content bytes.
    pub len: u64,
}

/// Bytes kept as chunks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// 0: the references are data chunks; else list chunks of one level less.
    pub level: u8,
    /// In order. Empty for no bytes at all.
    pub refs: Vec<ChunkRef>,
}

impl Content {
    /// No bytes.
    pub const EMPTY: Self = Self { level: 0, refs: Vec::new() };

    /// Content bytes in all.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.refs.iter().fold(0, |sum, r| sum.saturating_add(r.len))
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.refs.is_empty()
    }

    /// Appends the encoding: level, count, and each reference.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.level);
        encode_refs(&self.refs, out);
    }

    /// Reads an encoding.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let level = reader.u8("content")?;
        if level > limits::LIST_LEVELS_MAX {
            return Err(DecodeError::Bound {
                what: "content level",
                found: u64::from(level),
                bound: u64::from(limits::LIST_LEVELS_MAX),
            });
        }
        let refs = decode_refs(reader, limits::INLINE_CHUNKS_MAX, level)?;
        if level > 0 && refs.is_empty() {
            return Err(DecodeError::Invalid { what: "content" });
        }
        Ok(Self { level, refs })
    }
}

/// A list chunk: references of the level below its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct List {
    /// 1 and up: the references name chunks of one level less.
    pub level: u8,
    /// In order, never empty.
    pub refs: Vec<ChunkRef>,
}

impl List {
    /// The list chunk's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.refs.len() * 36);
        out.push(self.level);
        encode_refs(&self.refs, &mut out);
        out
    }

    /// Reads a list chunk that was named at `level`.
    ///
    /// # Errors
    /// What is wrong with the bytes; another level than expected is [`DecodeError::Invalid`], so
    /// that no cycle is possible.
    pub fn decode(bytes: &[u8], level: u8) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8("list")? != level || level == 0 {
            return Err(DecodeError::Invalid { what: "list level" });
        }
        let refs = decode_refs(&mut reader, LIST_REFS_MAX, level - 1)?;
        reader.end("list")?;
        if refs.is_empty() {
            return Err(DecodeError::Invalid { what: "list" });
        }
        Ok(Self { level, refs })
    }
}

fn encode_refs(refs: &[ChunkRef], out: &mut Vec<u8>) {
    put_varint(out, refs.len() as u64);
    for r in refs {
        out.extend_from_slice(r.id.as_bytes());
        put_varint(out, r.len);
    }
}

fn decode_refs(
    reader: &mut Reader<'_>,
    max: usize,
    level: u8,
) -> Result<Vec<ChunkRef>, DecodeError> {
    let count = reader.count(max, ChunkId::LEN + 1, "chunk references")?;
    let bound = if level == 0 { limits::CHUNK_MAX as u64 } else { u64::MAX };
    let mut refs = Vec::with_capacity(count);
    let mut total = 0u64;
    for _ in 0..count {
        let id = ChunkId::from_array(reader.array("chunk id")?);
        let len = reader.bounded(bound, "chunk length")?;
        total = total
            .checked_add(len)
            .filter(|_| len > 0)
            .ok_or(DecodeError::Invalid { what: "chunk length" })?;
        refs.push(ChunkRef { id, len });
    }
    Ok(refs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refs(n: usize) -> Vec<ChunkRef> {
        (0..n)
            .map(|i| ChunkRef { id: ChunkId::from_array([i as u8; 32]), len: 1 + i as u64 * 1000 })
            .collect()
    }

    #[test]
    fn content_and_lists_round_trip() {
        for n in [0, 1, 64] {
            let content = Content { level: u8::from(n > 1), refs: refs(n) };
            let mut out = Vec::new();
            content.encode(&mut out);
            let mut reader = Reader::new(&out);
            assert_eq!(Content::decode(&mut reader), Ok(content));
            reader.end("content").unwrap();
        }
        let list = List { level: 2, refs: refs(300) };
        assert_eq!(List::decode(&list.encode(), 2), Ok(list.clone()));
        assert!(List::decode(&list.encode(), 1).is_err());
    }

    #[test]
    fn hostile_content_is_refused() {
        let mut out = Vec::new();
        Content { level: 0, refs: refs(65) }.encode(&mut out);
        assert!(Content::decode(&mut Reader::new(&out)).is_err(), "too many references");
        out.clear();
        let endless = ChunkRef { id: ChunkId::from_array([1; 32]), len: u64::MAX };
        Content { level: 1, refs: vec![endless, endless] }.encode(&mut out);
        assert!(Content::decode(&mut Reader::new(&out)).is_err(), "lengths overflow");
        out.clear();
        Content { level: 0, refs: vec![endless] }.encode(&mut out);
        assert!(Content::decode(&mut Reader::new(&out)).is_err(), "a chunk above its bound");
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let _ = Content::decode(&mut Reader::new(&bytes));
            let _ = List::decode(&bytes, 1);
        }
    }
}
