//! From a configuration to the site: what it consists of, and what about it deserves a warning.
//!
//! Reads small files and looks at paths; runs nothing, asks no service and changes nothing. No
//! message holds a value of a setting other than a path.

mod gather;
mod identity;
mod roots;
mod sources;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use roots::{Inner, Root, merged_roots};

use super::envfile::EnvError;
use super::gcfg::GcfgError;
use super::postgres::Postgres;
use super::read::ReadError;
use super::resources::Role;
use super::settings::{Origin, Settings};
use super::unit::UnitError;
use crate::base::path::{hex_if_not_utf8, lossy};

/// Where the configuration stands where nobody says otherwise.
pub const DEFAULT_GCFG: &str = "/etc/rstudio-connect/rstudio-connect.gcfg";
/// The environment file where no unit names one.
pub const DEFAULT_ENV_FILE: &str = "/etc/default/rstudio-connect";
/// The program where no unit names one.
pub const DEFAULT_PROGRAM: &str = "/opt/rstudio-connect/bin/connect";

/// Why a site could not be described.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The configuration or an environment file could not be read.
    #[error("{what}")]
    Read {
        /// Which of the site's files.
        what: &'static str,
        /// The path and why.
        source: ReadError,
    },
    /// The configuration is not what the server would take.
    #[error("{path}")]
    Gcfg {
        /// The file, printable.
        path: String,
        /// Where in it and what.
        source: GcfgError,
    },
    /// An environment file is not text.
    #[error("{path}")]
    Environment {
        /// The file, printable.
        path: String,
        /// Where in it and what.
        source: EnvError,
    },
    /// A unit could not be read.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// The path of the configuration cannot be made absolute.
    #[error("{path} cannot be made absolute")]
    Relative {
        /// The path, printable.
        path: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
}

/// What `discover` is told. Has no `Debug`: a process's environment may be among it.
#[derive(Clone)]
pub struct DiscoverInput {
    /// `/`; a test's own root, below which all absolute paths are looked up.
    pub root: PathBuf,
    /// Where the shared directories are, where that is not [`Self::root`]: of a configuration that
    /// was fetched from another machine.
    pub shared: Option<PathBuf>,
    /// The configuration.
    pub gcfg: PathBuf,
    /// The second configuration; else what the unit names, else `NAME-migration.gcfg` beside.
    pub migration: Option<PathBuf>,
    /// The environment file, which must be there; else what the units name, else
    /// [`DEFAULT_ENV_FILE`] where it is there.
    pub env_file: Option<PathBuf>,
    /// Where the environment file is where no unit names one and none was given; it may be missing.
    pub usual_env_file: Option<PathBuf>,
    /// Units of the service.
    pub units: Vec<String>,
    /// Files of a unit (unit file, then drop-ins in order), where the caller asked systemd.
    pub unit_files: BTreeMap<String, Vec<Vec<u8>>>,
    /// Variables of the running server, where the caller could see them.
    pub process_env: Vec<(String, String)>,
    /// Paths that the operator adds.
    pub extra_paths: Vec<PathBuf>,
    /// cabk's own configuration.
    pub cabk_config: Option<PathBuf>,
    /// The label that the operator gave.
    pub site_name: Option<String>,
    /// This machine's name; asked of the system where it is not given.
    pub hostname: Option<String>,
}

impl DiscoverInput {
    /// A configuration on this machine and nothing else.
    #[must_use]
    pub fn new(gcfg: impl Into<PathBuf>) -> Self {
        Self {
            root: PathBuf::from("/"),
            shared: None,
            gcfg: gcfg.into(),
            migration: None,
            env_file: None,
            usual_env_file: None,
            units: Vec::new(),
            unit_files: BTreeMap::new(),
            process_env: Vec::new(),
            extra_paths: Vec::new(),
            cabk_config: None,
            site_name: None,
            hostname: None,
        }
    }
}

/// Which database the server uses.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// SQLite, the default.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// Neither, as written.
    Other(String),
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locator {
    /// An absolute path, as configured: symbolic links are not resolved.
    Path(Vec<u8>),
    /// A database's URL without secrets.
    Database(String),
}

impl Locator {
    /// The path, where it is one.
    #[must_use]
    pub fn path(&self) -> Option<&[u8]> {
        match self {
            Self::Path(path) => Some(path),
            Self::Database(_) => None,
        }
    }
}

impl serde::Serialize for Locator {
    /// `{"path": …}` with `path_hex` where it is not UTF-8, or `{"database": …}`.
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = s.serialize_map(None)?;
        match self {
            Self::Path(path) => {
                map.serialize_entry("path", &lossy(path))?;
                if let Some(hex) = hex_if_not_utf8(path) {
                    map.serialize_entry("path_hex", &hex)?;
                }
            }
            Self::Database(url) => map.serialize_entry("database", url)?,
        }
        map.end()
    }
}

/// What stands at a source's path, symbolic links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// Nothing.
    Missing,
    /// A pipe, device or socket, something that could not be looked at, or a database.
    Other,
}

/// One thing of the site that is read. Sources may lie within each other: [`merged_roots`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Source {
    /// What it is to the site.
    pub roles: Vec<Role>,
    /// Where it is.
    #[serde(flatten)]
    pub locator: Locator,
    /// The setting that names it: `Server.DataDir`.
    pub setting: Option<String>,
    /// Where that setting stands.
    pub origin: Option<Origin>,
    /// Whether it is there.
    pub exists: bool,
    /// Whether it lies where shared directories are, or is no path at all.
    #[serde(skip)]
    pub shared: bool,
    /// What it is.
    pub kind: SourceKind,
    /// Whether it is kept apart from other content, because it holds secrets.
    pub secret: bool,
    /// Whether the site cannot be brought back without it.
    pub critical: bool,
}

/// Something that an operator should know. The codes are fixed words.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Warning {
    /// What kind of thing.
    pub code: &'static str,
    /// The sentence.
    pub message: String,
}

/// A program that the configuration names: not kept, but needed by a restored site.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Program {
    /// The setting: `Python.Executable`.
    pub setting: String,
    /// Its path.
    pub path: String,
}

/// One installation, as its configuration describes it.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its name.
    pub label: String,
    /// Whether the name is only this machine's.
    pub label_from_hostname: bool,
    /// The configuration, absolute.
    pub gcfg: PathBuf,
    /// All settings.
    pub settings: Settings,
    /// All that is read.
    pub sources: Vec<Source>,
    /// PostgreSQL databases, each once.
    pub databases: Vec<Postgres>,
    /// Which database the server uses.
    pub provider: Provider,
    /// The data directory.
    pub data_dir: Vec<u8>,
    /// The directory of the SQLite databases, where SQLite is used.
    pub sqlite_dir: Option<Vec<u8>>,
    /// The server's program, where it is installed: `PROGRAM --version` says the version.
    pub program: Option<PathBuf>,
    /// The server's version; `None` until the caller has run [`Site::program`] and read its words
    /// with [`version_from_output`].
    pub connect_version: Option<String>,
    /// Programs that the configuration names.
    pub programs: Vec<Program>,
    /// What an operator should know.
    pub warnings: Vec<Warning>,
}

/// Describes a site.
///
/// # Errors
/// [`SiteError`] where the configuration, an environment file or a unit cannot be read as the
/// server would read it. What only may be missing is a warning.
pub fn discover(input: &DiscoverInput) -> Result<Site, SiteError> {
    let gathered = gather::gather(input)?;
    Ok(sources::describe(input, gathered))
}

/// The version in what `connect --version` prints: the first word that begins with digits and a
/// dot, a `v` before it left out.
#[must_use]
pub fn version_from_output(text: &str) -> Option<String> {
    text.split(|c: char| c.is_whitespace() || ",;()\"'".contains(c))
        .take(1_000)
        .map(|word| word.strip_prefix(['v', 'V']).unwrap_or(word).trim_end_matches('.'))
        .find(|word| {
            let digits = word.bytes().take_while(u8::is_ascii_digit).count();
            let plain = |c: char| c.is_ascii_alphanumeric() || ".-+~_".contains(c);
            let next = word[digits..].strip_prefix('.').and_then(|r| r.chars().next());
            digits > 0
                && word.len() <= 64
                && next.is_some_and(|c| c.is_ascii_digit())
                && word.chars().all(plain)
        })
        .map(ToString::to_string)
}

#[cfg(test)]
mod tests;
