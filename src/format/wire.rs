//! The primitive encodings: little-endian words, LEB128 varints, length-prefixed bytes.

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("{what} is truncated")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// Bytes are left over.
    #[error("{what} is followed by {extra} bytes that do not belong to it")]
    Trailing {
        /// What had been read.
        what: &'static str,
        /// How many bytes are left.
        extra: usize,
    },
    /// A length or count is above its bound.
    #[error("{what} is {found}, above the bound of {bound}")]
    Bound {
        /// What was being read.
        what: &'static str,
        /// The value found.
        found: u64,
        /// The highest value accepted.
        bound: u64,
    },
    /// A value that has no meaning.
    #[error("{what} is not valid")]
    Invalid {
        /// What was being read.
        what: &'static str,
    },
    /// Another kind of object, or no object of ours.
    #[error("this is not {expected}")]
    Magic {
        /// What was expected.
        expected: &'static str,
    },
    /// A newer version than this program knows.
    #[error("format version {found} is newer than this program knows ({known})")]
    Newer {
        /// The version found.
        found: u16,
        /// The newest version known.
        known: u16,
    },
    /// Feature bits that this program does not know.
    #[error("needs features that this program does not know (bits {unknown:#x})")]
    Features {
        /// The unknown bits.
        unknown: u64,
    },
    /// A checksum does not match.
    #[error("{what} has a wrong checksum")]
    Checksum {
        /// What was being read.
        what: &'static str,
    },
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed varint (zig-zag).
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends bytes behind their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads the primitive encodings out of a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Takes `len` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        if len > self.rest.len() {
            return Err(DecodeError::Truncated { what });
        }
        let (head, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(head)
    }

    /// Takes a fixed number of bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated { what })?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(what)?[0])
    }

    /// A little-endian word of 16 bits.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    /// A little-endian word of 32 bits.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// A little-endian word of 64 bits.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A varint in its shortest form.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`]; [`DecodeError::Invalid`] for a longer form than needed or one
    /// above 64 bits.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(DecodeError::Invalid { what });
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                if part == 0 && shift > 0 {
                    return Err(DecodeError::Invalid { what });
                }
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid { what })
    }

    /// A varint of at most `bound`.
    ///
    /// # Errors
    /// As [`Self::varint`], and [`DecodeError::Bound`].
    pub fn bounded(&mut self, bound: u64, what: &'static str) -> Result<u64, DecodeError> {
        let found = self.varint(what)?;
        if found > bound { Err(DecodeError::Bound { what, found, bound }) } else { Ok(found) }
    }

    /// A count of things that take at least `least` bytes each: never more than can follow, so that
    /// memory for them may be set aside.
    ///
    /// # Errors
    /// As [`Self::bounded`], and [`DecodeError::Truncated`].
    pub fn count(
        &mut self,
        bound: usize,
        least: usize,
        what: &'static str,
    ) -> Result<usize, DecodeError> {
        let found = self.bounded(bound as u64, what)? as usize;
        if found.saturating_mul(least) > self.rest.len() {
            return Err(DecodeError::Truncated { what });
        }
        Ok(found)
    }

    /// A signed varint.
    ///
    /// # Errors
    /// As [`Self::varint`].
    pub fn signed(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let raw = self.varint(what)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// Bytes behind their length, at most `bound`.
    ///
    /// # Errors
    /// As [`Self::bounded`] and [`Self::take`].
    pub fn bytes(&mut self, bound: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.bounded(bound as u64, what)? as usize;
        self.take(len, what)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] where bytes are left.
    pub fn end(self, what: &'static str) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing { what, extra: self.rest.len() })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_round_trip(value: u64, signed: i64, bytes: Vec<u8>) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            put_signed(&mut out, signed);
            put_bytes(&mut out, &bytes);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint("v"), Ok(value));
            prop_assert_eq!(reader.signed("s"), Ok(signed));
            prop_assert_eq!(reader.bytes(1 << 20, "b"), Ok(&bytes[..]));
            prop_assert_eq!(reader.end("all"), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.varint("v").is_ok() {}
        }
    }

    #[test]
    fn only_the_shortest_form_is_accepted() {
        assert!(Reader::new(&[0x80, 0x00]).varint("v").is_err());
        assert!(Reader::new(&[0xff; 11]).varint("v").is_err());
        assert_eq!(Reader::new(&[0xff; 3]).varint("v"), Err(DecodeError::Truncated { what: "v" }));
        let mut most = vec![0xff; 9];
        most.push(1);
        assert_eq!(Reader::new(&most).varint("v"), Ok(u64::MAX));
        *most.last_mut().unwrap() = 2;
        assert!(Reader::new(&most).varint("v").is_err());
    }
}
