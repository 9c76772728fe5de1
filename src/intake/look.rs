//! The second look: all names and inodes once more, compared with the first look. Nothing is
//! opened but directories.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::digest::Digest;
use super::engine::IntakeError;
use super::first::DirNo;
pub use super::first::{FirstLook, Inodes};
use super::scan::{Listing, LookError, Looker, Seen, Target, short};
use crate::base::path::join;
use crate::host::fanotify::DirtySet;
use crate::host::fs::{InodeKind, SourceFs};
use crate::host::process::InodeSet;
use crate::host::signal::Interrupt;
use crate::store::reader::ReadError;

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

/// Files that events told of and whose names are looked for.
const NAMED_MAX: usize = 20;

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

    /// Adds what was found below another root, or in another way. Each keeps its own list, so that
    /// many changes below one hide none below another.
    pub fn merge(&mut self, other: Self) {
        self.changed.extend(other.changed);
        self.changed_total += other.changed_total;
        self.looked += other.looked;
    }
}

/// What the kernel told of the inodes of a first look, by name: what is in the set, and neither
/// what lies beside it nor what was never there when the look was taken. A file that was made since
/// is told by its directory.
#[must_use]
pub fn touched(fs: &dyn SourceFs, first: &FirstLook, dirty: &DirtySet) -> SecondLook {
    let mut result = SecondLook { looked: dirty.events, ..SecondLook::default() };
    let mut inodes: Vec<_> = dirty.inodes.iter().copied().collect();
    inodes.retain(|&(dev, ino)| first.contains(dev, ino));
    inodes.sort_unstable();
    for (dev, ino) in inodes {
        if let Some(no) = first.selves(dev, ino).next() {
            result.add(first.path(no));
        } else if let Some(leaf) =
            first.leaves().iter().find(|leaf| (leaf.stat.dev, leaf.stat.ino) == (dev, ino))
        {
            result.add(leaf.path.clone());
        } else if let Some(no) = first.holders(dev, ino).next() {
            let dir = first.path(no);
            let few = result.changed.len() < NAMED_MAX;
            let name = few.then(|| name_of(fs, &dir, ino)).flatten();
            result.add(name.map_or(dir.clone(), |name| join(&dir, &name)));
        }
    }
    result.changed.sort_unstable();
    result
}

/// The name of an inode in a directory, where it is still there.
fn name_of(fs: &dyn SourceFs, dir: &[u8], ino: u64) -> Option<Vec<u8>> {
    let names = fs.open_root(dir).ok()?.names().ok()?;
    names.into_iter().find(|raw| raw.ino == ino).map(|raw| raw.name)
}

/// Looks at a directory and all below it a second time, by all threads; the order does not matter.
pub(super) fn again(
    looker: &Looker<'_>,
    pool: &rayon::ThreadPool,
    interrupt: &Interrupt,
    first: &FirstLook,
    root: Target,
) -> Result<SecondLook, IntakeError> {
    let again = Again {
        looker,
        interrupt,
        first,
        looked: AtomicU64::new(0),
        found: Mutex::default(),
        failure: Mutex::default(),
    };
    pool.scope(|scope| again.look(scope, root));
    if interrupt.is_set() {
        return Err(IntakeError::Interrupted);
    }
    let into = |e: PoisonError<_>| e.into_inner();
    if let Some(error) = again.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error.into());
    }
    let mut found = again.found.into_inner().unwrap_or_else(into);
    found.changed.sort_unstable();
    found.looked = again.looked.into_inner();
    Ok(found)
}

/// A second look on its way.
struct Again<'a> {
    looker: &'a Looker<'a>,
    interrupt: &'a Interrupt,
    first: &'a FirstLook,
    looked: AtomicU64,
    found: Mutex<SecondLook>,
    failure: Mutex<Option<ReadError>>,
}

impl<'a> Again<'a> {
    fn look<'s>(&'s self, scope: &rayon::Scope<'s>, target: Target)
    where
        'a: 's,
    {
        if self.interrupt.is_set() {
            return;
        }
        match self.looker.list(&target) {
            Ok((dir, listing)) => {
                self.looked.fetch_add(listing.seen.len() as u64, Ordering::Relaxed);
                self.compare(&target, &listing);
                let mut below =
                    listing.seen.iter().filter(|s| s.stat.kind == InodeKind::Dir).peekable();
                if below.peek().is_none() {
                    return;
                }
                let base = self.looker.base(&target, dir);
                for seen in below {
                    let trail = target.trail.below(&seen.name);
                    let child = base.below(seen, trail, &listing.volume);
                    scope.spawn(|scope| self.look(scope, child));
                }
            }
            Err(LookError::Fatal(error)) => {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            Err(LookError::LeftOut(_)) => {}
            Err(LookError::Source(..) | LookError::Replaced) => self.add([target.trail.path()]),
        }
    }

    fn add(&self, paths: impl IntoIterator<Item = Vec<u8>>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        paths.into_iter().for_each(|path| found.add(path));
    }

    fn compare(&self, target: &Target, listing: &Listing) {
        let stat = &listing.stat;
        let mut then = self.first.selves(stat.dev, stat.ino).peekable();
        let Some(&any) = then.peek() else { return self.add([target.trail.path()]) };
        let dir = |no: DirNo| &self.first.dirs[no as usize];
        if then.any(|no| dir(no).exact == listing.exact) {
            return;
        }
        let as_then = |(seen, digest): &(&Seen, &Digest)| {
            let mut then = self.first.names_of(seen.stat.dev, seen.stat.ino);
            then.any(|known| known == (any, short(digest)))
        };
        let each = listing.seen.iter().zip(&listing.all);
        let mut changed: Vec<Vec<u8>> = each
            .filter(|one| !as_then(one))
            .map(|(seen, _)| target.trail.path_of(&seen.name))
            .collect();
        if changed.is_empty() || listing.seen.len() < dir(any).names as usize {
            changed.push(target.trail.path());
        }
        self.add(changed);
    }
}
