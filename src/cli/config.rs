//! The configuration file: every key is known and checked, the defaults stand here.

mod load;
mod value;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::args::Percent;

pub use load::{ConfigError, Loaded, load, parse};

/// Where the file is looked for when none is named.
pub const DEFAULT_FILE: &str = "/etc/cabk/cabk.toml";

/// The whole file. What is absent has its default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The repository and how it is opened.
    pub repository: Repository,
    /// The site and what is read of it.
    pub site: Site,
    /// The service and how long it may stand still.
    pub service: Service,
    /// How the window is kept short.
    pub window: Window,
    /// What the operator says about evidence.
    pub evidence: Evidence,
    /// What the site's own configuration cannot say about PostgreSQL.
    pub postgres: Postgres,
    /// Application archives.
    pub bundles: Bundles,
    /// What `forget` keeps.
    pub retention: Retention,
    /// What `check` reads.
    pub check: Check,
    /// Commands that are told what happens.
    pub hooks: Hooks,
}

/// `[repository]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Repository {
    /// Path or URL.
    #[serde(deserialize_with = "value::text")]
    pub url: Option<String>,
    /// File that holds the password.
    #[serde(deserialize_with = "value::path")]
    pub password_file: Option<PathBuf>,
    /// Command that prints the password; empty for none.
    pub password_command: Vec<String>,
    /// Bytes that must stay free.
    #[serde(deserialize_with = "value::size")]
    pub min_free: u64,
}

impl Default for Repository {
    fn default() -> Self {
        Self { url: None, password_file: None, password_command: Vec::new(), min_free: 5 << 30 }
    }
}

/// `[site]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Site {
    /// Label that snapshots are kept under.
    #[serde(deserialize_with = "value::text")]
    pub name: Option<String>,
    /// The site's configuration file.
    #[serde(deserialize_with = "value::gcfg")]
    pub gcfg: PathBuf,
    /// The service's environment file, where the unit names none.
    pub env_file: PathBuf,
    /// Read beside what is discovered.
    pub paths: Vec<PathBuf>,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            name: None,
            gcfg: "/etc/rstudio-connect/rstudio-connect.gcfg".into(),
            env_file: "/etc/default/rstudio-connect".into(),
            paths: Vec::new(),
            exclude: Vec::new(),
        }
    }
}

/// `[service]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// systemd units, in the order in which they are stopped.
    pub units: Vec<String>,
    /// Machines on which it runs; empty for this one.
    #[serde(deserialize_with = "value::nodes")]
    pub nodes: Vec<String>,
    /// Whether commands on other nodes go through `sudo -n`.
    pub node_sudo: bool,
    /// Stops the service, instead of systemd.
    pub stop_command: Vec<String>,
    /// Starts the service.
    pub start_command: Vec<String>,
    /// Tells whether the service runs.
    pub status_command: Vec<String>,
    /// How long a stop may take.
    #[serde(deserialize_with = "value::duration")]
    pub stop_timeout: Duration,
    /// How long the service may stand still.
    #[serde(deserialize_with = "value::duration")]
    pub max_downtime: Duration,
    /// How long the stop is postponed until nothing renders.
    #[serde(deserialize_with = "value::duration")]
    pub wait_idle: Duration,
    /// How long is waited for processes to leave the sources.
    #[serde(deserialize_with = "value::duration")]
    pub wait_quiet: Duration,
    /// Asked after the start.
    #[serde(deserialize_with = "value::text")]
    pub health_url: Option<String>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            units: vec!["rstudio-connect.service".to_owned()],
            nodes: Vec::new(),
            node_sudo: false,
            stop_command: Vec::new(),
            start_command: Vec::new(),
            status_command: Vec::new(),
            stop_timeout: Duration::from_secs(5 * 60),
            max_downtime: Duration::from_secs(30 * 60),
            wait_idle: Duration::ZERO,
            wait_quiet: Duration::from_secs(2 * 60),
            health_url: None,
        }
    }
}

/// Whether content is read ahead while the service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precopy {
    /// Whatever shortens the stop.
    #[default]
    Auto,
    /// Nothing.
    Never,
}

/// How the sources are held still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Freeze {
    /// The best that the file system offers.
    #[default]
    Auto,
    /// By the stop alone.
    None,
    /// Snapshots of btrfs.
    Btrfs,
    /// Clones of single files.
    Reflink,
    /// The operator's own commands.
    Command,
}

/// Whether cabk gives way to other processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nice {
    /// While the service runs.
    #[default]
    Auto,
    /// Never.
    None,
}

/// `[window]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Window {
    /// Reading ahead.
    pub precopy: Precopy,
    /// Holding still.
    pub freeze: Freeze,
    /// Makes a frozen copy.
    pub freeze_create: Vec<String>,
    /// Where the frozen copy is seen.
    #[serde(deserialize_with = "value::path")]
    pub freeze_path: Option<PathBuf>,
    /// Removes the frozen copy.
    pub freeze_remove: Vec<String>,
    /// Bytes a second read while the service runs.
    #[serde(deserialize_with = "value::rate")]
    pub max_read_rate: Option<u64>,
    /// Giving way.
    pub nice: Nice,
    /// How long one read may take.
    #[serde(deserialize_with = "value::duration")]
    pub read_timeout: Duration,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            precopy: Precopy::Auto,
            freeze: Freeze::Auto,
            freeze_create: Vec::new(),
            freeze_path: None,
            freeze_remove: Vec::new(),
            max_read_rate: None,
            nice: Nice::Auto,
            read_timeout: Duration::from_secs(60),
        }
    }
}

/// `[evidence]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Evidence {
    /// Executables that may read in the sources.
    pub allow: Vec<String>,
    /// Database roles that do not count as clients.
    pub ignore_roles: Vec<String>,
    /// Checks that the operator vouches for.
    #[serde(deserialize_with = "value::checks")]
    pub assert: Vec<String>,
}

/// `[postgres]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// Where to connect, instead of what the site's configuration names.
    #[serde(deserialize_with = "value::text")]
    pub url: Option<String>,
    /// File that holds the database's password.
    #[serde(deserialize_with = "value::path")]
    pub password_file: Option<PathBuf>,
    /// Command that prints the database's password.
    pub password_command: Vec<String>,
    /// How long the database's snapshot may be held.
    #[serde(deserialize_with = "value::duration")]
    pub max_hold: Duration,
    /// Directory of `pg_dump`.
    #[serde(deserialize_with = "value::path")]
    pub bin_dir: Option<PathBuf>,
    /// A provider's own snapshots.
    pub snapshot_command: Vec<String>,
    /// How a provider's snapshot is brought back.
    #[serde(deserialize_with = "value::text")]
    pub restore_hint: Option<String>,
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            url: None,
            password_file: None,
            password_command: Vec::new(),
            max_hold: Duration::from_secs(2 * 3600),
            bin_dir: None,
            snapshot_command: Vec::new(),
            restore_hint: None,
        }
    }
}

/// `[bundles]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bundles {
    /// Where bundles lie; empty for found by content.
    pub paths: Vec<PathBuf>,
    /// Whether archives are stored as what is in them.
    pub transparent: bool,
    /// Processor time for proving that, in each run.
    #[serde(deserialize_with = "value::duration")]
    pub max_cpu: Duration,
}

impl Default for Bundles {
    fn default() -> Self {
        Self { paths: Vec::new(), transparent: true, max_cpu: Duration::from_secs(2 * 3600) }
    }
}

/// `[retention]`: both tables are empty unless written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Of snapshots.
    pub snapshots: Policy,
    /// Of captures.
    pub captures: Policy,
}

/// What is kept of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The newest.
    pub keep_last: Option<u32>,
    /// One for each hour.
    pub keep_hourly: Option<u32>,
    /// One for each day.
    pub keep_daily: Option<u32>,
    /// One for each week.
    pub keep_weekly: Option<u32>,
    /// One for each month.
    pub keep_monthly: Option<u32>,
    /// One for each year.
    pub keep_yearly: Option<u32>,
    /// All that are younger.
    #[serde(deserialize_with = "value::some_duration")]
    pub keep_within: Option<Duration>,
    /// All with one of these tags.
    pub keep_tag: Vec<String>,
}

/// `[check]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Check {
    /// Share of the data that is read where `--read-data` is not given.
    #[serde(deserialize_with = "value::percent")]
    pub read_data: Percent,
    /// When reading ends.
    #[serde(deserialize_with = "value::duration")]
    pub max_duration: Duration,
}

impl Default for Check {
    fn default() -> Self {
        Self { read_data: Percent::DEFAULT_CHECK, max_duration: Duration::from_secs(3600) }
    }
}

/// `[hooks]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hooks {
    /// Before the service is stopped.
    pub before_stop: Vec<String>,
    /// After it was started.
    pub after_start: Vec<String>,
    /// When a run ended well.
    pub on_success: Vec<String>,
    /// When a run failed.
    pub on_failure: Vec<String>,
    /// Before the stop, to tell the site's users.
    pub announce: Vec<String>,
}

impl Config {
    /// The keys that were set to something else than their default and whose feature is not there
    /// yet, one sentence each.
    #[must_use]
    pub fn without_effect(&self) -> Vec<String> {
        let standard = Self::default();
        let window = &self.window;
        let mut keys = Vec::new();
        let mut look = |differs: bool, key: &str| {
            if differs {
                keys.push(format!("{key} has no effect yet in this version"));
            }
        };
        look(window.freeze == Freeze::Reflink, "window.freeze = reflink");
        look(!self.evidence.ignore_roles.is_empty(), "evidence.ignore_roles");
        self.postgres.without_effect(&standard.postgres, &mut look);
        look(!self.bundles.paths.is_empty(), "bundles.paths");
        look(!self.bundles.transparent, "bundles.transparent");
        look(self.bundles.max_cpu != standard.bundles.max_cpu, "bundles.max_cpu");
        look(self.retention.snapshots != standard.retention.snapshots, "retention.snapshots");
        look(self.retention.captures != standard.retention.captures, "retention.captures");
        look(!self.hooks.before_stop.is_empty(), "hooks.before_stop");
        look(!self.hooks.after_start.is_empty(), "hooks.after_start");
        look(!self.hooks.on_success.is_empty(), "hooks.on_success");
        look(!self.hooks.on_failure.is_empty(), "hooks.on_failure");
        keys
    }
}

impl Postgres {
    fn without_effect(&self, usual: &Self, look: &mut dyn FnMut(bool, &str)) {
        look(self.url != usual.url, "postgres.url");
        look(self.password_file != usual.password_file, "postgres.password_file");
        look(self.password_command != usual.password_command, "postgres.password_command");
        look(self.max_hold != usual.max_hold, "postgres.max_hold");
        look(self.bin_dir != usual.bin_dir, "postgres.bin_dir");
        look(self.snapshot_command != usual.snapshot_command, "postgres.snapshot_command");
        look(self.restore_hint != usual.restore_hint, "postgres.restore_hint");
    }
}

#[cfg(test)]
mod tests;
