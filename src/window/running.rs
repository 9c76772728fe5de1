//! The services of one window: stopped in order, started in reverse, started in any case.

use std::sync::Arc;
use std::time::Duration;

use super::chain;
use super::intent::{IntentService, IntentStore, Prior, ServiceKind};
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

/// All that a window holds from its first moment to its last.
pub(super) struct Core {
    pub(super) plan: Plan,
    pub(super) context: Context,
    pub(super) services: Vec<Watched>,
    pub(super) evidence: Vec<Evidence>,
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
            began: None,
            has_intent,
            closed: false,
            stop_lock,
            _lock: lock,
        }
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

    /// Stops what runs, in order.
    pub(super) fn stop_all(&mut self) -> Result<(), AbortReason> {
        if !self.plan.mode.stops() {
            return Ok(());
        }
        for at in 0..self.services.len() {
            if self.context.interrupt.is_set() {
                return Err(AbortReason::Interrupted);
            }
            if self.services[at].ran() {
                self.stop_one(at)?;
            }
        }
        Ok(())
    }

    fn stop_one(&mut self, at: usize) -> Result<(), AbortReason> {
        let clock = &self.context.clock;
        self.began.get_or_insert_with(|| (clock.now(), clock.monotonic()));
        let timeout = self.plan.stop_timeout.min(self.time_left().unwrap_or(Duration::MAX));
        let watched = &mut self.services[at];
        watched.asked = true;
        let stop = || watched.service.stop(timeout);
        let stopped = match &self.stop_lock {
            None => stop(),
            Some(lock) => match lock.inherited(stop) {
                Ok(stopped) => stopped,
                Err(error) => {
                    watched.stop_failed = true;
                    return Err(AbortReason::Lock(error));
                }
            },
        };
        let (service, node) = (watched.intent.service.clone(), watched.intent.node.clone());
        if let Err(source) = stopped {
            watched.stop_failed = true;
            return Err(AbortReason::Stop { service, node, source: source.into() });
        }
        let status = match ask(&*watched.service, &*self.context.clock) {
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

    /// Starts what was stopped, in reverse, and closes the window; by wish it starts nothing.
    pub(super) fn close(&mut self, leave_stopped: bool) -> Restarted {
        self.closed = true;
        let mut nodes: Vec<NodeRecord> = Vec::new();
        let (mut not_running, mut warnings) = (Vec::new(), Vec::new());
        let mut evidence = std::mem::take(&mut self.evidence);
        let mut started_at = None;
        for watched in self.services.iter().rev() {
            let mut runs_after = None;
            if watched.asked && !leave_stopped {
                let started = self.start_one(watched);
                started_at = Some((self.context.clock.now(), self.context.clock.monotonic()));
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
