//! How a user meets the errors of the rooms below: exit code, name, hint. One function for each
//! error type, so that every command words the same fault alike.

use super::exit::{CliError, Kind};
use crate::backend::BackendError;
use crate::ops::init::InitError;
use crate::ops::key::KeyVerbError;
use crate::ops::session::SessionError;
use crate::record::catalogue::CatalogueError;
use crate::record::memory::MemoryError;
use crate::store::accelerator::AcceleratorError;
use crate::store::lease::LeaseError;
use crate::store::reader::ReadError;
use crate::store::repository::RepositoryError;
use crate::tree::walk::WalkError;
use crate::window::intent::IntentError;

/// A storage's error.
#[must_use]
pub fn backend(error: &BackendError) -> CliError {
    match error {
        BackendError::NoRepository(_) => CliError::from_error(Kind::NoRepository, error),
        BackendError::NotEmpty(_) => CliError::from_error(Kind::Refused, error)
            .hint("name a directory that is empty or not there"),
        BackendError::Full { .. } => CliError::from_error(Kind::Failed, error)
            .hint("free some space for the repository; what is in it is whole"),
        BackendError::ReadOnly { .. } => CliError::from_error(Kind::Failed, error)
            .hint("the repository cannot be written: look at its owner, mode and mount options"),
        // What is listed or referred to and then not there, or shorter than its name says.
        BackendError::NotFound(_) | BackendError::Short { .. } => {
            CliError::from_error(Kind::Damage, error)
        }
        BackendError::Exists(_) => CliError::from_error(Kind::Failed, error)
            .hint("another run wrote it at the same moment: try again"),
        BackendError::Io { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            CliError::from_error(Kind::Failed, error).hint("run cabk as the repository's owner")
        }
        _ => CliError::from_error(Kind::Failed, error),
    }
}

/// A repository's error.
#[must_use]
pub fn repository(error: &RepositoryError) -> CliError {
    match error {
        RepositoryError::Backend(error) => backend(error),
        RepositoryError::Damaged { .. }
        | RepositoryError::Forged { .. }
        | RepositoryError::Nothing(_) => CliError::from_error(Kind::Damage, error),
        RepositoryError::Newer { .. } => CliError::from_error(Kind::Failed, error).hint(format!(
            "this is cabk {}: use the version that wrote the repository, or a later one",
            env!("CARGO_PKG_VERSION")
        )),
        RepositoryError::WrongKey { .. } | RepositoryError::WrongMaster => {
            CliError::from_error(Kind::WrongKey, error)
        }
        RepositoryError::NeedsKey => CliError::from_error(Kind::NoPassword, error),
        RepositoryError::LastKey => CliError::from_error(Kind::Refused, error)
            .hint("add another key first, with `cabk key add`"),
        RepositoryError::NoSuchKey(_) => {
            CliError::from_error(Kind::Usage, error).hint("`cabk key list` shows all keys")
        }
        RepositoryError::Parameter(_) => CliError::from_error(Kind::Usage, error),
        _ => CliError::from_error(Kind::Failed, error),
    }
}

/// The local index's error.
#[must_use]
pub fn accelerator(error: &AcceleratorError) -> CliError {
    match error {
        AcceleratorError::Repository(error) => repository(error),
        _ => CliError::from_error(Kind::Failed, error)
            .hint("the cache may be deleted at any time; --no-cache goes without it"),
    }
}

/// A lease's error.
#[must_use]
pub fn lease(error: &LeaseError) -> CliError {
    match error {
        LeaseError::Broken(_) => CliError::from_error(Kind::InUse, error)
            .hint("somebody ran `cabk unlock` while this run was alive: try again"),
        LeaseError::Repository(error) => repository(error),
    }
}

/// An error of opening a repository.
#[must_use]
pub fn session(error: &SessionError) -> CliError {
    match error {
        SessionError::Repository(error) => repository(error),
        SessionError::Accelerator(error) => accelerator(error),
        SessionError::Lease(error) => lease(error),
        SessionError::Machine(_) => CliError::from_error(Kind::Failed, error),
    }
}

/// An error of finding a snapshot or capture.
#[must_use]
pub fn catalogue(error: &CatalogueError) -> CliError {
    match error {
        CatalogueError::NotFound(_) => {
            CliError::from_error(Kind::Failed, error).hint("`cabk snapshots` lists what there is")
        }
        CatalogueError::NoSnapshot(_) => CliError::from_error(Kind::Failed, error)
            .hint("`cabk snapshots` lists captures too; `latest` is never one"),
        CatalogueError::Ambiguous { .. } => {
            CliError::from_error(Kind::Usage, error).hint("give more digits of the id")
        }
        CatalogueError::SeveralSites(_) => {
            CliError::from_error(Kind::Usage, error).hint("name one with --site-name")
        }
        CatalogueError::Repository(error) => repository(error),
    }
}

/// An error of reading content back.
#[must_use]
pub fn read(error: &ReadError) -> CliError {
    match error {
        ReadError::Missing(_)
        | ReadError::Block { .. }
        | ReadError::Content { .. }
        | ReadError::Decode { .. } => CliError::from_error(Kind::Damage, error),
        ReadError::Repository(error) => repository(error),
        ReadError::Accelerator(error) => accelerator(error),
    }
}

/// An error of finding a path in a snapshot.
#[must_use]
pub fn walk(error: &WalkError) -> CliError {
    match error {
        WalkError::NotFound(_) | WalkError::NotDir(_) => {
            CliError::from_error(Kind::Failed, error).hint("`cabk ls ID` lists what is in it")
        }
        WalkError::Read(error) => read(error),
    }
}

/// An error of making a repository.
#[must_use]
pub fn init(error: &InitError) -> CliError {
    match error {
        InitError::Present(_) => CliError::from_error(Kind::Refused, error)
            .hint("use it as it is, or name another directory"),
        InitError::Unfinished(path) => CliError::from_error(Kind::Refused, error).hint(format!(
            "nothing is kept in it: remove {} and run `cabk init` again",
            path.display()
        )),
        InitError::Repository(error) => repository(error),
    }
}

/// An error of a key.
#[must_use]
pub fn key(error: &KeyVerbError) -> CliError {
    match error {
        KeyVerbError::NotEncrypted => CliError::from_error(Kind::Refused, error),
        KeyVerbError::Paper(_) => CliError::from_error(Kind::WrongKey, error)
            .hint("give the text as `cabk key export` printed it"),
        KeyVerbError::Entropy(_) => CliError::from_error(Kind::Failed, error),
        KeyVerbError::Repository(error) => repository(error),
    }
}

/// An error of what this client remembers.
#[must_use]
pub fn memory(error: &MemoryError) -> CliError {
    let hint = match error {
        MemoryError::Damaged(_) => {
            "it only remembers which manifest was the newest: remove the file, and compare \
             `cabk snapshots` with what you know"
        }
        _ => "the state directory must be writable; see CABK_STATE_DIR",
    };
    CliError::from_error(Kind::Failed, error).hint(hint)
}

/// An error of a window's intent file.
#[must_use]
pub fn intent(error: &IntentError) -> CliError {
    CliError::from_error(Kind::Failed, error)
}

macro_rules! into_cli_error {
    ($($error:ty => $function:ident),* $(,)?) => {
        $(impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                $function(&error)
            }
        })*
    };
}

into_cli_error! {
    BackendError => backend,
    RepositoryError => repository,
    AcceleratorError => accelerator,
    LeaseError => lease,
    SessionError => session,
    CatalogueError => catalogue,
    ReadError => read,
    WalkError => walk,
    InitError => init,
    KeyVerbError => key,
    MemoryError => memory,
    IntentError => intent,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::DecodeError;

    #[test]
    fn faults_have_the_codes_of_the_manual() {
        let source = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let full = BackendError::Full { object: "packs/x".into(), source: source() };
        let shown = CliError::from(SessionError::from(full));
        assert_eq!(shown.exit.code(), 1);
        assert!(shown.hint.is_some() && !shown.causes.is_empty());
        let nothing = BackendError::NoRepository("/x".into());
        assert_eq!(CliError::from(SessionError::from(nothing)).exit.code(), 10);
        assert_eq!(CliError::from(RepositoryError::WrongKey { slots: 2 }).exit.code(), 12);
        let newer = DecodeError::Newer { found: 2, known: 1 };
        let newer = RepositoryError::Newer { object: "config/1.a".into(), source: newer };
        assert_eq!(CliError::from(CatalogueError::from(newer)).exit.code(), 1);
        let torn = DecodeError::Truncated { what: "a pack" };
        let torn = RepositoryError::Damaged { object: "packs/x".into(), source: torn };
        let torn = CliError::from(ReadError::from(torn));
        assert_eq!((torn.exit.code(), torn.code), (20, "damage"));
        let several = CatalogueError::SeveralSites(vec!["a".into(), "b".into()]);
        let several = CliError::from(several);
        assert_eq!(several.exit.code(), 2);
        assert!(several.message.contains("a, b"));
    }
}
