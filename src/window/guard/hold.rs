//! A hold: a file that keeps a unit from being started by others while a window is open, where the
//! drop-in of `window install` looks for it. Nothing depends on it, and it never outlives its
//! deadline or its owner by long.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::intent::Owner;
use crate::base::time::Timestamp;
use crate::host::clock::Clock;
use crate::host::machine;

/// Where holds are: gone after a reboot.
pub const HOLDS: &str = "/run/cabk";

/// Beginning of their names; the unit's name follows.
const PREFIX: &str = "hold-";

/// Bytes of one that are read.
const MAX_BYTES: u64 = 4096;

/// What stands in a hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// Until when it may be there.
    pub deadline: Timestamp,
    /// Whose it is.
    pub owner: Owner,
}

impl Hold {
    /// Whether nothing is held by it any more. An owner of another boot is on another machine:
    /// only time tells.
    fn is_over(&self, clock: &dyn Clock) -> bool {
        let here = machine::boot_id().is_ok_and(|boot| boot == self.owner.boot_id);
        clock.now() >= self.deadline || (here && !self.owner.is_alive().unwrap_or(true))
    }
}

/// Removes the holds of this machine that are past their deadline, whose owner is dead, or that
/// cannot be read. What was removed.
pub fn sweep_holds(dir: &PathBuf, clock: &dyn Clock) -> Vec<PathBuf> {
    let Ok(names) = std::fs::read_dir(dir) else { return Vec::new() };
    let holds = names
        .flatten()
        .filter(|name| name.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    let over = |path: &PathBuf| read(path).is_none_or(|hold| hold.is_over(clock));
    let paths = holds.map(|name| name.path()).filter(over);
    paths.filter(|path| std::fs::remove_file(path).is_ok()).collect()
}

fn read(path: &Path) -> Option<Hold> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}
