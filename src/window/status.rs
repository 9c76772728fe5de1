//! What stands in the state directory: which windows are open, how far they are, and what guards did
//! last. Nothing is changed and no service is asked.

use std::path::Path;

use serde::Serialize;

use super::chain;
use super::intent::{Intent, IntentError, IntentStore, Phase, Prior};
use crate::base::path::{bytes, printable};
use crate::base::time::Timestamp;

/// Lines of each site's guards that are shown.
const LINES: usize = 5;

/// One service in `window status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OpenNode {
    /// Site label.
    pub site: String,
    /// The node.
    pub node: String,
    /// The service.
    pub service: String,
    /// Whether it ran before the window.
    pub ran_before: bool,
}

/// One window that was opened and not closed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OpenWindow {
    /// Site label.
    pub site: String,
    /// When it was opened.
    pub since: Timestamp,
    /// When its services run again at the latest.
    pub deadline: Timestamp,
    /// How far it is.
    pub phase: Phase,
    /// Whether its owner is dead; `None` where that cannot be told.
    pub stale: Option<bool>,
    /// Whether its deadline is past.
    pub overdue: bool,
    /// The process that opened it.
    pub pid: u32,
}

/// What the guards of a site noted last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct GuardLog {
    /// The file.
    pub log: String,
    /// Its last lines, the newest last.
    pub last: Vec<String>,
}

/// What stands in the state directory.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct WindowStatus {
    /// Whether a window was opened and not closed.
    pub open: bool,
    /// Whether the owner of one of them is dead: `window recover` is due.
    pub stale: bool,
    /// When the oldest was opened.
    pub since: Option<Timestamp>,
    /// How far the oldest is.
    pub phase: Option<Phase>,
    /// When the first of them is due.
    pub deadline: Option<Timestamp>,
    /// The services of all.
    pub nodes: Vec<OpenNode>,
    /// The windows, by site.
    pub windows: Vec<OpenWindow>,
    /// What guards did last, site by site; a guard that did nothing notes nothing.
    pub guards: Vec<GuardLog>,
    /// Files that cannot be read.
    pub problems: Vec<String>,
}

impl WindowStatus {
    /// Whether something that ran may be down and nobody is there to start it: a window without an
    /// owner in which stops were asked for.
    #[must_use]
    pub fn may_be_down(&self) -> bool {
        self.windows.iter().any(|one| one.stale == Some(true) && one.phase != Phase::Armed)
    }

    /// Whether somebody has a window open past its deadline.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.windows.iter().any(|one| one.overdue && one.stale != Some(true))
    }

    fn add(&mut self, intent: &Intent, now: Timestamp) {
        let stale = match intent.is_stale() {
            Ok(stale) => Some(stale),
            Err(error) => {
                self.problems.push(format!("{}: {error}", intent.site));
                None
            }
        };
        self.stale |= stale == Some(true);
        if self.since.is_none_or(|since| intent.time < since) {
            self.since = Some(intent.time);
            self.phase = Some(intent.phase);
        }
        let first = self.deadline.map_or(intent.deadline, |known| known.min(intent.deadline));
        self.deadline = Some(first);
        self.nodes.extend(intent.services.iter().map(|service| OpenNode {
            site: intent.site.clone(),
            node: service.node.clone(),
            service: service.service.clone(),
            ran_before: service.prior != Prior::Stopped,
        }));
        self.windows.push(OpenWindow {
            site: intent.site.clone(),
            since: intent.time,
            deadline: intent.deadline,
            phase: intent.phase,
            stale,
            overdue: intent.deadline < now,
            pid: intent.owner.pid,
        });
    }
}

/// Which windows are open, and whether anybody is in them.
///
/// # Errors
/// Where the state directory cannot be listed.
pub fn status(state_dir: &Path, now: Timestamp) -> Result<WindowStatus, IntentError> {
    let store = IntentStore::open(state_dir);
    let mut status = WindowStatus::default();
    for intent in store.list()? {
        status.open = true;
        match intent {
            Ok(intent) => status.add(&intent, now),
            Err(error) => {
                // Nobody can be asked about it, so it needs a person.
                status.stale = true;
                status.problems.push(chain(&error));
            }
        }
    }
    for (path, last) in store.last_of_logs(LINES)? {
        status.guards.push(GuardLog { log: printable(bytes(&path)), last });
    }
    Ok(status)
}
