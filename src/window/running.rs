//! The services of one window: on each node stopped in order and started in reverse, all nodes at
//! once, started in any case.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::chain;
use super::guard::Standing;
use super::health;
use super::intent::{Intent, IntentError, IntentService, IntentStore, Phase, Prior, ServiceKind};
use super::nodes::{Everywhere, NodeClock, at_once, by_node};
use super::phases::{
    AbortReason, Context, NotRunning, Plan, PlannedService, Restarted, disarm_nodes,
};
use super::site_lock::{SiteLock, StopLock};
use super::start::{Before, Started, ask, start, wait_for};
use super::timings::Marks;
use super::visitor::Gate;
use crate::base::time::Timestamp;
use crate::format::manifest::{Evidence, How, NodeRecord, WindowRecord};
use crate::host::run::RunError;
use crate::host::service::{Precaution, Service, ServiceError, ServiceState, ServiceStatus};

/// Time in which a service whose stop went wrong may still go down by commands.
const LATE_STOP: Duration = Duration::from_secs(2);

/// A stop that went wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FailedStop {
    /// It was refused, or could not even be asked for.
    Refused,
    /// It was asked for, and may take effect at any time.
    Pending,
}

impl FailedStop {
    fn of(error: &ServiceError) -> Self {
        match error {
            ServiceError::Failed { .. }
            | ServiceError::Run { source: RunError::Spawn { .. } | RunError::Empty, .. } => {
                Self::Refused
            }
            _ => Self::Pending,
        }
    }
}

/// A service of the window.
pub(super) struct Watched {
    pub(super) service: Arc<dyn Service>,
    pub(super) precaution: Option<Arc<dyn Precaution>>,
    pub(super) intent: IntentService,
    pub(super) was: ServiceStatus,
    /// The run that systemd named right after the stop.
    pub(super) after_stop: Option<ServiceStatus>,
    /// Whether a stop was asked for: then a start is owed.
    asked: bool,
    /// How that stop failed, if it did.
    stop_failed: Option<FailedStop>,
}

impl Watched {
    pub(super) fn new(planned: &PlannedService, was: ServiceStatus) -> Self {
        let service = Arc::clone(&planned.service);
        let precaution = planned.precaution.clone();
        let how = planned.how.clone();
        let intent = IntentService::new(service.node(), service.label(), how, &was);
        Self { precaution, service, intent, was, after_stop: None, asked: false, stop_failed: None }
    }

    /// Whether it counts as one that ran before.
    pub(super) fn ran(&self) -> bool {
        self.intent.prior != Prior::Stopped
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
        let left = self.due.saturating_sub(clock.monotonic());
        let (service, node) = (watched.intent.service.clone(), watched.intent.node.clone());
        if left.is_zero() {
            return Err(AbortReason::TooLate { service, node });
        }
        watched.asked = true;
        if let Err(source) = watched.service.stop(self.timeout.min(left)) {
            watched.stop_failed = Some(FailedStop::of(&source));
            return Err(AbortReason::Stop { service, node, source: source.into() });
        }
        let status = match ask(&*watched.service, clock) {
            Ok(status) => status,
            Err(source) => {
                return Err(AbortReason::Stop { service, node, source: source.into() });
            }
        };
        if status.state == ServiceState::Running {
            watched.stop_failed = Some(FailedStop::Pending);
            return Err(AbortReason::StillRuns { service, node, seen: status.detail });
        }
        watched.after_stop = Some(status);
        Ok(())
    }
}

/// What a window that stops something has in place before.
#[derive(Default)]
pub(super) struct OnDisk {
    /// When that was, by the monotonic clock.
    pub(super) at: Duration,
    pub(super) intent: Option<Intent>,
    pub(super) guard: Option<Box<dyn Standing>>,
    pub(super) stop_lock: Option<StopLock>,
}

/// Notes how far the window is, where whoever comes after this process finds it.
fn note(intent: &mut Option<Intent>, phase: Phase, context: &Context) -> Result<(), IntentError> {
    let Some(intent) = intent else { return Ok(()) };
    intent.phase = phase;
    context.store.write(intent)
}

/// All that a window holds from its first moment to its last.
pub(super) struct Core {
    pub(super) plan: Plan,
    pub(super) context: Context,
    pub(super) services: Vec<Watched>,
    pub(super) evidence: Vec<Evidence>,
    /// What is on disk of it.
    intent: Option<Intent>,
    /// What watches over it.
    guard: Option<Box<dyn Standing>>,
    /// How the clocks of other nodes stand.
    pub(super) clocks: Vec<NodeClock>,
    /// When the first stop was asked for.
    began: Option<(Timestamp, Duration)>,
    /// When its parts ended.
    pub(super) marks: Marks,
    /// When everything was ready for it: the longest downtime counts from here.
    armed_at: Duration,
    closed: bool,
    stop_lock: Option<StopLock>,
    /// Keeps away who reads the living site.
    gate: Option<Gate>,
    /// Whether somebody stayed all the same.
    visited: bool,
    _lock: SiteLock,
}

impl Core {
    pub(super) fn new(
        plan: Plan,
        context: Context,
        services: Vec<Watched>,
        armed: Option<OnDisk>,
        lock: SiteLock,
    ) -> Self {
        let OnDisk { at, intent, guard, stop_lock } = armed.unwrap_or_default();
        Self {
            armed_at: at,
            plan,
            context,
            services,
            evidence: Vec::new(),
            clocks: Vec::new(),
            began: None,
            marks: Marks::default(),
            intent,
            guard,
            closed: false,
            stop_lock,
            gate: None,
            visited: false,
            _lock: lock,
        }
    }

    /// Keeps visitors away while the window is open; `all_left` says whether those inside left.
    pub(super) fn admit_nobody(&mut self, (gate, all_left): (Gate, bool)) {
        self.gate = Some(gate);
        self.visited = !all_left;
    }

    /// All that can be seen.
    pub(super) fn everywhere(&self) -> Everywhere<'_> {
        let (local, rules) = (&*self.context.observer, &self.plan.rules);
        Everywhere { local, others: &self.plan.others, rules }
    }

    fn store(&self) -> &IntentStore {
        &self.context.store
    }

    /// When the services are due, by the monotonic clock; `None` where none was stopped.
    pub(super) fn due(&self) -> Option<Duration> {
        self.began?;
        Some(self.armed_at.saturating_add(self.plan.max_downtime))
    }

    /// Time until the services are due; `None` where none was stopped.
    pub(super) fn time_left(&self) -> Option<Duration> {
        Some(self.due()?.saturating_sub(self.context.clock.monotonic()))
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
        note(&mut self.intent, Phase::Stopping, context).map_err(AbortReason::Intent)?;
        self.began.get_or_insert_with(|| (clock.now(), clock.monotonic()));
        let stopping = Stopping {
            context,
            timeout: self.plan.stop_timeout,
            due: self.armed_at.saturating_add(self.plan.max_downtime),
            given_up: AtomicBool::new(false),
        };
        let those = self.services.iter_mut().filter(|watched| watched.ran());
        let groups = by_node(those.map(|watched| (watched.intent.node.clone(), watched)));
        // Once for all: what one thread takes back another one may still need.
        let act = || at_once(groups, |group| stopping.node(group));
        // From here on it tells of commands that outlive this, and no longer of this process.
        let stopped = match self.stop_lock.take() {
            None => act(),
            Some(lock) => lock.inherited(act).map_err(AbortReason::Lock)?,
        };
        self.marks.stopped.get_or_init(|| clock.monotonic());
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
                evidence.push(started_evidence(&watched.intent, &started, at.0));
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
        if self.intent.is_some() && not_running.is_empty() {
            match self.store().remove(&self.plan.site) {
                Ok(()) => self.intent = None,
                Err(error) => warnings.push(chain(&error)),
            }
        }
        // A start that succeeded did that itself; one that failed is left to the node's own timer.
        warnings.extend(disarm_nodes(&self.services, |watched| leave_stopped || !watched.asked));
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
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
            frozen: Vec::new(),
            phases: self
                .began
                .zip(ended)
                .and_then(|((_, from), (_, to))| self.marks.phases(from, to)),
        };
        self.gate = None;
        if self.visited {
            let stayed = "somebody who read the living site did not close its files in time";
            warnings.push(stayed.to_owned());
        }
        let unwell = ended.and_then(|_| self.ask_health(&mut evidence));
        Restarted { record, evidence, not_running, unwell, warnings }
    }

    /// Asks whether what was started is well. The window is closed: nobody waits for the answer but
    /// this run.
    fn ask_health(&self, evidence: &mut [Evidence]) -> Option<String> {
        let health = self.plan.health.as_ref().filter(|_| !self.context.interrupt.is_set())?;
        health::look(&**health, self.plan.start_timeout, &self.context, evidence)
    }

    /// Starts what was asked to stop: the services of a node in reverse, all nodes at once. What
    /// came of each and when, by its place.
    fn start_all(&mut self) -> Starts {
        if self.services.iter().any(|watched| watched.asked) {
            // The start is not kept waiting by a disk that does not take the note: without it a
            // recovery waits for the stop to take effect, and starts all the same.
            let _ = note(&mut self.intent, Phase::Starting, &self.context);
        }
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
        let seen = watched.after_stop.as_ref().map(|status| &status.state);
        let before = match (watched.stop_failed, seen) {
            (Some(FailedStop::Refused), _) => {
                if matches!(how, ServiceKind::Commands { .. }) {
                    // It may have gone down all the same; else it runs on and needs no start.
                    wait_for(service, &ServiceState::Stopped, LATE_STOP, clock);
                }
                Before::Settled
            }
            (Some(FailedStop::Pending), _) => Before::Stopping(LATE_STOP),
            (None, Some(ServiceState::Stopped)) => Before::Settled,
            (None, _) => Before::Stopping(Duration::ZERO),
        };
        start(service, how, &watched.was, before, self.plan.start_timeout, clock)
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

fn started_evidence(intent: &IntentService, started: &Started, at: Timestamp) -> Evidence {
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
        looked_at: vec![at],
    }
}

/// How a service's state is seen.
pub(super) const fn scope(how: &ServiceKind) -> &'static str {
    match how {
        ServiceKind::Systemd { .. } => "unit and control group",
        ServiceKind::Commands { .. } => "status command",
    }
}
