//! What every command takes.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

const HEADING: &str = "Global options";

/// When progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ProgressMode {
    /// On a terminal
    #[default]
    Auto,
    /// Always; with --json as one JSON object a line on stderr
    Always,
    /// Never
    Never,
}

/// The global options, as typed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = HEADING)]
pub struct GlobalArgs {
    /// The repository: a local directory [env: CABK_REPO]
    #[arg(short, long, global = true, value_name = "REPO")]
    pub repo: Option<std::ffi::OsString>,

    /// Configuration file [env: CABK_CONFIG] [default: /etc/cabk/cabk.toml, where it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Read the repository's password from a file [env: CABK_PASSWORD_FILE]
    ///
    /// One newline at the end of the file is left out. The environment variable CABK_PASSWORD can
    /// hold the password itself; on a terminal cabk asks for it.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "password_command")]
    pub password_file: Option<PathBuf>,

    /// Read the repository's password from what a command prints [env: CABK_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND")]
    pub password_command: Option<String>,

    /// Label of the site: what a snapshot is kept under, and what lists are limited to
    ///
    /// Without it: the name in the configuration, else the host of Server.Address in the site's
    /// own configuration, else this machine's name.
    #[arg(long, global = true, value_name = "LABEL")]
    pub site_name: Option<String>,

    /// Directory for what can be rebuilt at any time [env: CABK_CACHE_DIR]
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "no_cache")]
    pub cache_dir: Option<PathBuf>,

    /// Keep no cache: everything is read again
    #[arg(long, global = true)]
    pub no_cache: bool,

    /// Print exactly one JSON document on stdout; errors become JSON too
    #[arg(long, global = true)]
    pub json: bool,

    /// When to show progress
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub progress: ProgressMode,

    /// Show no progress and no remarks; results, warnings and errors stay
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more; twice for details
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}
