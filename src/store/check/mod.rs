//! Is everything there and whole? Each part looks at one sort of object and enters what it finds
//! into a [`Ledger`]; nothing here stops at the first damage, and nothing is mended.
//!
//! What this machine remembers in its accelerator is not asked: an index of its own is made from the
//! listed segments, so that a wrong cache can neither hide damage nor make some up (invariant 7).
//!
//! The order of listing is the safety against runs that write at the same time: manifests, then
//! index segments, then packs. What a listed manifest names is then in a listed segment, and what a
//! listed segment names is a listed pack.

mod control;
mod copies;
mod index;
mod ledger;
mod manifests;
mod packs;
mod reach;

use crate::base::progress::Progress;
use crate::host::clock::Clock;
use crate::store::accelerator::AcceleratorError;
use crate::store::reader::ReadError;
use crate::store::repository::RepositoryError;

pub use control::{condemned, leases, notes};
pub use copies::copies;
pub use index::{IndexView, KnownPack, index};
pub use ledger::{Damage, DamageKind, Ledger};
pub use manifests::{FoundManifest, manifests};
pub use packs::{DataRead, read_data};
pub use reach::reach;

/// What kept the check itself from going on. Damage is no error here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The repository or its storage, beyond one object: a listing, a newer version.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The index that the check makes for itself.
    #[error(transparent)]
    Accelerator(#[from] AcceleratorError),
    /// A failure while reading that is no damage of an object.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No room for the check's own index.
    #[error("no directory for the index of this check")]
    Scratch(#[source] std::io::Error),
    /// A signal came.
    #[error("the check was interrupted")]
    Interrupted,
}

impl From<crate::backend::BackendError> for CheckError {
    fn from(error: crate::backend::BackendError) -> Self {
        Self::Repository(error.into())
    }
}

/// What stands around a check.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// Told how far it is.
    pub progress: &'a dyn Progress,
    /// Asked between objects whether to end.
    pub interrupted: &'a (dyn Fn() -> bool + Sync),
    /// Asked for the time between packs.
    pub clock: &'a dyn Clock,
}

impl Around<'_> {
    fn go_on(&self) -> Result<(), CheckError> {
        if (self.interrupted)() { Err(CheckError::Interrupted) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
