//! All manifests of a repository, with the notes about them.

use std::collections::{BTreeMap, HashSet};

use crate::backend::{BackendError, ObjectName, Space};
use crate::base::id::ManifestId;
use crate::base::time::Timestamp;
use crate::format::control::{Fact, NoteBody};
use crate::format::header::ObjectKind;
use crate::format::manifest::{ManifestBody, RecordKind};
use crate::store::repository::{Repository, RepositoryError};

/// What a name given by an operator may fail to be.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Nothing begins with it.
    #[error("nothing in the repository has an id that begins with {0}")]
    NotFound(String),
    /// Several begin with it.
    #[error("{prefix} is the beginning of several ids: {}", .ids.join(", "))]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// The ids.
        ids: Vec<String>,
    },
    /// There is no snapshot of the site yet.
    #[error("there is no snapshot{} yet", .0.as_ref().map(|s| format!(" of {s}")).unwrap_or_default())]
    NoSnapshot(Option<String>),
    /// Several sites, and none was named.
    #[error("the repository holds several sites: {}", .0.join(", "))]
    SeveralSites(Vec<String>),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl From<BackendError> for CatalogueError {
    fn from(error: BackendError) -> Self {
        Self::Repository(error.into())
    }
}

/// A pin in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pin {
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Option<Timestamp>,
}

/// One committed manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its id.
    pub id: ManifestId,
    /// Snapshot or capture, by where it lies and what it is sealed as.
    pub kind: RecordKind,
    /// Its body.
    pub body: ManifestBody,
    /// When it was last drilled and whether it passed.
    pub drilled: Option<(Timestamp, bool)>,
    /// The pin, if it is pinned.
    pub pinned: Option<Pin>,
}

impl Record {
    /// Whether it can be restored: a snapshot whose evidence all held, and nothing else.
    #[must_use]
    pub fn is_restorable(&self) -> bool {
        self.kind == RecordKind::Snapshot && self.evidence_held()
    }

    /// Whether each check of the evidence that decides the kind held.
    #[must_use]
    pub fn evidence_held(&self) -> bool {
        let decides = |check: &str| check != "service-started";
        self.body.evidence.iter().filter(|e| decides(&e.check)).all(|e| e.held)
    }
}

/// All manifests.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Catalogue {
    /// Both kinds, oldest first.
    pub records: Vec<Record>,
    /// Objects that cannot be read, with the reason.
    pub damaged: Vec<(ObjectName, String)>,
    /// Manifests that were dropped on purpose.
    pub forgotten: HashSet<ManifestId>,
}

/// The ids of all listed manifests.
///
/// # Errors
/// The storage's.
pub fn listed(repository: &Repository) -> Result<HashSet<ManifestId>, RepositoryError> {
    let mut ids = HashSet::new();
    for space in [Space::Snapshots, Space::Captures] {
        let names = repository.backend().list(space)?;
        ids.extend(names.iter().filter_map(|(name, _)| ManifestId::parse(name.name()).ok()));
    }
    Ok(ids)
}

/// Reads all manifests and notes. One that is damaged, or that the disk does not give back, is listed
/// as such; it does not hide the others.
///
/// # Errors
/// Where the storage cannot list; a manifest of a newer version of cabk.
pub fn load(repository: &Repository) -> Result<Catalogue, RepositoryError> {
    let mut catalogue = Catalogue::default();
    for (space, object, kind) in [
        (Space::Snapshots, ObjectKind::Snapshot, RecordKind::Snapshot),
        (Space::Captures, ObjectKind::Capture, RecordKind::Capture),
    ] {
        for (name, _) in repository.backend().list(space)? {
            match read_manifest(repository, &name, object, kind) {
                Ok(record) => catalogue.records.push(record),
                Err(RepositoryError::Backend(BackendError::NotFound(_))) => {}
                Err(error @ RepositoryError::Newer { .. }) => return Err(error),
                Err(error) => catalogue.damaged.push((name, with_source(&error))),
            }
        }
    }
    catalogue.records.sort_by(|a, b| {
        (a.body.time, a.body.sequence, a.id).cmp(&(b.body.time, b.body.sequence, b.id))
    });
    read_notes(repository, &mut catalogue)?;
    Ok(catalogue)
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn read_manifest(
    repository: &Repository,
    name: &ObjectName,
    object: ObjectKind,
    kind: RecordKind,
) -> Result<Record, RepositoryError> {
    let bytes = repository.backend().get(name, crate::base::limits::MANIFEST_MAX)?;
    let wrong =
        |what| RepositoryError::decoding(name, crate::format::DecodeError::Invalid { what });
    let id = ManifestId::from_array(*blake3::hash(&bytes).as_bytes());
    if id.to_hex() != name.name() {
        return Err(wrong("the name of the manifest, which is not the hash of its bytes"));
    }
    let body: ManifestBody = repository.open_control(name, object, &bytes)?;
    if body.kind != kind {
        return Err(wrong("the kind of the manifest"));
    }
    Ok(Record { id, kind, body, drilled: None, pinned: None })
}

fn read_notes(repository: &Repository, catalogue: &mut Catalogue) -> Result<(), RepositoryError> {
    let mut notes: Vec<NoteBody> = Vec::new();
    for (name, _) in repository.backend().list(Space::Notes)? {
        match repository.get_control::<NoteBody>(&name, ObjectKind::Note) {
            Ok(note) => notes.push(note),
            Err(RepositoryError::Backend(BackendError::NotFound(_))) => {}
            Err(error @ RepositoryError::Newer { .. }) => return Err(error),
            Err(error) => catalogue.damaged.push((name, with_source(&error))),
        }
    }
    notes.sort_by_key(|n| n.time);
    let mut by_id: BTreeMap<ManifestId, &mut Record> =
        catalogue.records.iter_mut().map(|r| (r.id, r)).collect();
    for note in notes {
        if let Fact::Forgotten { .. } = note.fact {
            catalogue.forgotten.insert(note.about);
        }
        let Some(record) = by_id.get_mut(&note.about) else { continue };
        match note.fact {
            Fact::Pinned { reason, until } => record.pinned = Some(Pin { reason, until }),
            Fact::Unpinned => record.pinned = None,
            Fact::Drilled { passed } => record.drilled = Some((note.time, passed)),
            Fact::Forgotten { .. } | Fact::Lost { .. } => {}
        }
    }
    Ok(())
}

impl Catalogue {
    /// Labels of all sites, sorted.
    #[must_use]
    pub fn sites(&self) -> Vec<String> {
        let mut sites: Vec<String> = self.records.iter().map(|r| r.body.site.clone()).collect();
        sites.sort();
        sites.dedup();
        sites
    }

    /// The newest snapshot of a site, never a capture. Without a site: of the only one there is.
    ///
    /// # Errors
    /// [`CatalogueError::SeveralSites`], [`CatalogueError::NoSnapshot`].
    pub fn latest(&self, site: Option<&str>) -> Result<&Record, CatalogueError> {
        if site.is_none() {
            let sites = self.sites();
            if sites.len() > 1 {
                return Err(CatalogueError::SeveralSites(sites));
            }
        }
        self.records
            .iter()
            .rev()
            .find(|r| r.kind == RecordKind::Snapshot && site.is_none_or(|site| r.body.site == site))
            .ok_or_else(|| CatalogueError::NoSnapshot(site.map(str::to_owned)))
    }

    /// The record whose id begins with `prefix`, of either kind.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`], [`CatalogueError::Ambiguous`].
    pub fn by_prefix(&self, prefix: &str) -> Result<&Record, CatalogueError> {
        let wanted = prefix.to_lowercase();
        let found: Vec<&Record> =
            self.records.iter().filter(|r| r.id.to_hex().starts_with(&wanted)).collect();
        match found.as_slice() {
            [only] => Ok(only),
            [] => Err(CatalogueError::NotFound(prefix.to_owned())),
            several => Err(CatalogueError::Ambiguous {
                prefix: prefix.to_owned(),
                ids: several.iter().map(|r| r.id.short()).collect(),
            }),
        }
    }
}
