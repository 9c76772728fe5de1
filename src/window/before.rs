//! What would keep a window from being proven, looked for before anything is stopped.

use std::time::Duration;

use super::evidence::{self, few};
use super::intent::ServiceKind;
use super::nodes::at_once;
use super::observe::{Observer, Trees};
use super::phases::{Mode, Plan, PlannedService};
use crate::host::clock::Clock;
use crate::host::service::ServiceState;
use crate::host::signal::Interrupt;

/// Why a run of this plan could not become a snapshot, as far as that can be seen now; empty where
/// nothing stands against it.
///
/// Processes of the services' own control groups are expected in the trees until the stop. Where a
/// service that runs has no control group, its processes cannot be told from others, and uses of
/// the trees say nothing yet. Who only reads stands against nothing where events will tell of all
/// changes.
#[must_use]
pub fn obstacles(
    plan: &Plan,
    observer: &dyn Observer,
    trees: &Trees<'_>,
    by_events: bool,
) -> Vec<String> {
    let others = plan.others.iter().map(|other| (false, &**other));
    at_once(std::iter::once((true, observer)).chain(others).collect(), |(here, one)| {
        let exclude = if here { trees.exclude } else { &[] };
        let mut found = on_one(plan, one, &Trees { exclude, ..*trees }, here && by_events);
        if !here {
            found.iter_mut().for_each(|what| *what = format!("{what} (on {})", one.node()));
        }
        found
    })
    .concat()
}

/// What stands against it on one node.
fn on_one(plan: &Plan, observer: &dyn Observer, trees: &Trees<'_>, by_events: bool) -> Vec<String> {
    // A child that a service starts between the listing of its group and the look at all processes
    // seems to be a stranger: only what is there each time is one.
    const LOOKS: usize = 4;
    let against = |look: &evidence::Look| {
        if by_events { look.writing.clone() } else { look.breaking.clone() }
    };
    let node = observer.node();
    let (mut own, mut told_apart) = own_processes(plan, &node, trees);
    let first = evidence::look(observer, &Trees { exclude: &own, ..*trees }, &plan.rules);
    let Some(mut look) = first else { return Vec::new() };
    for _ in 1..LOOKS {
        if against(&look).is_empty() || !told_apart {
            break;
        }
        (own, told_apart) = own_processes(plan, &node, trees);
        let again = evidence::look(observer, &Trees { exclude: &own, ..*trees }, &plan.rules);
        let Some(mut again) = again else { break };
        // Another one each time is a child of the service's too: on another node a look takes longer
        // than such a process may live.
        again.breaking.retain(|one| look.breaking.iter().any(|seen| process(seen) == process(one)));
        look = again;
    }
    let mut found = Vec::new();
    if told_apart && !against(&look).is_empty() {
        found.push(format!("no-process-in-tree: {}", few(&against(&look))));
    }
    if let Some(why) = look.blind
        && !plan.rules.asserts("no-process-in-tree")
    {
        found.push(format!("no-process-in-tree: this cannot be told: {why}"));
    }
    found
}

/// Postpones a stop, for at most `wait`, while the servers' children, or anybody else, use the trees
/// on any node: renderings outlive a stop and would hold the window open. What cannot be looked at
/// is the obstacles' to tell.
pub fn wait_idle(
    plan: &Plan,
    observer: &dyn Observer,
    trees: &Trees<'_>,
    wait: Duration,
    clock: &dyn Clock,
    interrupt: &Interrupt,
) {
    let others = plan.others.iter().map(|other| (false, &**other));
    let all: Vec<_> = std::iter::once((true, observer)).chain(others).collect();
    let began = clock.monotonic();
    loop {
        let idle = at_once(all.clone(), |(here, one)| {
            let own = if here { trees.exclude } else { &[] };
            let servers = servers(plan, &one.node());
            let tolerated: Vec<u32> = own.iter().copied().chain(servers).collect();
            let uses = one.scan(&Trees { exclude: &tolerated, ..*trees });
            uses.map_or(true, |found| found.is_none_or(|found| found.uses.is_empty()))
        });
        let waited = clock.monotonic().saturating_sub(began);
        if idle.into_iter().all(|idle| idle) || waited >= wait || interrupt.is_set() {
            return;
        }
        clock.sleep(Duration::from_secs(1).min(wait - waited));
    }
}

/// The processes that are a node's servers themselves.
fn servers(plan: &Plan, node: &str) -> Vec<u32> {
    let there = plan.services.iter().filter(|planned| planned.service.node() == node);
    there.filter_map(|planned| planned.service.status().ok()?.main_pid).collect()
}

/// The part of a description that names the process.
fn process(described: &str) -> &str {
    described.split_once(" has ").map_or(described, |(process, _)| process)
}

/// The processes of a node's own services, and whether all of them are known.
fn own_processes(plan: &Plan, node: &str, trees: &Trees<'_>) -> (Vec<u32>, bool) {
    let mut own = trees.exclude.to_vec();
    let mut told_apart = true;
    if plan.mode == Mode::StopAndStart {
        // Commands of this machine may run a service on any node.
        let there = |planned: &&PlannedService| {
            planned.service.node() == node || matches!(planned.how, ServiceKind::Commands { .. })
        };
        for planned in plan.services.iter().filter(there) {
            let runs = planned.service.status().map(|status| status.state);
            if matches!(runs, Ok(ServiceState::Stopped)) {
                continue;
            }
            match planned.service.cgroup_processes() {
                Ok(Some(pids)) => own.extend(pids),
                Ok(None) | Err(_) => told_apart = false,
            }
        }
    }
    (own, told_apart)
}
