//! One type for each id space. There is no conversion between them, no `Default`, and no
//! construction from arbitrary bytes except by the names below, so that an id of one kind cannot
//! be used where another is meant.

use std::fmt;

/// Text that is not an id (or a prefix of one).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text has a character that is not a hexadecimal digit.
    #[error("not a hexadecimal id: {0:?}")]
    NotHex(String),
    /// The text is not as long as an id of this kind.
    #[error("an id has {expected} hexadecimal digits, this one has {found}")]
    Length {
        /// Digits that an id of this kind has.
        expected: usize,
        /// Digits found.
        found: usize,
    },
}

/// Writes bytes as lower-case hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for &byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads hexadecimal digits, in either case.
///
/// # Errors
/// [`IdError::NotHex`] for another character or an odd number of digits.
pub fn from_hex(text: &str) -> Result<Vec<u8>, IdError> {
    let digit = |c: u8| char::from(c).to_digit(16);
    let raw = text.as_bytes();
    let wrong = || IdError::NotHex(text.chars().take(80).collect());
    if !raw.len().is_multiple_of(2) {
        return Err(wrong());
    }
    let mut bytes = Vec::with_capacity(raw.len() / 2);
    for pair in raw.chunks_exact(2) {
        let high = digit(pair[0]).ok_or_else(wrong)?;
        let low = digit(pair[1]).ok_or_else(wrong)?;
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    Ok(bytes)
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Bytes in an id of this kind.
            pub const LEN: usize = $len;

            /// The id that was computed, drawn or decoded as these bytes.
            #[must_use]
            pub const fn from_array(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The id's bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// All digits of the id, lower-case.
            #[must_use]
            pub fn to_hex(&self) -> String {
                to_hex(&self.0)
            }

            /// The first ten digits, for people.
            #[must_use]
            pub fn short(&self) -> String {
                let mut text = self.to_hex();
                text.truncate(10);
                text
            }

            /// Reads a whole id.
            ///
            /// # Errors
            /// [`IdError`] where the text is not exactly one id of this kind.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let bytes = from_hex(text)?;
                let found = text.len();
                <[u8; $len]>::try_from(bytes)
                    .map(Self)
                    .map_err(|_| IdError::Length { expected: $len * 2, found })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.to_hex())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(d)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id_type!(
    /// A repository, drawn at `init`.
    RepoId, 16
);
id_type!(
    /// A chunk: keyed BLAKE3 of its bytes under the key of its kind.
    ChunkId, 32
);
id_type!(
    /// A pack: BLAKE3 of its bytes at rest.
    PackId, 32
);
id_type!(
    /// An index segment: BLAKE3 of its bytes at rest.
    SegmentId, 32
);
id_type!(
    /// A committed manifest, of a snapshot or of a capture: BLAKE3 of its bytes at rest.
    ManifestId, 32
);
id_type!(
    /// A note about a manifest: BLAKE3 of its bytes at rest.
    NoteId, 32
);
id_type!(
    /// A lease, drawn when it is taken.
    LeaseId, 16
);
id_type!(
    /// A key slot, drawn when it is made.
    KeyId, 16
);
id_type!(
    /// Keyed hash of all bytes of a file's data extents, in order.
    ContentHash, 32
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_as_text() {
        let id = LeaseId::from_array([0xab; 16]);
        assert_eq!(LeaseId::parse(&id.to_hex()), Ok(id));
        assert_eq!(LeaseId::parse(&id.to_hex().to_uppercase()), Ok(id));
        assert!(matches!(LeaseId::parse("abc"), Err(IdError::NotHex(_))));
        assert!(matches!(LeaseId::parse("zz"), Err(IdError::NotHex(_))));
        assert_eq!(LeaseId::parse("abcd"), Err(IdError::Length { expected: 32, found: 4 }));
    }
}
