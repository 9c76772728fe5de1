//! Small control objects: JSON bodies, sealed as one record behind the header.
//!
//! ```text
//! header     64 bytes (format::header)
//! repository 16 bytes, its id
//! derivation 12 bytes, key slots only: Argon2id memory in KiB, passes, lanes, each u32
//! commitment 32 bytes, key slots only: says whether a key is the right one
//! facts      key slots only: u32 length, then the slot's facts, sealed under the master key, so
//!            that whoever opened the repository by any slot can tell all of them apart
//! sealed     the body, record 0
//! checksum   32 bytes, BLAKE3 of all before it: tells damage from a wrong key
//! ```
//! JSON, because these are few, small, and grow fields: a reader ignores fields that it does not
//! know, and what it must know is guarded by the header's feature bits.

use serde::{Deserialize, Serialize};

use super::header::{HEADER_LEN, Header, ObjectKind};
use super::wire::{DecodeError, Reader};
use crate::base::id::{ChunkId, KeyId, LeaseId, ManifestId, RepoId, to_hex};
use crate::base::limits;
use crate::base::time::Timestamp;

/// How a key slot's key comes from a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Derivation {
    /// Argon2id memory in KiB.
    pub memory_kib: u32,
    /// Argon2id passes.
    pub passes: u32,
    /// Argon2id lanes.
    pub lanes: u32,
}

/// What only a key slot has between header and body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotClear {
    /// How the key comes from the password.
    pub derivation: Derivation,
    /// Derived from the slot's key: the same only for the right password.
    pub commitment: [u8; 32],
    /// [`SlotFacts`], sealed under the master key; bound to what stands before them.
    pub facts: Vec<u8>,
}

/// A control object taken apart, its body still sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Control {
    /// The header.
    pub header: Header,
    /// The repository that it belongs to.
    pub repo: RepoId,
    /// Of key slots.
    pub slot: Option<SlotClear>,
    /// The sealed body.
    pub sealed: Vec<u8>,
}

impl Control {
    /// The clear bytes in front of the sealed body: what the body's seal binds.
    #[must_use]
    pub fn clear(&self) -> Vec<u8> {
        let mut out = self.clear_before_facts();
        if let Some(slot) = &self.slot {
            let len = u32::try_from(slot.facts.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&slot.facts);
        }
        out
    }

    /// The clear bytes in front of a key slot's facts: what the facts' seal binds.
    #[must_use]
    pub fn clear_before_facts(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN + 16 + 44);
        out.extend_from_slice(&self.header.encode());
        out.extend_from_slice(self.repo.as_bytes());
        if let Some(slot) = &self.slot {
            out.extend_from_slice(&slot.derivation.memory_kib.to_le_bytes());
            out.extend_from_slice(&slot.derivation.passes.to_le_bytes());
            out.extend_from_slice(&slot.derivation.lanes.to_le_bytes());
            out.extend_from_slice(&slot.commitment);
        }
        out
    }

    /// The object's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.clear();
        out.extend_from_slice(&self.sealed);
        let sum = blake3::hash(&out);
        out.extend_from_slice(sum.as_bytes());
        out
    }

    /// Takes an object apart. Damage is told here, by the checksum, before any key is tried.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8], kind: ObjectKind) -> Result<Self, DecodeError> {
        if !bytes.starts_with(kind.magic()) {
            return Err(DecodeError::Magic { expected: kind.words() });
        }
        let split = bytes.len().checked_sub(32).filter(|at| *at >= HEADER_LEN + RepoId::LEN);
        let Some(split) = split else {
            return Err(DecodeError::Truncated { what: kind.words() });
        };
        // The checksum ends the object in every version: a flipped version or feature bit is damage
        // and not a newer version.
        if *blake3::hash(&bytes[..split]).as_bytes() != bytes[split..] {
            return Err(DecodeError::Checksum { what: kind.words() });
        }
        let header = Header::decode(bytes, kind)?;
        let mut reader = Reader::new(&bytes[HEADER_LEN..split]);
        let repo = RepoId::from_array(reader.array("repository id")?);
        let slot = match kind {
            ObjectKind::KeySlot => Some(decode_slot(&mut reader)?),
            _ => None,
        };
        let sealed = reader.take(reader.remaining(), "body")?.to_vec();
        Ok(Self { header, repo, slot, sealed })
    }
}

fn decode_slot(reader: &mut Reader<'_>) -> Result<SlotClear, DecodeError> {
    let mut bounded = |what, bound: u32| {
        let found = reader.u32(what)?;
        if found == 0 || found > bound {
            let (found, bound) = (u64::from(found), u64::from(bound));
            return Err(DecodeError::Bound { what, found, bound });
        }
        Ok(found)
    };
    let memory_kib = bounded("key derivation memory", limits::ARGON2_MEMORY_KIB_MAX)?;
    let passes = bounded("key derivation passes", limits::ARGON2_PASSES_MAX)?;
    let lanes = bounded("key derivation lanes", limits::ARGON2_LANES_MAX)?;
    if memory_kib < 8 * lanes {
        return Err(DecodeError::Invalid { what: "key derivation memory" });
    }
    let derivation = Derivation { memory_kib, passes, lanes };
    let commitment = reader.array("key commitment")?;
    let len = reader.u32("length of a key slot's facts")?;
    if len > limits::SLOT_FACTS_MAX {
        let (found, bound) = (u64::from(len), u64::from(limits::SLOT_FACTS_MAX));
        return Err(DecodeError::Bound { what: "length of a key slot's facts", found, bound });
    }
    let facts = reader.take(len as usize, "a key slot's facts")?.to_vec();
    Ok(SlotClear { derivation, commitment, facts })
}

/// A body as JSON bytes.
///
/// # Errors
/// Only for a value that JSON cannot hold, which none of ours is.
pub fn to_body<T: Serialize>(value: &T) -> Result<Vec<u8>, DecodeError> {
    serde_json::to_vec(value).map_err(|_| DecodeError::Invalid { what: "body" })
}

/// A body from JSON bytes.
///
/// # Errors
/// [`DecodeError::Invalid`].
pub fn from_body<T: for<'de> Deserialize<'de>>(
    bytes: &[u8],
    what: &'static str,
) -> Result<T, DecodeError> {
    serde_json::from_slice(bytes).map_err(|_| DecodeError::Invalid { what })
}

/// Bytes that stand as hexadecimal digits in a JSON body.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct HexBytes(pub Vec<u8>);

impl std::fmt::Debug for HexBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HexBytes({} bytes)", self.0.len())
    }
}

impl Serialize for HexBytes {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&to_hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <String as Deserialize>::deserialize(d)?;
        crate::base::id::from_hex(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Body of `config/<n>`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConfigBody {
    /// This configuration's number: the highest counts.
    pub number: u64,
    /// When the repository was made.
    pub created: Timestamp,
    /// Shortest chunk, bytes.
    pub chunk_min: u32,
    /// Average chunk, bytes.
    pub chunk_avg: u32,
    /// Longest chunk, bytes.
    pub chunk_max: u32,
    /// zstd level.
    pub compression: i32,
    /// Share of parity in per cent; 0 for none.
    pub parity_percent: u8,
    /// The sealing secrets, by epoch, each wrapped by the master key.
    pub seals: Vec<EpochSecret>,
    /// The newest epoch: what is written is sealed under it.
    pub epoch: u32,
    /// The secret of chunk ids, wrapped.
    pub ids: HexBytes,
    /// The secret of cuts, wrapped.
    pub cuts: HexBytes,
    /// The repository whose ids and cuts were taken over.
    pub related_to: Option<RepoId>,
}

/// One epoch's wrapped sealing secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EpochSecret {
    /// The epoch.
    pub epoch: u32,
    /// The secret, wrapped.
    pub secret: HexBytes,
}

/// Body of a key slot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SlotBody {
    /// The slot.
    pub id: KeyId,
    /// What the operator calls it.
    pub label: String,
    /// When it was made.
    pub created: Timestamp,
    /// Whether its password is a recovery key that was printed once.
    pub recovery: bool,
    /// The master key.
    pub master: HexBytes,
}

/// What the master key tells of a key slot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SlotFacts {
    /// What the operator calls it.
    pub label: String,
    /// When it was made.
    pub created: Timestamp,
    /// Whether its password is a recovery key that was printed once.
    pub recovery: bool,
}

/// Who is at work, and since when.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// Machine name.
    pub host: String,
    /// The machine's boot.
    pub boot_id: String,
    /// Process id in its own namespace.
    pub pid: u32,
    /// Start of the process, in clock ticks after boot: tells reused ids apart.
    pub start_ticks: u64,
}

/// Body of a lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseBody {
    /// The lease.
    pub id: LeaseId,
    /// Its holder.
    pub holder: Holder,
    /// What the holder does: `snapshot`, `check` ...
    pub operation: String,
    /// When it was taken. For people; nothing is decided by it.
    pub taken: Timestamp,
    /// The highest generation in `condemned/` that the holder obeys.
    pub obeys: u64,
    /// Manifests that a reader reads.
    pub reads: Vec<ManifestId>,
}

/// How a lease ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseEndBody {
    /// The lease.
    pub id: LeaseId,
    /// Whether the holder ended it or somebody broke it.
    pub by: EndedBy,
    /// The manifest that the holder is about to commit.
    pub manifest: Option<ManifestId>,
    /// Roots that count as reachable from now on.
    pub roots: Vec<ChunkId>,
}

/// Who ended a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndedBy {
    /// The holder.
    Holder,
    /// Somebody who knew the holder dead, or an operator.
    Breaker,
}

/// Body of `condemned/<n>`: chunks and packs that a deleter is about to delete.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CondemnedBody {
    /// The generation.
    pub number: u64,
    /// Packs: each of their chunks counts as absent.
    pub packs: Vec<crate::base::id::PackId>,
}

/// Body of a note.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NoteBody {
    /// The manifest that it is about.
    pub about: ManifestId,
    /// When it was learnt.
    pub time: Timestamp,
    /// What was learnt.
    pub fact: Fact,
}

/// What a note says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "kebab-case")]
pub enum Fact {
    /// The manifest was dropped by an operator or a policy.
    Forgotten {
        /// Site label of the manifest.
        site: String,
        /// Its sequence number.
        sequence: u64,
    },
    /// The manifest is kept out of retention.
    Pinned {
        /// Why.
        reason: String,
        /// Until when.
        until: Option<Timestamp>,
    },
    /// The manifest is no longer kept out of retention.
    Unpinned,
    /// The snapshot was restored into scratch and checked.
    Drilled {
        /// Whether everything held.
        passed: bool,
    },
    /// Content is lost.
    Lost {
        /// Paths that cannot be restored.
        paths: Vec<HexBytes>,
    },
}

#[cfg(test)]
mod tests;
