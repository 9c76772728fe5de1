//! From what was read to the list of sources, databases and warnings.

use std::collections::BTreeSet;
use std::path::Path;

use super::gather::{Gathered, absolute, is_set, parent};
use super::{
    DEFAULT_PROGRAM, DiscoverInput, Locator, Program, Provider, Site, Source, SourceKind, Warning,
};
use crate::base::path::{bytes, from_bytes, is_within, join, printable};
use crate::site::read::{below, names};
use crate::site::resources::{self, Guess, RESOURCES, Resource, Role, Take};
use crate::site::settings::{Origin, Setting, Settings};

/// Directories that belong to the whole machine: one file in them does not make them the site's.
const SHARED_DIRS: [&str; 22] = [
    "/", "/bin", "/boot", "/data", "/dev", "/etc", "/home", "/lib", "/media", "/mnt", "/opt",
    "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib",
    "/var/tmp",
];

/// Where licence files and the licence manager's state are.
const LICENSE_DIRS: [&str; 2] = ["/var/lib/rstudio-connect", "/etc/rstudio-licensing"];
const LICENSE_STATE: [&str; 3] = ["/var/lib/.local", "/var/lib/.prof", "/var/lib/.TurboFloat"];

pub(super) fn describe(input: &DiscoverInput, mut found: Gathered) -> Site {
    let warnings = std::mem::take(&mut found.warnings);
    let data_dir = data_dir(&found);
    let config_dir = config_dir(&found.gcfg, &data_dir);
    let mut list = List {
        root: &input.root,
        shared: input.shared.as_deref().unwrap_or(&input.root),
        base: parent(&found.gcfg),
        data_dir,
        config_dir,
        sources: Vec::new(),
        paths: BTreeSet::new(),
        programs: Vec::new(),
        warnings,
    };
    let provider = provider(&found.settings);
    if let Provider::Other(name) = &provider {
        let name = printable(name.as_bytes());
        list.warn("unknown-provider", format!("Database.Provider is {name:?}, which is not known"));
    }
    list.data_dir(&found.settings);
    let sqlite_dir = list.database_dirs(&found.settings, &provider);
    list.configuration(&found);
    list.resources(&found.settings);
    list.guesses(&found.settings);
    list.licenses();
    list.host_files(input, &found);
    list.encryption_key(&found.settings);
    let databases = list.postgres(&found.settings, &provider);
    let (label, label_from_hostname) = list.label(input, &found.settings);
    Site {
        label,
        label_from_hostname,
        gcfg: from_bytes(&found.gcfg).to_path_buf(),
        provider,
        sqlite_dir,
        program: program(input, &found),
        connect_version: None,
        databases,
        data_dir: list.data_dir,
        sources: list.sources,
        programs: list.programs,
        warnings: list.warnings,
        settings: found.settings,
    }
}

fn provider(settings: &Settings) -> Provider {
    match settings.get("Database", "Provider") {
        None => Provider::Sqlite,
        Some(name) if name.eq_ignore_ascii_case("sqlite") => Provider::Sqlite,
        Some(name) if name.eq_ignore_ascii_case("postgres") => Provider::Postgres,
        Some(name) => Provider::Other(name.to_string()),
    }
}

fn data_dir(found: &Gathered) -> Vec<u8> {
    let value = found.settings.get("Server", "DataDir").unwrap_or("/var/lib/rstudio-connect");
    resources::resolve(value.as_bytes(), &parent(&found.gcfg))
}

/// The directory of the configuration, where it is the site's own.
fn config_dir(gcfg: &[u8], data_dir: &[u8]) -> Option<Vec<u8>> {
    let dir = parent(gcfg);
    let shared = SHARED_DIRS.iter().any(|s| s.as_bytes() == dir)
        || parent(&dir) == b"/home"
        || is_within(data_dir, &dir);
    (!shared).then_some(dir)
}

/// The server's program: the one that a unit starts, else the usual one, where it is there.
fn program(input: &DiscoverInput, found: &Gathered) -> Option<std::path::PathBuf> {
    let started = found.units.iter().filter_map(|u| u.exec_start.first());
    let named =
        started.map(String::as_str).filter(|p| p.starts_with('/') && p.ends_with("/connect"));
    named
        .chain([DEFAULT_PROGRAM])
        .map(|path| below(&input.root, path.as_bytes()))
        .find(|path| path.is_file())
}

pub(super) struct List<'a> {
    root: &'a Path,
    /// Where the data directory and its like are.
    shared: &'a Path,
    /// Where relative paths start.
    base: Vec<u8>,
    data_dir: Vec<u8>,
    config_dir: Option<Vec<u8>>,
    pub(super) sources: Vec<Source>,
    /// Paths of the sources.
    paths: BTreeSet<Vec<u8>>,
    programs: Vec<Program>,
    warnings: Vec<Warning>,
}

impl List<'_> {
    pub(super) fn warn(&mut self, code: &'static str, message: String) {
        self.warnings.push(Warning { code, message });
    }

    /// What stands at a path, links followed, and the reason where that cannot be told.
    fn look(&self, path: &[u8]) -> (SourceKind, Option<std::io::Error>) {
        Self::look_below(self.root, path)
    }

    fn look_below(root: &Path, path: &[u8]) -> (SourceKind, Option<std::io::Error>) {
        match below(root, path).metadata() {
            Ok(meta) if meta.is_dir() => (SourceKind::Dir, None),
            Ok(meta) if meta.is_file() => (SourceKind::File, None),
            Ok(_) => (SourceKind::Other, None),
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                (SourceKind::Missing, None)
            }
            Err(e) => (SourceKind::Other, Some(e)),
        }
    }

    /// Whether a path is one of those that all machines of a site share: the data directory and its
    /// like, what lies in them, what the operator adds, and a directory that is not where the
    /// configuration is.
    fn is_shared(&self, role: Role, path: &[u8]) -> bool {
        let elsewhere = || {
            role == Role::Referenced
                && self.look(path).0 == SourceKind::Missing
                && Self::look_below(self.shared, path).0 == SourceKind::Dir
        };
        matches!(role, Role::DataDir | Role::Sqlite | Role::DatabaseDir | Role::Extra | Role::Cabk)
            || is_within(path, &self.data_dir)
            || elsewhere()
    }

    /// Adds a path as a source and warns of what is wrong with it.
    fn add(&mut self, role: Role, path: Vec<u8>, named: Named<'_>) -> SourceKind {
        let shared = self.is_shared(role, &path);
        let root = if shared { self.shared } else { self.root };
        let (kind, error) = Self::look_below(root, &path);
        let shown = printable(&path);
        let by = named.setting.as_deref().map_or(String::new(), |s| format!("{s} names "));
        let told = !self.paths.insert(path.clone());
        match (&kind, error) {
            (_, Some(e)) => self.warn("unreadable", format!("{by}{shown}: {e}")),
            (SourceKind::Missing, None) if !told => {
                if named.critical {
                    let message = format!(
                        "{by}{shown}, which is not there: without it the site cannot be brought \
                         back"
                    );
                    self.warn("critical-missing", message);
                } else {
                    self.warn("missing", format!("{by}{shown}, which is not there"));
                }
            }
            (SourceKind::Other, None) => {
                let message = format!("{by}{shown}, which is neither a file nor a directory");
                self.warn("not-a-file", message);
            }
            _ => {}
        }
        if kind == SourceKind::Dir && SHARED_DIRS.iter().any(|s| s.as_bytes() == path) {
            let message = format!("{by}{shown}, which holds more than this site");
            self.warn("wide-source", message);
        }
        self.sources.push(Source {
            roles: vec![role],
            locator: Locator::Path(path),
            setting: named.setting,
            origin: named.origin.cloned(),
            exists: kind != SourceKind::Missing,
            shared,
            kind,
            secret: named.secret || role.is_secret(),
            critical: named.critical,
        });
        kind
    }

    fn data_dir(&mut self, settings: &Settings) {
        let setting = settings.find("Server", "DataDir");
        let value = settings.get("Server", "DataDir");
        if value.is_some_and(|v| !v.starts_with('/')) {
            let message = format!(
                "Server.DataDir is not absolute; taken as {} from the configuration's directory",
                printable(&self.data_dir)
            );
            self.warn("data-dir-relative", message);
        }
        let named = Named::by(&RESOURCES[0], setting);
        self.add(Role::DataDir, self.data_dir.clone(), named);
    }

    /// `SQLite.Dir` and `Database.Dir`; the first where SQLite is used.
    fn database_dirs(&mut self, settings: &Settings, provider: &Provider) -> Option<Vec<u8>> {
        let [sqlite, database] = [&RESOURCES[1], &RESOURCES[2]].map(|resource| {
            let set = settings.get(resource.section, resource.key);
            let path = match set {
                Some(value) => resources::resolve(value.as_bytes(), &self.base),
                None => join(&self.data_dir, b"db"),
            };
            (
                path,
                set.is_some(),
                Named::by(resource, settings.find(resource.section, resource.key)),
            )
        });
        let uses_sqlite = *provider != Provider::Postgres;
        if uses_sqlite {
            let kind = self.add(Role::Sqlite, sqlite.0.clone(), sqlite.2);
            let file = below(self.shared, &join(&sqlite.0, b"connect.db"));
            if kind == SourceKind::Dir && !file.is_file() {
                let message = format!("{} holds no connect.db", printable(&sqlite.0));
                self.warn("sqlite-database-missing", message);
            }
        } else if sqlite.1 {
            // A database of the time before PostgreSQL: kept, but not the live one.
            self.add(Role::Referenced, sqlite.0.clone(), Named { critical: false, ..sqlite.2 });
        }
        let (path, set, named) = database;
        if set || uses_sqlite || Self::look_below(self.shared, &path).0 != SourceKind::Missing {
            let kind = self.add(Role::DatabaseDir, path.clone(), named);
            let own_key = ["EncryptionKey", "EncryptionKeyFile"]
                .iter()
                .any(|key| is_set(settings.find("Server", key)));
            let file = below(self.shared, &join(&path, b"secret.key"));
            if kind == SourceKind::Dir && !own_key && !file.exists() {
                let message = format!(
                    "{} holds no secret.key: what the database keeps encrypted cannot be read \
                     without it",
                    printable(&path)
                );
                self.warn("secret-key-missing", message);
            }
        }
        uses_sqlite.then_some(sqlite.0)
    }

    fn configuration(&mut self, found: &Gathered) {
        let plain = || Named { setting: None, origin: None, critical: false, secret: true };
        if let Some(dir) = self.config_dir.clone() {
            self.add(Role::Config, dir, plain());
        } else {
            let message = format!(
                "{} holds more than the configuration: only the configuration files in it are \
                 sources",
                printable(&self.base)
            );
            self.warn("config-directory-shared", message);
        }
        self.add(Role::Config, found.gcfg.clone(), Named { critical: true, ..plain() });
        if let Some(path) = &found.migration {
            self.add(Role::Config, path.clone(), plain());
        }
    }

    /// All of the table but its first three.
    fn resources(&mut self, settings: &Settings) {
        for resource in &RESOURCES[3..] {
            for setting in resources::values(settings, resource) {
                let value = setting.value.as_deref().unwrap_or("");
                let Some(path) = resources::path_in(resource.take, value) else { continue };
                match resource.take {
                    Take::Never => {}
                    Take::Program => {
                        let path = path.to_string();
                        self.programs.push(Program { setting: setting.name(), path });
                    }
                    Take::Path | Take::IfPath | Take::Command => {
                        if !path.starts_with('/') {
                            let message = format!(
                                "{} ({}) is a relative path; taken from the configuration's \
                                 directory",
                                setting.name(),
                                setting.origin
                            );
                            self.warn("relative-path", message);
                        }
                        let path = resources::resolve(path.as_bytes(), &self.base);
                        self.referenced(path, Named::by(resource, Some(setting)));
                    }
                }
            }
        }
    }

    fn referenced(&mut self, path: Vec<u8>, named: Named<'_>) {
        let inside = is_within(&path, &self.data_dir)
            || self.config_dir.as_ref().is_some_and(|dir| is_within(&path, dir));
        let setting = named.setting.clone().unwrap_or_default();
        let shown = printable(&path);
        let kind = self.add(Role::Referenced, path, named);
        if !inside && kind != SourceKind::Missing {
            let message = format!(
                "{setting} names {shown}, outside of the data and configuration directories: a \
                 source of its own"
            );
            self.warn("outside", message);
        }
    }

    /// Absolute paths in settings that the table does not know.
    fn guesses(&mut self, settings: &Settings) {
        let mut seen = BTreeSet::new();
        for setting in settings.items() {
            let Some(guess) = resources::guess(self.root, setting) else { continue };
            if !seen.insert(guess.clone()) {
                continue;
            }
            let name = setting.name();
            match guess {
                Guess::File(path) => {
                    let named = Named {
                        setting: Some(name),
                        origin: Some(&setting.origin),
                        critical: false,
                        secret: true,
                    };
                    self.referenced(path, named);
                }
                Guess::Dir(path) | Guess::LargeFile(path) => {
                    let mut above = from_bytes(&path).ancestors();
                    let covered = above.any(|dir| self.paths.contains(bytes(dir)));
                    if !covered {
                        let message = format!(
                            "{name} names {}, which is in no source: add it as a path if the site \
                             needs it",
                            printable(&path)
                        );
                        self.warn("not-a-source", message);
                    }
                }
            }
        }
    }

    fn licenses(&mut self) {
        let dirs = LICENSE_DIRS.map(|dir| dir.as_bytes().to_vec());
        let mut dirs: Vec<Vec<u8>> = dirs.into_iter().chain([self.data_dir.clone()]).collect();
        dirs.sort();
        dirs.dedup();
        let plain = || Named { setting: None, origin: None, critical: false, secret: true };
        for dir in dirs {
            let mut files = match names(self.root, &dir) {
                Ok(files) => files,
                Err(e) => {
                    self.warn("unreadable", format!("{e}: licence files were not looked for"));
                    continue;
                }
            };
            files.retain(|name| name.ends_with(b".lic"));
            files.sort();
            for name in files {
                self.add(Role::License, join(&dir, &name), plain());
            }
        }
        for path in LICENSE_STATE {
            if self.look(path.as_bytes()).0 != SourceKind::Missing {
                self.add(Role::License, path.as_bytes().to_vec(), plain());
            }
        }
    }

    /// Environment files, units, cabk's own configuration, and what the operator adds.
    fn host_files(&mut self, input: &DiscoverInput, found: &Gathered) {
        let plain = || Named { setting: None, origin: None, critical: false, secret: true };
        for path in &found.env_files {
            self.add(Role::Environment, path.clone(), plain());
        }
        for path in found.units.iter().flat_map(|unit| &unit.files) {
            // A masked unit is a link to /dev/null and says nothing that could be kept.
            if self.look(path).0 == SourceKind::File {
                self.add(Role::Unit, path.clone(), plain());
            }
        }
        let config = input.cabk_config.as_ref().map(|path| (Role::Cabk, path));
        let extra = input.extra_paths.iter().map(|path| (Role::Extra, path));
        for (role, path) in config.into_iter().chain(extra) {
            match absolute(path) {
                Ok(path) if role == Role::Cabk && self.look(&path).0 == SourceKind::Missing => {}
                Ok(path) => {
                    self.add(role, path, Named { secret: false, ..plain() });
                }
                Err(e) => self.warn("unreadable", e.to_string()),
            }
        }
    }

    fn encryption_key(&mut self, settings: &Settings) {
        let Some(setting) = settings.find("Server", "EncryptionKey") else { return };
        if is_set(Some(setting)) {
            let message = format!(
                "Server.EncryptionKey is a value ({}): a restored site needs the same one",
                setting.origin
            );
            self.warn("encryption-key-in-config", message);
        }
    }
}

/// Who names a source.
struct Named<'a> {
    setting: Option<String>,
    origin: Option<&'a Origin>,
    critical: bool,
    secret: bool,
}

impl<'a> Named<'a> {
    fn by(resource: &Resource, setting: Option<&'a Setting>) -> Self {
        Self {
            setting: Some(setting.map_or_else(|| resource.name(), Setting::name)),
            origin: Some(setting.map_or(&Origin::Default, |s| &s.origin)),
            critical: resource.critical,
            secret: resource.secret,
        }
    }
}
