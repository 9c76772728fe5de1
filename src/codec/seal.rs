//! Sealing: what makes a record secret (unless the repository has no encryption) and impossible to
//! change, move or swap unnoticed.
//!
//! An object's key is BLAKE3 `derive_key` of the repository's sealing secret and the object's
//! random salt, under the context of its kind. The nonce is the record's number: each number is
//! used once for one key. Associated data are the repository, the object's clear front (kind,
//! version, features, epoch, salt) and the record's number.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce, Tag};

use crate::base::id::RepoId;
use crate::base::secret::SecretKey;
use crate::format::header::{ObjectKind, Suite};

/// Bytes by which a sealed record is longer than its plain bytes.
pub const TAG_LEN: usize = 16;

/// A record that does not open: damaged, moved, swapped, or sealed under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record {record} does not authenticate")]
pub struct SealError {
    /// The record's number.
    pub record: u64,
}

enum Key {
    Aes(Box<Aes256Gcm>),
    Checksum(SecretKey),
}

/// Seals and opens the records of one object.
pub struct ObjectKey {
    key: Key,
    bound: blake3::Hash,
}

impl ObjectKey {
    /// The key of the object of `kind` with `salt`; `clear` are the object's clear bytes (its
    /// header and what else stands in front), which every record is bound to.
    #[must_use]
    pub fn new(
        suite: Suite,
        secret: &SecretKey,
        repo: &RepoId,
        kind: ObjectKind,
        salt: &[u8; 32],
        clear: &[u8],
    ) -> Self {
        let mut material = [0; 64];
        material[..32].copy_from_slice(secret.expose());
        material[32..].copy_from_slice(salt);
        let derived = SecretKey::new(blake3::derive_key(kind.key_context(), &material));
        zeroize::Zeroize::zeroize(&mut material);
        let key = match suite {
            Suite::Aes256Gcm => Key::Aes(Box::new(Aes256Gcm::new(derived.expose().into()))),
            Suite::Checksum => Key::Checksum(derived),
        };
        let bound = blake3::Hasher::new().update(repo.as_bytes()).update(clear).finalize();
        Self { key, bound }
    }

    /// Seals `buffer` in place: it grows by [`TAG_LEN`]. The caller uses each number once, which
    /// [`RecordSealer`] sees to for objects of many records.
    ///
    /// # Errors
    /// [`SealError`] where the primitive refuses (more than 64 GiB).
    pub fn seal(&self, record: u64, buffer: &mut Vec<u8>) -> Result<(), SealError> {
        let aad = self.aad(record);
        match &self.key {
            Key::Aes(cipher) => {
                let tag = cipher
                    .encrypt_inout_detached(&nonce(record), &aad, buffer.as_mut_slice().into())
                    .map_err(|_| SealError { record })?;
                buffer.extend_from_slice(&tag);
            }
            Key::Checksum(key) => {
                let sum = checksum(key, &aad, buffer);
                buffer.extend_from_slice(&sum);
            }
        }
        Ok(())
    }

    /// Opens a sealed record in place: it shrinks by [`TAG_LEN`].
    ///
    /// # Errors
    /// [`SealError`]; the buffer then holds nothing that may be used.
    pub fn open(&self, record: u64, buffer: &mut Vec<u8>) -> Result<(), SealError> {
        let wrong = SealError { record };
        let split = buffer.len().checked_sub(TAG_LEN).ok_or(wrong)?;
        let aad = self.aad(record);
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&buffer[split..]);
        buffer.truncate(split);
        match &self.key {
            Key::Aes(cipher) => cipher
                .decrypt_inout_detached(
                    &nonce(record),
                    &aad,
                    buffer.as_mut_slice().into(),
                    &Tag::from(tag),
                )
                .map_err(|_| wrong),
            Key::Checksum(key) => {
                if checksum(key, &aad, buffer) == tag {
                    Ok(())
                } else {
                    Err(wrong)
                }
            }
        }
    }

    /// Seals `plain` behind what `out` holds: as [`Self::seal`], with the plain bytes left as they
    /// are, so that what was sealed can be compared with them.
    fn seal_behind(&self, record: u64, plain: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let aad = self.aad(record);
        match &self.key {
            Key::Aes(cipher) => {
                let wrong = SealError { record };
                let from = out.len();
                out.resize(from + plain.len(), 0);
                let buffer = InOutBuf::new(plain, &mut out[from..]).map_err(|_| wrong)?;
                let tag = cipher
                    .encrypt_inout_detached(&nonce(record), &aad, buffer)
                    .map_err(|_| wrong)?;
                out.extend_from_slice(&tag);
            }
            Key::Checksum(key) => {
                out.extend_from_slice(plain);
                out.extend_from_slice(&checksum(key, &aad, plain));
            }
        }
        Ok(())
    }

    /// Whether a sealed record opens to exactly `plain`. `scratch` only spares an allocation.
    fn opens_to(&self, record: u64, sealed: &[u8], plain: &[u8], scratch: &mut Vec<u8>) -> bool {
        let Some((body, tag)) = sealed.split_last_chunk::<TAG_LEN>() else { return false };
        if body.len() != plain.len() {
            return false;
        }
        let aad = self.aad(record);
        match &self.key {
            Key::Aes(cipher) => {
                if scratch.len() < body.len() {
                    scratch.resize(body.len(), 0);
                }
                let opened = &mut scratch[..body.len()];
                let Ok(buffer) = InOutBuf::new(body, opened) else { return false };
                cipher
                    .decrypt_inout_detached(&nonce(record), &aad, buffer, &Tag::from(*tag))
                    .is_ok()
                    && opened == plain
            }
            Key::Checksum(key) => checksum(key, &aad, body) == *tag && body == plain,
        }
    }

    fn aad(&self, record: u64) -> [u8; 40] {
        let mut aad = [0; 40];
        aad[..32].copy_from_slice(self.bound.as_bytes());
        aad[32..].copy_from_slice(&record.to_le_bytes());
        aad
    }
}

fn nonce(record: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&record.to_le_bytes());
    bytes.into()
}

fn checksum(key: &SecretKey, aad: &[u8], bytes: &[u8]) -> [u8; TAG_LEN] {
    let sum = blake3::Hasher::new_keyed(key.expose()).update(aad).update(bytes).finalize();
    let mut out = [0; TAG_LEN];
    out.copy_from_slice(&sum.as_bytes()[..TAG_LEN]);
    out
}

/// Seals records one after the other and opens each again before its plain bytes are let go.
pub struct RecordSealer {
    key: ObjectKey,
    next: u64,
}

impl RecordSealer {
    /// Starts at record 0.
    #[must_use]
    pub fn new(key: ObjectKey) -> Self {
        Self { key, next: 0 }
    }

    /// Seals `plain` behind what `out` holds, under the next number, opens it into `scratch` and
    /// compares all bytes.
    ///
    /// # Errors
    /// [`SealError`] where what comes back is not what went in: memory or processor are at fault,
    /// and the whole object must be given up, because the number has been used.
    pub fn seal(
        &mut self,
        plain: &[u8],
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
    ) -> Result<u64, SealError> {
        let record = self.next;
        self.next += 1;
        self.seal_as(record, plain, out, scratch)?;
        Ok(record)
    }

    /// Seals the object's last record under a number that the sequence never reaches.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn seal_last(
        self,
        record: u64,
        plain: &[u8],
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        if record < self.next {
            return Err(SealError { record });
        }
        self.seal_as(record, plain, out, scratch)
    }

    fn seal_as(
        &self,
        record: u64,
        plain: &[u8],
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let from = out.len();
        self.key.seal_behind(record, plain, out)?;
        let same = self.key.opens_to(record, &out[from..], plain, scratch);
        if same { Ok(()) } else { Err(SealError { record }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(suite: Suite, salt: u8, kind: ObjectKind) -> ObjectKey {
        let secret = SecretKey::new([1; 32]);
        ObjectKey::new(suite, &secret, &RepoId::from_array([2; 16]), kind, &[salt; 32], b"front")
    }

    #[test]
    fn records_open_only_where_they_belong() {
        for suite in [Suite::Aes256Gcm, Suite::Checksum] {
            let mut sealer = RecordSealer::new(key(suite, 0, ObjectKind::Pack));
            let mut sealed = b"in front".to_vec();
            let mut scratch = vec![7; 100];
            assert_eq!(sealer.seal(b"some plain bytes", &mut sealed, &mut scratch), Ok(0));
            let record = sealed.split_off(8);
            assert_eq!((&sealed[..], record.len()), (&b"in front"[..], 16 + TAG_LEN));
            let mut in_place = b"some plain bytes".to_vec();
            key(suite, 0, ObjectKind::Pack).seal(0, &mut in_place).unwrap();
            assert_eq!(in_place, record);
            let open = |key: &ObjectKey, number, bytes: &[u8]| {
                let mut copy = bytes.to_vec();
                key.open(number, &mut copy).map(|()| copy)
            };
            let right = key(suite, 0, ObjectKind::Pack);
            assert_eq!(open(&right, 0, &record).unwrap(), b"some plain bytes");
            assert!(open(&right, 1, &record).is_err(), "another position");
            assert!(open(&key(suite, 1, ObjectKind::Pack), 0, &record).is_err(), "another salt");
            let other = key(suite, 0, ObjectKind::Snapshot);
            assert!(open(&other, 0, &record).is_err(), "another kind");
            for at in 0..record.len() {
                let mut flipped = record.clone();
                flipped[at] ^= 1;
                assert!(open(&right, 0, &flipped).is_err(), "byte {at}");
            }
            assert!(open(&right, 0, &record[..10]).is_err());
            let opens =
                |sealed: &[u8], plain: &[u8]| right.opens_to(0, sealed, plain, &mut Vec::new());
            assert!(opens(&record, b"some plain bytes"));
            assert!(!opens(&record, b"some other bytes"));
            assert!(!opens(&record, b"some plain byte"));
            assert!(!opens(&in_place[1..], b"some plain bytes"));
            in_place[3] ^= 1;
            assert!(!opens(&in_place, b"some plain bytes"));
        }
    }

    #[test]
    fn a_number_is_used_once() {
        let mut sealer = RecordSealer::new(key(Suite::Aes256Gcm, 0, ObjectKind::Pack));
        let (mut a, mut b, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        assert_eq!(sealer.seal(&[1], &mut a, &mut scratch), Ok(0));
        assert_eq!(sealer.seal(&[1], &mut b, &mut scratch), Ok(1));
        assert_ne!(a, b);
        assert!(sealer.seal_last(1, &[2], &mut a, &mut scratch).is_err());
    }
}
