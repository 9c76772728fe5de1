//! Starting what a run that is dead had stopped. Doing it again changes nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::chain;
use super::intent::{Intent, IntentError, IntentService, IntentStore, Phase, Prior, ServiceKind};
use super::nodes::{at_once, by_node};
use super::phases::NotRunning;
use super::site_lock::{LockError, SiteLock, StopLock};
use super::start::{Before, Started, start};
use crate::host::clock::Clock;
use crate::host::commands::{CommandService, Commands};
use crate::host::node::{Node, NodeAddress, NotANode, Ssh, socket_places};
use crate::host::service::{Service, ServiceError};
use crate::host::signal::Interrupt;
use crate::host::systemd::Systemd;

#[cfg(test)]
mod tests;

/// Time in which a stop whose command has ended may still take effect: then a start is asked for, for
/// running says nothing.
const SETTLING: Duration = Duration::from_secs(30);

/// Longest time for a stop that is under way to end.
const LATE_STOP: Duration = Duration::from_secs(600);

/// Time for a connection to another node.
const CONNECT: Duration = Duration::from_secs(10);

/// Makes a service out of what an intent says of it.
pub type MakeService<'a> =
    &'a (dyn Fn(&Intent, &IntentService) -> Result<Arc<dyn Service>, ServiceError> + Sync);

/// What came of one service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was started, or was seen running.
    Runs(String),
    /// It did not run before, and was left alone.
    LeftAlone,
    /// It ran before and does not run now.
    NotRunning(NotRunning),
}

/// One service of an intent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// Site label.
    pub site: String,
    /// The node.
    pub node: String,
    /// The service.
    pub service: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a recovery did.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Service by service, those of intents without an owner.
    pub services: Vec<Recovered>,
    /// Sites whose window is open and whose owner lives: they were left alone.
    pub open: Vec<String>,
    /// Intents that could not be read or removed, or sites that could not be locked. They need a
    /// person.
    pub errors: Vec<RecoverError>,
}

impl Recovery {
    /// What ran before and does not now (exit code 30).
    pub fn not_running(&self) -> impl Iterator<Item = &NotRunning> {
        self.services.iter().filter_map(|one| match &one.outcome {
            Outcome::NotRunning(what) => Some(what),
            _ => None,
        })
    }

    fn add(&mut self, other: Self) {
        self.services.extend(other.services);
        self.open.extend(other.open);
        self.errors.extend(other.errors);
    }
}

/// What kept an intent from being recovered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The intent is damaged, or the state directory cannot be used.
    #[error("a window that was left open cannot be recovered")]
    Intent(#[from] IntentError),
    /// The site's lock.
    #[error("the site {site} cannot be locked")]
    Lock {
        /// Site label.
        site: String,
        /// What happened.
        source: LockError,
    },
    /// Whether the owner lives cannot be told.
    #[error("it cannot be told whether the owner of {site}'s window lives")]
    Owner {
        /// Site label.
        site: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// A service as an intent describes it, on whichever node.
///
/// # Errors
/// A unit name or a node that cannot be one.
pub fn service_of(
    intent: &Intent,
    service: &IntentService,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Service>, ServiceError> {
    Ok(match &service.how {
        ServiceKind::Systemd { unit, sudo } => {
            let address: NodeAddress = service
                .node
                .parse()
                .map_err(|error: NotANode| ServiceError::Node(error.to_string()))?;
            // One handshake and not one for each question: the service is down meanwhile.
            let ssh = Arc::new(Ssh::new(CONNECT).sharing(&socket_places()).eager());
            let node = Node::at(address, &ssh, *sudo, Arc::clone(clock));
            let systemd = Systemd::on(node, unit)?;
            if let Some(group) = &service.cgroup {
                systemd.remember_cgroup(group);
            }
            if service.guarded {
                systemd.remember_guard();
            }
            Arc::new(systemd)
        }
        ServiceKind::Commands { stop, start, status } => {
            let commands = Commands {
                stop: stop.into(),
                start: start.into(),
                status: status.as_ref().map(Into::into),
            };
            let (site, node) = (intent.site.as_ref(), &service.node);
            let service = CommandService::new(commands, site, node, Arc::clone(clock));
            Arc::new(service.within(intent.directory.clone()))
        }
    })
}

/// Recovers all intents whose owner is dead; with `force` those of living owners too.
///
/// # Errors
/// Where the state directory cannot be listed. What is wrong with a single intent is in the result
/// and does not keep the others from being recovered.
pub fn recover(
    state_dir: &Path,
    make: MakeService<'_>,
    clock: &dyn Clock,
    force: bool,
) -> Result<Recovery, IntentError> {
    recover_each(&IntentStore::open(state_dir), make, clock, force, true)
}

/// Recovers all intents whose owner is dead and that nobody else recovers at this moment.
///
/// # Errors
/// As [`recover`].
pub fn recover_all(
    store: &IntentStore,
    make: MakeService<'_>,
    clock: &dyn Clock,
) -> Result<Recovery, IntentError> {
    recover_each(store, make, clock, false, false)
}

fn recover_each(
    store: &IntentStore,
    make: MakeService<'_>,
    clock: &dyn Clock,
    force: bool,
    patient: bool,
) -> Result<Recovery, IntentError> {
    let mut all = Recovery::default();
    for intent in store.list()? {
        match intent {
            Ok(intent) => {
                // A guard may be at it; its end is waited for.
                let dead = patient && !force && intent.is_stale().unwrap_or(false);
                let wait = if dead { longest(&intent) } else { Duration::ZERO };
                all.add(one_site(store, &intent, make, clock, wait, force));
            }
            Err(error) => all.errors.push(error.into()),
        }
    }
    Ok(all)
}

/// Recovers the intent of one site, if there is one and its owner is dead.
pub(super) fn recover_site(
    store: &IntentStore,
    site: &str,
    make: MakeService<'_>,
    clock: &dyn Clock,
) -> Recovery {
    match store.read(site) {
        Ok(Some(intent)) => one_site(store, &intent, make, clock, Duration::ZERO, false),
        Ok(None) => Recovery::default(),
        Err(error) => Recovery { errors: vec![error.into()], ..Recovery::default() },
    }
}

/// Longest time that a recovery of an intent may take.
#[must_use]
pub fn longest(intent: &Intent) -> Duration {
    const MOST: Duration = Duration::from_secs(1800);
    let both = intent.stop_timeout_ms.saturating_add(intent.start_timeout_ms);
    Duration::from_millis(both).min(MOST)
}

/// Recovers the intent of a site whose lock the caller holds: nobody else can be in its window.
///
/// # Errors
/// [`IntentError`] where the intent cannot be read.
pub fn recover_locked(
    store: &IntentStore,
    lock: &SiteLock,
    make: MakeService<'_>,
    clock: &dyn Clock,
) -> Result<Recovery, IntentError> {
    let intent = store.read(lock.site())?;
    Ok(intent.map(|intent| start_all(store, &intent, make, clock)).unwrap_or_default())
}

fn one_site(
    store: &IntentStore,
    intent: &Intent,
    make: MakeService<'_>,
    clock: &dyn Clock,
    wait: Duration,
    force: bool,
) -> Recovery {
    let site = &intent.site;
    let failed = |error| Recovery { errors: vec![error], ..Recovery::default() };
    // A signal does not keep a service down.
    let taken = SiteLock::acquire(store, site, wait, clock, &Interrupt::manual());
    let _lock = match taken {
        Ok(lock) => Some(lock),
        Err(LockError::Busy { .. }) if force => None,
        Err(LockError::Busy { .. }) => {
            return Recovery { open: vec![site.clone()], ..Recovery::default() };
        }
        Err(source) => return failed(RecoverError::Lock { site: site.clone(), source }),
    };
    // It may have been recovered, or replaced, while the lock was not held.
    let intent = match store.read(site) {
        Ok(Some(intent)) => intent,
        Ok(None) => return Recovery::default(),
        Err(error) => return failed(error.into()),
    };
    match intent.is_stale() {
        _ if force => {}
        Ok(true) => {}
        Ok(false) => return Recovery { open: vec![site.clone()], ..Recovery::default() },
        Err(source) => return failed(RecoverError::Owner { site: site.clone(), source }),
    }
    start_all(store, &intent, make, clock)
}

fn start_all(
    store: &IntentStore,
    intent: &Intent,
    make: MakeService<'_>,
    clock: &dyn Clock,
) -> Recovery {
    let mut done = Recovery::default();
    // A stop that the dead owner asked for may be under way: its end comes first.
    let stop_timeout = Duration::from_millis(intent.stop_timeout_ms).min(LATE_STOP);
    let _stopping = StopLock::acquire(store, &intent.site, stop_timeout, clock);
    // One node that does not answer keeps no other one waiting.
    let groups = by_node(intent.services.iter().rev().map(|one| (one.node.clone(), one)));
    let started = at_once(groups, |group| {
        let start = |service: &IntentService| Recovered {
            site: intent.site.clone(),
            node: service.node.clone(),
            service: service.service.clone(),
            outcome: start_one(intent, service, make, clock),
        };
        group.into_iter().map(start).collect::<Vec<_>>()
    });
    done.services.extend(started.into_iter().flatten());
    if done.not_running().next().is_none()
        && let Err(error) = store.remove(&intent.site)
    {
        done.errors.push(error.into());
    }
    done
}

fn start_one(
    intent: &Intent,
    service: &IntentService,
    make: MakeService<'_>,
    clock: &dyn Clock,
) -> Outcome {
    if service.prior == Prior::Stopped {
        return Outcome::LeftAlone;
    }
    let not = |why: String| Outcome::NotRunning(NotRunning::new(service, why));
    let real = match make(intent, service) {
        Ok(real) => real,
        Err(error) => return not(chain(&error)),
    };
    let before = match intent.phase {
        Phase::Armed => Before::Settled,
        Phase::Stopping => {
            Before::Stopping(Duration::from_millis(intent.stop_timeout_ms).min(SETTLING))
        }
        Phase::Starting => Before::Starting,
    };
    let timeout = Duration::from_millis(intent.start_timeout_ms);
    match start(&*real, &service.how, &service.was(), before, timeout, clock) {
        Started::Seen(detail) | Started::Believed(detail) => Outcome::Runs(detail),
        Started::Not(why) => not(why),
    }
}
