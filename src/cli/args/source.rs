//! What is read: shared by `discover` and `snapshot`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::value::{parse_any_node, parse_gcfg};

/// What is read.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What is read")]
pub struct SourceArgs {
    /// The site's configuration file: a path, or `ssh://[USER@]HOST[:PORT]/PATH` on another node
    ///
    /// Without it and without --path: the file that cabk's configuration names, else
    /// /etc/rstudio-connect/rstudio-connect.gcfg.
    #[arg(long, value_name = "GCFG",
        value_parser = OsStringValueParser::new().try_map(parse_gcfg))]
    pub site: Option<PathBuf>,

    /// A directory or file to read, beside what --site names (repeatable)
    ///
    /// Without --site these are plain directories: no service is touched unless --service or
    /// --stop-command names one.
    #[arg(long = "path", value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Leave out what matches, written as in .gitignore (repeatable)
    ///
    /// A match of a directory takes what is in it. Keys, databases and bundles cannot be left out.
    /// The patterns are recorded with the snapshot.
    #[arg(long = "exclude", value_name = "GLOB")]
    pub excludes: Vec<String>,

    /// Leave out caches that the service can build again
    #[arg(long)]
    pub exclude_runtimes: bool,

    /// Do not cross mount points below a source
    #[arg(long)]
    pub one_file_system: bool,

    /// The service's environment file
    ///
    /// Without it: the file that the unit names, else /etc/default/rstudio-connect.
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  cabk discover
  cabk discover --site /etc/rstudio-connect/rstudio-connect.gcfg --json";

pub(super) const LONG_ABOUT: &str = "\
Show what the site consists of and what a snapshot would hold.

Each source is listed with its role, path, size and the setting that names it, with a warning \
for whatever is missing, lies outside, or lives only in a process's environment. Nothing is \
written and no service is touched.";

/// `discover`.
#[derive(Debug, Clone, Default, Args)]
#[command(
    after_long_help = EXAMPLES
)]
pub struct DiscoverArgs {
    /// What is read.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Another machine of the site, `ssh://[USER@]HOST[:PORT]`, whose configuration is shown too
    /// (repeatable) [default: those of the configuration]
    #[arg(long = "node", value_name = "NODE", value_parser = parse_any_node)]
    pub nodes: Vec<String>,
}
