//! Commands with few options: `init`, `window`, `unlock`, `completions`, `man`, `demo`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::value::{Percent, parse_percent};

const INIT_EXAMPLES: &str = "\
Examples:
  cabk --repo /srv/backup/connect init
  cabk --repo /srv/backup/connect --password-file /etc/cabk/password init
  cabk --repo /mnt/second init --related-to /srv/backup/connect";

pub(super) const INIT_ABOUT: &str = "\
Make a new repository.

It is encrypted unless --no-encryption is given. On a terminal init ends by offering a \
recovery key. Without the password and without a recovery key nobody can read what is kept.";

/// `init`.
#[derive(Debug, Clone, Default, Args)]
#[command(
    after_long_help = INIT_EXAMPLES
)]
pub struct InitArgs {
    /// Do not encrypt: whoever can read the directory can read all that is kept
    #[arg(long)]
    pub no_encryption: bool,

    /// Add this much redundancy, to mend damage with
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub parity: Option<Percent>,

    /// Compression level of zstd, 1 (fast) to 19 (small) [default: 3]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(1..=19))]
    pub compression: Option<u8>,

    /// Take over names and cuts from another repository, so that copying between them is cheap
    #[arg(long, value_name = "REPO")]
    pub related_to: Option<std::ffi::OsString>,

    /// Read the password of the repository named by --related-to from a file
    #[arg(
        long,
        value_name = "FILE",
        requires = "related_to",
        conflicts_with = "related_password_command"
    )]
    pub related_password_file: Option<PathBuf>,

    /// Read the password of the repository named by --related-to from what a command prints
    #[arg(long, value_name = "COMMAND", requires = "related_to")]
    pub related_password_command: Option<String>,
}

/// `window`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "Examples:\n  cabk window status\n  cabk window recover\n  \
                       cabk window install")]
pub struct WindowArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: WindowCommand,
}

/// What can be done about a window.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum WindowCommand {
    /// Show whether a window is open, and what a killed run left
    Status,
    /// Start what a killed run had stopped; does nothing where there is nothing to do
    Recover,
    /// Put in place what starts a service after a boot, and what holds it down in a window
    #[command(long_about = INSTALL_ABOUT)]
    Install(InstallArgs),
    /// Take away what `install` put in place
    Uninstall(InstallArgs),
    /// Watch over a window from outside; what `snapshot` runs beside itself
    #[command(hide = true)]
    Guard(GuardArgs),
}

const INSTALL_ABOUT: &str = "\
Put in place what starts a service after a boot, and what holds it down in a window.

A unit that runs `cabk window recover` at boot, and for each unit that a window stops a drop-in with \
ConditionPathExists=!/run/cabk/hold-UNIT: as long as a window is open nobody else can start it by \
accident. The hold goes with the window, with its owner or with the longest downtime. It is for this \
machine; do the same on each node. Doing it again changes nothing.";

/// `window install`, `window uninstall`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct InstallArgs {
    /// A unit that a window stops; may be repeated [default: those of the configuration]
    #[arg(long = "unit", value_name = "UNIT")]
    pub units: Vec<String>,

    /// Write below this directory, and tell no systemd
    #[arg(long, value_name = "DIR", hide = true)]
    pub root: Option<PathBuf>,
}

/// `window guard`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct GuardArgs {
    /// Where the intent is
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,

    /// The site's label
    #[arg(long, value_name = "LABEL")]
    pub site: String,

    /// Milliseconds after which the service is started even if the run still lives
    #[arg(long, value_name = "N")]
    pub within_ms: u64,

    /// Be the process that watches, at the end of a pipe
    #[arg(long)]
    pub watching: bool,

    /// Watch by the owner's process number, without a pipe
    #[arg(long)]
    pub by_process: bool,
}

pub(super) const UNLOCK_ABOUT: &str = "\
Remove stale leases.

A lease whose holder died on this machine is known to be stale. Of another machine cabk cannot \
know: name it with --host only when no run of cabk is alive there.";

/// `unlock`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_long_help = "Examples:\n  cabk unlock\n  cabk unlock --host old-backup-host")]
pub struct UnlockArgs {
    /// Also remove the leases of this machine, where no run of cabk is alive any more
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
}

/// `completions`.
#[derive(Debug, Clone, Copy, Args)]
#[command(after_long_help = "Examples:\n  cabk completions bash > /etc/bash_completion.d/cabk\n  \
                       cabk completions zsh > /usr/local/share/zsh/site-functions/_cabk")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "Example:\n  cabk man /usr/local/share/man/man1")]
pub struct ManArgs {
    /// The directory, made if it is not there: one page for each command
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

pub(super) const DEMO_ABOUT: &str = "\
Show the main job on a throw-away site with a living toy service.

Everything happens in a temporary directory that is removed at the end: two snapshots through \
stop and start, a third that a writer disturbs so that it becomes a capture, the refusal to \
restore that capture, and a restore that is compared with what was there. No root is needed.";

/// `demo`.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command()]
pub struct DemoArgs {}
