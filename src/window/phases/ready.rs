//! What is made ready before the first stop.

use std::sync::Arc;
use std::time::Duration;

use super::{ArmError, Context, Plan};
use crate::base::time::Timestamp;
use crate::host::clock::Clock;
use crate::host::service::{Service, ServiceStatus, Way};
use crate::window::guard::{GuardError, Hold};
use crate::window::intent::Intent;
use crate::window::nodes::{at_once, by_node};
use crate::window::running::{OnDisk, Watched};
use crate::window::site_lock::StopLock;
use crate::window::start::ask;

/// Time past the longest downtime at which a node's own timer starts its service.
const TIMER_MARGIN: Duration = Duration::from_secs(1);

/// The intent is on disk, and whoever acts on it if this process cannot is at its post.
pub(super) fn put_in_place(
    plan: &Plan,
    services: &mut [Watched],
    context: &Context,
) -> Result<OnDisk, ArmError> {
    let clock = &*context.clock;
    // The longest downtime counts from before the timers: none fires in a window that is in time.
    let at = clock.monotonic();
    // Something that an earlier stop left alive may hold it; that is no reason to refuse.
    let stop_lock = StopLock::acquire(&context.store, &plan.site, Duration::ZERO, clock)?;
    // On disk before the first of them is armed: whoever comes after a kill takes all of it away.
    for watched in services.iter_mut().filter(|watched| watched.ran()) {
        watched.intent.guarded = watched.precaution.is_some();
    }
    let intent = intent_of(plan, services, clock)?;
    context.store.write(&intent)?;
    let armed = context.guards.arm(&intent).and_then(|guard| {
        let hold = Hold { deadline: intent.deadline, owner: intent.owner.clone() };
        match arm_nodes(plan, services, &hold) {
            Ok(()) => Ok(guard),
            Err(error) => {
                guard.dismiss();
                Err(error)
            }
        }
    });
    match armed {
        Ok(guard) => Ok(OnDisk { at, intent: Some(intent), guard: Some(guard), stop_lock }),
        Err(error) => {
            context.store.remove(&plan.site)?;
            Err(error.into())
        }
    }
}

/// Arms what each node does by itself; where one cannot, all are disarmed.
fn arm_nodes(plan: &Plan, services: &[Watched], hold: &Hold) -> Result<(), GuardError> {
    let text = serde_json::to_string(hold).unwrap_or_default();
    let after = plan.max_downtime.saturating_add(TIMER_MARGIN);
    let those = services.iter().filter(|watched| watched.ran());
    let groups = by_node(those.map(|watched| (watched.intent.node.clone(), watched)));
    let armed = at_once(groups, |group: Vec<&Watched>| {
        for watched in group {
            let Some(precaution) = watched.precaution.as_ref().map(Arc::clone) else { continue };
            let (service, node) = (watched.intent.service.clone(), watched.intent.node.clone());
            // This machine has a guard that recovers, and needs no timer.
            let after = (node != "local").then_some(after);
            precaution.arm(after, &text).map_err(|source| GuardError::Timer {
                service,
                node,
                source: source.into(),
            })?;
        }
        Ok(())
    });
    let done: Result<(), GuardError> = armed.into_iter().collect();
    if done.is_err() {
        disarm_nodes(services, |_| true);
    }
    done
}

/// Takes away what nodes would do by themselves for some services. What could not be taken away.
pub(in crate::window) fn disarm_nodes(
    services: &[Watched],
    which: impl Fn(&Watched) -> bool,
) -> Vec<String> {
    let those = services.iter().filter(|watched| watched.intent.guarded && which(watched));
    let groups = by_node(those.map(|watched| (watched.intent.node.clone(), watched)));
    let done = at_once(groups, |group: Vec<&Watched>| {
        let disarm = |watched: &&Watched| watched.precaution.as_ref()?.disarm().err();
        group
            .iter()
            .filter_map(disarm)
            .map(|error| crate::window::chain(&error))
            .collect::<Vec<_>>()
    });
    done.concat()
}

fn intent_of(plan: &Plan, services: &[Watched], clock: &dyn Clock) -> Result<Intent, ArmError> {
    let millis = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let now = clock.now();
    let secs = i64::try_from(plan.max_downtime.as_secs()).unwrap_or(i64::MAX);
    let deadline = Timestamp { secs: now.secs.saturating_add(secs), nanos: now.nanos };
    let mut intent = Intent::new(&plan.site, now, deadline).map_err(ArmError::Identity)?;
    intent.stop_timeout_ms = millis(plan.stop_timeout);
    intent.start_timeout_ms = millis(plan.start_timeout);
    intent.services = services.iter().map(|watched| watched.intent.clone()).collect();
    Ok(intent)
}

/// Waits for the end of a stop that somebody else asked for: whoever goes down does not run, and who
/// wanted that would not want a start.
pub(super) fn settled(
    service: &dyn Service,
    mut was: ServiceStatus,
    plan: &Plan,
    clock: &dyn Clock,
) -> Result<ServiceStatus, ArmError> {
    const LONGEST: Duration = Duration::from_secs(30);
    let until = clock.monotonic().saturating_add(LONGEST.min(plan.stop_timeout));
    while was.way == Some(Way::Down) {
        let (label, node) = (service.label(), service.node());
        if clock.monotonic() >= until {
            return Err(ArmError::GoesDown { service: label, node, seen: was.detail });
        }
        clock.sleep(Duration::from_millis(250));
        was = ask(service, clock).map_err(|source| ArmError::Status {
            service: label,
            node,
            source: source.into(),
        })?;
    }
    Ok(was)
}
