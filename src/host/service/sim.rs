//! A service that only exists in memory, whose failures can be scripted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Action, Service, ServiceError, ServiceState, ServiceStatus};
use crate::host::clock::Clock;

/// Something that goes wrong once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SimFault {
    /// The next stop fails at once, with this output; the service runs on.
    StopFails(String),
    /// The next stop takes all its time and fails; the service runs on.
    StopHangs,
    /// The next start fails at once, with this output; the service stays stopped.
    StartFails(String),
    /// The next start succeeds, and the service does not run.
    StartDies,
    /// The next status cannot be told.
    StatusUnknown(String),
    /// The next question for the status fails, with this output.
    StatusFails(String),
}

impl SimFault {
    fn action(&self) -> Action {
        match self {
            Self::StopFails(_) | Self::StopHangs => Action::Stop,
            Self::StartFails(_) | Self::StartDies => Action::Start,
            Self::StatusUnknown(_) | Self::StatusFails(_) => Action::Status,
        }
    }
}

struct State {
    running: bool,
    runs: u64,
    faults: VecDeque<SimFault>,
    calls: Vec<Action>,
    left_behind: Vec<u32>,
}

/// A service in memory.
pub struct SimService {
    label: String,
    node: String,
    clock: Arc<dyn Clock>,
    takes: Duration,
    state: Mutex<State>,
}

impl SimService {
    /// A service that runs, and stops and starts at once.
    #[must_use]
    pub fn new(label: &str, node: &str, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            running: true,
            runs: 1,
            faults: VecDeque::new(),
            calls: Vec::new(),
            left_behind: Vec::new(),
        };
        Self {
            label: label.to_owned(),
            node: node.to_owned(),
            clock,
            takes: Duration::ZERO,
            state: Mutex::new(state),
        }
    }

    /// The same service, whose stop and start each take this long.
    #[must_use]
    pub fn taking(mut self, length: Duration) -> Self {
        self.takes = length;
        self
    }

    /// Lets something go wrong at the next call that it is about; several queue up.
    pub fn script(&self, fault: SimFault) {
        self.lock().faults.push_back(fault);
    }

    /// Starts or stops it behind everybody's back, as an operator would.
    pub fn set_running(&self, running: bool) {
        let mut state = self.lock();
        if running && !state.running {
            state.runs += 1;
        }
        state.running = running;
    }

    /// Processes that are in the control group whether the service runs or not.
    pub fn leave_behind(&self, pids: Vec<u32>) {
        self.lock().left_behind = pids;
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.lock().running
    }

    /// What it was asked so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Action> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the call and takes the next fault about it.
    fn enter(&self, action: Action) -> Option<SimFault> {
        let mut state = self.lock();
        state.calls.push(action);
        let at = state.faults.iter().position(|fault| fault.action() == action)?;
        state.faults.remove(at)
    }

    fn failed(&self, action: Action, output: String) -> ServiceError {
        let ending = "exit code 1".to_owned();
        ServiceError::Failed { label: self.label.clone(), action, ending, output }
    }
}

impl Service for SimService {
    fn label(&self) -> String {
        self.label.clone()
    }

    fn node(&self) -> String {
        self.node.clone()
    }

    fn status(&self) -> Result<ServiceStatus, ServiceError> {
        match self.enter(Action::Status) {
            Some(SimFault::StatusFails(output)) => Err(self.failed(Action::Status, output)),
            Some(SimFault::StatusUnknown(seen)) => {
                Ok(ServiceStatus::bare(ServiceState::Unknown(seen.clone()), seen))
            }
            _ => {
                let state = self.lock();
                let (now, detail) = if state.running {
                    (ServiceState::Running, "active/running")
                } else {
                    (ServiceState::Stopped, "inactive/dead")
                };
                Ok(ServiceStatus {
                    invocation_id: Some(format!("{:032x}", state.runs)),
                    main_pid: state.running.then_some(1_000_000),
                    cgroup: Some(format!("/sim/{}", self.label)),
                    active_enter: Some(state.runs.to_string()),
                    ..ServiceStatus::bare(now, detail)
                })
            }
        }
    }

    fn stop(&self, timeout: Duration) -> Result<(), ServiceError> {
        match self.enter(Action::Stop) {
            Some(SimFault::StopFails(output)) => return Err(self.failed(Action::Stop, output)),
            Some(SimFault::StopHangs) => {
                self.clock.sleep(timeout);
                let output = "active/running".to_owned();
                let label = self.label.clone();
                return Err(ServiceError::NotStopped { label, after: timeout, output });
            }
            _ => {}
        }
        self.clock.sleep(self.takes);
        self.set_running(false);
        Ok(())
    }

    fn start(&self, _timeout: Duration, _was: &ServiceStatus) -> Result<(), ServiceError> {
        match self.enter(Action::Start) {
            Some(SimFault::StartFails(output)) => return Err(self.failed(Action::Start, output)),
            Some(SimFault::StartDies) => return Ok(()),
            _ => {}
        }
        self.clock.sleep(self.takes);
        self.set_running(true);
        Ok(())
    }

    fn cgroup_processes(&self) -> Result<Option<Vec<u32>>, ServiceError> {
        let state = self.lock();
        let mut pids = state.left_behind.clone();
        if state.running {
            pids.push(1_000_000);
        }
        Ok(Some(pids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::SystemClock;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn faults_happen_once_and_at_their_call() {
        let service = SimService::new("rsc", "local", Arc::new(SystemClock));
        let was = service.status().unwrap();
        service.script(SimFault::StartFails("no port".into()));
        service.script(SimFault::StopHangs);
        let began = std::time::Instant::now();
        assert!(matches!(service.stop(SHORT), Err(ServiceError::NotStopped { .. })));
        assert!(began.elapsed() >= SHORT && service.is_running());
        service.stop(SHORT).unwrap();
        assert_eq!(service.status().unwrap().state, ServiceState::Stopped);
        let error = service.start(SHORT, &was).unwrap_err();
        let text = "the start of rsc failed with exit code 1: no port";
        assert_eq!(error.to_string(), text);
        service.start(SHORT, &was).unwrap();
        let now = service.status().unwrap();
        assert_eq!(now.state, ServiceState::Running);
        assert_ne!(now.invocation_id, was.invocation_id);
        assert_eq!(service.calls().len(), 7);
    }

    #[test]
    fn unknown_status_and_processes_left_behind() {
        let service = SimService::new("rsc", "n1", Arc::new(SystemClock));
        service.script(SimFault::StatusUnknown("exit code 4".into()));
        let state = service.status().unwrap().state;
        assert_eq!(state, ServiceState::Unknown("exit code 4".into()));
        service.leave_behind(vec![77]);
        service.set_running(false);
        assert_eq!(service.cgroup_processes().unwrap(), Some(vec![77]));
    }
}
