//! How many threads look and read.

use super::forest::ReadInput;
use crate::base::path::is_within;
use crate::host::fs::volume;

/// Looks that are waited for at once where answers come from far away ...
const FAR_LOOKS: usize = 64;
/// ... and files that are read at once.
const FAR_READS: usize = 16;

/// How many threads look at directories, and how many read files.
#[derive(Clone, Copy)]
pub(super) struct Threads {
    pub(super) look: usize,
    pub(super) read: usize,
    /// Some answers come from far away: what counts is how many are waited for at once, not how many
    /// processors there are.
    pub(super) far: bool,
}

impl Threads {
    pub(super) fn of(input: &ReadInput<'_>) -> Self {
        let own = input.threads.max(1);
        match is_far(input) {
            false => Self { look: own, read: own, far: false },
            // On a first snapshot each thread that reads has large blocks of its own.
            true if input.sort => Self { look: own.max(FAR_LOOKS), read: own, far: true },
            true => Self { look: own.max(FAR_LOOKS), read: own.max(FAR_READS), far: true },
        }
    }
}

/// Whether a root, or something mounted below one, is no file system of this machine. What cannot be
/// found out is a problem of the reading.
fn is_far(input: &ReadInput<'_>) -> bool {
    let far = |path: &Vec<u8>| {
        let dir = input.fs.open_root(path).ok()?;
        let volume = input.fs.volume(&*dir).ok()?;
        Some(!volume.local && !volume.pseudo)
    };
    let below = volume::mounts().unwrap_or_default();
    let mut below =
        below.iter().filter(|m| input.plan.roots.iter().any(|r| is_within(&m.point, r)));
    input.plan.roots.iter().any(|root| far(root) == Some(true))
        || below.any(|m| !volume::is_local(&m.fs_type) && !volume::is_pseudo(&m.fs_type))
}
