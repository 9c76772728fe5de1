//! The second look: all names and inodes once more, compared with the first look. Nothing is
//! opened but directories.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::digest::Digest;
use super::engine::IntakeError;
use super::scan::{Listing, LookError, Looker, Target, short};
use crate::base::path::join;
use crate::base::time::Timestamp;
use crate::host::fs::{InodeKind, Stat};
use crate::host::process::{Device, InodeSet};
use crate::host::signal::Interrupt;

/// A digest of all of a directory, and eight bytes of each of its names.
type SeenDir = (Digest, Box<[u64]>);

/// What the first look saw of every directory: a digest of the whole and eight bytes of each name.
#[derive(Default)]
pub struct FirstLook {
    dirs: HashMap<(Device, u64), SeenDir>,
    inodes: HashMap<Device, Vec<u64>>,
    leaves: Vec<(Vec<u8>, Stat)>,
    began: Option<Timestamp>,
}

impl FirstLook {
    /// A look that begins now.
    pub(super) fn begun(began: Timestamp) -> Self {
        Self { began: Some(began), ..Self::default() }
    }

    pub(super) fn add(
        &mut self,
        dev: Device,
        ino: u64,
        exact: Digest,
        all: &[Digest],
        inodes: &[u64],
    ) {
        let mut shorts: Box<[u64]> = all.iter().map(short).collect();
        shorts.sort_unstable();
        self.dirs.insert((dev, ino), (exact, shorts));
        let list = self.inodes.entry(dev).or_default();
        list.push(ino);
        list.extend_from_slice(inodes);
    }

    pub(super) fn add_leaf(&mut self, path: Vec<u8>, stat: Stat) {
        self.inodes.entry(stat.dev).or_default().push(stat.ino);
        self.leaves.push((path, stat));
    }

    pub(super) fn finish(mut self) -> Self {
        for list in self.inodes.values_mut() {
            list.sort_unstable();
            list.dedup();
            list.shrink_to_fit();
        }
        self
    }

    pub(super) fn leaves(&self) -> &[(Vec<u8>, Stat)] {
        &self.leaves
    }
}

impl InodeSet for FirstLook {
    fn devices(&self) -> Vec<Device> {
        self.inodes.keys().copied().collect()
    }

    fn contains(&self, device: Device, ino: u64) -> bool {
        self.inodes.get(&device).is_some_and(|list| list.binary_search(&ino).is_ok())
    }

    fn as_of(&self) -> Option<Timestamp> {
        self.began
    }
}

/// What the second look found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SecondLook {
    /// Names that are new, gone or changed; of a name that is gone its directory.
    pub changed: Vec<Vec<u8>>,
    /// How many there were, where the list was ended.
    pub changed_total: u64,
    /// Names looked at.
    pub looked: u64,
}

/// Paths that are listed by name; the rest is counted.
const LISTED_MAX: usize = 1_000;

impl SecondLook {
    /// Whether everything is as it was.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.changed_total == 0
    }

    pub(super) fn add(&mut self, path: Vec<u8>) {
        self.changed_total += 1;
        if self.changed.len() < LISTED_MAX {
            self.changed.push(path);
        }
    }
}

/// Looks at a directory and all below it a second time.
pub(super) fn again(
    looker: &Looker<'_>,
    pool: &rayon::ThreadPool,
    interrupt: &Interrupt,
    first: &FirstLook,
    root: Target,
    result: &mut SecondLook,
) -> Result<(), IntakeError> {
    let mut stack = vec![root];
    while !stack.is_empty() {
        if interrupt.is_set() {
            return Err(IntakeError::Interrupted);
        }
        let batch = stack.split_off(stack.len().saturating_sub(512));
        let looks: Vec<Result<Listing, LookError>> =
            pool.install(|| batch.par_iter().map(|target| looker.list_again(target)).collect());
        for (target, look) in batch.into_iter().zip(looks) {
            match look {
                Ok(listing) => compare(first, target, listing, &mut stack, result),
                Err(LookError::Fatal(error)) => return Err(error.into()),
                Err(LookError::LeftOut(_)) => {}
                Err(LookError::Source(..) | LookError::Replaced) => result.add(target.path),
            }
        }
    }
    Ok(())
}

fn compare(
    first: &FirstLook,
    target: Target,
    listing: Listing,
    stack: &mut Vec<Target>,
    result: &mut SecondLook,
) {
    result.looked += listing.seen.len() as u64;
    match first.dirs.get(&(listing.stat.dev, listing.stat.ino)) {
        Some((exact, _)) if *exact == listing.exact => {}
        Some((_, shorts)) => {
            let before = result.changed_total;
            for (seen, digest) in listing.seen.iter().zip(&listing.all) {
                if shorts.binary_search(&short(digest)).is_err() {
                    result.add(join(&target.path, &seen.name));
                }
            }
            if result.changed_total == before || listing.seen.len() < shorts.len() {
                result.add(target.path.clone());
            }
        }
        None => result.add(target.path.clone()),
    }
    let long = target.way.len() > 2000;
    let anchor = if long { Arc::from(listing.dir) } else { Arc::clone(&target.anchor) };
    for seen in listing.seen.into_iter().filter(|s| s.stat.kind == InodeKind::Dir) {
        stack.push(Target {
            anchor: Arc::clone(&anchor),
            way: if long { seen.name.clone() } else { join(&target.way, &seen.name) },
            path: join(&target.path, &seen.name),
            volume: Arc::clone(&listing.volume),
            stat: Some(seen.stat),
            meta_known: true,
        });
    }
}
