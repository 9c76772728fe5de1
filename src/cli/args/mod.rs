//! What can be typed, and nothing of what it means: the structs here hold the command line as it
//! was given. Environment, configuration and defaults are joined to it by [`super::global`] and by
//! each command.

mod global;
mod keys;
mod look;
mod restore;
mod small;
mod snapshot;
mod source;
mod value;

pub use global::{GlobalArgs, ProgressMode};
pub use keys::{KeyAdd, KeyArgs, KeyCommand, KeyExport, KeyImport, KeyPasswd, KeyRemove, NewKey};
pub use look::{CheckArgs, KindArg, LsArgs, ReadArgs, ShowArgs, SnapshotsArgs, StatsArgs};
pub use restore::RestoreArgs;
pub use small::{
    CompletionsArgs, DemoArgs, GuardArgs, InitArgs, InstallArgs, ManArgs, UnlockArgs, WindowArgs,
    WindowCommand,
};
pub use snapshot::{FreezeMode, NeighbourArgs, NiceMode, PrecopyMode, ServiceArgs, SnapshotArgs};
pub use source::{DiscoverArgs, SourceArgs};
pub use value::{NameMap, Percent, Ref, RefPath, parse_percent, parse_rate};

use clap::{Parser, Subcommand};

const ABOUT: &str = "Content-addressed, incremental backups of Posit Connect sites";

const LONG_ABOUT: &str = "\
Content-addressed, incremental backups of Posit Connect sites.

A snapshot is a full record of a site, taken while its service is stopped and with proof that \
nothing moved while it was read. Only a snapshot can be restored. What could not be proven is kept \
as a capture and is never restorable.";

const EXAMPLES: &str = "\
Examples:
  See what cabk does, on a throw-away site:
    cabk demo
  Make a repository and take the first snapshot:
    cabk --repo /srv/backup/connect init
    cabk --repo /srv/backup/connect snapshot
  Look at what is there, and bring it back beside the living site:
    cabk --repo /srv/backup/connect snapshots
    cabk --repo /srv/backup/connect restore latest --target /srv/restored

Environment, each overruled by its option:
  CABK_REPO, CABK_CONFIG, CABK_CACHE_DIR, CABK_PASSWORD_FILE, CABK_PASSWORD_COMMAND,
  CABK_PASSWORD (the password itself); CABK_STATE_DIR has no option.

Exit codes:
   0  all done                        12  wrong key
   1  failed, nothing was committed   20  damage was found in the repository
   2  wrong usage or configuration    21  refused: not restorable
   3  done, with problems listed      22  refused: not safe in this state
   4  no snapshot: it is a capture    23  too old
  10  no repository there             30  a service that ran before is not running now
  11  repository or site is in use   130  interrupted";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "cabk",
    version,
    about = ABOUT,
    long_about = LONG_ABOUT,
    after_long_help = EXAMPLES,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands, in the order in which a newcomer meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new repository
    #[command(long_about = small::INIT_ABOUT)]
    Init(InitArgs),
    /// Show what the site consists of and what a snapshot would hold
    #[command(long_about = source::LONG_ABOUT)]
    Discover(DiscoverArgs),
    /// Take a snapshot of the site: check, pre-copy, stop, prove, read, start, commit
    #[command(long_about = snapshot::LONG_ABOUT)]
    Snapshot(Box<SnapshotArgs>),
    /// List snapshots and captures
    #[command(long_about = look::SNAPSHOTS_ABOUT)]
    Snapshots(SnapshotsArgs),
    /// Show one snapshot or capture with its evidence and sources
    Show(ShowArgs),
    /// List files of a snapshot or capture
    Ls(LsArgs),
    /// Restore a snapshot, beside the living site or in place
    #[command(long_about = restore::LONG_ABOUT)]
    Restore(Box<RestoreArgs>),
    /// Check that everything is there and whole
    #[command(long_about = look::CHECK_ABOUT)]
    Check(CheckArgs),
    /// Show space and deduplication figures
    Stats(StatsArgs),
    /// Manage the keys that open the repository
    #[command(long_about = keys::LONG_ABOUT)]
    Key(KeyArgs),
    /// Show, or put right, what a killed run left behind
    Window(WindowArgs),
    /// Remove stale leases
    #[command(long_about = small::UNLOCK_ABOUT)]
    Unlock(UnlockArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Write the manual pages into a directory
    Man(ManArgs),
    /// Show the main job on a throw-away site with a living toy service
    #[command(long_about = small::DEMO_ABOUT)]
    Demo(DemoArgs),
}

impl Command {
    /// The command's name, as it is typed.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Init(_) => "init",
            Self::Discover(_) => "discover",
            Self::Snapshot(_) => "snapshot",
            Self::Snapshots(_) => "snapshots",
            Self::Show(_) => "show",
            Self::Ls(_) => "ls",
            Self::Restore(_) => "restore",
            Self::Check(_) => "check",
            Self::Stats(_) => "stats",
            Self::Key(_) => "key",
            Self::Window(_) => "window",
            Self::Unlock(_) => "unlock",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
            Self::Demo(_) => "demo",
        }
    }
}

#[cfg(test)]
mod tests;
