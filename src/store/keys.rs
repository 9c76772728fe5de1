//! Keys: a password opens a slot, a slot holds the master key, the master key wraps the three
//! secrets of sealing, ids and cuts.

use argon2::{Algorithm, Argon2, Params, Version};

use crate::base::id::RepoId;
use crate::base::secret::{Password, SecretKey};
use crate::codec::seal::ObjectKey;
use crate::format::control::Derivation;
use crate::format::header::{ObjectKind, Suite};
use crate::host::entropy::Entropy;

/// What a new slot's key costs to derive: 64 MiB, three passes, one lane.
pub const DERIVATION: Derivation = Derivation { memory_kib: 64 << 10, passes: 3, lanes: 1 };

/// Bytes of a wrapped secret: salt, secret, tag.
const WRAPPED_LEN: usize = 32 + 32 + 16;

/// What went wrong with a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The parameters of the derivation are refused by Argon2.
    #[error("the key derivation's parameters are not usable")]
    Derivation,
    /// A wrapped secret does not open.
    #[error("the {0} secret does not open with the master key")]
    Unwrap(&'static str),
    /// No random bytes.
    #[error("no random bytes")]
    Entropy(#[source] std::io::Error),
}

/// The secrets that the master key wraps, each apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Seals records.
    Seal,
    /// Names chunks.
    Ids,
    /// Cuts chunks.
    Cuts,
}

impl Purpose {
    const fn word(self) -> &'static str {
        match self {
            Self::Seal => "sealing",
            Self::Ids => "id",
            Self::Cuts => "cut",
        }
    }

    const fn context(self) -> &'static str {
        match self {
            Self::Seal => "cabk 2026 v1 wrap: sealing secret",
            Self::Ids => "cabk 2026 v1 wrap: id secret",
            Self::Cuts => "cabk 2026 v1 wrap: cut secret",
        }
    }
}

/// Draws a secret.
///
/// # Errors
/// [`KeyError::Entropy`].
pub fn draw(entropy: &dyn Entropy) -> Result<SecretKey, KeyError> {
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes).map_err(KeyError::Entropy)?;
    Ok(SecretKey::new(bytes))
}

/// The key of a slot: Argon2id of the password. The bounds were checked when the slot was decoded.
///
/// # Errors
/// [`KeyError::Derivation`].
pub fn slot_key(
    password: &Password,
    salt: &[u8; 32],
    derivation: Derivation,
) -> Result<SecretKey, KeyError> {
    let wrong = |_| KeyError::Derivation;
    let params = Params::new(derivation.memory_kib, derivation.passes, derivation.lanes, Some(32))
        .map_err(wrong)?;
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut key = [0; 32];
    argon.hash_password_into(password.expose(), salt, &mut key).map_err(wrong)?;
    Ok(SecretKey::new(key))
}

/// What a slot shows in the clear of its key, so that two passwords can never both open it.
#[must_use]
pub fn commitment(slot_key: &SecretKey) -> [u8; 32] {
    blake3::derive_key("cabk 2026 v1 slot key commitment", slot_key.expose())
}

/// The secret under which the facts of all slots are sealed.
#[must_use]
pub fn facts_secret(master: &SecretKey) -> SecretKey {
    SecretKey::new(blake3::derive_key("cabk 2026 v1 facts of key slots", master.expose()))
}

/// The master key of a repository without encryption: known to everybody, so that its secrets and
/// checksums go the same way as those of an encrypted one.
#[must_use]
pub fn public_master(repo: &RepoId) -> SecretKey {
    SecretKey::new(blake3::derive_key(
        "cabk 2026 v1 master key without encryption",
        repo.as_bytes(),
    ))
}

fn wrapping(
    suite: Suite,
    master: &SecretKey,
    repo: &RepoId,
    purpose: Purpose,
    salt: &[u8; 32],
) -> ObjectKey {
    let secret = SecretKey::new(blake3::derive_key(purpose.context(), master.expose()));
    ObjectKey::new(suite, &secret, repo, ObjectKind::Config, salt, purpose.context().as_bytes())
}

/// Wraps a secret under the master key.
///
/// # Errors
/// [`KeyError::Entropy`].
pub fn wrap(
    suite: Suite,
    master: &SecretKey,
    repo: &RepoId,
    purpose: Purpose,
    secret: &SecretKey,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, KeyError> {
    let mut salt = [0; 32];
    entropy.fill(&mut salt).map_err(KeyError::Entropy)?;
    let mut sealed = secret.expose().to_vec();
    wrapping(suite, master, repo, purpose, &salt)
        .seal(0, &mut sealed)
        .map_err(|_| KeyError::Unwrap(purpose.word()))?;
    let mut out = salt.to_vec();
    out.extend_from_slice(&sealed);
    Ok(out)
}

/// Opens a wrapped secret.
///
/// # Errors
/// [`KeyError::Unwrap`].
pub fn unwrap(
    suite: Suite,
    master: &SecretKey,
    repo: &RepoId,
    purpose: Purpose,
    wrapped: &[u8],
) -> Result<SecretKey, KeyError> {
    let wrong = || KeyError::Unwrap(purpose.word());
    if wrapped.len() != WRAPPED_LEN {
        return Err(wrong());
    }
    let (salt, sealed) = wrapped.split_first_chunk::<32>().ok_or_else(wrong)?;
    let mut plain = zeroize::Zeroizing::new(sealed.to_vec());
    wrapping(suite, master, repo, purpose, salt).open(0, &mut plain).map_err(|_| wrong())?;
    let bytes: [u8; 32] = plain.as_slice().try_into().map_err(|_| wrong())?;
    Ok(SecretKey::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::entropy::SystemEntropy;

    #[test]
    fn secrets_open_only_for_their_purpose_and_master() {
        let repo = RepoId::from_array([1; 16]);
        let (master, other) = (SecretKey::new([2; 32]), SecretKey::new([3; 32]));
        for suite in [Suite::Aes256Gcm, Suite::Checksum] {
            let secret = draw(&SystemEntropy).unwrap();
            let wrapped =
                wrap(suite, &master, &repo, Purpose::Ids, &secret, &SystemEntropy).unwrap();
            let back = unwrap(suite, &master, &repo, Purpose::Ids, &wrapped).unwrap();
            assert_eq!(back.expose(), secret.expose());
            assert!(unwrap(suite, &master, &repo, Purpose::Cuts, &wrapped).is_err());
            assert!(unwrap(suite, &other, &repo, Purpose::Ids, &wrapped).is_err());
            assert!(unwrap(suite, &master, &repo, Purpose::Ids, &wrapped[..79]).is_err());
        }
    }

    #[test]
    fn a_slot_key_depends_on_password_and_salt() {
        let light = Derivation { memory_kib: 64, passes: 1, lanes: 1 };
        let key = |password: &str, salt| {
            slot_key(&Password::new(password.into()), &[salt; 32], light).unwrap()
        };
        assert_eq!(key("a", 1).expose(), key("a", 1).expose());
        assert_ne!(key("a", 1).expose(), key("b", 1).expose());
        assert_ne!(key("a", 1).expose(), key("a", 2).expose());
        assert_ne!(commitment(&key("a", 1)), commitment(&key("b", 1)));
    }
}
