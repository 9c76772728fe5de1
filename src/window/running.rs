//! The services of one window: on each node stopped in order and started in reverse, all nodes at
//! once, started in any case.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::chain;
use super::intent::{IntentService, IntentStore, Prior, ServiceKind};
use super::nodes::{Everywhere, NodeClock, at_once, by_node};
use super::phases::{AbortReason, Context, NotRunning, Plan, Restarted};
use super::site_lock::{SiteLock, StopLock};
use crate::base::time::Timestamp;
use crate::format::manifest::{Evidence, How, NodeRecord, WindowRecord};
use crate::host::clock::Clock;
use crate::host::service::{Service, ServiceError, ServiceState, ServiceStatus};

/// How often a status that is not understood is asked again, and the time between.
const ASK_AGAIN: u32 = 3;
const ASK_PAUSE: Duration = Duration::from_millis(100);

/// Time in which a service whose stop went wrong may still go down by commands.
const LATE_STOP: Duration = Duration::from_secs(2);

/// A service of the window.
pub(super) struct Watched {
    pub(super) service: Arc<dyn Service>,
    pub(super) intent: IntentService,
    pub(super) was: ServiceStatus,
    /// The run that systemd named right after the stop.
    pub(super) after_stop: Option<ServiceStatus>,
    /// Whether a stop was asked for: then a start is owed.
    asked: bool,
    /// Whether that stop came back with an error.
    stop_failed: bool,
}

impl Watched {
    pub(super) fn new(service: Arc<dyn Service>, how: ServiceKind, was: ServiceStatus) -> Self {
        let intent = IntentService::new(service.node(), service.label(), how, &was);
        Self { service, intent, was, after_stop: None, asked: false, stop_failed: false }
    }

    /// Whether it counts as one that ran before.
    pub(super) fn ran(&self) -> bool {
        self.intent.prior != Prior::Stopped
    }
}

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

/// Starts a service and looks whether it runs.
///
/// systemd is asked in any case: a unit on its way down is still `Running`, and a start waits for
/// its end. A command might start a second one of what runs already.
pub(super) fn start(
    service: &dyn Service,
    how: &ServiceKind,
    was: &ServiceStatus,
    timeout: Duration,
    clock: &dyn Clock,
) -> Started {
    if matches!(how, ServiceKind::Commands { .. })
        && let Ok(status) = ask(service, clock)
        && status.state == ServiceState::Running
    {
        return Started::Seen(format!("it runs already: {}", status.detail));
    }
    if let Err(error) = service.start(timeout, was) {
        return Started::Not(chain(&error));
    }
    match ask(service, clock) {
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

/// Waits until a service by commands is down, for at most `length`. Its state at the end.
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

/// What came of starts and when, by the service's place.
type Starts = BTreeMap<usize, (Started, (Timestamp, Duration))>;

/// The stop of all nodes.
struct Stopping<'a> {
    context: &'a Context,
    timeout: Duration,
    /// When the services are due again, by the monotonic clock.
    due: Duration,
    given_up: AtomicBool,
}

impl Stopping<'_> {
    /// Stops the services of one node in order.
    fn node(&self, group: Vec<&mut Watched>) -> Result<(), AbortReason> {
        for watched in group {
            if self.context.interrupt.is_set() {
                return Err(AbortReason::Interrupted);
            }
            // Another node's error is the one to tell.
            if self.given_up.load(Ordering::SeqCst) {
                return Ok(());
            }
            if let Err(reason) = self.one(watched) {
                self.given_up.store(true, Ordering::SeqCst);
                return Err(reason);
            }
        }
        Ok(())
    }

    fn one(&self, watched: &mut Watched) -> Result<(), AbortReason> {
        let clock = &*self.context.clock;
        let timeout = self.timeout.min(self.due.saturating_sub(clock.monotonic()));
        watched.asked = true;
        let (service, node) = (watched.intent.service.clone(), watched.intent.node.clone());
        if let Err(source) = watched.service.stop(timeout) {
            watched.stop_failed = true;
            return Err(AbortReason::Stop { service, node, source: source.into() });
        }
        let status = match ask(&*watched.service, clock) {
            Ok(status) => status,
            Err(source) => {
                return Err(AbortReason::Stop { service, node, source: source.into() });
            }
        };
        if status.state == ServiceState::Running {
            watched.stop_failed = true;
            return Err(AbortReason::StillRuns { service, node, seen: status.detail });
        }
        watched.after_stop = Some(status);
        Ok(())
    }
}

/// All that a window holds from its first moment to its last.
pub(super) struct Core {
    pub(super) plan: Plan,
    pub(super) context: Context,
    pub(super) services: Vec<Watched>,
    pub(super) evidence: Vec<Evidence>,
    /// How the clocks of other nodes stand.
    pub(super) clocks: Vec<NodeClock>,
    /// When the first stop was asked for.
    began: Option<(Timestamp, Duration)>,
    has_intent: bool,
    closed: bool,
    stop_lock: Option<StopLock>,
    _lock: SiteLock,
}

impl Core {
    pub(super) fn new(
        plan: Plan,
        context: Context,
        services: Vec<Watched>,
        has_intent: bool,
        stop_lock: Option<StopLock>,
        lock: SiteLock,
    ) -> Self {
        Self {
            plan,
            context,
            services,
            evidence: Vec::new(),
            clocks: Vec::new(),
            began: None,
            has_intent,
            closed: false,
            stop_lock,
            _lock: lock,
        }
    }

    /// All that can be seen.
    pub(super) fn everywhere(&self) -> Everywhere<'_> {
        let (local, rules) = (&*self.context.observer, &self.plan.rules);
        Everywhere { local, others: &self.plan.others, rules }
    }

    fn store(&self) -> &IntentStore {
        &self.context.store
    }

    /// Time until the services are due; `None` where none was stopped.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let (_, began) = self.began?;
        let due = began.saturating_add(self.plan.max_downtime);
        Some(due.saturating_sub(self.context.clock.monotonic()))
    }

    pub(super) fn is_over(&self) -> bool {
        self.time_left().is_some_and(|left| left.is_zero())
    }

    /// Stops what runs: the services of a node in order, all nodes at once. When one does not stop,
    /// no further one is asked to.
    pub(super) fn stop_all(&mut self) -> Result<(), AbortReason> {
        if !self.plan.mode.stops() {
            return Ok(());
        }
        let context = &self.context;
        if context.interrupt.is_set() {
            return Err(AbortReason::Interrupted);
        }
        let clock = &*context.clock;
        let (_, began) = *self.began.get_or_insert_with(|| (clock.now(), clock.monotonic()));
        let stopping = Stopping {
            context,
            timeout: self.plan.stop_timeout,
            due: began.saturating_add(self.plan.max_downtime),
            given_up: AtomicBool::new(false),
        };
        let those = self.services.iter_mut().filter(|watched| watched.ran());
        let groups = by_node(those.map(|watched| (watched.intent.node.clone(), watched)));
        // Once for all: what one thread takes back another one may still need.
        let act = || at_once(groups, |group| stopping.node(group));
        let stopped = match &self.stop_lock {
            None => act(),
            Some(lock) => lock.inherited(act).map_err(AbortReason::Lock)?,
        };
        stopped.into_iter().collect()
    }

    /// Starts what was stopped, in reverse, and closes the window; by wish it starts nothing.
    pub(super) fn close(&mut self, leave_stopped: bool) -> Restarted {
        self.closed = true;
        let mut nodes: Vec<NodeRecord> = Vec::new();
        let (mut not_running, mut warnings) = (Vec::new(), Vec::new());
        warnings.extend(self.clocks.iter().filter_map(NodeClock::warning));
        let mut evidence = std::mem::take(&mut self.evidence);
        let mut started_at: Option<(Timestamp, Duration)> = None;
        let mut starts = if leave_stopped { Starts::new() } else { self.start_all() };
        for (index, watched) in self.services.iter().enumerate().rev() {
            let mut runs_after = None;
            if let Some((started, at)) = starts.remove(&index) {
                started_at = started_at.max(Some(at));
                runs_after = Some(!matches!(started, Started::Not(_)));
                evidence.push(started_evidence(&watched.intent, &started));
                if let Started::Not(why) = started {
                    not_running.push(NotRunning::new(&watched.intent, why));
                }
            }
            nodes.push(NodeRecord {
                node: watched.intent.node.clone(),
                service: watched.intent.service.clone(),
                ran_before: watched.ran(),
                runs_after,
            });
        }
        nodes.reverse();
        // What does not run keeps its intent, so that `window recover` tries again.
        if self.has_intent && not_running.is_empty() {
            match self.store().remove(&self.plan.site) {
                Ok(()) => self.has_intent = false,
                Err(error) => warnings.push(chain(&error)),
            }
        }
        if leave_stopped && self.services.iter().any(|watched| watched.asked) {
            warnings.push("the service was left stopped, as was asked for".to_owned());
        }
        // A window that left something down has no end.
        let ended = started_at.filter(|_| not_running.is_empty());
        let record = WindowRecord {
            stopped_at: self.began.map(|(at, _)| at),
            started_at: ended.map(|(at, _)| at),
            downtime_ms: self.began.zip(ended).map(|((_, from), (_, to))| {
                u64::try_from(to.saturating_sub(from).as_millis()).unwrap_or(u64::MAX)
            }),
            nodes,
        };
        Restarted { record, evidence, not_running, warnings }
    }

    /// Starts what was asked to stop: the services of a node in reverse, all nodes at once. What
    /// came of each and when, by its place.
    fn start_all(&self) -> Starts {
        let those = self.services.iter().enumerate().rev().filter(|(_, watched)| watched.asked);
        let groups = by_node(those.map(|one| (one.1.intent.node.clone(), one)));
        let clock = &*self.context.clock;
        let start = |(index, watched): (usize, &Watched)| {
            let started = self.start_one(watched);
            (index, (started, (clock.now(), clock.monotonic())))
        };
        let started = at_once(groups, |group| group.into_iter().map(start).collect::<Vec<_>>());
        started.into_iter().flatten().collect()
    }

    fn start_one(&self, watched: &Watched) -> Started {
        let (service, clock) = (&*watched.service, &*self.context.clock);
        let how = &watched.intent.how;
        if watched.stop_failed && matches!(how, ServiceKind::Commands { .. }) {
            // Its stop may still take effect; without it, it runs on and needs no start.
            wait_for(service, &ServiceState::Stopped, LATE_STOP, clock);
        }
        start(service, how, &watched.was, self.plan.start_timeout, clock)
    }
}

impl Drop for Core {
    /// A courtesy: whoever forgets to close a window does not leave a service down.
    fn drop(&mut self) {
        if !self.closed {
            self.close(false);
        }
    }
}

fn started_evidence(intent: &IntentService, started: &Started) -> Evidence {
    let (held, how, detail) = match started {
        Started::Seen(detail) => (true, How::Observed, detail),
        Started::Believed(detail) => (true, How::Asserted, detail),
        Started::Not(why) => (false, How::Observed, why),
    };
    Evidence {
        check: "service-started".into(),
        subject: intent.service.clone(),
        node: intent.node.clone(),
        scope: scope(&intent.how).into(),
        held,
        how,
        detail: detail.clone(),
    }
}

/// How a service's state is seen.
pub(super) const fn scope(how: &ServiceKind) -> &'static str {
    match how {
        ServiceKind::Systemd { .. } => "unit and control group",
        ServiceKind::Commands { .. } => "status command",
    }
}
