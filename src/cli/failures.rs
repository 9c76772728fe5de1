//! How a user meets the errors of the rooms below: each kind gets its exit code and hint here, in
//! one place.

use super::exit::{CliError, Kind};
use crate::backend::BackendError;
use crate::ops::session::SessionError;
use crate::store::lease::LeaseError;
use crate::store::repository::RepositoryError;

/// A verb could not begin.
#[must_use]
pub fn session(error: &SessionError) -> CliError {
    match error {
        SessionError::Repository(inner) | SessionError::Lease(LeaseError::Repository(inner)) => {
            repository(inner)
        }
        SessionError::Lease(LeaseError::Broken(_)) => CliError::from_error(Kind::InUse, error),
        _ => CliError::from_error(Kind::Failed, error),
    }
}

/// A repository could not be opened, read or written.
#[must_use]
pub fn repository(error: &RepositoryError) -> CliError {
    let kind = match error {
        RepositoryError::Backend(BackendError::NoRepository(_)) => Kind::NoRepository,
        RepositoryError::Backend(BackendError::NotEmpty(_)) => Kind::Refused,
        RepositoryError::WrongKey { .. } => Kind::WrongKey,
        RepositoryError::NeedsKey => Kind::NoPassword,
        RepositoryError::Damaged { .. } | RepositoryError::Forged { .. } => Kind::Damage,
        RepositoryError::LastKey | RepositoryError::NoSuchKey(_) => Kind::Usage,
        RepositoryError::Parameter(_) => Kind::Usage,
        _ => Kind::Failed,
    };
    CliError::from_error(kind, error)
}
