//! How the sources are held still, from flag and configuration.

use crate::base::path::bytes;
use crate::cli::args::{FreezeMode, SnapshotArgs};
use crate::cli::config::Freeze;
use crate::cli::exit::{CliError, Kind};
use crate::cli::global::Context;
use crate::host::freeze::holding_places;
use crate::intake::plan::ReadPlan;
use crate::ops::snapshot::{FreezeKind, FreezeWish};

/// What the operator wishes.
pub(super) fn wish(context: &Context, args: &SnapshotArgs) -> Result<FreezeWish, CliError> {
    let window = &context.loaded.config.window;
    if args.service.freeze == Some(FreezeMode::Reflink) {
        let message = "clones of single files cannot be made yet in this version";
        return Err(CliError::new(Kind::Refused, message)
            .hint("--freeze auto takes what there is, --freeze none reads all in the window"));
    }
    let kind = match (args.service.freeze, window.freeze) {
        (Some(FreezeMode::Auto), _) | (None, Freeze::Auto) => FreezeKind::Auto,
        // The configuration's wish for clones has no effect yet, which is said where it is read.
        (Some(FreezeMode::None | FreezeMode::Reflink), _)
        | (None, Freeze::None | Freeze::Reflink) => FreezeKind::None,
        (Some(FreezeMode::Btrfs), _) | (None, Freeze::Btrfs) => FreezeKind::Btrfs,
        (Some(FreezeMode::Command), _) | (None, Freeze::Command) => FreezeKind::Command,
    };
    let path = window.freeze_path.as_ref().map(|path| bytes(path).to_vec()).unwrap_or_default();
    let create = window.freeze_create.clone();
    let missing = match (create.is_empty(), path.is_empty()) {
        (true, _) if kind == FreezeKind::Command => Some("freeze_create"),
        (false, true) => Some("freeze_path"),
        _ => None,
    };
    if let Some(key) = missing {
        let message = format!("a command can freeze only where window.{key} is configured");
        return Err(CliError::new(Kind::Config, message));
    }
    Ok(FreezeWish { kind, create, path, remove: window.freeze_remove.clone() })
}

/// Where snapshots lie while they are read: no part of a source.
pub(super) fn left_out(plan: &ReadPlan) -> Vec<Vec<u8>> {
    // Mounts that cannot be listed keep everything from being frozen, too.
    holding_places(&plan.roots).unwrap_or_default()
}
