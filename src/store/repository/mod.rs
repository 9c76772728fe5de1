//! A repository that is open: its storage, its parameters, its secrets; and its control objects.

mod open;
mod slots;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use open::{InitOptions, Opened, Unlock, init, open};
pub use slots::{KeySlot, SlotChange, parse_master};

use super::cut::Cutter;
use super::keys::KeyError;
use super::naming::Namer;
use crate::backend::{Backend, BackendError, ObjectName, Space};
use crate::base::id::RepoId;
use crate::base::limits;
use crate::base::secret::SecretKey;
use crate::codec::seal::{ObjectKey, SealError};
use crate::format::DecodeError;
use crate::format::control::{ConfigBody, Control, from_body, to_body};
use crate::format::header::{Header, ObjectKind, Suite};
use crate::host::entropy::Entropy;

/// What went wrong with a repository or one of its control objects.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// The storage.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A control object would be larger than it could be read again.
    #[error("the {what} would have {bytes} bytes, more than can be read again")]
    TooLarge {
        /// Its kind.
        what: &'static str,
        /// Plain bytes of its body.
        bytes: usize,
    },
    /// An object is damaged.
    #[error("{object} is damaged")]
    Damaged {
        /// The object.
        object: String,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// An object does not authenticate: altered, swapped, or of another repository.
    #[error("{object} does not authenticate")]
    Forged {
        /// The object.
        object: String,
        /// The record.
        source: SealError,
    },
    /// Written by a newer version of cabk.
    #[error("{object} was written by a newer version of cabk")]
    Newer {
        /// The object.
        object: String,
        /// What is unknown.
        source: DecodeError,
    },
    /// No key slot opens with the password.
    #[error("the password opens none of the {slots} keys of this repository")]
    WrongKey {
        /// Slots tried.
        slots: usize,
    },
    /// The exported key is not that of this repository.
    #[error("the key is not of this repository")]
    WrongMaster,
    /// The repository is encrypted and no password was given.
    #[error("the repository is encrypted")]
    NeedsKey,
    /// No configuration, or no key slot, can be read.
    #[error("no {0} can be read")]
    Nothing(&'static str),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The last key slot would go.
    #[error("the last key cannot be removed")]
    LastKey,
    /// There is no such key slot.
    #[error("there is no key {0}")]
    NoSuchKey(String),
    /// Chunk sizes or another parameter out of bounds.
    #[error("the parameter {0} is out of bounds")]
    Parameter(&'static str),
}

impl RepositoryError {
    /// A decoding error of an object, told apart by whether a newer cabk would understand.
    #[must_use]
    pub fn decoding(object: &ObjectName, source: DecodeError) -> Self {
        let object = object.to_string();
        match source {
            DecodeError::Newer { .. } | DecodeError::Features { .. } => {
                Self::Newer { object, source }
            }
            source => Self::Damaged { object, source },
        }
    }
}

/// An open repository. Cheap to share; all methods take `&self`.
pub struct Repository {
    backend: Arc<dyn Backend>,
    entropy: Arc<dyn Entropy>,
    id: RepoId,
    suite: Suite,
    config: ConfigBody,
    master: SecretKey,
    seals: BTreeMap<u32, SecretKey>,
    namer: Namer,
    cutter: Cutter,
}

impl Repository {
    /// The storage.
    #[must_use]
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// The storage, to be shared with a thread.
    #[must_use]
    pub fn shared_backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.backend)
    }

    /// The repository's id.
    #[must_use]
    pub fn id(&self) -> &RepoId {
        &self.id
    }

    /// Whether records are secret.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.suite == Suite::Aes256Gcm
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &ConfigBody {
        &self.config
    }

    /// Names chunks.
    #[must_use]
    pub fn namer(&self) -> &Namer {
        &self.namer
    }

    /// Cuts chunks.
    #[must_use]
    pub fn cutter(&self) -> &Cutter {
        &self.cutter
    }

    /// Random bytes.
    #[must_use]
    pub fn entropy(&self) -> &dyn Entropy {
        &*self.entropy
    }

    /// A header for a new object, with a salt of its own.
    ///
    /// # Errors
    /// [`KeyError::Entropy`].
    pub fn new_header(&self, kind: ObjectKind) -> Result<Header, KeyError> {
        let mut salt = [0; 32];
        self.entropy.fill(&mut salt).map_err(KeyError::Entropy)?;
        Ok(Header {
            kind,
            suite: self.suite,
            epoch: self.config.epoch,
            needs_read: 0,
            needs_delete: 0,
            salt,
        })
    }

    /// The key of an object with this header; `clear` are its clear bytes, the header among them.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] where the header names an epoch or a suite that this repository
    /// does not have.
    pub fn object_key(&self, header: &Header, clear: &[u8]) -> Result<ObjectKey, DecodeError> {
        let secret = self
            .seals
            .get(&header.epoch)
            .filter(|_| header.suite == self.suite)
            .ok_or(DecodeError::Invalid { what: "key epoch" })?;
        Ok(ObjectKey::new(header.suite, secret, &self.id, header.kind, &header.salt, clear))
    }

    /// The bytes of a new control object.
    ///
    /// # Errors
    /// [`RepositoryError::Key`] without random bytes.
    pub fn seal_control<T: Serialize>(
        &self,
        kind: ObjectKind,
        body: &T,
    ) -> Result<Vec<u8>, RepositoryError> {
        let header = self.new_header(kind)?;
        let control = Control { header, repo: self.id, slot: None, sealed: Vec::new() };
        let lost = |source| RepositoryError::Damaged { object: kind.words().into(), source };
        let mut control = control;
        let plain = to_body(body).map_err(lost)?;
        let mut sealed = pack_body(&plain);
        self.object_key(&control.header, &control.clear())
            .map_err(lost)?
            .seal(0, &mut sealed)
            .map_err(|source| RepositoryError::Forged { object: kind.words().into(), source })?;
        control.sealed = sealed;
        let bytes = control.encode();
        // What could not be read again is not written.
        if plain.len() > BODY_PLAIN_MAX || bytes.len() as u64 > object_max(kind) {
            return Err(RepositoryError::TooLarge { what: kind.words(), bytes: plain.len() });
        }
        Ok(bytes)
    }

    /// Opens the bytes of a control object.
    ///
    /// # Errors
    /// Damage, forgery, or a newer version.
    pub fn open_control<T: for<'de> Deserialize<'de>>(
        &self,
        name: &ObjectName,
        kind: ObjectKind,
        bytes: &[u8],
    ) -> Result<T, RepositoryError> {
        let wrong = |source| RepositoryError::decoding(name, source);
        let control = Control::decode(bytes, kind).map_err(wrong)?;
        if control.repo != self.id {
            return Err(wrong(DecodeError::Invalid { what: "repository id" }));
        }
        let key = self.object_key(&control.header, &control.clear()).map_err(wrong)?;
        let mut body = control.sealed;
        key.open(0, &mut body)
            .map_err(|source| RepositoryError::Forged { object: name.to_string(), source })?;
        from_body(&unpack_body(&body).map_err(wrong)?, kind.words()).map_err(wrong)
    }

    /// Reads and opens a control object.
    ///
    /// # Errors
    /// The storage's, damage, forgery, or a newer version.
    pub fn get_control<T: for<'de> Deserialize<'de>>(
        &self,
        name: &ObjectName,
        kind: ObjectKind,
    ) -> Result<T, RepositoryError> {
        self.open_control(name, kind, &self.backend.get(name, object_max(kind))?)
    }

    /// Bytes of all objects.
    ///
    /// # Errors
    /// The storage's.
    pub fn stored_bytes(&self) -> Result<u64, BackendError> {
        let mut sum = 0u64;
        for space in Space::ALL {
            sum += self.backend.list(space)?.iter().map(|(_, len)| len).sum::<u64>();
        }
        Ok(sum)
    }
}

/// Bytes that a control object of a kind may have.
fn object_max(kind: ObjectKind) -> u64 {
    match kind {
        ObjectKind::Snapshot | ObjectKind::Capture => limits::MANIFEST_MAX,
        _ => limits::CONTROL_MAX,
    }
}

/// Bodies above this many bytes are compressed.
const PACK_BODY_ABOVE: usize = 1024;
/// Plain bytes of a body at most.
const BODY_PLAIN_MAX: usize = 256 << 20;

/// A body with its leading byte: 0 as it is, 1 a zstd frame.
pub(crate) fn pack_body(plain: &[u8]) -> Vec<u8> {
    if plain.len() > PACK_BODY_ABOVE
        && let Ok(packed) = zstd::bulk::compress(plain, 3)
        && packed.len() < plain.len()
    {
        return [&[1], &packed[..]].concat();
    }
    [&[0], plain].concat()
}

/// The inverse of [`pack_body`].
pub(crate) fn unpack_body(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let wrong = DecodeError::Invalid { what: "body" };
    match bytes.split_first() {
        Some((0, plain)) => Ok(plain.to_vec()),
        Some((1, packed)) => {
            let len = zstd::zstd_safe::get_frame_content_size(packed)
                .ok()
                .flatten()
                .and_then(|n| usize::try_from(n).ok())
                .filter(|n| *n <= BODY_PLAIN_MAX)
                .ok_or(wrong.clone())?;
            zstd::bulk::decompress(packed, len).map_err(|_| wrong)
        }
        _ => Err(wrong),
    }
}

#[cfg(test)]
mod tests;
