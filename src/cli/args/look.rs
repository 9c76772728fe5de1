//! Commands that look: `snapshots`, `show`, `ls`, `check`, `stats`.

use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::value::{Percent, Ref, RefPath, parse_percent, parse_ref, parse_ref_path};
use crate::base::time::parse_duration;

/// What every reading command takes.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ReadArgs {
    /// Read without a lease: for a repository that cannot be written
    #[arg(long)]
    pub no_lock: bool,
}

/// One of the two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    /// Proven, restorable
    Snapshot,
    /// Best effort, never restorable
    Capture,
}

pub(super) const SNAPSHOTS_ABOUT: &str = "\
List snapshots and captures.

Kind, whether it can be restored, and the last drill are always shown. --site-name limits the \
list to one site.";

/// `snapshots`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_long_help = "Examples:\n  cabk snapshots\n  cabk snapshots --kind snapshot --json")]
pub struct SnapshotsArgs {
    /// Only this kind
    #[arg(long, value_name = "KIND", value_enum)]
    pub kind: Option<KindArg>,
    /// Reading.
    #[command(flatten)]
    pub read: ReadArgs,
}

/// `show`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "Examples:\n  cabk show latest\n  cabk show 3f9a21 --json")]
pub struct ShowArgs {
    /// The snapshot or capture: at least 6 digits of its id, or `latest`
    #[arg(value_name = "ID", value_parser = parse_ref)]
    pub what: Ref,
    /// Reading.
    #[command(flatten)]
    pub read: ReadArgs,
}

/// `ls`.
#[derive(Debug, Clone, Args)]
#[command(
    after_long_help = "Examples:\n  cabk ls latest\n  cabk ls latest:/var/lib/rstudio-connect"
)]
pub struct LsArgs {
    /// The snapshot or capture: at least 6 digits of its id, or `latest`; ID:PATH for a part of it
    #[arg(value_name = "ID[:PATH]",
        value_parser = OsStringValueParser::new().try_map(parse_ref_path))]
    pub what: RefPath,
    /// List what is in directories too, all the way down
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Reading.
    #[command(flatten)]
    pub read: ReadArgs,
}

pub(super) const CHECK_ABOUT: &str = "\
Check that everything is there and whole.

Without --read-data the structure of the repository is checked and the share of the data that \
the configuration names ([check] read_data, 5 % unless it says otherwise) is read and \
compared. Damage is named with the snapshots it affects; the exit code is then 20.";

/// `check`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_long_help = "Examples:\n  cabk check\n  cabk check --read-data\n  \
                       cabk check --read-data=10% --max-duration 1h")]
pub struct CheckArgs {
    /// Read the data itself and compare it: all of it, or a share of it
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true,
        default_missing_value = "100%", value_parser = parse_percent)]
    pub read_data: Option<Percent>,

    /// Stop reading data after this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub max_duration: Option<Duration>,

    /// Reading.
    #[command(flatten)]
    pub read: ReadArgs,
}

/// `stats`.
#[derive(Debug, Clone, Default, Args)]
#[command(
    after_long_help = "Examples:\n  cabk stats\n  cabk stats --site-name connect-prod --json"
)]
pub struct StatsArgs {
    /// Reading.
    #[command(flatten)]
    pub read: ReadArgs,
}
