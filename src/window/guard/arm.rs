//! Arming guards, and what keeps them from being armed.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::chain;
use super::super::intent::{Intent, IntentService, IntentStore, ServiceKind};
use super::MARGIN;
use crate::host::clock::Clock;
use crate::host::machine;
use crate::host::run::run_words;
use crate::host::service::ServiceError;
use crate::host::watchdog::{News, Watchdog};

/// Time between two looks at a process that is no child.
const LOOK: Duration = Duration::from_millis(50);

/// Time for making or ending a unit.
const ASKING: Duration = Duration::from_secs(30);

/// Time beyond all others after which systemd ends a guard that hangs, and recovers.
const UNIT_MARGIN: Duration = Duration::from_secs(60);

/// Why a guard is not in place. Nothing is stopped then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// The process that watches could not be started.
    #[error("no process can watch over this run")]
    Watchdog(#[source] std::io::Error),
    /// systemd did not start the unit that watches.
    #[error("the unit {name} that watches over this run could not be started: {why}")]
    Unit {
        /// Its name.
        name: String,
        /// What was said.
        why: String,
    },
    /// A node's own timer could not be armed.
    #[error("{service} on {node} cannot be guarded by a timer of that node")]
    Timer {
        /// The service.
        service: String,
        /// Its node.
        node: String,
        /// What happened.
        source: Box<ServiceError>,
    },
}

/// Arms what watches over a window from outside this process.
pub trait Guards: Send + Sync {
    /// Arms it for the intent that is on disk.
    ///
    /// # Errors
    /// [`GuardError`]; nothing is left armed then.
    fn arm(&self, intent: &Intent) -> Result<Box<dyn Standing>, GuardError>;
}

/// Something that watches.
pub trait Standing: Send + Sync {
    /// The window is closed.
    fn dismiss(self: Box<Self>);
}

/// Nothing watches: for windows of the tests' own.
pub struct NoGuards;

impl Guards for NoGuards {
    fn arm(&self, _intent: &Intent) -> Result<Box<dyn Standing>, GuardError> {
        Ok(Box::new(Nobody))
    }
}

struct Nobody;

impl Standing for Nobody {
    fn dismiss(self: Box<Self>) {}
}

/// A process of its own, and where systemd runs the machine a unit of its own as well.
pub struct OutsideGuards {
    program: PathBuf,
    state_dir: PathBuf,
    systemd: Option<GuardUnits>,
    clock: Arc<dyn Clock>,
}

/// How a unit is made that watches.
#[derive(Clone)]
pub struct GuardUnits {
    /// `systemd-run`.
    pub run_program: PathBuf,
    /// `systemctl`.
    pub control_program: PathBuf,
    /// This program, by a path that systemd finds.
    pub program: PathBuf,
    /// Variables that a recovery may need; none with a secret.
    pub env: Vec<(String, OsString)>,
}

impl GuardUnits {
    /// Those of this machine, where systemd runs it and this process may ask for units.
    #[must_use]
    pub fn of_this_machine() -> Option<Self> {
        const TAKEN: [&str; 4] = ["PATH", "HOME", "LANG", "SSH_AUTH_SOCK"];
        if !Path::new("/run/systemd/system").is_dir() || !machine::is_root() {
            return None;
        }
        let program = std::env::current_exe().ok().filter(|program| program.is_file())?;
        let env = TAKEN.iter().filter_map(|&key| Some((key.to_owned(), std::env::var_os(key)?)));
        Some(Self {
            run_program: "systemd-run".into(),
            control_program: "systemctl".into(),
            program,
            env: env.collect(),
        })
    }

    /// The words that start the unit. It ends with the window; however it ends, what is left to
    /// recover is recovered.
    fn words(
        &self,
        name: &str,
        state_dir: &Path,
        within: Duration,
        run: &[OsString],
    ) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.run_program.clone().into()];
        let mut push = |text: &str| words.push(text.into());
        push("--quiet");
        push("--collect");
        push(&format!("--unit={name}"));
        push("--service-type=exec");
        push("--property=OOMScoreAdjust=-1000");
        push("--property=TimeoutStopSec=infinity");
        push(&format!("--property=RuntimeMaxSec={}", within.as_secs().saturating_add(1)));
        // A path with anything else in it would have to be quoted for two readers.
        let fits = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
        if let Some(program) = self.program.to_str().filter(|text| text.chars().all(fits)) {
            push(&format!("--property=ExecStopPost={program} window recover"));
        }
        push("--setenv=CABK_CONFIG=/dev/null");
        let mut set = |key: &str, value: &OsStr| {
            let mut word = OsString::from(format!("--setenv={key}="));
            word.push(value);
            words.push(word);
        };
        set("CABK_STATE_DIR", state_dir.as_os_str());
        self.env.iter().for_each(|(key, value)| set(key, value));
        words.push("--".into());
        words.push(self.program.clone().into());
        words.extend(run.iter().cloned());
        words
    }

    fn start(&self, name: &str, words: &[OsString], clock: &dyn Clock) -> Result<(), GuardError> {
        let unit = |why: String| GuardError::Unit { name: name.to_owned(), why };
        let done = run_words(words, &[], ASKING, clock).map_err(|e| unit(chain(&e)))?;
        if done.status.success() { Ok(()) } else { Err(unit(done.said())) }
    }

    /// Ends it; it may have ended by itself.
    fn stop(&self, name: &str, clock: &dyn Clock) {
        let mut words: Vec<OsString> = vec![self.control_program.clone().into()];
        words.extend(["--no-block", "stop", "--"].map(Into::into));
        words.push(format!("{name}.service").into());
        let _ = run_words(&words, &[], ASKING, clock);
    }
}

impl OutsideGuards {
    /// Guards that are this program, run anew for intents below a state directory.
    #[must_use]
    pub fn new(program: &Path, state_dir: &Path, clock: Arc<dyn Clock>) -> Self {
        Self { program: program.to_owned(), state_dir: state_dir.to_owned(), systemd: None, clock }
    }

    /// With a unit beside the process, for windows that stop nothing but units.
    #[must_use]
    pub fn with_units(mut self, systemd: Option<GuardUnits>) -> Self {
        self.systemd = systemd;
        self
    }

    /// A unit in a control group of its own, which outlives one that this process is in.
    fn unit(&self, intent: &Intent, within: Duration) -> Result<Option<String>, GuardError> {
        let units_only = |one: &IntentService| matches!(one.how, ServiceKind::Systemd { .. });
        let Some(systemd) = &self.systemd else { return Ok(None) };
        if !intent.services.iter().all(units_only) {
            return Ok(None);
        }
        let hash = blake3::hash(intent.site.as_bytes()).to_hex();
        let name = format!("cabk-guard-{}-{}", &hash[..8], intent.owner.pid);
        let mut run = self.arguments(intent, within);
        run.push("--by-process".into());
        let start = Duration::from_millis(intent.start_timeout_ms);
        let longest = within.saturating_add(start).saturating_add(UNIT_MARGIN);
        let words = systemd.words(&name, &self.state_dir, longest, &run);
        systemd.start(&name, &words, &*self.clock)?;
        Ok(Some(name))
    }

    fn arguments(&self, intent: &Intent, within: Duration) -> Vec<OsString> {
        let mut words: Vec<OsString> = ["window", "guard", "--state-dir"].map(Into::into).into();
        words.push(self.state_dir.clone().into());
        words.extend(["--within-ms".into(), within.as_millis().to_string().into()]);
        // A label may begin with a dash.
        words.push(format!("--site={}", intent.site).into());
        words
    }
}

impl Guards for OutsideGuards {
    fn arm(&self, intent: &Intent) -> Result<Box<dyn Standing>, GuardError> {
        let left = Duration::from_millis(intent.deadline.millis_since(self.clock.now()));
        let within = left.saturating_add(MARGIN);
        let arguments = self.arguments(intent, within);
        let dog = Watchdog::spawn(&self.program, &arguments, &*self.clock);
        let dog = dog.map_err(GuardError::Watchdog)?;
        match self.unit(intent, within) {
            Ok(unit) => {
                let unit = unit.zip(self.systemd.clone());
                Ok(Box::new(Armed { dog, unit, clock: Arc::clone(&self.clock) }))
            }
            Err(error) => {
                dog.dismiss();
                Err(error)
            }
        }
    }
}

struct Armed {
    dog: Watchdog,
    unit: Option<(String, GuardUnits)>,
    clock: Arc<dyn Clock>,
}

impl Standing for Armed {
    fn dismiss(self: Box<Self>) {
        self.dog.dismiss();
        if let Some((name, systemd)) = &self.unit {
            systemd.stop(name, &*self.clock);
        }
    }
}

/// News of an owner that is no child of this process, by its number and its intent.
pub fn by_process<'a>(
    store: &'a IntentStore,
    intent: &'a Intent,
    clock: &'a dyn Clock,
) -> impl FnMut(Duration) -> Option<News> + 'a {
    move |within| {
        let began = clock.monotonic();
        loop {
            let owner = &intent.owner;
            // What cannot be told now can be told the next time.
            if machine::process_alive(owner.pid, owner.start_time).is_ok_and(|alive| !alive) {
                return Some(News::Gone);
            }
            let ours = |found: &Intent| (&found.owner, found.time) == (owner, intent.time);
            if store.read(&intent.site).is_ok_and(|found| !found.is_some_and(|f| ours(&f))) {
                return Some(News::Closed);
            }
            let left = within.saturating_sub(clock.monotonic().saturating_sub(began));
            if left.is_zero() {
                return None;
            }
            clock.sleep(LOOK.min(left));
        }
    }
}
