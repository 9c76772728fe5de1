//! The first steps of a snapshot: recovery, and all that is made ready under the lease.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::{SnapshotError, SnapshotInput};
use crate::backend::ObjectName;
use crate::format::control::LeaseBody;
use crate::format::header::ObjectKind;
use crate::ops::session::Session;
use crate::record::catalogue::{self, Catalogue};
use crate::record::memory::Memory;
use crate::store::accelerator::Generation;
use crate::store::lease::Lease;
use crate::store::repository::Repository;
use crate::store::writer::{Writer, WriterOptions};
use crate::window::frozen::FrozenStore;
use crate::window::intent::{IntentError, IntentStore};
use crate::window::phases::NotRunning;
use crate::window::recover::{Recovered, longest, recover_all, recover_locked, service_of};
use crate::window::site_lock::SiteLock;

/// What a run has at hand before it reads.
pub(super) struct Begun {
    pub(super) known: Catalogue,
    pub(super) memory: Memory,
    pub(super) writer: Writer,
    pub(super) believed: HashSet<Generation>,
    pub(super) generation: Generation,
    /// Nothing of the site is kept yet.
    pub(super) first: bool,
}

/// Makes ready what reading needs. Whoever holds the lease gives it up where this fails.
pub(super) fn begin(
    session: &mut Session,
    input: &SnapshotInput<'_>,
    lease: &Lease<'_>,
) -> Result<Begun, SnapshotError> {
    let repository = Arc::clone(&session.repository);
    probe(&repository, lease)?;
    session.sync()?;
    session.accelerator.obey(lease.condemned());
    let known = catalogue::load(&repository)?;
    let memory = Memory::load(&input.state_dir, repository.id(), repository.entropy())?;
    let first = !known.records.iter().any(|r| r.body.site == input.window.site);
    let listed = known.records.iter().map(|r| r.id).collect();
    let believed = session.accelerator.believed(&listed)?;
    let generation = session.accelerator.begin_generation()?;
    let options =
        WriterOptions { level: repository.config().compression, first, min_free: input.min_free };
    let accelerator = Arc::clone(&session.accelerator);
    let writer = Writer::new(repository, accelerator, options, Arc::clone(&input.clock))?;
    Ok(Begun { known, memory, writer, believed, generation, first })
}

/// How long somebody else may still be at recovering what an earlier run of the site left.
pub(super) fn recovery_under_way(store: &IntentStore, site: &str) -> Result<Duration, IntentError> {
    let dead = store.read(site)?.filter(|intent| intent.is_stale().unwrap_or(false));
    Ok(dead.map_or(Duration::ZERO, |intent| longest(&intent)))
}

/// What an earlier run left is recovered before anything else.
pub(super) fn recover_first(
    store: &IntentStore,
    lock: &SiteLock,
    input: &SnapshotInput<'_>,
) -> Result<Vec<String>, SnapshotError> {
    let clock = Arc::clone(&input.clock);
    let make = move |intent: &_, service: &_| service_of(intent, service, &clock);
    let mut recovery = recover_locked(store, lock, &make, &*input.clock)?;
    // The same units may have been stopped under another label: whatever nobody is in is recovered.
    let others = recover_all(store, &make, &*input.clock)?;
    recovery.services.extend(others.services);
    let left: Vec<NotRunning> = recovery.not_running().cloned().collect();
    if !left.is_empty() {
        return Err(SnapshotError::LeftStopped(left));
    }
    let line = |r: &Recovered| format!("an earlier run had left {} stopped: recovered", r.service);
    let swept = FrozenStore::open(&input.state_dir).sweep(&*input.clock);
    let mut said: Vec<String> = recovery.services.iter().map(line).collect();
    // An intent that cannot be read needs a person, who may be told by a run that goes on.
    said.extend(others.errors.iter().map(|error| {
        let below = std::error::Error::source(error).map(|e| format!(": {e}")).unwrap_or_default();
        format!("{error}{below}")
    }));
    let gone =
        |name: &String| format!("an earlier run had left something frozen: {name} is removed");
    said.extend(swept.removed.iter().map(gone));
    said.extend(swept.left);
    Ok(said)
}

/// The lease is the probe: what was written can be read back and opens.
fn probe(repository: &Repository, lease: &Lease<'_>) -> Result<(), SnapshotError> {
    let name = ObjectName::lease(lease.id());
    let _: LeaseBody = repository.get_control(&name, ObjectKind::Lease)?;
    Ok(())
}
