//! What a window is about to stop, on disk before it is stopped: enough for any later process to
//! start exactly what ran (invariant 5).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::path::printable;
use crate::base::time::Timestamp;
use crate::host::machine;
use crate::host::node::NodeAddress;
use crate::host::run::CommandLine;
use crate::host::service::{ServiceState, ServiceStatus};

#[cfg(test)]
mod tests;

/// Bytes that an intent file may have; a real one has a few hundred for each service.
const MAX_BYTES: u64 = 1 << 20;

/// Version of the file's form.
const VERSION: u32 = 1;

/// A command as the operator gave it: a string for the shell, or words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntentCommand {
    /// Run by `/bin/sh -c`.
    Shell(String),
    /// Run as it is.
    Argv(Vec<String>),
}

impl From<&CommandLine> for IntentCommand {
    fn from(line: &CommandLine) -> Self {
        match line {
            CommandLine::Shell(text) => Self::Shell(text.clone()),
            CommandLine::Argv(words) => Self::Argv(words.clone()),
        }
    }
}

impl From<&IntentCommand> for CommandLine {
    fn from(command: &IntentCommand) -> Self {
        match command {
            IntentCommand::Shell(text) => Self::Shell(text.clone()),
            IntentCommand::Argv(words) => Self::Argv(words.clone()),
        }
    }
}

/// How a service is stopped and started.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ServiceKind {
    /// A unit of systemd.
    Systemd {
        /// Its name.
        unit: String,
        /// Whether it is stopped and started through `sudo -n`, on another node.
        #[serde(default)]
        sudo: bool,
    },
    /// An operator's own commands.
    Commands {
        /// Stops it.
        stop: IntentCommand,
        /// Starts it.
        start: IntentCommand,
        /// Tells whether it runs.
        status: Option<IntentCommand>,
    },
}

impl ServiceKind {
    /// What a person types to start the service of a node.
    #[must_use]
    pub fn start_by_hand(&self, node: &str) -> String {
        match self {
            Self::Systemd { unit, sudo } => {
                let command = format!("systemctl start {}", printable(unit.as_bytes()));
                let node = node.parse().unwrap_or(NodeAddress::Local);
                node.by_hand(*sudo, &command)
            }
            Self::Commands { start, .. } => CommandLine::from(start).display(),
        }
    }
}

/// Whether a service ran before the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prior {
    /// It ran.
    Running,
    /// It did not: it is left alone.
    Stopped,
    /// It could not be told, and the operator wished to go on: it counts as one that ran.
    Unknown,
}

/// How far a window is, as far as whoever comes after its owner has to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// No stop was asked for.
    Armed,
    /// Stops were asked for and may take effect at any time. An intent that does not say is one.
    #[default]
    Stopping,
    /// Starts were asked for: one may be under way, and a second one would be one too many.
    Starting,
}

/// One service on one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IntentService {
    /// `local`, or the node's address.
    pub node: String,
    /// The unit's name, or a word for the commands.
    pub service: String,
    /// How it is stopped and started.
    #[serde(flatten)]
    pub how: ServiceKind,
    /// Whether it ran.
    pub prior: Prior,
    /// What its status was: `CABK_WAS` of the commands.
    pub detail: String,
    /// systemd's name for the run that is ended.
    pub invocation_id: Option<String>,
    /// The control group of that run.
    pub cgroup: Option<String>,
    /// Whether its node may have a hold and a timer for it: they go with the start.
    #[serde(default)]
    pub guarded: bool,
}

impl IntentService {
    /// A service and its status before the stop.
    #[must_use]
    pub fn new(node: String, service: String, how: ServiceKind, was: &ServiceStatus) -> Self {
        let prior = match was.state {
            ServiceState::Running => Prior::Running,
            ServiceState::Stopped => Prior::Stopped,
            ServiceState::Unknown(_) => Prior::Unknown,
        };
        Self {
            node,
            service,
            how,
            prior,
            detail: was.detail.clone(),
            invocation_id: was.invocation_id.clone(),
            cgroup: was.cgroup.clone(),
            guarded: false,
        }
    }

    /// Its status before the stop, as far as it is kept.
    #[must_use]
    pub fn was(&self) -> ServiceStatus {
        let state = match self.prior {
            Prior::Running => ServiceState::Running,
            Prior::Stopped => ServiceState::Stopped,
            Prior::Unknown => ServiceState::Unknown(self.detail.clone()),
        };
        ServiceStatus {
            invocation_id: self.invocation_id.clone(),
            cgroup: self.cgroup.clone(),
            ..ServiceStatus::bare(state, self.detail.clone())
        }
    }
}

/// The process that opened a window.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Owner {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
    /// The boot that it ran in.
    pub boot_id: String,
}

impl Owner {
    /// This process.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn this_process() -> io::Result<Self> {
        let own = machine::own_process()?;
        Ok(Self { pid: own.pid, start_time: own.start_time, boot_id: machine::boot_id()? })
    }

    /// Whether it lives.
    ///
    /// # Errors
    /// What the operating system says, where that cannot be told.
    pub fn is_alive(&self) -> io::Result<bool> {
        Ok(machine::boot_id()? == self.boot_id
            && machine::process_alive(self.pid, self.start_time)?)
    }
}

/// What a window is about to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Intent {
    /// Version of this form.
    pub version: u32,
    /// Site label.
    pub site: String,
    /// Who opened the window.
    pub owner: Owner,
    /// When.
    pub time: Timestamp,
    /// When the service is to run again at the latest.
    pub deadline: Timestamp,
    /// How far it is.
    #[serde(default)]
    pub phase: Phase,
    /// The directory in which commands run.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// Milliseconds that a stop has.
    pub stop_timeout_ms: u64,
    /// Milliseconds that a start has.
    pub start_timeout_ms: u64,
    /// The services, in the order of their stops.
    pub services: Vec<IntentService>,
}

impl Intent {
    /// An intent in this version's form, owned by this process.
    ///
    /// # Errors
    /// Where the operating system does not say who this process is.
    pub fn new(site: &str, time: Timestamp, deadline: Timestamp) -> io::Result<Self> {
        Ok(Self {
            version: VERSION,
            site: site.to_owned(),
            owner: Owner::this_process()?,
            time,
            deadline,
            phase: Phase::Armed,
            directory: std::env::current_dir().ok(),
            stop_timeout_ms: 0,
            start_timeout_ms: 0,
            services: Vec::new(),
        })
    }

    /// Whether its owner is dead: somebody else has to start what it stopped.
    ///
    /// # Errors
    /// What the operating system says, where that cannot be told.
    pub fn is_stale(&self) -> io::Result<bool> {
        Ok(!self.owner.is_alive()?)
    }
}

/// What is wrong with an intent file or its directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntentError {
    /// A call failed.
    #[error("cannot {what} {}", printable(crate::base::path::bytes(path)))]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is there and is no intent.
    #[error("the intent file {} is damaged: {why}", printable(crate::base::path::bytes(path)))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The intents of a state directory: at most one a site.
#[derive(Clone, Debug)]
pub struct IntentStore {
    dir: PathBuf,
}

impl IntentStore {
    /// The intents below a state directory. Nothing is made before something is written.
    #[must_use]
    pub fn open(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("windows") }
    }

    /// The path of a site's file with this ending: readable, and told apart by a hash where labels
    /// would look alike.
    pub(super) fn path(&self, site: &str, ending: &str) -> PathBuf {
        let fits = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let readable: String = site.chars().take(40).map(fits).collect();
        let hash = blake3::hash(site.as_bytes()).to_hex();
        self.dir.join(format!("{readable}-{}.{ending}", &hash[..16]))
    }

    /// Makes the directory where it is not there, and makes that last.
    pub(super) fn prepare(&self) -> Result<(), IntentError> {
        if self.dir.is_dir() {
            return Ok(());
        }
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(failed("make", &self.dir))?;
        let mut place = self.dir.as_path();
        // The directories above may be new as well; which of them cannot be told any more.
        for _ in 0..3 {
            let Some(parent) = place.parent().filter(|p| !p.as_os_str().is_empty()) else { break };
            sync_dir(parent)?;
            place = parent;
        }
        Ok(())
    }

    /// Writes a site's intent, and returns when it would outlast a loss of power.
    ///
    /// # Errors
    /// [`IntentError::Io`]; the former state is left then.
    pub fn write(&self, intent: &Intent) -> Result<(), IntentError> {
        self.prepare()?;
        let path = self.path(&intent.site, "json");
        let temporary = self.path(&intent.site, "tmp");
        let bytes = serde_json::to_vec_pretty(intent)
            .map_err(|error| failed("encode", &path)(io::Error::other(error)))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(failed("write", &path)(io::Error::other("it would be too large")));
        }
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(flags);
        let mut file = options.open(&temporary).map_err(failed("make", &temporary))?;
        file.write_all(&bytes).map_err(failed("write", &temporary))?;
        file.sync_all().map_err(failed("sync", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(failed("put in place", &path))?;
        sync_dir(&self.dir)
    }

    /// Removes a site's intent, and returns when it would stay removed. One that is not there is
    /// no error.
    ///
    /// # Errors
    /// [`IntentError::Io`].
    pub fn remove(&self, site: &str) -> Result<(), IntentError> {
        let path = self.path(site, "json");
        match std::fs::remove_file(&path) {
            Ok(()) => sync_dir(&self.dir),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(failed("remove", &path)(e)),
        }
    }

    /// Adds to what the guards of a site noted. It begins anew where it has grown long.
    ///
    /// # Errors
    /// [`IntentError::Io`].
    pub fn append_log(&self, site: &str, line: &[u8]) -> Result<(), IntentError> {
        let path = self.path(site, "log");
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let long = std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.len() > MAX_BYTES);
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(flags);
        let mut file = options.open(&path).map_err(failed("open", &path))?;
        if long {
            file.set_len(0).map_err(failed("shorten", &path))?;
        }
        file.write_all(line).map_err(failed("write", &path))
    }

    /// A site's intent.
    ///
    /// # Errors
    /// [`IntentError`].
    pub fn read(&self, site: &str) -> Result<Option<Intent>, IntentError> {
        self.read_file(&self.path(site, "json"))
    }

    /// All intents, by file; one that is damaged does not hide the others.
    ///
    /// # Errors
    /// [`IntentError::Io`] where the directory cannot be listed.
    pub fn list(&self) -> Result<Vec<Result<Intent, IntentError>>, IntentError> {
        let paths = self.files("json")?;
        Ok(paths.iter().filter_map(|path| self.read_file(path).transpose()).collect())
    }

    /// The files with this ending, in order.
    fn files(&self, ending: &str) -> Result<Vec<PathBuf>, IntentError> {
        let names = match std::fs::read_dir(&self.dir) {
            Ok(names) => names,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed("list", &self.dir)(e)),
        };
        let mut paths = Vec::new();
        for name in names {
            let path = name.map_err(failed("list", &self.dir))?.path();
            if path.extension().is_some_and(|has| has == ending) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// The last lines that the guards of each site noted, file by file.
    ///
    /// # Errors
    /// [`IntentError::Io`] where the directory cannot be listed. A file that cannot be read has no
    /// lines.
    pub fn last_of_logs(&self, lines: usize) -> Result<Vec<(PathBuf, Vec<String>)>, IntentError> {
        let last = |path: PathBuf| {
            let tail = tail(&path).unwrap_or_default();
            let all: Vec<String> = tail.lines().map(str::to_owned).collect();
            (path, all[all.len().saturating_sub(lines)..].to_vec())
        };
        Ok(self.files("log")?.into_iter().map(last).collect())
    }

    fn read_file(&self, path: &Path) -> Result<Option<Intent>, IntentError> {
        use rustix::fs::OFlags;
        // Neither a link nor a FIFO can lead or hold a reader that may be root.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed("open", path)(e)),
        };
        let damaged = |why: String| IntentError::Damaged { path: path.to_owned(), why };
        if !file.metadata().map_err(failed("look at", path))?.is_file() {
            return Err(damaged("it is not a file".into()));
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(damaged("it is too large".into()));
        }
        let intent: Intent =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if intent.version != VERSION {
            return Err(damaged(format!("version {} is not known here", intent.version)));
        }
        if self.path(&intent.site, "json") != path {
            return Err(damaged("it names another site than its file name".into()));
        }
        Ok(Some(intent))
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IntentError {
    let path = path.to_owned();
    move |source| IntentError::Io { what, path, source }
}

/// The end of a text file, from the beginning of a line on.
fn tail(path: &Path) -> io::Result<String> {
    const BYTES: u64 = 4096;
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let mut file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    let from = file.metadata()?.len().saturating_sub(BYTES);
    file.seek(io::SeekFrom::Start(from))?;
    let mut read = Vec::new();
    file.take(BYTES).read_to_end(&mut read)?;
    let text = String::from_utf8_lossy(&read).into_owned();
    let whole =
        if from == 0 { Some(text.as_str()) } else { text.split_once('\n').map(|(_, rest)| rest) };
    Ok(whole.unwrap_or_default().to_owned())
}

fn sync_dir(dir: &Path) -> Result<(), IntentError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
}
