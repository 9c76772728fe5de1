//! `key`: the keys that open a repository.

mod paper;

use crate::base::id::KeyId;
use crate::base::secret::Password;
use crate::base::time::Timestamp;
use crate::host::entropy::Entropy;
use crate::store::repository::{KeySlot, Repository, RepositoryError};

pub use paper::{PaperError, from_text, to_paper};

/// Digits of a recovery key's alphabet: none that can be taken for another.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Groups of a recovery key, and characters of each: 150 bits.
const GROUPS: usize = 6;
const GROUP_LEN: usize = 5;

/// What went wrong with a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyVerbError {
    /// A repository without encryption has no keys.
    #[error("the repository is not encrypted: it has no keys")]
    NotEncrypted,
    /// No random bytes.
    #[error("no random bytes")]
    Entropy(#[source] std::io::Error),
    /// The exported key was not typed as it stands.
    #[error(transparent)]
    Paper(#[from] PaperError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// All keys; none without encryption.
///
/// # Errors
/// The repository's.
pub fn list(repository: &Repository) -> Result<Vec<KeySlot>, KeyVerbError> {
    if !repository.is_encrypted() {
        return Ok(Vec::new());
    }
    Ok(repository.slots()?)
}

/// Refuses a repository without keys, before anybody is asked for a password.
///
/// # Errors
/// [`KeyVerbError::NotEncrypted`].
pub fn has_keys(repository: &Repository) -> Result<(), KeyVerbError> {
    if repository.is_encrypted() { Ok(()) } else { Err(KeyVerbError::NotEncrypted) }
}

/// Adds a key, and opens it once before it is believed.
///
/// # Errors
/// [`KeyVerbError::NotEncrypted`], or the repository's.
pub fn add(
    repository: &Repository,
    password: &Password,
    label: &str,
    recovery: bool,
    now: Timestamp,
) -> Result<KeyId, KeyVerbError> {
    has_keys(repository)?;
    let id = repository.add_slot(password, label, recovery, now)?.id;
    repository.slot_of(password)?;
    Ok(id)
}

/// Gives the key that `old` opens a new password: a new key under the old label, then the old key
/// goes. Gives the new id and the old one.
///
/// # Errors
/// [`KeyVerbError::NotEncrypted`], or the repository's.
pub fn change(
    repository: &Repository,
    old: &Password,
    new: &Password,
    now: Timestamp,
) -> Result<(KeyId, KeyId), KeyVerbError> {
    has_keys(repository)?;
    let old_id = repository.slot_of(old)?;
    let slots = repository.slots()?;
    let label = slots
        .into_iter()
        .find(|slot| slot.id == old_id.to_hex())
        .and_then(|slot| slot.facts)
        .map(|facts| facts.label)
        .unwrap_or_default();
    let id = add(repository, new, &label, false, now)?;
    repository.remove_slot(&old_id.to_hex())?;
    Ok((id, old_id))
}

/// Draws a recovery key: six groups of five characters.
///
/// # Errors
/// [`KeyVerbError::Entropy`].
pub fn draw_recovery(entropy: &dyn Entropy) -> Result<zeroize::Zeroizing<String>, KeyVerbError> {
    let mut bytes = zeroize::Zeroizing::new([0; GROUPS * GROUP_LEN]);
    entropy.fill(&mut *bytes).map_err(KeyVerbError::Entropy)?;
    let mut text = zeroize::Zeroizing::new(String::with_capacity(GROUPS * (GROUP_LEN + 1)));
    for (at, byte) in bytes.iter().enumerate() {
        if at > 0 && at % GROUP_LEN == 0 {
            text.push('-');
        }
        text.push(char::from(ALPHABET[usize::from(byte % 32)]));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::entropy::SystemEntropy;

    #[test]
    fn a_recovery_key_can_be_read_aloud() {
        let key = draw_recovery(&SystemEntropy).unwrap();
        let groups: Vec<&str> = key.split('-').collect();
        assert_eq!(groups.len(), GROUPS);
        assert!(groups.iter().all(|g| g.len() == GROUP_LEN));
        assert!(key.bytes().all(|b| b == b'-' || ALPHABET.contains(&b)));
        assert_ne!(*key, *draw_recovery(&SystemEntropy).unwrap());
    }
}
