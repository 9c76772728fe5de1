//! What was found, each object and kind once.

use std::collections::{BTreeSet, HashMap};

use crate::backend::{BackendError, ObjectName};
use crate::base::id::{ChunkId, ManifestId, PackId};
use crate::store::reader::ReadError;
use crate::store::repository::RepositoryError;

use super::CheckError;

/// Missing chunks that are named one by one; what is above is one entry with their number.
const CHUNKS_NAMED: usize = 1000;

/// Kinds of damage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DamageKind {
    /// One of the two copies of the configuration or of a key slot is gone.
    CopyMissing,
    /// One of the two copies of the configuration or of a key slot is not what it should be.
    CopyDamaged,
    /// A manifest is not what it should be.
    ManifestDamaged,
    /// A manifest that this client, or a later manifest, remembers is gone.
    MissingManifest,
    /// A note is not what it should be.
    NoteDamaged,
    /// A lease or the end of one is not what it should be.
    LeaseDamaged,
    /// A generation of what is to be deleted is not what it should be.
    GenerationDamaged,
    /// An index segment is not what it should be.
    SegmentDamaged,
    /// A pack that the index names is gone.
    PackMissing,
    /// A pack is not what it should be.
    PackDamaged,
    /// A pack that holds what is needed is in no readable index segment.
    PackUnindexed,
    /// A chunk that is needed is nowhere.
    ChunkMissing,
    /// A chunk is what was once written, and that was wrong.
    ChunkDamaged,
}

impl DamageKind {
    /// The kind as JSON and people see it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::CopyMissing => "copy-missing",
            Self::CopyDamaged => "copy-damaged",
            Self::ManifestDamaged => "manifest-damaged",
            Self::MissingManifest => "missing-manifest",
            Self::NoteDamaged => "note-damaged",
            Self::LeaseDamaged => "lease-damaged",
            Self::GenerationDamaged => "generation-damaged",
            Self::SegmentDamaged => "segment-damaged",
            Self::PackMissing => "pack-missing",
            Self::PackDamaged => "pack-damaged",
            Self::PackUnindexed => "pack-unindexed",
            Self::ChunkMissing => "chunk-missing",
            Self::ChunkDamaged => "chunk-damaged",
        }
    }
}

/// One damaged object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The object, as it is named in the repository; `chunk ID` and `manifest ID` for what has no
    /// object of its own, or none any more.
    pub object: String,
    /// What is wrong.
    pub kind: DamageKind,
    /// What was seen.
    pub detail: String,
    /// Manifests that reach it.
    pub affects: BTreeSet<ManifestId>,
}

/// All damage.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    list: Vec<Damage>,
    places: HashMap<(String, DamageKind), usize>,
    packs: HashMap<PackId, usize>,
    chunks_named: usize,
    chunks_beyond: u64,
}

impl Ledger {
    /// Enters a damage and gives its number. What is known already keeps its first detail.
    pub fn add(&mut self, object: impl ToString, kind: DamageKind, detail: String) -> usize {
        let object = object.to_string();
        *self.places.entry((object.clone(), kind)).or_insert_with(|| {
            self.list.push(Damage { object, kind, detail, affects: BTreeSet::new() });
            self.list.len() - 1
        })
    }

    /// Enters a damaged, missing or unindexed pack. The first kind that is found of a pack stays.
    pub fn add_pack(&mut self, pack: PackId, kind: DamageKind, detail: String) -> usize {
        if let Some(known) = self.packs.get(&pack) {
            return *known;
        }
        let number = self.add(ObjectName::pack(&pack), kind, detail);
        self.packs.insert(pack, number);
        number
    }

    /// Enters a chunk that is nowhere.
    pub(super) fn add_missing(&mut self, chunk: &ChunkId) -> usize {
        let object = format!("chunk {chunk}");
        let place = (object, DamageKind::ChunkMissing);
        if let Some(known) = self.places.get(&place) {
            return *known;
        }
        if self.chunks_named < CHUNKS_NAMED {
            self.chunks_named += 1;
            return self.add(place.0, place.1, "no index segment names it".into());
        }
        self.chunks_beyond += 1;
        let number = self.add("further chunks", DamageKind::ChunkMissing, String::new());
        let beyond = self.chunks_beyond;
        self.list[number].detail =
            format!("{beyond} further references to chunks that no index segment names");
        number
    }

    /// Enters what an error of reading tells about an object; an error that is no damage comes back.
    pub(super) fn blame(&mut self, error: ReadError) -> Result<usize, CheckError> {
        let detail = chain(&error);
        match error {
            ReadError::Missing(id) => Ok(self.add_missing(&id)),
            ReadError::Block { pack, .. } | ReadError::Content { pack, .. } => {
                Ok(self.add_object(&pack, DamageKind::PackDamaged, detail))
            }
            ReadError::Decode { id, .. } => {
                Ok(self.add(format!("chunk {id}"), DamageKind::ChunkDamaged, detail))
            }
            ReadError::Repository(RepositoryError::Backend(error)) => match &error {
                BackendError::NotFound(pack) => {
                    Ok(self.add_object(pack, DamageKind::PackMissing, detail))
                }
                BackendError::Short { object, .. } => {
                    Ok(self.add_object(object, DamageKind::PackDamaged, detail))
                }
                BackendError::Io { object, .. } if object.starts_with("packs/") => {
                    let pack = object.strip_prefix("packs/").and_then(|n| PackId::parse(n).ok());
                    let damaged = DamageKind::PackDamaged;
                    Ok(match pack {
                        Some(pack) => self.add_pack(pack, damaged, detail),
                        None => self.add(object, damaged, detail),
                    })
                }
                _ => Err(error.into()),
            },
            error => Err(error.into()),
        }
    }

    fn add_object(&mut self, object: &ObjectName, kind: DamageKind, detail: String) -> usize {
        match PackId::parse(object.name()) {
            Ok(pack) => self.add_pack(pack, kind, detail),
            Err(_) => self.add(object, kind, detail),
        }
    }

    /// The number of a pack's damage.
    #[must_use]
    pub fn pack(&self, pack: &PackId) -> Option<usize> {
        self.packs.get(pack).copied()
    }

    /// A manifest reaches the damage of this number.
    pub fn affects(&mut self, number: usize, manifest: ManifestId) {
        if let Some(damage) = self.list.get_mut(number) {
            damage.affects.insert(manifest);
        }
    }

    /// Damages so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Damaged, missing and unindexed packs so far.
    #[must_use]
    pub fn bad_packs(&self) -> usize {
        self.packs.len()
    }

    /// Whether chunks were found to be nowhere.
    #[must_use]
    pub fn has_missing_chunks(&self) -> bool {
        self.chunks_named > 0
    }

    /// Takes back what was found about missing chunks: they are looked for once more, with more
    /// packs known.
    pub fn forget_missing_chunks(&mut self) {
        self.keep(|d| d.kind != DamageKind::ChunkMissing);
    }

    fn keep(&mut self, wanted: impl Fn(&Damage) -> bool) {
        let packs = std::mem::take(&mut self.packs);
        let names: HashMap<String, PackId> =
            packs.into_keys().map(|pack| (ObjectName::pack(&pack).to_string(), pack)).collect();
        let mut fresh = Self::default();
        for damage in std::mem::take(&mut self.list).into_iter().filter(wanted) {
            let number = fresh.add(&damage.object, damage.kind, damage.detail);
            fresh.list[number].affects = damage.affects;
            if let Some(pack) = names.get(&damage.object) {
                fresh.packs.entry(*pack).or_insert(number);
            }
            let named = damage.kind == DamageKind::ChunkMissing;
            fresh.chunks_named += usize::from(named);
        }
        *self = fresh;
    }

    /// Takes back unindexed packs that nothing needs: a killed run leaves such, and they are no
    /// damage.
    pub fn drop_unneeded(&mut self) {
        self.keep(|d| d.kind != DamageKind::PackUnindexed || !d.affects.is_empty());
    }

    /// Each segment that cannot be read affects what needs packs that no other segment names.
    pub fn blame_segments(&mut self) {
        let unindexed: BTreeSet<ManifestId> = self
            .list
            .iter()
            .filter(|d| matches!(d.kind, DamageKind::PackUnindexed | DamageKind::ChunkMissing))
            .flat_map(|d| d.affects.iter().copied())
            .collect();
        for damage in self.list.iter_mut().filter(|d| d.kind == DamageKind::SegmentDamaged) {
            damage.affects.extend(&unindexed);
        }
    }

    /// All damage, by object and kind.
    #[must_use]
    pub fn into_list(self) -> Vec<Damage> {
        let mut list = self.list;
        list.sort_by(|a, b| (&a.object, a.kind).cmp(&(&b.object, b.kind)));
        list
    }
}

/// An error with all its sources in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = source.source();
    }
    text
}
