//! `key`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub(super) const LONG_ABOUT: &str = "\
Manage the keys that open the repository.

A repository can have several keys, each with its own password; any one opens it. The last key \
cannot be removed. Without any key the content is lost for good: keep a recovery key apart from \
the machine.";

const EXPORT_ABOUT: &str = "\
Print the repository's key itself, to keep it in a safe place.

Whoever has it can read everything that is kept, without any password, for as long as the \
repository exists: passwords can be changed, this key cannot.";

const IMPORT_ABOUT: &str = "\
Open the repository with an exported key, and add a password for it.

For the day on which every password is lost. The key is read from a file or from standard input: \
one line, or the numbered lines of a paper copy. An exported key of another repository is refused \
(12).";

const EXAMPLES: &str = "\
Examples:
  cabk key list
  cabk key add --label night-job --new-password-file /etc/cabk/password
  cabk key add --recovery
  cabk key export --paper > cabk-key.txt";

/// `key`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct KeyArgs {
    /// What to do with keys.
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// What can be done with keys.
#[derive(Debug, Clone, Subcommand)]
pub enum KeyCommand {
    /// List the keys, without what is secret in them
    List,
    /// Add a key with a password of its own
    Add(KeyAdd),
    /// Remove a key; the last one stays
    Remove(KeyRemove),
    /// Change the password of the key that opened the repository
    Passwd(KeyPasswd),
    /// Seal what is written from now on with a new key
    Rotate,
    /// Print the repository's key itself, to keep it in a safe place
    #[command(long_about = EXPORT_ABOUT)]
    Export(KeyExport),
    /// Open the repository with an exported key, and add a password for it
    #[command(long_about = IMPORT_ABOUT)]
    Import(KeyImport),
}

/// Where a new password comes from; on a terminal it is asked for, twice.
#[derive(Debug, Clone, Default, Args)]
pub struct NewKey {
    /// Read the new password from a file
    #[arg(long, value_name = "FILE", conflicts_with = "new_password_command")]
    pub new_password_file: Option<PathBuf>,

    /// Read the new password from what a command prints
    #[arg(long, value_name = "COMMAND")]
    pub new_password_command: Option<String>,
}

/// `key add`.
#[derive(Debug, Clone, Default, Args)]
pub struct KeyAdd {
    /// The new password.
    #[command(flatten)]
    pub new: NewKey,

    /// A name for the key, to tell it from the others
    #[arg(long, value_name = "LABEL")]
    pub label: Option<String>,

    /// Make a recovery key: the password is drawn at random and printed once
    #[arg(long, conflicts_with_all = ["new_password_file", "new_password_command"])]
    pub recovery: bool,
}

/// `key remove`.
#[derive(Debug, Clone, Args)]
pub struct KeyRemove {
    /// The key's id, as `key list` shows it
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `key passwd`.
#[derive(Debug, Clone, Default, Args)]
pub struct KeyPasswd {
    /// The new password.
    #[command(flatten)]
    pub new: NewKey,
}

/// `key export`.
#[derive(Debug, Clone, Default, Args)]
pub struct KeyExport {
    /// Print it in short lines with check digits, to be kept on paper and typed in again
    #[arg(long)]
    pub paper: bool,
}

/// `key import`.
#[derive(Debug, Clone, Default, Args)]
pub struct KeyImport {
    /// The exported key [default: standard input]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// The new password.
    #[command(flatten)]
    pub new: NewKey,

    /// A name for the key, to tell it from the others
    #[arg(long, value_name = "LABEL")]
    pub label: Option<String>,
}
