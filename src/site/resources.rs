//! Which settings name files, directories or databases, and what that means for a backup.

use std::path::Path;

use super::read::below;
use super::settings::{Setting, Settings};
use crate::base::path::{components, is_within, join};

/// What a source is to the site. The names are those of `discover`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// `Server.DataDir`.
    DataDir,
    /// The directory of the SQLite databases.
    Sqlite,
    /// `Database.Dir`: holds the secret key.
    DatabaseDir,
    /// The configuration files and their directory.
    Config,
    /// A file or directory that the configuration names.
    Referenced,
    /// An environment file.
    Environment,
    /// A unit file or drop-in.
    Unit,
    /// The configuration of another node.
    NodeConfig,
    /// A PostgreSQL database.
    Postgres,
    /// A licence file or the licence manager's state.
    License,
    /// cabk's own configuration.
    Cabk,
    /// A path that the operator added.
    Extra,
}

impl Role {
    /// The role's name on the command line and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DataDir => "data-dir",
            Self::Sqlite => "sqlite",
            Self::DatabaseDir => "database-dir",
            Self::Config => "config",
            Self::Referenced => "referenced",
            Self::Environment => "environment",
            Self::Unit => "unit",
            Self::NodeConfig => "node-config",
            Self::Postgres => "postgres",
            Self::License => "license",
            Self::Cabk => "cabk",
            Self::Extra => "extra",
        }
    }

    /// Whether what has this role holds secrets as a rule.
    #[must_use]
    pub const fn is_secret(self) -> bool {
        !matches!(self, Self::DataDir | Self::Referenced | Self::Extra)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is done with the path that a setting names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// It is a source.
    Path,
    /// It is a source where the value is an absolute path; it may also be text or a URL.
    IfPath,
    /// The value's first word is a script.
    Command,
    /// A program: recorded, because a restored site needs it, and reinstalled rather than kept.
    Program,
    /// Scratch space or logs: known, and left out.
    Never,
}

/// What the server takes where no file says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing.
    None,
    /// An absolute path.
    Path(&'static str),
    /// A path below the data directory.
    InDataDir(&'static str),
}

/// One setting that names something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// Section; any subsection.
    pub section: &'static str,
    /// Key.
    pub key: &'static str,
    /// Whether it can be repeated.
    pub multi: bool,
    /// What is taken where it is not set.
    pub default: Fallback,
    /// The role of what it names.
    pub role: Role,
    /// What is done with what it names.
    pub take: Take,
    /// Whether a backup without it cannot bring the site back.
    pub critical: bool,
    /// Whether it holds secrets.
    pub secret: bool,
}

impl Resource {
    const fn new(section: &'static str, key: &'static str, take: Take) -> Self {
        Self {
            section,
            key,
            multi: false,
            default: Fallback::None,
            role: Role::Referenced,
            take,
            critical: false,
            secret: false,
        }
    }

    const fn multi(self) -> Self {
        Self { multi: true, ..self }
    }

    const fn critical(self) -> Self {
        Self { critical: true, ..self }
    }

    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    const fn role(self, role: Role, default: Fallback) -> Self {
        Self { role, default, ..self }
    }

    /// `Section.Key`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }
}

use Take::{Command, IfPath, Never, Program};

const fn path(section: &'static str, key: &'static str) -> Resource {
    Resource::new(section, key, Take::Path)
}

/// All settings that are known to name something. The first three are those that `discover` treats
/// by themselves.
pub const RESOURCES: &[Resource] = &[
    path("Server", "DataDir")
        .role(Role::DataDir, Fallback::Path("/var/lib/rstudio-connect"))
        .critical(),
    path("SQLite", "Dir").role(Role::Sqlite, Fallback::InDataDir("db")).critical().secret(),
    path("Database", "Dir").role(Role::DatabaseDir, Fallback::InDataDir("db")).critical().secret(),
    path("Server", "LandingDir"),
    path("Server", "EncryptionKeyFile").critical().secret(),
    path("Server", "SourcePackageDir"),
    path("HTTPS", "Certificate"),
    path("HTTPS", "Key").secret(),
    Resource::new("LDAP", "TLSCACertificate", IfPath),
    path("SAML", "IdPMetaDataPath"),
    Resource::new("SAML", "IdPMetaData", IfPath),
    Resource::new("SAML", "IdPSigningCertificate", IfPath),
    Resource::new("SAML", "SPEncryptionCertificate", IfPath),
    Resource::new("SAML", "SPEncryptionKey", IfPath).secret(),
    path("OAuth2", "ClientSecretFile").secret(),
    path("Bootstrap", "SecretKeyFile").secret(),
    path("Metrics", "DataPath"),
    Resource::new("Applications", "Supervisor", Command),
    path("Launcher", "KubernetesProfilesConfig"),
    Resource::new("Launcher", "ClusterDefinition", IfPath).multi(),
    path("Kubernetes", "DefaultResourceJobBase"),
    path("Kubernetes", "DefaultResourceServiceBase"),
    path("ExecutionEnvironments", "ConfigFilePath"),
    path("Chronicle", "LocalStorageLocation"),
    Resource::new("R", "Executable", Program).multi(),
    Resource::new("Python", "Executable", Program).multi(),
    Resource::new("Quarto", "Executable", Program).multi(),
    Resource::new("NodeJs", "Executable", Program).multi(),
    Resource::new("TensorFlow", "Executable", Program).multi(),
    Resource::new("Server", "RVersion", Program).multi(),
    Resource::new("Server", "TempDir", Never),
    Resource::new("Logging", "ServiceLog", Never),
    Resource::new("Logging", "AccessLog", Never),
    Resource::new("Logging", "AuditLog", Never),
    Resource::new("Mount", "BaseDir", Never),
    Resource::new("Launcher", "ScratchPath", Never),
    Resource::new("Kubernetes", "ConnectRuntimeDir", Never),
    Resource::new("Kubernetes", "DataDirPVCSubPath", Never),
];

/// The entry of the table for a setting.
#[must_use]
pub fn known(setting: &Setting) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| setting.is(r.section, r.key))
}

/// The values that count of a resource's setting, all of them where it can be repeated.
#[must_use]
pub fn values<'a>(settings: &'a Settings, resource: &Resource) -> Vec<&'a Setting> {
    if resource.multi {
        settings.all(resource.section, resource.key)
    } else {
        settings.each(resource.section, resource.key)
    }
}

/// The path that a value names under a resource's rule; `None` where it names none.
#[must_use]
pub fn path_in(take: Take, value: &str) -> Option<&str> {
    let value = value.trim();
    let value = value.strip_prefix("file://").unwrap_or(value);
    let path = match take {
        Take::Command => value.split_ascii_whitespace().next()?,
        Take::Path | Take::Program | Take::IfPath | Take::Never => value,
    };
    let plain = !path.is_empty() && !path.contains('\0') && path.len() < 4096;
    (plain && (path.starts_with('/') || matches!(take, Take::Path))).then_some(path)
}

/// A path as the server would read it: a relative one starts at the configuration's directory.
/// Empty components and `.` are dropped, `..` is kept, because only the file system knows what it
/// means beside symbolic links.
#[must_use]
pub fn resolve(path: &[u8], base: &[u8]) -> Vec<u8> {
    let whole = if path.starts_with(b"/") { path.to_vec() } else { join(base, path) };
    let mut plain = Vec::with_capacity(whole.len());
    for part in components(&whole) {
        plain.push(b'/');
        plain.extend_from_slice(part);
    }
    if plain.is_empty() { b"/".to_vec() } else { plain }
}

/// Where programs and the system itself live: a value that points there is no content of the site.
const SYSTEM_DIRS: [&[u8]; 11] = [
    b"/opt", b"/usr", b"/bin", b"/sbin", b"/lib", b"/lib64", b"/proc", b"/sys", b"/dev", b"/run",
    b"/boot",
];

/// Bytes up to which a file that only looks like a resource is taken.
pub const GUESS_FILE_MAX: u64 = 64 << 20;

/// What a value of a setting that the table does not know may name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guess {
    /// A regular file small enough to be taken.
    File(Vec<u8>),
    /// A regular file above [`GUESS_FILE_MAX`]: told, not taken.
    LargeFile(Vec<u8>),
    /// A directory: told, not taken.
    Dir(Vec<u8>),
}

/// Looks at the value of a setting that the table does not know: an absolute path of an existing
/// regular file or directory, outside of where programs live.
#[must_use]
pub fn guess(root: &Path, setting: &Setting) -> Option<Guess> {
    if setting.key.to_ascii_lowercase().ends_with("executable") || known(setting).is_some() {
        return None;
    }
    let path = resolve(path_in(IfPath, setting.value.as_deref()?)?.as_bytes(), b"/");
    let system = path == b"/" || SYSTEM_DIRS.iter().any(|dir| is_within(&path, dir));
    if system || components(&path).any(|part| part == b"..") {
        return None;
    }
    let found = below(root, &path).metadata().ok()?;
    if found.is_dir() {
        Some(Guess::Dir(path))
    } else if !found.is_file() {
        None
    } else if found.len() > GUESS_FILE_MAX {
        Some(Guess::LargeFile(path))
    } else {
        Some(Guess::File(path))
    }
}

#[cfg(test)]
mod tests;
