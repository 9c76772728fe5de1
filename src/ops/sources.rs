//! What is to be read: from what an operator says, and the site's own configuration, to sources.
//!
//! Shared by `discover`, which shows it, and `snapshot`, which reads it.

mod afar;
mod collect;
mod links;
mod nodes;
mod version;

use std::path::PathBuf;

use crate::base::path::{is_within, printable};
use crate::host::machine;
use crate::intake::plan::{PlanError, ReadPlan};
use crate::site::discover::{DiscoverInput, Provider, Site, SiteError, Source, Warning, discover};
use crate::site::postgres::Postgres;
use crate::site::resources::Role;

pub use afar::Afar;
pub use nodes::NodeFiles;
pub use version::{VERSION_TIMEOUT, connect_version};

/// Directories below the data directory that hold caches of packages and environments: the server
/// fills them again from the content's own lock files, as long as every package can still be had.
/// The names are those that installations are seen to have; no document of the vendor fixes them,
/// so nothing is left out unless it is asked for, and a directory of another name stays in.
pub const RUNTIME_CACHES: [&str; 6] = [
    "packrat/cache",
    "renv",
    "python-environments",
    "r-environments",
    "nodejs-environments",
    "quarto-cache",
];

/// Where the server keeps bundles below the data directory.
const BUNDLES: &[u8] = b"bundles";

/// What an operator says about what is to be read.
#[derive(Clone, Debug, Default)]
pub struct SourcesInput {
    /// The site's configuration; `None` for plain directories.
    pub gcfg: Option<PathBuf>,
    /// The node that has the configuration, where it is not this machine's.
    pub afar: Option<Afar>,
    /// Where another node's files lie for a look, where the configuration is that node's.
    pub root: Option<PathBuf>,
    /// Paths beside it, or all that is read.
    pub paths: Vec<PathBuf>,
    /// Patterns of what is left out.
    pub excludes: Vec<String>,
    /// Leave out [`RUNTIME_CACHES`] too.
    pub exclude_runtimes: bool,
    /// Stay on the file systems of the sources.
    pub one_file_system: bool,
    /// The environment file, which must be there; else as the unit names it.
    pub env_file: Option<PathBuf>,
    /// The environment file where the unit names none and none was given; it need not be there.
    pub usual_env_file: Option<PathBuf>,
    /// Units whose files have a say; none where the service is not systemd's.
    pub units: Vec<String>,
    /// cabk's own configuration file.
    pub cabk_config: Option<PathBuf>,
    /// The label that the operator gave.
    pub site_name: Option<String>,
    /// Variables of the running server, where the caller could see them.
    pub process_env: Vec<(String, String)>,
    /// Never part of a source: the repository, and cabk's own cache and state, which change while a
    /// source is read. With what each is.
    pub left_out: Vec<(PathBuf, &'static str)>,
}

/// Why it cannot be said what is to be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourcesError {
    /// The site's configuration.
    #[error("the site cannot be described")]
    Site(#[from] SiteError),
    /// Neither a site nor a path.
    #[error("there is nothing to read: neither a site nor a path is named")]
    Nothing,
    /// A path that the operator named is not there.
    #[error("{0} is not there")]
    NotThere(String),
    /// What the site cannot be brought back without is not there.
    #[error("{path} is not there{}: without it the site cannot be brought back",
        .setting.as_ref().map(|s| format!(" ({s} names it)")).unwrap_or_default())]
    CriticalMissing {
        /// The path, printable.
        path: String,
        /// The setting.
        setting: Option<String>,
    },
    /// A source lies within what is never part of one.
    #[error("{path} lies within {what}")]
    Within {
        /// The path, printable.
        path: String,
        /// What it lies within: `the repository` ...
        what: &'static str,
    },
    /// A path cannot be followed.
    #[error("{path} cannot be followed")]
    Follow {
        /// The path, printable.
        path: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A pattern.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The machine does not say its name.
    #[error("this machine does not say its name")]
    Machine(#[source] std::io::Error),
}

/// One source, known by where it is without symbolic links.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedSource {
    /// What it is to the site, the main role first.
    pub roles: Vec<Role>,
    /// Absolute, no component of it a symbolic link but, where the source is one, the last. A path
    /// that is not there stands as it was named. Empty for a database.
    pub path: Vec<u8>,
    /// The path as it was named.
    pub named: Vec<u8>,
    /// The database's URL without secrets.
    pub database: Option<String>,
    /// The setting that names it.
    pub setting: Option<String>,
    /// Whether it is there.
    pub exists: bool,
    /// Whether it is a directory.
    pub dir: bool,
    /// Whether it holds secrets.
    pub secret: bool,
    /// Whether the site cannot be brought back without it.
    pub critical: bool,
}

/// What is to be read.
pub struct Wanted {
    /// The site's label.
    pub site: String,
    /// Whether the label is only this machine's name, so that another node would have another.
    pub label_from_hostname: bool,
    /// Whether this is a site, with a service, and not plain directories.
    pub is_site: bool,
    /// Sources, each path once; symbolic links on the way to one are sources of their own.
    pub sources: Vec<WantedSource>,
    /// PostgreSQL databases.
    pub databases: Vec<Postgres>,
    /// Why it is not known where the site keeps its database, where that is so.
    pub unknown_database: Option<String>,
    /// The data directory without symbolic links; `None` for plain directories.
    pub data_dir: Option<Vec<u8>>,
    /// The directory of SQLite databases without symbolic links, where SQLite is used.
    pub sqlite_dir: Option<Vec<u8>>,
    /// The server's program, where it is installed ([`connect_version`] asks it).
    pub program: Option<PathBuf>,
    /// All patterns in force: those of the operator, then those of runtimes.
    pub excludes: Vec<String>,
    /// What an operator should know.
    pub warnings: Vec<Warning>,
    one_file_system: bool,
    left_out: Vec<(Vec<u8>, &'static str)>,
    /// What is read of the node that has the configuration, and not of this machine.
    afar: Vec<Vec<u8>>,
}

/// Finds out what is to be read. Reads small files and looks at paths; changes nothing.
///
/// # Errors
/// [`SourcesError`]. What is missing is no error here but of [`Wanted::plan`].
pub fn gather(input: &SourcesInput) -> Result<Wanted, SourcesError> {
    if input.gcfg.is_none() && input.paths.is_empty() {
        return Err(SourcesError::Nothing);
    }
    let mut site = match &input.gcfg {
        Some(gcfg) => Some(discover(&discover_input(input, gcfg))?),
        None => None,
    };
    let away = site.as_mut().filter(|_| input.root.is_some()).map(away).unwrap_or_default();
    let mut wanted = empty(input, site.as_ref())?;
    wanted.afar = away;
    if let Some(site) = &site {
        collect::site(&mut wanted, site)?;
    } else {
        collect::plain(&mut wanted, &input.paths)?;
    }
    wanted.leave_out(input)?;
    wanted.patterns(input)?;
    Ok(wanted)
}

fn discover_input(input: &SourcesInput, gcfg: &std::path::Path) -> DiscoverInput {
    DiscoverInput {
        env_file: input.env_file.clone(),
        usual_env_file: input.usual_env_file.clone(),
        units: input.units.clone(),
        process_env: input.process_env.clone(),
        extra_paths: input.paths.clone(),
        cabk_config: input.cabk_config.clone(),
        site_name: input.site_name.clone(),
        root: input.root.clone().unwrap_or_else(|| "/".into()),
        shared: input.root.is_some().then(|| "/".into()),
        ..DiscoverInput::new(gcfg)
    }
}

/// Takes out of a site what is only on the node that has the configuration: it becomes a source of
/// that node. What lies in shared directories is here.
fn away(site: &mut Site) -> Vec<Vec<u8>> {
    let (away, here): (Vec<Source>, Vec<Source>) =
        std::mem::take(&mut site.sources).into_iter().partition(|source| !source.shared);
    site.sources = here;
    away.iter().filter_map(|source| source.locator.path().map(<[u8]>::to_vec)).collect()
}

fn empty(input: &SourcesInput, site: Option<&Site>) -> Result<Wanted, SourcesError> {
    let mut warnings = Vec::new();
    let given = input.site_name.clone().filter(|name| !name.trim().is_empty());
    let (label, label_from_hostname) = match (site, given) {
        (Some(site), _) => (site.label.clone(), site.label_from_hostname),
        (None, Some(name)) => (name, false),
        (None, None) => {
            let name = machine::hostname().map_err(SourcesError::Machine)?;
            let message =
                format!("no --site-name was given: this is kept as {name:?}, after this machine");
            warnings.push(Warning { code: "label-from-hostname", message });
            (name, true)
        }
    };
    if let Some(site) = site {
        warnings.clone_from(&site.warnings);
    }
    Ok(Wanted {
        site: label,
        label_from_hostname,
        is_site: site.is_some(),
        sources: Vec::new(),
        databases: site.map(|s| s.databases.clone()).unwrap_or_default(),
        unknown_database: site.and_then(unknown_database),
        data_dir: None,
        sqlite_dir: None,
        program: site.and_then(|s| s.program.clone()),
        excludes: input.excludes.clone(),
        warnings,
        one_file_system: input.one_file_system,
        left_out: Vec::new(),
        afar: Vec::new(),
    })
}

/// A site whose database is not among its sources must not pass for one that was kept whole.
fn unknown_database(site: &Site) -> Option<String> {
    match &site.provider {
        Provider::Postgres if site.databases.is_empty() => Some(
            "Database.Provider is postgres, and no Postgres.URL is in sight: it may stand only in \
             the environment of the server"
                .into(),
        ),
        Provider::Other(name) => {
            Some(format!("Database.Provider is {name:?}, which this version does not know"))
        }
        Provider::Postgres | Provider::Sqlite => None,
    }
}

impl Wanted {
    /// Whether a PostgreSQL database belongs to the site, which this version cannot keep.
    #[must_use]
    pub fn has_postgres(&self) -> bool {
        !self.databases.is_empty() || self.sources.iter().any(|s| s.database.is_some())
    }

    pub(crate) fn warn(&mut self, code: &'static str, message: String) {
        if !self.warnings.iter().any(|w| w.message == message) {
            self.warnings.push(Warning { code, message });
        }
    }

    /// Outermost paths of all that is there.
    #[must_use]
    pub fn roots(&self) -> Vec<Vec<u8>> {
        let there = self.sources.iter().filter(|s| s.exists && s.database.is_none());
        crate::intake::plan::outermost(there.map(|s| s.path.clone()).collect())
    }

    /// What the site cannot be brought back without and is not there, a sentence each.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let gone = self.sources.iter().filter(|s| !s.exists && s.critical);
        let error = |s: &WantedSource| SourcesError::CriticalMissing {
            path: printable(&s.path),
            setting: s.setting.clone(),
        };
        gone.map(|s| error(s).to_string()).collect()
    }

    /// The plan for reading it.
    ///
    /// # Errors
    /// [`SourcesError::NotThere`], [`SourcesError::CriticalMissing`], [`SourcesError::Within`].
    pub fn plan(&self) -> Result<ReadPlan, SourcesError> {
        if let Some(source) = self.sources.iter().find(|s| !s.exists && s.critical) {
            let (path, setting) = (printable(&source.path), source.setting.clone());
            return Err(SourcesError::CriticalMissing { path, setting });
        }
        self.plan_anyway()
    }

    /// The plan for reading what is there, although something may be missing that the site cannot be
    /// brought back without: what comes of it is a capture.
    ///
    /// # Errors
    /// [`SourcesError::NotThere`], [`SourcesError::Within`].
    pub fn plan_anyway(&self) -> Result<ReadPlan, SourcesError> {
        let gone = |s: &&WantedSource| !s.exists && s.roles.contains(&Role::Extra);
        if let Some(source) = self.sources.iter().find(gone) {
            return Err(SourcesError::NotThere(printable(&source.path)));
        }
        let roots = self.roots();
        for root in &roots {
            if let Some((_, what)) = self.left_out.iter().find(|(p, _)| is_within(root, p)) {
                return Err(SourcesError::Within { path: printable(root), what });
            }
        }
        self.plan_of_what_is_there()
    }

    /// As [`Wanted::plan`], for looking only: what is missing does not matter.
    pub(super) fn plan_of_what_is_there(&self) -> Result<ReadPlan, SourcesError> {
        let mut plan = ReadPlan::new(self.roots(), &self.excludes)?;
        plan.secret =
            self.sources.iter().filter(|s| s.secret && s.exists).map(|s| s.path.clone()).collect();
        plan.protected = self.protected();
        plan.left_out = self.left_out.iter().map(|(path, _)| path.clone()).collect();
        plan.one_file_system = self.one_file_system;
        Ok(plan)
    }

    /// What no pattern leaves out: keys, databases, bundles, and the configuration itself.
    fn protected(&self) -> Vec<Vec<u8>> {
        let key_or_database = |s: &&WantedSource| {
            let database = [Role::Sqlite, Role::DatabaseDir].iter().any(|r| s.roles.contains(r));
            let named_secret = s.secret && s.roles.contains(&Role::Referenced);
            let own = s.critical && !s.roles.contains(&Role::DataDir);
            s.exists && (database || named_secret || own)
        };
        let mut paths: Vec<Vec<u8>> =
            self.sources.iter().filter(key_or_database).map(|s| s.path.clone()).collect();
        paths.extend(self.data_dir.as_ref().map(|dir| crate::base::path::join(dir, BUNDLES)));
        paths
    }

    /// Remembers what is never read, where it lies in a source.
    fn leave_out(&mut self, input: &SourcesInput) -> Result<(), SourcesError> {
        let roots = self.roots();
        for (path, what) in &input.left_out {
            let Some(path) = collect::canonical_or_nearest(path)? else { continue };
            let inside = roots.iter().any(|root| is_within(&path, root));
            if inside {
                let message = format!("{} is {what} and is left out", printable(&path));
                self.warn("left-out", message);
            }
            if inside || roots.iter().any(|root| is_within(root, &path)) {
                self.left_out.push((path, what));
            }
        }
        Ok(())
    }

    /// Adds the patterns of runtimes, and says which patterns name what stays in anyhow.
    fn patterns(&mut self, input: &SourcesInput) -> Result<(), SourcesError> {
        let wished = ReadPlan::new(Vec::new(), &self.excludes)?;
        for path in self.protected() {
            let mut above = crate::base::path::from_bytes(&path).ancestors();
            if above.any(|dir| wished.leaves_out(crate::base::path::bytes(dir), true)) {
                let message = format!(
                    "{} matches a pattern and stays in: keys, databases and bundles cannot be left \
                     out",
                    printable(&path)
                );
                self.warn("cannot-be-excluded", message);
            }
        }
        if !input.exclude_runtimes {
            return Ok(());
        }
        let Some(dir) = &self.data_dir else {
            let message = "--exclude-runtimes has no effect on plain directories".to_owned();
            self.warn("no-runtimes", message);
            return Ok(());
        };
        match std::str::from_utf8(dir) {
            Ok(dir) => {
                let dir = literal(dir);
                self.excludes.extend(RUNTIME_CACHES.iter().map(|name| format!("{dir}/{name}/")));
            }
            Err(_) => {
                let message = "the data directory's name is not UTF-8: runtimes stay in".to_owned();
                self.warn("no-runtimes", message);
            }
        }
        Ok(())
    }
}

/// A path as a pattern that matches it and nothing else.
#[must_use]
pub fn literal(path: &str) -> String {
    let special = |c: char| "\\*?[]{}!# ".contains(c);
    path.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests;
