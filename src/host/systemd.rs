//! Services as systemd keeps them, on this machine or another node, through `systemctl` and without
//! a shell.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::clock::Clock;
use super::node::{Node, Rights, Sharing};
use super::run::{Finished, KEPT_OUTPUT, RunError};
use super::service::{Action, Service, ServiceError, ServiceState, ServiceStatus, Way};

use crate::base::path::printable;

mod cgroup;
mod guard;
#[cfg(test)]
mod tests;

pub use guard::{DROP_IN, hold_name};

/// What is asked of systemd, in one call: each costs some 30 ms.
const PROPERTIES: &str = "LoadState,ActiveState,SubState,InvocationID,MainPID,ControlGroup,\
ActiveEnterTimestampMonotonic,FragmentPath,DropInPaths,EnvironmentFiles,ConditionResult";

/// Time that systemd has for a question.
const QUESTION: Duration = Duration::from_secs(30);

/// How often a start is tried.
const TRIES: u32 = 3;

/// Lists the processes of a control group on another node, and of those below it.
const GROUP: &str = include_str!("systemd/group.sh");

/// What systemd knows of a unit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UnitProperties {
    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error` ...
    pub load_state: String,
    /// `active`, `inactive`, `failed`, `activating` ...
    pub active_state: String,
    /// `running`, `dead` ...
    pub sub_state: String,
    /// Name of the current or last run.
    pub invocation_id: Option<String>,
    /// The main process.
    pub main_pid: Option<u32>,
    /// The control group; empty values are none.
    pub control_group: Option<String>,
    /// Microseconds of the monotonic clock at which it became active; 0 is none.
    pub active_enter: Option<String>,
    /// The unit's file.
    pub fragment: Option<PathBuf>,
    /// Its drop-ins.
    pub drop_ins: Vec<PathBuf>,
    /// Its environment files, each with whether it may be missing.
    pub environment_files: Vec<(PathBuf, bool)>,
    /// Whether the conditions of the last start held.
    pub condition_held: bool,
}

impl UnitProperties {
    /// Reads the answer of `systemctl show`. Lines that were not asked for are left out.
    ///
    /// # Errors
    /// What is wrong, where the answer lacks the states.
    pub fn parse(answer: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(answer);
        let mut unit = Self { condition_held: true, ..Self::default() };
        let some = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        let number = |value: &str| some(value).filter(|v| v != "0");
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "LoadState" => unit.load_state = value.to_owned(),
                "ActiveState" => unit.active_state = value.to_owned(),
                "SubState" => unit.sub_state = value.to_owned(),
                "InvocationID" => unit.invocation_id = some(value),
                "MainPID" => unit.main_pid = value.parse().ok().filter(|&pid| pid != 0),
                "ControlGroup" => unit.control_group = some(value),
                "ActiveEnterTimestampMonotonic" => unit.active_enter = number(value),
                "FragmentPath" => unit.fragment = some(value).map(PathBuf::from),
                "DropInPaths" => {
                    unit.drop_ins.extend(value.split_whitespace().map(unescape));
                }
                "EnvironmentFiles" => unit.environment_files.extend(environment_file(value)),
                "ConditionResult" => unit.condition_held = value != "no",
                _ => {}
            }
        }
        if unit.load_state.is_empty() || unit.active_state.is_empty() {
            return Err("it has no LoadState or no ActiveState".to_owned());
        }
        Ok(unit)
    }

    /// Whether the unit runs. On the way up or down something of it may still write, so both count
    /// as running.
    #[must_use]
    pub fn state(&self) -> ServiceState {
        match self.active_state.as_str() {
            "active" | "reloading" | "refreshing" | "activating" | "deactivating" => {
                ServiceState::Running
            }
            "inactive" | "failed" => ServiceState::Stopped,
            _ => ServiceState::Unknown(self.detail()),
        }
    }

    /// `ActiveState/SubState`, and the load state where it is not the usual one.
    #[must_use]
    pub fn detail(&self) -> String {
        let mut text = format!("{}/{}", self.active_state, self.sub_state);
        if self.load_state != "loaded" {
            text.push_str(", load state ");
            text.push_str(&self.load_state);
        }
        text
    }

    /// Why systemd would refuse to start the unit, where that can be told before it is stopped.
    #[must_use]
    pub fn start_refused(&self) -> Option<String> {
        match self.load_state.as_str() {
            "loaded" => None,
            other => Some(format!("its load state is {other}")),
        }
    }

    fn way(&self) -> Option<Way> {
        match self.active_state.as_str() {
            "activating" => Some(Way::Up),
            "deactivating" => Some(Way::Down),
            _ => None,
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.active_state.as_str(), "active" | "reloading" | "refreshing")
    }
}

/// `/etc/default/x (ignore_errors=yes)`.
fn environment_file(value: &str) -> Option<(PathBuf, bool)> {
    let (path, optional) = match value.rsplit_once(" (ignore_errors=") {
        Some((path, rest)) => (path, rest.starts_with("yes")),
        None => (value, false),
    };
    (!path.is_empty()).then(|| (unescape(path), optional))
}

/// Undoes `\xHH`, which systemd writes for a blank in a path.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let raw = text.as_bytes();
    let mut bytes = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        let digits = raw.get(at + 2..at + 4).and_then(|d| std::str::from_utf8(d).ok());
        let code = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
        match code {
            Some(byte) if raw[at..].starts_with(b"\\x") => {
                bytes.push(byte);
                at += 4;
            }
            _ => {
                bytes.push(raw[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// A unit of a node's systemd.
pub struct Systemd {
    /// `systemctl`, found on `PATH` unless it is a path.
    pub program: PathBuf,
    /// Where the control groups are.
    pub cgroup_root: PathBuf,
    /// `systemd-run`, found likewise.
    pub run_program: PathBuf,
    /// Where holds are.
    pub hold_dir: PathBuf,
    /// Where drop-ins of the administrator are.
    pub unit_dir: PathBuf,
    unit: String,
    node: Node,
    /// Whether the node may have a hold for it.
    guarded: AtomicBool,
    /// Whether a timer of the node may start it.
    timed: AtomicBool,
    /// The group that the unit had when it was last seen in one: systemd forgets it at the stop,
    /// and processes may be left in it.
    seen_cgroup: Mutex<Option<String>>,
}

impl Systemd {
    /// The unit of this name on this machine.
    ///
    /// # Errors
    /// [`ServiceError::BadUnitName`] for a pattern or whatever else is not one name.
    pub fn new(unit: &str, clock: Arc<dyn Clock>) -> Result<Self, ServiceError> {
        Self::on(Node::local(clock), unit)
    }

    /// The unit of this name on a node.
    ///
    /// # Errors
    /// As [`Systemd::new`].
    pub fn on(node: Node, unit: &str) -> Result<Self, ServiceError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if unit.is_empty() || unit.len() > 255 || unit.starts_with('-') || !unit.chars().all(fits) {
            return Err(ServiceError::BadUnitName(unit.chars().take(255).collect()));
        }
        Ok(Self {
            program: PathBuf::from("systemctl"),
            cgroup_root: PathBuf::from("/sys/fs/cgroup"),
            run_program: PathBuf::from("systemd-run"),
            hold_dir: PathBuf::from("/run/cabk"),
            unit_dir: PathBuf::from("/etc/systemd/system"),
            unit: unit.to_owned(),
            node,
            guarded: AtomicBool::new(false),
            timed: AtomicBool::new(false),
            seen_cgroup: Mutex::new(None),
        })
    }

    /// What systemd knows of the unit.
    ///
    /// # Errors
    /// [`ServiceError::UnknownUnit`], or what kept the question from being answered.
    pub fn properties(&self) -> Result<UnitProperties, ServiceError> {
        let words = ["show", "--no-pager", "-p", PROPERTIES, "--", &self.unit];
        let done = self.run(Action::Status, &words, QUESTION)?;
        self.succeeded(Action::Status, &done)?;
        let unit = UnitProperties::parse(&done.stdout.kept)
            .map_err(|what| ServiceError::Answer { label: self.unit.clone(), what })?;
        if unit.load_state == "not-found" {
            return Err(ServiceError::UnknownUnit(self.unit.clone()));
        }
        if let Some(group) = &unit.control_group {
            let mut seen = self.seen_cgroup.lock().unwrap_or_else(PoisonError::into_inner);
            *seen = Some(group.clone());
        }
        Ok(unit)
    }

    /// Tells where the unit's control group is, for a process that never saw it running: one that
    /// recovers what another one stopped.
    pub fn remember_cgroup(&self, group: &str) {
        let mut seen = self.seen_cgroup.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Some(group.to_owned());
    }

    fn clock(&self) -> &dyn Clock {
        &**self.node.clock()
    }

    fn run_raw(
        &self,
        action: Action,
        words: &[&str],
        timeout: Duration,
    ) -> Result<Finished, RunError> {
        let mut all = vec![self.program.clone().into_os_string()];
        all.extend(words.iter().map(OsString::from));
        // The answer is read by a program, and a unit is asked for no password.
        let env = [
            ("LC_ALL", OsStr::new("C")),
            ("SYSTEMD_COLORS", OsStr::new("0")),
            ("SYSTEMD_PAGER", OsStr::new("")),
        ];
        // Anybody may ask. What a stop inherits must end with it, so it leaves no connection open.
        let rights = if action == Action::Status { Rights::Own } else { Rights::Root };
        self.node.run(rights, &all, &env, Sharing::Join, timeout)
    }

    fn run(&self, action: Action, words: &[&str], t: Duration) -> Result<Finished, ServiceError> {
        self.run_raw(action, words, t).map_err(|source| ServiceError::Run {
            label: self.unit.clone(),
            action,
            source,
        })
    }

    fn succeeded(&self, action: Action, done: &Finished) -> Result<(), ServiceError> {
        if done.status.success() {
            return Ok(());
        }
        Err(ServiceError::Failed {
            label: self.unit.clone(),
            action,
            ending: done.ending(),
            output: done.said(),
        })
    }

    /// Asks for a start once. What was seen, where the unit does not run afterwards.
    fn try_start(&self, deadline: Duration) -> Result<Option<String>, ServiceError> {
        let left = || deadline.saturating_sub(self.clock().monotonic());
        // What held it down goes first. Where it cannot be taken away the start tells.
        let released = self.release();
        // After quick starts in a row systemd refuses further ones until this. A unit that systemd
        // has put out of its memory has nothing to reset: that failure says nothing.
        let reset = ["reset-failed", "--", &self.unit];
        self.run(Action::Start, &reset, QUESTION.min(left()))?;
        let words = ["--no-ask-password", "start", "--", &self.unit];
        let done = match self.run_raw(Action::Start, &words, left()) {
            Err(RunError::TimedOut { output, .. }) => return Ok(Some(late(&output))),
            other => other.map_err(|source| ServiceError::Run {
                label: self.unit.clone(),
                action: Action::Start,
                source,
            })?,
        };
        loop {
            let unit = self.properties()?;
            if unit.is_up() {
                return Ok(None);
            }
            if unit.active_state == "activating" && done.status.success() && !left().is_zero() {
                self.clock().sleep(Duration::from_millis(50).min(left()));
                continue;
            }
            let mut seen = unit.detail();
            if !unit.condition_held {
                seen.push_str(", a condition of the unit does not hold");
            }
            if let Err(error) = &released {
                seen.push_str(&format!(", {error}"));
            }
            if !done.status.success() {
                seen = format!("{seen}, systemctl ended with {}: {}", done.ending(), done.said());
            }
            return Ok(Some(seen));
        }
    }

    /// The directories of a control group in whichever hierarchies systemd keeps it; `None` where
    /// no hierarchy is mounted.
    fn cgroup_dirs(&self, group: &str) -> Option<Vec<PathBuf>> {
        let below = group.trim_start_matches('/');
        let root = &self.cgroup_root;
        let mut bases = Vec::new();
        if root.join("cgroup.controllers").exists() {
            bases.push(root.clone());
        }
        let named = [root.join("systemd"), root.join("unified")];
        bases.extend(named.into_iter().filter(|base| base.join("cgroup.procs").exists()));
        (!bases.is_empty()).then(|| bases.into_iter().map(|base| base.join(below)).collect())
    }

    /// The processes of a group on another node.
    fn processes_there(&self, group: &str) -> Result<Option<Vec<u32>>, ServiceError> {
        let arguments = [self.cgroup_root.clone().into_os_string(), OsString::from(group)];
        let (label, action) = (self.unit.clone(), Action::Status);
        let done = self
            .node
            .script(Rights::Own, GROUP, &arguments, KEPT_OUTPUT, Sharing::Join, QUESTION)
            .map_err(|source| ServiceError::Run { label, action, source })?;
        self.succeeded(action, &done)?;
        let odd = |what: &str| ServiceError::Answer {
            label: self.unit.clone(),
            what: format!("its control group on the node: {what}"),
        };
        let text = String::from_utf8_lossy(&done.stdout.kept);
        let mut pids = Vec::new();
        let mut end = None;
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("process", pid)) => {
                    pids.push(pid.parse().map_err(|_| odd("not a process id"))?);
                }
                Some(("failed", what)) => return Err(odd(&printable(what.as_bytes()))),
                Some(("end", hierarchies)) => end = Some(hierarchies != "0"),
                // A login shell may greet.
                _ => {}
            }
        }
        pids.sort_unstable();
        pids.dedup();
        end.map(|seen| seen.then_some(pids)).ok_or_else(|| odd("the list has no end"))
    }
}

fn late(output: &str) -> String {
    format!("systemctl did not come back in time{}", super::run::colon(output))
}

impl Service for Systemd {
    fn label(&self) -> String {
        self.unit.clone()
    }

    fn node(&self) -> String {
        self.node.name()
    }

    fn status(&self) -> Result<ServiceStatus, ServiceError> {
        let unit = self.properties()?;
        Ok(ServiceStatus {
            state: unit.state(),
            detail: unit.detail(),
            way: unit.way(),
            start_refused: unit.start_refused(),
            invocation_id: unit.invocation_id,
            main_pid: unit.main_pid,
            cgroup: unit.control_group,
            active_enter: unit.active_enter,
        })
    }

    fn stop(&self, timeout: Duration) -> Result<(), ServiceError> {
        let words = ["--no-ask-password", "stop", "--", &self.unit];
        match self.run_raw(Action::Stop, &words, timeout) {
            Ok(done) => self.succeeded(Action::Stop, &done),
            // Only the client was ended: systemd goes on stopping the unit.
            Err(RunError::TimedOut { after, output, .. }) => {
                Err(ServiceError::NotStopped { label: self.unit.clone(), after, output })
            }
            Err(source) => {
                Err(ServiceError::Run { label: self.unit.clone(), action: Action::Stop, source })
            }
        }
    }

    fn start(&self, timeout: Duration, _was: &ServiceStatus) -> Result<(), ServiceError> {
        let deadline = self.clock().monotonic().saturating_add(timeout);
        let mut tries = 0;
        loop {
            tries += 1;
            let outcome = self.try_start(deadline);
            let last = tries == TRIES || self.clock().monotonic() >= deadline;
            match outcome {
                Ok(None) => {
                    // A timer that stays starts what runs already.
                    let _ = self.cancel();
                    return Ok(());
                }
                Ok(Some(seen)) if last => {
                    let label = self.unit.clone();
                    return Err(ServiceError::NotStarted { label, tries, seen });
                }
                Err(error) if last => return Err(error),
                Err(error @ ServiceError::UnknownUnit(_)) => return Err(error),
                // Another try tells whether it was only for a moment; the last one's is reported.
                Ok(Some(_)) | Err(_) => self.clock().sleep(Duration::from_millis(250)),
            }
        }
    }

    fn cgroup_processes(&self) -> Result<Option<Vec<u32>>, ServiceError> {
        let seen = || self.seen_cgroup.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let group = match seen() {
            Some(group) => group,
            None => match self.properties()?.control_group {
                Some(group) => group,
                None => return Ok(None),
            },
        };
        if group.split('/').any(|part| part == "..") || group == "/" {
            let what = format!("a control group of {group:?}");
            return Err(ServiceError::Answer { label: self.unit.clone(), what });
        }
        if !self.node.is_local() {
            return self.processes_there(&group);
        }
        let Some(dirs) = self.cgroup_dirs(&group) else { return Ok(None) };
        let mut pids = Vec::new();
        for dir in dirs {
            cgroup::collect_processes(&dir, 0, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(Some(pids))
    }
}
