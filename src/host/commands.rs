//! Services that are stopped and started by an operator's own commands, on other systems than
//! systemd.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clock::Clock;
use super::run::{Finished, RunError, colon, run_within};
use super::service::{Action, Service, ServiceError, ServiceState, ServiceStatus};

pub use super::run::CommandLine;

#[cfg(test)]
mod tests;

/// Time that a status command has.
const QUESTION: Duration = Duration::from_secs(60);

/// The three commands of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commands {
    /// Stops it.
    pub stop: CommandLine,
    /// Starts it.
    pub start: CommandLine,
    /// Exit 0: it runs; 3: it does not; anything else: unknown. Without it nothing is known.
    pub status: Option<CommandLine>,
}

/// What the status printed: at the last question, and before the stop.
#[derive(Default)]
struct Printed {
    last: Option<String>,
    was: Option<String>,
}

/// A service by commands. They get `CABK_SITE`, `CABK_NODE`, and in `CABK_WAS` what the status
/// printed before the stop (empty until then).
pub struct CommandService {
    commands: Commands,
    site: OsString,
    node: String,
    /// The directory in which the commands run; this process's own where none is given.
    directory: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    printed: Mutex<Printed>,
}

impl CommandService {
    /// The service of a site on a node; the commands run on this machine in any case.
    #[must_use]
    pub fn new(commands: Commands, site: &OsStr, node: &str, clock: Arc<dyn Clock>) -> Self {
        Self {
            commands,
            site: site.to_owned(),
            node: node.to_owned(),
            directory: None,
            clock,
            printed: Mutex::new(Printed::default()),
        }
    }

    /// With commands that run in this directory. One that is gone cannot keep a service down.
    #[must_use]
    pub fn within(mut self, directory: Option<PathBuf>) -> Self {
        self.directory = directory.filter(|dir| dir.is_dir());
        self
    }

    fn printed(&self) -> MutexGuard<'_, Printed> {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, line: &CommandLine, timeout: Duration) -> Result<Finished, RunError> {
        let was = self.printed().was.clone().unwrap_or_default();
        let env = [
            ("CABK_SITE", self.site.as_os_str()),
            ("CABK_NODE", OsStr::new(&self.node)),
            ("CABK_WAS", OsStr::new(&was)),
        ];
        run_within(line, &env, self.directory.as_deref(), timeout, &*self.clock)
    }

    /// Runs the command of an action; one that fails is an error.
    fn command(&self, action: Action, timeout: Duration) -> Result<(), ServiceError> {
        let line = if action == Action::Stop { &self.commands.stop } else { &self.commands.start };
        let label = self.label();
        let done = match self.run(line, timeout) {
            Ok(done) => done,
            Err(RunError::TimedOut { after, output, .. }) if action == Action::Stop => {
                return Err(ServiceError::NotStopped { label, after, output });
            }
            Err(source) => return Err(ServiceError::Run { label, action, source }),
        };
        if done.status.success() {
            return Ok(());
        }
        Err(ServiceError::Failed { label, action, ending: done.ending(), output: done.said() })
    }

    /// Asks for the status until `done` says so or the time is over; the last one. The first
    /// answer is enough where there is no command to ask again.
    fn settle(
        &self,
        deadline: Duration,
        done: impl Fn(&ServiceState) -> bool,
    ) -> Result<ServiceStatus, ServiceError> {
        let mut pause = Duration::from_millis(20);
        loop {
            let status = self.ask(deadline.saturating_sub(self.clock.monotonic()))?;
            let left = deadline.saturating_sub(self.clock.monotonic());
            if done(&status.state) || left.is_zero() || self.commands.status.is_none() {
                return Ok(status);
            }
            self.clock.sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    fn ask(&self, timeout: Duration) -> Result<ServiceStatus, ServiceError> {
        let Some(line) = &self.commands.status else {
            let seen = "there is no status command".to_owned();
            return Ok(ServiceStatus::bare(ServiceState::Unknown(seen.clone()), seen));
        };
        // A question at the very end of the time still gets an answer.
        let timeout = QUESTION.min(timeout.max(Duration::from_secs(1)));
        let done = self.run(line, timeout).map_err(|source| ServiceError::Run {
            label: self.label(),
            action: Action::Status,
            source,
        })?;
        let state = match done.status.code() {
            Some(0) => ServiceState::Running,
            Some(3) => ServiceState::Stopped,
            _ => ServiceState::Unknown(format!("{}{}", done.ending(), colon(&done.said()))),
        };
        // An environment variable holds no NUL.
        let detail = done.stdout.text().replace('\0', "\u{fffd}");
        self.printed().last = Some(detail.clone());
        Ok(ServiceStatus::bare(state, detail))
    }
}

impl Service for CommandService {
    fn label(&self) -> String {
        "the service".to_owned()
    }

    fn node(&self) -> String {
        self.node.clone()
    }

    fn status(&self) -> Result<ServiceStatus, ServiceError> {
        self.ask(QUESTION)
    }

    /// The command may come back before the service has stopped: the status is asked until it does
    /// not run any more.
    fn stop(&self, timeout: Duration) -> Result<(), ServiceError> {
        let deadline = self.clock.monotonic().saturating_add(timeout);
        {
            let mut printed = self.printed();
            if printed.was.is_none() {
                printed.was = printed.last.clone();
            }
        }
        self.command(Action::Stop, timeout)?;
        let status = self.settle(deadline, |state| *state != ServiceState::Running)?;
        if status.state == ServiceState::Running {
            let label = self.label();
            return Err(ServiceError::NotStopped { label, after: timeout, output: status.detail });
        }
        Ok(())
    }

    fn start(&self, timeout: Duration, was: &ServiceStatus) -> Result<(), ServiceError> {
        let deadline = self.clock.monotonic().saturating_add(timeout);
        self.printed().was = Some(was.detail.replace('\0', "\u{fffd}"));
        self.command(Action::Start, timeout)?;
        let status = self.settle(deadline, |state| *state == ServiceState::Running)?;
        // It is stopped anew from now on.
        self.printed().was = None;
        if status.state == ServiceState::Running || self.commands.status.is_none() {
            return Ok(());
        }
        let seen = match status.state {
            ServiceState::Unknown(seen) => seen,
            _ => status.detail,
        };
        Err(ServiceError::NotStarted { label: self.label(), tries: 1, seen })
    }

    fn cgroup_processes(&self) -> Result<Option<Vec<u32>>, ServiceError> {
        Ok(None)
    }
}
