//! A directory that is to be looked at, and the way to open it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::mounted::Mounted;
use super::scan::Seen;
use super::trail::Trail;
use crate::host::fs::{SourceDir, Stat};
use crate::host::process::Device;

/// Bytes of a way that are gone in one step: the kernel takes 4095.
pub(super) const WAY_MAX: usize = 2000;

/// An open directory from which others below it are opened.
pub(super) struct Anchor {
    pub(super) dir: Box<dyn SourceDir>,
    open: Arc<AtomicUsize>,
}

impl Anchor {
    /// Keeps a directory open; `open` counts all that are.
    pub(super) fn new(dir: Box<dyn SourceDir>, open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self { dir, open: Arc::clone(open) }
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// From where the directories below one are opened.
pub(super) struct Base {
    pub(super) anchor: Arc<Anchor>,
    pub(super) depth: usize,
}

impl Base {
    /// The target for a name of the directory.
    pub(super) fn below(&self, seen: &Seen, trail: Trail, volume: &Arc<Mounted>) -> Target {
        Target {
            anchor: Arc::clone(&self.anchor),
            anchor_depth: self.depth,
            trail,
            volume: Arc::clone(volume),
            stat: Some(seen.stat),
            inode: Some((seen.stat.dev, seen.stat.ino)),
            meta_known: seen.meta_known,
        }
    }
}

/// A directory that is to be looked at.
#[derive(Clone)]
pub(super) struct Target {
    /// An open directory above it ...
    pub(super) anchor: Arc<Anchor>,
    /// ... its depth ...
    pub(super) anchor_depth: usize,
    /// ... and the way from the top; that of the anchor for the anchor itself.
    pub(super) trail: Trail,
    /// Its file system, where it is that of the directory above.
    pub(super) volume: Arc<Mounted>,
    /// What its directory said of it; `None` for a root, and where that was not looked at.
    pub(super) stat: Option<Stat>,
    /// What it must be; `None` for a root.
    pub(super) inode: Option<(Device, u64)>,
    /// Whether its own metadata is known from the record of the directory above.
    pub(super) meta_known: bool,
}

impl Target {
    /// Opens it from its anchor, in steps where the way is longer than the kernel takes at once.
    pub(super) fn open(&self) -> io::Result<Box<dyn SourceDir>> {
        let mut at: Option<Box<dyn SourceDir>> = None;
        let way = self.trail.way_from(self.anchor_depth);
        let mut way: &[u8] = if way.is_empty() { b"." } else { &way };
        while way.len() > WAY_MAX {
            // A name is shorter than a step.
            let cut = way[..WAY_MAX].iter().rposition(|&b| b == b'/').unwrap_or(way.len());
            let from: &dyn SourceDir = at.as_deref().unwrap_or(&*self.anchor.dir);
            let next = from.open_dir(&way[..cut])?;
            way = way.get(cut + 1..).unwrap_or_default();
            at = Some(next);
        }
        let from: &dyn SourceDir = at.as_deref().unwrap_or(&*self.anchor.dir);
        from.open_dir(way)
    }
}
