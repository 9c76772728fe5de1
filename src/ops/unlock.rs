//! `unlock`: removing leases whose holders are gone.

use super::session::SessionError;
use crate::format::control::LeaseBody;
use crate::host::machine;
use crate::store::lease;
use crate::store::repository::Repository;

/// What became of the leases.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unlocked {
    /// Removed: known dead, or of the host that the operator named.
    pub removed: Vec<LeaseBody>,
    /// Held by a living process of this machine.
    pub alive: Vec<LeaseBody>,
    /// Of other machines, of which nothing is known.
    pub unknown: Vec<LeaseBody>,
}

/// Removes the leases of this machine whose holders are dead and, where the operator says that
/// nobody is alive there, those of another machine. A living holder of this machine is never broken.
///
/// # Errors
/// The storage's; a damaged lease.
pub fn unlock(repository: &Repository, host: Option<&str>) -> Result<Unlocked, SessionError> {
    let here = machine::hostname().map_err(SessionError::Machine)?;
    let mut done = Unlocked::default();
    for found in lease::list(repository, &here)? {
        let local = repository.backend().local().is_some() && found.body.holder.host == here;
        let named = !local && host.is_some_and(|host| found.body.holder.host == host);
        if found.dead || named {
            lease::break_dead(repository, &found.body.id)?;
            done.removed.push(found.body);
        } else if local {
            done.alive.push(found.body);
        } else {
            done.unknown.push(found.body);
        }
    }
    lease::clear_ends(repository)?;
    Ok(done)
}
