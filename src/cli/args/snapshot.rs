//! `snapshot`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::source::SourceArgs;
use super::value::{parse_any_node, parse_rate};
use crate::base::time::parse_duration;
use crate::host::aside::Aside;

pub(super) const LONG_ABOUT: &str = "\
Take a snapshot of the site: check, pre-copy, stop, prove, read, start, commit.

Everything that can fail is tried before the service is stopped, and most of the data is read \
while it still runs. What changed since is read while it is stopped. Afterwards whatever ran \
before is started again, whatever happened.

If it cannot be proven that nothing moved while it was read, the result is a capture, which can \
never be restored, and the exit code is 4.";

const EXAMPLES: &str = "\
Examples:
  The site of this machine:
    cabk snapshot
  Show what would be done, and stop nothing:
    cabk snapshot --dry-run
  Before an upgrade: leave the service stopped, and find the snapshot by its tag:
    cabk snapshot --leave-stopped --tag before-upgrade
  A cluster of this machine and another one, which is reached by ssh:
    cabk snapshot --node local --node ssh://root@connect-2
  A service that systemd does not run:
    cabk snapshot --stop-command 'docker stop connect' --start-command 'docker start connect' \\
      --status-command 'docker inspect -f {{.State.Running}} connect | grep -q true || exit 3'
  Plain directories, no service:
    cabk snapshot --path /srv/shared --site-name shared";

/// Whether content is read ahead while the service still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecopyMode {
    /// Read ahead whatever shortens the stop
    Auto,
    /// Read everything while the service is stopped
    Never,
}

/// How the sources are held still while they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FreezeMode {
    /// The best that there is: the configured commands, or snapshots of btrfs
    Auto,
    /// Nothing: all is read while the service is stopped
    None,
    /// Snapshots of btrfs
    Btrfs,
    /// Clones of single large files (not there yet)
    Reflink,
    /// The commands of the configuration
    Command,
}

/// `snapshot`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct SnapshotArgs {
    /// Label the snapshot, to find it again (repeatable)
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,

    /// Show what would be stopped and read, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Go on where the result can only be a capture, which is never restorable
    #[arg(long)]
    pub allow_capture: bool,

    /// Go on although the state directory would not survive a reboot
    #[arg(long)]
    pub allow_volatile_state: bool,

    /// How long to wait where another snapshot of the site runs [default: 0]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub lock_wait: Option<Duration>,

    /// How long a single read may take on a file system that another machine serves [default: 60s]
    ///
    /// A file that does not answer is then a problem of that file, and the run goes on.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub read_timeout: Option<Duration>,

    /// Be the second process of a run
    #[arg(long, value_name = "FD:PID", hide = true)]
    pub aside: Option<Aside>,

    /// What is read.
    #[command(flatten)]
    pub source: SourceArgs,

    /// The service.
    #[command(flatten)]
    pub service: ServiceArgs,

    /// Manners.
    #[command(flatten)]
    pub neighbour: NeighbourArgs,
}

/// Whether cabk gives way to others while the service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NiceMode {
    /// Read with idle priority, and pause while others wait for their disk
    Auto,
    /// Read as any other program
    None,
}

/// What a run does not do to those who work on the site while it reads.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "While the service runs")]
pub struct NeighbourArgs {
    /// Read at most so much a second from the sources, such as `50 MiB`; the window is not slowed
    /// [default: no bound]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub max_read_rate: Option<u64>,

    /// Whether reading gives way to others; the window does not [default: auto]
    #[arg(long, value_name = "MODE", value_enum)]
    pub nice: Option<NiceMode>,

    /// Shell command that is told before reading begins and when the run is over
    ///
    /// CABK_EVENT is `announce-before` or `announce-after`. It has a minute, and its failure is a
    /// warning.
    #[arg(long, value_name = "COMMAND")]
    pub announce: Option<String>,
}

/// How the service is stopped and started.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "The service")]
pub struct ServiceArgs {
    /// A systemd unit to stop (repeatable; started in reverse order)
    /// [default: rstudio-connect.service]
    #[arg(long = "service", value_name = "UNIT", conflicts_with_all = ["stop_command",
        "start_command", "status_command"])]
    pub services: Vec<String>,

    /// A machine on which the service runs: `local`, this one, or `ssh://[USER@]HOST[:PORT]`
    /// (repeatable) [default: local]
    ///
    /// With any --node this machine counts only if `local` is among them. Other nodes are reached by
    /// the system's ssh, without asking for a password.
    #[arg(long = "node", value_name = "NODE", value_parser = parse_any_node)]
    pub nodes: Vec<String>,

    /// Shell command that stops the service, instead of systemd
    #[arg(long, value_name = "COMMAND")]
    pub stop_command: Option<String>,

    /// Shell command that starts the service
    ///
    /// It gets CABK_WAS: what the status command printed before the stop.
    #[arg(long, value_name = "COMMAND")]
    pub start_command: Option<String>,

    /// Shell command that tells whether the service runs: exit code 0 running, 3 stopped
    #[arg(long, value_name = "COMMAND")]
    pub status_command: Option<String>,

    /// The service has been stopped already: stop and start nothing
    #[arg(long)]
    pub already_stopped: bool,

    /// Do not start the service again
    #[arg(long)]
    pub leave_stopped: bool,

    /// Start the service again after this time at the latest; the result is then a capture
    /// [default: 30m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub max_downtime: Option<Duration>,

    /// How long to wait after the stop for processes to leave the sources [default: 2m; 0 for plain
    /// directories]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub wait_quiet: Option<Duration>,

    /// How long to postpone the stop until nothing is being rendered [default: 0]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub wait_idle: Option<Duration>,

    /// Whether content is read ahead while the service runs [default: auto]
    #[arg(long, value_name = "MODE", value_enum)]
    pub precopy: Option<PrecopyMode>,

    /// How the sources are held still, so that the service starts before they are read [default: auto]
    #[arg(long, value_name = "MODE", value_enum)]
    pub freeze: Option<FreezeMode>,
}
