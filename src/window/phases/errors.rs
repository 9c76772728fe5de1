//! Why a window was not opened, or was given up.

use std::io;

use super::{NotRunning, Restarted};
use crate::host::service::ServiceError;
use crate::window::guard::GuardError;
use crate::window::intent::IntentError;
use crate::window::site_lock::LockError;

/// Why a window was not opened. Nothing was stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArmError {
    /// A service is not known, or its name cannot be one: wrong usage.
    #[error("there is no such service on {node}")]
    NoSuchService {
        /// The node.
        node: String,
        /// What was said.
        source: Box<ServiceError>,
    },
    /// A service's status cannot be asked.
    #[error("the status of {service} on {node} cannot be asked")]
    Status {
        /// The service.
        service: String,
        /// Its node.
        node: String,
        /// What happened.
        source: Box<ServiceError>,
    },
    /// A service does not say whether it runs, so that its stop could not be proven.
    #[error("it cannot be told whether {service} on {node} runs: {seen}")]
    Unknown {
        /// The service.
        service: String,
        /// Its node.
        node: String,
        /// What was seen.
        seen: String,
    },
    /// A service runs, and could not be started again.
    #[error("{service} on {node} could not be started again after its stop: {why}")]
    CannotStart {
        /// The service.
        service: String,
        /// Its node.
        node: String,
        /// What was seen.
        why: String,
    },
    /// Somebody else stops a service at this moment.
    #[error("{service} on {node} is being stopped by somebody else: {seen}")]
    GoesDown {
        /// The service.
        service: String,
        /// Its node.
        node: String,
        /// What was seen.
        seen: String,
    },
    /// What is to start the services if this process cannot is not in place.
    #[error("what would start the service if this run could not cannot be put in place")]
    Guard(#[from] GuardError),
    /// None of the services runs, and nobody said that they are stopped on purpose.
    #[error("{0} does not run on any node: it may be down by accident, or have another name")]
    NoneRuns(String),
    /// A service runs that was said to be stopped.
    #[error("{service} on {node} was said to be stopped and runs")]
    Runs {
        /// The service.
        service: String,
        /// Its node.
        node: String,
    },
    /// There is no service to stop.
    #[error("no service is named that could be stopped")]
    NoServices,
    /// An earlier run left a window that was not recovered.
    #[error("an earlier run of {0} left a window open: it has to be recovered first")]
    LeftBehind(String),
    /// The lock is about another site.
    #[error("the lock is about the site {0:?}")]
    OtherSite(String),
    /// The intent could not be kept.
    #[error("what is to be stopped cannot be noted")]
    Intent(#[from] IntentError),
    /// The lock that tells of stops under way could not be had.
    #[error("stops under way cannot be told")]
    Lock(#[from] LockError),
    /// The operating system does not say who this process is.
    #[error("this process cannot be told from others")]
    Identity(#[source] io::Error),
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
}

/// Why a window was given up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AbortReason {
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
    /// A service could not be stopped, or does not say whether it is.
    #[error("{service} on {node} could not be stopped")]
    Stop {
        /// The service.
        service: String,
        /// Its node.
        node: String,
        /// What happened.
        source: Box<ServiceError>,
    },
    /// A service runs on after its stop.
    #[error("{service} on {node} runs on after its stop: {seen}")]
    StillRuns {
        /// The service.
        service: String,
        /// Its node.
        node: String,
        /// What was seen.
        seen: String,
    },
    /// It was due to run again before it was stopped: this process stood still for too long.
    #[error("{service} on {node} was not stopped: the longest downtime was over before")]
    TooLate {
        /// The service.
        service: String,
        /// Its node.
        node: String,
    },
    /// How far the window is could not be noted.
    #[error("how far the window is cannot be noted")]
    Intent(#[source] IntentError),
    /// The lock around a stop failed.
    #[error("the lock around a stop failed")]
    Lock(#[source] io::Error),
    /// Whoever read the sources could not go on.
    #[error("the sources could not be read")]
    Reading(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A window that was given up; what had been stopped was started.
#[derive(Debug, thiserror::Error)]
#[error("the window was given up, and {}", services_now(restarted))]
pub struct Aborted {
    /// Why.
    #[source]
    pub reason: AbortReason,
    /// How the window was closed.
    pub restarted: Box<Restarted>,
}

fn services_now(restarted: &Restarted) -> String {
    if !restarted.not_running.is_empty() {
        let lines: Vec<String> = restarted.not_running.iter().map(NotRunning::message).collect();
        return lines.join("; ");
    }
    match restarted.record.stopped_at {
        Some(_) => "what had been stopped runs again".to_owned(),
        None => "nothing had been stopped".to_owned(),
    }
}
