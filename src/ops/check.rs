//! `check`: is everything there and whole, and is everything there that this client remembers.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::progress::Progress;
use super::session::{self, Session, SessionError};
use crate::backend::{BackendError, ObjectName};
use crate::base::id::ManifestId;
use crate::host::clock::Clock;
use crate::host::signal::Interrupt;
use crate::record::memory::{Memory, MemoryError};
use crate::store::check::{
    self, Around, CheckError, Damage, DamageKind, DataRead, FoundManifest, IndexView, Ledger,
};
use crate::store::lease::{Lease, LeaseError};
use crate::store::reader::Reader;
use crate::store::repository::{Repository, RepositoryError};

/// Bytes of decoded blocks of trees that a check keeps.
const READ_CACHE: usize = 24 << 20;

/// What a check looks at.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Whether to take a reader's lease; without, and where the repository cannot be written, none.
    pub lease: bool,
    /// Share of the data that is read again, in hundredths of a percent: 10,000 is all.
    pub read_data: u16,
    /// After this time no further pack is read.
    pub max_duration: Option<Duration>,
    /// What this client remembers; `None` where it has no state directory.
    pub state_dir: Option<&'a Path>,
    /// Where a large index may lie while the check runs; `None` for the system's own place.
    pub scratch: Option<&'a Path>,
}

/// What stands around the verb.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Told how far it is.
    pub progress: &'a dyn Progress,
    /// Clocks.
    pub clock: &'a dyn Clock,
    /// The wish to end.
    pub interrupt: &'a Interrupt,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// All damage, by object.
    pub damage: Vec<Damage>,
    /// Packs in the repository.
    pub packs: u64,
    /// Packs that no index segment names: left by killed runs, and no damage.
    pub packs_unreferenced: u64,
    /// Manifests of both kinds.
    pub manifests: u64,
    /// What was read of the data itself.
    pub data: DataRead,
    /// What should be said beside the result.
    pub warnings: Vec<String>,
}

impl Report {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.damage.is_empty()
    }
}

/// What kept the check from its end. Damage is no error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckFailure {
    /// The check itself.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The session.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// What this client remembers.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Checks an open repository. Nothing in it is changed, except for the lease.
///
/// # Errors
/// [`CheckFailure`]; damage is in the report.
pub fn check(
    session: &Session,
    options: &Options<'_>,
    around: &Surroundings<'_>,
) -> Result<Report, CheckFailure> {
    let repository = &session.repository;
    let begun = around.clock.monotonic();
    let mut ledger = Ledger::default();
    let mut warnings = Vec::new();
    around.progress.phase("objects", None);
    check::condemned(repository, &mut ledger)?;
    let lease = if !options.lease {
        None
    } else if ledger.is_empty() {
        take_lease(repository, around, &mut warnings)?
    } else {
        warnings.push("a damaged generation cannot be obeyed: checked without a lease".into());
        None
    };
    let done = look(session, options, around, begun, &mut ledger);
    let released = lease.map_or(Ok(()), Lease::release);
    let (view, manifests, data) = done?;
    released?;
    Ok(Report {
        damage: ledger.into_list(),
        packs: view.listed,
        packs_unreferenced: view.unindexed.len() as u64,
        manifests: manifests.len() as u64,
        data,
        warnings,
    })
}

/// A reader's lease, or none where the repository cannot be written.
fn take_lease<'r>(
    repository: &'r Repository,
    around: &Surroundings<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Lease<'r>>, CheckFailure> {
    let listed = crate::record::catalogue::listed(repository).map_err(CheckError::from)?;
    let mut reads: Vec<ManifestId> = listed.into_iter().collect();
    reads.sort_unstable();
    let holder = session::holder()?;
    match Lease::take(repository, holder, "check", reads, around.clock.now()) {
        Ok(lease) => Ok(Some(lease)),
        Err(LeaseError::Repository(RepositoryError::Backend(
            BackendError::ReadOnly { .. } | BackendError::Full { .. },
        ))) => {
            warnings.push("the repository cannot be written: checked without a lease".into());
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn look(
    session: &Session,
    options: &Options<'_>,
    around: &Surroundings<'_>,
    begun: Duration,
    ledger: &mut Ledger,
) -> Result<(IndexView, Vec<FoundManifest>, DataRead), CheckFailure> {
    let repository = &session.repository;
    let interrupted = || around.interrupt.is_set();
    let inner =
        Around { progress: around.progress, interrupted: &interrupted, clock: around.clock };
    let mut copies = Ledger::default();
    check::copies(repository, &mut copies)?;
    check::leases(repository, ledger)?;
    let manifests = check::manifests(repository, ledger)?;
    // Read after the manifests: what is forgotten is noted before its manifest is deleted.
    let forgotten: HashSet<ManifestId> = check::notes(repository, ledger)?.into_iter().collect();
    missing_manifests(session, options, &manifests, &forgotten, ledger)?;
    let view = check::index(repository, options.scratch, ledger, &inner)?;
    let until = options.max_duration.map(|length| begun.saturating_add(length));
    let data = check::read_data(repository, &view, options.read_data, until, ledger, &inner)?;
    let accelerator = Arc::clone(&view.accelerator);
    let reader = Reader::new(Arc::clone(repository), accelerator, READ_CACHE);
    check::reach(&reader, &manifests, ledger, &inner)?;
    if ledger.has_missing_chunks() && view.add_unindexed(repository, ledger, &inner)? > 0 {
        // Some of what was missing may lie in packs that a lost segment named.
        ledger.forget_missing_chunks();
        check::reach(&reader, &manifests, ledger, &inner)?;
        ledger.drop_unneeded();
    }
    ledger.blame_segments();
    if !copies.is_empty() {
        // A slot that was being added or removed is whole, or gone, by now.
        check::copies(repository, ledger)?;
    }
    Ok((view, manifests, data))
}

/// Manifests that this client or a later manifest remembers, and that are neither listed nor
/// forgotten on purpose.
fn missing_manifests(
    session: &Session,
    options: &Options<'_>,
    manifests: &[FoundManifest],
    forgotten: &HashSet<ManifestId>,
    ledger: &mut Ledger,
) -> Result<(), CheckFailure> {
    let repository = &session.repository;
    let listed: HashSet<ManifestId> = manifests.iter().map(|m| m.id).collect();
    let gone = |id: &ManifestId| -> Result<bool, CheckError> {
        // What was committed since the listing is looked for by its name.
        Ok(!listed.contains(id) && !forgotten.contains(id) && !is_there(repository, id)?)
    };
    let mut missing = |id: ManifestId, why: String| {
        let number = ledger.add(format!("manifest {id}"), DamageKind::MissingManifest, why);
        ledger.affects(number, id);
    };
    if let Some(state_dir) = options.state_dir {
        let memory = Memory::load(state_dir, repository.id(), repository.entropy())?;
        for (site, head) in &memory.heads {
            if gone(&head.manifest)? {
                let why = format!("this client knows it as number {} of {site}", head.sequence);
                missing(head.manifest, why);
            }
        }
    }
    for manifest in manifests {
        for id in &manifest.predecessors {
            if gone(id)? {
                missing(*id, format!("{} names it as its predecessor", manifest.id));
            }
        }
    }
    Ok(())
}

fn is_there(repository: &Repository, id: &ManifestId) -> Result<bool, CheckError> {
    for name in [ObjectName::snapshot(id), ObjectName::capture(id)] {
        match repository.backend().len(&name) {
            Ok(_) => return Ok(true),
            Err(BackendError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}
