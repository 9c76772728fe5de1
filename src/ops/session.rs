//! An open repository with this machine's accelerator beside it: what almost every verb begins with.

use std::path::PathBuf;
use std::sync::Arc;

use crate::backend::latch::Latched;
use crate::backend::local::LocalBackend;
use crate::backend::{Backend, BackendError};
use crate::base::id::LeaseId;
use crate::format::control::Holder;
use crate::host::entropy::{Entropy, SystemEntropy};
use crate::host::machine;
use crate::store::accelerator::{Accelerator, AcceleratorError, Place, SyncReport};
use crate::store::lease::{self, LeaseError};
use crate::store::reader::Reader;
use crate::store::repository::{self, Repository, RepositoryError, Unlock};

/// Bytes of decoded blocks that a verb keeps.
const READ_CACHE: usize = 24 << 20;

/// What kept a verb from beginning.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The local index.
    #[error(transparent)]
    Accelerator(#[from] AcceleratorError),
    /// A lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The machine does not say who it is.
    #[error("this machine does not say who it is")]
    Machine(#[source] std::io::Error),
}

impl From<BackendError> for SessionError {
    fn from(error: BackendError) -> Self {
        Self::Repository(error.into())
    }
}

/// Where a repository and its accelerator are.
#[derive(Clone, Debug)]
pub struct Location {
    /// The repository's directory.
    pub repository: PathBuf,
    /// The cache directory; `None` for an accelerator in memory.
    pub cache: Option<PathBuf>,
}

/// An open repository.
pub struct Session {
    /// The repository.
    pub repository: Arc<Repository>,
    /// The local index.
    pub accelerator: Arc<Accelerator>,
    /// What should be said: damaged copies, an index that was built anew.
    pub warnings: Vec<String>,
    /// Copies of the configuration or of key slots that are damaged or gone.
    pub damaged_copies: Vec<String>,
}

/// Opens a repository. Nothing is written in it.
///
/// # Errors
/// [`SessionError`].
pub fn open(
    place: &Location,
    unlock: impl FnOnce() -> Option<Unlock>,
) -> Result<Session, SessionError> {
    let backend: Arc<dyn Backend> = Arc::new(Latched::new(LocalBackend::open(&place.repository)?));
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let opened = repository::open(backend, entropy, unlock)?;
    let cache = match &place.cache {
        Some(path) => Place::Directory(path.clone()),
        None => Place::Memory,
    };
    let (accelerator, said) = match Accelerator::open(&cache, opened.repository.id()) {
        // A cache changes speed, never results: without a directory for it, memory serves.
        Err(AcceleratorError::Directory { path, source }) => {
            let said =
                format!("the cache directory {path} cannot be used, memory serves: {source}");
            (Accelerator::open(&Place::Memory, opened.repository.id())?.0, Some(said))
        }
        other => other?,
    };
    let mut warnings: Vec<String> = said.into_iter().collect();
    for copy in &opened.damaged_copies {
        warnings.push(format!("{copy} is damaged or gone; its other copy serves"));
    }
    Ok(Session {
        repository: Arc::new(opened.repository),
        accelerator: Arc::new(accelerator),
        warnings,
        damaged_copies: opened.damaged_copies,
    })
}

impl Session {
    /// Makes the accelerator equal to the listed segments. A damaged segment is a warning here:
    /// what it names counts as missing.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn sync(&mut self) -> Result<SyncReport, SessionError> {
        let report = self.accelerator.sync(&self.repository)?;
        if report.rebuilt {
            let said = "the local index did not fit the repository, or was damaged: it was built anew, \
                        and all files are looked up again";
            self.warnings.push(said.into());
        }
        for (name, error) in &report.damaged {
            self.warnings.push(format!("{name} cannot be read: {error}"));
        }
        Ok(report)
    }

    /// A reader over the repository.
    #[must_use]
    pub fn reader(&self) -> Reader {
        let (repository, accelerator) = (&self.repository, &self.accelerator);
        Reader::new(Arc::clone(repository), Arc::clone(accelerator), READ_CACHE)
    }
}

/// Who this process is, for leases.
///
/// # Errors
/// [`SessionError::Machine`].
pub fn holder() -> Result<Holder, SessionError> {
    let host = machine::hostname().map_err(SessionError::Machine)?;
    let own = machine::own_process().map_err(SessionError::Machine)?;
    let boot_id = machine::boot_id().map_err(SessionError::Machine)?;
    Ok(Holder { host, boot_id, pid: own.pid, start_ticks: own.start_time })
}

/// Clears leases whose holders on this machine are known to be dead, and what is left of cleared ones.
///
/// Returns what should be said of leases that cannot be read: they hold nobody back who only adds.
///
/// # Errors
/// The storage's; a lease of a newer version.
pub fn clear_dead_leases(repository: &Repository) -> Result<Vec<String>, SessionError> {
    let host = machine::hostname().map_err(SessionError::Machine)?;
    let leases = lease::list(repository, &host)?;
    for found in leases.found.iter().filter(|found| found.dead) {
        lease::break_dead(repository, &found.body.id)?;
    }
    lease::sweep_ends(repository)?;
    if let Some(local) = repository.backend().local() {
        local.sweep()?;
    }
    let said = |(id, _, why): &(LeaseId, bool, String)| {
        format!("the lease {id} cannot be read ({why}): `cabk unlock` clears it away")
    };
    Ok(leases.unreadable.iter().map(said).collect())
}
