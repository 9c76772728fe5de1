//! `init`: making a repository.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::local::LocalBackend;
use crate::backend::{Backend, BackendError, Space};
use crate::base::secret::Password;
use crate::base::time::Timestamp;
use crate::host::entropy::{Entropy, SystemEntropy};
use crate::store::cut::ChunkSizes;
use crate::store::repository::{self, InitOptions, Repository, RepositoryError};

/// zstd level where nobody says otherwise.
pub const COMPRESSION: u8 = 3;

/// Why no repository was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// There is one already.
    #[error("there is a repository at {} already", .0.display())]
    Present(PathBuf),
    /// An earlier `init` was killed: what it left is no repository and holds nothing.
    #[error("an earlier init at {} did not end: what is there is no repository yet", .0.display())]
    Unfinished(PathBuf),
    /// Something else.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl From<BackendError> for InitError {
    fn from(error: BackendError) -> Self {
        Self::Repository(error.into())
    }
}

/// How a repository is made.
pub struct Init<'a> {
    /// Where.
    pub path: &'a Path,
    /// The first key's password; `None` for no encryption.
    pub password: Option<&'a Password>,
    /// zstd level, 1 to 19.
    pub compression: u8,
    /// Share of parity, in whole per cent.
    pub parity_percent: u8,
    /// Whose ids and cuts are taken over.
    pub related_to: Option<&'a Repository>,
    /// The time of day.
    pub now: Timestamp,
}

/// Looks whether a repository can be made at a path, before anybody is asked for a password.
///
/// # Errors
/// [`InitError::Present`], [`InitError::Unfinished`], or the storage's.
pub fn probe(path: &Path) -> Result<(), InitError> {
    let backend = match LocalBackend::open(path) {
        Ok(backend) => backend,
        // Nothing, or something else: making it tells which.
        Err(BackendError::NoRepository(_)) => return unfinished(path),
        Err(error) => return Err(error.into()),
    };
    if backend.list(Space::Config)?.is_empty() {
        return Err(InitError::Unfinished(path.to_owned()));
    }
    Err(InitError::Present(path.to_owned()))
}

/// A directory that has what `init` makes first, but not what it makes last.
fn unfinished(path: &Path) -> Result<(), InitError> {
    let ours = |name: &str| path.join(name).symlink_metadata().is_ok();
    if ours("tmp") && ours("locks") {
        return Err(InitError::Unfinished(path.to_owned()));
    }
    Ok(())
}

/// Makes a repository.
///
/// # Errors
/// [`InitError`]. What is left after a failure holds nothing and is told by the next `init`.
pub fn init(options: &Init<'_>) -> Result<Repository, InitError> {
    probe(options.path)?;
    let backend: Arc<dyn Backend> = Arc::new(LocalBackend::create(options.path)?);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let options = InitOptions {
        password: options.password,
        compression: i32::from(options.compression),
        parity_percent: options.parity_percent,
        sizes: ChunkSizes::DEFAULT,
        related_to: options.related_to,
        now: options.now,
    };
    Ok(repository::init(backend, entropy, &options)?)
}
