//! A service that can be asked, stopped and started on one node.

use std::time::Duration;

use super::run::{RunError, colon};

pub mod sim;

/// Whether a service runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServiceState {
    /// It runs, or is on its way up or down: something of it may still write.
    Running,
    /// It does not run.
    Stopped,
    /// It cannot be told; what was seen.
    Unknown(String),
}

/// Where a service that counts as running is on its way to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// It is being started, or waits to be started again.
    Up,
    /// It is being stopped.
    Down,
}

/// What a service said of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceStatus {
    /// Whether it runs.
    pub state: ServiceState,
    /// What the status command printed, or systemd's `ActiveState/SubState`.
    pub detail: String,
    /// systemd's name for this run of the unit: another one means that it was started in between.
    pub invocation_id: Option<String>,
    /// The main process.
    pub main_pid: Option<u32>,
    /// The control group, as a path below the hierarchy's root.
    pub cgroup: Option<String>,
    /// When the unit became active: microseconds of the machine's monotonic clock, in decimal.
    pub active_enter: Option<String>,
    /// Where it is on its way to, if it is.
    pub way: Option<Way>,
    /// Why it could not be started, where that can be told.
    pub start_refused: Option<String>,
}

impl ServiceStatus {
    /// A status of which only this is known.
    #[must_use]
    pub fn bare(state: ServiceState, detail: impl Into<String>) -> Self {
        Self {
            state,
            detail: detail.into(),
            invocation_id: None,
            main_pid: None,
            cgroup: None,
            active_enter: None,
            way: None,
            start_refused: None,
        }
    }
}

/// What was asked of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Its status.
    Status,
    /// To stop.
    Stop,
    /// To start.
    Start,
}

impl Action {
    /// The word for messages: `status`, `stop`, `start`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Stop => "stop",
            Self::Start => "start",
        }
    }
}

/// What kept a service from doing what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// systemd does not know the unit.
    #[error("systemd does not know the unit {0}")]
    UnknownUnit(String),
    /// The text cannot be the name of one unit.
    #[error("not the name of a unit: {0:?}")]
    BadUnitName(String),
    /// The node's address cannot be one; what was said of it.
    #[error("{0}")]
    Node(String),
    /// A command could not be run to its end.
    #[error("cannot {} {label}", action.word())]
    Run {
        /// The service.
        label: String,
        /// What was asked.
        action: Action,
        /// What happened.
        source: RunError,
    },
    /// A command ran and failed.
    #[error("the {} of {label} failed with {ending}{}", action.word(), colon(output))]
    Failed {
        /// The service.
        label: String,
        /// What was asked.
        action: Action,
        /// How the command ended.
        ending: String,
        /// The end of what it said.
        output: String,
    },
    /// The service was asked to stop and did not within the time; it may still do so.
    #[error("{label} did not stop within {} ms{}", after.as_millis(), colon(output))]
    NotStopped {
        /// The service.
        label: String,
        /// The time that it had.
        after: Duration,
        /// What was seen last.
        output: String,
    },
    /// The service was asked to start and does not run.
    #[error("{label} is not running after {tries} tries{}", colon(seen))]
    NotStarted {
        /// The service.
        label: String,
        /// How often it was asked.
        tries: u32,
        /// What was seen last.
        seen: String,
    },
    /// systemd's answer could not be understood.
    #[error("the answer of systemctl about {label} is not understood: {what}")]
    Answer {
        /// The service.
        label: String,
        /// What is wrong with it.
        what: String,
    },
    /// A hold could not be taken away.
    #[error("cannot take away {path}")]
    Hold {
        /// The file.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A control group could not be read.
    #[error("cannot read the control group {path}")]
    Cgroup {
        /// The directory or file.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl ServiceError {
    /// Whether this only says that systemd is not there to be asked: no `systemctl`, or one in a
    /// container whose first process is something else.
    #[must_use]
    pub fn is_no_systemd(&self) -> bool {
        const SAYS: [&str; 4] = [
            "not been booted with systemd",
            "Failed to connect to bus: Host is down",
            "Failed to connect to bus: No such file",
            "systemctl: not found",
        ];
        match self {
            Self::Run { source: RunError::Spawn { source, .. }, .. } => {
                source.kind() == std::io::ErrorKind::NotFound
            }
            Self::Failed { action: Action::Status, output, .. } => {
                SAYS.iter().any(|says| output.contains(says))
            }
            _ => false,
        }
    }
}

/// What a service's own node can do for it beforehand, so that it does not stay down.
pub trait Precaution: Send + Sync {
    /// Arms a timer of the node that starts the service after this time (none where none is
    /// given), and holds the service down until then, where that was set up, with this text.
    ///
    /// # Errors
    /// What kept it from being armed; part of it may be armed then.
    fn arm(&self, after: Option<Duration>, hold: &str) -> Result<(), ServiceError>;

    /// Takes both away. A start that succeeds does so itself.
    ///
    /// # Errors
    /// What kept it from being taken away.
    fn disarm(&self) -> Result<(), ServiceError>;
}

/// A service on one node.
pub trait Service: Send + Sync {
    /// The unit's name, or a word for the commands.
    fn label(&self) -> String;

    /// The node that it runs on.
    fn node(&self) -> String;

    /// Whether it runs.
    ///
    /// # Errors
    /// [`ServiceError::UnknownUnit`], or what kept the question from being answered.
    fn status(&self) -> Result<ServiceStatus, ServiceError>;

    /// Stops it, and returns when it has stopped. The caller looks at the status all the same.
    ///
    /// # Errors
    /// [`ServiceError::NotStopped`] after `timeout`, or what kept it from being asked.
    fn stop(&self, timeout: Duration) -> Result<(), ServiceError>;

    /// Starts it, and returns when it runs. Starting what runs already is no error.
    ///
    /// `was` is its status before the stop, kept by the caller because the process that starts may
    /// not be the one that stopped.
    ///
    /// # Errors
    /// [`ServiceError::NotStarted`], or what kept it from being asked.
    fn start(&self, timeout: Duration, was: &ServiceStatus) -> Result<(), ServiceError>;

    /// The processes in its control group and those below it; `None` where that cannot be told. A
    /// process of another pid namespace is listed as 0.
    ///
    /// # Errors
    /// [`ServiceError::Cgroup`] or what kept the group from being found.
    fn cgroup_processes(&self) -> Result<Option<Vec<u32>>, ServiceError>;
}
