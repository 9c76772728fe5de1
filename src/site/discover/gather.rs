//! Reads everything that has a say: units, environment files, both configuration files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{DEFAULT_ENV_FILE, DiscoverInput, SiteError, Warning};
use crate::base::limits::SITE_FILE_MAX;
use crate::base::path::{bytes, from_bytes, printable};
use crate::site::envfile::{self, EnvFile};
use crate::site::gcfg::{self, Gcfg, is_secret_key};
use crate::site::read::{below, read_bounded};
use crate::site::resources;
use crate::site::settings::{Origin, Setting, Settings, migration_path, override_of};
use crate::site::unit::{self, Unit};

/// What was read.
pub(super) struct Gathered {
    /// The configuration, absolute.
    pub(super) gcfg: Vec<u8>,
    /// The second configuration, where it is there.
    pub(super) migration: Option<Vec<u8>>,
    /// Units that are there.
    pub(super) units: Vec<Unit>,
    /// Environment files that were read.
    pub(super) env_files: Vec<Vec<u8>>,
    /// Everything laid over each other.
    pub(super) settings: Settings,
    /// What is worth a warning so far.
    pub(super) warnings: Vec<Warning>,
}

impl Gathered {
    fn warn(&mut self, code: &'static str, message: String) {
        self.warnings.push(Warning { code, message });
    }
}

pub(super) fn gather(input: &DiscoverInput) -> Result<Gathered, SiteError> {
    let mut found = Gathered {
        gcfg: absolute(&input.gcfg)?,
        migration: None,
        units: Vec::new(),
        env_files: Vec::new(),
        settings: Settings::default(),
        warnings: Vec::new(),
    };
    read_units(input, &mut found)?;
    read_configuration(input, &mut found)?;
    let mut set = BTreeMap::new();
    lay_unit_variables(&mut found, &mut set);
    read_environment(input, &mut found, &mut set)?;
    for (name, value) in &input.process_env {
        if set.get(name) == Some(value) {
            continue;
        }
        let origin = Origin::Process { name: name.clone() };
        if found.settings.add_variable(name, value, origin) {
            let message = format!(
                "{name} is set in the running server and in no file that is kept: \
                 a restored site will not have it"
            );
            found.warn("only-in-process-environment", message);
        }
    }
    Ok(found)
}

/// An absolute path of what an operator wrote.
pub(super) fn absolute(path: &Path) -> Result<Vec<u8>, SiteError> {
    let whole = std::path::absolute(path)
        .map_err(|source| SiteError::Relative { path: printable(bytes(path)), source })?;
    Ok(resources::resolve(bytes(&whole), b"/"))
}

fn read_units(input: &DiscoverInput, found: &mut Gathered) -> Result<(), SiteError> {
    for name in &input.units {
        let files = match input.unit_files.get(name) {
            Some(files) => Some(files.clone()),
            None => unit::find_unit(&input.root, name)?,
        };
        let Some(files) = files.filter(|files| !files.is_empty()) else {
            found.warn("unit-missing", format!("no unit file of {name} was found"));
            continue;
        };
        let unit = unit::load_unit(&input.root, name, &files)?;
        if let Some(config) = unit.config().filter(|c| c.as_bytes() != found.gcfg) {
            let config = printable(config.as_bytes());
            let message = format!(
                "{} starts the server with --config {config}, but this site is described by {}",
                unit.name,
                printable(&found.gcfg)
            );
            found.warn("other-config", message);
        }
        found.units.push(unit);
    }
    Ok(())
}

fn read_gcfg(input: &DiscoverInput, path: &[u8]) -> Result<Gcfg, SiteError> {
    let content = read_bounded(&below(&input.root, path), SITE_FILE_MAX)
        .map_err(|source| SiteError::Read { what: "the site's configuration", source })?;
    let wrong = |source| SiteError::Gcfg { path: printable(path), source };
    gcfg::parse(&content).map_err(wrong)
}

fn read_configuration(input: &DiscoverInput, found: &mut Gathered) -> Result<(), SiteError> {
    let path = found.gcfg.clone();
    let main = read_gcfg(input, &path)?;
    found.settings.add_file(&path, &main);
    warn_of_cuts(found, &path, &main);
    let named = found.units.iter().find_map(|u| u.migration_config().map(str::as_bytes));
    let second = match (&input.migration, named) {
        (Some(path), _) => absolute(path)?,
        (None, Some(path)) => resources::resolve(path, b"/"),
        (None, None) => migration_path(&path),
    };
    let file = match read_gcfg(input, &second) {
        Ok(file) => file,
        Err(SiteError::Read { source, .. }) if source.is_missing() => {
            if input.migration.is_some() || named.is_some() {
                found.warn("missing", format!("{} is not there", printable(&second)));
            }
            return Ok(());
        }
        Err(e) => return Err(e),
    };
    warn_of_cuts(found, &second, &file);
    warn_of_second(found, &second, &file);
    found.settings.add_file(&second, &file);
    found.migration = Some(second);
    Ok(())
}

fn warn_of_cuts(found: &mut Gathered, path: &[u8], file: &Gcfg) {
    for cut in &file.cuts {
        let message = format!(
            "{}.{} ({}:{}) ends at an unquoted '{}', for the server too: if that is part of the \
             value, put the value in double quotes",
            cut.section,
            cut.key,
            printable(path),
            cut.line,
            cut.by
        );
        found.warn("value-cut", message);
    }
}

/// The second file's secrets, and settings on which the two files do not agree.
fn warn_of_second(found: &mut Gathered, path: &[u8], file: &Gcfg) {
    let shown = printable(path);
    if let Some(entry) = file.entries.iter().find(|e| is_secret_key(&e.key)) {
        let message = format!(
            "{shown} holds {}.{}: it is kept as it is, and needs the same permissions as the main \
             file",
            entry.section, entry.key
        );
        found.warn("migration-config-secrets", message);
    }
    let place = |section: &str, subsection: Option<&str>, key: &str| {
        (section.to_ascii_lowercase(), subsection.map(str::to_string), key.to_ascii_lowercase())
    };
    let first: BTreeMap<_, &Setting> = found
        .settings
        .items()
        .iter()
        .map(|s| (place(&s.section, s.subsection.as_deref(), &s.key), s))
        .collect();
    let mut told = BTreeSet::new();
    for entry in &file.entries {
        let here = place(&entry.section, entry.subsection.as_deref(), &entry.key);
        let Some(setting) = first.get(&here).filter(|s| s.value != entry.value) else { continue };
        if !resources::known(setting).is_some_and(|r| r.multi) {
            told.insert(setting.name());
        }
    }
    for name in told {
        found.warn("set-twice", format!("{name} differs in {shown}, which is taken to count"));
    }
}

/// `Environment=` of all units, as far as it overrides settings.
fn lay_unit_variables(found: &mut Gathered, set: &mut BTreeMap<String, String>) {
    let variables: Vec<_> = found.units.iter().flat_map(|u| u.environment.clone()).collect();
    for variable in variables {
        let name = variable.name;
        let origin = Origin::Unit {
            name: name.clone(),
            path: variable.file.as_slice().into(),
            line: variable.line,
        };
        if found.settings.add_variable(&name, &variable.value, origin) {
            let message = format!(
                "{name} is set by {}:{}, not by the configuration: a restored site needs the unit",
                printable(&variable.file),
                variable.line
            );
            found.warn("in-unit-environment", message);
            set.insert(name, variable.value);
        }
    }
}

fn read_environment(
    input: &DiscoverInput,
    found: &mut Gathered,
    set: &mut BTreeMap<String, String>,
) -> Result<(), SiteError> {
    // Path and whether it must be there: by the operator's word, by the unit's, not at all.
    let mut files: Vec<(Vec<u8>, Need)> = Vec::new();
    if let Some(path) = &input.env_file {
        files.push((absolute(path)?, Need::Error));
    } else {
        for unit in &found.units {
            for file in &unit.environment_files {
                let need = if file.optional { Need::None } else { Need::Warning };
                let paths = unit::environment_paths(&input.root, &unit.name, file)?;
                files.extend(paths.into_iter().map(|p| (resources::resolve(&p, b"/"), need)));
            }
        }
        if files.is_empty() {
            let usual = match &input.usual_env_file {
                Some(path) => absolute(path)?,
                None => DEFAULT_ENV_FILE.as_bytes().to_vec(),
            };
            files.push((usual, Need::None));
        }
    }
    for (path, need) in files {
        let content = match read_bounded(&below(&input.root, &path), SITE_FILE_MAX) {
            Ok(content) => content,
            Err(e) if e.is_missing() && need != Need::Error => {
                if need == Need::Warning {
                    let message = format!("a unit names {}, which is not there", printable(&path));
                    found.warn("missing", message);
                }
                continue;
            }
            Err(source) => return Err(SiteError::Read { what: "an environment file", source }),
        };
        let wrong = |source| SiteError::Environment { path: printable(&path), source };
        let file = envfile::parse(&content).map_err(wrong)?;
        lay_env_file(found, &path, &file, set);
        found.env_files.push(path);
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    None,
    Warning,
    Error,
}

fn lay_env_file(
    found: &mut Gathered,
    path: &[u8],
    file: &EnvFile,
    set: &mut BTreeMap<String, String>,
) {
    for (line, fault) in &file.faults {
        found.warn("environment-line", format!("{}:{line}: {fault}", printable(path)));
    }
    for variable in &file.variables {
        if override_of(&variable.name).is_none() {
            continue;
        }
        let origin =
            Origin::EnvFile { name: variable.name.clone(), path: path.into(), line: variable.line };
        found.settings.add_variable(&variable.name, &variable.value, origin);
        set.insert(variable.name.clone(), variable.value.clone());
    }
}

/// The directory in which a path stands.
pub(super) fn parent(path: &[u8]) -> Vec<u8> {
    bytes(from_bytes(path).parent().unwrap_or(Path::new("/"))).to_vec()
}

/// Whether a setting's value is there and not empty.
pub(super) fn is_set(setting: Option<&Setting>) -> bool {
    setting.and_then(|s| s.value.as_deref()).is_some_and(|v| !v.is_empty())
}
