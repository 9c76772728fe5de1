//! Compression of blocks: zstd, with the inverse checked before the plain bytes are let go.

use std::io::{self, Cursor};

use zstd::zstd_safe::{CParameter, DParameter};

use crate::base::limits;
use crate::format::pack::Packing;

/// What went wrong with a block's bytes.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// zstd refused.
    #[error("zstd failed")]
    Zstd(#[source] io::Error),
    /// Unpacking does not give what was packed.
    #[error("unpacked bytes differ from what was packed")]
    Differs,
    /// The plain bytes are not as many as the table says.
    #[error("a block unpacks to {found} bytes, its table says {expected}")]
    Length {
        /// Bytes that came out.
        found: usize,
        /// Bytes that the table promises.
        expected: usize,
    },
}

/// How much a block is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// zstd level.
    pub level: i32,
    /// Look for matches over the whole block (long-distance matching), for blocks above 1 MiB.
    pub long: bool,
}

/// Packs blocks; keeps zstd's contexts from block to block.
pub struct Compressor {
    effort: Effort,
    packer: zstd::bulk::Compressor<'static>,
    unpacker: Decompressor,
}

impl Compressor {
    /// A packer of this effort.
    ///
    /// # Errors
    /// [`CompressError::Zstd`] where zstd refuses the parameters.
    pub fn new(effort: Effort) -> Result<Self, CompressError> {
        let mut packer = zstd::bulk::Compressor::new(effort.level).map_err(CompressError::Zstd)?;
        let mut set = |parameter| packer.set_parameter(parameter).map_err(CompressError::Zstd);
        set(CParameter::ContentSizeFlag(true))?;
        set(CParameter::ChecksumFlag(false))?;
        if effort.long {
            set(CParameter::EnableLongDistanceMatching(true))?;
            set(CParameter::WindowLog(22))?;
        }
        Ok(Self { effort, packer, unpacker: Decompressor::new()? })
    }

    /// The effort.
    #[must_use]
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// Packs `plain` behind what `out` holds, unpacks the result into `scratch` and compares, so that
    /// neither a fault of memory nor one of zstd reaches the repository. Bytes that do not shrink
    /// stay as they are.
    ///
    /// # Errors
    /// [`CompressError::Differs`], or what zstd says.
    pub fn pack(
        &mut self,
        plain: &[u8],
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
    ) -> Result<Packing, CompressError> {
        let from = out.len();
        out.reserve_exact(zstd::zstd_safe::compress_bound(plain.len()));
        let mut behind = Cursor::new(&mut *out);
        behind.set_position(from as u64);
        let packed =
            self.packer.compress_to_buffer(plain, &mut behind).map_err(CompressError::Zstd)?;
        if packed + 16 >= plain.len() {
            out.truncate(from);
            out.extend_from_slice(plain);
            return Ok(Packing::Plain);
        }
        self.unpacker.unpack(Packing::Zstd, &out[from..], plain.len(), scratch)?;
        if *scratch != plain {
            return Err(CompressError::Differs);
        }
        Ok(Packing::Zstd)
    }
}

/// Unpacks blocks.
pub struct Decompressor {
    context: zstd::bulk::Decompressor<'static>,
}

impl Decompressor {
    /// A new context.
    ///
    /// # Errors
    /// [`CompressError::Zstd`].
    pub fn new() -> Result<Self, CompressError> {
        let mut context = zstd::bulk::Decompressor::new().map_err(CompressError::Zstd)?;
        context
            .set_parameter(DParameter::WindowLogMax(limits::ZSTD_WINDOW_LOG_MAX))
            .map_err(CompressError::Zstd)?;
        Ok(Self { context })
    }

    /// Unpacks a body to exactly `expected` bytes, which the caller has held against its bound.
    ///
    /// # Errors
    /// [`CompressError::Length`], or what zstd says.
    pub fn unpack(
        &mut self,
        packing: Packing,
        body: &[u8],
        expected: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CompressError> {
        out.clear();
        let found = match packing {
            Packing::Plain => {
                out.extend_from_slice(body);
                body.len()
            }
            Packing::Zstd => {
                out.reserve_exact(expected);
                self.context.decompress_to_buffer(body, out).map_err(CompressError::Zstd)?
            }
        };
        if found == expected { Ok(()) } else { Err(CompressError::Length { found, expected }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize) -> Vec<u8> {
        let mut out = vec![0; n];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn blocks_come_back_as_they_went() {
        for effort in [Effort { level: 3, long: false }, Effort { level: 3, long: true }] {
            let mut packer = Compressor::new(effort).unwrap();
            let mut unpacker = Decompressor::new().unwrap();
            let mut scratch = Vec::new();
            for plain in [vec![], vec![7; 4 << 20], noise(1 << 20)] {
                let mut body = b"front".to_vec();
                let packing = packer.pack(&plain, &mut body, &mut scratch).unwrap();
                assert_eq!(packing == Packing::Zstd, plain.len() == 4 << 20);
                assert!(body.starts_with(b"front"));
                let mut out = Vec::new();
                unpacker.unpack(packing, &body[5..], plain.len(), &mut out).unwrap();
                assert_eq!(out, plain);
            }
        }
    }

    #[test]
    fn a_bomb_and_a_wrong_length_are_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        let mut unpacker = Decompressor::new().unwrap();
        let mut out = Vec::new();
        assert!(unpacker.unpack(Packing::Zstd, &bomb, 1 << 20, &mut out).is_err());
        assert!(out.capacity() < 4 << 20, "no more memory than promised");
        let small = zstd::bulk::compress(&[1; 1000], 3).unwrap();
        assert!(unpacker.unpack(Packing::Zstd, &small, 1001, &mut out).is_err());
        assert!(unpacker.unpack(Packing::Plain, b"abc", 4, &mut out).is_err());
        assert!(unpacker.unpack(Packing::Zstd, b"no frame", 4, &mut out).is_err());
    }
}
