//! Leases: who is at work in a repository, and how their work ended. Order is the safety, never a
//! clock.
//!
//! A writer puts its lease, then reads `condemned/`, then the index. A chunk in a condemned pack
//! counts as absent to it and is written again. Who deletes puts a generation first and looks at the
//! leases afterwards, so one of the two sees the other. A lease ends by one exclusive record: the
//! holder's, naming the roots that it is about to commit, or a breaker's; who loses obeys.

use std::collections::HashSet;

use super::repository::{Repository, RepositoryError};
use crate::backend::{BackendError, Hold, ObjectName, Space};
use crate::base::id::{ChunkId, LeaseId, ManifestId, PackId};
use crate::base::time::Timestamp;
use crate::format::control::{CondemnedBody, EndedBy, Holder, LeaseBody, LeaseEndBody};
use crate::format::header::ObjectKind;
use crate::store::keys::KeyError;

/// What went wrong with a lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Somebody broke the lease while its holder slept: nothing may be committed under it.
    #[error("the lease {0} was broken by somebody else")]
    Broken(LeaseId),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl From<BackendError> for LeaseError {
    fn from(error: BackendError) -> Self {
        Self::Repository(error.into())
    }
}

/// A held lease. Dropping it without [`Lease::end`] leaves an object that others know to be dead as
/// soon as this process is.
#[must_use]
pub struct Lease<'r> {
    repository: &'r Repository,
    id: LeaseId,
    condemned: HashSet<PackId>,
    hold: Option<Box<dyn Hold>>,
}

/// What `end` gives: the right to write the manifest that the end record names.
#[must_use]
pub struct Ended<'r> {
    repository: &'r Repository,
    id: LeaseId,
    manifest: ManifestId,
    hold: Option<Box<dyn Hold>>,
}

impl<'r> Lease<'r> {
    /// Takes a lease: hold, lease object, then `condemned/`.
    ///
    /// # Errors
    /// The storage's; damage of a generation, because what cannot be read cannot be obeyed.
    pub fn take(
        repository: &'r Repository,
        holder: Holder,
        operation: &str,
        reads: Vec<ManifestId>,
        now: Timestamp,
    ) -> Result<Self, LeaseError> {
        let mut id = [0; 16];
        repository
            .entropy()
            .fill(&mut id)
            .map_err(|e| RepositoryError::Key(KeyError::Entropy(e)))?;
        let id = LeaseId::from_array(id);
        let obeys = generations(repository)?.into_iter().max().unwrap_or(0);
        let hold = match repository.backend().local() {
            Some(local) => Some(local.hold(&id)?),
            None => None,
        };
        let body =
            LeaseBody { id, holder, operation: operation.to_owned(), taken: now, obeys, reads };
        let bytes = repository.seal_control(ObjectKind::Lease, &body)?;
        repository.backend().put_new(&ObjectName::lease(&id), &[&bytes])?;
        // Listed again behind the lease: a generation that came in between is obeyed as well.
        let mut condemned = HashSet::new();
        for number in generations(repository)? {
            let name = ObjectName::condemned(number);
            let body: CondemnedBody = repository.get_control(&name, ObjectKind::Condemned)?;
            condemned.extend(body.packs);
        }
        Ok(Self { repository, id, condemned, hold })
    }

    /// The lease's id.
    #[must_use]
    pub fn id(&self) -> &LeaseId {
        &self.id
    }

    /// Packs whose chunks count as absent.
    #[must_use]
    pub fn condemned(&self) -> &HashSet<PackId> {
        &self.condemned
    }

    /// Ends the lease by its holder, naming what is about to be committed: from here on those roots
    /// count as reachable (invariant 1: after the index, before the manifest).
    ///
    /// # Errors
    /// [`LeaseError::Broken`] where a breaker was first.
    pub fn end(
        mut self,
        manifest: ManifestId,
        roots: Vec<ChunkId>,
    ) -> Result<Ended<'r>, LeaseError> {
        let body =
            LeaseEndBody { id: self.id, by: EndedBy::Holder, manifest: Some(manifest), roots };
        let bytes = self.repository.seal_control(ObjectKind::LeaseEnd, &body)?;
        match self.repository.backend().put_new(&ObjectName::lease_end(&self.id), &[&bytes]) {
            Ok(()) => Ok(Ended {
                repository: self.repository,
                id: self.id,
                manifest,
                hold: self.hold.take(),
            }),
            Err(BackendError::Exists(_)) => Err(LeaseError::Broken(self.id)),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the lease up: nothing was or will be committed under it.
    ///
    /// # Errors
    /// The storage's.
    pub fn release(mut self) -> Result<(), LeaseError> {
        remove(self.repository, &self.id, self.hold.take())
    }
}

impl Ended<'_> {
    /// The manifest that may be written now.
    #[must_use]
    pub fn manifest(&self) -> &ManifestId {
        &self.manifest
    }

    /// Clears lease and end record away, once the manifest is there.
    ///
    /// # Errors
    /// The storage's. What is left is cleared by the next run.
    pub fn clear(mut self) -> Result<(), LeaseError> {
        remove(self.repository, &self.id, self.hold.take())
    }
}

fn remove(
    repository: &Repository,
    id: &LeaseId,
    hold: Option<Box<dyn Hold>>,
) -> Result<(), LeaseError> {
    for name in [ObjectName::lease(id), ObjectName::lease_end(id)] {
        match repository.backend().delete(&name) {
            Ok(()) | Err(BackendError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    drop(hold);
    if let Some(local) = repository.backend().local() {
        local.forget_hold(id)?;
    }
    Ok(())
}

fn generations(repository: &Repository) -> Result<Vec<u64>, LeaseError> {
    let listed = repository.backend().list(Space::Condemned)?;
    Ok(listed.iter().filter_map(|(name, _)| name.name().parse().ok()).collect())
}

/// A lease as found in a repository.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundLease {
    /// Its body.
    pub body: LeaseBody,
    /// Whether its holder is known to be dead.
    pub dead: bool,
}

/// Lists all leases. A holder is known dead where the lease is of `host` and nobody on this machine
/// holds its lock.
///
/// # Errors
/// The storage's; damage of a lease.
pub fn list(repository: &Repository, host: &str) -> Result<Vec<FoundLease>, LeaseError> {
    let mut found = Vec::new();
    for (name, _) in repository.backend().list(Space::Leases)? {
        if name.name().ends_with(".end") {
            continue;
        }
        let body: LeaseBody = match repository.get_control(&name, ObjectKind::Lease) {
            Ok(body) => body,
            // Ended and cleared between listing and reading.
            Err(RepositoryError::Backend(BackendError::NotFound(_))) => continue,
            Err(error) => return Err(error.into()),
        };
        let dead = match repository.backend().local() {
            Some(local) if body.holder.host == host => !local.is_held(&body.id)?,
            _ => false,
        };
        found.push(FoundLease { body, dead });
    }
    Ok(found)
}

/// Breaks a lease whose holder is dead: writes the breaker's end record (or finds the holder's) and
/// clears both away. A holder that lives after all commits nothing.
///
/// # Errors
/// The storage's.
pub fn break_dead(repository: &Repository, id: &LeaseId) -> Result<(), LeaseError> {
    let body = LeaseEndBody { id: *id, by: EndedBy::Breaker, manifest: None, roots: vec![] };
    let bytes = repository.seal_control(ObjectKind::LeaseEnd, &body)?;
    match repository.backend().put_new(&ObjectName::lease_end(id), &[&bytes]) {
        Ok(()) | Err(BackendError::Exists(_)) => remove(repository, id, None),
        Err(error) => Err(error.into()),
    }
}

/// Clears end records whose leases are gone, which is what a kill between the two deletions leaves. A
/// lease is only ever deleted once its end no longer counts, so that such an end never does.
///
/// # Errors
/// The storage's.
pub fn clear_ends(repository: &Repository) -> Result<(), LeaseError> {
    let backend = repository.backend();
    let listed = backend.list(Space::Leases)?;
    let names: HashSet<&str> = listed.iter().map(|(name, _)| name.name()).collect();
    for name in &names {
        let Some(id) = name.strip_suffix(".end") else { continue };
        let Ok(id) = LeaseId::parse(id) else { continue };
        // Asked for by itself: a listing may miss what comes while it is made.
        let is_gone = !names.contains(id.to_hex().as_str())
            && matches!(backend.len(&ObjectName::lease(&id)), Err(BackendError::NotFound(_)));
        if is_gone {
            remove(repository, &id, None)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
