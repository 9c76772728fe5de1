//! Key slots: each holds the master key under a password of its own, in two copies.

use super::{Repository, RepositoryError, pack_body, unpack_body};
use crate::backend::{Backend, BackendError, Copy2, ObjectName, Space};
use crate::base::id::{KeyId, to_hex};
use crate::base::limits;
use crate::base::secret::{Password, SecretKey};
use crate::base::time::Timestamp;
use crate::codec::seal::ObjectKey;
use crate::format::DecodeError;
use crate::format::control::{
    Control, HexBytes, SlotBody, SlotClear, SlotFacts, from_body, to_body,
};
use crate::format::header::{Header, ObjectKind, Suite};
use crate::store::keys;

/// A slot as it lies in the repository.
pub(super) struct SealedSlot {
    id: String,
    control: Control,
}

/// What is known of a slot to whoever opened the repository by any of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeySlot {
    /// The slot's id, as its objects are named.
    pub id: String,
    /// Label, date and whether it is a recovery key; `None` where they do not authenticate.
    pub facts: Option<SlotFacts>,
}

/// What adding a slot made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotChange {
    /// The new slot.
    pub id: KeyId,
}

/// Reads one good copy of each slot; names of damaged or missing copies go to `damaged`.
pub(super) fn read_slots(
    backend: &dyn Backend,
    damaged: &mut Vec<String>,
) -> Result<Vec<SealedSlot>, RepositoryError> {
    let mut ids: Vec<String> = backend
        .list(Space::Keys)?
        .iter()
        .filter_map(|(name, _)| Some(name.name().split_once('.')?.0.to_owned()))
        .collect();
    ids.dedup();
    let mut slots = Vec::new();
    let mut last = RepositoryError::Nothing("key slot");
    for id in ids {
        let Ok(key_id) = KeyId::parse(&id) else { continue };
        let mut good = None;
        for copy in Copy2::BOTH {
            let name = ObjectName::key(&key_id, copy);
            let read = backend
                .get(&name, limits::CONTROL_MAX)
                .map_err(RepositoryError::from)
                .and_then(|bytes| {
                    Control::decode(&bytes, ObjectKind::KeySlot)
                        .map_err(|source| RepositoryError::decoding(&name, source))
                });
            match read {
                Ok(control) => good = good.or(Some(control)),
                Err(error) => {
                    damaged.push(name.to_string());
                    last = error;
                }
            }
        }
        slots.extend(good.map(|control| SealedSlot { id, control }));
    }
    if slots.is_empty() { Err(last) } else { Ok(slots) }
}

impl SealedSlot {
    /// The master key and the slot's body, where the password is this slot's.
    pub(super) fn open(
        &self,
        password: &Password,
    ) -> Result<Option<(SecretKey, SlotBody)>, RepositoryError> {
        let clear = self.control.slot.as_ref().ok_or(RepositoryError::Nothing("key slot"))?;
        let key = keys::slot_key(password, &self.control.header.salt, clear.derivation)?;
        if keys::commitment(&key) != clear.commitment {
            return Ok(None);
        }
        let object = format!("keys/{}", self.id);
        let mut body = zeroize::Zeroizing::new(self.control.sealed.clone());
        slot_object_key(&self.control, &key)
            .open(0, &mut body)
            .map_err(|source| RepositoryError::Forged { object: object.clone(), source })?;
        let wrong = |source: DecodeError| RepositoryError::Damaged { object, source };
        let plain = unpack_body(&body).map_err(wrong.clone())?;
        let body: SlotBody = from_body(&plain, "key slot").map_err(wrong.clone())?;
        let master: [u8; 32] = body
            .master
            .0
            .as_slice()
            .try_into()
            .map_err(|_| wrong(DecodeError::Invalid { what: "master key" }))?;
        Ok(Some((SecretKey::new(master), body)))
    }
}

fn slot_object_key(control: &Control, slot_key: &SecretKey) -> ObjectKey {
    ObjectKey::new(
        Suite::Aes256Gcm,
        slot_key,
        &control.repo,
        ObjectKind::KeySlot,
        &control.header.salt,
        &control.clear(),
    )
}

fn facts_key(control: &Control, master: &SecretKey) -> ObjectKey {
    ObjectKey::new(
        Suite::Aes256Gcm,
        &keys::facts_secret(master),
        &control.repo,
        ObjectKind::KeySlot,
        &control.header.salt,
        &control.clear_before_facts(),
    )
}

impl Repository {
    /// Adds a slot for a password, in two copies. A label is cut at
    /// [`limits::SLOT_LABEL_MAX`] characters.
    ///
    /// # Errors
    /// The storage's or the derivation's.
    pub fn add_slot(
        &self,
        password: &Password,
        label: &str,
        recovery: bool,
        now: Timestamp,
    ) -> Result<SlotChange, RepositoryError> {
        let mut id = [0; 16];
        self.entropy().fill(&mut id).map_err(keys::KeyError::Entropy)?;
        let id = KeyId::from_array(id);
        let name = ObjectName::key(&id, Copy2::A);
        let broken = |e| RepositoryError::decoding(&name, e);
        let unsealed = |source| RepositoryError::Forged { object: name.to_string(), source };
        let header =
            Header { suite: Suite::Aes256Gcm, epoch: 0, ..self.new_header(ObjectKind::KeySlot)? };
        let key = keys::slot_key(password, &header.salt, keys::DERIVATION)?;
        let slot = SlotClear {
            derivation: keys::DERIVATION,
            commitment: keys::commitment(&key),
            facts: Vec::new(),
        };
        let mut control = Control { header, repo: self.id, slot: Some(slot), sealed: Vec::new() };
        let label: String = label.chars().take(limits::SLOT_LABEL_MAX).collect();
        let facts = SlotFacts { label: label.clone(), created: now, recovery };
        let mut facts = pack_body(&to_body(&facts).map_err(broken)?);
        facts_key(&control, &self.master).seal(0, &mut facts).map_err(unsealed)?;
        if let Some(slot) = &mut control.slot {
            slot.facts = facts;
        }
        let master = HexBytes(self.master.expose().to_vec());
        let body = SlotBody { id, label, created: now, recovery, master };
        let mut sealed = pack_body(&to_body(&body).map_err(broken)?);
        slot_object_key(&control, &key).seal(0, &mut sealed).map_err(unsealed)?;
        control.sealed = sealed;
        let bytes = control.encode();
        for copy in Copy2::BOTH {
            self.backend.put_new(&ObjectName::key(&id, copy), &[&bytes])?;
        }
        Ok(SlotChange { id })
    }

    /// All slots of which a copy can be read.
    ///
    /// # Errors
    /// The storage's; damage of both copies of all slots.
    pub fn slots(&self) -> Result<Vec<KeySlot>, RepositoryError> {
        let slots = read_slots(self.backend(), &mut Vec::new())?;
        Ok(slots.into_iter().map(|slot| self.known(slot)).collect())
    }

    fn known(&self, slot: SealedSlot) -> KeySlot {
        let open = || {
            let mut facts = slot.control.slot.as_ref()?.facts.clone();
            facts_key(&slot.control, &self.master).open(0, &mut facts).ok()?;
            from_body(&unpack_body(&facts).ok()?, "facts of a key slot").ok()
        };
        let facts = open();
        KeySlot { id: slot.id, facts }
    }

    /// The slot that a password opens.
    ///
    /// # Errors
    /// [`RepositoryError::WrongKey`] where it opens none.
    pub fn slot_of(&self, password: &Password) -> Result<KeyId, RepositoryError> {
        let slots = read_slots(self.backend(), &mut Vec::new())?;
        for slot in &slots {
            if let Some((_, body)) = slot.open(password)? {
                return Ok(body.id);
            }
        }
        Err(RepositoryError::WrongKey { slots: slots.len() })
    }

    /// Removes both copies of a slot, but never the last slot.
    ///
    /// # Errors
    /// [`RepositoryError::LastKey`], [`RepositoryError::NoSuchKey`], or the storage's.
    pub fn remove_slot(&self, prefix: &str) -> Result<String, RepositoryError> {
        let slots = self.slots()?;
        let mut found = slots.iter().filter(|s| s.id.starts_with(prefix));
        let (Some(slot), None) = (found.next(), found.next()) else {
            return Err(RepositoryError::NoSuchKey(prefix.to_owned()));
        };
        // A slot that does not open for this master key is another repository's, or planted.
        let others = |all: &[KeySlot]| all.iter().any(|s| s.id != slot.id && s.facts.is_some());
        if !others(&slots) {
            return Err(RepositoryError::LastKey);
        }
        let id = KeyId::parse(&slot.id).map_err(|_| RepositoryError::NoSuchKey(prefix.into()))?;
        let mut bytes = None;
        for copy in Copy2::BOTH {
            let name = ObjectName::key(&id, copy);
            bytes = bytes.or(self.backend.get(&name, limits::CONTROL_MAX).ok());
            match self.backend.delete(&name) {
                Ok(()) | Err(BackendError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Somebody else may have removed the others at the same moment: then this one comes back.
        let left = match self.slots() {
            Ok(left) => others(&left),
            Err(_) => false,
        };
        match (left, bytes) {
            (false, Some(bytes)) => {
                for copy in Copy2::BOTH {
                    self.backend.put_new(&ObjectName::key(&id, copy), &[&bytes])?;
                }
                Err(RepositoryError::LastKey)
            }
            _ => Ok(slot.id.clone()),
        }
    }

    /// The master key for a paper copy: `cabk1-`, its digits in groups, and a checksum. Whoever has
    /// it can read everything; `None` without encryption.
    #[must_use]
    pub fn export_master(&self) -> Option<String> {
        self.is_encrypted().then(|| {
            let mut bytes = self.master.expose().to_vec();
            let sum = blake3::hash(&bytes);
            bytes.extend_from_slice(&sum.as_bytes()[..4]);
            let digits = to_hex(&bytes);
            let groups: Vec<&str> =
                (0..digits.len()).step_by(8).map(|at| &digits[at..at + 8]).collect();
            format!("cabk1-{}", groups.join("-"))
        })
    }
}

/// Reads what [`Repository::export_master`] wrote; blanks and case do not matter.
///
/// # Errors
/// [`RepositoryError::Damaged`] for a typing error, which the checksum finds.
pub fn parse_master(text: &str) -> Result<SecretKey, RepositoryError> {
    let wrong = || RepositoryError::Damaged {
        object: "the exported key".into(),
        source: DecodeError::Checksum { what: "an exported key" },
    };
    let compact: String =
        text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect::<String>().to_lowercase();
    let digits = compact.strip_prefix("cabk1").ok_or_else(wrong)?;
    let bytes = crate::base::id::from_hex(digits).map_err(|_| wrong())?;
    let (key, sum) = bytes.split_first_chunk::<32>().ok_or_else(wrong)?;
    if blake3::hash(key).as_bytes()[..4] != *sum {
        return Err(wrong());
    }
    Ok(SecretKey::new(*key))
}
