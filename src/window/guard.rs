//! What starts the services if this process cannot: guards outside of it, armed before the first
//! stop, once the intent is on disk.
//!
//! Several may fire, for a recovery that is done again changes nothing. While its owner lives a guard
//! does nothing until the longest downtime is over; from then on it starts what does not run.

use std::sync::Arc;
use std::time::Duration;

use super::chain;
use super::intent::{Intent, IntentService, IntentStore, Owner, Phase, Prior, ServiceKind};
use super::recover::{MakeService, recover_site};
use super::start::{Before, LATE_START, Started, ask, start};
use crate::host::clock::Clock;
use crate::host::machine;
use crate::host::service::{Service, ServiceState};
use crate::host::watchdog::News;

mod arm;
mod hold;
#[cfg(test)]
mod tests;

pub use arm::{GuardError, GuardUnits, Guards, NoGuards, OutsideGuards, Standing, by_process};
pub use hold::{HOLDS, Hold, sweep_holds};

/// Time past the longest downtime at which a guard acts: whoever lives was faster then.
pub const MARGIN: Duration = Duration::from_secs(2);

/// Time between two looks of a guard that is past the longest downtime.
const LOOK: Duration = Duration::from_millis(500);

/// Time between two tries to recover: first while the dead owner's lock goes, then as long as the
/// service does not start.
const TRIES: [Duration; 9] = [
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
];

/// How often the longest of these pauses is made: a quarter of an hour in all.
const LAST_TRIES: usize = 6;

/// How a guard's watch ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The window was closed in order.
    InOrder,
    /// The owner died, and what it had stopped was recovered, by this guard or somebody else.
    Recovered,
    /// The owner died, and something does not run: the intent is left for `window recover`.
    Down,
}

/// A guard of one window.
pub struct Guard<'a> {
    /// Where the intent is.
    pub store: &'a IntentStore,
    /// The intent that it found when it was armed.
    pub intent: Intent,
    /// How services are reached.
    pub make: MakeService<'a>,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Notes what it does.
    pub log: &'a dyn Fn(&str),
}

impl Guard<'_> {
    /// Watches until the window is closed or its owner is dead; past `within` it starts what does
    /// not run. `news` waits for at most the time that it is given, and `fire` is called before
    /// anything is started.
    pub fn stand(
        &self,
        within: Duration,
        news: &mut dyn FnMut(Duration) -> Option<News>,
        fire: &mut dyn FnMut(),
    ) -> Ended {
        let due = self.clock.monotonic().saturating_add(within);
        let mut overdue: Option<Overdue<'_>> = None;
        loop {
            let left = due.saturating_sub(self.clock.monotonic());
            let wait = if left.is_zero() {
                let overdue = overdue.get_or_insert_with(|| {
                    fire();
                    (self.log)("the longest downtime is over and the window is still open");
                    Overdue::new(self)
                });
                overdue.look();
                LOOK
            } else {
                left
            };
            match news(wait) {
                None => {}
                Some(News::Closed) => return Ended::InOrder,
                Some(News::Gone) => {
                    fire();
                    return self.recover();
                }
            }
        }
    }

    /// The owner is dead, or as good as: tries until its intent is gone.
    fn recover(&self) -> Ended {
        let site = &self.intent.site;
        if !self.is_ours() {
            return Ended::Recovered;
        }
        (self.log)("the window's owner is gone: starting what it had stopped");
        let last = TRIES[TRIES.len() - 1];
        for pause in TRIES.into_iter().chain([last; LAST_TRIES]) {
            let done = recover_site(self.store, site, self.make, self.clock);
            for service in done.services {
                (self.log)(&format!(
                    "{} on {}: {:?}",
                    service.service, service.node, service.outcome
                ));
            }
            done.errors.iter().for_each(|error| (self.log)(&chain(error)));
            if !self.is_ours() {
                sweep_holds(&HOLDS.into(), self.clock);
                return Ended::Recovered;
            }
            self.clock.sleep(pause);
        }
        Ended::Down
    }

    /// Whether the intent on disk is still the one that this guard is about. One that cannot be
    /// read is.
    fn is_ours(&self) -> bool {
        let read = self.store.read(&self.intent.site);
        read.map_or(true, |found| found.is_some_and(|found| self.same(&found)))
    }

    fn same(&self, found: &Intent) -> bool {
        (&found.owner, found.time) == (&self.intent.owner, self.intent.time)
    }
}

/// A window whose owner lives, and is past its time.
struct Overdue<'a> {
    guard: &'a Guard<'a>,
    services: Vec<(&'a IntentService, Option<Arc<dyn Service>>)>,
    /// Services whose state nobody can tell are started once.
    believed: Vec<bool>,
    since: Duration,
    /// When it was seen that a start was asked for.
    starting: Option<Duration>,
}

impl<'a> Overdue<'a> {
    fn new(guard: &'a Guard<'a>) -> Self {
        sweep_holds(&HOLDS.into(), guard.clock);
        let intent = &guard.intent;
        let reached = |one: &'a IntentService| {
            let made = (guard.make)(intent, one);
            made.map_err(|error| (guard.log)(&chain(&error))).ok()
        };
        let ran = intent.services.iter().rev().filter(|one| one.prior != Prior::Stopped);
        let services: Vec<_> = ran.map(|one| (one, reached(one))).collect();
        let believed = vec![false; services.len()];
        let since = guard.clock.monotonic();
        Self { guard, services, believed, since, starting: None }
    }

    /// Starts what does not run. The intent stays: its owner may go on to stop something.
    fn look(&mut self) {
        let (guard, clock) = (self.guard, self.guard.clock);
        let Ok(Some(found)) = guard.store.read(&guard.intent.site) else { return };
        if !guard.same(&found) || found.phase == Phase::Armed {
            return;
        }
        let timeout = Duration::from_millis(found.start_timeout_ms);
        if found.phase == Phase::Starting {
            let since = *self.starting.get_or_insert_with(|| clock.monotonic());
            let halted = is_halted(&found.owner);
            let grace = if halted { LATE_START } else { timeout };
            if clock.monotonic().saturating_sub(since) < grace {
                return;
            }
        }
        for ((one, service), believed) in self.services.iter().zip(&mut self.believed) {
            let Some(service) = service else { continue };
            let commands = matches!(one.how, ServiceKind::Commands { .. });
            // A stop by a command may be about to end.
            if commands && clock.monotonic().saturating_sub(self.since) < LATE_START {
                continue;
            }
            match ask(&**service, clock).map(|status| status.state) {
                Ok(ServiceState::Running) => continue,
                Ok(ServiceState::Stopped) => {}
                Ok(ServiceState::Unknown(_)) | Err(_) if *believed => continue,
                Ok(ServiceState::Unknown(_)) | Err(_) => {}
            }
            *believed = true;
            let was = one.was();
            let started = start(&**service, &one.how, &was, Before::Settled, timeout, clock);
            let what = match started {
                Started::Seen(detail) | Started::Believed(detail) => format!("started: {detail}"),
                Started::Not(why) => format!("not started: {why}"),
            };
            (guard.log)(&format!("{} on {}: {what}", one.service, one.node));
        }
    }
}

/// What cannot be told counts as halted: the service is due.
fn is_halted(owner: &Owner) -> bool {
    machine::process_halted(owner.pid, owner.start_time).unwrap_or(true)
}
