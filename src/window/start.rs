//! Starting a service, after whatever is known of its stop.

use std::time::Duration;

use super::chain;
use super::intent::{IntentService, ServiceKind};
use super::nodes::{at_once, by_node};
use super::phases::{NotRunning, Plan, PlannedService, Restarted};
use crate::host::clock::Clock;
use crate::host::service::{Service, ServiceError, ServiceState, ServiceStatus, Way};

/// How often a status that is not understood is asked again, and the time between.
const ASK_AGAIN: u32 = 3;
const ASK_PAUSE: Duration = Duration::from_millis(100);

/// Time that a start by commands, asked for by whoever died, has to show.
pub(super) const LATE_START: Duration = Duration::from_secs(2);

/// The status, asked again where it could not be told.
pub(super) fn ask(service: &dyn Service, clock: &dyn Clock) -> Result<ServiceStatus, ServiceError> {
    let mut tries = 1;
    loop {
        let answer = service.status();
        let told = matches!(&answer, Ok(s) if !matches!(s.state, ServiceState::Unknown(_)));
        if told || tries == ASK_AGAIN || matches!(answer, Err(ServiceError::UnknownUnit(_))) {
            return answer;
        }
        tries += 1;
        clock.sleep(ASK_PAUSE);
    }
}

/// What came of a start.
pub(super) enum Started {
    /// It was seen running.
    Seen(String),
    /// The start succeeded, and nothing tells whether it runs.
    Believed(String),
    /// It does not run.
    Not(String),
}

/// What is known of a service by commands that is to run. systemd needs none of it: a unit on its
/// way down is still `Running`, and a start waits for its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Before {
    /// No stop can take effect any more: where it runs, it is left alone.
    Settled,
    /// A stop was asked for, which may take effect within this time: until then, running says
    /// nothing.
    Stopping(Duration),
    /// A start was asked for and may be under way: a second one might start two.
    Starting,
}

/// Starts a service and looks whether it runs.
pub(super) fn start(
    service: &dyn Service,
    how: &ServiceKind,
    was: &ServiceStatus,
    before: Before,
    timeout: Duration,
    clock: &dyn Clock,
) -> Started {
    if matches!(how, ServiceKind::Commands { .. })
        && let Some(running) = runs_without(service, before, clock)
    {
        return Started::Seen(format!("it runs already: {running}"));
    }
    let deadline = clock.monotonic().saturating_add(timeout);
    if let Err(error) = service.start(timeout, was) {
        return Started::Not(chain(&error));
    }
    match ask_until_up(service, deadline, clock) {
        Ok(ServiceStatus { state: ServiceState::Running, way: Some(way), detail, .. }) => {
            let to = if way == Way::Up { "not up in time" } else { "on its way down" };
            Started::Not(format!("the start succeeded, and it is {to}: {detail}"))
        }
        Ok(ServiceStatus { state: ServiceState::Running, detail, .. }) => Started::Seen(detail),
        Ok(ServiceStatus { state: ServiceState::Stopped, detail, .. }) => {
            Started::Not(format!("the start succeeded, and it does not run: {detail}"))
        }
        // It could never be told, and the start command succeeded.
        Ok(status) if matches!(was.state, ServiceState::Unknown(_)) => {
            Started::Believed(format!("the start succeeded: {}", status.detail))
        }
        Ok(status) => Started::Not(format!("its status cannot be told: {}", status.detail)),
        Err(error) => Started::Not(chain(&error)),
    }
}

/// What the status says, where the service runs and needs no start.
fn runs_without(service: &dyn Service, before: Before, clock: &dyn Clock) -> Option<String> {
    let running = || ask(service, clock).ok().filter(|s| s.state == ServiceState::Running);
    match before {
        Before::Settled => running().map(|status| status.detail),
        Before::Starting => {
            wait_for(service, &ServiceState::Running, LATE_START, clock);
            running().map(|status| status.detail)
        }
        Before::Stopping(within) => {
            let began = clock.monotonic();
            while running().is_some() && clock.monotonic().saturating_sub(began) < within {
                clock.sleep(ASK_PAUSE);
            }
            None
        }
    }
}

/// The status, asked until the service is neither on its way up nor down, or until the deadline:
/// one that waits to be started again after it fell over does not run.
fn ask_until_up(
    service: &dyn Service,
    deadline: Duration,
    clock: &dyn Clock,
) -> Result<ServiceStatus, ServiceError> {
    loop {
        let status = ask(service, clock)?;
        if status.way.is_none() || clock.monotonic() >= deadline {
            return Ok(status);
        }
        clock.sleep(ASK_PAUSE);
    }
}

/// Looks once more at what a window had started: a service that fell over soon after its start does
/// not run, whatever was seen then. What does not run now.
pub fn fell_over(plan: &Plan, closed: &Restarted, clock: &dyn Clock) -> Vec<NotRunning> {
    let ran = |one: &&PlannedService| {
        let (node, service) = (one.service.node(), one.service.label());
        closed.record.nodes.iter().any(|record| {
            record.runs_after == Some(true) && (&record.node, &record.service) == (&node, &service)
        })
    };
    let those = plan.services.iter().filter(ran).map(|one| (one.service.node(), one));
    let looked = at_once(by_node(those), |group| {
        let fell = |one: &&PlannedService| {
            let deadline = clock.monotonic().saturating_add(plan.start_timeout);
            let status = ask_until_up(&*one.service, deadline, clock).ok()?;
            // What cannot be told now was seen running before.
            let down = status.state == ServiceState::Stopped
                || (status.state == ServiceState::Running && status.way.is_some());
            let why = format!("it was started, and runs no more: {}", status.detail);
            let intent = || {
                let (node, label) = (one.service.node(), one.service.label());
                IntentService::new(node, label, one.how.clone(), &status)
            };
            down.then(|| NotRunning::new(&intent(), why))
        };
        group.iter().filter_map(fell).collect::<Vec<_>>()
    });
    looked.concat()
}

/// Waits until a service is in this state, for at most `length`. Whether it is.
pub(super) fn wait_for(
    service: &dyn Service,
    wanted: &ServiceState,
    length: Duration,
    clock: &dyn Clock,
) -> bool {
    let began = clock.monotonic();
    loop {
        if ask(service, clock).is_ok_and(|status| status.state == *wanted) {
            return true;
        }
        if clock.monotonic().saturating_sub(began) >= length {
            return false;
        }
        clock.sleep(ASK_PAUSE);
    }
}
