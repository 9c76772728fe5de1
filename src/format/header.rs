//! The 64 bytes with which every object begins.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic, one for each kind of object |
//! | 8 | 2 | format version |
//! | 10 | 1 | suite: 1 AES-256-GCM, 0 checksums only |
//! | 11 | 1 | zero |
//! | 12 | 4 | key epoch |
//! | 16 | 8 | features needed to read |
//! | 24 | 8 | features needed to delete |
//! | 32 | 32 | salt of this object's key |
//!
//! All words are little-endian.

use super::wire::{DecodeError, Reader};

/// Bytes of a header.
pub const HEADER_LEN: usize = 64;
/// The format version that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u16 = 1;
/// Features needed to read that this program knows. None is defined yet.
pub const KNOWN_READ_FEATURES: u64 = 0;
/// Features needed to delete that this program knows. None is defined yet.
pub const KNOWN_DELETE_FEATURES: u64 = 0;

/// The kinds of objects, each with a magic and a key derivation of its own, so that no object can
/// pass for one of another kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ObjectKind {
    /// The repository's configuration.
    Config,
    /// A key slot.
    KeySlot,
    /// A pack of chunks.
    Pack,
    /// An index segment.
    Segment,
    /// A snapshot's manifest.
    Snapshot,
    /// A capture's manifest.
    Capture,
    /// A lease.
    Lease,
    /// The record that ends a lease.
    LeaseEnd,
    /// A generation of what is to be deleted.
    Condemned,
    /// A note about a manifest.
    Note,
}

impl ObjectKind {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Config,
        Self::KeySlot,
        Self::Pack,
        Self::Segment,
        Self::Snapshot,
        Self::Capture,
        Self::Lease,
        Self::LeaseEnd,
        Self::Condemned,
        Self::Note,
    ];

    /// The first eight bytes of an object of this kind.
    #[must_use]
    pub const fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Config => b"cabkCONF",
            Self::KeySlot => b"cabkKEYS",
            Self::Pack => b"cabkPACK",
            Self::Segment => b"cabkINDX",
            Self::Snapshot => b"cabkSNAP",
            Self::Capture => b"cabkCAPT",
            Self::Lease => b"cabkLEAS",
            Self::LeaseEnd => b"cabkLEND",
            Self::Condemned => b"cabkCOND",
            Self::Note => b"cabkNOTE",
        }
    }

    /// The kind in words, with its article.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Config => "a configuration",
            Self::KeySlot => "a key slot",
            Self::Pack => "a pack",
            Self::Segment => "an index segment",
            Self::Snapshot => "a snapshot",
            Self::Capture => "a capture",
            Self::Lease => "a lease",
            Self::LeaseEnd => "the end of a lease",
            Self::Condemned => "a generation",
            Self::Note => "a note",
        }
    }

    /// The context string under which an object's key is derived (BLAKE3 `derive_key`).
    #[must_use]
    pub const fn key_context(self) -> &'static str {
        match self {
            Self::Config => "cabk 2026 v1 object key: configuration",
            Self::KeySlot => "cabk 2026 v1 object key: key slot",
            Self::Pack => "cabk 2026 v1 object key: pack",
            Self::Segment => "cabk 2026 v1 object key: index segment",
            Self::Snapshot => "cabk 2026 v1 object key: snapshot manifest",
            Self::Capture => "cabk 2026 v1 object key: capture manifest",
            Self::Lease => "cabk 2026 v1 object key: lease",
            Self::LeaseEnd => "cabk 2026 v1 object key: lease end",
            Self::Condemned => "cabk 2026 v1 object key: condemned generation",
            Self::Note => "cabk 2026 v1 object key: note",
        }
    }
}

/// How records are protected.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Suite {
    /// Keyed BLAKE3 checksums, no secrecy (`init --no-encryption`).
    Checksum,
    /// AES-256-GCM.
    Aes256Gcm,
}

/// A decoded header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// What kind of object this is.
    pub kind: ObjectKind,
    /// How its records are protected.
    pub suite: Suite,
    /// Which of the repository's sealing secrets.
    pub epoch: u32,
    /// Feature bits that a reader must know.
    pub needs_read: u64,
    /// Feature bits that whoever deletes must know.
    pub needs_delete: u64,
    /// Makes the object's key its own.
    pub salt: [u8; 32],
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(self.kind.magic());
        out[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[10] = match self.suite {
            Suite::Checksum => 0,
            Suite::Aes256Gcm => 1,
        };
        out[12..16].copy_from_slice(&self.epoch.to_le_bytes());
        out[16..24].copy_from_slice(&self.needs_read.to_le_bytes());
        out[24..32].copy_from_slice(&self.needs_delete.to_le_bytes());
        out[32..].copy_from_slice(&self.salt);
        out
    }

    /// Reads the header of an object of a known kind.
    ///
    /// # Errors
    /// [`DecodeError::Magic`] for another kind, [`DecodeError::Newer`] and
    /// [`DecodeError::Features`] for what a newer program wrote, or what is wrong with the bytes.
    pub fn decode(bytes: &[u8], kind: ObjectKind) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.array::<8>("header")? != *kind.magic() {
            return Err(DecodeError::Magic { expected: kind.words() });
        }
        let version = reader.u16("header")?;
        if version > FORMAT_VERSION {
            return Err(DecodeError::Newer { found: version, known: FORMAT_VERSION });
        }
        let suite = match reader.u8("header")? {
            0 => Suite::Checksum,
            1 => Suite::Aes256Gcm,
            _ => return Err(DecodeError::Invalid { what: "the header's suite" }),
        };
        if version == 0 || reader.u8("header")? != 0 {
            return Err(DecodeError::Invalid { what: "the header" });
        }
        let epoch = reader.u32("header")?;
        let needs_read = reader.u64("header")?;
        let needs_delete = reader.u64("header")?;
        let salt = reader.array("header")?;
        let unknown = needs_read & !KNOWN_READ_FEATURES;
        if unknown != 0 {
            return Err(DecodeError::Features { unknown });
        }
        Ok(Self { kind, suite, epoch, needs_read, needs_delete, salt })
    }

    /// Feature bits that stand in the way of deleting anything while this object is there.
    #[must_use]
    pub fn unknown_delete_features(&self) -> u64 {
        self.needs_delete & !KNOWN_DELETE_FEATURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            kind: ObjectKind::Pack,
            suite: Suite::Aes256Gcm,
            epoch: 7,
            needs_read: 0,
            needs_delete: 1 << 40,
            salt: [9; 32],
        }
    }

    #[test]
    fn headers_round_trip() {
        let bytes = header().encode();
        assert_eq!(Header::decode(&bytes, ObjectKind::Pack), Ok(header()));
        assert_eq!(header().unknown_delete_features(), 1 << 40);
    }

    #[test]
    fn another_kind_a_newer_version_and_unknown_features_are_told_apart() {
        let bytes = header().encode();
        assert!(matches!(
            Header::decode(&bytes, ObjectKind::Snapshot),
            Err(DecodeError::Magic { .. })
        ));
        let mut newer = bytes;
        newer[8] = 2;
        assert_eq!(
            Header::decode(&newer, ObjectKind::Pack),
            Err(DecodeError::Newer { found: 2, known: 1 })
        );
        let mut features = bytes;
        features[16] = 4;
        assert_eq!(
            Header::decode(&features, ObjectKind::Pack),
            Err(DecodeError::Features { unknown: 4 })
        );
        assert!(Header::decode(&bytes[..63], ObjectKind::Pack).is_err());
    }

    #[test]
    fn magics_and_contexts_are_all_different() {
        for a in ObjectKind::ALL {
            for b in ObjectKind::ALL {
                assert_eq!(a == b, a.magic() == b.magic());
                assert_eq!(a == b, a.key_context() == b.key_context());
            }
        }
    }
}
