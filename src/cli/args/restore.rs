//! `restore`.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgGroup, Args};

use super::look::ReadArgs;
use super::value::{NameMap, RefPath, parse_name_map, parse_node, parse_ref_path};

pub(super) const LONG_ABOUT: &str = "\
Restore a snapshot, beside the living site or in place.

With --target DIR each source is put at DIR followed by its own absolute path; with ID:PATH the \
content of that subtree is put directly in DIR. With --in-place every directory source is made \
what the snapshot holds.

An interrupted restore is resumed by the same command. Captures are refused (21).";

const EXAMPLES: &str = "\
Examples:
  Beside the living site, into a new directory:
    cabk restore latest --target /srv/restored
  One directory of it, and compare every byte afterwards:
    cabk restore 3f9a21:/var/lib/rstudio-connect/apps --target /srv/apps --verify
  In place: see what would change, then do it:
    cabk restore latest --in-place --dry-run
    cabk restore latest --in-place
  On a machine where the service runs under another user:
    cabk restore latest --target /srv/restored --map-user rstudio-connect:connect";

/// `restore`.
#[derive(Debug, Clone, Args)]
#[command(
    after_long_help = EXAMPLES,
    group = ArgGroup::new("where").required(true).args(["target", "in_place"])
)]
pub struct RestoreArgs {
    /// The snapshot: at least 6 digits of its id, or `latest`; ID:PATH for a part of it
    #[arg(value_name = "ID[:PATH]",
        value_parser = OsStringValueParser::new().try_map(parse_ref_path))]
    pub what: RefPath,

    /// Restore into this directory: absent, empty, or an unfinished restore of this snapshot
    #[arg(long, value_name = "DIR")]
    pub target: Option<PathBuf>,

    /// Restore to where it came from
    #[arg(long)]
    pub in_place: bool,

    /// Restore only what matches, written as in .gitignore (repeatable)
    #[arg(long = "include", value_name = "GLOB")]
    pub includes: Vec<String>,

    /// Leave out what matches, written as in .gitignore (repeatable)
    #[arg(long = "exclude", value_name = "GLOB")]
    pub excludes: Vec<String>,

    /// Delete what the snapshot does not hold (with --target or --include)
    #[arg(long, conflicts_with = "keep_extra")]
    pub delete: bool,

    /// Leave what the snapshot does not hold (with --in-place)
    #[arg(long, conflicts_with = "target")]
    pub keep_extra: bool,

    /// List what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Read back and compare everything that was restored
    #[arg(long, conflicts_with = "dry_run")]
    pub verify: bool,

    /// Set owners by number, not by name
    #[arg(long, help_heading = "Owners")]
    pub numeric_ids: bool,

    /// Give what belonged to user OLD to user NEW; names or numbers (repeatable)
    #[arg(long = "map-user", value_name = "OLD:NEW", value_parser = parse_name_map,
        help_heading = "Owners")]
    pub map_users: Vec<NameMap>,

    /// Give what belonged to group OLD to group NEW; names or numbers (repeatable)
    #[arg(long = "map-group", value_name = "OLD:NEW", value_parser = parse_name_map,
        help_heading = "Owners")]
    pub map_groups: Vec<NameMap>,

    /// Leave the databases as they are, although keys and database belong together
    #[arg(long, help_heading = "What is otherwise refused")]
    pub no_database: bool,

    /// Restore in place although another version of Connect is installed
    #[arg(long, help_heading = "What is otherwise refused")]
    pub ignore_version: bool,

    /// Restore in place although the snapshot is of the site with this label
    #[arg(long, value_name = "LABEL", help_heading = "What is otherwise refused")]
    pub as_site: Option<String>,

    /// Put licence files back, although this may be another machine
    #[arg(long, help_heading = "What is otherwise refused")]
    pub with_license: bool,

    /// A machine on which the service must not run: `local`, this one (repeatable)
    #[arg(long = "node", value_name = "NODE", value_parser = parse_node,
        help_heading = "What is otherwise refused")]
    pub nodes: Vec<String>,

    /// Reading.
    #[command(flatten)]
    pub read: ReadArgs,
}
