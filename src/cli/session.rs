//! Opening the repository for a command, and what readers of it share.

use super::args::{ReadArgs, Ref};
use super::exit::{CliError, Kind};
use super::global::Context;
use crate::backend::BackendError;
use crate::base::id::ManifestId;
use crate::ops::session::{self, Location, Session, SessionError};
use crate::record::catalogue::{self, Catalogue, CatalogueError, Record};
use crate::store::lease::{Lease, LeaseError};
use crate::store::repository::{Repository, RepositoryError, Unlock};

impl Context {
    /// Opens the repository that is named, asking for the password where it is encrypted, and says
    /// what deserves a warning. Nothing is written in it.
    ///
    /// # Errors
    /// [`super::fault::session`], and as [`Context::repository`] and [`Context::password`].
    pub fn session(&self) -> Result<Session, CliError> {
        self.session_with(|| self.password(false).map(Unlock::Password))
    }

    /// As [`Context::session`], with the local index made equal to what the repository lists: for
    /// commands that read content.
    ///
    /// # Errors
    /// As [`Context::session`].
    pub fn synced_session(&self) -> Result<Session, CliError> {
        let mut session = self.session()?;
        self.sync(&mut session)?;
        Ok(session)
    }

    /// Makes the local index equal to what the repository lists, and says what could not be read.
    ///
    /// # Errors
    /// [`super::fault::session`].
    pub fn sync(&self, session: &mut Session) -> Result<(), CliError> {
        let said = session.warnings.len();
        session.sync()?;
        session.warnings.iter().skip(said).for_each(|warning| self.said.warn(warning));
        Ok(())
    }

    /// As [`Context::session`], with another key than the usual password.
    ///
    /// # Errors
    /// As [`Context::session`].
    pub fn session_with(
        &self,
        unlock: impl FnOnce() -> Result<Unlock, CliError>,
    ) -> Result<Session, CliError> {
        self.session_at(
            Location { repository: self.repository()?, cache: self.cache_dir() },
            unlock,
        )
    }

    /// As [`Context::session`], without a cache: nothing at all is written.
    ///
    /// # Errors
    /// As [`Context::session`].
    pub fn session_for_a_look(&self) -> Result<Session, CliError> {
        let place = Location { repository: self.repository()?, cache: None };
        self.session_at(place, || self.password(false).map(Unlock::Password))
    }

    fn session_at(
        &self,
        place: Location,
        unlock: impl FnOnce() -> Result<Unlock, CliError>,
    ) -> Result<Session, CliError> {
        let mut no_password = None;
        let opened = session::open(&place, || match unlock() {
            Ok(key) => Some(key),
            Err(error) => {
                no_password = Some(error);
                None
            }
        });
        let session = match (opened, no_password) {
            (Err(SessionError::Repository(RepositoryError::NeedsKey)), Some(error)) => {
                return Err(error);
            }
            (
                Err(SessionError::Repository(RepositoryError::Backend(
                    BackendError::NoRepository(_),
                ))),
                _,
            ) => {
                let shown = BackendError::NoRepository(place.repository.display().to_string());
                return Err(shown.into());
            }
            (opened, _) => opened?,
        };
        session.warnings.iter().for_each(|warning| self.said.warn(warning));
        if !session.repository.is_encrypted() && self.names_password() {
            self.said.warn(
                "a password is configured and the repository is not encrypted: whoever can write \
                 the storage may have put another repository in its place",
            );
        }
        Ok(session)
    }

    /// Whether anything but a prompt would give a password.
    fn names_password(&self) -> bool {
        const NAMES: [&str; 3] = ["CABK_PASSWORD_FILE", "CABK_PASSWORD_COMMAND", "CABK_PASSWORD"];
        let config = &self.loaded.config.repository;
        self.args.password_file.is_some()
            || self.args.password_command.is_some()
            || config.password_file.is_some()
            || !config.password_command.is_empty()
            || NAMES.iter().any(|name| self.env.get(name).is_some())
    }

    /// All manifests; what is damaged among them is said.
    ///
    /// # Errors
    /// [`super::fault::repository`].
    pub fn catalogue(&self, repository: &Repository) -> Result<Catalogue, CliError> {
        let catalogue = catalogue::load(repository)?;
        for (name, why) in &catalogue.damaged {
            self.said.warn(&format!("{name} cannot be read: {why}"));
        }
        Ok(catalogue)
    }

    /// The snapshot or capture that was typed.
    ///
    /// # Errors
    /// [`super::fault::catalogue`]; exit 20 where it is listed and damaged.
    pub fn record<'c>(&self, catalogue: &'c Catalogue, what: &Ref) -> Result<&'c Record, CliError> {
        match what {
            Ref::Latest => Ok(catalogue.latest(self.site_name())?),
            Ref::Prefix(prefix) => match catalogue.by_prefix(prefix) {
                Err(CatalogueError::NotFound(_)) => {
                    let broken =
                        catalogue.damaged.iter().find(|(n, _)| n.name().starts_with(prefix));
                    Err(match broken {
                        Some((name, why)) => {
                            CliError::new(Kind::Damage, format!("{name} cannot be read: {why}"))
                        }
                        None => CatalogueError::NotFound(prefix.clone()).into(),
                    })
                }
                found => Ok(found?),
            },
        }
    }

    /// Reads under a lease, so that nothing that is read is deleted meanwhile. Where the repository
    /// cannot be written, or with `--no-lock`, without one and with a warning.
    ///
    /// # Errors
    /// Those of `read`; [`super::fault::lease`].
    pub fn reading<T>(
        &self,
        repository: &Repository,
        args: ReadArgs,
        operation: &str,
        reads: Vec<ManifestId>,
        read: impl FnOnce() -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let lease = if args.no_lock {
            self.said.warn("reading without a lease, as asked for: a prune at the same time may delete what is read");
            None
        } else {
            self.read_lease(repository, operation, reads)?
        };
        let done = read();
        // Where reading failed that is the error to tell; a lease that stays is cleared by the next
        // run.
        let released = lease.map_or(Ok(()), Lease::release);
        if let (Err(error), true) = (released, done.is_ok()) {
            let why = CliError::from(error).message;
            self.said.warn(&format!("the lease of this run stays until the next one: {why}"));
        }
        done
    }

    fn read_lease<'r>(
        &self,
        repository: &'r Repository,
        operation: &str,
        reads: Vec<ManifestId>,
    ) -> Result<Option<Lease<'r>>, CliError> {
        let holder = session::holder()?;
        match Lease::take(repository, holder, operation, reads, self.clock.now()) {
            Ok(lease) => Ok(Some(lease)),
            Err(LeaseError::Repository(RepositoryError::Backend(
                BackendError::ReadOnly { .. } | BackendError::Full { .. },
            ))) => {
                self.said.warn("the repository cannot be written: reading without a lease");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
